//! The first starts and the plain takeovers.

use super::*;

#[test]
fn the_preferred_node_serves_first() {
    let mut cluster = Cluster::new([web("web", &[BETA, ALPHA])]);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("web is in service", |c| !c.places("web").is_empty());
    assert_eq!(cluster.places("web"), [BETA]);
    assert!(cluster.now < Time::ZERO + secs(3), "nobody waits for the grace when all are heard: {}", cluster.now);
}

#[test]
fn a_node_that_starts_alone_serves_after_the_grace() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA, GAMMA])]);
    for name in [ALPHA, BETA, GAMMA] {
        cluster.machines.insert(node(name), Machine::default());
    }
    cluster.power_on(GAMMA);
    cluster.run(secs(14));
    assert_eq!(cluster.places("web"), [""; 0], "the others may be starting as well");
    cluster.until("gamma serves", |c| c.serves(GAMMA, "web"));
}

#[test]
fn after_a_loss_of_power_the_next_in_rank_takes_over() {
    let mut cluster = Cluster::serving(3);
    let off = cluster.now;
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    let took = cluster.now.since(off);
    assert!(took < secs(1) + LEASE + ms(200), "dead_after, the rest of the lease, and the starts: {took:?}");
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [BETA]);
}

#[test]
fn a_node_that_comes_back_takes_nothing() {
    let mut cluster = Cluster::serving(2);
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.power_on(ALPHA);
    cluster.forget_events();
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [BETA]);
    assert_eq!(cluster.events(BETA, "web"), [""; 0]);
}

#[test]
fn the_last_of_five_serves_without_any_communication() {
    let mut cluster = Cluster::serving(5);
    for (dead, next) in NAMES.iter().zip(&NAMES[1..]) {
        cluster.power_off(dead);
        cluster.until("the next serves", |c| c.serves(next, "web"));
    }
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), ["epsilon"]);
}

#[test]
fn with_all_networks_cut_nothing_moves_while_the_claim_is_defended() {
    let mut cluster = Cluster::serving(3);
    cluster.cut_all();
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [ALPHA]);
    assert_eq!(cluster.phase(BETA, "web"), AnnouncedPhase::Waiting);
    cluster.heal();
    cluster.run(secs(20));
    assert_eq!(cluster.places("web"), [ALPHA]);
    assert_eq!(cluster.phase(BETA, "web"), AnnouncedPhase::Out, "{}", cluster.why(BETA, "web"));
}

#[test]
fn a_holder_that_loses_its_storage_stops_before_its_lease_ends() {
    let mut cluster = Cluster::serving(2);
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert_ne!(cluster.phase(ALPHA, "web"), AnnouncedPhase::InService);
    cluster.heal();
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [BETA]);
    assert_eq!(cluster.phase(ALPHA, "web"), AnnouncedPhase::Out, "{}", cluster.why(ALPHA, "web"));
}

#[test]
fn a_single_node_that_lost_its_storage_serves_again_when_it_is_back() {
    let mut cluster = Cluster::serving(1);
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.until("alpha has stopped", |c| c.machines[&node(ALPHA)].parts.is_empty());
    cluster.run(secs(5));
    cluster.heal();
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
}

#[test]
fn a_killed_agent_that_starts_again_adopts_what_runs() {
    let mut cluster = Cluster::serving(2);
    cluster.forget_events();
    cluster.kill_agent(ALPHA);
    cluster.run(ms(200));
    cluster.start_agent(ALPHA);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [ALPHA]);
    let events = cluster.events(ALPHA, "web");
    assert!(!events.iter().any(|e| e.contains("started") || e.contains("stopped")), "{events:#?}");
}
