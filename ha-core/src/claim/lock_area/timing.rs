//! The times that a lock area's leases run on: four inputs, everything else derived, every relation checked.
//!
//! Decides which settings are safe together. They stand in the area's header, so that all nodes run on the same ones.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The inputs. All in milliseconds; build with [`LeaseTiming::new`], which checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTiming", into = "RawTiming")]
pub struct LeaseTiming {
    renew: u32,
    deadline: u32,
    watchdog: u32,
    margin: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to what is read")]
struct RawTiming {
    renew_ms: u32,
    deadline_ms: u32,
    watchdog_ms: u32,
    margin_ms: u32,
}

impl TryFrom<RawTiming> for LeaseTiming {
    type Error = TimingError;
    fn try_from(raw: RawTiming) -> Result<Self, TimingError> {
        Self::from_millis([raw.renew_ms, raw.deadline_ms, raw.watchdog_ms, raw.margin_ms])
    }
}

impl From<LeaseTiming> for RawTiming {
    fn from(t: LeaseTiming) -> RawTiming {
        RawTiming { renew_ms: t.renew, deadline_ms: t.deadline, watchdog_ms: t.watchdog, margin_ms: t.margin }
    }
}

/// Times that cannot be used together. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The storage would be asked too often, or a renewal too rarely to be a heartbeat.
    #[error("renew is {0} ms: expected 10 ms to 60 s")]
    Renew(u32),
    /// Too few renewals fit into a lease: one slow answer would end it.
    #[error("deadline is {deadline} ms: expected at least 4 times renew ({renew} ms), and at most 10 min")]
    Deadline {
        /// As given, ms.
        deadline: u32,
        /// As given, ms.
        renew: u32,
    },
    /// A watchdog that takes that long would hold every failover up.
    #[error("watchdog is {0} ms: expected at most 10 min; 0 only where no watchdog is used")]
    Watchdog(u32),
    /// Clocks that run at slightly different rates would eat the margin up.
    #[error(
        "margin is {margin} ms: expected at least 1 % of deadline and watchdog together ({least} ms), and at most 10 min"
    )]
    Margin {
        /// As given, ms.
        margin: u32,
        /// The least that would do, ms.
        least: u32,
    },
    /// Finer than what the area's header can keep.
    #[error("{0:?} is not a whole number of milliseconds, or too long")]
    Unit(Duration),
}

const TEN_MINUTES: u32 = 600_000;

impl LeaseTiming {
    /// Checks and takes the four inputs.
    ///
    /// `renew`: how often a node writes its slot and reads those of the others; 10 ms to 60 s. Shorter finds a dead node no
    /// sooner by itself, but allows a shorter `deadline`; costs one write and one read each.
    ///
    /// `deadline`: how long a lease is good after the renewal that proved it; at least four renewals. Shorter fails over
    /// sooner; longer rides out slow storage.
    ///
    /// `watchdog`: the longest time that a watchdog takes to reset a node that no longer feeds it.
    ///
    /// `margin`: what clocks may differ in rate over a whole expiry; at least 1 % of the two before.
    pub fn new(
        renew: Duration,
        deadline: Duration,
        watchdog: Duration,
        margin: Duration,
    ) -> Result<LeaseTiming, TimingError> {
        let mut millis = [0; 4];
        for (to, from) in millis.iter_mut().zip([renew, deadline, watchdog, margin]) {
            *to = u32::try_from(from.as_millis()).map_err(|_| TimingError::Unit(from))?;
            if Duration::from_millis(u64::from(*to)) != from {
                return Err(TimingError::Unit(from));
            }
        }
        Self::from_millis(millis)
    }

