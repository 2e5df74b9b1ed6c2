//! What operators ask for, from any node.

use super::*;

fn moved(to: &str) -> Ask {
    Ask::Move { hierarchy: hier("web"), to: Some(node(to)) }
}

#[test]
fn a_switchover_moves_and_pins_and_does_not_bounce() {
    let mut cluster = Cluster::serving(3);
    cluster.forget_events();
    let asked = cluster.now;
    cluster.accepted(BETA, moved(GAMMA));
    cluster.until("gamma serves", |c| c.serves(GAMMA, "web"));
    assert!(cluster.now.since(asked) < ms(200), "no wait for a lease: {:?}", cluster.now.since(asked));
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [GAMMA]);
    let seen = [
        "pinned to gamma, by root@test",
        "alpha says: stopping: moved by root@test",
        "alpha says: out of service: moved by root@test",
        "gamma says: starting",
        "gamma says: in service, epoch 2",
    ];
    assert_eq!(cluster.events(BETA, "web"), seen);
    for name in [ALPHA, BETA, GAMMA] {
        assert_eq!(cluster.entry(name, "web").directive.pin, Some(node(GAMMA)));
    }
    cluster.accepted(ALPHA, Ask::Unpin { hierarchy: hier("web") });
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [GAMMA], "an unpin moves nothing");
}

#[test]
fn a_pin_ends_with_the_failure_of_its_node() {
    let mut cluster = Cluster::serving(3);
    cluster.accepted(ALPHA, moved(GAMMA));
    cluster.until("gamma serves", |c| c.serves(GAMMA, "web"));
    cluster.run(secs(5));
    cluster.power_off(GAMMA);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.power_on(GAMMA);
    cluster.run(secs(60));
    assert_eq!(cluster.places("web"), [ALPHA], "{}", cluster.picture());
    assert_eq!(cluster.entry(GAMMA, "web").directive.pin, None);
}

#[test]
fn a_switchover_to_where_it_cannot_go_changes_nothing() {
    let mut cluster = Cluster::serving(3);
    cluster.accepted(GAMMA, Ask::Standby);
    cluster.run(secs(1));
    cluster.forget_events();
    let said = cluster.refused(BETA, moved(GAMMA));
    assert!(said.contains("gamma cannot take web: it is in standby"), "{said}");
    let said = cluster.refused(BETA, moved("delta"));
    assert!(said.contains("there is no node \"delta\" in the cluster: expected one of alpha, beta, gamma"), "{said}");
    cluster.power_off(GAMMA);
    cluster.run(secs(3));
    let said = cluster.refused(ALPHA, moved(GAMMA));
    assert!(said.contains("not in contact"), "{said}");
    assert_eq!(cluster.events(ALPHA, "web"), [""; 0]);
    let said = cluster.refused(ALPHA, Ask::Stop { hierarchy: hier("wbe") });
    assert_eq!(said, "there is no hierarchy \"wbe\" on alpha: expected one of web; did you mean `web`?");
}

#[test]
fn a_command_for_another_node_is_carried_there() {
    let mut cluster = Cluster::serving(3);
    let id = cluster.command(GAMMA, Some(ALPHA), Ask::Standby);
    cluster.until("answered", |c| c.answer(GAMMA, id).is_some());
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert!(cluster.machines[&node(ALPHA)].standby.is_some());
    let id = cluster.command(GAMMA, Some(ALPHA), Ask::View);
    cluster.until("answered", |c| c.answer(GAMMA, id).is_some());
    assert!(matches!(cluster.answer(GAMMA, id), Some(Ok(Reply::View(view))) if view.node == node(ALPHA)));
    let id = cluster.command(GAMMA, Some("omega"), Ask::View);
    assert!(matches!(cluster.answer(GAMMA, id), Some(Err(Refused::UnknownNode { .. }))));
}

#[test]
fn a_command_to_a_node_that_dies_is_answered_all_the_same() {
    let mut cluster = Cluster::serving(2);
    cluster.power_off(ALPHA);
    let id = cluster.command(BETA, Some(ALPHA), Ask::View);
    cluster.until("answered", |c| c.answer(BETA, id).is_some());
    assert!(matches!(cluster.answer(BETA, id), Some(Err(Refused::NoAnswer { .. }))));
    cluster.run(secs(3));
    let id = cluster.command(BETA, Some(ALPHA), Ask::View);
    assert!(matches!(cluster.answer(BETA, id), Some(Err(Refused::NotNow(_)))));
}

