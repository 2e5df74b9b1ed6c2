//! `ha claim` and `ha arm`: disks with reservations, looked at and tried out. Works without the agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use ha_core::claim::reservation::{Keyring, NodeNumber, ReservationType};
use ha_core::engine::{Ask, Command, Reply};
use ha_core::hierarchy::Loaded;
use ha_core::name::{HierarchyName, NodeName};
use ha_resources::claim::reservation::ReservationSpec;
use ha_resources::kinds::{Builtin, ClaimDefinition};
use serde::Serialize;

use super::confirm::confirm;
use super::{node_name, say, say_json};
use crate::api::CommandRequest;
use crate::api::client::Client;
use crate::config::{self, Config};
use crate::daemon::host_name;
use crate::exit::{Exit, Failure};
use crate::reservation::armed::{Armed, ProvenDisk};
use crate::reservation::breaking::break_all;
use crate::reservation::prove::{Proof, Shown, Trial, Unproven};
use crate::reservation::show::{DiskReport, render, report};
use crate::reservation::{Machine, Opened, Opener};
use crate::view::ClusterView;
use crate::view::problems::of_a_stranger;
use crate::words::{BAD, DIM, GOOD, HEAD, WARN, clean, styled};

/// For a disk that no hierarchy names.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// Of `ha claim`.
#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show who is registered on disks and who has reserved them; changes nothing
    Show(ShowArgs),
    /// Try out what a disk does with reservations, one that nobody uses; leaves nothing behind, and touches no data
    Test(TestArgs),
    /// Remove every key and the reservation from disks, whoever's they are
    Break(BreakArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// A hierarchy, or the path of a disk [default: the disks of every hierarchy]
    target: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The path of a disk
    device: PathBuf,
    /// This node's name in agent.ron [default: the host name]
    #[arg(long, env = "HA_NODE", value_name = "NODE", value_parser = node_name)]
    node: Option<NodeName>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BreakArgs {
    /// A hierarchy, or the path of a disk
    target: String,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// This node's name in agent.ron [default: the host name]
    #[arg(long, env = "HA_NODE", value_name = "NODE", value_parser = node_name)]
    node: Option<NodeName>,
}

/// Of `ha arm`.
#[derive(Debug, Args)]
pub(crate) struct ArmArgs {
    /// The hierarchy, which must be out of service [default: every one that is claimed by reservation]
    #[arg(value_parser = super::hierarchy_name)]
    hierarchy: Option<HierarchyName>,
    /// Show it with another node, which runs `ha arm HIERARCHY --hold` meanwhile: its hold is cut off
    #[arg(long, value_name = "NODE", value_parser = node_name, requires = "hierarchy")]
    against: Option<NodeName>,
    /// Hold the disks until another node, which runs `ha arm HIERARCHY --against NODE`, has cut this one off
    #[arg(long, requires = "hierarchy", conflicts_with = "against")]
    hold: bool,
    /// This node's name in agent.ron [default: the host name]
    #[arg(long, env = "HA_NODE", value_name = "NODE", value_parser = node_name)]
    node: Option<NodeName>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// How a claim is tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Alone,
    Against(NodeNumber),
    Hold,
}

/// Disks with their limits of time, and the hierarchy whose they are.
type Meant = (Option<HierarchyName>, Vec<(PathBuf, Duration)>);

/// What the commands work on.
struct Ground {
    config: Config,
    hierarchies: Vec<Loaded<Builtin>>,
    keyring: Keyring,
}

impl Ground {
    fn read(dir: &Path) -> Result<Ground, Failure> {
        // Some hierarchies may be wrong, as long as those asked for are not.
        let read = config::read(dir);
        let Some(config) = read.config else {
            return Err(Failure::new(Exit::BadInput, format!("agent.ron is not usable\n\n{}", read.diagnostics)));
        };
        let keyring = Keyring::new(&config.cluster, config.nodes.iter().map(|node| node.name.clone()))
            .map_err(|e| Failure::new(Exit::BadInput, e))?;
        Ok(Ground { config, hierarchies: read.hierarchies, keyring })
    }

    fn me(&self, node: Option<NodeName>) -> Result<NodeNumber, Failure> {
        let me = node.map_or_else(host_name, Ok)?;
        self.keyring
            .number_of(&me)
            .map_err(|e| Failure::new(Exit::BadInput, e).help("say with --node which node this machine is"))
    }

    /// The hierarchies on reservations.
    fn reserved(&self) -> impl Iterator<Item = (&HierarchyName, &ReservationSpec)> {
        self.hierarchies.iter().filter_map(|loaded| match &loaded.claim {
            ClaimDefinition::Reservation(spec) => Some((&loaded.hierarchy.name, spec)),
            ClaimDefinition::LockArea(_) => None,
        })
    }

    fn spec(&self, name: &HierarchyName) -> Result<&ReservationSpec, Failure> {
        if let Some((_, spec)) = self.reserved().find(|(known, _)| *known == name) {
            return Ok(spec);
        }
        let known: Vec<&str> = self.reserved().map(|(name, _)| name.as_str()).collect();
        let known = if known.is_empty() { "none (there are none)".to_owned() } else { known.join(", ") };
        let what = format!("there is no hierarchy {name} that is claimed by reservation: expected one of {known}");
        Err(Failure::new(Exit::BadInput, what)
            .help("a disk is named by its path, such as /dev/disk/by-id/wwn-0x6001405…"))
    }

    /// The disks that are meant, with the hierarchy whose they are.
    fn disks(&self, target: &str) -> Result<Meant, Failure> {
        let device = Path::new(target);
        if device.is_absolute() {
            let owner = self.reserved().find(|(_, spec)| spec.devices.iter().any(|path| path == device));
            let limit = owner.map_or(TIME_LIMIT, |(_, spec)| spec.time_limit);
            return Ok((owner.map(|(name, _)| name.clone()), vec![(device.to_owned(), limit)]));
        }
        let name = HierarchyName::new(target)
            .map_err(|e| Failure::new(Exit::BadInput, e).help("name a hierarchy, or a disk by its path from / on"))?;
        let spec = self.spec(&name)?;
        let disks = spec.devices.iter().map(|path| (path.clone(), spec.time_limit)).collect();
        Ok((Some(name), disks))
    }
}

async fn open(path: PathBuf, limit: Duration) -> Result<Opened, Failure> {
    let opened = tokio::task::spawn_blocking(move || Machine.open(&path, limit)).await;
    opened.map_err(|e| Failure::new(Exit::System, e))?.map_err(|e| Failure::new(Exit::System, e))
}

/// `ha claim`.
pub(crate) async fn claim(dir: &Path, client: &Client, args: ClaimArgs) -> Result<Exit, Failure> {
    let ground = Ground::read(dir)?;
    match args.what {
        What::Show(args) => show(&ground, args).await,
        What::Test(args) => test(&ground, args).await,
        What::Break(args) => break_claim(&ground, client, args).await,
    }
}

#[derive(Serialize)]
struct ShownDisk {
    hierarchy: Option<HierarchyName>,
    disk: Option<DiskReport>,
    error: Option<String>,
}

async fn show(ground: &Ground, args: ShowArgs) -> Result<Exit, Failure> {
    let targets: Vec<String> = match args.target {
        Some(target) => vec![target],
        None => ground.reserved().map(|(name, _)| name.to_string()).collect(),
    };
    if targets.is_empty() {
        return Err(Failure::new(Exit::BadInput, "no hierarchy is claimed by reservation: name a disk by its path"));
    }
    let mut shown = Vec::new();
    for target in &targets {
        let (hierarchy, disks) = ground.disks(target)?;
        for (path, limit) in disks {
            let hierarchy = hierarchy.clone();
            shown.push(match open(path, limit).await {
                Ok(opened) => {
                    let disk = Some(report(&ground.keyring, &opened).await);
                    ShownDisk { hierarchy, disk, error: None }
                }
                Err(failure) => ShownDisk { hierarchy, disk: None, error: Some(failure.what) },
            });
        }
    }
    let failed = shown.iter().any(|one| one.disk.as_ref().is_none_or(|disk| disk.shown().is_none()));
    if args.json {
        say_json(&shown)?;
    } else {
        for one in &shown {
            if let Some(hierarchy) = &one.hierarchy {
                say(format!("{}: ", styled(HEAD, hierarchy)))?;
            }
            say(one.disk.as_ref().map(render).unwrap_or_default())?;
            if let Some(disk) = one.disk.as_ref().filter(|disk| disk.stranger().is_some()) {
                let what = one.hierarchy.as_ref().map_or(disk.path.clone(), ToString::to_string);
                say(format!("  {}\n", styled(WARN, of_a_stranger(what))))?;
            }
            if let Some(error) = &one.error {
                say(format!("{}\n", styled(BAD, clean(error))))?;
            }
        }
    }
    Ok(if failed { Exit::System } else { Exit::Done })
}

/// Ends when the user wants the command to.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn unproven(unproven: &Unproven) -> Failure {
    let exit = match unproven {
        Unproven::NobodyCame { .. } => Exit::TimedOut,
        Unproven::InUse { .. }
        | Unproven::Stranger { .. }
        | Unproven::UsedHere(_)
        | Unproven::Interrupted(_)
        | Unproven::ReadBack { .. }
        | Unproven::OneHost { .. } => Exit::Refused,
        Unproven::NoPath(_) | Unproven::Failed { .. } | Unproven::LeftBehind { .. } => Exit::System,
    };
    Failure::new(exit, unproven)
}

