//! This project's own reservation devices on real kernels and a real target, without any agent: one path and two.

use ha_tests::kernel::stamp::Written;
use ha_tests::kernel::{Guest, KernelLab, Network, Paths, disk_link};
use ha_tests::{Result, Trouble, eventually, program};
use nix::errno::Errno;

/// A path that is lost and comes back is used again under the same key, and a preemption takes the writes of all paths away.
#[test]
fn both_paths_of_a_multipath_disk_are_registered_and_preempted() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).paths(Paths::Two).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    disk(alpha, &["register-ignoring", "0xa"])?;
    disk(alpha, &["reserve", "0xa"])?;
    registered_on_both_paths(alpha, 'a')?;
    eventually("multipathd is told the key, for paths that appear", || {
        alpha.shell(&format!("grep {} /etc/multipath/prkeys", key('a')))
    });

    for network in [Network::StorageA, Network::StorageB] {
        lab.cut(alpha, network)?;
        assert_eq!(write(alpha)?.error, None, "the other path does");
        lab.join(alpha, network)?;
        lab.until_disks(alpha);
        registered_on_both_paths(alpha, 'a')?;
    }

    disk(beta, &["register-ignoring", "0xb"])?;
    disk(beta, &["preempt-and-abort", "0xb", "0xa"])?;
    registered_on_both_paths(beta, 'b')?;
    assert_eq!(write(beta)?.error, None);
    assert_eq!(write(alpha)?, Written { acknowledged: 0, error: Some(Errno::EBADE as i32) });
    Ok(())
}

/// A key as the example prints it.
fn key(digit: char) -> String {
    format!("0x{digit:0>16}")
}

/// That a key is the only one, registered twice, and holds the reservation, as each of the paths tells it.
fn registered_on_both_paths(node: &Guest, digit: char) -> Result<()> {
    let shown = disk(node, &["show"])?;
    let key = key(digit);
    let (keys, held) = (format!("keys [{key}, {key}]"), format!("reserved by {key}, WriteExclusiveRegistrantsOnly"));
    assert_eq!([shown.matches(&keys).count(), shown.matches(&held).count()], [2, 2], "{shown}");
    Ok(())
}

fn write(node: &Guest) -> Result<Written> {
    let stamper = program("lab-stamp")?;
    let said = node.run(&stamper.to_string_lossy(), &["write", &disk_link(0), node.name(), "64", "2"])?.good()?;
    serde_json::from_str(&said).map_err(|error| Trouble::new(format!("{error}: {said}")))
}

/// Runs the example program on the shared disk.
fn disk(node: &Guest, words: &[&str]) -> Result<String> {
    let example = program("examples/reservation")?;
    let link = disk_link(0);
    let words: Vec<&str> = words[..1].iter().chain([&link.as_str()]).chain(&words[1..]).copied().collect();
    node.run(&example.to_string_lossy(), &words)?.good()
}
