//! `ha run`: the agent itself.
//!
//! Decides the order in which it begins and ends. Leaves everything about the cluster to the node that it starts, and what
//! signals and files mean to the modules below.

mod agent;
mod areas;
mod fencing;
mod kernel;
mod lock_file;
mod log;
mod parts;
mod supervisor;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ha_core::driver::{Ended, FlightFiles, Node};
use ha_core::engine::{Ask, Command, Refused};
use ha_core::hierarchy::Loaded;
use ha_core::name::{BootId, NodeName};
use ha_resources::kinds::Builtin;
use ha_resources::{clock, urgency};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::agent::Running;
pub(crate) use self::agent::unarmed;
use self::fencing::Fencing;
use self::lock_file::LockFile;
use self::parts::Ground;
use crate::api::{self, Agent, ReloadMode};
use crate::config::{self, Config, FlightSettings};
use crate::exit::{Exit, Failure};

/// The engine's loop and the channels need no more; resources run in processes of their own.
const THREADS: usize = 2;

/// Runs the agent until it is drained, or told to end.
pub(crate) fn run(dir: &Path, node: Option<NodeName>, boot: Option<BootId>) -> Result<Exit, Failure> {
    let (config, hierarchies, warnings) = config::read_whole(dir)?;
    let me = node.map_or_else(host_name, Ok)?;
    log::set_up(&config.log)?;
    let _only = LockFile::take(&config.run_dir)?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("a part of the agent failed, the rest goes on: {panic}")));
    for line in warnings.to_string().lines() {
        tracing::warn!("{line}");
    }
    let refused = make_urgent();
    let runtime = urgent_runtime()?;
    let boot = boot.map_or_else(clock::boot_id, Ok).map_err(|e| Failure::new(Exit::System, e))?;
    let (end, log) = runtime.block_on(live(dir, config, hierarchies, me, boot, refused))?;
    // The last of the node goes with it, and then the log is complete.
    drop(runtime);
    let _ = log.join();
    Ok(end)
}

/// This machine's host name, as a node's name.
pub(crate) fn host_name() -> Result<NodeName, Failure> {
    let name = nix::unistd::gethostname()
        .map_err(|e| Failure::new(Exit::System, format!("the host name cannot be read: {e}")))?;
    NodeName::new(name.to_string_lossy()).map_err(|e| {
        Failure::new(Exit::BadInput, format!("the host name cannot be this node's name: {e}"))
            .help("say it with --node")
    })
}

/// A part of the node that is not as it should be, and what is wrong with it.
type Complaint = (&'static str, String);

/// Locks the process's memory and makes this thread urgent. What the system refuses is for the operator to know as long as the agent lives.
fn make_urgent() -> Vec<Complaint> {
    let memory = urgency::keep_in_memory().map_err(|refused| {
        (
            "memory",
            format!("not locked ({refused}): a machine that swaps may delay heartbeats; give LimitMEMLOCK=infinity"),
        )
    });
    let priority = urgency::make_thread_urgent().map_err(|refused| {
        ("priority", format!("not real-time ({refused}): a busy machine may delay heartbeats; give CAP_SYS_NICE"))
    });
    if memory.is_ok() && priority.is_ok() {
        tracing::info!("memory is locked, and the agent's threads run at real-time priority");
    }
    [memory, priority].into_iter().filter_map(Result::err).collect()
}

/// A runtime whose threads go before ordinary ones, where that is allowed: also those that operations on resources wait on.
fn urgent_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .on_thread_start(|| drop(urgency::make_thread_urgent()))
        .build()
        .map_err(|e| Failure::new(Exit::System, format!("the agent's threads could not be started: {e}")))
}

