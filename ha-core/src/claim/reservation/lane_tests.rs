//! One device: what is sent next, in situations that the simulators have found.

use std::time::Duration;

use super::device::{
    Answer, Command, Failure, Held, Key, Keys, PathName, Ports, PowerLoss, Queued, Reservation, ReservationType,
    UnitAttention,
};
use super::give_up::GiveUp;
use super::hold::Hold;
use super::key::{ClusterKey, Keyring, Role};
use super::lane::{Common, End, Goal, Lane, Step};
use super::machine::CommandId;
use super::path::Registration;
use super::take::{Take, Writers};
use super::timing::ReservationTiming;
use crate::claim::{Acquire, Refusal};
use crate::name::{ClusterName, Epoch, NodeName};
use crate::time::Time;

fn lane_of_alpha() -> (Common, Lane, Key) {
    let nodes = ["alpha", "beta"].map(|name| NodeName::new(name).unwrap());
    let keyring = Keyring::new(&ClusterName::new("shop").unwrap(), nodes.clone()).unwrap();
    let me = keyring.number_of(&nodes[0]).unwrap();
    let key = keyring.encode(ClusterKey { role: Role::Holder, node: me, epoch: Epoch(1) }).unwrap();
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    let common = Common { keyring, me, kind, timing: ReservationTiming::default() };
    let mut lane = Lane::new("disk".into(), Duration::from_secs(3));
    lane.set_paths(vec![PathName::new("1")]);
    (common, lane, key)
}

fn by_name(key: Key) -> Command {
    Command::Register { old: Some(key), new: None, ports: Ports::This, power_loss: PowerLoss::Keeps }
}

/// Sends what is planned and answers it.
fn answer(lane: &mut Lane, common: &Common, step: Step, result: Result<Answer, Failure>) {
    let Step::Send(path, command) = step else { panic!("{step:?} is no command") };
    lane.sent(CommandId(1), path, command, Time(9)).unwrap();
    assert!(lane.answered(CommandId(1), result, common, Time(9)));
}

/// Another device of a claim whose arbiter was taken under `key`.
fn another(key: Key, writers: Writers) -> Take {
    let request = Acquire { beliefs: std::sync::Arc::default(), known: Epoch::ZERO, adopt: None };
    let mut take = Take::arbiter(request, Epoch::ZERO, Time(0));
    take.writers = writers;
    take.for_another(key)
}

fn show(lane: &mut Lane, keys: &[Key]) {
    lane.keys = Some(Keys { generation: 7, keys: keys.to_vec() });
    lane.reservation = Some(Reservation { generation: 7, held: None });
}

/// Small seed 115773 of the cluster campaign (S5): a command that removed whatever was registered was carried out four seconds late, and
/// took the registration of a later life away.
#[test]
fn a_registration_that_is_not_known_is_removed_by_name() {
    let (common, mut lane, key) = lane_of_alpha();
    lane.set_goal(Goal::GiveUp(GiveUp::default()));
    show(&mut lane, &[key]);
    let step = lane.plan_give_up(&common, Time(5));
    assert_eq!(step, Step::Send(0, by_name(key)));
    answer(&mut lane, &common, step, Err(Failure::NoAnswer));
    lane.paths[0].failed = None;
    show(&mut lane, &[key]);
    let step = lane.plan_give_up(&common, Time(5));
    assert_eq!(step, Step::Send(0, by_name(key)), "no answer is no removal");
    answer(&mut lane, &common, step, Err(Failure::Conflict));
    show(&mut lane, &[key]);
    lane.plan_give_up(&common, Time(5));
    assert_eq!(lane.paths[0].registration, Registration::None, "the key is another path's");
}

/// A later life of the agent cannot know of it, and may choose the same key.
#[test]
fn a_registration_that_never_was_seen_is_not_removed() {
    let (common, mut lane, key) = lane_of_alpha();
    show(&mut lane, &[]);
    let step = lane.let_in(0, key, None, &common).unwrap();
    answer(&mut lane, &common, step, Err(Failure::NoAnswer));
    lane.set_goal(Goal::GiveUp(GiveUp::default()));
    show(&mut lane, &[]);
    assert_eq!(lane.plan_give_up(&common, Time(5)), Step::Again);
    assert_eq!(lane.paths[0].registration, Registration::None);
}

#[test]
fn nobody_is_let_in_before_what_was_preempted_has_settled() {
    let (common, mut lane, key) = lane_of_alpha();
    let mut take = another(key, Writers::None);
    take.settle(Time(5));
    lane.set_goal(Goal::Take(Box::new(take)));
    lane.set_goal(Goal::GiveUp(GiveUp::after(&lane.goal)));
    lane.set_goal(Goal::GiveUp(GiveUp::after(&lane.goal)));
    assert_eq!(lane.plan_give_up(&common, Time(4)), Step::Wait(Time(5)));
    assert_eq!(lane.plan_give_up(&common, Time(5)), Step::Send(0, Command::ReadKeys));
}

