//! `ha check`: every mistake in the files, then everything that would go wrong at run time.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use ha_core::name::NodeName;

use super::{node_name, say, say_json};
use crate::api::MeasuredView;
use crate::api::client::Client;
use crate::check::{self, HierarchyCheck, Report};
use crate::config;
use crate::daemon::host_name;
use crate::exit::{Exit, Failure};
use crate::render::status::problems;
use crate::view::{ClusterView, Problem, Severity};
use crate::words::{self, BAD, DIM, GOOD, HEAD, ago, styled};

/// Of `ha check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// This node's name in agent.ron [default: the host name]
    #[arg(long, env = "HA_NODE", value_name = "NODE", value_parser = node_name)]
    node: Option<NodeName>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// `ha check`.
pub(crate) async fn check(dir: &Path, client: &Client, args: CheckArgs) -> Result<Exit, Failure> {
    let me = args.node.map_or_else(host_name, Ok)?;
    let read = config::read(dir);
    let wrong = read.diagnostics.has_errors();
    if !args.json && !read.diagnostics.problems().is_empty() {
        say(format!("{}\n\n", read.diagnostics.in_colour()))?;
    }
    let Some(config) = read.config.filter(|_| !wrong) else {
        if args.json {
            say_json(&serde_json::json!({ "files": read.diagnostics }))?;
        }
        let errors = read.diagnostics.problems().len();
        return Err(Failure::new(
            Exit::BadInput,
            format!("{errors} mistake{} in the files of {}", if errors == 1 { "" } else { "s" }, dir.display()),
        )
        .help("nothing else was looked at: run it again when the files are right"));
    };
    // Without an agent nothing was measured; that none runs is told below.
    let measured: Vec<MeasuredView> = client.get("/v1/measured").await.unwrap_or_default();
    let mut report = check::look(&config, read.hierarchies, &me, &measured).await;
    report.problems.extend(of_the_cluster(client).await);
    report.problems.sort();
    if args.json {
        say_json(&serde_json::json!({ "files": read.diagnostics, "found": report }))?;
    } else {
        say(render(&report))?;
    }
    let bad = report.problems.iter().any(|p| p.severity == Severity::Error);
    Ok(if bad { Exit::Refused } else { Exit::Done })
}

/// What only the running agents know: whether the other nodes have the same files, and reach the same disks.
async fn of_the_cluster(client: &Client) -> Vec<Problem> {
    match client.get::<ClusterView>("/v1/status").await {
        Ok(view) => view
            .problems
            .into_iter()
            .filter(|p| p.what.contains("define") || p.what.contains("not the same disk"))
            .collect(),
        Err(_) => vec![Problem {
            severity: Severity::Note,
            about: "agent".to_owned(),
            what: "it does not run here: files and disks were not compared with those of the other nodes".to_owned(),
            help: None,
        }],
    }
}

fn render(report: &Report) -> String {
    let mut out = problems(&report.problems, words::terminal().map(|(columns, _)| columns));
    if !report.problems.is_empty() {
        out.push('\n');
    }
    for hierarchy in &report.hierarchies {
        out.push_str(&bounds(hierarchy));
    }
    let _ = match report.problems.iter().filter(|p| p.severity == Severity::Error).count() {
        0 => writeln!(out, "{}", styled(GOOD, "nothing stands in the way")),
        1 => writeln!(out, "{}", styled(BAD, "1 error stands in the way")),
        errors => writeln!(out, "{}", styled(BAD, format!("{errors} errors stand in the way"))),
    };
    out
}

fn bounds(hierarchy: &HierarchyCheck) -> String {
    let bounds = &hierarchy.bounds;
    let lease = match bounds.lease_ms {
        0 => String::new(),
        lease => format!(" lease over {},", ago(lease)),
    };
    let measured = hierarchy.measured_start_ms.map_or_else(String::new, |ms| format!(" (measured here: {})", ago(ms)));
    format!(
        "{} ({})\n  after the death of its node, at the latest: contact lost {},{lease} claim held {},\n  \
         then its resources have {} to start before the next node is tried{measured}\n\n",
        styled(HEAD, &hierarchy.name),
        styled(DIM, &hierarchy.origin),
        ago(bounds.detect_ms),
        ago(bounds.until_claimed_ms()),
        ago(bounds.start_ms),
    )
}