    pub(super) fn from_millis([renew, deadline, watchdog, margin]: [u32; 4]) -> Result<LeaseTiming, TimingError> {
        if !(10..=60_000).contains(&renew) {
            return Err(TimingError::Renew(renew));
        }
        if deadline / 4 < renew || deadline > TEN_MINUTES {
            return Err(TimingError::Deadline { deadline, renew });
        }
        if watchdog > TEN_MINUTES {
            return Err(TimingError::Watchdog(watchdog));
        }
        let least = (deadline + watchdog).div_ceil(100);
        if margin < least || margin > TEN_MINUTES {
            return Err(TimingError::Margin { margin, least });
        }
        Ok(LeaseTiming { renew, deadline, watchdog, margin })
    }

    pub(super) fn to_millis(self) -> [u32; 4] {
        [self.renew, self.deadline, self.watchdog, self.margin]
    }

    /// How often a lease is renewed.
    pub fn renew(self) -> Duration {
        Duration::from_millis(self.renew.into())
    }

    /// How long a lease is good after a renewal was issued.
    pub fn deadline(self) -> Duration {
        Duration::from_millis(self.deadline.into())
    }

    /// How long the watchdog may take.
    pub fn watchdog(self) -> Duration {
        Duration::from_millis(self.watchdog.into())
    }

    /// What clocks may differ in rate.
    pub fn margin(self) -> Duration {
        Duration::from_millis(self.margin.into())
    }

    /// How long a slot must stand still before its node is taken for dead: derived, `deadline + watchdog + margin`.
    pub fn expires_after(self) -> Duration {
        self.deadline() + self.watchdog() + self.margin()
    }

    /// How long one transfer of the lease may take before it is tried again: derived, so that two tries fit into a lease.
    pub fn io_bound(self) -> Duration {
        Duration::from_millis(u64::from(self.deadline - self.renew)) / 2
    }

    /// The longest pause after losing against a higher ballot, on the given try: derived, doubling up to `deadline`.
    pub(super) fn back_off(self, tries: u32) -> Duration {
        (self.renew() / 8 * 2u32.saturating_pow(tries.min(12))).min(self.deadline())
    }

    pub(super) fn since_to_expiry(self, since: Time) -> Time {
        since + self.expires_after()
    }
}

impl Default for LeaseTiming {
    /// For ordinary shared storage, which answers in milliseconds but may stall for a second or two while a path fails over.
    ///
    /// | input | default | reason |
    /// |---|---|---|
    /// | renew | 500 ms | four small transfers a second and node: noise on any array |
    /// | deadline | 4 s | outlasts a usual path failover; eight renewals |
    /// | watchdog | 2 s | the shortest that common hardware watchdogs keep reliably |
    /// | margin | 500 ms | 8 % difference in rate; real clocks differ by far less than 0.1 % |
    fn default() -> Self {
        LeaseTiming { renew: 500, deadline: 4_000, watchdog: 2_000, margin: 500 }
    }
}

impl fmt::Display for LeaseTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "renew {} ms, deadline {} ms, watchdog {} ms, margin {} ms (a dead node expires after {} ms)",
            self.renew,
            self.deadline,
            self.watchdog,
            self.margin,
            self.expires_after().as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn fast_settings_are_allowed_and_reckless_ones_are_not() {
        let fast = LeaseTiming::new(ms(50), ms(400), ms(200), ms(100)).unwrap();
        assert_eq!(fast.expires_after(), ms(700));
        assert_eq!(LeaseTiming::default().expires_after(), ms(6_500));
        let of = |a, b, c, d| LeaseTiming::new(ms(a), ms(b), ms(c), ms(d)).unwrap_err();
        assert_eq!(of(1, 400, 200, 100), TimingError::Renew(1));
        assert_eq!(of(100, 399, 200, 100), TimingError::Deadline { deadline: 399, renew: 100 });
        assert_eq!(of(50, 400, 700_000, 100), TimingError::Watchdog(700_000));
        assert_eq!(of(50, 400, 200, 5), TimingError::Margin { margin: 5, least: 6 });
        assert!(
            serde_json::from_str::<LeaseTiming>(r#"{"renew_ms":50,"deadline_ms":100,"watchdog_ms":0,"margin_ms":9}"#)
                .is_err()
        );
    }
}
