//! Late commands, lost answers, lost paths, resets, power.

use super::*;

const WERO: ReservationType = WriteExclusiveRegistrantsOnly;

fn preempt_and_abort(disk: &mut Device, nexus: Nexus, key: Key, victim: Option<Key>) -> Result<(), Failure> {
    order(disk, nexus, Command::Preempt { key, victim, kind: WERO, queued: Queued::Aborted })
}

// 5.13.1: "after that check succeeds, the command shall not be completed with RESERVATION CONFLICT".
#[test]
fn a_write_that_was_begun_lands_after_its_node_was_preempted() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B)]);
    let late = disk.submit(ALPHA, Request::Write(Lba(7), Stamp(1))).unwrap();
    assert_eq!(disk.begin(late), Begun::Proceeds);
    let later = disk.submit(ALPHA, Request::Write(Lba(7), Stamp(2))).unwrap();
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), WERO), Ok(()));
    assert_eq!(disk.run(BETA, Request::Write(Lba(7), Stamp(3))), Some(Ok(Reply::Good)));
    assert_eq!(disk.execute(late), Some(Ok(Reply::Good)));
    assert_eq!(disk.block(Lba(7)), Some(Stamp(1)), "over what the new holder wrote");
    assert_eq!(disk.begin(later), Begun::Refused(Failure::UnitAttention(UnitAttention::RegistrationsPreempted)));
    assert_eq!(disk.execute(later), None, "it is answered already");
    assert_eq!(write(&mut disk, ALPHA), Err(Failure::Conflict));
}

// 5.13.11.2.6 c).
#[test]
fn preempt_and_abort_leaves_no_late_write_of_the_victim() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (ALPHA_2, A), (BETA, B), (GAMMA, C)]);
    let write = Request::Write(Lba(7), Stamp(1));
    let begun = disk.submit(ALPHA, write).unwrap();
    assert_eq!(disk.begin(begun), Begun::Proceeds);
    let waiting = disk.submit(ALPHA_2, write).unwrap();
    let bystander = disk.submit(GAMMA, Request::Write(Lba(8), Stamp(3))).unwrap();
    assert_eq!(preempt_and_abort(&mut disk, BETA, B, Some(A)), Ok(()));
    assert_eq!((disk.execute(begun), disk.execute(waiting)), (None, None));
    assert_eq!(disk.block(Lba(7)), None);
    assert_eq!(disk.execute(bystander), Some(Ok(Reply::Good)));
}

// 5.13.11.2.6: "for all I_T nexuses that are registered with the … key value, without regard for whether [they] hold".
#[test]
fn preempt_and_abort_aborts_for_those_who_do_not_hold_too_and_for_nobody_on_a_conflict() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B), (GAMMA, C)]);
    let waiting = disk.submit(GAMMA, Request::Write(Lba(7), Stamp(3))).unwrap();
    assert_eq!(preempt_and_abort(&mut disk, BETA, A, Some(C)), Err(Failure::Conflict));
    assert_eq!(disk.tasks().map(|(id, ..)| id).collect::<Vec<_>>(), [waiting]);
    assert_eq!(preempt_and_abort(&mut disk, BETA, B, Some(C)), Ok(()));
    assert_eq!(disk.tasks().count(), 0);
}

// 5.13.11.2.6, last sentence: "shall abort all commands for all registered I_T nexuses".
#[test]
fn preempt_and_abort_of_all_registrants_aborts_for_all_of_them() {
    let mut disk = disk_held(WriteExclusiveAllRegistrants, &[(ALPHA, A), (BETA, B)]);
    let [own, other, stranger] = [BETA, ALPHA, GAMMA].map(|nexus| disk.submit(nexus, Request::TestUnitReady).unwrap());
    assert_eq!(preempt_and_abort(&mut disk, BETA, B, None), Ok(()));
    assert_eq!((disk.execute(own), disk.execute(other)), (None, None));
    assert_eq!(disk.execute(stranger), Some(Ok(Reply::Good)));
}

// 5.13.11.2.7 d): "continue normal processing of any commands … that have been accepted".
#[test]
fn clearing_aborts_nothing() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B)]);
    let begun = disk.submit(ALPHA, Request::Write(Lba(7), Stamp(1))).unwrap();
    assert_eq!(disk.begin(begun), Begun::Proceeds);
    assert_eq!(order(&mut disk, BETA, Command::Clear { key: B }), Ok(()));
    assert_eq!(disk.execute(begun), Some(Ok(Reply::Good)));
}

#[test]
fn a_registration_that_arrives_late_lets_a_fenced_node_in_again() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B)]);
    let late = Command::RegisterIgnoring { new: Some(A), ports: Ports::This, power_loss: PowerLoss::Forgets };
    let late = disk.submit(ALPHA, Request::Reservation(late)).unwrap();
    assert_eq!(disk.begin(late), Begun::Proceeds);
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), WERO), Ok(()));
    assert!(!disk.may_write(ALPHA));
    assert!(disk.execute(late).unwrap().is_ok());
    assert!(disk.may_write(ALPHA));
}

#[test]
fn a_lost_answer_was_a_command_carried_out_all_the_same() {
    let mut disk = disk_with(&[(ALPHA, A)]);
    let reserve = disk.submit(ALPHA, Request::Reservation(Command::Reserve { key: A, kind: WERO })).unwrap();
    drop(disk.execute(reserve));
    assert_eq!(held(&disk), by(A, WERO));
    assert_eq!(disk.execute(reserve), None, "it is answered once");
}