/// Seeds 76 and 958 of the machines' own simulation (S5): a device that had lost its memory let a write of its holder in, which landed after
/// another node had reserved it.
#[test]
fn a_device_that_forgot_its_holder_is_given_time_for_what_that_one_wrote() {
    let at_once = |writers| {
        let (common, mut lane, key) = lane_of_alpha();
        lane.set_goal(Goal::Take(Box::new(another(key, writers))));
        show(&mut lane, &[]);
        let step = lane.plan_take(&common, Time(5));
        answer(&mut lane, &common, step, Ok(Answer::Done));
        show(&mut lane, &[key]);
        let step = lane.plan_take(&common, Time(7));
        assert!(matches!(step, Step::Send(0, Command::Reserve { .. })), "{step:?}");
        answer(&mut lane, &common, step, Ok(Answer::Done));
        show(&mut lane, &[key]);
        lane.reservation = Some(Reservation { generation: 7, held: Some(Held { key: Some(key), kind: common.kind }) });
        lane.plan_take(&common, Time(9))
    };
    assert_eq!(at_once(Writers::Possible), Step::Wait(Time(9) + Duration::from_secs(3)));
    assert!(matches!(at_once(Writers::None), Step::End(_)), "nobody had the claim: nobody wrote");
}

/// Small seed 300739 of the cluster campaign (S1): while a restarted agent asked slow disks whether they were its own still, another node took
/// them and gave them up. It took them back under its old epoch, and what it had left running wrote again.
#[test]
fn what_was_taken_and_given_up_meanwhile_is_not_adopted() {
    let (common, mut lane, key) = lane_of_alpha();
    let request = Acquire { beliefs: std::sync::Arc::default(), known: Epoch(1), adopt: Some(Epoch(1)) };
    lane.set_goal(Goal::Take(Box::new(Take::arbiter(request, Epoch::ZERO, Time(5)))));
    show(&mut lane, &[key]);
    lane.reservation = Some(Reservation { generation: 7, held: Some(Held { key: Some(key), kind: common.kind }) });
    let step = lane.plan_take(&common, Time(5));
    assert!(matches!(step, Step::Send(0, Command::Register { old: Some(_), .. })), "{step:?}");
    answer(&mut lane, &common, step, Err(Failure::Conflict));
    show(&mut lane, &[]);
    let mut step = lane.plan_take(&common, Time(7));
    while step == Step::Again {
        step = lane.plan_take(&common, Time(7));
    }
    assert_eq!(step, Step::End(End::Refused(Refusal::Raced)));
}

/// Seed 287 of the machines' own simulation: a node stood still with the last look of an attempt answered, was preempted, and went on with the answer.
#[test]
fn what_was_read_before_a_standstill_is_read_again() {
    let (common, mut lane, key) = lane_of_alpha();
    let began = Time(1_000);
    lane.set_goal(Goal::Hold(Hold::new(key, began)));
    show(&mut lane, &[key]);
    lane.reservation = None;
    let step = lane.plan_hold(&common, began);
    let Step::Send(path, command) = step else { panic!("{step:?} is no command") };
    assert_eq!(command, Command::ReadReservation);
    lane.sent(CommandId(1), path, command, began).unwrap();
    let ours = Some(Held { key: Some(key), kind: common.kind });
    let shown = Ok(Answer::Reservation(Reservation { generation: 7, held: ours }));
    let awake = began + Duration::from_secs(8);
    lane.answered(CommandId(1), shown, &common, awake);
    assert!(matches!(lane.plan_hold(&common, awake), Step::Send(..)));
    assert!(matches!(&lane.goal, Goal::Hold(hold) if !hold.confirmed));
}

/// A lane of alpha's that challenges beta, its key seen, and both keys.
fn challenging() -> (Common, Lane, Key, Key) {
    let (common, mut lane, _) = lane_of_alpha();
    let beta = common.keyring.number_of(&NodeName::new("beta").unwrap()).unwrap();
    let key_of = |role, node, epoch| common.keyring.encode(ClusterKey { role, node, epoch: Epoch(epoch) }).unwrap();
    let (victim, challenger) = (key_of(Role::Holder, beta, 1), key_of(Role::Challenger, common.me, 2));
    let request = Acquire { beliefs: std::sync::Arc::default(), known: Epoch(1), adopt: None };
    lane.set_goal(Goal::Take(Box::new(Take::arbiter(request, Epoch::ZERO, Time(5)))));
    let held = |lane: &mut Lane, keys: &[Key], holder| {
        show(lane, keys);
        let held = Some(Held { key: Some(holder), kind: common.kind });
        lane.reservation = Some(Reservation { generation: 7, held });
    };
    held(&mut lane, &[victim], victim);
    let step = lane.plan_take(&common, Time(5));
    assert!(matches!(step, Step::Send(0, Command::Register { new, .. }) if new == Some(challenger)), "{step:?}");
    answer(&mut lane, &common, step, Ok(Answer::Done));
    held(&mut lane, &[victim, challenger], victim);
    assert!(matches!(lane.plan_take(&common, Time(9)), Step::Wait(_)));
    (common, lane, victim, challenger)
}