#[test]
fn standby_hands_over_and_online_takes_nothing_back() {
    let mut cluster = Cluster::serving(2);
    cluster.accepted(ALPHA, Ask::Standby);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.accepted(BETA, Ask::Standby);
    cluster.run(secs(30));
    assert_eq!(cluster.places("web"), [BETA], "nobody else can serve: it stays");
    cluster.accepted(ALPHA, Ask::Online);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.accepted(BETA, Ask::Online);
    cluster.run(secs(30));
    assert_eq!(cluster.places("web"), [ALPHA]);
}

#[test]
fn stopped_everywhere_until_started() {
    let mut cluster = Cluster::serving(2);
    cluster.accepted(BETA, Ask::Stop { hierarchy: hier("web") });
    cluster.until("it is stopped", |c| c.phase(ALPHA, "web") == AnnouncedPhase::Out);
    cluster.power_off(ALPHA);
    cluster.power_on(ALPHA);
    cluster.run(secs(30));
    assert_eq!(cluster.places("web"), [""; 0], "the wish outlives a boot");
    assert!(cluster.why(ALPHA, "web").contains("`ha start web` ends that"));
    cluster.accepted(BETA, Ask::Start { hierarchy: hier("web") });
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
}

#[test]
fn in_maintenance_nothing_is_touched() {
    let mut cluster = Cluster::serving(2);
    cluster.accepted(BETA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::On });
    cluster.run(secs(15));
    cluster.machines.get_mut(&node(ALPHA)).unwrap().parts.remove(&(hier("web"), ResourceName::new("server").unwrap()));
    cluster.forget_events();
    cluster.run(secs(60));
    assert_eq!(cluster.events(ALPHA, "web"), [""; 0], "the administrator may stop what they like");
    cluster.accepted(ALPHA, Ask::Standby);
    cluster.run(secs(5));
    assert_eq!(cluster.places("web"), [ALPHA]);
    cluster.accepted(ALPHA, Ask::Online);
    cluster.forget_events();
    cluster.accepted(BETA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::Off });
    cluster.until("it is seen and repaired", |c| {
        c.events(ALPHA, "web").iter().any(|e| e.contains("server started")) && c.serves(ALPHA, "web")
    });
}

#[test]
fn maintenance_that_begins_during_a_start_holds_it_and_its_end_goes_on() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("alpha starts", |c| c.phase(ALPHA, "web") == AnnouncedPhase::Starting);
    cluster.accepted(ALPHA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::On });
    cluster.run(secs(30));
    assert!(!cluster.events(ALPHA, "web").iter().any(|e| e.contains("server started")));
    cluster.accepted(BETA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::Off });
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
}

#[test]
fn a_drained_node_hands_over_says_goodbye_and_ends() {
    let mut cluster = Cluster::serving(2);
    cluster.accepted(ALPHA, Ask::Drain);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.until("alpha may end", |c| c.machines[&node(ALPHA)].drained);
    cluster.kill_agent(ALPHA);
    cluster.run(secs(30));
    assert_eq!(cluster.places("web"), [BETA]);
}

#[test]
fn the_last_node_that_is_drained_stops_in_order() {
    let mut cluster = Cluster::serving(1);
    cluster.accepted(ALPHA, Ask::Drain);
    cluster.until("alpha may end", |c| c.machines[&node(ALPHA)].drained);
    assert!(cluster.machines[&node(ALPHA)].parts.is_empty());
    assert_eq!(cluster.truths[&hier("web")].holder, None);
}

#[test]
fn after_a_partition_the_last_word_is_heard_by_all() {
    let mut cluster = Cluster::serving(3);
    cluster.cut_all();
    cluster.run(secs(3));
    cluster.accepted(ALPHA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::On });
    cluster.accepted(GAMMA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::On });
    cluster.accepted(GAMMA, Ask::Stop { hierarchy: hier("web") });
    cluster.heal();
    cluster.run(secs(3));
    let wished = cluster.entry(GAMMA, "web").directive.clone();
    assert!(wished.stopped && wished.serial == 2);
    for name in [ALPHA, BETA] {
        assert_eq!(cluster.entry(name, "web").directive, wished);
        assert_eq!(cluster.machines[&node(name)].lasting[&hier("web")].directive, wished);
    }
}

#[test]
fn two_words_of_one_serial_settle_on_one() {
    let mut cluster = Cluster::serving(2);
    cluster.cut_all();
    cluster.run(secs(3));
    cluster.accepted(ALPHA, Ask::Stop { hierarchy: hier("web") });
    cluster.accepted(BETA, Ask::Maintenance { hierarchy: hier("web"), switch: Switch::On });
    cluster.heal();
    cluster.run(secs(3));
    assert_eq!(cluster.entry(ALPHA, "web").directive, cluster.entry(BETA, "web").directive);
    assert_eq!(cluster.entry(ALPHA, "web").directive.author, Some(node(BETA)));
}
