use super::*;
use ha_core::claim::reservation::device::{
    Held, Key, Ports, PowerLoss, Queued, Reservation, ReservationType, Sense, UnitAttention,
};
use proptest::prelude::*;
use std::collections::VecDeque;

/// Answers what it was told to, and keeps what was sent.
#[derive(Default)]
struct Script {
    answers: VecDeque<Ended>,
    data: VecDeque<Vec<u8>>,
    sent: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Transport for Script {
    fn execute(&mut self, command_block: &[u8], transfer: Transfer<'_>) -> Result<Ended, Failure> {
        let mut ended = self.answers.pop_front().unwrap_or(Ended { status: 0, sense: Vec::new(), received: 0 });
        let out = match transfer {
            Transfer::Out(parameters) => parameters.to_vec(),
            Transfer::In(room) => {
                let data = self.data.pop_front().unwrap_or_default();
                ended.received = data.len().min(room.len());
                room[..ended.received].copy_from_slice(&data[..ended.received]);
                Vec::new()
            }
        };
        self.sent.push((command_block.to_vec(), out));
        Ok(ended)
    }
}

fn key(value: u64) -> Key {
    Key::new(value).unwrap()
}

/// The command block and the parameter list in hexadecimal, as they were sent.
fn sent(command: Command) -> String {
    let mut script = Script::default();
    assert_eq!(carry_out(&mut script, command), Ok(Answer::Done));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (block, parameters) = &script.sent[0];
    format!("{} {}", hex(block), hex(parameters))
}

fn answered(data: &[&[u8]], command: Command) -> Result<Answer, Failure> {
    let data = data.iter().map(|bytes| bytes.to_vec()).collect();
    carry_out(&mut Script { data, ..Script::default() }, command)
}

fn ended(status: u8, sense: &[u8]) -> Result<Answer, Failure> {
    let answer = Ended { status, sense: sense.to_vec(), received: 0 };
    let mut script = Script { answers: [answer].into(), ..Script::default() };
    carry_out(&mut script, Command::Clear { key: key(1) })
}

fn list_of_keys(generation: u32, keys: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let keys: Vec<u8> = keys.into_iter().flat_map(u64::to_be_bytes).collect();
    [&generation.to_be_bytes()[..], &(keys.len() as u32).to_be_bytes(), &keys].concat()
}

const RO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

#[test]
fn commands_that_change_something_are_written_byte_for_byte() {
    let (this, all) = (Ports::This, Ports::All);
    let (forgets, keeps) = (PowerLoss::Forgets, PowerLoss::Keeps);
    let me = key(0x0102_0304_0506_0708);
    let other = key(0xa1a2_a3a4_a5a6_a7a8);
    let preempt = |queued, victim| Command::Preempt { key: me, victim, kind: RO, queued };
    for (command, expected) in [
        (
            Command::Register { old: None, new: Some(me), ports: this, power_loss: keeps },
            "5f000000000000001800 000000000000000001020304050607080000000001000000",
        ),
        (
            Command::Register { old: Some(me), new: None, ports: this, power_loss: forgets },
            "5f000000000000001800 010203040506070800000000000000000000000000000000",
        ),
        (
            Command::RegisterIgnoring { new: Some(other), ports: all, power_loss: keeps },
            "5f060000000000001800 0000000000000000a1a2a3a4a5a6a7a80000000005000000",
        ),
        (
            Command::Reserve { key: me, kind: RO },
            "5f010500000000001800 010203040506070800000000000000000000000000000000",
        ),
        (
            Command::Release { key: me, kind: ReservationType::ExclusiveAccessRegistrantsOnly },
            "5f020600000000001800 010203040506070800000000000000000000000000000000",
        ),
        (Command::Clear { key: me }, "5f030000000000001800 010203040506070800000000000000000000000000000000"),
        (preempt(Queued::Stay, Some(other)), "5f040500000000001800 0102030405060708a1a2a3a4a5a6a7a80000000000000000"),
        (
            preempt(Queued::Aborted, Some(other)),
            "5f050500000000001800 0102030405060708a1a2a3a4a5a6a7a80000000000000000",
        ),
        (preempt(Queued::Stay, None), "5f040500000000001800 010203040506070800000000000000000000000000000000"),
    ] {
        assert_eq!(sent(command), expected, "{command:?}");
    }
}

#[test]
fn the_numbers_of_the_types_are_those_of_scsi() {
    let numbers: Vec<String> = ReservationType::ALL
        .into_iter()
        .map(|kind| sent(Command::Reserve { key: key(1), kind })[4..6].to_owned())
        .collect();
    assert_eq!(numbers, ["01", "03", "05", "06", "07", "08"]);
}

#[test]
fn commands_that_read_are_written_byte_for_byte() {
    let mut script =
        Script { data: [list_of_keys(0, []), vec![0; 8], vec![0, 8, 0, 0, 0, 0, 0, 0]].into(), ..Script::default() };
    for command in [Command::ReadKeys, Command::ReadReservation, Command::ReportCapabilities] {
        carry_out(&mut script, command).unwrap();
    }
    let blocks: Vec<Vec<u8>> = script.sent.into_iter().map(|(block, _)| block).collect();
    assert_eq!(
        blocks,
        [
            [0x5e, 0, 0, 0, 0, 0, 0, 0x02, 0x00, 0],
            [0x5e, 1, 0, 0, 0, 0, 0, 0x00, 0x18, 0],
            [0x5e, 2, 0, 0, 0, 0, 0, 0x00, 0x08, 0],
        ]
    );
}

#[test]
fn keys_are_read_with_as_much_room_as_they_need() {
    let many: Vec<u64> = (1..=300).collect();
    let whole = list_of_keys(9, many.clone());
    let mut script = Script { data: [whole.clone(), whole].into(), ..Script::default() };
    let Ok(Answer::Keys(keys)) = carry_out(&mut script, Command::ReadKeys) else { panic!("not keys") };
    assert_eq!((keys.generation, keys.keys), (9, many.into_iter().map(key).collect()));
    assert_eq!(script.sent.len(), 2);
    let room = u16::from_be_bytes([script.sent[1].0[7], script.sent[1].0[8]]);
    assert!(room >= 8 + 8 * 300, "{room}");
}

#[test]
fn keys_that_come_faster_than_they_are_read_are_no_answer_rather_than_some_of_them() {
    let lists: Vec<Vec<u8>> = (0..10).map(|i| list_of_keys(1, 1..200 * (i + 1))).collect();
    let lists: Vec<&[u8]> = lists.iter().map(Vec::as_slice).collect();
    assert_eq!(answered(&lists, Command::ReadKeys), Err(Failure::Transport));
}

#[test]
fn a_list_that_ends_early_is_not_read_as_a_shorter_one() {
    let mut list = list_of_keys(1, [1, 2]);
    list.pop();
    assert_eq!(answered(&[&list], Command::ReadKeys), Err(Failure::Transport));
    assert_eq!(answered(&[&[0, 0, 0]], Command::ReadKeys), Err(Failure::Transport));
}

#[test]
fn reservations_are_read() {
    let none = [0, 0, 0, 7, 0, 0, 0, 0];
    let reservation = |held| Ok(Answer::Reservation(Reservation { generation: 7, held }));
    assert_eq!(answered(&[&none], Command::ReadReservation), reservation(None));

    let held = |key: u64, scope_and_type| {
        let mut data = [0; 24];
        (data[3], data[7], data[21]) = (7, 0x10, scope_and_type);
        data[8..16].copy_from_slice(&key.to_be_bytes());
        data
    };
    assert_eq!(
        answered(&[&held(5, 0x05)], Command::ReadReservation),
        reservation(Some(Held { key: Some(key(5)), kind: RO }))
    );
    // All registrants hold it, whatever the target puts into the field.
    for value in [0, 5] {
        assert_eq!(
            answered(&[&held(value, 0x07)], Command::ReadReservation),
            reservation(Some(Held { key: None, kind: ReservationType::WriteExclusiveAllRegistrants }))
        );
    }
    for unknown in [0x02, 0x15] {
        assert_eq!(answered(&[&held(5, unknown)], Command::ReadReservation), Err(Failure::Transport));
    }
    assert_eq!(answered(&[&held(5, 0x05)[..20]], Command::ReadReservation), Err(Failure::Transport));
}

#[test]
fn capabilities_are_read() {
    // As LIO answers: ALL_TG_PT and APTPL possible, all six types.
    let lio = [0, 8, 0x05, 0x81, 0xea, 0x01, 0, 0];
    let Ok(Answer::Capabilities(can)) = answered(&[&lio], Command::ReportCapabilities) else { panic!("none") };
    assert_eq!((can.power_loss, can.power_loss_now, can.ports), (PowerLoss::Keeps, PowerLoss::Keeps, Ports::All));
    assert_eq!(can.types, ReservationType::ALL);

    let little = [0, 8, 0x00, 0x80, 0x22, 0x00, 0, 0];
    let Ok(Answer::Capabilities(can)) = answered(&[&little], Command::ReportCapabilities) else { panic!("none") };
    assert_eq!((can.power_loss, can.power_loss_now, can.ports), (PowerLoss::Forgets, PowerLoss::Forgets, Ports::This));
    assert_eq!(can.types, [ReservationType::WriteExclusive, RO]);

    // Without a valid mask, the device does not say.
    let silent = [0, 8, 0, 0, 0, 0, 0, 0];
    let Ok(Answer::Capabilities(can)) = answered(&[&silent], Command::ReportCapabilities) else { panic!("none") };
    assert_eq!(can.types, ReservationType::ALL);
}

/// Sense data in both formats.
fn sense(key: u8, asc: u8, ascq: u8) -> [Vec<u8>; 2] {
    let mut fixed = vec![0; 18];
    (fixed[0], fixed[2], fixed[7], fixed[12], fixed[13]) = (0x70, key, 10, asc, ascq);
    [fixed, vec![0x72, key, asc, ascq, 0, 0, 0, 0]]
}

#[test]
fn what_the_device_says_is_told_apart() {
    let rejected = |key, asc, ascq| Failure::Rejected(Sense { key, asc, ascq });
    for (key, asc, ascq, expected) in [
        (0x6, 0x29, 0x00, Failure::UnitAttention(UnitAttention::PowerOn)),
        (0x6, 0x29, 0x03, Failure::UnitAttention(UnitAttention::Reset)),
        (0x6, 0x29, 0x07, Failure::UnitAttention(UnitAttention::NexusLost)),
        (0x6, 0x2a, 0x03, Failure::UnitAttention(UnitAttention::ReservationsPreempted)),
        (0x6, 0x2a, 0x04, Failure::UnitAttention(UnitAttention::ReservationsReleased)),
        (0x6, 0x2a, 0x05, Failure::UnitAttention(UnitAttention::RegistrationsPreempted)),
        (0x6, 0x2a, 0x09, Failure::UnitAttention(UnitAttention::Other { asc: 0x2a, ascq: 0x09 })),
        (0x5, 0x20, 0x00, Failure::NotSupported),
        (0x5, 0x24, 0x00, Failure::NotSupported),
        (0x5, 0x26, 0x00, Failure::NotSupported),
        (0x5, 0x26, 0x04, Failure::Rejected(Sense::INVALID_RELEASE)),
        (0x2, 0x08, 0x00, Failure::Rejected(Sense::COMMUNICATION_FAILURE)),
        (0x2, 0x04, 0x01, rejected(0x2, 0x04, 0x01)),
    ] {
        for data in sense(key, asc, ascq) {
            assert_eq!(ended(0x02, &data), Err(expected), "{data:02x?}");
        }
    }
    for data in sense(0x1, 0x17, 0x01) {
        assert_eq!(ended(0x02, &data), Ok(Answer::Done), "recovered: it was carried out");
    }
    assert_eq!(ended(0x02, &[]), Err(rejected(0, 0, 0)));
    assert_eq!(ended(0x18, &[]), Err(Failure::Conflict));
    assert_eq!(ended(0x08, &[]), Err(Failure::Busy));
    assert_eq!(ended(0x28, &[]), Err(Failure::Busy), "no room for another command");
    assert_eq!(ended(0x40, &[]), Err(Failure::Transport), "aborted by another nexus: it may have been carried out");
}

#[test]
fn an_error_of_an_earlier_command_is_not_taken_for_this_ones() {
    for (mut data, response) in sense(0x1, 0x17, 0x01).into_iter().zip([0x71, 0x73]) {
        data[0] = response;
        assert_eq!(ended(0x02, &data), Err(Failure::Rejected(Sense { key: 0x1, asc: 0x17, ascq: 0x01 })));
    }
}

fn named(pages: &[&[u8]]) -> Option<String> {
    let data = pages.iter().map(|page| page.to_vec()).collect();
    let name = designator(&mut Script { data, ..Script::default() }).unwrap();
    name.map(|name| name.as_str().to_owned())
}

#[test]
fn a_device_is_known_by_the_best_name_of_the_logical_unit() {
    let t10 = [&[0x02, 0x01, 0, 12][..], b"LIO-ORG disk"].concat();
    let naa = [&[0x01, 0x03, 0, 16][..], &[0x60, 0x01, 0x40, 0x5a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]].concat();
    let port = [&[0x01, 0x93, 0, 8][..], &[0x50, 9, 9, 9, 9, 9, 9, 9]].concat();
    let page = |parts: &[&[u8]]| {
        let payload = parts.concat();
        [&[0, 0x83, 0, payload.len() as u8][..], &payload].concat()
    };
    assert_eq!(named(&[&page(&[&t10, &naa, &port])]).unwrap(), "naa.6001405a0102030405060708090a0b0c");
    assert_eq!(named(&[&page(&[&port, &t10])]).unwrap(), "t10.LIO-ORG_disk");
    let serial = [&[0, 0x80, 0, 10][..], b"  SER 0042"].concat();
    assert_eq!(named(&[&page(&[&port]), &serial]).unwrap(), "serial.SER_0042");
    assert_eq!(named(&[&page(&[]), &[0, 0x80, 0, 4, 0x20, 0x20, 0x20, 0x20]]), None);
}

#[test]
fn a_device_without_designators_is_known_by_its_serial_number() {
    let refusal = Ended { status: 0x02, sense: sense(0x5, 0x24, 0x00)[0].clone(), received: 0 };
    let mut script = Script {
        answers: [refusal].into(),
        data: [Vec::new(), b"\0\x80\0\x03abc".to_vec()].into(),
        ..Script::default()
    };
    assert_eq!(designator(&mut script).unwrap().unwrap().as_str(), "serial.abc");
    let blocks: Vec<Vec<u8>> = script.sent.into_iter().map(|(block, _)| block).collect();
    assert_eq!(blocks, [[0x12, 1, 0x83, 4, 0, 0], [0x12, 1, 0x80, 4, 0, 0]]);
}

proptest! {
    /// Whatever a device sends, reading it ends, and nothing is made up: a list of keys has as many as it says, zeros left out.
    #[test]
    fn arbitrary_answers_are_survived(
        data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..5),
        status in prop_oneof![Just(0u8), Just(2u8), any::<u8>()],
        sense in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for command in [Command::ReadKeys, Command::ReadReservation, Command::ReportCapabilities] {
            let answers = [Ended { status, sense: sense.clone(), received: 0 }].into();
            let mut script = Script { answers, data: data.clone().into(), sent: Vec::new() };
            if let Ok(Answer::Keys(keys)) = carry_out(&mut script, command) {
                prop_assert!(keys.keys.len() <= 600 / 8);
            }
            let answers = [Ended { status, sense: sense.clone(), received: 0 }].into();
            let _ = designator(&mut Script { answers, data: data.clone().into(), sent: Vec::new() });
        }
    }

