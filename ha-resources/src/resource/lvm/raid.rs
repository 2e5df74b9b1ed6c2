//! Which redundant volumes are degraded, in the words of device-mapper.
//!
//! Decides how `dmsetup status --target raid` is read (the kernel's documentation of dm-raid, "Status Output"). Leaves whose they are.

use std::collections::BTreeSet;

/// The letter of a disk that is alive and in step.
const GOOD: char = 'A';

/// The names of those devices of which some disk is dead, missing, or not in step.
pub(super) fn degraded(status: &str) -> BTreeSet<&str> {
    status.lines().filter_map(of_line).collect()
}

fn of_line(line: &str) -> Option<&str> {
    let (device, rest) = line.split_once(": ")?;
    let mut words = rest.split_whitespace();
    // Start, length, target, kind of RAID, number of disks, a letter for each.
    let (target, disks, health) = (words.nth(2)?, words.nth(1)?.parse::<usize>().ok()?, words.next()?);
    let degraded = target == "raid" && health.len() == disks && health.chars().any(|letter| letter != GOOD);
    degraded.then_some(device)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_volume_that_goes_on_without_a_disk_is_told_from_a_whole_one() {
        let status = "\
shop-web: 0 16384 raid raid1 2 AD 16384/16384 idle 0 0 -
shop-whole: 0 16384 raid raid1 2 AA 16384/16384 idle 0 0 -
shop-new: 0 16384 raid raid5_ls 3 AAa 1024/16384 recover 0 0 -
shop-gone: 0 16384 raid raid1 2 A- 16384/16384 idle 0 0 -
shop-plain: 0 8192 linear
";
        assert_eq!(degraded(status), BTreeSet::from(["shop-web", "shop-new", "shop-gone"]));
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_read_without_harm(status in ".{0,200}") {
            let _ = degraded(&status);
        }
    }
}
