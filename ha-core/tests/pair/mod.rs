//! Two whole nodes in one process, with a lock area in memory between them and a network of channels, both of which write down what passes.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be had ends it")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
use ha_core::claim::lock_area::memory::Memory;
use ha_core::claim::lock_area::{AreaConfig, AreaId, BlockDevice, IoFailure, LeaseTiming, LockArea};
use ha_core::contact::{KeyId, KeyRing, Timing};
use ha_core::driver::{Context, Failed, Member, Node, Probe, Verdict, boot_time};
use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
use ha_core::name::{BootId, ChannelName, ClusterName, Incarnation, LockAreaName, NodeName};
use ha_core::{Channel, Resource};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) const NODES: [&str; 2] = ["alpha", "beta"];

pub(crate) fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// What passed: transfers as (write, offset, bytes), datagrams as bytes.
#[derive(Default)]
pub(crate) struct Passed {
    pub(crate) transfers: Vec<(bool, u64, usize)>,
    pub(crate) datagrams: Vec<usize>,
}

pub(crate) type Log = Arc<Mutex<Passed>>;

pub(crate) struct Disk(Memory, Log);

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

pub(crate) struct Wire {
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

/// A disk with a lock area, and both ends of a wire: alpha's, then beta's.
pub(crate) async fn between_them(log: &Log) -> (Arc<Disk>, [Wire; 2]) {
    let ms = Duration::from_millis;
    let disk = Arc::new(Disk(Memory::new(512, 16 << 20), log.clone()));
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
    (disk, [wire(to_beta, alphas), wire(to_alpha, betas)])
}

/// A node that serves so many hierarchies, the even ones alpha's in the first place; each has these probes.
pub(crate) async fn start(
    me: &str,
    hierarchies: usize,
    probes: &[Arc<dyn Probe>],
    disk: Arc<Disk>,
    wire: Wire,
    place: &Path,
) -> Node {
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
        builder =
            builder.member(Member { hierarchy, claim, resources: vec![Arc::new(Nothing)], probes: probes.to_vec() });
    }
    builder.start().await.unwrap()
}