/// Found by the model: the holder had removed the challenger's key; a registration that an earlier life had sent under the same key came late, and
/// made the challenge look unanswered.
#[test]
fn a_challenger_that_is_told_of_a_preemption_has_been_answered() {
    let (common, mut lane, ..) = challenging();
    lane.forget();
    let told = Err(Failure::UnitAttention(UnitAttention::RegistrationsPreempted));
    answer(&mut lane, &common, Step::Send(0, Command::ReadKeys), told);
    assert!(matches!(&lane.goal, Goal::Take(take) if take.is_refused()));
}

/// Found by the model: the preemption that an earlier life had sent was carried out while its next life challenged the same holder.
#[test]
fn what_an_earlier_life_preempted_is_taken() {
    let (common, mut lane, _, challenger) = challenging();
    show(&mut lane, &[challenger]);
    lane.reservation =
        Some(Reservation { generation: 8, held: Some(Held { key: Some(challenger), kind: common.kind }) });
    let step = lane.plan_take(&common, Time(11));
    let changes =
        |old: Option<Key>, new: Option<Key>| old == Some(challenger) && new.is_some_and(|new| common.is_mine(new));
    assert!(matches!(step, Step::Send(0, Command::Register { old, new, .. }) if changes(old, new)), "{step:?}");
}

/// Seed 1289 of the machines' own simulation (S5): a disk without memory had lost power, and its holder was registered again and about to reserve.
/// It was taken at once, and what the holder had written without a reservation landed beside the new holder's writes.
#[test]
fn a_holder_that_is_about_to_come_back_is_waited_for() {
    let free = |power_loss| {
        let (common, mut lane, key) = lane_of_alpha();
        let beta = common.keyring.number_of(&NodeName::new("beta").unwrap()).unwrap();
        let theirs = ClusterKey { role: Role::Holder, node: beta, epoch: Epoch(0) };
        let theirs = common.keyring.encode(theirs).unwrap();
        let request = Acquire { beliefs: std::sync::Arc::default(), known: Epoch::ZERO, adopt: None };
        lane.set_goal(Goal::Take(Box::new(Take::arbiter(request, Epoch::ZERO, Time(5)))));
        lane.power_loss = power_loss;
        lane.paths[0].registration = Registration::With(key);
        show(&mut lane, &[theirs, key]);
        (lane.plan_take(&common, Time(5)), common)
    };
    let (waits, common) = free(PowerLoss::Forgets);
    assert_eq!(waits, Step::Wait(Time(5) + common.timing.blank_wait()));
    let (takes, _) = free(PowerLoss::Keeps);
    assert!(matches!(takes, Step::Send(0, Command::Register { .. } | Command::Reserve { .. })), "{takes:?}");
}

/// A preemption that aborts can hang a target beside this node's own reads. It is not sent then, and what the victim has under way is waited for.
#[test]
fn what_cannot_be_aborted_beside_own_traffic_is_waited_for() {
    let (common, mut lane, victim, challenger) = challenging();
    let (mut now, mut preemptions) = (Time(9), Vec::new());
    let held = Some(Held { key: Some(victim), kind: common.kind });
    while preemptions.len() < 2 {
        let (path, command) = match lane.plan_take(&common, now) {
            Step::Wait(until) => {
                now = until;
                continue;
            }
            Step::Again => continue,
            Step::Send(path, command) => (path, command),
            end @ Step::End(_) => panic!("{end:?}"),
        };
        let result = match &command {
            Command::ReadKeys => Ok(Answer::Keys(Keys { generation: 7, keys: vec![victim, challenger] })),
            Command::ReadReservation => Ok(Answer::Reservation(Reservation { generation: 7, held })),
            Command::Preempt { queued, .. } => {
                preemptions.push(*queued);
                if *queued == Queued::Aborted { Err(Failure::OwnTraffic) } else { Ok(Answer::Done) }
            }
            other => panic!("{other:?}"),
        };
        lane.sent(CommandId(1), path, command, now).unwrap();
        assert!(lane.answered(CommandId(1), result, &common, now));
    }
    assert_eq!(preemptions, [Queued::Aborted, Queued::Stay]);
    assert!(matches!(&lane.goal, Goal::Take(take) if take.settle == Some(now + lane.limit)));
    lane.set_goal(Goal::Nothing);
    assert_eq!(lane.queued, Queued::Aborted, "another time the path may be quiet");
}
