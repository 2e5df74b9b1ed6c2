//! Time as an argument.
//!
//! No decision reads a clock: the driver passes a [`Time`] into every call. It counts nanoseconds of the boot-time clock
//! (`CLOCK_BOOTTIME`, clock_gettime(2)), which goes on while the machine is suspended and never steps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on this node's boot-time clock, in nanoseconds. Means nothing on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The moment of boot.
    pub const ZERO: Time = Time(0);

    /// How long ago `earlier` was; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long until `later`; zero if it is not later.
    #[must_use]
    pub fn until(self, later: Time) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, rhs: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, rhs: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

/// A length of time as people write it: "100ms", "1s", "10min" (the `humantime` crate's forms).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(value: String) -> Result<Self, String> {
        humantime::parse_duration(&value).map(Span).map_err(|e| {
            format!("{value:?} is not a length of time ({e}): expected one such as \"100ms\", \"2s\" or \"10min\"")
        })
    }
}

impl From<Span> for String {
    fn from(value: Span) -> String {
        value.to_string()
    }
}

impl From<Span> for Duration {
    fn from(value: Span) -> Duration {
        value.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of named deadlines: at most one for each key. Setting, cancelling and asking for the next cost O(log n).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "BTreeMap<K, Time>", from = "BTreeMap<K, Time>")]
#[serde(bound(serialize = "K: Ord + Clone + Serialize", deserialize = "K: Ord + Clone + Deserialize<'de>"))]
pub struct Timers<K> {
    by_key: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> From<BTreeMap<K, Time>> for Timers<K> {
    fn from(by_key: BTreeMap<K, Time>) -> Self {
        let by_time = by_key.iter().map(|(key, at)| (*at, key.clone())).collect();
        Self { by_key, by_time }
    }
}

impl<K> From<Timers<K>> for BTreeMap<K, Time> {
    fn from(timers: Timers<K>) -> Self {
        timers.by_key
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the deadline of `key`, in place of any that it had.
    pub fn set(&mut self, key: K, at: Time) {
        self.cancel(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Forgets the deadline of `key`; harmless if it had none.
    pub fn cancel(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<Time> {
        self.by_key.get(key).copied()
    }

    /// Everything that has a deadline, in order of the keys.
    #[cfg(feature = "sim")]
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest key whose deadline is not after `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_set_again_replaces_the_earlier_one() {
        let mut timers = Timers::default();
        timers.set("beat", Time(10));
        timers.set("beat", Time(30));
        timers.set("retry", Time(20));
        assert_eq!(timers.pop_due(Time(15)), None);
        assert_eq!(timers.pop_due(Time(40)), Some("retry"));
        assert_eq!(timers.pop_due(Time(40)), Some("beat"));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn time_never_wraps() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(u64::MAX) + Duration::from_secs(1), Time(u64::MAX));
    }
}
