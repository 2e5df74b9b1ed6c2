//! The computed worst case: how long a hierarchy can be out of service after the death of the node that served it.
//!
//! T_restore = T_detect + T_recover (Bottomley, equation 1), with the bounds that the configuration sets.

use std::time::Duration;

use ha_core::claim::lock_area::LeaseTiming;
use ha_core::claim::reservation::device::Queued;
use ha_core::hierarchy::{Hierarchy, ResourceSpec};
use ha_resources::claim::reservation::ReservationSpec;
use serde::Serialize;

use crate::config::Config;

/// The bounds, in milliseconds; all count from the last sign of life of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
pub(crate) struct Bounds {
    /// Contact counts as lost.
    pub(crate) detect_ms: u64,
    /// The dead node's lease is proven to be over; runs beside the detection. Zero for a reservation, which has no end of its own.
    pub(crate) lease_ms: u64,
    /// The claim is taken. For a lease a dozen transfers, one round lost to another node included; for a reservation also the challenge, in
    /// which its holder could have defended it.
    pub(crate) claim_ms: u64,
    /// Every resource has started, or its time is over: the longest chain of time-outs.
    pub(crate) start_ms: u64,
}

impl Bounds {
    /// Until the first resource begins to start.
    pub(crate) fn until_claimed_ms(&self) -> u64 {
        self.detect_ms.max(self.lease_ms) + self.claim_ms
    }
}

/// What a claim's bounds follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClaimTimes<'a> {
    /// The times of a lock area.
    Lease(LeaseTiming),
    /// The times of a reservation, and what its disks do with the commands that a dead holder left in them.
    Reservation(&'a ReservationSpec, Queued),
}

/// As long as a disk needs for a command about reservations, at most, if it works: what arrays need is milliseconds.
const ANSWER: Duration = Duration::from_millis(100);

impl ClaimTimes<'_> {
    /// Until the lease is over, and to take the claim.
    fn bounds(self) -> (Duration, Duration) {
        match self {
            // The slot is read once per renewal: the last change is seen late, and so is its standing still.
            ClaimTimes::Lease(lease) => (lease.expires_after() + lease.renew() * 2, lease.renew() * 2),
            ClaimTimes::Reservation(spec, queued) => {
                let answer = ANSWER.min(spec.time_limit);
                let taken = spec.timing.takeover_bound(spec.time_limit, answer, queued, spec.devices.len());
                (Duration::ZERO, taken)
            }
        }
    }
}

/// Works the bounds out.
pub(crate) fn bounds(config: &Config, claim: ClaimTimes<'_>, hierarchy: &Hierarchy) -> Bounds {
    let (lease, claim) = claim.bounds();
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Bounds {
        // One beat may just have been sent, and one is due when the silence is noticed.
        detect_ms: ms(config.timing.dead_after + config.timing.interval),
        lease_ms: ms(lease),
        claim_ms: ms(claim),
        start_ms: ms(longest_chain(hierarchy, |resource| Some(resource.timeouts.start)).unwrap_or_default()),
    }
}

/// Until all resources have started, if each takes so long; `None` if that is not known of one. Independent branches start in parallel.
pub(super) fn longest_chain(
    hierarchy: &Hierarchy,
    takes: impl Fn(&ResourceSpec) -> Option<Duration>,
) -> Option<Duration> {
    let mut done: Vec<Duration> = Vec::with_capacity(hierarchy.resources.len());
    for resource in &hierarchy.resources {
        let before = resource.requires.iter().filter_map(|i| done.get(*i)).max().copied().unwrap_or_default();
        done.push(before + takes(resource)?);
    }
    done.into_iter().max()
}