    #[test]
    fn keys_that_were_written_are_read(generation: u32, keys in prop::collection::vec(1u64.., 0..60)) {
        let expected: Vec<Key> = keys.iter().copied().map(key).collect();
        let answer = answered(&[&list_of_keys(generation, keys)], Command::ReadKeys);
        prop_assert_eq!(answer, Ok(Answer::Keys(ha_core::claim::reservation::device::Keys { generation, keys: expected })));
    }
}

#[test]
fn a_rewrite_writes_what_it_read_or_nothing() {
    let capacity = [0, 0, 0xff, 0xff, 0, 0, 2, 0].to_vec();
    let block: Vec<u8> = (0..=255u8).cycle().take(512).collect();
    let mut script = Script { data: [capacity.clone(), block.clone()].into(), ..Script::default() };
    assert_eq!(rewrite(&mut script), Ok(()));
    assert_eq!(script.sent[2], ([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0].to_vec(), block.clone()));

    let refused = Ended { status: 0x18, sense: Vec::new(), received: 0 };
    let good = || Ended { status: 0, sense: Vec::new(), received: 0 };
    let answers = [good(), good(), refused.clone()].into();
    let mut script = Script { answers, data: [capacity.clone(), block.clone()].into(), ..Script::default() };
    assert_eq!(rewrite(&mut script), Err(Failure::Conflict), "the write is refused");
    let mut script = Script { answers: [good(), refused].into(), data: [capacity.clone()].into(), ..Script::default() };
    assert_eq!(
        (rewrite(&mut script), script.sent.len()),
        (Err(Failure::Conflict), 2),
        "the read is, and nothing is written"
    );
    for (capacity, block) in [(capacity.clone(), &block[..100]), (capacity[..6].to_vec(), &block), (vec![0; 8], &block)]
    {
        let mut script = Script { data: [capacity, block.to_vec()].into(), ..Script::default() };
        assert!(rewrite(&mut script).is_err() && script.sent.iter().all(|(block, _)| block[0] != 0x2a));
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What LIO of Linux 6.1 sent to an initiator with two paths, and another one with a path.
fn lio_full_status() -> Vec<u8> {
    unhex(
        "00000003 000000f0 000000000000abc1 00000000 01050000 00000001 00000038
         45000034 69716e2e323032362d30312e6578616d706c652e68612d6c61623a616c7068612c692c3078303030323364303030303031 000000
         000000000000abc1 00000000 00000000 00000002 00000038
         45000034 69716e2e323032362d30312e6578616d706c652e68612d6c61623a616c7068612c692c3078303030323364303030303032 000000
         000000000000abc2 00000000 00000000 00000002 00000038
         45000034 69716e2e323032362d30312e6578616d706c652e68612d6c61623a626574612c692c3078303030323364303030303031 00000000",
    )
}

/// The page 83h that came with it, on the second path.
fn lio_identification() -> Vec<u8> {
    unhex(
        "008300a0 01030010 60014051ab0000000000000000000000 02010020 4c494f2d4f524720 49424c4f434b3a31 6162303030303030 3030303030303000
         51940004 00000002 51950004 00000000 01060004 00000000
         53980028 69716e2e323032362d30312e6578616d706c652e68612d6c61623a622c742c307830303031000000
         53a80020 69716e2e323032362d30312e6578616d706c652e68612d6c61623a6200000000",
    )
}

#[test]
fn who_is_registered_through_which_port_is_read_as_lio_says_it() {
    let mut script = Script { data: [lio_full_status(), lio_identification()].into(), ..Script::default() };
    let own = InitiatorPort { name: "iqn.own".to_owned(), session: None };
    let seen = registrations(&mut script, Some(own.clone())).unwrap();
    let blocks: Vec<Vec<u8>> = script.sent.into_iter().map(|(block, _)| block).collect();
    assert_eq!(blocks, [vec![0x5e, 3, 0, 0, 0, 0, 0, 0xff, 0xf8, 0], vec![0x12, 1, 0x83, 4, 0, 0]]);
    assert_eq!((seen.generation, seen.asked_by), (3, Nexus { initiator: Some(own), port: Some(2) }));
    let told = seen.registrations.iter().map(|one| (one.key.get(), one.initiator.to_string(), one.port, one.holds));
    let port = |node, number| format!("iqn.2026-01.example.ha-lab:{node},i,0x00023d00000{number}");
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (0xabc1, port("alpha", 1), Some(1), true),
            (0xabc1, port("alpha", 2), Some(2), false),
            (0xabc2, port("beta", 1), Some(2), false),
        ]
    );
}

