//! How busy this machine is, by the kernel's pressure stall information (Documentation/accounting/psi.rst).
//!
//! Decides from which figure on the machine counts as busy. Leaves what follows to the engine.

use std::path::Path;
use std::sync::Arc;

use ha_core::driver::Gauge;
use ha_core::recovery::Pressure;

/// Something waits for more than this share of the time, over the last ten seconds, in percent.
const BUSY: f64 = 40.0;

/// Reads the pressure on processors, memory and disks. A kernel that does not tell counts as calm.
pub fn gauge() -> Gauge {
    Arc::new(|| look(Path::new("/proc/pressure")))
}

fn look(directory: &Path) -> Pressure {
    let busy = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        some_avg10(&text).is_some_and(|share| share > BUSY)
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
        assert_eq!(look(Path::new("/nonexistent")), Pressure::Calm);
    }
}
