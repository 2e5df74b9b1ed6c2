//! The bytes of messages: read back as they were written, and nothing else is read.

use proptest::prelude::*;

use super::*;

fn text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::char::any(), 0..max / 4).prop_map(|chars| chars.into_iter().collect())
}

fn node_name() -> impl Strategy<Value = NodeName> {
    "[a-z][a-z0-9-]{0,20}".prop_map(|name| NodeName::new(name).unwrap())
}

fn directive() -> impl Strategy<Value = Directive> {
    let people = (text(SHORT_BYTES_MAX), text(REASON_BYTES_MAX), prop::option::of(text(REASON_BYTES_MAX)));
    let nodes = (prop::option::of(node_name()), prop::option::of(node_name()));
    (any::<u64>(), nodes, people, any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(serial, (author, pin), (by, reason, quarantined), maintenance, stopped, cleared)| Directive {
            serial,
            author,
            by,
            reason,
            pin,
            maintenance,
            stopped,
            quarantined,
            cleared,
        },
    )
}

fn announcements() -> impl Strategy<Value = Announcement> {
    let declined = prop::option::of((text(DISTURBANCE_BYTES_MAX), prop::option::of(any::<u64>())));
    let unready = prop::option::of(text(DISTURBANCE_BYTES_MAX));
    let failures = (any::<u8>(), any::<u32>());
    let directive = prop_oneof![Just(Directive::default()), directive()];
    let kinds =
        prop_oneof![Just(DisturbanceKind::Unproven), Just(DisturbanceKind::Failed), Just(DisturbanceKind::Asked)];
    let disturbance = prop::option::of((kinds, text(DISTURBANCE_BYTES_MAX)));
    let last = (prop::option::of(node_name()), disturbance, prop::option::of(text(STORAGE_BYTES_MAX)));
    (any::<u64>(), 0u8..=100, declined, unready, failures, directive, any::<u64>(), last).prop_map(
        |(epoch, utility, declined, unready, failures, directive, definition, (heir, disturbance, storage))| {
            Announcement {
                phase: AnnouncedPhase::Stopping,
                epoch: Epoch(epoch),
                utility: Utility::new(utility).unwrap(),
                declined: declined.map(|(why, for_ms)| Declined { why, for_ms }),
                unready,
                failures: EarlyFailures { count: failures.0, first_ms_ago: failures.1 },
                directive,
                definition: Fingerprint(definition),
                heir,
                disturbance: disturbance.map(|(kind, why)| Disturbance { kind, why, told_after_ms: 7 }),
                storage,
            }
        },
    )
}

