//! `ha history` and `ha events`: what happened on this node.

use std::fmt::Write as _;

use anstyle::Style;
use clap::Args;
use ha_core::name::HierarchyName;
use ha_core::record::Cause;

use super::{hierarchy_name, say, say_json};
use crate::api::client::Client;
use crate::api::{EventLine, HistoryView};
use crate::exit::{Exit, Failure};
use crate::words::{BAD, DIM, GOOD, HEAD, ago, clean, styled};

/// Of `ha history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only this hierarchy
    #[arg(value_parser = hierarchy_name)]
    hierarchy: Option<HierarchyName>,
    /// Only so many, the latest ones
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    last: usize,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Of `ha events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on as they happen, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// As JSON, one line each, for programs
    #[arg(long)]
    json: bool,
}

/// `ha history`.
pub(crate) async fn history(client: &Client, args: &HistoryArgs) -> Result<Exit, Failure> {
    let only = args.hierarchy.as_ref().map(|name| format!("&hierarchy={name}")).unwrap_or_default();
    let view: HistoryView = client.get(&format!("/v1/history?last={}{only}", args.last)).await?;
    if args.json {
        say_json(&view)?;
    } else {
        say(render(&view))?;
    }
    Ok(Exit::Done)
}

fn render(view: &HistoryView) -> String {
    if view.timelines.is_empty() && view.ongoing.is_empty() {
        return format!("nothing entered service since the agent on {} began, as far as it has seen\n", view.node);
    }
    let mut out = String::new();
    for one in &view.timelines {
        let when = match one.timeline.cause {
            Cause::FirstStart | Cause::Adoption => format!("at {}", one.in_service_at),
            _ => format!("from {} to {}", one.fault_at, one.in_service_at),
        };
        entry(&mut out, &when, GOOD, &one.timeline.to_string());
    }
    for one in &view.ongoing {
        entry(&mut out, &format!("since {}, for {} now", one.since, ago(one.for_ms)), BAD, &one.ongoing.to_string());
    }
    let _ = writeln!(out, "{}", styled(DIM, format!("as the agent on {} saw it since it began", view.node)));
    out
}

fn entry(out: &mut String, when: &str, style: Style, text: &str) {
    let _ = writeln!(out, "{}", styled(DIM, when));
    for (i, line) in text.lines().enumerate() {
        let style = match i {
            0 => style,
            _ if line.starts_with("  why: ") || line.starts_with("  later: ") => HEAD,
            _ => Style::new(),
        };
        let _ = writeln!(out, "{}", styled(style, clean(line)));
    }
    out.push('\n');
}

/// `ha events`.
pub(crate) async fn events(client: &Client, args: &EventsArgs) -> Result<Exit, Failure> {
    let path = if args.follow { "/v1/events?follow=true" } else { "/v1/events" };
    client
        .lines(path, |line| {
            if args.json {
                return say(format!("{line}\n"));
            }
            match serde_json::from_str::<EventLine>(line) {
                Ok(event) => say(format!("{} {}\n", styled(DIM, &event.time), clean(&event.line))),
                // The other kind of line: events that came faster than they could be shown.
                Err(_) => say(format!("{}\n", styled(DIM, format!("(some events were missed: {})", clean(line))))),
            }
        })
        .await?;
    Ok(Exit::Done)
}
