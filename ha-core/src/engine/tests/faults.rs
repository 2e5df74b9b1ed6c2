//! Resources, probes and definitions that fail.

use super::*;
use crate::hierarchy::{Failback, Rank};

#[test]
fn a_crash_is_repaired_in_place_with_what_requires_it() {
    let mut cluster = Cluster::serving(2);
    cluster.forget_events();
    let why = "exit status 1".to_owned();
    let vip = ResourceName::new("vip").unwrap();
    cluster.input(ALPHA, Input::WatchFired { hierarchy: hier("web"), resource: vip, why });
    cluster.until("in service again", |c| c.serves(ALPHA, "web"));
    let started: Vec<String> =
        cluster.events(ALPHA, "web").into_iter().filter(|e| e.contains("started") || e.contains("stopped")).collect();
    assert_eq!(
        started,
        ["server stopped in 10.0ms", "vip stopped in 10.0ms", "vip started in 20.0ms", "server started in 20.0ms"]
    );
}

#[test]
fn what_fails_again_and_again_fails_over_and_stays_there() {
    let mut cluster = Cluster::serving(2);
    cluster.fails(ALPHA, "server", Operation::Monitor);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert!(cluster.events(ALPHA, "web").iter().any(|e| e.starts_with("left to others for 10m")));
    cluster.mend();
    cluster.run(secs(700));
    assert_eq!(cluster.places("web"), [BETA]);
    assert_eq!(cluster.entry(ALPHA, "web").life.declined, None);
}

#[test]
fn where_it_does_not_start_the_next_node_tries() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    cluster.fails(ALPHA, "server", Operation::Start);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert!(cluster.now < Time::ZERO + secs(4));
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [BETA]);
}

#[test]
fn what_starts_nowhere_is_quarantined_on_the_third_node_until_cleared() {
    let mut cluster = Cluster::new([web("web", &NAMES)]);
    cluster.fails("*", "server", Operation::Start);
    cluster.power_on_all(&NAMES);
    cluster.until("every node knows", |c| NAMES.iter().all(|n| c.entry(n, "web").directive.quarantined.is_some()));
    cluster.run(secs(60));
    let tried = cluster.started_order.iter().map(|(n, _)| n.clone()).collect::<BTreeSet<_>>();
    assert_eq!(tried.len(), 3, "{tried:?}");
    assert!(cluster.machines.values().all(|m| m.parts.is_empty()));
    cluster.mend();
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [""; 0]);
    cluster.accepted("epsilon", Ask::Clear { hierarchy: hier("web") });
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [ALPHA]);
}

#[test]
fn three_nodes_are_enough_for_a_quarantine() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA, GAMMA])]);
    cluster.fails("*", "server", Operation::Start);
    cluster.power_on_all(&[ALPHA, BETA, GAMMA]);
    cluster.until("gamma knows", |c| c.entry(GAMMA, "web").directive.quarantined.is_some());
}

#[test]
fn with_nobody_else_it_is_tried_here_for_ever() {
    let mut cluster = Cluster::new([web("web", &[ALPHA])]);
    cluster.fails(ALPHA, "server", Operation::Start);
    cluster.power_on_all(&[ALPHA]);
    cluster.run(secs(300));
    let tries = cluster.events(ALPHA, "web").iter().filter(|e| e.contains("server failed")).count();
    assert!((6..20).contains(&tries), "with longer and longer pauses: {tries}");
    cluster.mend();
    cluster.until("it serves", |c| c.serves(ALPHA, "web"));
}

#[test]
fn utility_zero_hands_over_only_where_somebody_can_serve() {
    let mut cluster = Cluster::serving(2);
    let measured = |utility| Input::Measured { hierarchy: hier("web"), utility, facts: "gateway".to_owned() };
    cluster.input(BETA, measured(Utility::NONE));
    cluster.run(secs(2));
    cluster.input(ALPHA, measured(Utility::NONE));
    cluster.run(secs(10));
    assert_eq!(cluster.places("web"), [ALPHA]);
    cluster.input(BETA, measured(Utility::FULL));
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.power_off(BETA);
    cluster.run(secs(30));
    assert_eq!(cluster.places("web"), [""; 0], "{}", cluster.why(ALPHA, "web"));
}

#[test]
fn failback_waits_and_returns_once() {
    let mut hierarchy = web("web", &[ALPHA, BETA]);
    hierarchy.policy.failback = Failback::Auto { after: secs(30) };
    let mut cluster = Cluster::new([hierarchy]);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.power_on(ALPHA);
    cluster.run(secs(28));
    assert_eq!(cluster.places("web"), [BETA]);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.forget_events();
    cluster.run(secs(120));
    assert_eq!(cluster.events(ALPHA, "web"), [""; 0]);
}

