//! The simulation checked: every deliberate mistake of this protocol is found, within so many seeds.

use super::world::{Plan, run};
use crate::mutation::Mutation;

/// More seeds than this are not tried.
const MOST: u64 = 400;

/// The least seed that finds each, when this was last looked at.
const KNOWN: [(Mutation, u64); 8] = [
    (Mutation::PreemptWithoutChallenge, 1),
    (Mutation::IgnoreDefence, 1),
    (Mutation::NeverDefend, 1),
    (Mutation::FightBack, 22),
    (Mutation::StayRegistered, 126),
    (Mutation::ArbiterFirst, 3),
    (Mutation::TrustPlainPreempt, 2),
    (Mutation::KeepKey, 104),
];

fn finds(mutation: Mutation, seed: u64) -> Option<String> {
    let _on = mutation.switch_on();
    run(&Plan::of(seed)).err()
}

#[test]
fn every_deliberate_mistake_is_found() {
    let mut missed = Vec::new();
    for (mutation, known) in KNOWN {
        let found = std::iter::once(known).chain(1..=MOST).find_map(|seed| Some((seed, finds(mutation, seed)?)));
        match found {
            Some((seed, what)) => println!("{mutation:?}: seed {seed}: {what}"),
            None => missed.push(mutation),
        }
    }
    for (_, seed) in KNOWN {
        assert_eq!(run(&Plan::of(seed)).err(), None, "what they are found by does not cry wolf");
    }
    assert!(missed.is_empty(), "not found within {MOST} seeds: {missed:?}");
}
