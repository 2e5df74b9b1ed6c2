//! The commands of reservations against a real target, tgtd: that they are accepted byte for byte, and what it answers.

#![expect(clippy::unwrap_used, reason = "what cannot be had ends the test")]

use std::time::Duration;

use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Held, Key, Keys, Ports, PowerLoss, Queued, Reservation, ReservationType, UnitAttention,
};
use ha_tests::iscsi::Initiator;
use ha_tests::target::Target;
use ha_tests::{Result, eventually, patience};

const RO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const A: Key = Key::new(0x4a).unwrap();
const B: Key = Key::new(0x4b).unwrap();

/// A target, and its first two nodes; none where there is no tgtd.
fn two_nodes() -> Result<Option<(Target, Initiator, Initiator)>> {
    if !Target::is_installed() {
        return Ok(None);
    }
    let target = Target::start(1)?;
    let (alpha, beta) = (login(&target, "alpha"), login(&target, "beta"));
    Ok(Some((target, alpha, beta)))
}

fn login(target: &Target, node: &str) -> Initiator {
    let initiator = target.login(node, 1, patience()).unwrap();
    // A new nexus is told first that there was a power on.
    while let Err(told) = initiator.run(Command::ReadKeys) {
        assert_eq!(told, Failure::UnitAttention(UnitAttention::PowerOn));
    }
    initiator
}

fn register(new: Key) -> Command {
    Command::RegisterIgnoring { new: Some(new), ports: Ports::This, power_loss: PowerLoss::Forgets }
}

fn preempt(key: Key, victim: Key, queued: Queued) -> Command {
    Command::Preempt { key, victim: Some(victim), kind: RO, queued }
}

fn done(initiator: &Initiator, command: Command) {
    assert_eq!(initiator.run(command), Ok(Answer::Done), "{command:?}");
}

fn keys(initiator: &Initiator) -> Vec<Key> {
    let Ok(Answer::Keys(Keys { mut keys, .. })) = initiator.run(Command::ReadKeys) else { panic!("no keys") };
    keys.sort_unstable();
    keys
}

fn held(initiator: &Initiator) -> Option<Held> {
    let Ok(Answer::Reservation(Reservation { held, .. })) = initiator.run(Command::ReadReservation) else {
        panic!("no reservation is told of")
    };
    held
}

#[test]
fn a_reservation_is_taken_refused_preempted_and_released() -> Result<()> {
    let Some((_target, alpha, beta)) = two_nodes()? else { return Ok(()) };
    assert_eq!((keys(&alpha), held(&alpha)), (Vec::new(), None));
    done(&alpha, Command::Register { old: None, new: Some(A), ports: Ports::This, power_loss: PowerLoss::Forgets });
    done(&beta, register(B));
    assert_eq!(keys(&beta), [A, B]);

    done(&alpha, Command::Reserve { key: A, kind: RO });
    assert_eq!(held(&beta), Some(Held { key: Some(A), kind: RO }));
    assert_eq!(beta.run(Command::Reserve { key: B, kind: RO }), Err(Failure::Conflict));

    done(&beta, preempt(B, A, Queued::Stay));
    assert_eq!((keys(&beta), held(&beta)), (vec![B], Some(Held { key: Some(B), kind: RO })));
    // The preempted one is told, and told only once.
    let reserve = Command::Reserve { key: A, kind: RO };
    assert_eq!(alpha.run(reserve), Err(Failure::UnitAttention(UnitAttention::ReservationsPreempted)));
    assert_eq!(alpha.run(reserve), Err(Failure::Conflict));
    // A plain registration over what it had shows that it was fenced.
    let again = Command::Register { old: Some(A), new: Some(A), ports: Ports::This, power_loss: PowerLoss::Forgets };
    assert_eq!(alpha.run(again), Err(Failure::Conflict));

    done(&beta, Command::Release { key: B, kind: RO });
    assert_eq!((keys(&alpha), held(&alpha)), (vec![B], None));
    done(&beta, Command::Clear { key: B });
    assert_eq!(keys(&alpha), []);
    Ok(())
}

