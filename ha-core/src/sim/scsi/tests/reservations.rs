//! What each service action does, clause by clause of SPC-4.

use super::*;

// 5.13.7, table 67.
#[test]
fn a_registration_is_made_changed_and_removed_by_whoever_knows_its_key() {
    let mut disk = disk();
    assert_eq!(register(&mut disk, ALPHA, Some(A), Some(A)), Err(Failure::Conflict), "it is not registered");
    assert_eq!(register(&mut disk, ALPHA, None, None), Ok(()), "nothing to do");
    assert_eq!(register(&mut disk, ALPHA, None, Some(A)), Ok(()));
    assert_eq!(register(&mut disk, ALPHA, None, Some(B)), Err(Failure::Conflict));
    assert_eq!(register(&mut disk, ALPHA, Some(C), Some(B)), Err(Failure::Conflict));
    assert_eq!(keys(&mut disk, ALPHA).1, [A]);
    assert_eq!(register(&mut disk, ALPHA, Some(A), Some(B)), Ok(()));
    assert_eq!(keys(&mut disk, ALPHA).1, [B]);
    assert_eq!(register(&mut disk, ALPHA, Some(B), None), Ok(()));
    assert_eq!(keys(&mut disk, ALPHA).1, []);
}

// 5.13.7, table 68.
#[test]
fn a_registration_that_ignores_the_existing_key_needs_none() {
    let mut disk = disk();
    for (new, left) in [(None, vec![]), (Some(A), vec![A]), (Some(B), vec![B]), (None, vec![])] {
        assert_eq!(register_ignoring(&mut disk, ALPHA, new), Ok(()));
        assert_eq!(keys(&mut disk, ALPHA).1, left);
    }
}

// 6.15.2: "if multiple I_T nexuses have registered with the same key, then that key value shall be listed multiple times".
#[test]
fn two_paths_with_the_same_key_are_two_registrations() {
    let mut disk = disk_with(&[(ALPHA, A), (ALPHA_2, A), (BETA, B)]);
    assert_eq!(keys(&mut disk, GAMMA).1, [A, A, B]);
    assert_eq!(register(&mut disk, ALPHA, Some(A), None), Ok(()));
    assert_eq!(keys(&mut disk, GAMMA).1, [A, B]);
}

// 6.16.3, ALL_TG_PT: "as if the same registration request had been received individually through each target port".
#[test]
fn one_registration_can_be_for_all_ports() {
    let mut disk = disk_with(&[(BETA, B)]);
    let all = |old, new| Command::Register { old, new, ports: Ports::All, power_loss: PowerLoss::Forgets };
    assert_eq!(order(&mut disk, ALPHA, all(None, Some(A))), Ok(()));
    let registered = |disk: &Device| disk.registrations().iter().map(|r| (r.nexus, r.key)).collect::<Vec<_>>();
    assert_eq!(registered(&disk), [(ALPHA, A), (ALPHA_2, A), (BETA, B)]);
    assert_eq!(register(&mut disk, ALPHA_2, Some(A), Some(C)), Ok(()));
    assert_eq!(order(&mut disk, ALPHA, all(Some(A), None)), Ok(()));
    assert_eq!(registered(&disk), [(ALPHA_2, C), (BETA, B)], "the one with another key conflicts, and stays");
}

// 5.13.7: "any service action received from an unregistered I_T nexus, other than the REGISTER ones, shall be completed with
// RESERVATION CONFLICT"; 6.16.3: the key has to be the registered one.
#[test]
fn without_a_registration_and_its_key_nothing_is_reserved_released_preempted_or_cleared() {
    for kind in ReservationType::ALL {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B)]);
        let before = disk.clone();
        for (nexus, key) in [(GAMMA, A), (GAMMA, C), (BETA, A), (BETA, C), (ALPHA, B)] {
            assert_eq!(reserve(&mut disk, nexus, key, kind), Err(Failure::Conflict));
            assert_eq!(release(&mut disk, nexus, key, kind), Err(Failure::Conflict));
            assert_eq!(preempt(&mut disk, nexus, key, Some(A), kind), Err(Failure::Conflict));
            assert_eq!(order(&mut disk, nexus, Command::Clear { key }), Err(Failure::Conflict));
        }
        assert_eq!(disk.registrations(), before.registrations());
        assert_eq!(disk.reservation(), before.reservation());
    }
}

