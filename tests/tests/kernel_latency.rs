//! How long a reservation takes with the target of Linux (LIO): as `reservation_latency` measures it with tgtd, on real SCSI disks that production
//! opens, over the kernel's own iSCSI initiator. Prints the figures, which are in docs/reservations.md; asserts none of them, only that who was
//! cut off writes no more.
//!
//! `HA_ROUNDS=N` is the number of rounds (10).

use ha_tests::kernel::{KernelLab, Paths};
use ha_tests::{Result, eventually, program};

#[test]
fn taking_looking_and_taking_over() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).paths(Paths::Two).boot()?;
    let alpha = lab.node("alpha");
    // Each path by itself is an initiator.
    alpha.shell("multipathd shutdown")?;
    eventually("the map is gone", || {
        alpha.shell("multipath -F && ! ls /dev/dm-0 2>/dev/null").map_err(|trouble| trouble.to_string())
    });
    let measuring = program("lab-latency")?.to_string_lossy().into_owned();
    let rounds = std::env::var("HA_ROUNDS").unwrap_or_else(|_| "10".to_owned());
    println!("{}", alpha.run(&measuring, &["/dev/sda", "/dev/sdb", &rounds])?.good()?);
    Ok(())
}
