//! What nodes tell each other arrives, whatever the network does in between.

use proptest::prelude::*;

use super::*;

fn told(net: &Net, at: &str, by: &str, of: &str) -> Option<u64> {
    net.contact(at).announcement(&node(by), &hierarchy(of)).map(|it| it.epoch.0)
}

#[test]
fn a_change_travels_at_once_and_alone() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.announce(ALPHA, "web", 1);
    net.sent.clear();
    net.announce(ALPHA, "mail", 2);
    assert_eq!(net.sent.len(), 2, "one datagram, on each of two channels");
    net.run_for(ms(1));
    assert_eq!(told(&net, BETA, ALPHA, "mail"), Some(2));
    let events = [
        ContactEvent::Announced { peer: node(ALPHA), hierarchy: hierarchy("web") },
        ContactEvent::Announced { peer: node(ALPHA), hierarchy: hierarchy("mail") },
    ];
    assert_eq!(net.machine(BETA).events, events);
}

#[test]
fn what_is_said_already_is_not_said_again() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.announce(ALPHA, "web", 1);
    net.run_for(ms(300));
    net.sent.clear();
    net.announce(ALPHA, "web", 1);
    net.at(ALPHA, |contact, now| contact.withdraw(now, &hierarchy("unheard-of")));
    assert_eq!(net.sent, []);
}

#[test]
fn a_node_tells_of_itself_and_takes_things_back() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    let standby = NodeAnnouncement { standby: Some("disk being replaced".into()), ..NodeAnnouncement::default() };
    net.at(ALPHA, |contact, now| contact.set_node_announcement(now, standby.clone()));
    net.announce(ALPHA, "web", 1);
    net.run_for(ms(300));
    assert_eq!(net.contact(BETA).node_announcement(&node(ALPHA)), Some(&standby));
    net.at(ALPHA, |contact, now| contact.withdraw(now, &hierarchy("web")));
    net.run_for(ms(300));
    assert_eq!(told(&net, BETA, ALPHA, "web"), None);
    assert!(!net.contact(ALPHA).told.has_withdrawn(), "what everybody knows to be gone is forgotten");
    net.announce(ALPHA, "web", 2);
    net.run_for(ms(300));
    assert_eq!(told(&net, BETA, ALPHA, "web"), Some(2));
}

#[test]
fn a_newcomer_learns_a_thousand_hierarchies_in_a_second() {
    let mut net = Net::new(&[ALPHA, BETA, GAMMA]);
    net.start(ALPHA, 1);
    net.start(BETA, 1);
    for i in 0..1_000 {
        net.announce(ALPHA, &format!("service-{i}"), i);
    }
    net.run_for(ms(1_000));
    net.start(GAMMA, 1);
    let begin = net.now;
    net.run_until("gamma knows everything", |net| net.contact(GAMMA).settled());
    assert_eq!(net.contact(GAMMA).peer(&node(ALPHA)).unwrap().announcements().count(), 1_000);
    assert!(net.now.since(begin) < ms(1_000), "{:?}", net.now.since(begin));
}

#[test]
fn a_node_is_not_settled_before_it_knows_what_the_others_tell() {
    let mut net = Net::new(&[ALPHA, BETA]);
    net.start(ALPHA, 1);
    for i in 0..500 {
        net.announce(ALPHA, &format!("service-{i}"), i);
    }
    net.run_for(ms(50));
    net.start(BETA, 1);
    net.run_until("alpha is heard", |net| net.state(BETA, ALPHA) == PeerState::Alive);
    assert!(!net.contact(BETA).settled());
    net.run_until("beta is settled", |net| net.contact(BETA).settled());
    assert_eq!(net.contact(BETA).peer(&node(ALPHA)).unwrap().announcements().count(), 500);
    assert!(net.now < at_ms(15_000), "and does not wait for the grace to end");
}

