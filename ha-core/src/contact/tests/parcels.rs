//! Parcels arrive once, whole and in order, or are given up within a bounded time.

use proptest::prelude::*;

use super::*;

fn parcel(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

fn arrived(net: &mut Net, at: &str) -> Vec<Vec<u8>> {
    let events = net.machine(at).events.iter();
    events
        .filter_map(|event| if let ContactEvent::Parcel { bytes, .. } = event { Some(bytes.clone()) } else { None })
        .collect()
}

fn send(net: &mut Net, from: &str, to: &str, bytes: Vec<u8>) -> ParcelId {
    net.at(from, |contact, now| contact.send_parcel(now, &node(to), bytes)).unwrap()
}

#[test]
fn a_small_parcel_takes_one_datagram_and_its_sender_hears_that_it_arrived() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    let id = send(&mut net, ALPHA, BETA, parcel(100));
    net.run_for(ms(1));
    assert_eq!(net.machine(BETA).events, [ContactEvent::Parcel { from: node(ALPHA), bytes: parcel(100) }]);
    assert_eq!(net.machine(ALPHA).events, [ContactEvent::ParcelDelivered { to: node(BETA), id }]);
}

#[test]
fn an_empty_parcel_is_a_parcel() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    send(&mut net, ALPHA, BETA, Vec::new());
    net.run_for(ms(1));
    assert_eq!(arrived(&mut net, BETA), [Vec::<u8>::new()]);
}

#[test]
fn the_greatest_parcel_arrives_and_a_greater_one_is_refused() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    send(&mut net, ALPHA, BETA, parcel(PARCEL_MAX));
    net.run_for(ms(2_000));
    assert_eq!(arrived(&mut net, BETA), [parcel(PARCEL_MAX)]);
    let refused = net.at(ALPHA, |c, now| c.send_parcel(now, &node(BETA), vec![0; PARCEL_MAX + 1]));
    assert_eq!(refused, Err(ParcelRefused::TooLarge(PARCEL_MAX + 1)));
    let refused = net.at(ALPHA, |c, now| c.send_parcel(now, &node(ALPHA), vec![0]));
    assert_eq!(refused, Err(ParcelRefused::NotAPeer(node(ALPHA))));
}

#[test]
fn a_parcel_that_cannot_arrive_is_given_up_in_time() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.kill(BETA);
    let id = send(&mut net, ALPHA, BETA, parcel(5_000));
    net.run_for(ms(9_999));
    assert!(!net.machine(ALPHA).events.iter().any(|event| matches!(event, ContactEvent::ParcelFailed { .. })));
    net.run_for(ms(1));
    let why = ParcelFailure::TimedOut { after: ms(10_000) };
    assert_eq!(net.machine(ALPHA).events.last(), Some(&ContactEvent::ParcelFailed { to: node(BETA), id, why }));
}

#[test]
fn a_command_is_never_carried_out_by_a_later_life_of_its_addressee() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    // Beta gets it, but its answers are lost.
    net.cut(BETA, ALPHA);
    let id = send(&mut net, ALPHA, BETA, parcel(10));
    net.run_for(ms(300));
    assert_eq!(arrived(&mut net, BETA).len(), 1);
    net.kill(BETA);
    net.start(BETA, 2);
    net.run_for(ms(300));
    assert_eq!(arrived(&mut net, BETA).len(), 0);
    net.heal();
    net.run_for(ms(1_000));
    assert_eq!(arrived(&mut net, BETA).len(), 0);
    let why = ParcelFailure::PeerRestarted;
    assert!(net.machine(ALPHA).events.contains(&ContactEvent::ParcelFailed { to: node(BETA), id, why }));
}

#[test]
fn only_so_many_parcels_wait() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.kill(BETA);
    for _ in 0..64 {
        send(&mut net, ALPHA, BETA, parcel(1));
    }
    let refused = net.at(ALPHA, |c, now| c.send_parcel(now, &node(BETA), vec![0]));
    assert_eq!(refused, Err(ParcelRefused::TooMany { to: node(BETA), waiting: 64 }));
}

#[test]
fn a_parcel_half_arrived_is_forgotten_when_its_sender_is_gone() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    send(&mut net, ALPHA, BETA, parcel(PARCEL_MAX));
    net.run_for(ms(15));
    assert!(net.contact(BETA).peer(&node(ALPHA)).unwrap().inbox.holds_pieces());
    net.kill(ALPHA);
    net.run_for(ms(11_000));
    assert!(!net.contact(BETA).peer(&node(ALPHA)).unwrap().inbox.holds_pieces());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn parcels_arrive_once_and_in_order_over_a_bad_network(
        seed in any::<u64>(),
        lost in 0u64..45,
        doubled in 0u64..50,
        delay_ms in 1u64..60,
        sizes in prop::collection::vec(0usize..20_000, 1..8),
    ) {
        let mut net = Net::settled(&[ALPHA, BETA]);
        net.seed(seed);
        (net.lost_percent, net.doubled_percent, net.delay_up_to) = (lost, doubled, ms(delay_ms));
        for size in &sizes {
            send(&mut net, ALPHA, BETA, parcel(*size));
        }
        net.run_for(ms(12_000));
        let ended = net.machine(ALPHA).events.iter().filter(|event| {
            matches!(event, ContactEvent::ParcelDelivered { .. } | ContactEvent::ParcelFailed { .. })
        });
        prop_assert_eq!(ended.count(), sizes.len(), "each parcel ends one way or the other");
        let delivered = net.machine(ALPHA).events.iter().filter(|e| matches!(e, ContactEvent::ParcelDelivered { .. })).count();
        let got: Vec<usize> = arrived(&mut net, BETA).iter().map(Vec::len).collect();
        prop_assert!(got.len() >= delivered);
        let mut expected = sizes.iter();
        prop_assert!(got.iter().all(|size| expected.any(|sent| sent == size)), "in order, none twice");
    }
}
