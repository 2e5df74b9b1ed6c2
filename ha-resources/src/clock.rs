//! The boot-time clock and the boot's identity, as the kernel has them.
//!
//! Decides which clock everything goes by: `CLOCK_BOOTTIME` (clock_gettime(2)), which counts while the machine is suspended
//! and is never set. Leaves to `ha-core` what the time is used for.

use std::io;
use std::sync::Arc;

use ha_core::driver::Clock;
use ha_core::name::BootId;
use ha_core::time::Time;
use nix::time::{ClockId, clock_gettime};

/// The clock to give to [`NodeBuilder::clock`](ha_core::driver::NodeBuilder::clock).
pub fn boot_clock() -> Clock {
    Arc::new(now)
}

/// The present moment on the boot-time clock.
///
/// # Panics
/// Before Linux 2.6.39, which had no such clock.
#[expect(clippy::expect_used, reason = "every kernel since 2.6.39 has this clock, and nothing else can fail")]
pub fn now() -> Time {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the kernel has a boot-time clock");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// Which boot this is: `/proc/sys/kernel/random/boot_id` (random(4)).
///
/// # Errors
/// When `/proc` is not mounted, or does not hold an identity.
pub fn boot_id() -> io::Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    let about = |e: &dyn std::fmt::Display| format!("the identity of this boot cannot be read from {path}: {e}");
    let text = std::fs::read_to_string(path).map_err(|e| io::Error::new(e.kind(), about(&e)))?;
    text.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, about(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_agrees_with_the_uptime_and_does_not_go_back() {
        let clock = boot_clock();
        let (before, uptime, after) = (clock(), std::fs::read_to_string("/proc/uptime").unwrap(), clock());
        assert!(before <= after);
        // In seconds with two digits after the point, cut off.
        let (seconds, hundredths) = uptime.split(' ').next().unwrap().split_once('.').unwrap();
        let uptime = seconds.parse::<u64>().unwrap() * 100 + hundredths.parse::<u64>().unwrap();
        assert!((before.0 / 10_000_000..=after.0 / 10_000_000).contains(&uptime), "{before} {uptime} {after}");
    }

    #[test]
    fn the_boot_is_the_same_whenever_asked() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }
}
