//! The computed worst case: how long a hierarchy can be out of service after the death of the node that served it.
//!
//! T_restore = T_detect + T_recover (Bottomley, equation 1), with the bounds that the configuration sets.

use std::time::Duration;

use ha_core::claim::lock_area::LeaseTiming;
use ha_core::hierarchy::Hierarchy;
use serde::Serialize;

use crate::config::Config;

/// The bounds, in milliseconds; all count from the last sign of life of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
pub(crate) struct Bounds {
    /// Contact counts as lost.
    pub(crate) detect_ms: u64,
    /// The dead node's lease is proven to be over; runs beside the detection.
    pub(crate) lease_ms: u64,
    /// The claim is taken: a dozen transfers, one round lost to another node included.
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

/// Works the bounds out. Without a readable area, with the times of agent.ron.
pub(crate) fn bounds(config: &Config, area: Option<LeaseTiming>, hierarchy: &Hierarchy) -> Bounds {
    let lease = area.unwrap_or_default();
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Bounds {
        // One beat may just have been sent, and one is due when the silence is noticed.
        detect_ms: ms(config.timing.dead_after + config.timing.interval),
        // The slot is read once per renewal: the last change is seen late, and so is its standing still.
        lease_ms: ms(lease.expires_after() + lease.renew() * 2),
        claim_ms: ms(lease.renew() * 2),
        start_ms: ms(longest_chain(hierarchy)),
    }
}

/// Independent branches start in parallel.
fn longest_chain(hierarchy: &Hierarchy) -> Duration {
    let mut done: Vec<Duration> = Vec::with_capacity(hierarchy.resources.len());
    for resource in &hierarchy.resources {
        let before = resource.requires.iter().filter_map(|i| done.get(*i)).max().copied().unwrap_or_default();
        done.push(before + resource.timeouts.start);
    }
    done.into_iter().max().unwrap_or_default()
}
