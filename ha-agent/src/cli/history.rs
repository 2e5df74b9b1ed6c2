//! `ha history` and `ha events`: what happened on this node.

use std::fmt::Write as _;

use clap::Args;
use ha_core::name::HierarchyName;

use super::{hierarchy_name, say, say_json};
use crate::api::client::Client;
use crate::api::{EventLine, HistoryView};
use crate::exit::{Exit, Failure};
use crate::words::{DIM, clean, styled};

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
    if view.timelines.is_empty() {
        return format!("nothing entered service on {} since its agent began\n", view.node);
    }
    let mut out = String::new();
    for one in &view.timelines {
        let when = format!("in service on {} at {}", view.node, one.in_service_at);
        let _ = writeln!(out, "{}", styled(DIM, when));
        for line in one.timeline.to_string().lines() {
            let _ = writeln!(out, "{}", clean(line));
        }
        out.push('\n');
    }
    out
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
