//! A node that serves on a reservation, and loses it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Command, Ports, PowerLoss, Queued};
use ha_core::claim::reservation::{ClusterKey, Keyring, ReservationTiming, ReservationType, Role};
use ha_core::driver::{Context, Failed, Member, Node, Resource, Verdict};
use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
use ha_core::name::Epoch;
use ha_core::record::Happened;
use ha_core::sim::scsi::{Nexus, Request};
use ha_resources::claim::reservation::ReservationSpec;
use ha_resources::clock;

use super::testing::{Shelf, common};
use super::{LateReservation, Owners};

const ENOUGH: Duration = Duration::from_secs(60);
const KIND: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

/// Counts how often it was started, and how often ended by force.
#[derive(Default)]
struct Service {
    started: AtomicUsize,
    killed: AtomicUsize,
}

#[async_trait]
impl Resource for Service {
    async fn start(&self, _: &Context) -> Result<(), Failed> {
        self.started.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn stop(&self, _: &Context) -> Result<(), Failed> {
        Ok(())
    }
    async fn kill(&self, _: &Context) -> Result<(), Failed> {
        self.killed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn monitor(&self, _: &Context) -> Verdict {
        Verdict::Good
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_reservation_is_taken_stops_by_force() {
    let shelf = Shelf::with(&[("/dev/one", "one")]);
    let spec = ReservationSpec {
        devices: vec!["/dev/one".into()],
        kind: KIND,
        timing: ReservationTiming::new(Duration::from_millis(50), ENOUGH).unwrap(),
        time_limit: Duration::from_secs(20),
    };
    let alpha = common("alpha");
    let hierarchy = Hierarchy::builder("web").nodes(["alpha", "beta"]).resource(ResourceBuilder::new("app"));
    let hierarchy = hierarchy.build().unwrap();
    let opener = shelf.reached_by("alpha");
    let claim = LateReservation::new(
        hierarchy.name.clone(),
        spec,
        alpha.clone(),
        clock::boot_clock(),
        Owners::default(),
        opener.clone(),
    );
    let service = Arc::new(Service::default());
    let member = Member { hierarchy, claim: Arc::new(claim), resources: vec![service.clone()], probes: vec![] };
    let mut timing = ha_core::contact::Timing::default();
    timing.startup_grace = timing.dead_after;
    let node = Node::builder(alpha.cluster.clone(), alpha.node.clone())
        .nodes(alpha.nodes.clone())
        .timing(timing)
        .clock(clock::boot_clock())
        .member(member);
    let node = node.start().await.unwrap();
    let mut events = node.subscribe();
    let mut until = async |wanted: &str| loop {
        let event = tokio::time::timeout(ENOUGH, events.recv()).await.unwrap().unwrap();
        let told = format!("{:?}", event.what);
        if told.starts_with(wanted) {
            return event.what;
        }
    };
    until("InService").await;

    // Beta, which this node does not hear, takes the disk.
    let keyring = Keyring::new(&alpha.cluster, alpha.nodes.clone()).unwrap();
    let key = |node: &str, epoch| {
        let node = keyring.number_of(&common(node).node).unwrap();
        keyring.encode(ClusterKey { role: Role::Holder, node, epoch: Epoch(epoch) }).unwrap()
    };
    let beta = Nexus { initiator: 2, port: 1 };
    let disk = shelf.disk("one");
    let held = disk.lock().unwrap().reservation().held.unwrap().key.unwrap();
    assert_eq!(held, key("alpha", 1));
    {
        let mut disk = disk.lock().unwrap();
        let new = Some(key("beta", 2));
        let register = Command::RegisterIgnoring { new, ports: Ports::This, power_loss: PowerLoss::Keeps };
        let preempt = Command::Preempt { key: key("beta", 2), victim: Some(held), kind: KIND, queued: Queued::Aborted };
        disk.connect(beta);
        for command in [register, preempt] {
            while disk.run(beta, Request::Reservation(command)).unwrap().is_err() {}
        }
    }
    let Happened::ClaimLost { why } = until("ClaimLost").await else { panic!() };
    assert!(why.contains("taken over by beta (epoch 2), on /dev/one"), "{why}");
    until("Phase { phase: Out").await;
    assert_eq!(service.started.load(Ordering::SeqCst), 1);
    assert_eq!(service.killed.load(Ordering::SeqCst), 1);
    let disk = opener.open(Path::new("/dev/one"), ENOUGH).unwrap();
    let report = super::show::report(&keyring, &disk).await;
    assert_eq!(report.shown().unwrap().reservation.as_ref().unwrap().holder.as_ref().unwrap().whose, "beta (epoch 2)");
    node.shutdown().await;
}
