//! The checkers checked: every deliberate mistake of [`crate::mutation`] is found by a campaign, within so many seeds.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use super::{Plan, Size, Telling};
use crate::mutation::Mutation;
use crate::sim::Violation;

/// More seeds than this are not tried.
const MOST: u64 = 150;

fn size() -> Size {
    Size { nodes: 1..=3, hierarchies: 1..=3, trouble: Duration::from_secs(60) }
}

/// Whether a seed finds a mutation, and what it finds.
fn finds(mutation: Mutation, seed: u64) -> Option<Violation> {
    let _on = mutation.switch_on();
    Plan::new(seed, &size()).run(Telling::Verdict).violation
}

/// The first seed that finds a mutation, and what it found; the one that found it last time is asked first.
fn found(mutation: Mutation, known: u64) -> Option<(u64, Violation)> {
    std::iter::once(known).chain(1..=MOST).find_map(|seed| Some((seed, finds(mutation, seed)?)))
}

/// The least seed that finds each, when this was last looked at.
const KNOWN: [(Mutation, u64); 18] = [
    (Mutation::TakeWithoutWaiting, 1),
    (Mutation::CountUnacknowledgedRenewal, 48),
    (Mutation::ForgetDecided, 1),
    (Mutation::TellWatchdogNothing, 2),
    (Mutation::ReuseEpoch, 1),
    (Mutation::ReleaseBeforeStopping, 1),
    (Mutation::StartWithoutClaim, 1),
    (Mutation::StartOutOfOrder, 1),
    (Mutation::StopOutOfOrder, 1),
    (Mutation::OverstayLease, 2),
    (Mutation::ForgetFormerTenure, 10),
    (Mutation::RestartInsteadOfAdopting, 2),
    (Mutation::NeverAskAgain, 10),
    (Mutation::PreemptWithoutChallenge, 37),
    (Mutation::IgnoreDefence, 37),
    (Mutation::NeverDefend, 37),
    (Mutation::TrustPlainPreempt, 37),
    (Mutation::TakeOrderForProof, 97),
];

#[test]
fn every_deliberate_mistake_is_found() {
    let (waiting, missed) = (Mutex::new(KNOWN.to_vec()), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap().pop();
    // The switch belongs to a thread.
    let work = || {
        while let Some((mutation, known)) = next() {
            match found(mutation, known) {
                Some((seed, violation)) => println!("{mutation:?}: seed {seed}: {violation}"),
                None => missed.lock().unwrap().push(mutation),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within {MOST} seeds: {missed:?}");
}

/// What the mutations are found by does not cry wolf.
#[test]
fn without_a_mistake_the_same_seeds_find_nothing() {
    let seeds: BTreeSet<u64> = KNOWN.iter().map(|(_, seed)| *seed).collect();
    for seed in seeds {
        assert_eq!(Plan::new(seed, &size()).run(Telling::Verdict).violation, None, "seed {seed}");
    }
}