#[test]
fn idle_traffic_does_not_depend_on_the_number_of_hierarchies() {
    let mut net = Net::settled(&[ALPHA, BETA, GAMMA]);
    let idle = |net: &mut Net| {
        net.sent.clear();
        net.run_for(ms(1_000));
        let largest = net.sent.iter().map(|(_, _, datagram)| datagram.len()).max().unwrap();
        (net.sent.len(), largest)
    };
    let (count, _) = idle(&mut net);
    for i in 0..1_000 {
        net.announce(ALPHA, &format!("service-{i}"), i);
    }
    net.run_for(ms(2_000));
    let (count_of_many, largest) = idle(&mut net);
    assert_eq!(count, count_of_many);
    assert_eq!(count, 3 * 2 * 2 * 10, "nodes × peers × channels × beats a second");
    assert!(largest < 200, "a sealed beat has {largest} bytes");
}

#[test]
fn a_new_life_begins_with_nothing_and_tells_all_it_has() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.announce(ALPHA, "web", 1);
    net.announce(ALPHA, "mail", 1);
    net.run_for(ms(300));
    net.kill(ALPHA);
    net.run_for(ms(2_000));
    assert_eq!(told(&net, BETA, ALPHA, "web"), Some(1), "of a lost peer, what it told last");
    net.start(ALPHA, 2);
    net.announce(ALPHA, "mail", 3);
    net.run_for(ms(300));
    assert_eq!(told(&net, BETA, ALPHA, "web"), None);
    assert_eq!(told(&net, BETA, ALPHA, "mail"), Some(3));
}

#[test]
fn what_was_told_while_the_network_was_cut_arrives_when_it_is_whole() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.announce(ALPHA, "web", 1);
    net.cut_both_ways(ALPHA, BETA);
    for epoch in 2..50 {
        net.announce(ALPHA, "web", epoch);
        net.run_for(ms(100));
    }
    net.heal();
    net.run_for(ms(500));
    assert_eq!(told(&net, BETA, ALPHA, "web"), Some(49));
}

#[test]
fn a_part_that_comes_late_does_not_bring_an_old_value_back() {
    let mut contact = Contact::new(config(ALPHA, &[ALPHA, BETA]), Incarnation(1), Time::ZERO).unwrap();
    let net = channel("net-a");
    let mut hear = |at: u64, message| contact.received(at_ms(at), &net, &node(BETA), Incarnation(5), message);
    let web = |epoch| vec![Item::Hierarchy(hierarchy("web"), Box::new(announcement(epoch)))];
    hear(1, Message::Beat(Beat { sequence: 1, boot: BootId([2; 16]), version: 3, peers: vec![knows(ALPHA, 1)] }));
    hear(2, Message::Delta(Delta { addressee: Incarnation(1), base: 0, to: 3, version: 3, items: web(3) }));
    hear(3, Message::Delta(Delta { addressee: Incarnation(1), base: 0, to: 2, version: 2, items: web(2) }));
    hear(4, Message::Delta(Delta { addressee: Incarnation(1), base: 4, to: 5, version: 5, items: web(5) }));
    assert_eq!(contact.announcement(&node(BETA), &hierarchy("web")).unwrap().epoch, Epoch(3));
    assert!(!contact.peer(&node(BETA)).unwrap().synced(), "it has more to tell");
}

#[test]
fn a_node_whose_clock_was_set_back_is_heard_all_the_same() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.kill(ALPHA);
    net.start(ALPHA, 500);
    net.run_for(ms(300));
    net.kill(ALPHA);
    net.run_for(ms(3_000));
    // The next life is numbered below the last one.
    net.start(ALPHA, 3);
    net.announce(ALPHA, "web", 9);
    net.run_for(ms(300));
    assert_eq!(net.state(BETA, ALPHA), PeerState::Alive);
    assert_eq!(told(&net, BETA, ALPHA, "web"), Some(9));
    assert_eq!(net.contact(ALPHA).incarnation(), Incarnation(501));
    assert_eq!(net.contact(ALPHA).known_incarnation_of_me(), None);
    let later = ContactEvent::KnownAsLater { incarnation: Incarnation(500) };
    assert_eq!(net.machine(ALPHA).events.iter().filter(|event| **event == later).count(), 1);
}

