//! Who is in contact, and when contact is lost.

use super::*;

#[test]
fn nodes_that_start_together_do_not_wait_for_the_grace_to_end() {
    let mut net = Net::new(&[ALPHA, BETA, GAMMA]);
    for name in [ALPHA, BETA, GAMMA] {
        net.start(name, 1);
        net.run_for(ms(30));
    }
    net.run_for(ms(20));
    for (at, of) in [(ALPHA, BETA), (BETA, ALPHA), (GAMMA, ALPHA), (ALPHA, GAMMA)] {
        assert_eq!(net.state(at, of), PeerState::Alive, "{of} at {at}");
    }
    assert!(net.machines.values().all(|machine| machine.contact.settled()));
}

#[test]
fn a_node_alone_in_its_cluster_is_settled_at_once() {
    let contact = Contact::new(config(ALPHA, &[ALPHA]), Incarnation(1), Time::ZERO).unwrap();
    assert!(contact.settled());
}

#[test]
fn a_peer_never_heard_is_unknown_until_the_grace_is_over() {
    let mut net = Net::new(&[ALPHA, BETA]);
    net.start(ALPHA, 1);
    net.run_for(ms(14_999));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Unknown);
    assert!(!net.contact(ALPHA).settled());
    net.run_for(ms(1));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Lost { since: Time::ZERO });
    assert!(net.contact(ALPHA).settled());
    assert_eq!(net.machine(ALPHA).events, [ContactEvent::Lost { peer: node(BETA), since: Time::ZERO }]);
}

#[test]
fn a_dead_peer_is_late_and_then_lost_exactly_when_its_time_is_over() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.kill(BETA);
    net.run_for(ms(2_000));
    let last = net.contact(ALPHA).peer(&node(BETA)).unwrap().last_heard().unwrap();
    assert_eq!(
        net.machine(ALPHA).events,
        [ContactEvent::Late { peer: node(BETA) }, ContactEvent::Lost { peer: node(BETA), since: last }]
    );
    assert!(!net.contact(ALPHA).in_contact(&node(BETA)));
}

#[test]
fn contact_is_lost_dead_after_the_last_beat_and_not_later() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.kill(BETA);
    net.run_until("beta is lost", |net| !net.contact(ALPHA).in_contact(&node(BETA)));
    let last = net.contact(ALPHA).peer(&node(BETA)).unwrap().last_heard().unwrap();
    assert_eq!(net.now.since(last), ms(1_000));
}

#[test]
fn one_channel_is_enough() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.cut_channel("net-a");
    net.run_for(ms(5_000));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Alive);
    assert_eq!(net.machine(ALPHA).events, []);
    net.heal();
    net.run_for(ms(200));
    let peer = net.contact(ALPHA).peer(&node(BETA)).unwrap();
    let outages: Vec<_> = peer.channels().map(|(name, view)| (name.clone(), view.outages)).collect();
    assert_eq!(outages, [(channel("net-a"), 1), (channel("net-b"), 0)]);
}

#[test]
fn a_peer_that_another_one_hears_is_not_lost() {
    let mut net = Net::settled(&[ALPHA, BETA, GAMMA]);
    net.cut_both_ways(ALPHA, BETA);
    net.run_for(ms(5_000));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Late);
    assert!(net.contact(ALPHA).in_contact(&node(BETA)));
    assert_eq!(net.contact(ALPHA).peer(&node(BETA)).unwrap().hearsay().unwrap().0, &node(GAMMA));
    net.kill(BETA);
    net.run_for(ms(1_000) + net.contact(ALPHA).config.timing.interval * 2);
    assert!(!net.contact(ALPHA).in_contact(&node(BETA)), "hearsay of a dead peer ends as contact does");
}

#[test]
fn the_word_of_a_witness_that_is_lost_itself_does_not_count() {
    let mut net = Net::settled(&[ALPHA, BETA, GAMMA]);
    net.cut_both_ways(ALPHA, BETA);
    net.run_for(ms(3_000));
    net.kill(GAMMA);
    net.run_for(ms(1_200));
    assert!(!net.contact(ALPHA).in_contact(&node(GAMMA)));
    assert!(!net.contact(ALPHA).in_contact(&node(BETA)), "nobody is left who hears it");
}

#[test]
fn hearsay_goes_one_hop_and_no_further() {
    // A line: alpha - beta - gamma - delta. Alpha knows of gamma through beta, but nothing of delta.
    let mut net = Net::settled(&[ALPHA, BETA, GAMMA, "delta"]);
    net.cut_both_ways(ALPHA, GAMMA);
    net.cut_both_ways(ALPHA, "delta");
    net.cut_both_ways(BETA, "delta");
    net.run_for(ms(5_000));
    assert!(net.contact(ALPHA).in_contact(&node(GAMMA)));
    assert!(!net.contact(ALPHA).in_contact(&node("delta")));
}

