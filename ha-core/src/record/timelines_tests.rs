//! Timelines of made-up events.

use std::time::Duration;

use super::{Cause, Event, Fault, Happened, Timelines};
use crate::contact::AnnouncedPhase;
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::record::FencingNews;
use crate::time::Time;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn event(at: u64, what: Happened) -> Event {
    Event { at: Time(at * 1_000_000), hierarchy: Some(HierarchyName::new("web").unwrap()), what }
}

fn candidate(before: Option<(&str, u64)>) -> Happened {
    let fault = before.map(|(_, at)| Time(at * 1_000_000));
    Happened::Candidate { before: before.map(|(name, _)| node(name)), fault, why: "none is left".to_owned() }
}

fn out() -> Happened {
    Happened::Phase { phase: AnnouncedPhase::Out, why: "behind gamma".to_owned(), disturbance: None }
}

#[test]
fn an_attempt_that_was_given_up_is_no_part_of_the_next_recovery() {
    let mut timelines = Timelines::new(node("alpha"));
    timelines.observe(&event(10, candidate(None)));
    timelines.observe(&event(20, out()));
    timelines.observe(&event(900, candidate(Some(("gamma", 800)))));
    let in_service = Happened::InService { epoch: Epoch(6), adopted: false };
    let finished = timelines.observe(&event(940, in_service)).unwrap();
    assert_eq!(finished.cause, Cause::Failover { from: node("gamma"), fault: Fault::Silent });
    assert_eq!((finished.t_detect().as_millis(), finished.t_recover().as_millis()), (100, 40));
}

#[test]
fn what_repeats_itself_is_counted_and_what_is_long_is_cut_in_the_middle() {
    let mut timelines = Timelines::new(node("alpha"));
    timelines.observe(&event(0, candidate(None)));
    let trouble = |what: String| Happened::Trouble { what };
    for at in 1..=1_000 {
        timelines.observe(&event(at, trouble("no answer".to_owned())));
    }
    for at in 1_001..=1_200 {
        timelines.observe(&event(at, trouble(format!("attempt {at}"))));
    }
    let in_service = Happened::InService { epoch: Epoch(1), adopted: false };
    let text = timelines.observe(&event(2_000, in_service)).unwrap().to_string();
    assert!(text.contains("+1.0 ms  no answer (999 more of these)"), "{text}");
    assert!(text.contains("(139 steps are left out here)"), "{text}");
    assert!(text.contains("attempt 1001") && text.contains("attempt 1200") && !text.contains("attempt 1100"), "{text}");
    assert!(text.ends_with("+2000.0 ms  in service, epoch 1\n"), "{text}");
}

#[test]
fn a_pause_of_this_node_is_told_once_whatever_follows() {
    let mut timelines = Timelines::new(node("alpha"));
    timelines.observe(&event(0, Happened::InService { epoch: Epoch(3), adopted: false }));
    let pause = Happened::TimeGap { gap: Duration::from_secs(4) };
    timelines.observe(&Event { at: Time(9_000_000_000), hierarchy: None, what: pause });
    assert_eq!(timelines.finished().last().unwrap().what(), "nothing moved, in service on alpha all the time");
    timelines.observe(&event(9_100, Happened::ClaimLost { why: "taken over by beta".to_owned() }));
    let peer =
        Happened::Peer { peer: node("beta"), phase: AnnouncedPhase::InService, epoch: Epoch(4), disturbance: None };
    let entry = timelines.observe(&event(9_200, peer)).unwrap().clone();
    assert_eq!((entry.what().as_str(), entry.fault), ("failover from alpha to beta", Time(5_000_000_000)));
    assert_eq!(timelines.finished().count(), 2, "with the first start");
}

#[test]
fn what_another_node_said_of_an_earlier_tenure_disturbs_nothing() {
    let mut timelines = Timelines::new(node("alpha"));
    timelines.observe(&event(0, Happened::InService { epoch: Epoch(5), adopted: false }));
    let peer =
        Happened::Peer { peer: node("beta"), phase: AnnouncedPhase::Stopping, epoch: Epoch(4), disturbance: None };
    assert_eq!(timelines.observe(&event(10, peer)), None);
    assert_eq!(timelines.ongoing().count(), 0);
}

#[test]
fn the_fencing_of_the_node_that_had_it_is_a_step_of_its_recovery() {
    let mut timelines = Timelines::new(node("beta"));
    let of_node = |at: u64, what: Happened| Event { hierarchy: None, ..event(at, what) };
    let served =
        Happened::Peer { peer: node("alpha"), phase: AnnouncedPhase::InService, epoch: Epoch(1), disturbance: None };
    timelines.observe(&event(0, served));
    timelines.observe(&of_node(900, Happened::ContactLost { peer: node("alpha"), last_heard: Time(400 * 1_000_000) }));
    for name in ["alpha", "gamma"] {
        let news = FencingNews::Proven { begun: Time(0), how: format!("switch of {name} says off") };
        timelines.observe(&of_node(2_000, Happened::Fencing { node: node(name), news }));
    }
    let in_service = Happened::InService { epoch: Epoch(2), adopted: false };
    let text = timelines.observe(&event(2_100, in_service)).unwrap().to_string();
    assert!(text.contains("+1600.0 ms  alpha is fenced, proven to be off: switch of alpha says off"), "{text}");
    assert!(!text.contains("gamma"), "{text}");
}