/// A descriptor, with this name of the initiator's port.
fn descriptor(flags: u8, port: u16, name: &[u8]) -> Vec<u8> {
    let (key, port) = (7u64.to_be_bytes(), port.to_be_bytes());
    let length = (name.len() as u32).to_be_bytes();
    [&key[..], &[0; 4], &[flags, 0x05, 0, 0, 0, 0], &port, &length, name].concat()
}

#[test]
fn initiators_of_every_transport_are_named() {
    let sixteen: Vec<u8> = (0x10..0x20).collect();
    let padded = |head: &[u8], name: &[u8]| [head, name, &vec![0; 24 - head.len() - name.len()]].concat();
    // LIO before it was repaired: the session after the end of the name, and cut off.
    let cut = [&[0x45, 0, 0, 20][..], b"iqn.a\0,i,0x\0\0\0\0\x0000023"].concat();
    for (id, expected) in [
        (padded(&[0x00, 0, 0, 0, 0, 0, 0, 0], &sixteen[..8]), "fcp.1011121314151617"),
        (padded(&[0x06, 0, 0, 0], &sixteen[..8]), "sas.1011121314151617"),
        (padded(&[0x04, 0, 0, 0, 0, 0, 0, 0], &sixteen), "srp.101112131415161718191a1b1c1d1e1f"),
        (padded(&[0x05, 0, 0, 20], b"iqn.a"), "iqn.a"),
        (padded(&[0x45, 0, 0, 20], b"iqn.a,i,0x00023D0000"), "iqn.a"),
        (cut, "iqn.a"),
        ([&[0x45, 0, 0, 20][..], b"iqn.a,i,0x00023D00000A\0"].concat(), "iqn.a,i,0x00023d00000a"),
        (vec![0x05, 0, 0, 4, 0, 0, 0, 0], "id.0500000400000000"),
        (vec![0x0f, 1], "id.0f01"),
        (Vec::new(), "id."),
    ] {
        let list = descriptor(0x02, 9, &id);
        let data = [&1u32.to_be_bytes()[..], &(list.len() as u32).to_be_bytes(), &list].concat();
        let mut script = Script { data: [data].into(), ..Script::default() };
        let seen = registrations(&mut script, None).unwrap();
        assert_eq!(seen.registrations.len(), 1);
        assert_eq!(
            (seen.registrations[0].initiator.to_string().as_str(), seen.registrations[0].port),
            (expected, None)
        );
    }
}