#[test]
fn one_way_loss_leaves_the_deaf_node_with_hearsay_only() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.cut(BETA, ALPHA);
    net.run_for(ms(2_000));
    assert!(!net.contact(ALPHA).in_contact(&node(BETA)));
    assert_eq!(net.state(BETA, ALPHA), PeerState::Alive);
    net.heal();
    net.run_for(ms(200));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Alive);
}

#[test]
fn goodbye_is_believed_at_once_even_if_two_of_three_are_lost() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.cut(BETA, ALPHA);
    net.at(BETA, Contact::goodbye);
    net.run_for(ms(30));
    net.heal();
    net.run_for(ms(30));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Left);
    assert_eq!(net.machine(ALPHA).events, [ContactEvent::Left { peer: node(BETA) }]);
    assert_eq!(net.contact(BETA).next_deadline(), None, "everything is said");
    net.kill(BETA);
    net.run_for(ms(5_000));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Left, "and it stays so");
    net.start(BETA, 2);
    net.run_for(ms(50));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Alive);
}

#[test]
fn beats_that_were_on_their_way_do_not_undo_a_goodbye() {
    let mut contact = Contact::new(config(ALPHA, &[ALPHA, BETA]), Incarnation(1), Time::ZERO).unwrap();
    let beat =
        |sequence| Message::Beat(Beat { sequence, boot: BootId([2; 16]), version: 0, peers: vec![knows(ALPHA, 1)] });
    let net = channel("net-a");
    contact.received(at_ms(1), &net, &node(BETA), Incarnation(5), beat(1));
    contact.received(at_ms(2), &net, &node(BETA), Incarnation(5), Message::Goodbye);
    contact.received(at_ms(3), &net, &node(BETA), Incarnation(5), beat(2));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Left);
    contact.received(at_ms(4), &net, &node(BETA), Incarnation(6), beat(1));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Alive);
}

#[test]
fn what_was_recorded_before_this_node_started_does_not_bring_a_dead_peer_to_life() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    let recorded = net.sent.clone();
    net.kill(ALPHA);
    net.kill(BETA);
    net.start(ALPHA, 2);
    for (to, channel, datagram) in recorded {
        net.replay(&to, &channel, &datagram);
    }
    net.run_for(ms(500));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Unknown);
    net.start(BETA, 2);
    net.run_for(ms(1));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Alive, "an answer takes one round trip");
}

#[test]
fn a_restart_of_the_agent_is_told_from_a_boot_of_the_machine() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.kill(BETA);
    net.start(BETA, 2);
    net.run_for(ms(50));
    assert_eq!(net.machine(ALPHA).events[0], ContactEvent::Restarted { peer: node(BETA), rebooted: false });
    net.kill(BETA);
    net.run_for(ms(3_000));
    net.machine(ALPHA).events.clear();
    net.start_booted(BETA, 3, BootId([9; 16]));
    net.run_for(ms(50));
    assert_eq!(net.machine(ALPHA).events[0], ContactEvent::Restarted { peer: node(BETA), rebooted: true });
    assert!(matches!(net.machine(ALPHA).events[1], ContactEvent::Alive { after: Some(_), .. }));
}

#[test]
fn a_node_that_was_stopped_itself_does_not_call_the_others_dead() {
    let mut net = Net::settled(&[ALPHA, BETA, GAMMA]);
    net.stop(ALPHA);
    net.run_for(ms(500));
    net.kill(GAMMA);
    net.run_for(ms(4_500));
    // Its sockets were overrun meanwhile: nothing of what came can be read any more.
    net.machine(ALPHA).waiting.clear();
    net.go_on(ALPHA);
    net.run_for(ms(900));
    let events = net.machine(ALPHA).events.clone();
    assert!(matches!(events[0], ContactEvent::Paused { .. }), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, ContactEvent::Lost { .. })), "{events:?}");
    assert_eq!(net.state(ALPHA, BETA), PeerState::Alive);
    assert!(net.contact(ALPHA).in_contact(&node(GAMMA)));
    net.run_for(ms(200));
    assert!(!net.contact(ALPHA).in_contact(&node(GAMMA)), "the dead one had one dead_after more, and no more");
    let gaps = net.contact(ALPHA).peer(&node(BETA)).unwrap().channels().map(|(_, view)| view.longest_gap).max();
    assert!(gaps < Some(ms(300)), "the pause does not count as a gap of the network: {gaps:?}");
}

