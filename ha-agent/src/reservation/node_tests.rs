//! A node that serves on a reservation, keeps it over a reload, and loses it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Command, Key, Ports, PowerLoss, Queued};
use ha_core::claim::reservation::{ClusterKey, Keyring, ReservationTiming, ReservationType, Role};
use ha_core::driver::{Context, Failed, Member, Node, Reload, Resource, Verdict};
use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
use ha_core::name::Epoch;
use ha_core::record::Happened;
use ha_core::sim::scsi::{Nexus, Request};
use ha_resources::claim::reservation::ReservationSpec;
use ha_resources::clock;

use super::testing::{Shelf, Simulated, common};
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

/// What the other node, which this one does not hear, does to the disk.
fn done_by_beta(disk: &Simulated, commands: &[Command]) {
    let beta = Nexus { initiator: 2, port: 1 };
    let mut disk = disk.lock().unwrap();
    disk.connect(beta);
    for command in commands {
        while disk.run(beta, Request::Reservation(*command)).unwrap().is_err() {}
    }
}

fn register(key: Key) -> Command {
    Command::RegisterIgnoring { new: Some(key), ports: Ports::This, power_loss: PowerLoss::Keeps }
}

fn preempt(key: Key, victim: Key) -> Command {
    Command::Preempt { key, victim: Some(victim), kind: KIND, queued: Queued::Aborted }
}

fn keyring() -> Keyring {
    let alpha = common("alpha");
    Keyring::new(&alpha.cluster, alpha.nodes).unwrap()
}

fn key(node: &str, epoch: u64) -> Key {
    let node = keyring().number_of(&common(node).node).unwrap();
    keyring().encode(ClusterKey { role: Role::Holder, node, epoch: Epoch(epoch) }).unwrap()
}

fn held_by(disk: &Simulated) -> Option<Key> {
    disk.lock().unwrap().reservation().held.and_then(|held| held.key)
}

/// A hierarchy of one service on the disk, as alpha has it.
struct Stage {
    shelf: Arc<Shelf>,
    owners: Owners,
    service: Arc<Service>,
}

impl Stage {
    fn new() -> Stage {
        let shelf = Shelf::with(&[("/dev/one", "one")]);
        Stage { shelf, owners: Owners::default(), service: Arc::new(Service::default()) }
    }

    /// As a definition says it, with a claim of its own.
    fn member(&self, defend_interval: Duration, app: ResourceBuilder) -> Member {
        let spec = ReservationSpec {
            devices: vec!["/dev/one".into()],
            kind: KIND,
            timing: ReservationTiming::new(defend_interval, ENOUGH).unwrap(),
            time_limit: Duration::from_secs(20),
        };
        let hierarchy = Hierarchy::builder("web")
            .nodes(["alpha", "beta"])
            .claim_version(format!("{defend_interval:?}"))
            .resource(app)
            .build()
            .unwrap();
        let (name, alpha, opener) = (hierarchy.name.clone(), common("alpha"), self.shelf.reached_by("alpha"));
        let claim = LateReservation::new(name, spec, alpha, clock::boot_clock(), self.owners.clone(), opener);
        Member { hierarchy, claim: Arc::new(claim), resources: vec![self.service.clone()], probes: vec![] }
    }

    async fn start(&self, member: Member, dir: &Path) -> (Node, Events) {
        let alpha = common("alpha");
        let mut timing = ha_core::contact::Timing::default();
        timing.startup_grace = timing.dead_after;
        let node = Node::builder(alpha.cluster, alpha.node)
            .nodes(alpha.nodes)
            .timing(timing)
            .clock(clock::boot_clock())
            .run_dir(dir.join("run"))
            .state_dir(dir.join("state"))
            .member(member)
            .start()
            .await
            .unwrap();
        let events = Events(node.subscribe());
        (node, events)
    }

    fn counted(&self) -> (usize, usize) {
        (self.service.started.load(Ordering::SeqCst), self.service.killed.load(Ordering::SeqCst))
    }
}

struct Events(tokio::sync::broadcast::Receiver<ha_core::record::Event>);

