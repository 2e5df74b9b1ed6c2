//! One device: what is sent next, in situations that the simulators have found.

use std::time::Duration;

use super::device::{
    Answer, Command, Failure, Held, Key, Keys, PathName, Ports, PowerLoss, Reservation, ReservationType,
};
use super::give_up::GiveUp;
use super::key::{ClusterKey, Keyring, Role};
use super::lane::{Common, End, Goal, Lane, Registration, Step};
use super::machine::CommandId;
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

#[test]
fn a_registration_that_never_was_answered_is_removed_by_name() {
    let (common, mut lane, key) = lane_of_alpha();
    let step = lane.register(0, key);
    answer(&mut lane, &common, step, Err(Failure::NoAnswer));
    lane.set_goal(Goal::GiveUp(GiveUp::default()));
    show(&mut lane, &[]);
    assert_eq!(lane.plan_give_up(&common, Time(5)), Step::Send(0, by_name(key)), "it may be carried out yet");
}

#[test]
fn nobody_is_let_in_before_what_was_preempted_has_settled() {
    let (common, mut lane, key) = lane_of_alpha();
    let mut take = Take::other(key, None, Writers::None);
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
        lane.set_goal(Goal::Take(Box::new(Take::other(key, None, writers))));
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