#[test]
fn small_changes_of_utility_move_nothing() {
    let mut hierarchy = web("web", &[ALPHA, BETA]);
    hierarchy.policy.rank = Rank::Utility { margin: 20, spread: None };
    hierarchy.policy.failback = Failback::Auto { after: secs(1) };
    let mut cluster = Cluster::new([hierarchy]);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    let measured = |points| Input::Measured {
        hierarchy: hier("web"),
        utility: Utility::new(points).unwrap(),
        facts: "load".to_owned(),
    };
    for points in [85, 95, 81, 99] {
        cluster.input(ALPHA, measured(points));
        cluster.run(secs(5));
        assert_eq!(cluster.places("web"), [ALPHA]);
    }
    cluster.input(ALPHA, measured(50));
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
}

#[test]
fn a_definition_that_differs_is_not_served_and_said() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    let mut other = web("web", &[ALPHA, BETA]);
    other.fingerprint = Fingerprint(2);
    cluster.odd.insert((node(BETA), hier("web")), other);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(2));
    let why = cluster.why(BETA, "web");
    assert!(why.contains("alpha serves it, and defines it differently: compare the files of both nodes"), "{why}");
    let said = cluster.refused(ALPHA, Ask::Move { hierarchy: hier("web"), to: Some(node(BETA)) });
    assert!(said.contains("it defines the hierarchy differently"), "{said}");
}

#[test]
fn an_heir_that_dies_is_not_waited_for() {
    let mut cluster = Cluster::serving(3);
    cluster.act(ALPHA, "*", "disk", Operation::Stop, Act::After(secs(3), Outcome::Good));
    cluster.accepted(ALPHA, Ask::Move { hierarchy: hier("web"), to: Some(node(BETA)) });
    let asked = cluster.now;
    cluster.power_off(BETA);
    cluster.run(secs(2));
    assert_eq!(cluster.phase(ALPHA, "web"), AnnouncedPhase::Stopping);
    cluster.until("alpha serves again", |c| c.serves(ALPHA, "web"));
    assert!(
        cluster.now.since(asked) < ms(3200),
        "the dead heir is not handed the claim: {:?}",
        cluster.now.since(asked)
    );
    cluster.run(secs(30));
    assert_eq!(cluster.places("web"), [ALPHA]);
}

#[test]
fn a_stop_that_cannot_be_ended_keeps_the_claim() {
    let mut cluster = Cluster::serving(2);
    cluster.fails(ALPHA, "disk", Operation::Stop);
    cluster.fails(ALPHA, "disk", Operation::Kill);
    cluster.accepted(ALPHA, Ask::Standby);
    cluster.run(secs(20));
    assert_eq!(cluster.phase(ALPHA, "web"), AnnouncedPhase::StopFailed);
    assert_eq!(cluster.places("web"), [""; 0]);
    assert!(cluster.machines[&node(ALPHA)].resets.is_empty());
    cluster.mend();
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
}

#[test]
fn a_node_that_can_be_reset_is_when_a_stop_cannot_be_ended() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    for name in [ALPHA, BETA] {
        cluster.machines.insert(node(name), Machine { can_reset: true, ..Machine::default() });
    }
    cluster.power_on(ALPHA);
    cluster.power_on(BETA);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.fails(ALPHA, "disk", Operation::Stop);
    cluster.fails(ALPHA, "disk", Operation::Kill);
    cluster.accepted(ALPHA, Ask::Standby);
    cluster.until("alpha is to be reset", |c| !c.machines[&node(ALPHA)].resets.is_empty());
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
}

#[test]
fn a_recovery_is_told_as_a_timeline() {
    let mut cluster = Cluster::serving(2);
    cluster.forget_events();
    let off = cluster.now;
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    let mut timelines = crate::record::Timelines::new(node(BETA));
    let finished = cluster.machines[&node(BETA)].events.iter().filter_map(|e| timelines.observe(e).cloned()).last();
    let timeline = finished.expect("one is finished");
    let silent = crate::record::Fault::Silent;
    assert_eq!(timeline.cause, crate::record::Cause::Failover { from: node(ALPHA), fault: silent });
    assert!(timeline.fault <= off && off.since(timeline.fault) <= ms(110), "the last beat before the fault");
    assert!(timeline.t_detect() >= secs(1) && timeline.t_detect() <= ms(1110));
    assert_eq!(timeline.fault + timeline.t_detect() + timeline.t_recover(), cluster.now);
}