#[test]
fn a_full_status_that_ends_early_is_no_answer() {
    let whole = lio_full_status();
    for end in [4, 20, 60, whole.len() - 1] {
        let mut script = Script { data: [whole[..end].to_vec()].into(), ..Script::default() };
        assert_eq!(registrations(&mut script, None), Err(Failure::Transport), "{end}");
    }
    let mut beyond = whole;
    // The second name claims to be longer than the list.
    beyond[0x6e] = 0xff;
    let mut script = Script { data: [beyond].into(), ..Script::default() };
    assert_eq!(registrations(&mut script, None), Err(Failure::Transport));
}

proptest! {
    #[test]
    fn arbitrary_full_statuses_are_survived(
        mut list in prop::collection::vec(any::<u8>(), 0..300),
        page in prop::collection::vec(any::<u8>(), 0..60),
        length in 0u32..80,
    ) {
        // Mostly, so that more than one descriptor is read.
        if let Some(field) = list.get_mut(20..24) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        let data = [&[0; 4][..], &(list.len() as u32).to_be_bytes(), &list].concat();
        let page = [&[0, 0x83, 0, page.len() as u8][..], &page].concat();
        let mut script = Script { data: [data, page].into(), ..Script::default() };
        if let Ok(seen) = registrations(&mut script, None) {
            prop_assert!(seen.registrations.len() <= list.len() / 24);
        }
    }
}
