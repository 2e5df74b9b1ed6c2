//! What an idle node costs on the network and on the storage: the same whatever number of hierarchies it serves.
//!
//! Two whole nodes with a lock area in memory and a network of channels, both of which write down what passes. The tests look at *what* is
//! sent and transferred from one renewal of a lease to a later one, never at how long that takes.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be had ends it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
use ha_core::claim::lock_area::memory::Memory;
use ha_core::claim::lock_area::{AreaConfig, AreaId, BlockDevice, IoFailure, LeaseTiming, LockArea};
use ha_core::contact::{AnnouncedPhase, KeyId, KeyRing, Timing};
use ha_core::driver::{Context, Failed, Member, Node, Verdict, boot_time};
use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
use ha_core::name::{BootId, ChannelName, ClusterName, Incarnation, LockAreaName, NodeName};
use ha_core::{Channel, Resource};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const NODES: [&str; 2] = ["alpha", "beta"];
const PATIENCE: Duration = Duration::from_secs(60);
/// A stretch of time, in renewals of one lease.
const RENEWALS: usize = 100;

fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// What passed: transfers as (write, offset, bytes), datagrams as bytes.
#[derive(Default)]
struct Passed {
    transfers: Vec<(bool, u64, usize)>,
    datagrams: Vec<usize>,
}

type Log = Arc<Mutex<Passed>>;

struct Disk(Memory, Log);

#[async_trait]
impl BlockDevice for Disk {
    fn block_size(&self) -> u32 {
        self.0.block_size()
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoFailure> {
        self.1.lock().unwrap().transfers.push((false, offset, len));
        self.0.read(offset, len).await
    }
    async fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), IoFailure> {
        self.1.lock().unwrap().transfers.push((true, offset, data.len()));
        self.0.write(offset, data).await
    }
}

struct Wire {
    name: ChannelName,
    to: UnboundedSender<Vec<u8>>,
    from: tokio::sync::Mutex<UnboundedReceiver<Vec<u8>>>,
    log: Log,
}

#[async_trait]
impl Channel for Wire {
    fn name(&self) -> &ChannelName {
        &self.name
    }
    async fn send(&self, _: &NodeName, datagram: &[u8]) -> Result<(), Failed> {
        self.log.lock().unwrap().datagrams.push(datagram.len());
        self.to.send(datagram.to_vec()).map_err(Failed::new)
    }
    async fn receive(&self) -> Result<Vec<u8>, Failed> {
        match self.from.lock().await.recv().await {
            Some(datagram) => Ok(datagram),
            None => std::future::pending().await,
        }
    }
}

struct Nothing;

#[async_trait]
impl Resource for Nothing {
    async fn start(&self, _: &Context) -> Result<(), Failed> {
        Ok(())
    }
    async fn stop(&self, _: &Context) -> Result<(), Failed> {
        Ok(())
    }
    async fn monitor(&self, _: &Context) -> Verdict {
        Verdict::Good
    }
}

async fn start(me: &str, hierarchies: usize, disk: Arc<Disk>, wire: Wire, place: &std::path::Path) -> Node {
    let boot = BootId([1; 16]);
    let config = AreaConfig {
        name: LockAreaName::new("main").unwrap(),
        node: name(me),
        boot,
        incarnation: Incarnation(1),
        timing: None,
        seed: 1,
    };
    let clock = boot_time();
    let area = LockArea::open(disk, config, clock.clone()).await.unwrap();
    let ms = Duration::from_millis;
    let mut builder = Node::builder(ClusterName::new("idle").unwrap(), name(me))
        .nodes(NODES.map(name))
        .timing(Timing { interval: ms(20), late_after: ms(5_000), dead_after: ms(10_000), startup_grace: ms(10_000) })
        .keys(KeyRing::generate(KeyId(1), [7; 32]))
        .channel(Arc::new(wire))
        .boot_id(boot)
        .clock(clock)
        .run_dir(place.join(me).join("run"))
        .state_dir(place.join(me).join("state"));
    for number in 0..hierarchies {
        let mut nodes = NODES;
        nodes.rotate_left(number % 2);
        let hierarchy = Hierarchy::builder(format!("h{number}"))
            .nodes(nodes)
            .resource(ResourceBuilder::new("app"))
            .build()
            .unwrap();
        let claim = area.claim(hierarchy.name.clone());
        builder = builder.member(Member { hierarchy, claim, resources: vec![Arc::new(Nothing)], probes: vec![] });
    }
    builder.start().await.unwrap()
}

