use super::*;
use ha_core::claim::reservation::device::{Held, Keys, Ports, Reservation};
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
                let _ = read.reservation();
            }
        }
        let _ = report::capabilities(&data, PowerLoss::Keeps);
    }
}
