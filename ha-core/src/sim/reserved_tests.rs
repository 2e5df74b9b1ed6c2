//! Whole simulated nodes with disks that have reservations: what becomes of a hierarchy, and of what is written to its disks.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::node::ForAgent;
use super::scsi::Target;
use super::*;
use crate::claim::lock_area::LeaseTiming;
use crate::claim::reservation::ReservationTiming;
use crate::contact::Timing;
use crate::engine::Input;
use crate::hierarchy::{Hierarchy, ResourceBuilder};
use crate::name::{ChannelName, ClusterName, HierarchyName, NodeName};
use crate::record::FencingNews;

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn disk(disk: usize, what: ToDisk) -> Action {
    Action::Disk { hierarchy: HierarchyName::new("web").unwrap(), disk, what }
}

/// Three nodes and one hierarchy on two disks, preferred on alpha, in service there.
fn running_on(target: &Target) -> World {
    let nodes = NODES.iter().map(|name| node(name)).collect();
    running_with(target, vec![AreaSetup::new("main", nodes, 16, LeaseTiming::default()).unwrap()])
}

/// The same, with these lock areas, through which nodes hear each other.
fn running_with(target: &Target, areas: Vec<AreaSetup>) -> World {
    let nodes: Vec<NodeName> = NODES.iter().map(|name| node(name)).collect();
    let resource = ResourceBuilder::new;
    let hierarchy = Hierarchy::builder("web").nodes(NODES).resource(resource("disk")).resource(resource("server"));
    let reservation =
        ReservationSetup { disks: vec![target.clone(); 2], timing: ReservationTiming::default(), time_limit: secs(3) };
    let claim = ClaimSetup::Reservation(reservation);
    let setup = Setup {
        cluster: ClusterName::new("shop").unwrap(),
        nodes: nodes.iter().map(|name| NodeSetup { name: name.clone(), clock_ppm: 0 }).collect(),
        hierarchies: vec![HierarchySetup { hierarchy: Arc::new(hierarchy.build().unwrap()), claim, probed: false }],
        channels: vec![ChannelName::new("net0").unwrap()],
        timing: Timing::default(),
        areas,
        watchdog: WatchdogSetup::None,
        fencing: FencingSetup::Nobody,
        max_recoveries: 8,
    };
    let mut world = World::new(Arc::new(setup), 1);
    world.keep_log();
    world.power_on_all();
    until(&mut world, "it is in service on alpha", |w| served(w) == Some("alpha"));
    world
}

fn running() -> World {
    running_on(&Target::lio(NonZeroU16::new(2).unwrap()))
}

fn served(world: &World) -> Option<&str> {
    world.service(0).last().and_then(|service| service.on).map(|n| world.setup().nodes[n].name.as_str())
}

fn story(world: &World) -> String {
    world.lines().iter().map(|line| format!("{line}\n")).collect()
}

fn until(world: &mut World, what: &str, so: impl Fn(&World) -> bool) {
    let reached = world.until(secs(90), so);
    assert!(reached, "{what}: {:?}\n{}", world.violation(), story(world));
}

/// Nothing moves for so long, and nothing is violated.
fn stays(world: &mut World, on: &str, span: Duration) {
    let since = world.service(0).len();
    world.run_until(world.now() + span);
    assert_eq!(world.violation(), None, "{}", story(world));
    assert_eq!((served(world), world.service(0).len()), (Some(on), since), "{}", story(world));
}

#[test]
fn what_a_dead_node_had_is_taken_over_after_a_challenge() {
    let mut world = running();
    let died = world.now();
    world.act(Action::PowerOff(node("alpha")));
    until(&mut world, "beta has it", |w| served(w) == Some("beta"));
    // Lost after a second, challenged for two intervals and one command.
    let took = world.now().since(died);
    assert!(took > secs(5) && took < secs(8), "{took:?}\n{}", story(&world));
    stays(&mut world, "beta", secs(20));
}

#[test]
fn nothing_moves_when_all_networks_are_cut_and_the_disks_are_there() {
    let mut world = running();
    world.act(Action::CutAll);
    stays(&mut world, "alpha", secs(60));
}

#[test]
fn a_machine_that_stood_still_writes_no_more_when_it_goes_on() {
    let mut world = running();
    world.act(Action::Freeze(node("alpha")));
    until(&mut world, "beta has it", |w| served(w) == Some("beta"));
    let before = world.stats().writes;
    world.act(Action::Thaw(node("alpha")));
    stays(&mut world, "beta", secs(30));
    assert!(world.stats().writes > before);
    assert!(world.lines().iter().any(|line| line.text.contains("taken over by")), "{}", story(&world));
}

