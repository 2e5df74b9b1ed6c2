//! The times that a reservation is defended and challenged on: two inputs and the device's own limit, everything else derived.
//!
//! Decides which settings are safe together, and how long a takeover takes at worst.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::device::Queued;
use crate::time::Span;

/// The inputs. Build with [`ReservationTiming::new`], which checks them. Must be the same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTiming", into = "RawTiming")]
pub struct ReservationTiming {
    defend_interval: Duration,
    uphold_bound: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTiming {
    defend_interval: Span,
    uphold_bound: Span,
}

impl TryFrom<RawTiming> for ReservationTiming {
    type Error = TimingError;
    fn try_from(raw: RawTiming) -> Result<Self, TimingError> {
        Self::new(raw.defend_interval.0, raw.uphold_bound.0)
    }
}

impl From<ReservationTiming> for RawTiming {
    fn from(timing: ReservationTiming) -> RawTiming {
        RawTiming { defend_interval: Span(timing.defend_interval), uphold_bound: Span(timing.uphold_bound) }
    }
}

/// Times that cannot be used together. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The device would be asked too often, or too rarely to be a defence.
    #[error("defend_interval is {0:?}: expected 50 ms to 60 s")]
    DefendInterval(Duration),
    /// One slow answer would end the tenure, or a node without storage would go on for too long.
    #[error("uphold_bound is {bound:?}: expected at least 3 times defend_interval ({interval:?}), and at most 10 min")]
    UpholdBound {
        /// As given.
        bound: Duration,
        /// As given.
        interval: Duration,
    },
    /// A command that hangs on one path would leave no time for another path.
    #[error(
        "device {device} answers within {limit:?} at worst: expected less than half of uphold_bound ({bound:?}); lengthen uphold_bound"
    )]
    TimeLimit {
        /// Which.
        device: String,
        /// Its limit.
        limit: Duration,
        /// As given.
        bound: Duration,
    },
}

impl ReservationTiming {
    /// Checks and takes the inputs.
    ///
    /// `defend_interval`: how often the holder looks for challengers; 50 ms to 60 s. Shorter allows a faster takeover from a dead
    /// holder; costs two small commands per device each time.
    ///
    /// `uphold_bound`: how long a holder goes on without being able to prove its reservation; at least three defence intervals.
    pub fn new(defend_interval: Duration, uphold_bound: Duration) -> Result<ReservationTiming, TimingError> {
        if !(Duration::from_millis(50)..=Duration::from_secs(60)).contains(&defend_interval) {
            return Err(TimingError::DefendInterval(defend_interval));
        }
        if uphold_bound < defend_interval * 3 || uphold_bound > Duration::from_secs(600) {
            return Err(TimingError::UpholdBound { bound: uphold_bound, interval: defend_interval });
        }
        Ok(ReservationTiming { defend_interval, uphold_bound })
    }

    /// Whether a device with this limit can be used with these times.
    pub fn check_device(self, device: &str, limit: Duration) -> Result<(), TimingError> {
        if limit * 2 >= self.uphold_bound {
            return Err(TimingError::TimeLimit { device: device.to_owned(), limit, bound: self.uphold_bound });
        }
        Ok(())
    }

    /// How often the holder looks for challengers.
    pub fn defend_interval(self) -> Duration {
        self.defend_interval
    }

    /// How long a holder goes on without proof.
    pub fn uphold_bound(self) -> Duration {
        self.uphold_bound
    }

    /// How long a challenger waits for the holder to defend itself: two defence intervals and one command.
    pub fn challenge(self, time_limit: Duration) -> Duration {
        self.defend_interval * 2 + time_limit
    }

    /// How long a device without a memory is left to a holder that may come back to it: two defence intervals.
    pub fn blank_wait(self) -> Duration {
        self.defend_interval * 2
    }

    /// How long a takeover from a dead holder takes at most, from the moment it is asked for, if every command is answered within
    /// `answer`: the challenge, the commands in sequence (reading twice two, challenging, preempting, changing the key, reading back),
    /// each other device in parallel, and one time limit more where the device cannot abort what the victim had under way.
    pub fn takeover_bound(self, time_limit: Duration, answer: Duration, queued: Queued, devices: usize) -> Duration {
        let settle = match queued {
            Queued::Aborted => Duration::ZERO,
            Queued::Stay => time_limit + answer * 2,
        };
        let others = if devices > 1 { answer * 8 + settle } else { Duration::ZERO };
        self.challenge(time_limit) + answer * 11 + settle + others
    }
}

impl Default for ReservationTiming {
    /// | input | default | reason |
    /// |---|---|---|
    /// | `defend_interval` | 1 s | two small commands a second and device: noise on any array |
    /// | `uphold_bound` | 10 s | outlasts a usual path failover |
    fn default() -> Self {
        ReservationTiming { defend_interval: Duration::from_secs(1), uphold_bound: Duration::from_secs(10) }
    }
}

impl fmt::Display for ReservationTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_millis();
        write!(f, "defend_interval {} ms, uphold_bound {} ms", ms(self.defend_interval), ms(self.uphold_bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn reckless_settings_are_refused() {
        assert_eq!(ReservationTiming::new(MS, MS * 10_000), Err(TimingError::DefendInterval(MS)));
        let short = ReservationTiming::new(MS * 1_000, MS * 2_999).unwrap_err();
        assert_eq!(short, TimingError::UpholdBound { bound: MS * 2_999, interval: MS * 1_000 });
        let timing = ReservationTiming::default();
        assert!(timing.check_device("sda", MS * 5_000).is_err());
        assert!(timing.check_device("sda", MS * 3_000).is_ok());
        assert!(serde_json::from_str::<ReservationTiming>(r#"{"defend_interval":"1s","uphold_bound":"1s"}"#).is_err());
    }

    #[test]
    fn a_takeover_takes_the_challenge_and_a_few_commands() {
        let timing = ReservationTiming::default();
        assert_eq!(timing.challenge(MS * 3_000), MS * 5_000);
        assert_eq!(timing.takeover_bound(MS * 3_000, MS * 10, Queued::Aborted, 1), MS * 5_110);
        assert_eq!(timing.takeover_bound(MS * 3_000, MS * 10, Queued::Stay, 1), MS * 8_130);
    }
}