async fn live(
    dir: &Path,
    config: Config,
    hierarchies: Vec<Loaded<Builtin>>,
    me: NodeName,
    boot: BootId,
    refused: Vec<Complaint>,
) -> Result<(Exit, JoinHandle<()>), Failure> {
    let mut signals = Signals::catch()?;
    let clock = clock::boot_clock();
    let mut builder = Node::builder(config.cluster.clone(), me.clone())
        .nodes(config.nodes.iter().map(|n| n.name.clone()))
        .timing(config.timing)
        .run_dir(parts::memory_dir(&config))
        .state_dir(&config.state_dir)
        .boot_id(boot)
        .clock(clock.clone())
        .pressure(ha_resources::pressure::gauge())
        .definition(config.definition());
    for channel in parts::channels(&config, &me)? {
        builder = builder.channel(channel);
    }
    if let Some(file) = &config.keys {
        builder = builder.keys(parts::keys(file)?);
    }
    if let Some(watchdog) = parts::watchdog(&config)? {
        builder = builder.watchdog(watchdog);
    }
    if let Some(max) = config.max_recoveries {
        builder = builder.max_recoveries(max);
    }
    if let FlightSettings::Ring { mebibytes } = config.flight_recorder {
        let total_bytes = mebibytes << 20;
        let segment_bytes = (total_bytes / 64).clamp(256 << 10, 4 << 20);
        builder = builder.flight_recorder(FlightFiles { directory: config.flight_dir(), total_bytes, segment_bytes });
    }
    for area in &config.lock_areas {
        if let (Some(timing), Ok(channel)) = (area.channel, ha_core::name::ChannelName::new(area.name.as_str())) {
            builder = builder.channel_timing(channel, timing);
        }
    }
    let ground = Arc::new(Ground::new(&config, &me, boot, &clock));
    let claims = agent::claims(&hierarchies, &me);
    for loaded in hierarchies {
        builder = builder.member(ground.member(loaded).map_err(|e| Failure::new(Exit::BadInput, e))?);
    }
    let fencing = Arc::new(Fencing::new(&config, me.clone(), clock, ground.directories.cgroups.as_ref()));
    let node = builder.fencer(fencing.clone()).start().await.map_err(|e| Failure::new(Exit::System, e))?;
    for (part, what) in refused {
        let _ = node.complain(part, Some(what)).await;
    }
    let events = node.subscribe();
    let log = log::follow(node.recent_events().await.unwrap_or_default(), events)
        .map_err(|e| Failure::new(Exit::System, format!("the thread of the log could not be started: {e}")))?;
    let socket = config.socket.clone();
    let running = Arc::new(Running {
        node: node.clone(),
        fencing: fencing.clone(),
        me: me.clone(),
        dir: dir.to_owned(),
        ground,
        config,
        claims: Mutex::new(claims),
    });
    let server = api::serve(&socket, running.clone()).map_err(|e| {
        Failure::new(Exit::System, format!("the socket {} cannot be opened: {e}", socket.path.display()))
            .help("`socket` in agent.ron says where it is and who may use it")
    })?;
    let server = tokio::spawn(server);
    let companion = tokio::spawn(supervisor::accompany(running.clone()));
    let listener = tokio::spawn(kernel::listen(running.clone()));
    let watched = node.clone();
    let looks = tokio::spawn(async move { fencing.keep_looking(&watched).await });
    tracing::info!(socket = %socket.path.display(), "{me} of cluster {} is ready", running.config.cluster);
    supervisor::ready();
    let end = until_the_end(&node, &running, &mut signals).await;
    wind_up(&node, &running, end).await;
    companion.abort();
    listener.abort();
    looks.abort();
    server.abort();
    let _ = server.await;
    Ok((end, log))
}

/// Carries on until the node is drained or a signal says so; reloads on SIGHUP.
async fn until_the_end(node: &Node, running: &Arc<Running>, signals: &mut Signals) -> Exit {
    let mut draining = false;
    loop {
        tokio::select! {
            how = node.finished() => {
                if how == Ended::Drained {
                    return Exit::Drained;
                }
                tracing::error!("the node's loop ended although nobody asked for it: the supervisor should start the agent again");
                return Exit::System;
            }
            Some(who) = taken(running.ground.refused.clone()) => {
                tracing::error!("this agent ends: {who}");
                return Exit::Refused;
            }
            _ = signals.terminate.recv() => {
                // A second one means at once.
                if draining || !supervisor::machine_goes_down().await {
                    return Exit::Done;
                }
                draining = true;
                if let Err(refused) = drain(node).await {
                    tracing::error!("the machine goes down, and this agent cannot hand over what it serves: {refused}");
                    return Exit::Done;
                }
            }
            _ = signals.interrupt.recv() => return Exit::Done,
            _ = signals.hang_up.recv() => reload(running.as_ref()).await,
        }
    }
}

/// Asks for everything that is served here to be handed over or stopped; the node then ends by itself.
async fn drain(node: &Node) -> Result<(), Refused> {
    let reason = "the machine goes down";
    tracing::info!("{reason}: what is served here is handed over, or stopped in order");
    supervisor::stopping("the machine goes down: handing over");
    let by = format!("the service manager of {}", node.name());
    node.command(None, Command { what: Ask::Drain, by, reason: reason.to_owned() }).await.map(drop)
}

/// Waits until it is known that another agent has this node's name.
async fn taken(mut refused: tokio::sync::watch::Receiver<Option<String>>) -> Option<String> {
    match refused.wait_for(Option::is_some).await {
        Ok(who) => who.clone(),
        Err(_) => std::future::pending().await,
    }
}

async fn reload(running: &Running) {
    match running.reload(ReloadMode::Apply).await {
        Ok(view) => {
            if view.changes.is_empty() {
                tracing::info!("reloaded: nothing changes");
            }
            for change in view.changes {
                tracing::info!("reloaded: {change}");
            }
            for part in view.needs_restart {
                tracing::warn!("{part} in agent.ron changed: takes effect when the agent is restarted");
            }
        }
        Err(wrong) => tracing::error!("not reloaded, everything goes on as it was: {wrong}"),
    }
}

async fn wind_up(node: &Node, running: &Running, end: Exit) {
    if end == Exit::Drained {
        supervisor::stopping("drained: nothing is served here any more");
        tracing::info!("drained: nothing is served here any more");
        for area in running.ground.areas.values() {
            area.leave().await;
        }
    } else {
        supervisor::stopping("ending, services go on");
        tracing::info!("ending; what is in service goes on, for the next life of the agent to adopt");
    }
    node.shutdown().await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let catch =
            |kind| signal(kind).map_err(|e| Failure::new(Exit::System, format!("signals cannot be received: {e}")));
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }
}