impl Events {
    async fn until(&mut self, wanted: &str) -> Happened {
        loop {
            let event = tokio::time::timeout(ENOUGH, self.0.recv()).await.unwrap().unwrap();
            if format!("{:?}", event.what).starts_with(wanted) {
                return event.what;
            }
        }
    }
}

/// Waits for what is not told of.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < ENOUGH, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_reservation_is_taken_stops_by_force() {
    let (stage, dir) = (Stage::new(), tempfile::tempdir().unwrap());
    let (node, mut events) = stage.start(stage.member(SHORT, ResourceBuilder::new("app")), dir.path()).await;
    events.until("InService").await;

    let disk = stage.shelf.disk("one");
    assert_eq!(held_by(&disk), Some(key("alpha", 1)));
    done_by_beta(&disk, &[register(key("beta", 2)), preempt(key("beta", 2), key("alpha", 1))]);
    let Happened::ClaimLost { why } = events.until("ClaimLost").await else { panic!() };
    assert!(why.contains("taken over by beta (epoch 2), on /dev/one"), "{why}");
    events.until("Phase { phase: Out").await;
    assert_eq!(stage.counted(), (1, 1));
    let disk = stage.shelf.reached_by("alpha").open(Path::new("/dev/one"), ENOUGH).unwrap();
    let report = super::show::report(&keyring(), &disk).await;
    assert_eq!(report.shown().unwrap().reservation.as_ref().unwrap().holder.as_ref().unwrap().whose, "beta (epoch 2)");
    node.shutdown().await;
}

/// A definition with another service and the same claim: the service is restarted under the tenure that there is, the disk is not let go of
/// for a moment, and it is defended afterwards as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_a_claim_that_is_held() {
    let (stage, dir) = (Stage::new(), tempfile::tempdir().unwrap());
    let (node, mut events) = stage.start(stage.member(SHORT, ResourceBuilder::new("app")), dir.path()).await;
    events.until("InService").await;
    let disk = stage.shelf.disk("one");
    until("both paths are registered", || disk.lock().unwrap().registrations().len() == 2).await;
    let generation = disk.lock().unwrap().reservation().generation;

    let other = stage.member(SHORT, ResourceBuilder::new("app").version("2"));
    let report = node.reload(vec![other], Reload::Apply).await.unwrap();
    assert_eq!(report.running_here.len(), 1, "{report:?}");
    events.until("InService").await;
    assert_eq!(stage.counted(), (2, 0), "restarted, and not by force");
    assert_eq!(held_by(&disk), Some(key("alpha", 1)));
    assert_eq!(disk.lock().unwrap().reservation().generation, generation, "nobody registered or preempted");

    let challenger = ClusterKey { role: Role::Challenger, ..keyring().decode(key("beta", 2)).unwrap() };
    let challenger = keyring().encode(challenger).unwrap();
    done_by_beta(&disk, &[register(challenger)]);
    until("the challenger is struck out", || {
        disk.lock().unwrap().registrations().iter().all(|it| it.key != challenger)
    })
    .await;

    done_by_beta(&disk, &[register(key("beta", 2)), preempt(key("beta", 2), key("alpha", 1))]);
    events.until("ClaimLost").await;
    events.until("Phase { phase: Out").await;
    assert_eq!(stage.counted(), (2, 1));
    node.shutdown().await;
}

/// A definition whose claim is another one: given back in order, and taken anew by the other, whose disks are its own from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_with_another_claim_gives_the_disk_back_and_takes_it_anew() {
    let (stage, dir) = (Stage::new(), tempfile::tempdir().unwrap());
    let (node, mut events) = stage.start(stage.member(SHORT, ResourceBuilder::new("app")), dir.path()).await;
    events.until("InService").await;
    let other = stage.member(SHORT * 2, ResourceBuilder::new("app"));
    node.reload(vec![other], Reload::Apply).await.unwrap();
    events.until("ClaimReleased").await;
    events.until("InService").await;
    let disk = stage.shelf.disk("one");
    assert_eq!(held_by(&disk), Some(key("alpha", 2)));
    assert_eq!(stage.counted(), (2, 0));
    node.shutdown().await;
}