async fn test(ground: &Ground, args: TestArgs) -> Result<Exit, Failure> {
    let me = ground.me(args.node)?;
    let opened = open(args.device, TIME_LIMIT).await?;
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    let trial = Trial::new(&ground.keyring, me, &*opened.device, kind);
    let proof = trial.run(interrupted()).await.map_err(|e| unproven(&e))?;
    if args.json {
        say_json(&serde_json::json!({ "path": opened.path, "identity": opened.identity.to_string(), "proof": proof }))?;
    } else {
        say(format!("{} {}\n", styled(HEAD, opened.path.display()), styled(DIM, &opened.identity)))?;
        say(proof_lines(&proof))?;
    }
    let wrong = [proof.can_be_taken, proof.refuses_others, proof.cuts_off].contains(&Shown::No);
    Ok(if wrong { Exit::Refused } else { Exit::Done })
}

fn proof_lines(proof: &Proof) -> String {
    let line = |(shown, what): (Shown, &str)| {
        let word = match shown {
            Shown::Yes => styled(GOOD, "yes      "),
            Shown::No => styled(BAD, "NO       "),
            Shown::NotTried => styled(WARN, "not tried"),
        };
        format!("  {word}  {what}\n")
    };
    let paths = if proof.paths == 1 { "1 path".to_owned() } else { format!("{} paths", proof.paths) };
    proof.lines().into_iter().map(line).collect::<String>() + &format!("  tried on {paths}\n")
}

