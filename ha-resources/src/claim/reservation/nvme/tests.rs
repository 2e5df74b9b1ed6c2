use super::preempt::way_round;
use super::*;
use ha_core::claim::reservation::device::{Held, Keys, Ports, Queued, Reservation};
use proptest::prelude::*;

const RO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

fn key(value: u64) -> Key {
    Key::new(value).unwrap()
}

/// A report as `drivers/nvme/target/pr.c` lays it out: (controller, holds, host, key) for each registrant.
fn report(format: Format, kind: u8, registrants: &[(u16, u8, u8, u64)]) -> Vec<u8> {
    let mut data = vec![0; 24];
    data[..4].copy_from_slice(&9_u32.to_le_bytes());
    data[4] = kind;
    data[5..7].copy_from_slice(&(registrants.len() as u16).to_le_bytes());
    data[9] = 1;
    if format == Format::Extended {
        data.resize(64, 0);
    }
    for (controller, holds, host, key) in registrants {
        data.extend(controller.to_le_bytes());
        data.extend([*holds, 0, 0, 0, 0, 0]);
        match format {
            Format::Short => {
                data.extend([*host; 8]);
                data.extend(key.to_le_bytes());
            }
            Format::Extended => {
                data.extend(key.to_le_bytes());
                data.extend([*host; 16]);
                data.extend([0; 32]);
            }
        }
    }
    data
}

