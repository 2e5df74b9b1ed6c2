//! The claim as the driver sees it, over simulated disks that answer at once, unless told otherwise.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::claim::{ReservationClaim, ReservationConfig, ReservationError};
use super::device::{
    Answer, Command, Failure, Key, PathName, Ports, PowerLoss, Queued, ReservationDevice, ReservationType,
};
use super::timing::ReservationTiming;
use crate::claim::{Acquire, Belief, Claim, EarlyFailures, Held, Holder, Loss, Refusal, Tenure};
use crate::mutation::Mutation;
use crate::name::{ClusterName, Epoch, HierarchyName, NodeName};
use crate::sim::scsi::{Device, Nexus, Reply, Request, Target};
use crate::time::Time;

type Disk = Arc<Mutex<Device>>;

/// A disk as one node reaches it, over the ports from 1 on.
struct Wire {
    name: String,
    disk: Disk,
    initiator: u16,
    ports: u16,
    dead: Arc<Mutex<bool>>,
    /// The port that does not answer.
    silent: Arc<Mutex<Option<u16>>>,
    /// What becomes of the next preemption, if it is not answered.
    preemption: Arc<Mutex<Option<Fate>>>,
}

#[derive(Clone, Copy)]
enum Fate {
    Lost,
    CarriedOut,
}

const LIMIT: Duration = Duration::from_secs(3);