/// A node that only looks alive: a call into it never comes back. Others serve, until it does.
#[test]
fn a_node_on_which_a_call_hangs_is_unfit_until_it_comes_back() {
    let mut cluster = Cluster::serving(2);
    cluster.act(ALPHA, "web", "server", Operation::Monitor, Act::Never);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.mend();
    cluster.forget_events();
    cluster.run(secs(3_600));
    assert!(cluster.why(ALPHA, "web").contains("alpha is not ready: server: a call that never came back (monitor)"));
    assert!(cluster.refused(BETA, moved_to_alpha()).contains("it is not ready: server: a call that never came back"));
    assert_eq!(cluster.places("web"), [BETA]);

    let hangs = cluster.machines[&node(ALPHA)].operations.iter().find(|(_, o)| o.2 == Operation::Monitor);
    let op = *hangs.expect("the monitor is out").0;
    cluster.machines.get_mut(&node(ALPHA)).unwrap().operations.remove(&op);
    cluster.input(ALPHA, Input::Operated { hierarchy: hier("web"), op, outcome: Outcome::Good });
    cluster.run(secs(1));
    cluster.accepted(BETA, moved_to_alpha());
    cluster.until("alpha serves again", |c| c.serves(ALPHA, "web"));
}

/// A claim that sees by itself that it is lost is not asked first; what it says of a tenure that is over concerns nobody.
#[test]
fn a_loss_that_the_claim_tells_of_stops_by_force_at_once() {
    let mut cluster = Cluster::serving(1);
    let epoch = cluster.entry(ALPHA, "web").life.held.unwrap().epoch;
    let tell = |cluster: &mut Cluster, epoch, loss| {
        cluster.input(ALPHA, Input::ClaimLost { hierarchy: hier("web"), epoch, loss });
    };
    cluster.forget_events();
    tell(&mut cluster, Epoch(epoch.0 - 1), Loss::Taken("gamma".to_owned()));
    tell(&mut cluster, epoch, Loss::Unproven { why: "nobody answers".to_owned(), proven: None });
    assert!(cluster.serves(ALPHA, "web"));
    assert_eq!(cluster.events(ALPHA, "web"), Vec::<String>::new());

    tell(&mut cluster, epoch, Loss::Taken("gamma".to_owned()));
    assert!(!cluster.entry(ALPHA, "web").life.holds());
    let events = cluster.events(ALPHA, "web");
    assert!(events[0].contains("taken over by gamma"), "{events:?}");
    let killing = |c: &Cluster| c.machines[&node(ALPHA)].operations.values().any(|(_, _, o)| *o == Operation::Kill);
    assert!(killing(&cluster), "in the same moment");
}

/// Two LUNs under one name: each node could hold the one that it reaches, and nobody would notice.
#[test]
fn nodes_that_reach_different_disks_take_nothing_and_say_which() {
    let reaches = |cluster: &mut Cluster, who, size: u64| {
        let (name, identity) = ("/dev/one".to_owned(), format!("naa.6001 of {size} bytes"));
        let storage = vec![crate::claim::Storage { name, identity }];
        cluster.input(who, Input::StandsOn { hierarchy: hier("web"), storage });
    };
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    cluster.power_on_all(&[ALPHA, BETA]);
    reaches(&mut cluster, ALPHA, 1_000);
    reaches(&mut cluster, BETA, 2_000);
    cluster.run(secs(5));
    assert_eq!(cluster.places("web"), Vec::<&str>::new());
    let why = cluster.engine(ALPHA).snapshot(cluster.now).hierarchies[0].unready.clone().unwrap();
    let expected =
        "/dev/one is naa.6001 of 1000 bytes here and naa.6001 of 2000 bytes on beta, which is not the same disk";
    assert!(why.starts_with(expected), "{why}");

    reaches(&mut cluster, BETA, 1_000);
    cluster.until("the names lead to one disk, and it is served", |c| c.places("web").len() == 1);
    reaches(&mut cluster, BETA, 2_000);
    cluster.run(secs(5));
    assert_eq!(cluster.places("web").len(), 1, "what is held is not given up for what another node says");
    cluster.accepted(ALPHA, Ask::Broken { hierarchy: hier("web"), was: "alpha's on /dev/one".to_owned() });
    let broken = cluster.events(ALPHA, "web").into_iter().find(|event| event.contains("broken")).unwrap();
    assert!(broken.contains("which was alpha's on /dev/one"), "{broken}");
}

fn moved_to_alpha() -> Ask {
    Ask::Move { hierarchy: hier("web"), to: Some(node(ALPHA)) }
}

