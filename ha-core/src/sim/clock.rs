//! Time in the simulated world, and on the clocks of its nodes.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use crate::time::Time;

/// A moment of the simulated world, in nanoseconds since it began. No node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The beginning.
    pub const BEGIN: Moment = Moment(0);

    /// How long ago `earlier` was; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, rhs: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

/// A node's boot-time clock: begins at each boot, and runs a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeClock {
    booted: Moment,
    /// Parts in a million by which it is fast; negative if slow.
    rate_ppm: i32,
}

/// A clock shows this at boot: the kernel was there before the agent.
const AT_BOOT: u64 = 1_000_000_000;
const MILLION: i128 = 1_000_000;

impl NodeClock {
    pub(super) fn new(booted: Moment, rate_ppm: i32) -> Self {
        NodeClock { booted, rate_ppm }
    }

    fn rate(self) -> i128 {
        MILLION + i128::from(self.rate_ppm)
    }

    /// What it shows.
    pub(super) fn shows(self, at: Moment) -> Time {
        let passed = i128::from(at.0.saturating_sub(self.booted.0));
        Time(AT_BOOT + u64::try_from(passed * self.rate() / MILLION).unwrap_or(u64::MAX / 2))
    }

    /// The first moment at which it shows `time` or more.
    pub(super) fn when(self, time: Time) -> Moment {
        let passed = i128::from(time.0.saturating_sub(AT_BOOT)) * MILLION;
        let passed = u64::try_from((passed + self.rate() - 1) / self.rate()).unwrap_or(u64::MAX / 2);
        Moment(self.booted.0.saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_the_clock_shows_it_and_not_before() {
        for rate_ppm in [-4_900, -1, 0, 1, 4_900] {
            let clock = NodeClock::new(Moment(12_345), rate_ppm);
            for time in [Time(AT_BOOT), Time(AT_BOOT + 1), Time(3_000_000_017), Time(900_000_000_000_003)] {
                let at = clock.when(time);
                assert!(clock.shows(at) >= time, "{rate_ppm} {time}");
                assert!(at.0 <= 12_345 || clock.shows(Moment(at.0 - 1)) < time, "{rate_ppm} {time}");
            }
        }
    }
}
