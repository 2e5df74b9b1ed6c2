//! `ha simulate`: what would happen to this cluster, from its own files, without touching anything.
//!
//! Decides the options and the exit code. Leaves the simulation to [`crate::simulate`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ha_core::hierarchy::Source;
use ha_core::name::NodeName;
use ha_core::sim::scenario::parse_steps;
use ha_core::time::Span;

use super::{node_name, say, say_json, span};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::render::simulate as render;
use crate::simulate::{self, Assumed, Fault, Groups, Part, Report, Stage, Whose};
use crate::words;

/// Of `ha simulate`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is asked for happens all at one moment, to a cluster in which everything is in service. Without any of it, each \
                  node is lost in turn, then each pair, until one is left.\n\n\
                  Exit codes:\n  \
                  0  everything that a node is left for is in service in the end\n  \
                  1  something is not, or something unsafe happened, or a scenario failed\n  \
                  2  the command line or a file cannot be understood"
)]
pub(crate) struct SimulateArgs {
    /// These nodes lose their power, for good
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', value_parser = node_name)]
    kill: Vec<NodeName>,
    /// These machines hang
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', value_parser = node_name)]
    hang: Vec<NodeName>,
    /// The agents of these nodes hang; their machines go on
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', value_parser = node_name)]
    hang_agent: Vec<NodeName>,
    /// The networks between groups of nodes are cut, such as 'alpha,beta|gamma'; the storage is not
    #[arg(long, value_name = "GROUPS")]
    cut: Option<Groups>,
    /// These nodes reach the lock areas no more, or `all` of them
    #[arg(long, visible_alias = "cut-storage", value_name = "NODE,…|all", value_delimiter = ',')]
    storage_loss: Vec<Whose>,
    /// The program of a resource ends
    #[arg(long, value_name = "HIERARCHY/RESOURCE")]
    crash: Vec<Part>,
    /// The agents are restarted one after another, as in an update
    #[arg(long)]
    restart_agents: bool,
    /// Steps from a file, such as `power off alpha` and `until web in service on beta within 10s`: see docs/scenarios.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kill", "hang", "hang_agent", "cut", "storage_loss", "crash", "restart_agents"])]
    scenario: Option<PathBuf>,
    /// So many runs, in each of which random things happen for two minutes before everything is repaired; with `--seed`, other ones
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(u64).range(1..=1_000_000), conflicts_with_all = ["kill", "hang", "hang_agent", "cut", "storage_loss", "crash", "restart_agents", "scenario"])]
    random: Option<u64>,
    /// How long resources need to start: `5s` for all, `web/server=20s` for one [default: some milliseconds]
    #[arg(long, value_name = "TIME", value_parser = start_time)]
    start_time: Vec<(Option<Part>, Duration)>,
    /// How long a machine that was reset needs until its agent runs again
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "1min")]
    boot_time: Span,
    /// What everything that is left to chance is drawn from; the same number gives the same run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Show line by line what happens
    #[arg(long)]
    timeline: bool,
    /// As JSON, for programs
    #[arg(long, conflicts_with = "timeline")]
    json: bool,
}

fn start_time(text: &str) -> Result<(Option<Part>, Duration), String> {
    let (part, time) = match text.split_once('=') {
        Some((part, time)) => (Some(part.parse()?), time),
        None => (None, text),
    };
    Ok((part, span(time)?.0))
}

/// `ha simulate`.
pub(crate) fn simulate(dir: &Path, args: SimulateArgs) -> Result<Exit, Failure> {
    let (config, hierarchies, _) = config::read_whole(dir)?;
    if hierarchies.is_empty() {
        return Err(Failure::new(
            Exit::BadInput,
            format!("there are no hierarchies in {}", dir.join("hierarchies").display()),
        )
        .help("hierarchies/*.ron say what the cluster serves: docs/configuration.md describes them"));
    }
    let assumed = Assumed { starts: args.start_time.clone(), boot: args.boot_time.0, seed: args.seed };
    let stage = Stage::new(&config, &hierarchies, assumed)?;
    if let Some(runs) = args.random {
        let random = simulate::random(&stage, args.seed, runs);
        let well = random.failed.is_none();
        if args.json {
            say_json(&random)?;
        } else {
            say(render::random(&random))?;
        }
        return Ok(if well { Exit::Done } else { Exit::Refused });
    }
    let happenings = match &args.scenario {
        Some(file) => vec![scenario(&stage, file)?],
        None => faults(&stage, &args)?,
    };
    let findings = simulate::findings(&stage, &happenings);
    let well = simulate::is_well(&happenings);
    let nodes = stage.setup.nodes.iter().map(|node| node.name.to_string()).collect();
    let report = Report { cluster: config.cluster.to_string(), nodes, seed: args.seed, happenings, findings };
    if args.json {
        say_json(&report)?;
    } else {
        let width = words::terminal().map(|(columns, _)| columns);
        if args.timeline {
            for outcome in &report.happenings {
                say(render::timeline(outcome, width) + "\n")?;
            }
        }
        say(render::report(&report, width))?;
    }
    Ok(if well { Exit::Done } else { Exit::Refused })
}

fn scenario(stage: &Stage, file: &Path) -> Result<simulate::Outcome, Failure> {
    let wrong = |diagnostics| {
        Failure::new(Exit::BadInput, format!("the scenario cannot be understood\n\n{diagnostics}"))
            .help("docs/scenarios.md describes the steps; nodes and hierarchies are those of the configuration")
    };
    let source = Source::read(file).map_err(wrong)?;
    let steps = parse_steps(&source, &stage.setup).map_err(wrong)?;
    Ok(simulate::scenario(stage, &file.display().to_string(), &steps))
}

fn faults(stage: &Stage, args: &SimulateArgs) -> Result<Vec<simulate::Outcome>, Failure> {
    let SimulateArgs { kill, hang, hang_agent, cut, storage_loss, crash, restart_agents, .. } = args;
    let mut faults: Vec<Fault> = kill.iter().cloned().map(Fault::Kill).collect();
    faults.extend(hang.iter().cloned().map(Fault::Hang));
    faults.extend(hang_agent.iter().cloned().map(Fault::HangAgent));
    faults.extend(cut.iter().cloned().map(Fault::Cut));
    faults.extend(storage_loss.iter().cloned().map(Fault::StorageLoss));
    faults.extend(crash.iter().cloned().map(Fault::Crash));
    faults.extend(restart_agents.then_some(Fault::RestartAgents));
    for fault in &faults {
        fault.check(&stage.setup)?;
    }
    if !faults.is_empty() {
        return Ok(vec![simulate::trial(stage, 0, &faults)]);
    }
    let nodes: Vec<NodeName> = stage.setup.nodes.iter().map(|node| node.name.clone()).collect();
    let losses = simulate::losses(&nodes).into_iter();
    let each = losses.zip(0..).map(|(lost, number)| {
        let faults: Vec<Fault> = lost.into_iter().map(Fault::Kill).collect();
        simulate::trial(stage, number, &faults)
    });
    Ok(each.collect())
}
