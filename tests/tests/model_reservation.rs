//! The reservation's machine in every interleaving, within bounds: see `ha_core::sim::model::reservation` for what is checked.
//!
//! The counts of states are pinned: a change of the protocol, or of the model, shows in them. Larger bounds:
//! `HA_MODEL=large cargo test --release -p ha-tests --test model_reservation -- --nocapture --test-threads 1`.

use std::time::Instant;

use ha_core::sim::model::explore::explore;
use ha_core::sim::model::reservation::{Bounds, Kind, ReservationModel, Start};

/// Memory for about so many states is there.
const MOST: usize = 80_000_000;

/// Goes through all states within `bounds` and compares their number with the one that is pinned.
fn all(bounds: Bounds, expected: usize) {
    let begun = Instant::now();
    let mut model = ReservationModel::new(bounds);
    let explored = explore(&mut model, MOST).unwrap_or_else(|e| panic!("{bounds:?}\n{e}"));
    let ((machines, disks), alone) = (model.parts(), model.longest_alone);
    println!(
        "{explored}, {:.1?}; {machines} states of one machine, {disks} of the disk, alone after {alone} steps: {bounds:?}",
        begun.elapsed()
    );
    assert!(model.acquired > 0, "somebody acquires the claim");
    assert_eq!(explored.states, expected, "{bounds:?}: another number of states: {explored}");
}

const TWO: Bounds = Bounds::TWO_NODES;

const HELD: Bounds = Bounds { start: Start::Held, ..TWO };
/// Two challengers of one holder, which is asked for nothing.
const THREE: Bounds = Bounds { nodes: 3, asks: [0, 1, 1], ..HELD };

#[test]
fn two_nodes_race_for_a_free_claim() {
    all(TWO, 1_291);
    all(Bounds { target: Kind::Tgt, ..TWO }, 1_454);
    all(Bounds { start: Start::Blank, ..TWO }, 1_897);
}

#[test]
fn a_claim_is_released_challenged_and_taken_again() {
    all(Bounds { asks: [2; 3], ..HELD }, 21_742);
}

#[test]
fn a_node_loses_power_or_its_agent_dies_between_any_two_commands() {
    all(Bounds { crashes: 1, ..TWO }, 6_114);
    all(Bounds { crashes: 1, start: Start::Blank, ..TWO }, 8_046);
    all(Bounds { crashes: 1, ..HELD }, 8_482);
    all(Bounds { crashes: 1, target: Kind::Tgt, ..HELD }, 16_532);
}

#[test]
fn a_command_of_an_earlier_life_comes_late() {
    all(Bounds { asks: [2, 1, 0], crashes: 1, ..HELD }, 64_818);
}

#[test]
fn commands_are_lost_or_carried_out_without_an_answer_or_late() {
    all(Bounds { failures: 1, ..TWO }, 9_323);
    all(Bounds { failures: 1, ..HELD }, 9_445);
    all(Bounds { failures: 1, target: Kind::Tgt, ..HELD }, 10_162);
    all(Bounds { failures: 1, crashes: 1, ..HELD }, 57_775);
}

#[test]
fn time_passes_while_a_command_or_its_answer_is_on_its_way() {
    all(Bounds { delays: 1, ..HELD }, 49_904);
    all(Bounds { delays: 1, target: Kind::Tgt, ..HELD }, 42_780);
}

#[test]
fn two_challenge_a_living_holder() {
    all(THREE, 4_146);
    all(Bounds { target: Kind::Tgt, ..THREE }, 5_844);
}

#[test]
fn larger_bounds() {
    if !std::env::var("HA_MODEL").is_ok_and(|m| m == "large") {
        println!("SKIPPED: larger bounds are for HA_MODEL=large and a release build");
        return;
    }
    LARGE.iter().for_each(|(bounds, expected)| all(*bounds, *expected));
}

const LARGE: &[(Bounds, usize)] = &[
    (Bounds { asks: [2, 2, 1], crashes: 1, ..HELD }, 284_125),
    (Bounds { asks: [2, 1, 1], crashes: 2, ..HELD }, 196_673),
    (Bounds { asks: [2, 2, 1], crashes: 1, target: Kind::Tgt, ..HELD }, 590_522),
    (Bounds { asks: [2, 2, 1], crashes: 2, late: false, ..HELD }, 633_752),
    (Bounds { failures: 1, delays: 1, ..HELD }, 184_036),
    (Bounds { crashes: 1, ..THREE }, 71_528),
    (Bounds { nodes: 3, ..TWO }, 315_643),
];
