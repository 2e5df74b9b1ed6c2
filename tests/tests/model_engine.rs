//! Two engines with one hierarchy in every interleaving, within bounds: see `ha_core::sim::model::engine` for what is checked.
//!
//! The counts of states are pinned: a change of mastership, recovery or the engine, or of the model, shows in them. Larger bounds:
//! `HA_MODEL=large cargo test --release -p ha-tests --test model_engine -- --nocapture --test-threads 1`.

use std::time::Instant;

use ha_core::sim::model::engine::{Bounds, EngineModel, Flaw};
use ha_core::sim::model::explore::{Ended, Violation, explore};

/// Memory for about so many states is there.
const MOST: usize = 80_000_000;

/// Goes through all states within `bounds` and compares their number with the one that is pinned.
fn all(bounds: Bounds, expected: usize) {
    assert_eq!(states(bounds), expected, "{bounds:?}: another number of states");
}

fn states(bounds: Bounds) -> usize {
    let begun = Instant::now();
    let mut model = EngineModel::new(bounds);
    let explored = explore(&mut model, MOST).unwrap_or_else(|e| panic!("{bounds:?}\n{e}"));
    let (engines, healed) = (model.parts(), model.longest_healing);
    println!(
        "{explored}, {:.0?}; {engines} states of one node, at rest after {healed} steps: {bounds:?}",
        begun.elapsed()
    );
    assert!(model.served > 0, "it is in service somewhere");
    explored.states
}

fn large() -> bool {
    std::env::var("HA_MODEL").is_ok_and(|m| m == "large")
}

const QUIET: Bounds = Bounds::QUIET;

#[test]
fn two_nodes_begin_and_hear_of_each_other_late_or_not_at_all() {
    all(QUIET, 2_511);
    all(Bounds { silences: 1, ..QUIET }, 10_491);
}

#[test]
fn an_operator_asks_for_anything_at_any_time() {
    all(Bounds { commands: 1, ..QUIET }, 192_919);
}

#[test]
fn a_node_loses_power_or_its_agent_dies_at_any_time() {
    all(Bounds { crashes: 1, ..QUIET }, 67_816);
}

#[test]
fn an_operation_fails_or_a_claim_does_not_answer() {
    all(Bounds { failures: 1, ..QUIET }, 275_673);
}

#[test]
fn a_tenure_ends_because_it_cannot_be_proven() {
    all(Bounds { lapses: 1, ..QUIET }, 53_283);
}

#[test]
fn answers_arrive_later_than_what_they_say_was_so() {
    all(Bounds { late_answers: true, ..QUIET }, 18_520);
}

#[test]
fn a_chain_of_two_resources_is_kept_in_order() {
    all(Bounds { resources: 2, lapses: 1, ..QUIET }, 85_234);
}

#[test]
fn larger_bounds() {
    if !large() {
        println!("SKIPPED: larger bounds are for HA_MODEL=large and a release build");
        return;
    }
    let counted: Vec<usize> = LARGE.iter().map(|(bounds, _)| states(*bounds)).collect();
    let expected: Vec<usize> = LARGE.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(counted, expected, "other numbers of states");
}

const LARGE: &[(Bounds, usize)] = &[
    (Bounds { silences: 1, crashes: 1, ..QUIET }, 272_559),
    (Bounds { late_answers: true, lapses: 1, ..QUIET }, 1_035_077),
    (Bounds { silences: 1, crashes: 1, lapses: 1, ..QUIET }, 5_631_639),
];

/// A search that cannot fail proves nothing: each rule that is broken must be found.
#[test]
fn every_broken_rule_is_found() {
    let flaws = [
        (Flaw::ClaimGivenTwice, QUIET, "S1", 5),
        (Flaw::NoWatchdog, Bounds { lapses: 1, ..QUIET }, "S1", 7),
        (Flaw::OldTenure, Bounds { late_answers: true, ..QUIET }, "S2", 4),
        (Flaw::StartLies, Bounds { resources: 2, failures: 1, ..QUIET }, "S3", 3),
        (Flaw::StopLies, Bounds { commands: 1, ..QUIET }, "S5", 4),
        (Flaw::NoRetry, Bounds { failures: 1, ..QUIET }, "L4", 3),
    ];
    for (flaw, bounds, invariant, steps) in flaws {
        let bounds = Bounds { flaw: Some(flaw), liveness: invariant == "L4", lapses: 1, ..bounds };
        let found = violation(bounds);
        assert!(found.what.starts_with(invariant), "{found}");
        assert_eq!(found.story.len(), steps, "steps to the violation:\n{found}");
    }
}

/// The shortest way to a violation.
fn violation(bounds: Bounds) -> Violation {
    match explore(&mut EngineModel::new(bounds), 3_000_000) {
        Err(Ended::Violation(violation)) => {
            println!("{bounds:?}\n{violation}");
            violation
        }
        other => panic!("{bounds:?}: no violation was found: {other:?}"),
    }
}