/// The claim said yes, then the whole node stood still for longer than the tenure was good for.
#[test]
fn an_answer_whose_tenure_is_over_starts_nothing() {
    let mut cluster = Cluster::new([web("web", &[ALPHA])]);
    cluster.power_on_all(&[ALPHA]);
    let won = |c: &Cluster| {
        let answers = c.wire.values().filter_map(|(_, _, n)| if let News::Answer(i) = n { Some(i) } else { None });
        answers.into_iter().any(|i| matches!(**i, Input::Acquired { answer: Ok(_), .. }))
    };
    cluster.until("the claim has said yes", won);
    cluster.now = cluster.now + LEASE;
    cluster.step();
    assert_eq!(cluster.machines[&node(ALPHA)].parts, BTreeMap::new(), "nothing was started");
    cluster.until("it is asked for again, and served", |c| c.serves(ALPHA, "web"));
}

/// A claim may answer with hardly any time left: the agent must not work on it for ever at one moment.
#[test]
fn a_tenure_of_no_length_is_lost_like_any_other() {
    for length in [Duration::ZERO, Duration::from_nanos(1)] {
        let mut cluster = Cluster::serving(1);
        let epoch = cluster.entry(ALPHA, "web").life.held.unwrap().epoch;
        cluster.until("it is being proven", |c| c.entry(ALPHA, "web").upholding.is_some());
        let op = cluster.entry(ALPHA, "web").upholding.unwrap();
        cluster.wire.retain(|_, (_, _, n)| !matches!(n, News::Uphold { .. }));
        let tenure = Tenure::Until(cluster.now + length);
        cluster.input(ALPHA, Input::Upheld { hierarchy: hier("web"), op, answer: Ok(tenure) });
        cluster.until("it is served under another tenure", |c| {
            c.serves(ALPHA, "web") && c.entry(ALPHA, "web").life.held.is_some_and(|h| h.epoch >= epoch)
        });
        cluster.run(secs(5));
        assert!(cluster.serves(ALPHA, "web"));
    }
}

#[test]
fn a_claim_that_is_a_nodes_without_its_knowledge_is_found_when_another_waits_for_it() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    // As the storage has it; and for ever, as far as alpha can tell.
    let truth = cluster.truths.entry(hier("web")).or_default();
    (truth.holder, truth.epoch, truth.until) = (Some((node(BETA), Epoch(4))), Epoch(4), Time::ZERO + secs(86_400));
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("it is served", |c| !c.places("web").is_empty());
    assert!(cluster.now < Time::ZERO + secs(30), "{}", cluster.picture());
}

#[test]
fn what_an_operator_stopped_is_handed_to_nobody() {
    let mut cluster = Cluster::serving(2);
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.accepted(ALPHA, Ask::Stop { hierarchy: hier("web") });
    cluster.run(secs(10));
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = false;
    cluster.run(secs(60));
    assert_eq!(cluster.truths[&hier("web")].heir, None);
    cluster.accepted(BETA, Ask::Start { hierarchy: hier("web") });
    cluster.until("it is served", |c| !c.places("web").is_empty());
}

/// Whatever was due meanwhile, monitors above all: a claim that nobody proved for so long comes first, and nothing is asked for or started. A
/// tenure that ended meanwhile is not proven any more: what ran under it is stopped by force first.
#[test]
fn a_node_that_stood_still_proves_its_claims_before_anything_else() {
    let wakes_after = |gap: Duration| {
        let mut cluster = Cluster::serving(2);
        let monitored = |c: &Cluster| c.machines[&node(ALPHA)].operations.values().any(|o| o.2 == Operation::Monitor);
        cluster.until("a round of monitors begins", monitored);
        // The next round is due within any of the gaps.
        cluster.run(ms(9_600));
        assert!(!monitored(&cluster));
        let engine = cluster.machines.get_mut(&node(ALPHA)).unwrap().engine.as_mut().unwrap();
        engine.call(cluster.now + gap, Call::Timeout);
        let effects: Vec<Effect> = std::iter::from_fn(|| engine.poll_effect()).collect();
        let is_gap = |e: &&Effect| matches!(e, Effect::Tell(Event { what: Happened::TimeGap { .. }, .. }));
        assert_eq!(effects.iter().filter(is_gap).count(), 1, "{effects:?}");
        effects
    };
    let operations = |effects: &[Effect]| -> Vec<Operation> {
        let operation = |e: &Effect| if let Effect::Operate { operation, .. } = e { Some(*operation) } else { None };
        effects.iter().filter_map(operation).collect()
    };

    let effects = wakes_after(ms(900));
    let proof = effects.iter().position(|e| matches!(e, Effect::Uphold { .. })).unwrap();
    assert_eq!(operations(&effects[..proof]), [], "{effects:?}");
    assert_eq!(operations(&effects), [Operation::Monitor; 3], "{effects:?}");

    let effects = wakes_after(secs(60));
    assert_eq!(operations(&effects), [Operation::Kill], "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Acquire { .. } | Effect::Uphold { .. })), "{effects:?}");
}
