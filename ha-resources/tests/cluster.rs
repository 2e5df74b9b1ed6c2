//! From RON text to a recovered service: three nodes in one process, with real heartbeats on loopback, a real lock area in a
//! file, and real programs. Losing a node is dropping all that it consists of; its programs are killed as a watchdog would.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be had ends it")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
use ha_core::claim::lock_area::{AreaConfig, AreaId, LeaseTiming, LockArea};
use ha_core::contact::{AnnouncedPhase, KeyId, KeyRing, Timing};
use ha_core::driver::{Member, Node};
use ha_core::engine::{Ask, Command, Reply, Snapshot};
use ha_core::hierarchy::{Source, read_sources};
use ha_core::name::{BootId, ClusterName, Epoch, HierarchyName, Incarnation, LockAreaName, NodeName};
use ha_resources::channel::Udp;
use ha_resources::claim::DirectDevice;
use ha_resources::clock::boot_clock;
use ha_resources::kinds::Builtin;
use ha_resources::resource::Directories;

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];
const PATIENCE: Duration = Duration::from_secs(60);

fn names() -> Vec<NodeName> {
    NODES.iter().map(|n| NodeName::new(n).unwrap()).collect()
}

fn files(hierarchies: usize) -> Vec<Source> {
    let one = |i| {
        let mut nodes = NODES.map(|n| format!("{n:?}"));
        nodes.rotate_left(i % 3);
        format!(
            "Hierarchy(name: \"h{i}\", nodes: [{}], claim: LockArea(\"main\"), resources: [
                Process(name: \"app\", command: [\"sleep\", \"1000\"])])",
            nodes.join(", ")
        )
    };
    (0..hierarchies).map(|i| Source::new(format!("h{i}.ron"), one(i))).collect()
}

struct Cluster {
    place: tempfile::TempDir,
    ports: BTreeMap<NodeName, SocketAddr>,
    sources: Vec<Source>,
}

/// A node with a runtime of its own: dropping that is the end of everything in it.
struct Machine {
    name: NodeName,
    node: Node,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Cluster {
    async fn new(hierarchies: usize) -> Cluster {
        let place = tempfile::tempdir().unwrap();
        let area = place.path().join("area");
        std::fs::File::create(&area).unwrap().set_len(16 << 20).unwrap();
        let device = DirectDevice::open(&area, Duration::from_secs(5)).unwrap();
        let ms = Duration::from_millis;
        let timing = LeaseTiming::new(ms(100), ms(1000), ms(500), ms(200)).unwrap();
        let plan = AreaPlan { id: AreaId([7; 16]), nodes: names(), hierarchies: 256, timing };
        initialise(&device, plan, Existing::Keep).await.unwrap();
        let free = |name: NodeName| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            (name, socket.local_addr().unwrap())
        };
        Cluster { place, ports: names().into_iter().map(free).collect(), sources: files(hierarchies) }
    }

    fn boot(&self, name: &str, life: u8) -> Machine {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let name = NodeName::new(name).unwrap();
        let node = runtime.block_on(self.start(&name, life));
        Machine { name, node, runtime: Some(runtime) }
    }

    async fn start(&self, name: &NodeName, life: u8) -> Node {
        let here = self.place.path().join(name.as_str());
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let boot = BootId([life; 16]);
        let config = AreaConfig {
            name: LockAreaName::new("main").unwrap(),
            node: name.clone(),
            boot,
            incarnation: Incarnation(u64::try_from(wall).unwrap()),
            timing: None,
            seed: 1,
        };
        let device = DirectDevice::open(self.place.path().join("area"), Duration::from_secs(5)).unwrap();
        let area = LockArea::open(Arc::new(device), config, boot_clock()).await.unwrap();
        let directories = Directories { run: here.join("run"), logs: here.join("log"), cgroups: None };
        let ms = Duration::from_millis;
        let timing = Timing { interval: ms(50), late_after: ms(150), dead_after: ms(400), startup_grace: ms(3000) };
        let peers = self.ports.iter().filter(|(n, _)| *n != name).map(|(n, a)| (n.clone(), *a)).collect();
        let mut builder = Node::builder(ClusterName::new("test").unwrap(), name.clone())
            .nodes(names())
            .timing(timing)
            .keys(KeyRing::generate(KeyId(1), [9; 32]))
            .channel(Arc::new(Udp::bind(self.ports[name], peers).unwrap()))
            .clock(boot_clock())
            .boot_id(boot)
            .run_dir(here.join("run"))
            .state_dir(here.join("state"));
        let reading = read_sources(&self.sources, &Builtin);
        assert_eq!(reading.diagnostics.to_string(), "");
        for loaded in reading.loaded {
            let claim = area.claim(loaded.hierarchy.name.clone());
            let resources = loaded.resources.into_iter().map(|r| r.build(&directories)).collect();
            builder = builder.member(Member { hierarchy: loaded.hierarchy, claim, resources, probes: vec![] });
        }
        builder.start().await.unwrap()
    }
}

impl Machine {
    /// The agent is gone, its programs run on.
    fn kill_agent(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn command(&self, what: Ask) -> Reply {
        let command = Command { what, by: "test".to_owned(), reason: String::new() };
        self.runtime.as_ref().unwrap().block_on(self.node.command(None, command)).unwrap()
    }

    fn view(&self) -> Snapshot {
        self.runtime.as_ref().unwrap().block_on(self.node.snapshot()).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_agent();
    }
}

/// Where every hierarchy is in service, as the nodes themselves say, once all are at exactly one place.
fn settled(
    machines: &[&Machine],
    accept: impl Fn(&BTreeMap<HierarchyName, (NodeName, Epoch)>) -> bool,
) -> BTreeMap<HierarchyName, (NodeName, Epoch)> {
    let begun = std::time::Instant::now();
    loop {
        let views: Vec<Snapshot> = machines.iter().map(|m| m.view()).collect();
        let mut places = BTreeMap::new();
        let mut doubled = false;
        for view in &views {
            for h in view.hierarchies.iter().filter(|h| h.phase == AnnouncedPhase::InService) {
                doubled |= places.insert(h.name.clone(), (view.node.clone(), h.epoch)).is_some();
            }
        }
        assert!(!doubled, "a hierarchy is in service twice: {views:#?}");
        if places.len() == views[0].hierarchies.len() && accept(&places) {
            return places;
        }
        if begun.elapsed() > PATIENCE {
            for machine in machines {
                println!("--- {}", machine.name);
                for event in machine.runtime.as_ref().unwrap().block_on(machine.node.recent_events()).unwrap() {
                    println!("{} {event}", event.at);
                }
            }
            panic!("not settled within {PATIENCE:?}: {places:?}\n{views:#?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a watchdog does: nothing of the node runs any more.
fn kill_programs(place: &Path, name: &str) {
    let tag = place.join(name).join("run");
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
        let ours = environment.split(|b| *b == 0).any(|v| v == format!("HA_NODE={name}").as_bytes());
        // Programs of this cluster only: their output goes into its directory.
        let output = std::fs::read_link(process.path().join("fd/1")).unwrap_or_default();
        if ours && output.starts_with(tag.parent().unwrap()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[test]
fn a_lost_node_is_replaced_and_comes_back_and_services_are_moved_and_adopted() {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = waiting.block_on(Cluster::new(9));
    let mut alpha = cluster.boot("alpha", 1);
    let mut beta = cluster.boot("beta", 2);
    let gamma = cluster.boot("gamma", 3);

    // First start: every hierarchy on its preferred node.
    let first = settled(&[&alpha, &beta, &gamma], |p| p.values().filter(|(n, _)| n.as_str() == "alpha").count() == 3);

    // alpha dies: the next in rank takes over, with greater epochs (L1, S4).
    alpha.kill_agent();
    kill_programs(cluster.place.path(), "alpha");
    let second = settled(&[&beta, &gamma], |_| true);
    for (name, (node, epoch)) in &second {
        let (before, earlier) = &first[name];
        assert_eq!(before.as_str() == "alpha", epoch > earlier, "{name}: only what alpha served changed epochs");
        assert_ne!(node.as_str(), "alpha");
    }

    // beta dies too: the last node serves everything (L2).
    beta.kill_agent();
    kill_programs(cluster.place.path(), "beta");
    settled(&[&gamma], |_| true);

    // alpha and beta come back; nothing moves by itself (L4), and a switchover moves one.
    let alpha = cluster.boot("alpha", 4);
    let mut beta = cluster.boot("beta", 5);
    let name = HierarchyName::new("h0").unwrap();
    let target = NodeName::new("beta").unwrap();
    let begun = std::time::Instant::now();
    let moved = loop {
        let what = Ask::Move { hierarchy: name.clone(), to: Some(target.clone()) };
        let command = Command { what, by: "test".to_owned(), reason: String::new() };
        match alpha.runtime.as_ref().unwrap().block_on(alpha.node.command(None, command)) {
            Ok(reply) => break reply,
            // Not before the nodes have heard each other.
            Err(refused) => assert!(begun.elapsed() < PATIENCE, "{refused}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(matches!(moved, Reply::Accepted(_)));
    let after = settled(&[&alpha, &beta, &gamma], |p| p[&name].0 == target);
    assert_eq!(after.values().filter(|(n, _)| n.as_str() == "gamma").count(), 8);

    // beta's agent is killed and starts again at once: the program runs on, under the same epoch (L5).
    let epoch = after[&name].1;
    beta.kill_agent();
    let beta = cluster.boot("beta", 5);
    let adopted = settled(&[&alpha, &beta, &gamma], |p| p[&name].0 == target);
    assert_eq!(adopted[&name].1, epoch);

    // An operator stops one, and starts it again.
    alpha.command(Ask::Stop { hierarchy: name.clone() });
    let begun = std::time::Instant::now();
    while beta.view().hierarchies.iter().any(|h| h.name == name && h.phase != AnnouncedPhase::Out) {
        assert!(begun.elapsed() < PATIENCE, "{:#?}", beta.view());
        std::thread::sleep(Duration::from_millis(20));
    }
    alpha.command(Ask::Start { hierarchy: name.clone() });
    settled(&[&alpha, &beta, &gamma], |p| p[&name].1 > epoch);

    for (machine, name) in [(alpha, "alpha"), (beta, "beta"), (gamma, "gamma")] {
        drop(machine);
        kill_programs(cluster.place.path(), name);
    }
}