#[test]
fn a_holder_that_cannot_reach_its_disks_makes_way() {
    let mut world = running();
    world.act(Action::Storage(node("alpha"), Path::Lost));
    until(&mut world, "beta has it", |w| served(w) == Some("beta"));
    world.act(Action::Storage(node("alpha"), Path::Good));
    stays(&mut world, "beta", secs(30));
}

#[test]
fn an_agent_that_is_killed_and_started_again_interrupts_nothing() {
    let mut world = running();
    for _ in 0..10 {
        world.act(Action::KillAgent(node("alpha")));
        world.run_until(world.now() + Duration::from_millis(30));
        world.act(Action::StartAgent(node("alpha")));
        stays(&mut world, "alpha", secs(2));
    }
}

#[test]
fn a_disk_without_memory_that_lost_its_power_is_its_holders_again() {
    for target in [Target::lio, Target::tgt] {
        let mut world = running_on(&target(NonZeroU16::new(2).unwrap()));
        world.act(disk(0, ToDisk::Off));
        world.run_until(world.now() + secs(2));
        world.act(disk(0, ToDisk::On));
        stays(&mut world, "alpha", secs(30));
    }
}

#[test]
fn a_path_that_is_lost_and_comes_back_interrupts_nothing() {
    let mut world = running();
    let path = |way| Action::DiskPath {
        node: node("alpha"),
        hierarchy: HierarchyName::new("web").unwrap(),
        disk: 0,
        port: 1,
        way,
    };
    world.act(path(Way::Down));
    stays(&mut world, "alpha", secs(20));
    world.act(path(Way::Up));
    stays(&mut world, "alpha", secs(20));
}

#[test]
fn lost_answers_a_full_disk_and_a_reset_of_it_interrupt_nothing() {
    let mut world = running();
    for trouble in [
        ToDisk::Reset,
        ToDisk::Answers(Answers::Lost(100)),
        ToDisk::Answers(Answers::Busy(300)),
        ToDisk::Answers(Answers::Full),
    ] {
        world.act(disk(0, trouble));
        stays(&mut world, "alpha", secs(20));
    }
}

/// Two reads together take longer than a defence interval, and each is answered within its limit.
#[test]
fn a_holder_of_slow_disks_keeps_them() {
    let mut world = running();
    world.act(disk(0, ToDisk::Answers(Answers::Late(secs(2)))));
    stays(&mut world, "alpha", secs(60));
}

/// Beta is told that alpha was proven to be off by a fencing that began at this moment of beta's.
fn proven_off(world: &mut World) {
    let begun = world.nodes[1].time(world.now());
    let news = FencingNews::Proven { begun, how: "a device says off".to_owned() };
    world.for_agent(1, ForAgent::Input(Input::Fencing { node: node("alpha"), news }));
}

/// Nodes that hear each other in no way, and a holder that lives and defends its claim; beta has just found that out once more.
fn cut() -> World {
    let mut world = running_with(&Target::lio(NonZeroU16::new(2).unwrap()), Vec::new());
    world.act(Action::CutAll);
    stays(&mut world, "alpha", secs(20));
    let waits = |line: &Line| line.to_string().contains("beta") && line.text.contains("now waiting: held by alpha");
    until(&mut world, "beta waits", |w| w.lines().last().is_some_and(waits));
    world
}

#[test]
fn what_a_fenced_node_had_is_taken_over_without_a_challenge() {
    let mut world = cut();
    world.act(Action::PowerOff(node("alpha")));
    proven_off(&mut world);
    let fenced = world.now();
    until(&mut world, "beta has it", |w| served(w) == Some("beta"));
    let took = world.now().since(fenced);
    assert!(took < secs(1), "{took:?}\n{}", story(&world));
    stays(&mut world, "beta", secs(20));
}

/// Whenever it is switched on again after the proof has ceased to count, heard or not: nothing is taken from it that it holds, and nobody writes
/// beside another.
#[test]
fn a_fenced_node_that_comes_back_finds_all_in_order() {
    for back_after_ms in [2_001, 2_500, 4_000, 8_000, 20_000] {
        for heals in [false, true] {
            let mut world = cut();
            world.act(Action::PowerOff(node("alpha")));
            proven_off(&mut world);
            world.run_until(world.now() + Duration::from_millis(back_after_ms));
            world.act(Action::PowerOn(node("alpha")));
            if heals {
                world.act(Action::HealNetwork);
            }
            until(&mut world, "it is in service", |w| served(w).is_some());
            world.run_until(world.now() + secs(30));
            let Some(place) = served(&world).map(str::to_owned) else { panic!("{}", story(&world)) };
            stays(&mut world, &place, secs(30));
        }
    }
}