fn item() -> impl Strategy<Value = Item> {
    let name = "[a-z][a-z0-9-]{0,30}".prop_map(|name| HierarchyName::new(name).unwrap());
    prop_oneof![
        (name.clone(), announcements()).prop_map(|(name, it)| Item::Hierarchy(name, Box::new(it))),
        name.prop_map(Item::Withdrawn),
        (prop::option::of(text(REASON_BYTES_MAX)), text(SHORT_BYTES_MAX), any::<u64>()).prop_map(
            |(standby, version, definition)| Item::Node(NodeAnnouncement {
                standby,
                version,
                definition: Fingerprint(definition)
            })
        ),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let peer = (any::<u32>(), any::<u64>(), any::<u64>(), prop::option::of(0..u32::MAX)).prop_map(
        |(id, incarnation, have, age_us)| BeatPeer {
            id: NodeId(id),
            incarnation: Incarnation(incarnation),
            have,
            age_us,
        },
    );
    let beat = (any::<u64>(), any::<[u8; 16]>(), any::<u64>(), prop::collection::vec(peer, 0..32)).prop_map(
        |(sequence, boot, version, peers)| Message::Beat(Beat { sequence, boot: BootId(boot), version, peers }),
    );
    let delta = (0u64..1 << 60, 0u64..1 << 60, 0u64..1 << 60, prop::collection::vec(item(), 0..4)).prop_map(
        |(base, more, rest, items)| {
            Message::Delta(Delta {
                addressee: Incarnation(9),
                base,
                to: base + more,
                version: base + more + rest,
                items,
            })
        },
    );
    let fragment = (any::<u64>(), any::<u64>(), 0u16..900, 1u16..50, prop::collection::vec(any::<u8>(), 0..1_100))
        .prop_map(|(parcel, addressee, index, more, bytes)| {
            let (parcel, addressee) = (ParcelId(parcel), Incarnation(addressee));
            Message::Fragment(Fragment { parcel, addressee, index, count: index + more, bytes })
        });
    let ack = (any::<u64>(), any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..120)).prop_map(
        |(parcel, sender, complete, arrived)| {
            let (parcel, sender) = (ParcelId(parcel), Incarnation(sender));
            Message::FragmentAck(FragmentAck { parcel, sender, complete, arrived })
        },
    );
    prop_oneof![beat, delta, fragment, ack, Just(Message::Goodbye)]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_message_reads_back_as_it_was_written(message in message()) {
        prop_assert_eq!(Message::decode(&encoded(&message)), Ok(message));
    }

    #[test]
    fn what_a_later_version_adds_is_skipped(message in message()) {
        let mut bytes = Vec::new();
        crate::contact::codec::encode_as_later(&message, &mut bytes);
        let more = matches!(message, Message::Beat(_) | Message::Delta(_));
        prop_assert_eq!(bytes.len() > encoded(&message).len(), more);
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn a_message_cut_short_is_not_read_as_another(message in message(), at in any::<prop::sample::Index>()) {
        prop_assume!(!matches!(message, Message::Fragment(_) | Message::FragmentAck(_)));
        let bytes = encoded(&message);
        let cut = at.index(bytes.len());
        prop_assert!(Message::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn arbitrary_messages_never_panic_and_never_leave_a_deadline_behind(
        messages in prop::collection::vec((message(), 0u64..3, 0u64..50), 1..40)
    ) {
        let mut contact = Contact::new(config(ALPHA, &[ALPHA, BETA]), Incarnation(1), Time::ZERO).unwrap();
        let mut now = 0;
        for (message, incarnation, later) in messages {
            now += later;
            contact.received(at_ms(now), &channel("net-a"), &node(BETA), Incarnation(incarnation), message);
            contact.handle_timeout(at_ms(now));
            let due = contact.next_deadline();
            prop_assert!(due.is_none_or(|due| due > at_ms(now)), "{:?} is due again at {}", due, now);
            while contact.poll_transmit().is_some() {}
        }
    }
}

#[test]
fn each_broken_field_is_named() {
    let beat = encoded(&Message::Beat(Beat { sequence: 1, boot: BootId([0; 16]), version: 0, peers: vec![] }));
    let error = |bytes: &[u8]| Message::decode(bytes).map_err(|e| (e.field, e.fault)).unwrap_err();
    assert_eq!(error(&[]), (Field::Kind, Fault::Missing));
    assert_eq!(error(&[9]), (Field::Kind, Fault::Meaningless));
    assert_eq!(error(&[1]), (Field::Sequence, Fault::Missing));
    assert_eq!(error(&beat[..10]), (Field::Boot, Fault::Missing));
    assert_eq!(error(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]), (Field::Sequence, Fault::TooLarge));
    assert_eq!(error(&[2, 9, 0, 1, 0, 1, 3]), (Field::ItemLength, Fault::Missing));
    assert_eq!(error(&[2, 9, 0, 1, 0, 1, 3, 9, 1]), (Field::ItemLength, Fault::TooLarge));
    assert_eq!(error(&[2, 9, 0, 1, 0, 1, 3, 2, 1, b'-']), (Field::HierarchyName, Fault::NotAName));
    assert_eq!(error(&[2, 9, 0, 1, 0, 1, 3, 2, 1, 0xff]), (Field::HierarchyName, Fault::NotText));
    assert_eq!(error(&[2, 9, 0, 1, 0, 1, 3, 2, 2, b'a']), (Field::HierarchyName, Fault::Missing));
    assert_eq!(error(&[2, 9, 0, 1, 0, 200, 1, 3]), (Field::ItemCount, Fault::TooLarge));
    assert_eq!(error(&[3, 1, 1, 5, 5]), (Field::FragmentIndex, Fault::TooLarge));
    assert_eq!(
        Message::decode(&[9]).unwrap_err().to_string(),
        "message not readable: Kind means nothing; do all nodes run versions that go together?"
    );
}

#[test]
fn the_longest_announcement_fits_into_one_datagram() {
    let long = "ä".repeat(500);
    let name = |c: &str| NodeName::new(c.repeat(63)).unwrap();
    let directive = Directive {
        serial: u64::MAX,
        author: Some(name("a")),
        by: long.clone(),
        reason: long.clone(),
        pin: Some(name("b")),
        maintenance: true,
        stopped: true,
        quarantined: Some(long.clone()),
        cleared: u64::MAX,
    };
    let announcement = Announcement {
        phase: AnnouncedPhase::StopFailed,
        epoch: Epoch(u64::MAX),
        utility: Utility::FULL,
        declined: Some(Declined { why: long.clone(), for_ms: Some(u64::MAX) }),
        unready: Some(long.clone()),
        failures: EarlyFailures { count: 255, first_ms_ago: u32::MAX },
        directive,
        definition: Fingerprint(u64::MAX),
        heir: Some(name("c")),
        disturbance: Some(Disturbance { kind: DisturbanceKind::Asked, why: long.clone(), told_after_ms: u32::MAX }),
        storage: Some(long),
    };
    let item = Item::Hierarchy(HierarchyName::new("h".repeat(63)).unwrap(), Box::new(announcement));
    let delta = Message::Delta(Delta {
        addressee: Incarnation(9),
        base: u64::MAX - 2,
        to: u64::MAX - 1,
        version: u64::MAX,
        items: vec![item],
    });
    let bytes = encoded(&delta);
    // 1,500 bytes of Ethernet, less IPv6 (40), UDP (8) and the seal.
    assert!(bytes.len() <= 1_500 - 48 - SEAL_BYTES, "{} bytes", bytes.len());
    let Ok(Message::Delta(read)) = Message::decode(&bytes) else { panic!("not readable") };
    let Item::Hierarchy(_, read) = &read.items[0] else { panic!("not a hierarchy") };
    assert_eq!(read.unready.as_deref(), Some("ä".repeat(75).as_str()), "cut between characters");
}
