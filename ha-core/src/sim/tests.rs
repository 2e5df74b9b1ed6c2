//! The simulator itself: that what is done to the cluster happens, and that nodes answer it as they do on real machines.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::claim::lock_area::LeaseTiming;
use crate::contact::Timing;
use crate::engine::Ask;
use crate::hierarchy::{Hierarchy, Policy, ResourceBuilder};
use crate::name::{ChannelName, ClusterName, HierarchyName, NodeName};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn hierarchy(name: &str) -> HierarchyName {
    HierarchyName::new(name).unwrap()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

/// Three nodes, one lock area, and so many hierarchies; the preferred node of each is another one.
fn setup(hierarchies: usize) -> Setup {
    let nodes: Vec<NodeName> = NODES.iter().map(|name| node(name)).collect();
    let timing = LeaseTiming::new(ms(100), ms(800), ms(400), ms(100)).unwrap();
    let of = |i: usize| {
        let mut order = NODES;
        order.rotate_left(i % NODES.len());
        let policy = Policy { forced_stop_within: ms(300), ..Policy::default() };
        let hierarchy = Hierarchy::builder(format!("h{i}"))
            .nodes(order)
            .resource(ResourceBuilder::new("disk"))
            .resource(ResourceBuilder::new("server"))
            .policy(policy)
            .build()
            .unwrap();
        HierarchySetup { hierarchy: Arc::new(hierarchy), claim: ClaimSetup::Lease(0), probed: false }
    };
    Setup {
        cluster: ClusterName::new("shop").unwrap(),
        nodes: nodes
            .iter()
            .zip([0, 4_900, -4_900])
            .map(|(name, clock_ppm)| NodeSetup { name: name.clone(), clock_ppm })
            .collect(),
        hierarchies: (0..hierarchies).map(of).collect(),
        channels: vec![ChannelName::new("net0").unwrap(), ChannelName::new("net1").unwrap()],
        timing: Timing::default(),
        areas: vec![AreaSetup::new("main", nodes, 16.max(hierarchies as u32), timing).unwrap()],
        watchdog: WatchdogSetup::Warden,
        fencing: FencingSetup::Nobody,
        max_recoveries: 8,
    }
}

fn served(world: &World, h: usize) -> Option<&str> {
    world.service(h).last().and_then(|service| service.on).map(|n| world.setup().nodes[n].name.as_str())
}

fn running(hierarchies: usize) -> World {
    let mut world = World::new(Arc::new(setup(hierarchies)), 1);
    world.keep_log();
    world.power_on_all();
    until(&mut world, "all is in service where it is preferred", |w| {
        (0..hierarchies).all(|h| served(w, h) == Some(NODES[h % 3]))
    });
    world
}

fn until(world: &mut World, what: &str, so: impl Fn(&World) -> bool) {
    let reached = world.until(secs(60), so);
    assert!(reached, "{what}: {:?}\n{}", world.violation(), story(world));
}

fn story(world: &World) -> String {
    world.lines().iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_a_dead_node_had_is_taken_over_when_its_lease_is_over() {
    let mut world = running(3);
    let died = world.now();
    world.act(Action::PowerOff(node("alpha")));
    until(&mut world, "beta has it", |w| served(w, 0) == Some("beta"));
    let took = world.now().since(died);
    // Proven dead after 1.3 s of standing still, counted from its last renewal.
    assert!(took > ms(1_100) && took < ms(2_000), "{took:?}\n{}", story(&world));
    assert_eq!((served(&world, 1), served(&world, 2)), (Some("beta"), Some("gamma")));
}

#[test]
fn nothing_moves_when_all_networks_are_cut_and_the_storage_is_there() {
    let mut world = running(3);
    let moved = world.stats().acquired;
    world.act(Action::CutAll);
    world.run_until(world.now() + secs(60));
    assert_eq!(world.violation(), None, "{}", story(&world));
    assert_eq!(world.stats().acquired, moved);
    assert_eq!((served(&world, 0), served(&world, 1), served(&world, 2)), (Some("alpha"), Some("beta"), Some("gamma")));
}

#[test]
fn storage_that_is_lost_keeps_nobody_busy() {
    let mut world = running(3);
    for name in NODES {
        world.act(Action::Storage(node(name), Path::Lost));
    }
    world.run_until(world.now() + secs(20));
    let before = world.stats().events;
    world.run_until(world.now() + secs(60));
    let events = world.stats().events - before;
    assert!(events < 100_000, "{events} events in a minute in which nothing can be done");
    assert_eq!(world.violation(), None, "{}", story(&world));
}

#[test]
fn the_last_node_serves_everything() {
    let mut world = running(3);
    world.act(Action::CutAll);
    for name in ["alpha", "gamma"] {
        world.act(Action::PowerOff(node(name)));
    }
    until(&mut world, "beta has all", |w| (0..3).all(|h| served(w, h) == Some("beta")));
}

#[test]
fn an_agent_that_is_killed_and_started_again_interrupts_nothing() {
    let mut world = running(3);
    let since = world.service(0).last().unwrap().from;
    for _ in 0..20 {
        world.act(Action::KillAgent(node("alpha")));
        world.run_until(world.now() + ms(30));
        world.act(Action::StartAgent(node("alpha")));
        world.run_until(world.now() + secs(2));
    }
    assert_eq!(world.violation(), None, "{}", story(&world));
    assert_eq!(world.service(0).last().map(|s| s.from), Some(since), "{}", story(&world));
}

#[test]
fn a_hung_agent_loses_what_it_serves_to_the_warden_and_then_to_others() {
    let mut world = running(3);
    world.act(Action::PauseAgent(node("alpha")));
    until(&mut world, "beta has it", |w| served(w, 0) == Some("beta"));
    world.act(Action::ResumeAgent(node("alpha")));
    world.run_until(world.now() + secs(20));
    assert_eq!(world.violation(), None, "{}", story(&world));
}

#[test]
fn a_frozen_machine_is_reset_by_its_watchdog_device() {
    let mut plan = setup(3);
    let timing = LeaseTiming::new(ms(100), ms(800), secs(1), ms(100)).unwrap();
    plan.areas[0].header.timing = timing;
    plan.watchdog = WatchdogSetup::Device { timeout: secs(1) };
    let mut world = World::new(Arc::new(plan), 3);
    world.keep_log();
    world.power_on_all();
    until(&mut world, "all is served", |w| (0..3).all(|h| served(w, h).is_some()));
    world.act(Action::Freeze(node("beta")));
    until(&mut world, "gamma has it", |w| served(w, 1) == Some("gamma"));
    assert!(world.stats().resets >= 1);
    assert_eq!(world.violation(), None, "{}", story(&world));
}

#[test]
fn a_switchover_leaves_no_gap_in_which_others_race() {
    let mut world = running(3);
    let ask = Ask::Move { hierarchy: hierarchy("h0"), to: Some(node("gamma")) };
    world.act(Action::Ask { at: node("beta"), to: None, ask });
    until(&mut world, "gamma has it", |w| served(w, 0) == Some("gamma"));
    assert_eq!(world.stats().takeovers, 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(Arc::new(setup(3)), seed);
        world.keep_log();
        world.power_on_all();
        world.act(Action::Weather(Weather { lost: 100, doubled: 20, delay: ms(20) }));
        world.run_until(Moment::BEGIN + secs(30));
        (story(&world), world.stats())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