// SAM-5, 5.14: cleared by being reported. One command tells one thing.
#[test]
fn each_thing_is_told_once_and_by_one_command() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B), (GAMMA, C)]);
    assert_eq!(release(&mut disk, ALPHA, A, WERO), Ok(()));
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Ok(()));
    assert_eq!(release(&mut disk, ALPHA, A, WERO), Ok(()));
    assert_eq!(preempt(&mut disk, ALPHA, A, Some(B), WERO), Ok(()));
    assert_eq!(
        told(&mut disk, BETA),
        [UnitAttention::ReservationsReleased, UnitAttention::RegistrationsPreempted],
        "the release once, though it happened twice"
    );
    let lost = disk.submit(GAMMA, Request::TestUnitReady).unwrap();
    drop(disk.execute(lost));
    assert_eq!(told(&mut disk, GAMMA), [], "what was told in a lost answer is lost");
}

// 5.13.1: "persistent reservations are not reset by hard reset, logical unit reset, or I_T nexus loss".
#[test]
fn a_reset_aborts_all_commands_and_leaves_the_reservation() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B)]);
    assert_eq!(release(&mut disk, ALPHA, A, WERO), Ok(()));
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Ok(()));
    let waiting = disk.submit(ALPHA, Request::TestUnitReady).unwrap();
    let before = (disk.registrations(), disk.reservation());
    disk.reset();
    assert_eq!(disk.execute(waiting), None);
    assert_eq!((disk.registrations(), disk.reservation()), before);
    assert_eq!(told(&mut disk, GAMMA), [UnitAttention::Reset]);
    assert_eq!(told(&mut disk, BETA), [UnitAttention::Reset, UnitAttention::ReservationsReleased], "resets first");
}

#[test]
fn a_path_that_returns_is_registered_as_before() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B)]);
    let waiting = disk.submit(ALPHA, Request::Write(Lba(7), Stamp(1))).unwrap();
    disk.disconnect(ALPHA);
    assert_eq!(disk.submit(ALPHA, Request::TestUnitReady), None);
    assert_eq!(disk.execute(waiting), None, "aborted with its nexus");
    assert_eq!(held(&disk), by(A, WERO));
    assert!(disk.connect(ALPHA));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::NexusLost]);
    assert_eq!(write(&mut disk, ALPHA), Ok(Reply::Good));
}

#[test]
fn a_path_that_was_preempted_while_it_was_down_is_told_when_it_is_back() {
    let mut disk = disk_held(WERO, &[(ALPHA, A), (BETA, B)]);
    disk.disconnect(ALPHA);
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), WERO), Ok(()));
    assert!(disk.connect(ALPHA));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::NexusLost, UnitAttention::RegistrationsPreempted]);
    assert_eq!(write(&mut disk, ALPHA), Err(Failure::Conflict));
}

#[test]
fn there_are_no_paths_through_ports_that_the_device_has_not() {
    let mut disk = disk();
    assert!(!disk.connect(Nexus { initiator: 1, port: 0 }));
    assert!(!disk.connect(Nexus { initiator: 1, port: 3 }));
}

// 6.16.3: "the last valid APTPL bit value received" decides, whoever sent it.
#[test]
fn power_loss_forgets_or_keeps_as_the_latest_registration_asked() {
    for (latest, left) in [(PowerLoss::Forgets, vec![]), (PowerLoss::Keeps, vec![A, B])] {
        let mut disk = disk_held(WERO, &[(ALPHA, A)]);
        assert_eq!(write(&mut disk, ALPHA), Ok(Reply::Good));
        let command = Command::Register { old: None, new: Some(B), ports: Ports::This, power_loss: latest };
        assert_eq!(order(&mut disk, BETA, command), Ok(()));
        let Ok(Answer::Capabilities(capabilities)) = ask(&mut disk, BETA, Command::ReportCapabilities) else {
            panic!()
        };
        assert_eq!((capabilities.power_loss, capabilities.power_loss_now), (PowerLoss::Keeps, latest));
        let waiting = disk.submit(ALPHA, Request::TestUnitReady).unwrap();

        disk.lose_power();
        assert_eq!(disk.submit(ALPHA, Request::TestUnitReady), None);
        assert!(!disk.connect(ALPHA));
        disk.restore_power();
        come_up(&mut disk);

        assert_eq!(disk.execute(waiting), None);
        // 6.15.2: "regardless of the APTPL bit value the PRgeneration value shall be set to zero by a power on".
        assert_eq!(keys(&mut disk, ALPHA), (0, left));
        assert_eq!(held(&disk), if latest == PowerLoss::Keeps { by(A, WERO) } else { None });
        assert_eq!(disk.block(Lba(0)), Some(Stamp(1)), "the medium stays");
        assert_eq!(write(&mut disk, GAMMA).is_ok(), latest == PowerLoss::Forgets);
    }
}

#[test]
fn a_nexus_that_was_preempted_before_it_was_heard_after_power_on_is_told_both() {
    let mut disk = disk();
    for (nexus, key) in [(ALPHA, A), (BETA, B)] {
        let keeps = PowerLoss::Keeps;
        let command = Command::Register { old: None, new: Some(key), ports: Ports::This, power_loss: keeps };
        assert_eq!(order(&mut disk, nexus, command), Ok(()));
    }
    disk.lose_power();
    disk.restore_power();
    assert!(disk.connect(BETA));
    assert_eq!(told(&mut disk, BETA), [UnitAttention::PowerOn]);
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), WERO), Ok(()));
    assert!(disk.connect(ALPHA));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::PowerOn, UnitAttention::RegistrationsPreempted]);
}