// 5.13.9 and 5.13.10.
#[test]
fn one_reserves_and_the_others_do_not() {
    for kind in ReservationType::ALL {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B)]);
        let everyone_holds = kind.is_held_by_all_registrants();
        assert_eq!(held(&disk), Some(Held { key: (!everyone_holds).then_some(A), kind }));
        assert_eq!(reserve(&mut disk, ALPHA, A, kind), Ok(()), "it has it already");
        for other in ReservationType::ALL.into_iter().filter(|&other| other != kind) {
            assert_eq!(reserve(&mut disk, ALPHA, A, other), Err(Failure::Conflict), "no change of type");
        }
        let expected = if everyone_holds { Ok(()) } else { Err(Failure::Conflict) };
        assert_eq!(reserve(&mut disk, BETA, B, kind), expected);
    }
}

// Table 65, of SPC-4 for the classes and of SBC-3 for READ and WRITE.
#[test]
fn who_reads_and_writes_under_each_type() {
    let conflict = || Err(Failure::Conflict);
    for kind in ReservationType::ALL {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B)]);
        assert_eq!(write(&mut disk, ALPHA), Ok(Reply::Good));
        let block = || Ok(Reply::Block(Some(Stamp(1))));
        assert_eq!(read(&mut disk, ALPHA), block());
        let (registered_reads, other_reads) = match kind {
            WriteExclusive | WriteExclusiveRegistrantsOnly | WriteExclusiveAllRegistrants => (block(), block()),
            ExclusiveAccess => (conflict(), conflict()),
            ExclusiveAccessRegistrantsOnly | ExclusiveAccessAllRegistrants => (block(), conflict()),
        };
        assert_eq!(read(&mut disk, BETA), registered_reads, "{kind:?}");
        assert_eq!(read(&mut disk, GAMMA), other_reads, "{kind:?}");
        assert_eq!(read(&mut disk, ALPHA_2), other_reads, "{kind:?}: a path is a nexus of its own");
        assert_eq!(write(&mut disk, GAMMA), conflict());
        assert_eq!(write(&mut disk, ALPHA_2), conflict());
        let registered_writes = if kind.admits_registrants() { Ok(Reply::Good) } else { conflict() };
        assert_eq!(write(&mut disk, BETA), registered_writes, "{kind:?}");
        assert_eq!(disk.may_write(BETA), kind.admits_registrants());
    }
}

// 5.13.11.2.2 a) to e).
#[test]
fn a_release_tells_the_registered_others_of_the_types_that_gave_them_rights() {
    for kind in ReservationType::ALL {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B)]);
        assert_eq!(release(&mut disk, ALPHA, A, kind), Ok(()));
        assert_eq!(held(&disk), None);
        assert_eq!(keys(&mut disk, ALPHA).1, [A, B]);
        let expected = if kind.admits_registrants() { vec![UnitAttention::ReservationsReleased] } else { vec![] };
        assert_eq!(told(&mut disk, BETA), expected, "{kind:?}");
        assert_eq!(told(&mut disk, GAMMA), []);
        assert_eq!(told(&mut disk, ALPHA), []);
    }
}

// 5.13.11.2.2, last two paragraphs.
#[test]
fn a_release_by_another_is_good_and_does_nothing_and_one_of_another_type_is_refused() {
    let mut disk = disk_held(WriteExclusive, &[(ALPHA, A), (BETA, B)]);
    assert_eq!(release(&mut disk, BETA, B, WriteExclusive), Ok(()));
    assert_eq!(held(&disk), by(A, WriteExclusive));
    assert_eq!(
        release(&mut disk, ALPHA, A, ExclusiveAccess),
        Err(Failure::Rejected(Sense { key: 5, asc: 0x26, ascq: 4 }))
    );
    assert_eq!(held(&disk), by(A, WriteExclusive));
    assert_eq!(release(&mut disk, ALPHA, A, WriteExclusive), Ok(()));
    assert_eq!(release(&mut disk, ALPHA, A, WriteExclusive), Ok(()), "there is none");
}

// 5.13.11.2.3.
#[test]
fn a_reservation_ends_with_the_registration_of_its_holder() {
    for kind in [WriteExclusive, ExclusiveAccess, WriteExclusiveRegistrantsOnly, ExclusiveAccessRegistrantsOnly] {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B)]);
        assert_eq!(register(&mut disk, BETA, Some(B), None), Ok(()));
        assert_eq!(held(&disk), by(A, kind));
        assert_eq!(register(&mut disk, BETA, None, Some(B)), Ok(()));
        assert_eq!(register_ignoring(&mut disk, ALPHA, None), Ok(()));
        assert_eq!(held(&disk), None);
        let shared = REGISTRANTS_ONLY.contains(&kind);
        assert_eq!(told(&mut disk, BETA), if shared { vec![UnitAttention::ReservationsReleased] } else { vec![] });
    }
}

