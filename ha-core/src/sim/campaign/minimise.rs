//! Making a plan that fails smaller, as long as it fails in the same way.

use std::sync::Arc;

use super::{Plan, Telling};
use crate::sim::{Invariant, Moment};

/// A smaller plan that violates the same invariant: fewer actions, an earlier end, fewer hierarchies. Tries at most so many runs.
///
/// Delta debugging (Zeller & Hildebrandt, TSE 2002), in pieces of halving size.
pub fn minimise(plan: &Plan, runs: usize) -> Plan {
    let mut best = plan.clone();
    let Some(invariant) = violated(&best) else { return best };
    let mut left = runs;
    let mut fails = |plan: &Plan| {
        left = left.saturating_sub(1);
        left > 0 && violated(plan) == Some(invariant)
    };
    if let Some(violation) = best.run(Telling::Verdict).violation
        && violation.at < best.heal_at
    {
        best.actions.retain(|(at, _)| *at <= violation.at);
    }
    let mut piece = best.actions.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shrunk = false;
        while from < best.actions.len() {
            let to = (from + piece).min(best.actions.len());
            let mut fewer = best.clone();
            fewer.actions.drain(from..to);
            if fails(&fewer) {
                best = fewer;
                shrunk = true;
            } else {
                from = to;
            }
        }
        if piece == 1 && !shrunk {
            break;
        }
        piece = if shrunk { piece } else { piece.div_ceil(2).max(1) }.min(best.actions.len().max(1));
    }
    for i in (0..best.setup.hierarchies.len()).rev() {
        let mut fewer = best.clone();
        let setup = Arc::make_mut(&mut fewer.setup);
        if setup.hierarchies.len() == 1 {
            break;
        }
        setup.hierarchies.remove(i);
        if fails(&fewer) {
            best = fewer;
        }
    }
    let last = best.actions.last().map_or(Moment::BEGIN, |(at, _)| *at);
    let mut sooner = best.clone();
    sooner.heal_at = last + std::time::Duration::from_secs(1);
    if fails(&sooner) { sooner } else { best }
}

fn violated(plan: &Plan) -> Option<Invariant> {
    plan.run(Telling::Verdict).violation.map(|violation| violation.invariant)
}