/// `ha arm`.
pub(crate) async fn arm(dir: &Path, args: ArmArgs) -> Result<Exit, Failure> {
    let ground = Ground::read(dir)?;
    let me = ground.me(args.node)?;
    let chosen: Vec<(HierarchyName, ReservationSpec)> = match &args.hierarchy {
        Some(name) => vec![(name.clone(), ground.spec(name)?.clone())],
        None => ground.reserved().map(|(name, spec)| (name.clone(), spec.clone())).collect(),
    };
    if chosen.is_empty() {
        return Err(Failure::new(Exit::BadInput, "no hierarchy is claimed by reservation: there is nothing to arm"));
    }
    let way = match &args.against {
        Some(rival) => Way::Against(ground.keyring.number_of(rival).map_err(|e| Failure::new(Exit::BadInput, e))?),
        None if args.hold => Way::Hold,
        None => Way::Alone,
    };
    let mut armed = Vec::new();
    let mut first_wrong = None;
    for (name, spec) in &chosen {
        let said = arm_one(&ground, (me, way), (name, spec), args.json).await;
        let lacking = match said {
            Ok(None) => None,
            Ok(Some(lacking)) => Some(lacking),
            Err(failure) => {
                if !args.json {
                    say(format!("{}: {}\n", styled(HEAD, name), styled(BAD, clean(&failure.what))))?;
                }
                let what = failure.what.clone();
                first_wrong.get_or_insert(failure.exit);
                Some(what)
            }
        };
        if lacking.is_some() {
            first_wrong.get_or_insert(Exit::Refused);
        }
        armed.push(serde_json::json!({ "hierarchy": name, "armed": lacking.is_none(), "lacking": lacking }));
    }
    if args.json {
        say_json(&armed)?;
    }
    Ok(first_wrong.unwrap_or(Exit::Done))
}

