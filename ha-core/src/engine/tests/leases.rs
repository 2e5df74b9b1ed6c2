//! One node whose claims live on a shared lease.

use super::*;
use crate::claim::{LeaseNews, PeerOnStorage};

/// A cluster of one, whose only hierarchy shares a lease that is driven by hand.
fn on_a_lease() -> Cluster {
    let mut cluster = Cluster::new([web("web", &[ALPHA])]);
    cluster.lease = Some("main".to_owned());
    cluster.power_on_all(&[ALPHA]);
    cluster.run(secs(1));
    cluster
}

fn news(cluster: &mut Cluster, good_for: Option<Duration>, lapsed: u64) {
    let until = good_for.map(|length| cluster.now + length);
    let news = LeaseNews { until, lapsed, peers: BTreeMap::new(), trouble: None };
    cluster.input(ALPHA, Input::Lease { lease: "main".to_owned(), news });
}

fn nothing_runs(cluster: &Cluster) -> bool {
    cluster.machines[&node(ALPHA)].parts.is_empty()
}

#[test]
fn nothing_is_asked_before_the_lease_is_held() {
    let mut cluster = on_a_lease();
    cluster.run(secs(20));
    assert!(nothing_runs(&cluster) && cluster.why(ALPHA, "web").contains("lease main is not held yet"));
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(1));
}

#[test]
fn what_runs_is_stopped_before_a_lease_that_is_not_renewed_ends() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    let end = cluster.now + secs(9);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    assert_eq!(cluster.engine(ALPHA).guarded().collect::<Vec<_>>(), [(&hier("web"), end)]);
    cluster.until("all is stopped", nothing_runs);
    assert!(cluster.now < end, "{} is not before {end}", cluster.now);
    let early = cluster.now.until(end);
    assert!(early <= ms(500), "but not needlessly early: {early:?}");
}

#[test]
fn a_renewed_lease_goes_on() {
    let mut cluster = on_a_lease();
    for _ in 0..30 {
        news(&mut cluster, Some(secs(9)), 0);
        cluster.run(secs(1));
    }
    assert!(cluster.serves(ALPHA, "web"));
    let epoch = cluster.entry(ALPHA, "web").life.held.unwrap().epoch;
    assert_eq!(epoch, Epoch(1));
}

#[test]
fn a_lease_that_lapsed_in_between_proves_nothing_however_good_it_is() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    news(&mut cluster, Some(secs(9)), 1);
    assert_eq!(cluster.phase(ALPHA, "web"), AnnouncedPhase::Stopping);
    cluster.until("it serves again", |c| c.serves(ALPHA, "web"));
}

#[test]
fn a_lease_renewed_while_all_is_stopped_by_force_is_used_again() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    cluster.until("it is being stopped", |c| c.phase(ALPHA, "web") == AnnouncedPhase::Stopping);
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves again", |c| c.serves(ALPHA, "web"));
}

#[test]
fn an_input_after_a_pause_begins_nothing_under_a_tenure_that_has_ended() {
    let mut cluster = on_a_lease();
    cluster.act(ALPHA, "*", "disk", Operation::Start, Act::Never);
    news(&mut cluster, Some(secs(9)), 0);
    cluster.run(ms(100));
    let (op, _) = cluster.machines[&node(ALPHA)].operations.iter().find(|(_, o)| o.1.as_str() == "disk").unwrap();
    let op = *op;
    cluster.now = cluster.now + secs(3600);
    cluster.started_order.clear();
    cluster.input(ALPHA, Input::Operated { hierarchy: hier("web"), op, outcome: Outcome::Good });
    assert!(cluster.started_order.is_empty());
    assert_eq!(cluster.phase(ALPHA, "web"), AnnouncedPhase::Stopping);
}

