//! A machine that has far too much to do: nothing may move because of that.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use ha_tests::cluster::{Lease, served};
use ha_tests::{Cluster, Lab, Result, eventually};

/// Programs that keep a machine busy, as long as this lasts.
struct Load(Vec<Child>);

impl Load {
    /// So many that compute, and so many that write and flush.
    fn new(busy: usize, writing: usize, folder: &Path) -> Result<Load> {
        let shell = |script: &str| Command::new("sh").args(["-c", script]).stderr(Stdio::null()).spawn();
        let mut load = Load(Vec::new());
        for _ in 0..busy {
            load.0.push(shell("while :; do :; done")?);
        }
        for number in 0..writing {
            let file = folder.join(number.to_string());
            load.0.push(shell(&format!(
                "while :; do dd if=/dev/zero of={} bs=256k count=64 conv=fsync; done",
                file.display()
            ))?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// L4: fifty busy programs and heavy writing, on the same few cores that the agents, the networks and the disk of the laboratory run on: the
/// service goes on in one tenure and is not restarted.
#[test]
fn fifty_busy_programs_and_heavy_writing_move_nothing() -> Result<()> {
    let hierarchies = [("web", served("web", &["alpha", "beta"])?), ("other", served_by_beta()?)];
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha", "beta"]), 2, &hierarchies, Lease::Lasting)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    cluster.until_placed("other", "beta");
    let folder = tempfile::tempdir()?;
    let load = Load::new(50, 4, folder.path())?;
    cluster.until_served_for("web", 20_000)?;
    let verdict = cluster.lab().witness().check()?;
    drop(load);
    assert_eq!(verdict.nodes_of("web"), ["alpha"]);
    assert_eq!(verdict.of("web")[0].starts, 1, "the service was restarted");
    assert_eq!(verdict.nodes_of("other"), ["beta"]);
    // And afterwards all is as before.
    cluster.until_placed("web", "alpha");
    cluster.until_heard("alpha", "beta", "alive");
    eventually("the client is served", || {
        cluster.client().map_err(|e| e.to_string())?.served_by().ok_or_else(String::new)
    });
    Ok(())
}

fn served_by_beta() -> Result<String> {
    ha_tests::cluster::witnessed("other", &["beta", "alpha"], 10)
}
