//! What this node itself reads and writes on a path.
//!
//! Decides when a path is quiet enough for a command that hangs the target beside such traffic. Targets of Linux (LIO; seen with 6.1 over
//! iSCSI) answer PREEMPT AND ABORT against a reservation's holder after they have aborted *everybody's* commands to the disk. Those that came on
//! the same path end only after that answer: neither comes ever, and the next registration that is removed on another path stops the whole target.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A path is quiet when nothing was under way, began or ended for this long.
const STILL_FOR: Duration = Duration::from_millis(5);

/// A path that is not quiet within this will not be soon.
const PATIENCE: Duration = Duration::from_millis(100);

/// The kernel's count of what it does on a block device (`/sys/block/…/stat`). Commands to its character device are not in it.
#[derive(Clone, Debug)]
pub(super) struct Traffic(PathBuf);

impl Traffic {
    /// Of the device in this folder of sysfs.
    pub(super) fn of(place: &Path) -> Traffic {
        Traffic(place.join("stat"))
    }

    /// Waits until the path is quiet, for a tenth of a second at most, or half of `limit`. False if it is not quiet then. A device that is
    /// gone is quiet.
    pub(super) fn falls_quiet(&self, limit: Duration) -> bool {
        let patience = PATIENCE.min(limit / 2);
        let begun = Instant::now();
        falls_quiet(
            || fs::read_to_string(&self.0).ok(),
            || {
                thread::sleep(STILL_FOR);
                begun.elapsed() < patience
            },
        )
    }
}

/// Counts, and waits in between for as long as there is time.
fn falls_quiet(mut count: impl FnMut() -> Option<String>, mut wait: impl FnMut() -> bool) -> bool {
    let mut before = count();
    loop {
        let in_time = wait();
        let now = count();
        if now.as_deref().is_none_or(|now| under_way(now) == 0) && now == before {
            return true;
        }
        if !in_time {
            return false;
        }
        before = now;
    }
}

/// How many commands are under way: the ninth number (Documentation/block/stat.rst).
fn under_way(count: &str) -> u64 {
    count.split_whitespace().nth(8).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many reads ended, so many commands are under way.
    fn count(reads: u32, under_way: u32) -> String {
        format!("  {reads}  0  800  12  0  0  0  0  {under_way}  12  12  0  0  0  0  0  0\n")
    }

    /// What is counted one time after another, the last one for ever; with time for so many counts.
    fn seen(counts: &[String], time: usize) -> bool {
        let (mut asked, mut waited) = (0, 0);
        let count = || {
            asked += 1;
            Some(counts[asked.min(counts.len()) - 1].clone())
        };
        let wait = || {
            waited += 1;
            waited < time
        };
        falls_quiet(count, wait)
    }

    #[test]
    fn a_path_on_which_nothing_happens_is_quiet() {
        assert!(seen(&[count(7, 0)], 10));
    }

    #[test]
    fn a_path_is_quiet_when_what_was_under_way_has_ended() {
        assert!(seen(&[count(7, 1), count(7, 1), count(8, 0), count(8, 0)], 10));
    }

    #[test]
    fn a_path_between_two_reads_is_not_quiet() {
        assert!(!seen(&[count(7, 0), count(8, 0), count(9, 0), count(10, 0), count(11, 0)], 4));
        assert!(!seen(&[count(7, 2)], 4), "one that does not end");
    }

    #[test]
    fn a_device_that_is_gone_is_quiet() {
        assert!(falls_quiet(|| None, || true));
    }

    #[test]
    fn the_kernels_count_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let traffic = Traffic::of(folder.path());
        fs::write(folder.path().join("stat"), count(7, 0)).unwrap();
        assert!(traffic.falls_quiet(Duration::from_secs(60)));
        fs::write(folder.path().join("stat"), count(7, 3)).unwrap();
        assert!(!traffic.falls_quiet(Duration::from_millis(20)));
    }
}
