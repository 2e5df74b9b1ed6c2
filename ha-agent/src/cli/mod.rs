//! The command line.
//!
//! Decides what can be typed, and which exit code follows. Leaves the work to one module per group of commands.

mod change;
mod check;
mod claim;
mod completions;
mod confirm;
mod fence;
mod goal;
mod history;
mod keys;
mod lock_area;
mod reload;
pub(crate) mod replay;
mod run;
mod shown;
mod simulate;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ha_core::name::{HierarchyName, NodeName};
use ha_core::time::Span;

use crate::api::client::Client;
use crate::exit::{EXIT_CODES, Exit, Failure};
use crate::words::{BAD, DIM, styled};

/// The agent of a high-availability cluster, and the commands to look at it and to steer it.
#[derive(Debug, Parser)]
#[command(name = "ha", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(subcommand)]
    pub(crate) command: Cmd,
}

/// Where the agent and its files are.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The directory with agent.ron and hierarchies/
    #[arg(long, global = true, env = "HA_CONFIG", value_name = "DIR", default_value = "/etc/ha")]
    pub(crate) config: PathBuf,
    /// The agent's socket [default: as agent.ron says, else /run/ha/ha.sock]
    #[arg(long, global = true, env = "HA_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Cmd {
    /// Run the agent of this node
    Run(run::RunArgs),
    /// Show the whole cluster: problems first, then nodes, then hierarchies
    Status(shown::StatusArgs),
    /// Tell why a node does what it does with a hierarchy
    Why(shown::WhyArgs),
    /// Let a hierarchy be in service again after a stop
    Start(change::OnHierarchy),
    /// Take a hierarchy out of service on every node; or, with --drain, hand everything over and end the agent
    Stop(change::StopArgs),
    /// Move a hierarchy to another node (a switchover), and pin it there
    Move(change::MoveArgs),
    /// Take the pin of a move away; moves nothing by itself
    Unpin(change::OnHierarchy),
    /// Let a node hand over all it serves and take nothing
    Standby(change::OnNode),
    /// End the standby of a node
    Online(change::OnNode),
    /// Hands off a hierarchy: nothing of it is started, stopped or watched on any node
    Maintenance(change::MaintenanceArgs),
    /// Switch another node off through its fence devices, and show whether it is off; or only test them
    Fence(fence::FenceArgs),
    /// Forget failures, declines and quarantine of a hierarchy
    Clear(change::OnHierarchy),
    /// Show how long recoveries took, and where the time went
    History(history::HistoryArgs),
    /// Show what happened on this node
    Events(history::EventsArgs),
    /// Go again through what the agent was told and decided, with the reasons; works without the agent, on any machine
    Replay(replay::ReplayArgs),
    /// Find every mistake in the files, and what would go wrong at run time; changes nothing
    Check(check::CheckArgs),
    /// Show what would happen to this cluster: its own files in a simulator; touches nothing
    Simulate(simulate::SimulateArgs),
    /// Go over to the files as they are now; shows first what that changes
    Reload(reload::ReloadArgs),
    /// Make, show and check lock areas; works without the agent
    LockArea(lock_area::LockAreaArgs),
    /// Show, try out and break the reservations of disks; works without the agent
    Claim(claim::ClaimArgs),
    /// Prove on this node's disks that claims by reservation can be taken, and a dead holder cut off
    Arm(claim::ArmArgs),
    /// Make the keys that heartbeats are sealed with, and roll them
    Keys(keys::KeysArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Show real failovers between real processes: three nodes, no root, nothing to configure
    Demo(crate::demo::DemoArgs),
    /// The service of the demonstration
    #[command(hide = true)]
    DemoService(crate::demo::ServiceArgs),
    /// Run a warden; the agent starts it where agent.ron says so
    #[command(hide = true)]
    Warden(run::WardenArgs),
}

