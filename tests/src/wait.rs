//! Waiting for something to happen, with a bound so generous that only a fault can exceed it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. 60 s, times the whole number in `HA_LAB_PATIENCE` on slow machines.
pub fn patience() -> Duration {
    let times = std::env::var("HA_LAB_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u32);
    Duration::from_secs(60) * times
}

/// Looks again and again until `look` answers `Ok`, and returns that. An `Err` says what was seen instead.
///
/// # Panics
/// When [`patience`] is over: with `what` and the last thing seen.
pub fn eventually<T, S: Debug>(what: &str, mut look: impl FnMut() -> Result<T, S>) -> T {
    let until = Instant::now() + patience();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => {
                assert!(Instant::now() < until, "waited {:?} in vain until {what}; last seen: {seen:?}", patience());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