#[test]
fn a_slot_that_beats_on_the_storage_is_contact() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    cluster.lease = Some("main".to_owned());
    for name in [ALPHA, BETA] {
        cluster.machines.insert(node(name), Machine::default());
    }
    cluster.power_on(ALPHA);
    for _ in 0..30 {
        let now = cluster.now;
        let peers = BTreeMap::from([(node(BETA), PeerOnStorage::Beating { since: now, boot: BootId([1; 16]) })]);
        let news = LeaseNews { until: Some(now + secs(9)), lapsed: 0, peers, trouble: None };
        cluster.input(ALPHA, Input::Lease { lease: "main".to_owned(), news });
        cluster.run(ms(500));
    }
    assert!(cluster.engine(ALPHA).contact.in_contact(&node(BETA)));
}

/// S7: what still runs when the lease is gone stays guarded, to the end that was proven last, until it is stopped.
#[test]
fn what_outlives_its_lease_stays_guarded_until_it_is_stopped() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    let end = cluster.now + secs(9);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    news(&mut cluster, None, 1);
    assert!(!nothing_runs(&cluster));
    assert_eq!(cluster.engine(ALPHA).guarded().collect::<Vec<_>>(), [(&hier("web"), end)]);
    cluster.until("all is stopped", nothing_runs);
    cluster.run(ms(10));
    assert_eq!(cluster.engine(ALPHA).guarded().count(), 0);
}

/// Beta waits for the lease of alpha to be over, in ten minutes.
fn waiting_for_a_lease() -> Cluster {
    let mut cluster = Cluster::new([web("web", &[BETA, ALPHA])]);
    cluster.lease = Some("main".to_owned());
    for name in [ALPHA, BETA] {
        cluster.machines.insert(node(name), Machine::default());
    }
    let held = Some((node(ALPHA), Epoch(7)));
    let until = cluster.now + secs(600);
    cluster.truths.insert(hier("web"), Truth { holder: held, until, epoch: Epoch(7), ..Truth::default() });
    cluster.power_on(BETA);
    slot_shows(&mut cluster, 1);
    // Long enough for alpha to be given up: that is another reason to ask again.
    cluster.run(secs(40));
    assert_eq!(cluster.phase(BETA, "web"), AnnouncedPhase::Waiting);
    cluster.forget_events();
    cluster
}

/// What beta reads in the slot of alpha, which does not change otherwise.
fn slot_shows(cluster: &mut Cluster, boot: u8) {
    let since = Time::ZERO;
    let peers = BTreeMap::from([(node(ALPHA), PeerOnStorage::Beating { since, boot: BootId([boot; 16]) })]);
    let news = LeaseNews { until: Some(since + secs(3600)), lapsed: 0, peers, trouble: None };
    cluster.input(BETA, Input::Lease { lease: "main".to_owned(), news });
}

/// What beta did about the claim.
fn of_the_claim(cluster: &Cluster) -> Vec<String> {
    let events = cluster.events(BETA, "web").into_iter();
    events.filter(|event| event.contains("claim") && !event.starts_with("now")).collect()
}

/// A slot that shows a new boot frees what was held under the earlier one: the claim is asked for then, not when the lease would be over.
#[test]
fn a_new_boot_on_the_storage_ends_the_wait_for_a_lease() {
    let mut cluster = waiting_for_a_lease();
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now;
    cluster.run(secs(30));
    assert_eq!(cluster.events(BETA, "web"), [""; 0], "the same boot as before says nothing new");

    slot_shows(&mut cluster, 2);
    cluster.run(ms(10));
    assert_eq!(of_the_claim(&cluster), ["asking for the claim", "claim held, epoch 8"]);
}

#[test]
fn a_refusal_that_was_on_its_way_when_the_new_boot_was_seen_is_not_waited_upon() {
    let mut cluster = waiting_for_a_lease();
    slot_shows(&mut cluster, 2);
    cluster.run(ms(1));
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now;
    slot_shows(&mut cluster, 3);
    cluster.run(ms(20));
    let refused = "claim refused: held by alpha (epoch 7): its lease is good";
    let expected = ["asking for the claim", refused, "asking for the claim", "claim held, epoch 8"];
    assert_eq!(of_the_claim(&cluster), expected);
}

