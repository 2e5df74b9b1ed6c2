//! How busy this machine is, by the kernel's pressure stall information (Documentation/accounting/psi.rst).
//!
//! Decides from which figure on the machine counts as busy, and below which not any more. Leaves what follows to the engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ha_core::driver::Gauge;
use ha_core::recovery::Pressure;

/// Something waits for more than this share of the time, over the last ten seconds, in percent.
const BUSY: f64 = 40.0;
/// A machine that is busy is so until nothing waits for more than this share: a figure about the limit is told once, not every other second.
const CALM: f64 = 20.0;

/// Reads the pressure on processors, memory and disks. A kernel that does not tell counts as calm.
pub fn gauge() -> Gauge {
    let busy = AtomicBool::new(false);
    Arc::new(move || {
        let before = if busy.load(Ordering::Relaxed) { Pressure::High } else { Pressure::Calm };
        let now = look(Path::new("/proc/pressure"), before);
        busy.store(now == Pressure::High, Ordering::Relaxed);
        now
    })
}

fn look(directory: &Path, before: Pressure) -> Pressure {
    let limit = if before == Pressure::High { CALM } else { BUSY };
    let busy = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        some_avg10(&text).is_some_and(|share| share > limit)
    };
    if ["cpu", "memory", "io"].into_iter().any(busy) { Pressure::High } else { Pressure::Calm }
}

fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_lines_are_understood() {
        let text =
            "some avg10=41.25 avg60=0.09 avg300=0.02 total=2605509\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(some_avg10(text), Some(41.25));
        assert_eq!(some_avg10("nonsense"), None);
        if Path::new("/proc/pressure/cpu").exists() {
            assert!(some_avg10(&std::fs::read_to_string("/proc/pressure/cpu").unwrap()).is_some());
        } else {
            println!("NOT RUN: this kernel has no /proc/pressure");
        }
        assert_eq!(look(Path::new("/nonexistent"), Pressure::High), Pressure::Calm);
    }

    #[test]
    fn a_figure_about_the_limit_is_told_once() {
        let kernel = tempfile::tempdir().unwrap();
        let mut seen = Pressure::Calm;
        let mut told = |share: &str| {
            let text = format!("some avg10={share} avg60=0.00 avg300=0.00 total=1\n");
            std::fs::write(kernel.path().join("io"), text).unwrap();
            seen = look(kernel.path(), seen);
            seen
        };
        let busy = ["39.90", "40.10", "39.90", "20.10", "19.90", "39.90"].map(|share| told(share) == Pressure::High);
        assert_eq!(busy, [false, true, true, true, false, false]);
    }
}
