//! The commands that change something: each asks the agent, then waits until what was asked for is seen.

use clap::{Args, ValueEnum};
use ha_core::engine::{Ask, Command, Reply, Switch};
use ha_core::name::{HierarchyName, NodeName};
use ha_core::time::Span;

use super::goal::Goal;
use super::wait::wait_for;
use super::{hierarchy_name, node_name, say, span};
use crate::api::CommandRequest;
use crate::api::client::Client;
use crate::exit::{Exit, Failure};
use crate::view::ClusterView;
use crate::words::clean;

/// What all of them understand.
#[derive(Clone, Debug, Args)]
pub(crate) struct HowArgs {
    /// Why, for the log and for other operators
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Return as soon as it is accepted
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// Wait until it is done (the default)
    #[arg(long, overrides_with = "no_wait", hide = true)]
    wait: bool,
    /// Wait no longer than this, for example 90s or 5min
    #[arg(long, value_name = "TIME", default_value = "2min", value_parser = span)]
    timeout: Span,
}

/// Of the commands about one hierarchy.
#[derive(Debug, Args)]
pub(crate) struct OnHierarchy {
    /// The hierarchy
    #[arg(value_parser = hierarchy_name)]
    hierarchy: HierarchyName,
    #[command(flatten)]
    how: HowArgs,
}

/// Of the commands about one node.
#[derive(Debug, Args)]
pub(crate) struct OnNode {
    /// The node [default: this one]
    #[arg(value_parser = node_name)]
    node: Option<NodeName>,
    #[command(flatten)]
    how: HowArgs,
}

/// Of `ha stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The hierarchy
    #[arg(value_parser = hierarchy_name, required_unless_present = "drain", conflicts_with = "drain")]
    hierarchy: Option<HierarchyName>,
    /// Hand over all that this node serves, or stop it where nobody can take it; then end the agent
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    how: HowArgs,
}

/// Of `ha move`.
#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The hierarchy
    #[arg(value_parser = hierarchy_name)]
    hierarchy: HierarchyName,
    /// Where to [default: the best node that does not have it]
    #[arg(value_parser = node_name)]
    node: Option<NodeName>,
    #[command(flatten)]
    how: HowArgs,
}

/// Of `ha maintenance`.
#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    /// The hierarchy
    #[arg(value_parser = hierarchy_name)]
    hierarchy: HierarchyName,
    /// Begin or end
    switch: OnOff,
    #[command(flatten)]
    how: HowArgs,
}

/// As it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnOff {
    /// Begin
    On,
    /// End
    Off,
}

/// `ha start`.
pub(crate) async fn start(client: &Client, OnHierarchy { hierarchy, how }: OnHierarchy) -> Result<Exit, Failure> {
    let goal = Goal::InService { hierarchy: hierarchy.clone() };
    carry_out(client, None, Ask::Start { hierarchy }, how, goal).await
}

/// `ha stop`.
pub(crate) async fn stop(client: &Client, StopArgs { hierarchy, how, .. }: StopArgs) -> Result<Exit, Failure> {
    match hierarchy {
        Some(hierarchy) => {
            let goal = Goal::Stopped { hierarchy: hierarchy.clone() };
            carry_out(client, None, Ask::Stop { hierarchy }, how, goal).await
        }
        None => carry_out(client, None, Ask::Drain, how, Goal::AgentEnded).await,
    }
}

/// `ha move`.
pub(crate) async fn move_to(client: &Client, args: MoveArgs) -> Result<Exit, Failure> {
    let MoveArgs { hierarchy, node, how } = args;
    let before: ClusterView = client.get("/v1/status").await?;
    let from = before.hierarchy(&hierarchy).and_then(|h| h.place.node().cloned());
    let goal = Goal::Moved { hierarchy: hierarchy.clone(), from, to: node.clone() };
    carry_out(client, None, Ask::Move { hierarchy, to: node }, how, goal).await
}

/// `ha unpin`.
pub(crate) async fn unpin(client: &Client, OnHierarchy { hierarchy, how }: OnHierarchy) -> Result<Exit, Failure> {
    let goal = Goal::Unpinned { hierarchy: hierarchy.clone() };
    carry_out(client, None, Ask::Unpin { hierarchy }, how, goal).await
}

/// `ha standby`.
pub(crate) async fn standby(client: &Client, OnNode { node, how }: OnNode) -> Result<Exit, Failure> {
    let goal = Goal::Idle { node: node.clone() };
    carry_out(client, node, Ask::Standby, how, goal).await
}

/// `ha online`.
pub(crate) async fn online(client: &Client, OnNode { node, how }: OnNode) -> Result<Exit, Failure> {
    let goal = Goal::Online { node: node.clone() };
    carry_out(client, node, Ask::Online, how, goal).await
}

/// `ha maintenance`.
pub(crate) async fn maintenance(client: &Client, args: MaintenanceArgs) -> Result<Exit, Failure> {
    let MaintenanceArgs { hierarchy, switch, how } = args;
    let switch = match switch {
        OnOff::On => Switch::On,
        OnOff::Off => Switch::Off,
    };
    let goal = Goal::Maintenance { hierarchy: hierarchy.clone(), switch };
    carry_out(client, None, Ask::Maintenance { hierarchy, switch }, how, goal).await
}

/// `ha clear`.
pub(crate) async fn clear(client: &Client, OnHierarchy { hierarchy, how }: OnHierarchy) -> Result<Exit, Failure> {
    let goal = Goal::Cleared { hierarchy: hierarchy.clone() };
    carry_out(client, None, Ask::Clear { hierarchy }, how, goal).await
}

async fn carry_out(
    client: &Client,
    to: Option<NodeName>,
    what: Ask,
    how: HowArgs,
    goal: Goal,
) -> Result<Exit, Failure> {
    let command = Command { what, by: String::new(), reason: how.reason };
    let reply: Reply = client.post("/v1/command", &CommandRequest { to, command }).await?;
    if let Reply::Accepted(what) = reply {
        say(format!("{}\n", clean(&what)))?;
    }
    if how.no_wait && !how.wait { Ok(Exit::Done) } else { wait_for(client, &goal, how.timeout.0).await }
}
