//! `ha lock-area`: making, showing and checking the lock areas of agent.ron. Works without the agent.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use ha_core::claim::lock_area::admin::{self, AdminError, AreaPlan, Existing};
use ha_core::claim::lock_area::{AreaId, LeaseTiming};
use ha_core::name::{LockAreaName, NodeName};
use ha_core::time::Span;
use ha_resources::claim::DirectDevice;

use super::{node_name, say, say_json, span};
use crate::config::{self, AreaSettings, Config, WatchdogSettings};
use crate::exit::{Exit, Failure};

/// Of `ha lock-area`.
#[derive(Debug, Args)]
pub(crate) struct LockAreaArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a lock area: once, on one node, before any agent uses it
    Init(InitArgs),
    /// Show who uses an area and who owns what; looks twice, two renewals apart
    Show {
        /// Its name in agent.ron
        #[arg(value_parser = area_name)]
        name: LockAreaName,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Read every block of an area and name each that is broken
    Verify {
        /// Its name in agent.ron
        #[arg(value_parser = area_name)]
        name: LockAreaName,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Its name in agent.ron
    #[arg(value_parser = area_name)]
    name: LockAreaName,
    /// The nodes that can use it, for ever [default: those of agent.ron]
    #[arg(long, value_delimiter = ',', value_parser = node_name, value_name = "NODE,…")]
    nodes: Vec<NodeName>,
    /// How many hierarchies it can ever name
    #[arg(long, default_value_t = 1024, value_name = "NUMBER")]
    hierarchies: u32,
    /// How often a node renews its lease [default: as agent.ron says, else 500ms]
    #[arg(long, value_name = "TIME", value_parser = span)]
    renew: Option<Span>,
    /// How long a lease is good after a renewal [default: as agent.ron says, else 4s]
    #[arg(long, value_name = "TIME", value_parser = span)]
    deadline: Option<Span>,
    /// How long a watchdog may take to end a node [default: as agent.ron says, also of its watchdog device, else 2s]
    #[arg(long, value_name = "TIME", value_parser = span)]
    watchdog: Option<Span>,
    /// How far apart clocks may run meanwhile [default: as agent.ron says, else 500ms]
    #[arg(long, value_name = "TIME", value_parser = span)]
    margin: Option<Span>,
    /// Overwrite what is there already; refused while a node is seen to use it
    #[arg(long)]
    overwrite: bool,
}

fn area_name(text: &str) -> Result<LockAreaName, String> {
    LockAreaName::new(text).map_err(|e| e.to_string())
}

/// `ha lock-area`.
pub(crate) async fn lock_area(dir: &Path, args: LockAreaArgs) -> Result<Exit, Failure> {
    // The hierarchies may be wrong, or not be there yet.
    let read = config::read(dir);
    let Some(config) = read.config else {
        return Err(Failure::new(Exit::BadInput, format!("agent.ron is not usable\n\n{}", read.diagnostics)));
    };
    match args.what {
        What::Init(args) => init(&config, args).await,
        What::Show { name, json } => {
            let area = settings(&config, &name)?;
            let report = admin::show(&open(area)?).await.map_err(|e| failed(area, &e))?;
            if json {
                say_json(&report)?;
            } else {
                say(report.to_string())?;
            }
            Ok(Exit::Done)
        }
        What::Verify { name, json } => verify(settings(&config, &name)?, json).await,
    }
}

async fn init(config: &Config, args: InitArgs) -> Result<Exit, Failure> {
    let area = settings(config, &args.name)?;
    let timing = timing(area, &args, &config.watchdog)?;
    let nodes = if args.nodes.is_empty() { config.nodes.iter().map(|n| n.name.clone()).collect() } else { args.nodes };
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|e| Failure::new(Exit::System, format!("the system gave no random bytes: {e}")))?;
    let plan = AreaPlan { id: AreaId(id), nodes, hierarchies: args.hierarchies, timing };
    let existing = if args.overwrite { Existing::Overwrite } else { Existing::Keep };
    let header = admin::initialise(&open(area)?, plan, existing).await.map_err(|e| failed(area, &e))?;
    let nodes: Vec<&str> = header.nodes.iter().map(NodeName::as_str).collect();
    say(format!(
        "lock area {} made in {}: {} bytes, for {} and {} hierarchies\n{}\n",
        args.name,
        area.path.display(),
        header.area_len(),
        nodes.join(", "),
        header.hierarchies,
        header.timing
    ))?;
    Ok(Exit::Done)
}

