//! Nothing that is unsealed, stale, foreign or doubled changes anything.

use proptest::prelude::*;

use super::*;

fn cluster() -> ClusterName {
    ClusterName::new("shop").unwrap()
}

fn ids() -> NodeIds {
    NodeIds::new(&[node(ALPHA), node(BETA)]).unwrap()
}

fn sealer(keys: &KeyRing, incarnation: u64) -> Sealer {
    Sealer::new(&node(ALPHA), &cluster(), keys, Incarnation(incarnation))
}

fn opener(keys: &KeyRing) -> Opener {
    Opener::new(&node(BETA), &cluster(), ids(), keys)
}

fn seal(sealer: &mut Sealer) -> Vec<u8> {
    sealer.seal(&node(BETA), &Message::Goodbye).unwrap()
}

fn other_keys() -> KeyRing {
    KeyRing::generate(KeyId(1), std::array::from_fn(|i| 100 + i as u8))
}

#[test]
fn what_is_sealed_can_be_opened_once() {
    let mut opener = opener(&keys());
    let datagram = seal(&mut sealer(&keys(), 7));
    let expected = Opened { from: node(ALPHA), incarnation: Incarnation(7), message: Message::Goodbye };
    assert_eq!(opener.open(&datagram), Ok(expected));
    assert_eq!(opener.open(&datagram), Err(Refused::Replayed));
}

#[test]
fn each_reason_to_refuse_is_told_apart_and_counted() {
    let mut opener = opener(&keys());
    let good = seal(&mut sealer(&keys(), 7));
    let changed = |at: usize, to: u8| {
        let mut datagram = good.clone();
        datagram[at] = to;
        datagram
    };
    let mut foreign_cluster = Sealer::new(&node(ALPHA), &ClusterName::new("office").unwrap(), &keys(), Incarnation(7));
    let mut stranger = Sealer::new(&node("mallory"), &cluster(), &keys(), Incarnation(7));
    let mut namesake = Sealer::new(&node(BETA), &cluster(), &keys(), Incarnation(7));
    let for_other = sealer(&keys(), 7).seal(&node(GAMMA), &Message::Goodbye).unwrap();
    let cases = [
        (good[..20].to_vec(), Refused::TooShort),
        (good[..44].to_vec(), Refused::TooShort),
        (changed(0, b'X'), Refused::BadMagic),
        (changed(2, 9), Refused::WrongVersion(9)),
        (changed(3, 200), Refused::UnknownKey(KeyId(200))),
        (for_other, Refused::NotForMe),
        (seal(&mut stranger), Refused::UnknownSender(NodeId::of(&node("mallory")))),
        (seal(&mut namesake), Refused::FromMyself),
        (seal(&mut sealer(&other_keys(), 7)), Refused::NotAuthentic),
        (seal(&mut foreign_cluster), Refused::NotAuthentic),
        (changed(27, 99), Refused::NotAuthentic),
        (changed(good.len() - 1, !good[good.len() - 1]), Refused::NotAuthentic),
    ];
    for (datagram, reason) in cases {
        assert_eq!(opener.open(&datagram), Err(reason));
    }
    assert!(opener.open(&good).is_ok(), "nothing refused has changed anything");
    assert_eq!(opener.open(&seal(&mut sealer(&keys(), 6))), Err(Refused::OldIncarnation));
    assert_eq!(opener.open(&good), Err(Refused::Replayed));
    let expected = RefusedCounts {
        too_short: 2,
        bad_magic: 1,
        wrong_version: 1,
        not_for_me: 1,
        unknown_sender: 1,
        from_myself: 1,
        unknown_key: 1,
        not_authentic: 4,
        old_incarnation: 1,
        replayed: 1,
        not_readable: 0,
    };
    assert_eq!(opener.refused(), &expected);
}

#[test]
fn datagrams_may_come_in_any_order_within_the_window() {
    let mut sealer = sealer(&keys(), 7);
    let datagrams: Vec<_> = (0..2_049).map(|_| seal(&mut sealer)).collect();
    let mut opener = opener(&keys());
    assert!(opener.open(&datagrams[2_048]).is_ok());
    assert_eq!(opener.open(&datagrams[0]), Err(Refused::Replayed), "too old to tell");
    for datagram in datagrams[1..2_048].iter().rev() {
        assert!(opener.open(datagram).is_ok());
        assert_eq!(opener.open(datagram), Err(Refused::Replayed));
    }
}

#[test]
fn keys_are_rolled_without_a_moment_of_silence() {
    let (mut old, mut new) = (keys(), keys());
    let (mut sealer, mut opener) = (sealer(&old, 7), opener(&old));
    new.add(KeyId(2), std::array::from_fn(|i| 50 + i as u8)).unwrap();
    opener.set_keys(&new);
    assert!(opener.open(&seal(&mut sealer)).is_ok());
    new.send_with(KeyId(2)).unwrap();
    sealer.set_keys(&new);
    let by_new = seal(&mut sealer);
    assert!(opener.open(&by_new).is_ok());
    assert_eq!(opener.open(&by_new), Err(Refused::Replayed), "what was heard is not forgotten");
    new.remove(KeyId(1)).unwrap();
    opener.set_keys(&new);
    assert!(opener.open(&seal(&mut sealer)).is_ok());
    old.send_with(KeyId(1)).unwrap();
    sealer.set_keys(&old);
    assert_eq!(opener.open(&seal(&mut sealer)), Err(Refused::UnknownKey(KeyId(1))));
}

#[test]
fn every_datagram_ever_sent_changes_nothing_when_sent_again_to_anybody() {
    let names = [ALPHA, BETA, GAMMA];
    let mut net = Net::settled(&names);
    net.announce(ALPHA, "web", 1);
    net.at(BETA, |contact, now| contact.send_parcel(now, &node(GAMMA), vec![1; 3_000])).unwrap();
    net.run_for(ms(500));
    net.announce(ALPHA, "web", 2);
    net.run_for(ms(500));
    net.kill(BETA);
    net.start(BETA, 2);
    net.run_for(ms(500));
    net.run_until_all_has_arrived();
    let before: Vec<String> =
        names.map(|name| format!("{:?} {:?}", net.contact(name).peers, net.contact(name).told)).to_vec();
    for name in names {
        net.machine(name).events.clear();
    }
    for (_, channel, datagram) in net.sent.clone() {
        for name in names {
            net.replay(&node(name), &channel, &datagram);
        }
    }
    let after: Vec<String> =
        names.map(|name| format!("{:?} {:?}", net.contact(name).peers, net.contact(name).told)).to_vec();
    for (name, (before, after)) in names.iter().zip(before.iter().zip(&after)) {
        assert_eq!(before, after, "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_and_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut opener = opener(&keys());
        prop_assert!(opener.open(&bytes).is_err());
        prop_assert!(opener.open(&seal(&mut sealer(&keys(), 1))).is_ok());
    }

    #[test]
    fn a_datagram_with_any_bit_changed_is_refused(at in 0usize..45 * 8) {
        let mut opener = opener(&keys());
        let mut datagram = seal(&mut sealer(&keys(), 7));
        datagram[at / 8] ^= 1 << (at % 8);
        prop_assert!(opener.open(&datagram).is_err());
    }
}
