//! The storage of real kernels.

use ha_tests::Result;
use ha_tests::kernel::{KernelLab, disk_link};

#[test]
fn boots() -> Result<()> {
    let begun = std::time::Instant::now();
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).disks(&[64, 16]).boot()?;
    eprintln!("booted in {:?}", begun.elapsed());
    eprintln!("{}", lab.node("alpha").shell("ls -l /dev/disk/by-id; free -m; ps axu; ip a; lsmod")?);
    eprintln!("{}", lab.node("alpha").shell(&format!("sg_inq {}; sg_persist --in -k {}", disk_link(0), disk_link(0)))?);
    eprintln!("{}", lab.target().shell("free -m; ps axu; dmesg|tail -20")?);
    Ok(())
}