#[test]
fn every_event_reads_as_one_line() {
    let peer = node(BETA);
    let (hierarchy, channel) = (hierarchy("web"), channel("net-a"));
    let events = [
        ContactEvent::Alive { peer: peer.clone(), after: None },
        ContactEvent::Alive { peer: peer.clone(), after: Some(ms(1_200)) },
        ContactEvent::Lost { peer: peer.clone(), since: at_ms(1_500) },
        ContactEvent::Restarted { peer: peer.clone(), rebooted: true },
        ContactEvent::Announced { peer: peer.clone(), hierarchy },
        ContactEvent::Gap { peer: peer.clone(), channel, gap: ms(700), dead_after: ms(1_000) },
        ContactEvent::ParcelFailed { to: peer, id: ParcelId(4), why: ParcelFailure::PeerRestarted },
    ];
    let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "beta is heard",
            "beta is heard again after 1s 200ms",
            "contact with beta lost, silent since 1.500000",
            "beta was booted",
            "beta announced web",
            "nothing came from beta on net-a for 700ms: dead_after (1s) is tight",
            "parcel 4 to beta given up: the addressee left or was restarted",
        ]
    );
}

#[derive(Clone, Debug)]
enum Deed {
    Announce(usize, u8, u64),
    Withdraw(usize, u8),
    Restart(usize),
    Pause(usize),
    Cut(usize, usize),
    Heal,
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0usize..3, 0u8..40, 1u64..1_000).prop_map(|(at, of, epoch)| Deed::Announce(at, of, epoch)),
        2 => (0usize..3, 0u8..40).prop_map(|(at, of)| Deed::Withdraw(at, of)),
        1 => (0usize..3).prop_map(Deed::Restart),
        1 => (0usize..3).prop_map(Deed::Pause),
        1 => (0usize..3, 0usize..3).prop_map(|(from, to)| Deed::Cut(from, to)),
        1 => Just(Deed::Heal),
        4 => (1u64..400).prop_map(Deed::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Safety phase: anything happens. Then the network is healed, and within a bounded time all nodes must agree.
    #[test]
    fn announcements_agree_once_the_network_is_whole(
        seed in any::<u64>(),
        lost in 0u64..60,
        doubled in 0u64..40,
        delay_ms in 1u64..150,
        deeds in prop::collection::vec(deed(), 1..60),
    ) {
        let names = [ALPHA, BETA, GAMMA];
        let mut net = Net::settled(&names);
        net.seed(seed);
        (net.lost_percent, net.doubled_percent, net.delay_up_to) = (lost, doubled, ms(delay_ms));
        let mut lives = [1u64; 3];
        for deed in deeds {
            match deed {
                Deed::Announce(at, of, epoch) => net.announce(names[at], &format!("service-{of}"), epoch),
                Deed::Withdraw(at, of) => {
                    net.at(names[at], |c, now| c.withdraw(now, &hierarchy(&format!("service-{of}"))));
                }
                Deed::Restart(at) => {
                    lives[at] += 1;
                    net.start(names[at], lives[at]);
                }
                Deed::Pause(at) => {
                    net.stop(names[at]);
                    net.run_for(ms(1_700));
                    net.go_on(names[at]);
                }
                Deed::Cut(from, to) => net.cut(names[from], names[to]),
                Deed::Heal => net.heal(),
                Deed::Wait(length) => net.run_for(ms(length)),
            }
        }
        net.heal();
        net.run_for(ms(5_000));
        for at in names {
            for of in names.into_iter().filter(|of| *of != at) {
                prop_assert_eq!(net.state(at, of), PeerState::Alive);
                let peer = net.contact(at).peer(&node(of)).unwrap();
                prop_assert!(peer.synced());
                let heard: Vec<_> = peer.announcements().map(|(name, it)| (name.clone(), it.clone())).collect();
                prop_assert_eq!(heard, net.contact(of).told.announcements());
            }
        }
    }
}
