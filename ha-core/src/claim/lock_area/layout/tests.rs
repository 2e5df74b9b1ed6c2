use proptest::prelude::*;

use super::*;

fn node(s: &str) -> NodeName {
    NodeName::new(s).unwrap()
}

fn header() -> Header {
    Header {
        id: AreaId([7; 16]),
        block_size: 512,
        nodes: vec![node("alpha"), node("beta"), node("gamma")],
        hierarchies: 100,
        timing: LeaseTiming::default(),
    }
}

fn record() -> Record {
    let owner =
        Ownership { epoch: 5, owner: Some((1, BootId([9; 16]))), failures: Failures { count: 2, first_ms_ago: 77 } };
    Record {
        seq: 11,
        instance: 6,
        mbal: 8,
        bal: 5,
        value: Some(Value::Owner(owner)),
        committed: Committed { instance: 5, name: Some(HierarchyName::new("web").unwrap()), ownership: owner },
    }
}

#[test]
fn blocks_read_back_as_they_were_written() {
    let h = header();
    assert_eq!(Header::decode(&h.encode()), Ok(h.clone()));
    let slot = Slot {
        seq: 3,
        boot: BootId([1; 16]),
        incarnation: Incarnation(4),
        beat: 12,
        state: SlotState::Up,
        ages: vec![0, 5, u32::MAX],
    };
    assert_eq!(Slot::decode(&slot.encode(&h, 1), &h, 1), Ok(slot));
    assert_eq!(Record::decode(&record().encode(&h, 2, 17), &h, 2, 17), Ok(record()));
}

#[test]
fn the_greatest_area_still_fits_its_header_and_slots() {
    let mut h = header();
    h.nodes = (0..MAX_NODES).map(|i| node(&format!("{i:0>63}"))).collect();
    assert_eq!(Header::decode(&h.encode()), Ok(h.clone()));
    let slot = Slot {
        seq: 1,
        boot: BootId([1; 16]),
        incarnation: Incarnation(1),
        beat: 1,
        state: SlotState::Left,
        ages: (0..64).collect(),
    };
    assert_eq!(Slot::decode(&slot.encode(&h, 63), &h, 63), Ok(slot));
}

#[test]
fn each_way_of_being_broken_has_its_own_error() {
    let h = header();
    let good = record().encode(&h, 2, 17);
    let read = |b: &[u8]| Record::decode(b, &h, 2, 17).unwrap_err();
    assert_eq!(read(&good[..100]), BlockError::Short(100));
    assert_eq!(read(&[0; 512]), BlockError::Blank);
    let mut foreign = good.clone();
    foreign[..4].copy_from_slice(b"XFSB");
    assert_eq!(read(&foreign), BlockError::Magic(*b"XFSB"));
    let mut torn = good.clone();
    torn[300] ^= 1;
    assert!(matches!(read(&torn), BlockError::Checksum { .. }));
    assert_eq!(Record::decode(&good, &h, 1, 17).unwrap_err(), BlockError::Place { node: 2, number: 17 });
    assert_eq!(Slot::decode(&good, &h, 2).unwrap_err(), BlockError::Kind { found: 3, expected: 2 });
    let other = Header { id: AreaId([8; 16]), ..header() };
    assert_eq!(Record::decode(&good, &other, 2, 17).unwrap_err(), BlockError::Area(h.id));
    let mut later = good;
    later[5] = 2;
    let crc = crc32c::crc32c(&later[..508]);
    later[508..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(read(&later), BlockError::Version(2));
}

#[test]
fn no_two_blocks_share_a_place() {
    let h = Header { hierarchies: 5, ..header() };
    let mut seen = std::collections::BTreeSet::new();
    for copy in Copy2::BOTH {
        for i in 0..3 {
            assert!(seen.insert(h.slot_at(i, copy)));
            for r in 0..5 {
                assert!(seen.insert(h.record_at(i, copy, r)));
            }
        }
    }
    assert_eq!(*seen.first().unwrap(), h.slots_at());
    assert_eq!(*seen.last().unwrap() + 512, h.area_len());
    assert_eq!(seen.len() as u64 * 512 + h.slots_at(), h.area_len());
}

/// A change of these bytes is a change of the format: raise the version instead.
#[test]
fn the_format_stays_as_it_was() {
    let h = header();
    let bytes = record().encode(&h, 2, 17);
    let golden: String = bytes[..276].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(golden, include_str!("golden_record.txt").split_whitespace().collect::<String>());
    assert_eq!(h.encode()[HEADER_LEN - 4..], [194, 42, 65, 147], "the header's checksum");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..9000), seal: bool) {
        let h = header();
        if seal && bytes.len() >= HEADER_LEN {
            // Past the checksum, so that the fields themselves are reached.
            for (kind, used) in [(KIND_RECORD, 512), (KIND_SLOT, 512), (KIND_HEADER, HEADER_LEN)] {
                bytes[..8].copy_from_slice(&[b'H', b'A', b'L', b'K', kind, 1, 0, 0]);
                bytes[8..24].copy_from_slice(&h.id.0);
                bytes[32..40].copy_from_slice(&[0; 8]);
                let crc = crc32c::crc32c(&bytes[..used - 4]);
                bytes[used - 4..used].copy_from_slice(&crc.to_le_bytes());
                let _ = Record::decode(&bytes, &h, 0, 0);
                let _ = Slot::decode(&bytes, &h, 0);
                let _ = Header::decode(&bytes);
            }
        }
        let _ = Record::decode(&bytes, &h, 0, 0);
        let _ = Slot::decode(&bytes, &h, 0);
        let _ = Header::decode(&bytes);
    }
}