#[test]
fn a_short_hiccup_is_not_a_pause() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.stop(ALPHA);
    net.run_for(ms(400));
    net.go_on(ALPHA);
    net.run_for(ms(100));
    assert_eq!(net.machine(ALPHA).events, []);
}

#[test]
fn a_slot_that_beats_on_storage_keeps_a_peer_in_contact() {
    let storage = channel("lock-area.main");
    let mut config = config(ALPHA, &[ALPHA, BETA]);
    config.channels.insert(storage.clone(), ChannelTiming { late_after: ms(3_000), dead_after: ms(6_000) });
    let mut contact = Contact::new(config, Incarnation(1), Time::ZERO).unwrap();
    contact.heard_on_storage(at_ms(50), &storage, &node(BETA), at_ms(40));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Alive);
    run(&mut contact, at_ms(3_039));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Alive);
    run(&mut contact, at_ms(6_039));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Late);
    // The same beat seen again is no news.
    contact.heard_on_storage(at_ms(6_039), &storage, &node(BETA), at_ms(40));
    run(&mut contact, at_ms(6_040));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Lost { since: at_ms(40) });
    contact.heard_on_storage(at_ms(7_000), &storage, &node(BETA), at_ms(7_000));
    contact.left_on_storage(at_ms(7_010), &storage, &node(BETA));
    assert_eq!(contact.peer(&node(BETA)).unwrap().state(), PeerState::Left);
}

#[test]
fn leaving_the_storage_is_not_leaving_while_the_network_is_heard() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    let storage = channel("lock-area.main");
    net.at(ALPHA, |contact, now| contact.heard_on_storage(now, &storage, &node(BETA), now));
    net.at(ALPHA, |contact, now| contact.left_on_storage(now, &storage, &node(BETA)));
    net.run_for(ms(1_000));
    assert_eq!(net.state(ALPHA, BETA), PeerState::Alive);
}

#[test]
fn a_goodbye_of_long_ago_on_the_storage_does_not_make_a_silent_peer_one_that_left() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    let storage = channel("lock-area.main");
    let read_slot = |net: &mut Net| net.at(ALPHA, |c, now| c.left_on_storage(now, &storage, &node(BETA)));
    read_slot(&mut net);
    net.at(ALPHA, |contact, now| contact.heard_on_storage(now, &storage, &node(BETA), now));
    read_slot(&mut net);
    net.run_for(ms(300));
    net.kill(BETA);
    for _ in 0..20 {
        net.run_for(ms(100));
        read_slot(&mut net);
    }
    assert!(matches!(net.state(ALPHA, BETA), PeerState::Lost { .. }));
}

#[test]
fn a_gap_that_was_tight_is_reported_and_kept() {
    let mut net = Net::settled(&[ALPHA, BETA]);
    net.cut(BETA, ALPHA);
    net.run_for(ms(750));
    net.heal();
    net.run_for(ms(200));
    let gaps = net.machine(ALPHA).events.iter().filter(|e| matches!(e, ContactEvent::Gap { .. })).count();
    assert_eq!(gaps, 2, "one on each channel");
    let longest = net.contact(ALPHA).peer(&node(BETA)).unwrap().channels().map(|(_, view)| view.longest_gap).min();
    assert!(longest > Some(ms(700)) && longest < Some(ms(1_000)), "{longest:?}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let timing = Timing::default();
    assert_eq!(timing.check(), Ok(()));
    let refused = |timing: Timing| timing.check().unwrap_err().to_string();
    let short = refused(Timing { dead_after: ms(299), late_after: ms(200), ..timing });
    assert_eq!(
        short,
        "dead_after of the cluster is 299ms: expected at least three intervals (300ms), since single datagrams are lost \
         on healthy networks"
    );
    assert!(matches!(Timing { late_after: ms(1_000), ..timing }.check(), Err(ContactConfigError::LateAfter { .. })));
    assert!(matches!(Timing { interval: ms(0), ..timing }.check(), Err(ContactConfigError::Interval(_))));
    assert!(matches!(
        Timing { startup_grace: ms(999), ..timing }.check(),
        Err(ContactConfigError::StartupGrace { .. })
    ));
    let stranger = Contact::new(config("delta", &[ALPHA, BETA]), Incarnation(1), Time::ZERO).unwrap_err();
    assert_eq!(stranger, ContactConfigError::NotANode(node("delta")));
}

/// Lets time pass at a node that hears nothing.
fn run(contact: &mut Contact, until: Time) {
    while let Some(due) = contact.next_deadline().filter(|due| *due <= until) {
        contact.handle_timeout(due);
        while contact.poll_transmit().is_some() {}
    }
}