/// Says what is lacking.
async fn arm_one(
    ground: &Ground,
    (me, way): (NodeNumber, Way),
    (name, spec): (&HierarchyName, &ReservationSpec),
    json: bool,
) -> Result<Option<String>, Failure> {
    let opened = crate::reservation::open_all(Arc::new(Machine), spec.clone())
        .await
        .map_err(|e| Failure::new(Exit::System, e))?;
    let mut disks = Vec::new();
    for disk in &opened {
        let trial = Trial::new(&ground.keyring, me, &*disk.device, spec.kind).with_writes(&*disk.rewrite);
        let proof = match way {
            Way::Alone => trial.run(interrupted()).await,
            Way::Against(rival) => trial.run_against(rival, interrupted()).await,
            Way::Hold => {
                if !json {
                    say(format!("holding {} until another node cuts this one off\n", disk.path.display()))?;
                }
                trial.hold(interrupted()).await
            }
        };
        let proof = proof.map_err(|e| unproven(&e))?;
        if !json {
            say(format!("{}: {} {}\n", styled(HEAD, name), disk.path.display(), styled(DIM, &disk.identity)))?;
            say(proof_lines(&proof))?;
        }
        disks.push(ProvenDisk { path: disk.path.clone(), identity: disk.identity.to_string(), proof });
    }
    if way == Way::Hold {
        // What the other node saw is kept there.
        let wrong =
            disks.iter().any(|disk| disk.proof.cuts_off != Shown::Yes || disk.proof.refuses_writes == Shown::No);
        return Ok(wrong.then(|| {
            "this node was preempted, and what it asked for, or wrote, was not refused afterwards".to_owned()
        }));
    }
    let state_dir = &ground.config.state_dir;
    Armed::now(spec, disks).write(state_dir, name).map_err(|e| {
        Failure::new(Exit::System, format!("what was shown cannot be kept in {}: {e}", state_dir.display()))
    })?;
    let identities: Vec<_> = opened.iter().map(|disk| disk.identity.clone()).collect();
    let lacking = crate::reservation::armed::read(state_dir, name, spec, Some(&identities)).err();
    if !json {
        match &lacking {
            None => say(format!("{} is {}\n", name, styled(GOOD, "armed on this node")))?,
            Some(lacking) => say(format!("{name} is {}: {lacking}\n", styled(BAD, "UNPROTECTED on this node")))?,
        }
    }
    Ok(lacking)
}

async fn break_claim(ground: &Ground, client: &Client, args: BreakArgs) -> Result<Exit, Failure> {
    if args.reason.trim().is_empty() {
        return Err(Failure::new(Exit::BadInput, "the reason is empty: expected why the reservation is broken"));
    }
    let me = ground.me(args.node)?;
    let (hierarchy, disks) = ground.disks(&args.target)?;
    if let Some(name) = &hierarchy {
        refuse_if_served(client, name).await?;
    }
    let mut opened = Vec::new();
    for (path, limit) in disks {
        opened.push(open(path, limit).await?);
    }
    let mut whose = Vec::new();
    for disk in &opened {
        let report = report(&ground.keyring, disk).await;
        say(render(&report))?;
        let Some(shown) = report.shown() else {
            return Err(Failure::new(Exit::System, format!("{} does not answer: nothing was changed", report.path)));
        };
        whose.extend(shown.keys.iter().map(|key| format!("{} on {}", key.whose, report.path)));
    }
    if whose.is_empty() {
        say("nothing is registered: there is nothing to break\n")?;
        return Ok(Exit::Done);
    }
    if !args.yes {
        let warning = format!(
            "{} whoever holds this loses it at once, and may be a machine that still writes.",
            styled(WARN, "Break it?")
        );
        confirm(&warning, &args.target).await?;
    }
    for disk in &opened {
        break_all(&ground.keyring, me, &*disk.device).await.map_err(|e| Failure::new(Exit::System, e))?;
        say(format!("{}: every key and the reservation are {}\n", disk.path.display(), styled(GOOD, "removed")))?;
    }
    whose.dedup();
    record(client, hierarchy, whose.join(", "), args.reason).await
}

/// A claim that works is not broken: it is taken out of service.
async fn refuse_if_served(client: &Client, name: &HierarchyName) -> Result<(), Failure> {
    let Ok(view) = client.get::<ClusterView>("/v1/status").await else { return Ok(()) };
    let Some(node) = view.hierarchy(name).and_then(|h| h.place.node().cloned()) else { return Ok(()) };
    let what =
        format!("{name} is on {node}: breaking its reservation would end it there by force; nothing was changed");
    Err(Failure::new(Exit::Refused, what).help(format!("`ha stop {name}` gives the reservation up in order")))
}

/// Where the agent runs, its events say who broke what and why; and it asks for the claim again at once.
async fn record(
    client: &Client,
    hierarchy: Option<HierarchyName>,
    was: String,
    reason: String,
) -> Result<Exit, Failure> {
    let Some(hierarchy) = hierarchy else {
        say(format!("{}\n", styled(DIM, "no hierarchy names this disk: it is not in the events of any")))?;
        return Ok(Exit::Done);
    };
    let command = Command { what: Ask::Broken { hierarchy, was }, by: String::new(), reason };
    match client.post::<Reply>("/v1/command", &CommandRequest { to: None, command }).await {
        Ok(_) => Ok(Exit::Done),
        Err(Failure { exit: Exit::Unreachable, .. }) => {
            say(format!("{}\n", styled(DIM, "no agent runs here: it is not in its events")))?;
            Ok(Exit::Done)
        }
        Err(failure) => Err(failure),
    }
}