// 5.13.11.2.3 and table 71.
#[test]
fn a_reservation_of_all_registrants_ends_with_the_last_of_them() {
    for kind in ALL_REGISTRANTS {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B)]);
        assert_eq!(register(&mut disk, ALPHA, Some(A), None), Ok(()));
        assert_eq!(held(&disk), Some(Held { key: None, kind }));
        assert_eq!(told(&mut disk, BETA), []);
        assert_eq!(register(&mut disk, BETA, Some(B), None), Ok(()));
        assert_eq!(held(&disk), None);
    }
}

// 5.13.7: "the reservation key may be changed without affecting any previously created persistent reservation".
#[test]
fn a_holder_that_changes_its_key_stays_holder() {
    let mut disk = disk_held(WriteExclusiveRegistrantsOnly, &[(ALPHA, A)]);
    assert_eq!(register(&mut disk, ALPHA, Some(A), Some(C)), Ok(()));
    assert_eq!(held(&disk), by(C, WriteExclusiveRegistrantsOnly));
}

// 5.13.11.2.7.
#[test]
fn clearing_ends_everything_and_tells_every_registered_other() {
    let mut disk = disk_held(WriteExclusive, &[(ALPHA, A), (BETA, B)]);
    assert_eq!(order(&mut disk, BETA, Command::Clear { key: B }), Ok(()));
    assert_eq!((held(&disk), keys(&mut disk, BETA).1), (None, vec![]));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::ReservationsPreempted]);
    assert_eq!(told(&mut disk, GAMMA), []);
}

// 5.13.11.2.4.3.
#[test]
fn who_preempts_the_holder_has_the_reservation_and_the_victim_nothing() {
    for kind in [WriteExclusive, ExclusiveAccess, WriteExclusiveRegistrantsOnly, ExclusiveAccessRegistrantsOnly] {
        let mut disk = disk_held(kind, &[(ALPHA, A), (ALPHA_2, A), (BETA, B), (GAMMA, C)]);
        assert_eq!(preempt(&mut disk, BETA, B, Some(A), kind), Ok(()));
        assert_eq!(held(&disk), by(B, kind));
        assert_eq!(keys(&mut disk, BETA).1, [B, C]);
        assert_eq!(told(&mut disk, ALPHA), [UnitAttention::RegistrationsPreempted]);
        assert_eq!(told(&mut disk, ALPHA_2), [UnitAttention::RegistrationsPreempted], "the key goes on all paths");
        assert_eq!(told(&mut disk, GAMMA), [], "the type is the same");
        assert_eq!(write(&mut disk, ALPHA), Err(Failure::Conflict));
        assert_eq!(register(&mut disk, ALPHA, Some(A), Some(A)), Err(Failure::Conflict), "so it learns of its fencing");
    }
}

// 5.13.11.2.4.3 f).
#[test]
fn a_preemption_that_changes_the_type_tells_the_bystanders() {
    let mut disk = disk_held(WriteExclusive, &[(ALPHA, A), (BETA, B), (GAMMA, C)]);
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), ExclusiveAccess), Ok(()));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::RegistrationsPreempted]);
    assert_eq!(told(&mut disk, GAMMA), [UnitAttention::ReservationsReleased]);
    assert_eq!(told(&mut disk, BETA), []);
}

// 5.13.11.2.5.
#[test]
fn preempting_one_that_does_not_hold_removes_its_registration_only() {
    let mut disk = disk_held(WriteExclusiveRegistrantsOnly, &[(ALPHA, A), (BETA, B), (GAMMA, C)]);
    assert_eq!(preempt(&mut disk, BETA, B, Some(C), ExclusiveAccess), Ok(()), "the type is ignored");
    assert_eq!(held(&disk), by(A, WriteExclusiveRegistrantsOnly));
    assert_eq!(keys(&mut disk, BETA).1, [A, B]);
    assert_eq!(told(&mut disk, GAMMA), [UnitAttention::RegistrationsPreempted]);
    assert_eq!(told(&mut disk, ALPHA), []);
    assert_eq!(preempt(&mut disk, BETA, B, Some(C), ExclusiveAccess), Err(Failure::Conflict), "nobody has that key");
}

