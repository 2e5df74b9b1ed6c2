//! The lock area's machine in every interleaving, within bounds: see `ha_core::sim::model::lock_area` for what is checked.
//!
//! The counts of states are pinned: a change of the protocol, or of the model, shows in them. Larger bounds:
//! `HA_MODEL=large cargo test --release -p ha-tests --test model_lock_area -- --nocapture --test-threads 1`.

use std::time::Instant;

use ha_core::sim::model::explore::{Ended, Violation, explore};
use ha_core::sim::model::lock_area::{Bounds, Flaw, LockAreaModel};

/// Memory for about so many states is there.
const MOST: usize = 80_000_000;

/// Goes through all states within `bounds` and compares their number with the one that is pinned.
fn all(bounds: Bounds, expected: usize) {
    assert_eq!(states(bounds), expected, "{bounds:?}: another number of states");
}

fn states(bounds: Bounds) -> usize {
    let begun = Instant::now();
    let mut model = LockAreaModel::new(bounds);
    let explored = explore(&mut model, MOST).unwrap_or_else(|e| panic!("{bounds:?}\n{e}"));
    let (machines, blocks) = model.parts();
    let alone = model.longest_alone;
    println!(
        "{explored}, {:.0?}; {machines} states of one machine, {blocks} blocks, alone after {alone} steps: {bounds:?}",
        begun.elapsed()
    );
    assert!(model.acquired > 0, "somebody acquires the claim");
    explored.states
}

/// The shortest way to a violation.
fn violation(bounds: Bounds) -> Violation {
    let mut model = LockAreaModel::new(bounds);
    match explore(&mut model, 3_000_000) {
        Err(Ended::Violation(violation)) => {
            println!("{bounds:?}\n{violation}");
            violation
        }
        other => panic!("{bounds:?}: no violation was found: {other:?}"),
    }
}

const TWO: Bounds = Bounds::TWO_NODES;

#[test]
fn two_nodes_take_release_and_inherit_a_claim() {
    all(Bounds { tries: [2; 3], ..TWO }, 16_884);
}

#[test]
fn two_nodes_race_to_name_a_record_and_take_it() {
    all(Bounds { named: false, ..TWO }, 13_367);
}

#[test]
fn a_node_is_reset_or_its_agent_dies_between_any_two_transfers() {
    all(Bounds { crashes: 1, torn: true, ..TWO }, 34_027);
}

#[test]
fn two_crashes_with_writes_lost_landed_or_late() {
    all(Bounds { crashes: 2, ..TWO }, 130_509);
}

#[test]
fn two_crashes_with_writes_lost_landed_or_torn() {
    all(Bounds { crashes: 2, late: false, torn: true, ..TWO }, 122_327);
}

#[test]
fn a_lease_runs_out_and_the_node_comes_back() {
    all(Bounds { lapses: 1, ..TWO }, 36_489);
}

#[test]
fn transfers_are_not_answered() {
    all(Bounds { failures: 1, ..TWO }, 70_776);
}

#[test]
fn three_nodes_race() {
    all(Bounds { nodes: 3, rounds: 0, heirs: false, ..TWO }, 42_677);
}

#[test]
fn larger_bounds() {
    if !std::env::var("HA_MODEL").is_ok_and(|m| m == "large") {
        println!("SKIPPED: larger bounds are for HA_MODEL=large and a release build");
        return;
    }
    let counted: Vec<usize> = LARGE.iter().map(|(bounds, _)| states(*bounds)).collect();
    let expected: Vec<usize> = LARGE.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(counted, expected, "other numbers of states");
}

const LARGE: &[(Bounds, usize)] = &[
    (Bounds { tries: [3; 3], ..TWO }, 112_500),
    (Bounds { tries: [2; 3], lapses: 1, ..TWO }, 607_489),
    (Bounds { crashes: 1, lapses: 1, ..TWO }, 329_167),
    (Bounds { crashes: 2, torn: true, ..TWO }, 170_587),
    (Bounds { nodes: 3, rounds: 0, heirs: false, crashes: 1, ..TWO }, 587_765),
    (Bounds { tries: [2; 3], crashes: 1, late: false, torn: true, ..TWO }, 676_595),
    (Bounds { tries: [2; 3], crashes: 1, ..TWO }, 2_345_888),
];

/// A search that cannot fail proves nothing: each rule that is broken must be found.
#[test]
fn every_broken_rule_is_found() {
    let flaws = [
        (Flaw::OneCopy, Bounds { tries: [2; 3], crashes: 1, torn: true, ..TWO }, 21),
        (Flaw::NoExpiry, TWO, 22),
        (Flaw::StaleSight, Bounds { tries: [2; 3], lapses: 1, ..TWO }, 24),
        (Flaw::BallotsIgnored, TWO, 20),
        (Flaw::AcceptedIgnored, TWO, 20),
        (Flaw::DecidedForgotten, Bounds { tries: [2; 3], ..TWO }, 21),
        (Flaw::NoJump, Bounds { tries: [2; 3], crashes: 1, ..TWO }, 26),
        (Flaw::LapseForgotten, Bounds { lapses: 1, ..TWO }, 24),
        (Flaw::ReleaseWhileRunning, Bounds { tries: [2; 3], ..TWO }, 34),
    ];
    for (flaw, bounds, steps) in flaws {
        let found = violation(Bounds { liveness: false, flaw: Some(flaw), ..bounds });
        println!("{flaw:?} {} {}", found.story.len(), found.states);
        assert_eq!(found.story.len(), steps, "steps to the violation:\n{found}");
    }
}
