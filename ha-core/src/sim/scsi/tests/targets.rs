//! Where targets in use depart from the standard, and from each other: LIO of Linux 6.1, tgtd 1.0.85.

use super::*;

const WERO: ReservationType = WriteExclusiveRegistrantsOnly;

#[test]
fn lio_refuses_to_reserve_for_the_unregistered_in_its_own_way() {
    let mut disk = disk_of(Target::lio(two_ports()));
    let sense = Sense { key: 2, asc: 8, ascq: 0 };
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Err(Failure::Rejected(sense)));
    assert_eq!(register(&mut disk, BETA, None, Some(B)), Ok(()));
    assert_eq!(reserve(&mut disk, BETA, B, WERO), Ok(()));
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Err(Failure::Conflict));
}

#[test]
fn a_registration_that_cannot_be_stored_takes_effect_and_is_answered_with_an_error() {
    let mut disk = disk_of(Target { store: Store::Fails, ..Target::lio(two_ports()) });
    let keeps = PowerLoss::Keeps;
    let command = Command::Register { old: None, new: Some(A), ports: Ports::This, power_loss: keeps };
    assert_eq!(order(&mut disk, ALPHA, command), Err(Failure::Rejected(Sense::COMMUNICATION_FAILURE)));
    assert_eq!(keys(&mut disk, ALPHA).1, [A]);
    disk.lose_power();
    disk.restore_power();
    come_up(&mut disk);
    assert_eq!(keys(&mut disk, ALPHA).1, []);
}

#[test]
fn tgt_does_not_know_how_to_abort_nor_to_keep_nor_all_ports_nor_the_full_status() {
    let mut disk = disk_of(Target::tgt(two_ports()));
    assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Ok(()));
    let unknown = [
        Command::Preempt { key: A, victim: Some(A), kind: WERO, queued: Queued::Aborted },
        Command::Register { old: Some(A), new: Some(B), ports: Ports::All, power_loss: PowerLoss::Forgets },
        Command::Register { old: Some(A), new: Some(B), ports: Ports::This, power_loss: PowerLoss::Keeps },
    ];
    for command in unknown {
        assert_eq!(order(&mut disk, ALPHA, command), Err(Failure::NotSupported));
    }
    assert_eq!(disk.run(ALPHA, Request::ReadFullStatus), Some(Err(Failure::NotSupported)));
    assert_eq!(keys(&mut disk, ALPHA).1, [A]);
}

#[test]
fn tgt_tells_the_preempted_of_the_reservation_and_others_tell_nothing() {
    for (tells_preempted, expected) in
        [(Some(UnitAttention::ReservationsPreempted), vec![UnitAttention::ReservationsPreempted]), (None, vec![])]
    {
        let mut disk = disk_of(Target { tells_preempted, ..Target::tgt(two_ports()) });
        assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Ok(()));
        assert_eq!(register(&mut disk, BETA, None, Some(B)), Ok(()));
        assert_eq!(preempt(&mut disk, BETA, B, Some(A), WERO), Ok(()));
        assert_eq!(told(&mut disk, ALPHA), expected);
    }
}

#[test]
fn on_tgt_a_new_login_leaves_the_registration_and_the_reservation_with_nobody() {
    let mut disk = disk_of(Target { login: Login::New, ..Target::standard(two_ports()) });
    assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Ok(()));
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Ok(()));
    disk.disconnect(ALPHA);
    assert!(disk.connect(ALPHA));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::PowerOn]);
    assert_eq!(write(&mut disk, ALPHA), Err(Failure::Conflict));

    assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Ok(()));
    assert_eq!(keys(&mut disk, ALPHA).1, [A, A], "doubled");
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Err(Failure::Conflict), "it is not the holder");
    assert_eq!(release(&mut disk, ALPHA, A, WERO), Ok(()), "which does nothing");
    assert_eq!(held(&disk), by(A, WERO));

    assert_eq!(preempt(&mut disk, ALPHA, A, Some(A), WERO), Ok(()), "the way out: preempt oneself");
    assert_eq!(keys(&mut disk, ALPHA).1, [A]);
    assert_eq!(release(&mut disk, ALPHA, A, WERO), Ok(()));
    assert_eq!(held(&disk), None);
}

#[test]
fn a_target_may_put_the_conflict_before_what_it_has_to_tell() {
    let mut disk = disk_of(Target { first: First::Conflict, ..Target::standard(two_ports()) });
    assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Ok(()));
    assert_eq!(register(&mut disk, BETA, None, Some(B)), Ok(()));
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Ok(()));
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), WERO), Ok(()));
    assert_eq!(write(&mut disk, ALPHA), Err(Failure::Conflict));
    assert_eq!(reserve(&mut disk, ALPHA, A, WERO), Err(Failure::Conflict));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::RegistrationsPreempted]);
    disk.reset();
    assert_eq!(write(&mut disk, ALPHA), Err(Failure::UnitAttention(UnitAttention::Reset)), "a reset comes before it");
}

#[test]
fn a_disk_without_reservations_says_so_and_lets_everyone_write() {
    let mut disk = disk_of(Target::without_reservations(two_ports()));
    assert_eq!(ask(&mut disk, ALPHA, Command::ReadKeys), Err(Failure::NotSupported));
    assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Err(Failure::NotSupported));
    assert_eq!(write(&mut disk, BETA), Ok(Reply::Good));
}
