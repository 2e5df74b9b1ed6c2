//! Mistakes in production code, switched on: the search must find each of them.

use super::{Bounds, Kind, ReservationModel, Start};
use crate::mutation::Mutation;
use crate::sim::model::explore::{Ended, explore};

const TWO: Bounds = Bounds { liveness: false, ..Bounds::TWO_NODES };
const HELD: Bounds = Bounds { start: Start::Held, ..TWO };

#[test]
fn every_mutation_is_found() {
    let lost = "has lost the claim although it was there to defend it";
    let mutations = [
        (Mutation::PreemptWithoutChallenge, HELD, lost),
        (Mutation::IgnoreDefence, HELD, lost),
        (Mutation::NeverDefend, HELD, lost),
        (Mutation::StayRegistered, TWO, "registered still"),
        (Mutation::KeepKey, Bounds { crashes: 1, asks: [2, 1, 0], ..HELD }, lost),
        (Mutation::TrustPlainPreempt, Bounds { target: Kind::Tgt, failures: 2, ..HELD }, "may be in the device"),
    ];
    for (mutation, bounds, what) in mutations {
        let on = mutation.switch_on();
        let ended = explore(&mut ReservationModel::new(bounds), 3_000_000);
        drop(on);
        let Err(Ended::Violation(found)) = ended else { panic!("{mutation:?}: no violation was found: {ended:?}") };
        println!("{mutation:?}, {} steps: {found}", found.story.len());
        assert!(found.what.contains(what), "{mutation:?}: {found}");
    }
}
