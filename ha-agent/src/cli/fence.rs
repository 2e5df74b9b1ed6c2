//! `ha fence`: another node, switched off by the agent of this one through its fence devices.

use clap::Args;
use ha_core::name::NodeName;
use ha_resources::fence::agents::{Proof, Step};

use super::confirm::confirm;
use super::{node_name, say};
use crate::api::client::Client;
use crate::api::{FenceLine, FenceRequest, FenceWhat};
use crate::exit::{Exit, Failure};
use crate::view::ClusterView;
use crate::words::{BAD, DIM, GOOD, WARN, clean, styled};

/// Of `ha fence`.
#[derive(Debug, Args)]
pub(crate) struct FenceArgs {
    /// The node, another one than this
    #[arg(value_parser = node_name)]
    node: NodeName,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", required_unless_present = "test")]
    reason: Option<String>,
    /// Switch it on again once it is proven to have been off
    #[arg(long, conflicts_with = "test")]
    reboot: bool,
    /// Only ask every device whether it can be reached, and for the node's power; touches nothing
    #[arg(long)]
    test: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// As JSON, one line each, for programs
    #[arg(long)]
    json: bool,
}

/// `ha fence`.
pub(crate) async fn fence(client: &Client, args: FenceArgs) -> Result<Exit, Failure> {
    let what = match (args.test, args.reboot) {
        (true, _) => FenceWhat::Test,
        (false, true) => FenceWhat::Reboot,
        (false, false) => FenceWhat::Off,
    };
    let reason = args.reason.unwrap_or_default();
    if what != FenceWhat::Test {
        if reason.trim().is_empty() {
            return Err(Failure::new(Exit::BadInput, "the reason is empty: expected why the node is fenced"));
        }
        if !args.yes {
            let view: ClusterView = client.get("/v1/status").await?;
            confirm(&warning(&view, &args.node), args.node.as_str()).await?;
        }
    }
    let request = FenceRequest { node: args.node.clone(), what, reason };
    let mut end = None;
    client
        .post_for_lines("/v1/fence", &request, |line| {
            let read: FenceLine = serde_json::from_str(line)
                .map_err(|e| Failure::new(Exit::System, format!("the answer is not of this API: {e}: {line}")))?;
            if args.json {
                say(format!("{line}\n"))?;
            }
            match read {
                FenceLine::Step(step) if !args.json => say(shown(&step))?,
                FenceLine::Step(_) => {}
                last => end = Some(last),
            }
            Ok(())
        })
        .await?;
    let Some(end) = end else {
        let what = format!("the agent ended before the fencing of {} did: it is not proven that it is off", args.node);
        return Err(Failure::new(Exit::Unreachable, what).help("`ha fence NODE --test` shows what its devices say now"));
    };
    conclude(&args.node, end, args.json)
}

/// What the operator should know before.
fn warning(view: &ClusterView, node: &NodeName) -> String {
    let serves: Vec<&str> = view
        .hierarchies
        .iter()
        .filter(|hierarchy| hierarchy.place.node() == Some(node))
        .map(|hierarchy| hierarchy.name.as_str())
        .collect();
    let heard = view.nodes.iter().find(|status| status.node == *node).map_or("unknown", |status| &status.heard);
    let serves = if serves.is_empty() {
        String::new()
    } else {
        format!(" and, as far as is known, serves {}", serves.join(", "))
    };
    format!(
        "{} it loses its power at once, with all that was not written to disk. From here it is heard as: {heard}{serves}.",
        styled(WARN, format!("Fence {node}?"))
    )
}

fn shown(step: &Step) -> String {
    let (style, outcome) = match &step.outcome {
        Ok(said) => (GOOD, said),
        Err(why) => (BAD, why),
    };
    // The error names its action by itself.
    let outcome = outcome.strip_prefix(&format!("{}: ", step.action)).unwrap_or(outcome);
    let took = styled(DIM, format!("({} ms)", step.took_ms));
    format!(
        "level {}, {}, {}: {} {took}\n",
        step.level,
        clean(&step.device),
        step.action,
        styled(style, clean(outcome))
    )
}

fn conclude(node: &NodeName, end: FenceLine, json: bool) -> Result<Exit, Failure> {
    let (text, exit) = match end {
        FenceLine::Step(_) => return Ok(Exit::System),
        FenceLine::Tested { troubles } if troubles.is_empty() => {
            (styled(GOOD, format!("every device of {node} answers")), Exit::Done)
        }
        FenceLine::Tested { troubles } => {
            (styled(BAD, format!("fencing of {node} has troubles: {}", troubles.len())), Exit::Refused)
        }
        FenceLine::Fenced { report, summary, switched_on } => {
            let (text, exit) = match report.proof {
                Proof::Off => (styled(GOOD, format!("{node} is proven to be off")), Exit::Done),
                Proof::CutOff => (
                    styled(WARN, format!("{node} is cut off, but may be running: its power was not touched")),
                    Exit::Done,
                ),
                Proof::None => (
                    styled(BAD, format!("NOT proven: {node} may be running. Make sure by hand before you rely on it")),
                    Exit::Refused,
                ),
            };
            let text = format!("{text}\n  {}", clean(&summary));
            match switched_on {
                None => (text, exit),
                Some(Ok(())) => (format!("{text}\n{node} was switched on again"), exit),
                Some(Err(why)) => (
                    format!("{text}\n{}", styled(BAD, format!("it was not switched on again: {}", clean(&why)))),
                    Exit::Refused,
                ),
            }
        }
    };
    if !json {
        say(format!("{text}\n"))?;
    }
    Ok(exit)
}