async fn serves(node: &Node) -> usize {
    let view = node.snapshot().await.unwrap();
    view.hierarchies.iter().filter(|hierarchy| hierarchy.phase == AnnouncedPhase::InService).count()
}

/// What passes between two nodes that serve a half of so many hierarchies each, while nothing happens: each kind of transfer and how often
/// there was one in a stretch of time, and the sizes of the datagrams.
async fn idle(hierarchies: usize) -> (BTreeMap<(bool, u64, usize), usize>, Vec<usize>) {
    let place = tempfile::tempdir().unwrap();
    let log = Log::default();
    let disk = Arc::new(Disk(Memory::new(512, 16 << 20), log.clone()));
    let ms = Duration::from_millis;
    // Leases so long that a busy machine does not end them.
    let timing = LeaseTiming::new(ms(20), ms(20_000), ms(0), ms(200)).unwrap();
    let plan = AreaPlan { id: AreaId([1; 16]), nodes: NODES.map(name).to_vec(), hierarchies: 1_024, timing };
    initialise(&*disk, plan, Existing::Keep).await.unwrap();
    let ((to_alpha, alphas), (to_beta, betas)) = (unbounded_channel(), unbounded_channel());
    let wire = |to, from| Wire {
        name: ChannelName::new("wire").unwrap(),
        to,
        from: tokio::sync::Mutex::new(from),
        log: log.clone(),
    };
    let alpha = start("alpha", hierarchies, disk.clone(), wire(to_beta, alphas), place.path()).await;
    let beta = start("beta", hierarchies, disk.clone(), wire(to_alpha, betas), place.path()).await;
    let began = Instant::now();
    while serves(&alpha).await + serves(&beta).await < hierarchies {
        assert!(began.elapsed() < PATIENCE, "not all of {hierarchies} are served");
        tokio::time::sleep(ms(10)).await;
    }
    // Until the last word of that has been said, the two nodes are not idle.
    loop {
        let (transfers, mut datagrams) = stretch(&log, &began).await;
        datagrams.sort_unstable();
        datagrams.dedup();
        // Each node's two copies of its slot, and the reading of all slots. Beats alone: ages and counters in them take a byte more or less.
        let beats_alone = datagrams.last().zip(datagrams.first()).is_some_and(|(most, least)| most - least <= 4);
        if transfers.len() == 5 && beats_alone {
            return (transfers, datagrams);
        }
        assert!(began.elapsed() < PATIENCE, "never idle with {hierarchies}: {transfers:?} {datagrams:?}");
    }
}

/// What passes while a lease is renewed [`RENEWALS`] times.
async fn stretch(log: &Log, began: &Instant) -> (BTreeMap<(bool, u64, usize), usize>, Vec<usize>) {
    *log.lock().unwrap() = Passed::default();
    loop {
        {
            let mut passed = log.lock().unwrap();
            let writes = passed.transfers.iter().filter(|(write, ..)| *write).count();
            if writes >= 2 * RENEWALS {
                let passed = std::mem::take(&mut *passed);
                let mut transfers = BTreeMap::new();
                for transfer in passed.transfers {
                    *transfers.entry(transfer).or_default() += 1;
                }
                return (transfers, passed.datagrams);
            }
        }
        assert!(began.elapsed() < PATIENCE, "the leases are not renewed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_reads_writes_and_sends_the_same_whatever_it_serves() {
    let (ten, beats_of_ten) = idle(10).await;
    let (thousand, beats_of_thousand) = idle(1_000).await;

    let kinds = |transfers: &BTreeMap<(bool, u64, usize), usize>| transfers.keys().copied().collect::<Vec<_>>();
    assert_eq!(kinds(&thousand), kinds(&ten), "the same places, the same lengths");
    for transfers in [&ten, &thousand] {
        let count = |writes: bool| transfers.iter().filter(|((w, ..), _)| *w == writes).map(|(_, n)| n).sum::<usize>();
        let (reads, writes) = (count(false), count(true));
        assert!(reads.abs_diff(writes) <= NODES.len(), "one write and one read for each renewal: {transfers:?}");
    }
    // A beat names two versions, which take a byte more each where a hundred times as much was announced.
    let (ten, thousand) = (beats_of_ten.iter().max().unwrap(), beats_of_thousand.iter().max().unwrap());
    assert!(*thousand <= ten + 4 && *thousand < 200, "{beats_of_ten:?} {beats_of_thousand:?}");
}