// 5.13.11.2.5: "it is not an error … to set both to the same value, however, no unit attention … the registration is removed".
#[test]
fn who_preempts_its_own_key_without_holding_is_unregistered() {
    let mut disk = disk_held(WriteExclusive, &[(ALPHA, A), (BETA, B)]);
    assert_eq!(preempt(&mut disk, BETA, B, Some(B), WriteExclusive), Ok(()));
    assert_eq!(keys(&mut disk, ALPHA).1, [A]);
    assert_eq!(told(&mut disk, BETA), []);
}

// 5.13.11.2.4.3: the nexus that is used for the command keeps its registration.
#[test]
fn a_node_takes_its_reservation_over_from_its_lost_path() {
    let mut disk = disk_held(WriteExclusiveRegistrantsOnly, &[(ALPHA, A), (ALPHA_2, A)]);
    assert_eq!(release(&mut disk, ALPHA_2, A, WriteExclusiveRegistrantsOnly), Ok(()));
    assert_eq!(held(&disk), by(A, WriteExclusiveRegistrantsOnly), "only the path that holds it can release it");
    assert_eq!(preempt(&mut disk, ALPHA_2, A, Some(A), WriteExclusiveRegistrantsOnly), Ok(()));
    let holder = Registered { nexus: ALPHA_2, key: A, holds: Some(WriteExclusiveRegistrantsOnly) };
    assert_eq!(disk.run(ALPHA_2, Request::ReadFullStatus), Some(Ok(Reply::FullStatus(vec![holder]))));
    assert_eq!(told(&mut disk, ALPHA), [UnitAttention::RegistrationsPreempted]);
    assert_eq!(preempt(&mut disk, ALPHA_2, A, Some(A), ExclusiveAccess), Ok(()), "a holder may preempt itself");
    assert_eq!(held(&disk), by(A, ExclusiveAccess));
}

// Table 72.
#[test]
fn only_a_reservation_of_all_registrants_is_preempted_with_no_key() {
    for kind in ReservationType::ALL {
        let mut disk = disk_held(kind, &[(ALPHA, A), (BETA, B), (GAMMA, C)]);
        if !kind.is_held_by_all_registrants() {
            assert_eq!(preempt(&mut disk, BETA, B, None, kind), Err(Failure::NotSupported));
            continue;
        }
        assert_eq!(preempt(&mut disk, BETA, B, Some(A), WriteExclusive), Ok(()));
        assert_eq!(held(&disk), Some(Held { key: None, kind }), "a key removes registrations only");
        assert_eq!(keys(&mut disk, BETA).1, [B, C]);
        assert_eq!(preempt(&mut disk, BETA, B, None, WriteExclusive), Ok(()));
        assert_eq!((held(&disk), keys(&mut disk, BETA).1), (by(B, WriteExclusive), vec![B]));
        assert_eq!(told(&mut disk, GAMMA), [UnitAttention::RegistrationsPreempted]);
    }
}

// Table 71: released with the last registration, also when it goes by preemption.
#[test]
fn the_last_of_all_registrants_can_preempt_itself_away() {
    let mut disk = disk_held(WriteExclusiveAllRegistrants, &[(ALPHA, A)]);
    assert_eq!(preempt(&mut disk, ALPHA, A, Some(A), WriteExclusiveAllRegistrants), Ok(()));
    assert_eq!((held(&disk), keys(&mut disk, ALPHA).1), (None, vec![]));
}

// 6.15.2.
#[test]
fn the_generation_counts_what_changes_registrations() {
    let mut disk = disk_with(&[(ALPHA, A), (BETA, B)]);
    let generation = |disk: &Device| disk.reservation().generation;
    assert_eq!(generation(&disk), 2);
    assert_eq!(register(&mut disk, GAMMA, Some(C), Some(C)), Err(Failure::Conflict));
    assert_eq!(reserve(&mut disk, ALPHA, A, WriteExclusive), Ok(()));
    assert_eq!(reserve(&mut disk, BETA, B, WriteExclusive), Err(Failure::Conflict));
    assert_eq!(preempt(&mut disk, BETA, B, Some(C), WriteExclusive), Err(Failure::Conflict));
    assert_eq!(release(&mut disk, ALPHA, A, WriteExclusive), Ok(()));
    assert_eq!(keys(&mut disk, ALPHA).0, 2, "none of these counts");
    assert_eq!(preempt(&mut disk, BETA, B, Some(A), WriteExclusive), Ok(()));
    assert_eq!(generation(&disk), 3);
    assert_eq!(order(&mut disk, BETA, Command::Clear { key: B }), Ok(()));
    assert_eq!(generation(&disk), 4);
}