/// What the target of Linux (nvmet) wrote into 4,096 bytes for a report, in a laboratory; (offset, bytes) of what is not zero.
fn of_linux(written: &[(usize, &[u8])]) -> Vec<u8> {
    let mut data = vec![0; REPORT_AT_FIRST];
    for (offset, bytes) in written {
        data[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    data
}

/// Linux 7.3: hosts ...0a with the key ah, and ...0b with the key bh, are registered; the first has reserved. Any controller may have been
/// the one that registered (ffffh).
const TWO_OF_7_3: [(usize, &[u8]); 5] = [
    (0x00, &[2, 0, 0, 0, 3, 2, 0]),
    (0x40, &[0xff, 0xff, 1, 0, 0, 0, 0, 0, 0xa]),
    (0x5f, &[0xa]),
    (0x80, &[0xff, 0xff, 0, 0, 0, 0, 0, 0, 0xb]),
    (0x9f, &[0xb]),
];

#[test]
fn what_linux_reports_is_read() {
    let read = Report::decode(Format::Extended, &of_linux(&TWO_OF_7_3)).unwrap();
    assert_eq!(read.keys(), Keys { generation: 2, keys: vec![key(0xa), key(0xb)] });
    assert_eq!(read.reservation().held, Some(Held { key: Some(key(0xa)), kind: RO }));
    assert_eq!(read.power_loss, PowerLoss::Forgets);
    let free = of_linux(&[(0, &[4, 0, 0, 0, 0, 0, 0])]);
    let free = Report::decode(Format::Extended, &free).unwrap();
    assert_eq!((free.keys(), free.reservation().held), (Keys { generation: 4, keys: vec![] }, None));
}

/// Linux 6.16, as it was after the holder's preemption of bh, of which it had said that it was done.
#[test]
fn a_preemption_that_was_said_to_be_done_and_was_not_is_noticed() {
    let mut written = TWO_OF_7_3;
    written[0] = (0x00, &[3, 0, 0, 0, 3, 2, 0]);
    let left = Report::decode(Format::Extended, &of_linux(&written)).unwrap();
    let wanted = Preemption { key: key(0xa), victim: Some(key(0xb)), kind: RO, queued: Queued::Aborted };
    let shared = Some(ReservationType::WriteExclusiveAllRegistrants);
    assert_eq!(way_round(&left, wanted), shared);

    // Gone, as it should be.
    let gone = Report::decode(Format::Extended, &report(Format::Extended, 3, &[(1, 1, 0xa, 0xa)])).unwrap();
    assert_eq!(way_round(&gone, wanted), None);
    // Somebody else's reservation, or of another type.
    let other = Preemption { key: key(0xb), victim: Some(key(0xa)), ..wanted };
    assert_eq!(way_round(&left, other), None);
    assert_eq!(way_round(&left, Preemption { kind: ReservationType::WriteExclusive, ..wanted }), None);
    assert_eq!(way_round(&left, Preemption { victim: None, ..wanted }), None);
}

/// That way costs all the others their registration.
#[test]
fn a_stranger_keeps_a_preemption_from_going_another_way() {
    let (holder, one, other) = (0x4841_31e1_0100_0001, 0x4841_31e2_0200_0002, 0x4841_31e2_0300_0002);
    let with = |third| {
        let registrants = [(1, 1, 0xa, holder), (2, 0, 0xb, one), (3, 0, 0xc, third)];
        Report::decode(Format::Extended, &report(Format::Extended, 3, &registrants)).unwrap()
    };
    let wanted = Preemption { key: key(holder), victim: Some(key(one)), kind: RO, queued: Queued::Aborted };
    assert_eq!(way_round(&with(other), wanted), Some(ReservationType::WriteExclusiveAllRegistrants));
    for stranger in [0xabcd, 0x4841_31f2_0300_0002] {
        assert_eq!(way_round(&with(stranger), wanted), None, "{stranger:#x}");
    }
}

#[test]
fn only_a_registration_wishes_to_outlast_a_loss_of_power() {
    let of = |new, power_loss| Command::RegisterIgnoring { new, ports: Ports::This, power_loss };
    assert!(wishes_to_keep(of(Some(key(1)), PowerLoss::Keeps)));
    assert!(!wishes_to_keep(of(Some(key(1)), PowerLoss::Forgets)));
    assert!(!wishes_to_keep(of(None, PowerLoss::Keeps)), "who leaves is not kept from it");
    assert!(!wishes_to_keep(Command::ReadKeys));
    // RESCAP as that of Linux has it: every type, and nothing over a loss of power.
    let mut identity = vec![0; 4096];
    identity[31] = 0xfe;
    let can = report::capabilities(&identity, PowerLoss::Forgets);
    assert_eq!((can.power_loss, can.types), (PowerLoss::Forgets, ReservationType::ALL.to_vec()));
}

#[test]
fn both_formats_of_the_report_read_the_same() {
    let registrants = [(1, 0, 0xa, 0x11), (2, 1, 0xb, 0x22), (3, 1, 0xb, 0x22), (4, 0, 0xc, 0x11)];
    for format in [Format::Short, Format::Extended] {
        let data = report(format, 3, &registrants);
        assert_eq!(format.length(&data), data.len());
        let read = Report::decode(format, &data).unwrap();
        // A host with two controllers is one nexus; two hosts with the same key are two.
        assert_eq!(read.keys(), Keys { generation: 9, keys: vec![key(0x11), key(0x22), key(0x11)] });
        let held = Some(Held { key: Some(key(0x22)), kind: RO });
        assert_eq!(read.reservation(), Reservation { generation: 9, held });
        assert_eq!(read.power_loss, PowerLoss::Keeps);
        let (generation, hosts) = read.registrations();
        let told: Vec<_> = hosts.iter().map(|host| (host.key.get(), host.holds, host.port)).collect();
        assert_eq!((generation, told), (9, vec![(0x11, false, None), (0x22, true, None), (0x11, false, None)]));
        assert!(hosts.iter().all(|host| host.initiator.name.starts_with("nvme.")), "{hosts:?}");
    }
}

#[test]
fn a_reservation_of_all_registrants_has_no_holders_key_and_none_is_none() {
    let registrants = [(1, 1, 0xa, 0x11), (2, 1, 0xb, 0x22)];
    let read = Report::decode(Format::Extended, &report(Format::Extended, 5, &registrants)).unwrap();
    let kind = ReservationType::WriteExclusiveAllRegistrants;
    assert_eq!(read.reservation().held, Some(Held { key: None, kind }));
    let free = Report::decode(Format::Extended, &report(Format::Extended, 0, &registrants)).unwrap();
    assert_eq!(free.reservation().held, None);
}

#[test]
fn a_report_that_ends_early_or_has_an_unknown_type_is_an_error() {
    let mut data = report(Format::Extended, 3, &[(1, 1, 0xa, 0x11)]);
    data.pop();
    assert_eq!(Report::decode(Format::Extended, &data), Err(ReportError::TooShort { needed: 128, got: 127 }));
    let unknown = report(Format::Short, 7, &[]);
    assert_eq!(Report::decode(Format::Short, &unknown), Err(ReportError::Type(7)));
}

#[test]
fn what_a_namespace_can_do_is_read() {
    let mut identity = vec![0; 4096];
    identity[31] = 0b0000_1011;
    let can = report::capabilities(&identity, PowerLoss::Forgets);
    assert_eq!((can.power_loss, can.power_loss_now, can.ports), (PowerLoss::Keeps, PowerLoss::Forgets, Ports::All));
    assert_eq!(can.types, [ReservationType::WriteExclusive, RO]);
}

#[test]
fn commands_that_change_something_are_written_byte_for_byte() {
    let (ports, keeps) = (Ports::This, PowerLoss::Keeps);
    let register = |old, new| Command::Register { old, new, ports, power_loss: keeps };
    let ignoring = Command::RegisterIgnoring { new: Some(key(2)), ports, power_loss: PowerLoss::Forgets };
    let preempt = Command::Preempt { key: key(1), victim: Some(key(2)), kind: RO, queued: Queued::Aborted };
    for (command, action, opcode, dword_10, data, length) in [
        (register(None, Some(key(2))), REGISTER_KEY, 0x0d, 0xc000_0000, [0, 2], 16),
        (register(Some(key(1)), None), UNREGISTER_KEY, 0x0d, 0xc000_0001, [1, 0], 16),
        (register(Some(key(1)), Some(key(2))), REPLACE_KEY, 0x0d, 0xc000_0002, [1, 2], 16),
        (ignoring, REPLACE_KEY, 0x0d, 0x8000_000a, [0, 2], 16),
        (Command::Reserve { key: key(1), kind: RO }, ACQUIRE_IT, 0x11, 0x0000_0300, [1, 0], 16),
        (preempt, PREEMPT_AND_ABORT, 0x11, 0x0000_0302, [1, 2], 16),
        (Command::Release { key: key(1), kind: RO }, RELEASE_IT, 0x15, 0x0000_0300, [1, 0], 8),
        (Command::Clear { key: key(1) }, CLEAR, 0x15, 0x0000_0001, [1, 0], 8),
    ] {
        assert_eq!(encode(command, action), Some(Encoded { opcode, dword_10, data, length }), "{command:?}");
    }
}

#[test]
fn what_the_controller_says_is_told_apart() {
    for (status, expected) in [
        (0x0000, Ok(())),
        (0x4083, Err(Failure::Conflict)),
        (0x0083, Err(Failure::Conflict)),
        (0x4001, Err(Failure::NotSupported)),
        (0x4002, Err(Failure::NotSupported)),
        (0x0371, Err(Failure::NoAnswer)),
        (0x0370, Err(Failure::Transport)),
        (0x0006, Err(Failure::Rejected(Sense { key: 0x4, asc: 0x44, ascq: 0 }))),
        // "Host identifier inconsistent format": what Linux says to a request for the short format.
        (0x6018, Err(Failure::Rejected(Sense { key: 0xb, asc: 0, ascq: 0 }))),
        (0x6083, Err(Failure::Conflict)),
        (0x4018, Err(Failure::Rejected(Sense { key: 0xb, asc: 0, ascq: 0 }))),
    ] {
        assert_eq!(check(Ok(status)), expected, "{status:#x}");
    }
    assert_eq!(check(Err(Errno::ENODEV)), Err(Failure::Transport));
    assert_eq!(check(Err(Errno::ENOTTY)), Err(Failure::NotSupported));
}

proptest! {
    #[test]
    fn arbitrary_reports_are_survived(mut data in prop::collection::vec(any::<u8>(), 0..400), count in 0u16..6) {
        if let Some(field) = data.get_mut(5..7) {
            field.copy_from_slice(&count.to_le_bytes());
        }
        for format in [Format::Short, Format::Extended] {
            if let Ok(read) = Report::decode(format, &data) {
                prop_assert!(read.keys().keys.len() <= usize::from(count));
                let _ = (read.reservation(), read.registrations());
            }
        }
        let _ = report::capabilities(&data, PowerLoss::Keeps);
    }
}