/// As given here, else as agent.ron says, else the defaults: with one number for the watchdog, that of the nodes' own device.
fn timing(area: &AreaSettings, args: &InitArgs, own: &WatchdogSettings) -> Result<LeaseTiming, Failure> {
    let base = area.timing.unwrap_or_default();
    let waited = match own {
        WatchdogSettings::Device { timeout, .. } if area.timing.is_none() => *timeout,
        _ => base.watchdog(),
    };
    let pick = |given: Option<Span>, base: Duration| given.map_or(base, |s| s.0);
    let timing = LeaseTiming::new(
        pick(args.renew, base.renew()),
        pick(args.deadline, base.deadline()),
        pick(args.watchdog, waited),
        pick(args.margin, base.margin()),
    )
    .map_err(|e| Failure::new(Exit::BadInput, e))?;
    if area.timing.is_some_and(|written| written != timing) {
        return Err(Failure::new(
            Exit::BadInput,
            format!("the times given here ({timing}) are not those of agent.ron ({base}): no agent could use the area"),
        )
        .help("leave them out here, or change agent.ron"));
    }
    Ok(timing)
}

async fn verify(area: &AreaSettings, json: bool) -> Result<Exit, Failure> {
    let findings = admin::verify(&open(area)?).await.map_err(|e| failed(area, &e))?;
    if json {
        say_json(&findings)?;
    } else if findings.is_empty() {
        say(format!("lock area {}: every block is as it should be\n", area.name))?;
    } else {
        say(findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
    }
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Refused })
}

fn settings<'a>(config: &'a Config, name: &LockAreaName) -> Result<&'a AreaSettings, Failure> {
    config.lock_areas.iter().find(|area| area.name == *name).ok_or_else(|| {
        let known: Vec<&str> = config.lock_areas.iter().map(|a| a.name.as_str()).collect();
        let known = if known.is_empty() { "none (there are none)".to_owned() } else { known.join(", ") };
        Failure::new(Exit::BadInput, format!("agent.ron names no lock area {name:?}: expected one of {known}"))
            .help(format!("add it: lock_areas: {{ \"{name}\": (path: \"/dev/disk/by-id/…\") }}"))
    })
}

fn open(area: &AreaSettings) -> Result<DirectDevice, Failure> {
    DirectDevice::open(&area.path, area.io_deadline())
        .map_err(|e| Failure::new(Exit::System, format!("lock area {}: {e}", area.name)))
}

fn failed(area: &AreaSettings, error: &AdminError) -> Failure {
    let what = format!("lock area {} in {}: {error}", area.name, area.path.display());
    match error {
        AdminError::Io(_) => Failure::new(Exit::System, what),
        AdminError::Area { .. } | AdminError::Foreign(_) => Failure::new(Exit::Refused, what)
            .help("--overwrite destroys what is there: only when no agent of any node runs"),
        AdminError::InUse(_) => Failure::new(Exit::Refused, what)
            .help("nothing was changed; `ha stop --drain` on each of them, or find out who uses these names"),
        AdminError::Plan { .. } | AdminError::TooSmall { .. } => Failure::new(Exit::BadInput, what),
        AdminError::NoArea(_) => {
            Failure::new(Exit::Refused, what).help(format!("make it with `ha lock-area init {}`", area.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_waits_for_the_nodes_own_watchdog_where_nothing_else_is_written() {
        let name = LockAreaName::new("main").unwrap();
        let mut area = AreaSettings {
            name: name.clone(),
            path: "/dev/disk".into(),
            timing: None,
            io_deadline: None,
            channel: None,
        };
        let args = |watchdog: Option<Duration>| InitArgs {
            name: name.clone(),
            nodes: Vec::new(),
            hierarchies: 16,
            renew: None,
            deadline: None,
            watchdog: watchdog.map(Span),
            margin: None,
            overwrite: false,
        };
        let seconds = Duration::from_secs;
        let device = WatchdogSettings::Device { path: "/dev/watchdog".into(), timeout: seconds(7) };
        let waits = |area: &AreaSettings, given, own| timing(area, &args(given), own).unwrap().watchdog();
        assert_eq!(waits(&area, None, &device), seconds(7));
        assert_eq!(waits(&area, None, &WatchdogSettings::None), LeaseTiming::default().watchdog());
        assert_eq!(waits(&area, Some(seconds(9)), &device), seconds(9));
        // What agent.ron writes of the area, every node compares with it.
        area.timing = Some(LeaseTiming::default());
        assert_eq!(waits(&area, None, &device), LeaseTiming::default().watchdog());
    }
}