/// L4: a lease that is about to end is good for nothing new. What was stopped for it is not asked for again and again until it has ended.
#[test]
fn nothing_is_acquired_on_a_lease_that_is_about_to_end() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    cluster.forget_events();
    cluster.run(ms(8_800));
    assert!(nothing_runs(&cluster));
    let events = cluster.events(ALPHA, "web");
    assert!(!events.contains(&"asking for the claim".to_owned()), "{events:#?}");
    assert!(cluster.engine(ALPHA).next_deadline().is_some_and(|at| at > cluster.now));
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves again", |c| c.serves(ALPHA, "web"));
}

/// S7: an agent that restarts while the storage is away does not know whether its claims stand. It ends what runs before the end that its earlier
/// life had proven, which it finds remembered.
#[test]
fn what_a_restarted_agent_cannot_prove_ends_with_the_tenure_of_its_earlier_life() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    let end = cluster.now + secs(9);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    cluster.kill_agent(ALPHA);
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.start_agent(ALPHA);
    assert_eq!(cluster.engine(ALPHA).guarded().collect::<Vec<_>>(), [(&hier("web"), end)]);
    cluster.until("all is stopped", nothing_runs);
    assert!(cluster.now < end, "{} is not before {end}", cluster.now);
}

#[test]
fn a_restarted_agent_has_until_the_end_of_the_lease_to_reach_its_storage() {
    let mut cluster = on_a_lease();
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    let started = cluster.started_order.len();
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now + secs(9);
    cluster.kill_agent(ALPHA);
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.start_agent(ALPHA);
    cluster.run(secs(5));
    assert!(!nothing_runs(&cluster), "{}", cluster.picture());
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = false;
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    assert_eq!(cluster.started_order.len(), started, "{}", cluster.picture());
}

#[test]
fn nothing_begins_on_a_node_that_stood_still_until_its_lease_was_over() {
    let mut cluster = on_a_lease();
    cluster.fails(ALPHA, "server", Operation::Start);
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("it is to be started again after a while", |c| {
        c.events(ALPHA, "web").iter().any(|e| e.contains("trying here again")) && c.wire.is_empty()
    });
    cluster.mend();
    let before = cluster.started_order.len();
    // Nothing happens on the node until long after both the next try and the end of the lease.
    cluster.now = cluster.now + secs(60);
    cluster.step();
    assert_eq!(cluster.started_order.len(), before, "{}", cluster.picture());
    cluster.until("all is stopped", nothing_runs);
}

#[test]
fn a_reload_that_is_the_first_thing_after_a_standstill_starts_nothing_under_a_lease_that_is_over() {
    let mut cluster = Cluster::new([web("mail", &[ALPHA]), web("web", &[ALPHA])]);
    (cluster.lease, cluster.max_recoveries) = (Some("main".to_owned()), 1);
    cluster.act(ALPHA, "mail", "disk", Operation::Start, Act::Never);
    cluster.power_on_all(&[ALPHA]);
    cluster.run(secs(1));
    news(&mut cluster, Some(secs(9)), 0);
    cluster.until("one waits until the other has started", |c| {
        c.phase(ALPHA, "web") == AnnouncedPhase::Starting && c.wire.is_empty()
    });
    let before = cluster.started_order.len();
    cluster.now = cluster.now + secs(60);
    let restart = Call::Restart { hierarchy: hier("web"), resources: vec!["disk".parse().unwrap()] };
    let now = cluster.now;
    cluster.machines.get_mut(&node(ALPHA)).unwrap().engine.as_mut().unwrap().call(now, restart);
    cluster.carry(&node(ALPHA));
    cluster.until("all is stopped", nothing_runs);
    assert_eq!(cluster.started_order.len(), before, "{}", cluster.picture());
}