/// Runs what was typed, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Cmd::Warden(args) = &cli.command {
        return run::warden(args);
    }
    if let Cmd::DemoService(args) = &cli.command {
        return crate::demo::service_main(args);
    }
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            anstream::eprintln!("{} {failure}", styled(BAD, "error:"));
            if let Some(help) = &failure.help {
                anstream::eprintln!("       {}", styled(DIM, help));
            }
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let place = cli.place;
    match cli.command {
        Cmd::Completions(args) => Ok(completions::print(&args)),
        Cmd::Keys(args) => keys::keys(&args),
        Cmd::Simulate(args) => simulate::simulate(&place.config, args),
        Cmd::Replay(args) => replay::replay(&place.config, &args),
        Cmd::Run(args) => crate::daemon::run(&place.config, args.node, args.boot_id),
        Cmd::Demo(args) => in_runtime(crate::demo::demo(&args)),
        Cmd::LockArea(args) => in_runtime(lock_area::lock_area(&place.config, args)),
        Cmd::Arm(args) => in_runtime(claim::arm(&place.config, args)),
        command => in_runtime(async {
            let (socket, unread) = place.socket_path();
            let client = Client::new(socket);
            let done = match command {
                Cmd::Status(args) => shown::status(&client, &args).await,
                Cmd::Why(args) => shown::why(&client, &args).await,
                Cmd::Start(args) => change::start(&client, args).await,
                Cmd::Stop(args) => change::stop(&client, args).await,
                Cmd::Move(args) => change::move_to(&client, args).await,
                Cmd::Unpin(args) => change::unpin(&client, args).await,
                Cmd::Standby(args) => change::standby(&client, args).await,
                Cmd::Online(args) => change::online(&client, args).await,
                Cmd::Maintenance(args) => change::maintenance(&client, args).await,
                Cmd::Fence(args) => fence::fence(&client, args).await,
                Cmd::Clear(args) => change::clear(&client, args).await,
                Cmd::Check(args) => check::check(&place.config, &client, args).await,
                Cmd::Claim(args) => claim::claim(&place.config, &client, args).await,
                Cmd::Reload(args) => reload::reload(&client, &args).await,
                Cmd::History(args) => history::history(&client, &args).await,
                Cmd::Events(args) => history::events(&client, &args).await,
                Cmd::Completions(_)
                | Cmd::Keys(_)
                | Cmd::Simulate(_)
                | Cmd::Replay(_)
                | Cmd::LockArea(_)
                | Cmd::Arm(_)
                | Cmd::Run(_)
                | Cmd::Warden(_)
                | Cmd::Demo(_)
                | Cmd::DemoService(_) => Ok(Exit::Done),
            };
            match unread {
                Some(why) => done.map_err(|failure| failure.unless_there(&why)),
                None => done,
            }
        }),
    }
}

/// The commands need one thread and a clock; the daemon has a runtime of its own.
fn in_runtime(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::System, format!("the program's own event loop could not be started: {e}")))?;
    runtime.block_on(work)
}

/// Writes to standard output; a reader that went away (`ha status | head`) is no failure.
pub(crate) fn say(text: impl AsRef<str>) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_ref().as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::new(Exit::System, format!("standard output cannot be written: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a value as indented JSON.
pub(crate) fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::System, e))?;
    say(text + "\n")
}

pub(crate) fn span(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned())
}

pub(crate) fn hierarchy_name(text: &str) -> Result<HierarchyName, String> {
    HierarchyName::new(text).map_err(|e| e.to_string())
}

pub(crate) fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|e| e.to_string())
}

impl PlaceArgs {
    /// The agent's socket; and, if agent.ron should have said where it is but could not be read, that.
    fn socket_path(&self) -> (PathBuf, Option<String>) {
        let usual = || PathBuf::from("/run/ha/ha.sock");
        if let Some(socket) = &self.socket {
            return (socket.clone(), None);
        }
        match crate::config::read(&self.config).config {
            Some(config) => (config.socket.path, None),
            None => {
                let file = self.config.join("agent.ron");
                (
                    usual(),
                    Some(format!("{} is not usable (see `ha check`), so the usual socket was tried", file.display())),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_are_refused_where_they_are_typed() {
        let error = Cli::try_parse_from(["ha", "move", "web", "be ta"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("node name \"be ta\" is not valid"), "{error}");
    }

    #[test]
    fn stop_wants_a_hierarchy_or_a_drain_and_not_both() {
        assert!(Cli::try_parse_from(["ha", "stop"]).is_err());
        assert!(Cli::try_parse_from(["ha", "stop", "web", "--drain"]).is_err());
        assert!(Cli::try_parse_from(["ha", "stop", "web"]).is_ok());
        assert!(Cli::try_parse_from(["ha", "stop", "--drain"]).is_ok());
    }
}