#[test]
fn what_the_target_lacks_is_seen_as_not_supported() -> Result<()> {
    let Some((_target, alpha, beta)) = two_nodes()? else { return Ok(()) };
    let keeping = Command::RegisterIgnoring { new: Some(A), ports: Ports::This, power_loss: PowerLoss::Keeps };
    assert_eq!(alpha.run(keeping), Err(Failure::NotSupported));
    assert_eq!(keys(&alpha), [], "and nothing was registered");
    done(&alpha, register(A));
    done(&beta, register(B));
    done(&alpha, Command::Reserve { key: A, kind: RO });
    assert_eq!(beta.run(preempt(B, A, Queued::Aborted)), Err(Failure::NotSupported));
    assert_eq!(held(&beta), Some(Held { key: Some(A), kind: RO }), "and nothing was preempted");
    let Ok(Answer::Capabilities(can)) = alpha.run(Command::ReportCapabilities) else { panic!("no capabilities") };
    assert_eq!((can.power_loss, can.power_loss_now, can.ports), (PowerLoss::Forgets, PowerLoss::Forgets, Ports::This));
    assert!(can.types.contains(&RO), "{can:?}");
    assert_eq!(alpha.registrations(), Err(Failure::NotSupported), "READ FULL STATUS");
    Ok(())
}

#[test]
fn both_nodes_know_the_disk_by_the_same_name() -> Result<()> {
    let Some((_target, alpha, beta)) = two_nodes()? else { return Ok(()) };
    let name = alpha.designator().unwrap().expect("it has a name");
    assert_eq!(beta.designator().unwrap(), Some(name));
    Ok(())
}

#[test]
fn keys_are_read_however_many_there_are() -> Result<()> {
    let Some((target, alpha, _beta)) = two_nodes()? else { return Ok(()) };
    let many: Vec<Key> = (1..=70).filter_map(Key::new).collect();
    let sessions: Vec<Initiator> = many
        .iter()
        .map(|key| {
            let node = login(&target, &key.get().to_string());
            done(&node, register(*key));
            node
        })
        .collect();
    assert_eq!(keys(&alpha), many);
    drop(sessions);
    Ok(())
}

#[test]
fn a_command_that_was_not_answered_in_time_is_carried_out_when_the_target_wakes() -> Result<()> {
    let Some((target, alpha, beta)) = two_nodes()? else { return Ok(()) };
    done(&alpha, register(A));
    drop(alpha);
    let hasty = target.login("hasty", 1, Duration::from_millis(200)).unwrap();
    eventually("it is registered", || hasty.run(register(B)));

    target.freeze()?;
    assert_eq!(hasty.run(Command::Reserve { key: B, kind: RO }), Err(Failure::NoAnswer));
    target.thaw()?;
    // The session goes on: the late answer is not taken for this one's.
    assert_eq!(keys(&beta), [A, B]);
    let mut answer = hasty.run(Command::ReadReservation);
    while answer == Err(Failure::NoAnswer) {
        answer = hasty.run(Command::ReadReservation);
    }
    let expected = Some(Held { key: Some(B), kind: RO });
    assert!(matches!(answer, Ok(Answer::Reservation(Reservation { held, .. })) if held == expected), "{answer:?}");
    Ok(())
}

#[test]
fn loss_of_power_without_memory_loses_every_registration_and_the_reservation() -> Result<()> {
    let Some((mut target, alpha, _beta)) = two_nodes()? else { return Ok(()) };
    done(&alpha, register(A));
    done(&alpha, Command::Reserve { key: A, kind: RO });
    target.lose_power()?;
    assert_eq!(alpha.run(Command::ReadKeys), Err(Failure::Transport));
    let back = login(&target, "alpha");
    assert_eq!((keys(&back), held(&back)), (Vec::new(), None));
    assert_eq!(back.run(Command::Reserve { key: A, kind: RO }), Err(Failure::Conflict), "not registered");
    Ok(())
}