#[async_trait]
impl ReservationDevice for Wire {
    fn name(&self) -> &str {
        &self.name
    }
    fn paths(&self) -> Vec<PathName> {
        (1..=self.ports).map(|port| PathName::new(port.to_string())).collect()
    }
    async fn paths_changed(&self, _: &[PathName]) {
        std::future::pending().await
    }
    async fn send(&self, path: &PathName, command: Command) -> Result<Answer, Failure> {
        let silent = self.silent.lock().unwrap().is_some_and(|port| path.as_str() == port.to_string());
        if silent || *self.dead.lock().unwrap() {
            tokio::time::sleep(LIMIT).await;
            return Err(Failure::NoAnswer);
        }
        let nexus = Nexus { initiator: self.initiator, port: path.as_str().parse().unwrap() };
        let fate = matches!(command, Command::Preempt { .. }).then(|| self.preemption.lock().unwrap().take()).flatten();
        if let Some(fate) = fate {
            if let Fate::CarriedOut = fate {
                let _ = self.disk.lock().unwrap().run(nexus, Request::Reservation(command));
            }
            tokio::time::sleep(LIMIT).await;
            return Err(Failure::NoAnswer);
        }
        let mut disk = self.disk.lock().unwrap();
        if !disk.connect(nexus) {
            return Err(Failure::Transport);
        }
        match disk.run(nexus, Request::Reservation(command)).unwrap()? {
            Reply::Reservation(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }
    fn time_limit(&self) -> Duration {
        LIMIT
    }
}

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn config(name: &str) -> ReservationConfig {
    ReservationConfig {
        cluster: ClusterName::new("shop").unwrap(),
        node: node(name),
        nodes: NODES.map(node).to_vec(),
        hierarchy: HierarchyName::new("web").unwrap(),
        kind: ReservationType::WriteExclusiveRegistrantsOnly,
        timing: ReservationTiming::default(),
    }
}

struct Lab {
    disks: Vec<Disk>,
    dead: Arc<Mutex<bool>>,
    silent: Arc<Mutex<Option<u16>>>,
    preemption: Arc<Mutex<Option<Fate>>>,
}

impl Lab {
    fn new(target: Target, disks: usize) -> Lab {
        let disks = (0..disks).map(|_| Arc::new(Mutex::new(Device::new(target.clone())))).collect();
        Lab { disks, dead: Arc::default(), silent: Arc::default(), preemption: Arc::default() }
    }

    fn devices(&self, name: &str, ports: u16, dead: &Arc<Mutex<bool>>) -> Vec<Arc<dyn ReservationDevice>> {
        let initiator = NODES.iter().position(|n| *n == name).unwrap() as u16 + 1;
        let wire = |(i, disk): (usize, &Disk)| {
            let (name, disk, dead) = (format!("disk{i}"), disk.clone(), dead.clone());
            let (silent, preemption) = (self.silent.clone(), self.preemption.clone());
            Arc::new(Wire { name, disk, initiator, ports, dead, silent, preemption }) as Arc<dyn ReservationDevice>
        };
        self.disks.iter().enumerate().map(wire).collect()
    }

    fn claim(&self, name: &str) -> ReservationClaim {
        let begun = tokio::time::Instant::now();
        let clock = Arc::new(move || Time::ZERO + Duration::from_secs(1_000) + begun.elapsed());
        ReservationClaim::new(self.devices(name, 2, &self.dead), config(name), clock).unwrap()
    }

    fn held_keys(&self) -> Vec<Option<Key>> {
        self.disks.iter().map(|disk| disk.lock().unwrap().reservation().held.and_then(|held| held.key)).collect()
    }

    fn registrations(&self) -> usize {
        self.disks.iter().map(|disk| disk.lock().unwrap().registrations().len()).sum()
    }
}

fn two_ports() -> NonZeroU16 {
    NonZeroU16::new(2).unwrap()
}

fn targets() -> [Target; 3] {
    [Target::standard(two_ports()), Target::lio(two_ports()), Target::tgt(two_ports())]
}

fn believing(belief: Belief) -> Acquire {
    let beliefs: BTreeMap<_, _> = NODES.iter().map(|name| (node(name), belief)).collect();
    Acquire { beliefs: Arc::new(beliefs), known: Epoch::ZERO, adopt: None }
}

async fn release(claim: &ReservationClaim, held: &Held) {
    claim.release(held.epoch, None, EarlyFailures::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_taken_upheld_and_given_up_on_every_device_and_path() {
    for target in targets() {
        let lab = Lab::new(target, 2);
        let (alpha, beta) = (lab.claim("alpha"), lab.claim("beta"));
        assert_eq!(alpha.inspect().await.unwrap().holder, None);
        let held = alpha.acquire(believing(Belief::Lost)).await.unwrap();
        assert_eq!((held.epoch, held.tenure), (Epoch(1), Tenure::UntilRevoked));
        assert_eq!(alpha.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
        assert_eq!(lab.registrations(), 4, "two paths to two devices");
        assert_eq!(alpha.inspect().await.unwrap().holder, Some(Holder::Me));
        assert_eq!(beta.inspect().await.unwrap().holder, Some(Holder::Node(node("alpha"))));
        let refused = beta.acquire(believing(Belief::Heard)).await.unwrap_err();
        assert!(refused.to_string().starts_with("held by alpha (epoch 1): it is in contact"), "{refused}");
        release(&alpha, &held).await;
        assert_eq!((lab.registrations(), lab.held_keys()), (0, vec![None, None]));
        let held = beta.acquire(Acquire { known: Epoch(1), ..believing(Belief::Lost) }).await.unwrap();
        assert_eq!(held.epoch, Epoch(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_that_lives_is_left_alone_and_a_dead_one_is_taken_over_from() {
    for target in targets() {
        let lab = Lab::new(target, 2);
        let (alpha, beta) = (lab.claim("alpha"), lab.claim("beta"));
        let held = alpha.acquire(believing(Belief::Gone)).await.unwrap();
        let refused = beta.acquire(believing(Belief::Lost)).await.unwrap_err();
        assert!(matches!(&refused, Refusal::Held { why, .. } if why.contains("defends")), "{refused}");
        assert_eq!(lab.registrations(), 4, "the loser is not registered");
        assert_eq!(alpha.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
        drop(alpha);
        let before = tokio::time::Instant::now();
        let took = beta.acquire(believing(Belief::Lost)).await.unwrap();
        assert!(took.epoch > held.epoch);
        let bound = ReservationTiming::default().takeover_bound(LIMIT, Duration::ZERO, super::device::Queued::Stay, 2);
        assert!(before.elapsed() <= bound, "{:?}", before.elapsed());
        assert_eq!(lab.registrations(), 4, "only the holder is registered");
        let gamma = lab.claim("gamma");
        let third = gamma.acquire(believing(Belief::Gone)).await.unwrap();
        assert!(third.epoch > took.epoch);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let lost = beta.uphold(took.epoch).await.unwrap_err();
        assert!(matches!(&lost, Loss::Taken(who) if who.starts_with("gamma (epoch")), "{lost}");
        assert_eq!(lab.registrations(), 4, "who lost it does not come back");
    }
}

/// The kernel logs in anew, or the target forgets one nexus: nothing is told of it, and every write on that path would fail.
#[tokio::test(start_paused = true)]
async fn a_path_whose_registration_is_gone_is_registered_again_by_the_next_look() {
    let lab = Lab::new(Target::standard(two_ports()), 1);
    let alpha = lab.claim("alpha");
    let held = alpha.acquire(believing(Belief::Gone)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(lab.registrations(), 2);
    let generation = || lab.disks[0].lock().unwrap().reservation().generation;
    let nexus = Nexus { initiator: 1, port: 2 };
    let command = Command::RegisterIgnoring { new: None, ports: Ports::This, power_loss: PowerLoss::Keeps };
    lab.disks[0].lock().unwrap().run(nexus, Request::Reservation(command)).unwrap().unwrap();
    assert_eq!(lab.registrations(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.registrations(), 2, "repaired");
    assert_eq!(alpha.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
    let before = generation();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(generation(), before, "and not again and again");
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_by_the_look_that_sees_it() {
    let lab = Lab::new(Target::standard(two_ports()), 1);
    let (alpha, beta) = (lab.claim("alpha"), lab.claim("beta"));
    let held = alpha.acquire(believing(Belief::Gone)).await.unwrap();
    let nothing_yet = tokio::time::timeout(Duration::from_secs(30), alpha.lost(held.epoch)).await;
    assert!(nothing_yet.is_err(), "{nothing_yet:?}");
    let took = beta.acquire(believing(Belief::Gone)).await.unwrap();
    let before = tokio::time::Instant::now();
    let lost = alpha.lost(held.epoch).await;
    assert!(before.elapsed() <= ReservationTiming::default().defend_interval(), "{:?}", before.elapsed());
    assert!(matches!(&lost, Loss::Taken(who) if who.starts_with("beta (epoch")), "{lost}");
    // What is held anew is not lost because an earlier tenure was.
    let again = alpha.acquire(believing(Belief::Gone)).await.unwrap();
    assert!(again.epoch > took.epoch);
    assert!(tokio::time::timeout(Duration::from_secs(5), alpha.lost(again.epoch)).await.is_err());
    assert!(matches!(beta.lost(took.epoch).await, Loss::Taken(_)));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_life_held_is_adopted_or_taken_anew() {
    let lab = Lab::new(Target::standard(two_ports()), 2);
    let held = lab.claim("alpha").acquire(believing(Belief::Gone)).await.unwrap();
    let alpha = lab.claim("alpha");
    let adopted = alpha.acquire(Acquire { adopt: Some(held.epoch), ..believing(Belief::Lost) }).await.unwrap();
    assert_eq!(adopted, held);
    drop(alpha);
    let before = tokio::time::Instant::now();
    let alpha = lab.claim("alpha");
    let anew = alpha.acquire(believing(Belief::Lost)).await.unwrap();
    assert!(anew.epoch > held.epoch);
    assert!(before.elapsed() < LIMIT + Duration::from_secs(1), "nobody is challenged: {:?}", before.elapsed());
    drop(alpha);
    // A list with another node in it makes other keys.
    let larger = ReservationConfig { nodes: ["aaron"].into_iter().chain(NODES).map(node).collect(), ..config("alpha") };
    let clock = Arc::new(|| Time(1));
    let alpha = ReservationClaim::new(lab.devices("alpha", 2, &lab.dead), larger.clone(), clock.clone()).unwrap();
    let adopted = alpha.acquire(Acquire { adopt: Some(anew.epoch), ..believing(Belief::Lost) }).await.unwrap();
    assert_eq!(adopted.epoch, anew.epoch);
    assert_eq!(lab.registrations(), 4);
    let stranger = lab.claim("beta").acquire(believing(Belief::Gone)).await.unwrap_err();
    assert!(matches!(&stranger, Refusal::Stranger(who) if who.contains("list of nodes differs")), "{stranger}");
    let other = ReservationConfig { node: node("beta"), ..larger };
    let beta = ReservationClaim::new(lab.devices("beta", 2, &lab.dead), other, clock).unwrap();
    let heard = beta.acquire(believing(Belief::Heard)).await.unwrap_err();
    assert!(matches!(heard, Refusal::Held { .. }), "{heard}");
}

/// Small seed 613260 of the cluster campaign (S5): an agent was killed with the command in the device by which it gave the second disk up. The
/// next life took the claim again, and started; then the command was carried out.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_life_sent_to_give_a_device_up_is_refused_when_it_comes_late() {
    for target in targets() {
        let lab = Lab::new(target, 2);
        let held = lab.claim("alpha").acquire(believing(Belief::Gone)).await.unwrap();
        let old = lab.held_keys()[1].unwrap();
        let order =
            |command| lab.disks[1].lock().unwrap().run(Nexus { initiator: 1, port: 1 }, Request::Reservation(command));
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        order(Command::Release { key: old, kind }).unwrap().unwrap();
        let alpha = lab.claim("alpha");
        let adopted = alpha.acquire(Acquire { adopt: Some(held.epoch), ..believing(Belief::Lost) }).await.unwrap();
        assert_eq!(adopted, held, "the tenure goes on");
        let late = [
            Command::Release { key: old, kind },
            Command::Register { old: Some(old), new: None, ports: Ports::This, power_loss: PowerLoss::Forgets },
            Command::Preempt { key: old, victim: Some(old), kind, queued: Queued::Stay },
            Command::Register { old: None, new: Some(old), ports: Ports::This, power_loss: PowerLoss::Forgets },
        ];
        for command in late {
            let refused = order(command).unwrap().unwrap_err();
            assert!(matches!(refused, Failure::Conflict | Failure::Rejected(_)), "{command:?}: {refused}");
        }
        assert_eq!((lab.registrations(), lab.held_keys()[0]), (4, lab.held_keys()[1]));
        assert_eq!(alpha.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
    }
}

/// The second path does not answer when the agent is restarted, and carries writes all the same.
#[tokio::test(start_paused = true)]
async fn a_path_that_does_not_answer_keeps_its_registration_when_the_agent_is_restarted() {
    let lab = Lab::new(Target::standard(two_ports()), 1);
    let held = lab.claim("alpha").acquire(believing(Belief::Gone)).await.unwrap();
    *lab.silent.lock().unwrap() = Some(2);
    let alpha = lab.claim("alpha");
    let adopted = alpha.acquire(Acquire { adopt: Some(held.epoch), ..believing(Belief::Lost) }).await.unwrap();
    assert_eq!(adopted, held);
    let nexus = |port| Nexus { initiator: 1, port };
    let key =
        |port| lab.disks[0].lock().unwrap().registrations().iter().find(|r| r.nexus == nexus(port)).map(|r| r.key);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(key(2).is_some_and(|old| key(1) != Some(old)), "under its old key");
    *lab.silent.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((key(1), lab.registrations()), (key(2), 2));
    assert_eq!(alpha.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
}

/// What the node that was preempted had under way may be carried out for as long as a command takes, on a device that does not abort.
/// Only the life that preempted knows from when on.
#[tokio::test(start_paused = true)]
async fn an_earlier_life_that_ended_while_it_waited_is_waited_for() {
    let lab = Lab::new(Target::tgt(two_ports()), 1);
    let (alpha, beta) = (lab.claim("alpha"), lab.claim("beta"));
    let beta_held = beta.acquire(believing(Belief::Gone)).await.unwrap();
    drop(beta);
    let a_moment = Duration::from_millis(100);
    tokio::time::timeout(a_moment, alpha.acquire(believing(Belief::Gone))).await.expect_err("it waits");
    drop(alpha);
    let anew = tokio::time::Instant::now();
    let held = lab.claim("alpha").acquire(believing(Belief::Lost)).await.unwrap();
    assert!(held.epoch > beta_held.epoch);
    assert!(anew.elapsed() >= LIMIT, "{:?}", anew.elapsed());
}

#[tokio::test(start_paused = true)]
async fn strangers_are_never_touched() {
    let lab = Lab::new(Target::standard(two_ports()), 2);
    let nexus = Nexus { initiator: 9, port: 1 };
    let theirs = Key::new(0xabcd).unwrap();
    let register = Command::Register { old: None, new: Some(theirs), ports: Ports::This, power_loss: PowerLoss::Keeps };
    {
        let mut disk = lab.disks[1].lock().unwrap();
        disk.connect(nexus);
        for _ in 0..2 {
            let _ = disk.run(nexus, Request::Reservation(register));
        }
    }
    let alpha = lab.claim("alpha");
    let refused = alpha.acquire(believing(Belief::Gone)).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Stranger(who) if who.contains("disk1")), "{refused}");
    assert_eq!(lab.registrations(), 1, "all is given back, and the stranger's stays");
    assert_eq!(lab.held_keys(), [None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_device_without_reservations_is_named() {
    let lab = Lab::new(Target::without_reservations(two_ports()), 1);
    let refused = lab.claim("alpha").acquire(believing(Belief::Gone)).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("disk0") && text.contains("not supported by the device"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn storage_that_does_not_answer_is_given_up_after_a_while() {
    let lab = Lab::new(Target::standard(two_ports()), 1);
    let alpha = lab.claim("alpha");
    let held = alpha.acquire(believing(Belief::Gone)).await.unwrap();
    *lab.dead.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let unproven = alpha.uphold(held.epoch).await.unwrap_err();
    assert!(
        matches!(&unproven, Loss::Unproven { why, proven: Some(_) } if why.contains("no answer in time")),
        "{unproven}"
    );
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(matches!(alpha.uphold(held.epoch).await, Err(Loss::GivenUp(_))));
}

#[tokio::test(start_paused = true)]
async fn a_claim_won_for_somebody_who_went_away_is_given_back() {
    let lab = Lab::new(Target::standard(two_ports()), 2);
    let alpha = lab.claim("alpha");
    let gone = tokio::time::timeout(Duration::from_millis(1), alpha.acquire(believing(Belief::Lost))).await;
    assert!(gone.is_err(), "a device without a memory is left to its holder for a while");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!((lab.registrations(), lab.held_keys()), (0, vec![None, None]));
}

/// Whether beta has the arbiter when it says so, with its preemption of a dead holder unanswered.
async fn takes_over_with(fate: Fate) -> bool {
    let lab = Lab::new(Target::standard(two_ports()), 1);
    lab.claim("alpha").acquire(believing(Belief::Gone)).await.unwrap();
    *lab.preemption.lock().unwrap() = Some(fate);
    let beta = lab.claim("beta");
    let held = beta.acquire(believing(Belief::Gone)).await;
    let holder = lab.held_keys().remove(0).and_then(|key| beta.keyring().decode(key)).unwrap();
    held.is_ok_and(|held| held.epoch == holder.epoch) && beta.inspect().await.unwrap().holder == Some(Holder::Me)
}

#[tokio::test(start_paused = true)]
async fn a_preemption_that_is_not_answered_is_read_back() {
    assert!(takes_over_with(Fate::CarriedOut).await, "it is not sent for nothing");
    assert!(takes_over_with(Fate::Lost).await, "it is sent again");
}

/// Whether alpha, which holds a device that forgets everything, has it still after somebody else asked for it at once.
async fn survives_loss_of_power() -> bool {
    let lab = Lab::new(Target::tgt(two_ports()), 1);
    let (alpha, beta) = (lab.claim("alpha"), lab.claim("beta"));
    let held = alpha.acquire(believing(Belief::Gone)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    lab.disks[0].lock().unwrap().lose_power();
    lab.disks[0].lock().unwrap().restore_power();
    let refused = beta.acquire(believing(Belief::Lost)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    refused.is_err() && alpha.uphold(held.epoch).await == Ok(Tenure::UntilRevoked)
}

#[tokio::test(start_paused = true)]
async fn a_holder_comes_back_to_a_device_that_lost_its_memory() {
    assert!(survives_loss_of_power().await);
    let _on = Mutation::TakeBlankAtOnce.switch_on();
    assert!(!survives_loss_of_power().await, "else whoever comes first takes it");
}

#[tokio::test(start_paused = true)]
async fn fencing_removes_what_a_node_has_registered() {
    let lab = Lab::new(Target::standard(two_ports()), 2);
    let alpha = lab.claim("alpha");
    let unfit = alpha.fence(&node("beta")).await.unwrap_err();
    assert!(matches!(unfit, Refusal::Unfit(_)), "{unfit}");
    let held = alpha.acquire(believing(Belief::Gone)).await.unwrap();
    alpha.fence(&node("beta")).await.unwrap();
    assert_eq!(alpha.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let lab = Lab::new(Target::standard(two_ports()), 1);
    let clock: crate::claim::lock_area::Clock = Arc::new(|| Time::ZERO);
    let with = |devices, config| ReservationClaim::new(devices, config, clock.clone()).map(drop);
    let one = || lab.devices("alpha", 1, &lab.dead);
    assert!(matches!(with(vec![], config("alpha")), Err(ReservationError::NoDevice(_))));
    let twice = one().into_iter().chain(one()).collect();
    assert!(matches!(with(twice, config("alpha")), Err(ReservationError::Twice { .. })));
    let kind = ReservationType::WriteExclusive;
    assert!(matches!(with(one(), ReservationConfig { kind, ..config("alpha") }), Err(ReservationError::Kind { .. })));
    let hasty = ReservationTiming::new(Duration::from_secs(1), Duration::from_secs(6)).unwrap();
    let hasty = ReservationConfig { timing: hasty, ..config("alpha") };
    assert!(matches!(with(one(), hasty), Err(ReservationError::Timing(_))));
    let unknown = ReservationConfig { node: node("delta"), ..config("alpha") };
    assert!(matches!(with(one(), unknown), Err(ReservationError::Keyring(_))));
}
