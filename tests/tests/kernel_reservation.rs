//! This project's own reservation devices on real kernels and a real target, without any agent: one path and two.

use ha_core::claim::reservation::device::Key;
use ha_core::claim::reservation::{ClusterKey, Keyring, Role};
use ha_core::name::{ClusterName, Epoch, NodeName};
use ha_tests::kernel::by_hand::{key_of_both_paths, read_without_a_pause, reservation};
use ha_tests::kernel::stamp::Written;
use ha_tests::kernel::{Guest, KernelLab, Network, Paths, disk_link};
use ha_tests::{Result, Trouble, eventually, program};
use nix::errno::Errno;

/// What is printed of a command that was not sent.
const OWN_TRAFFIC: &str = "sda: this node reads or writes on the path all the time";

/// A path that is lost and comes back is used again under the same key, and a preemption takes the writes of all paths away.
#[test]
fn both_paths_of_a_multipath_disk_are_registered_and_preempted() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).paths(Paths::Two).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    disk(alpha, &["register-ignoring", "0xa"])?;
    disk(alpha, &["reserve", "0xa"])?;
    registered_on_both_paths(alpha, 'a');
    eventually("multipathd is told the key, for paths that appear", || {
        alpha.shell(&format!("grep {} /etc/multipath/prkeys", key('a')))
    });

    for network in [Network::StorageA, Network::StorageB] {
        lab.cut(alpha, network)?;
        assert_eq!(write(alpha)?.error, None, "the other path does");
        lab.join(alpha, network)?;
        lab.until_disks(alpha);
        registered_on_both_paths(alpha, 'a');
    }

    disk(beta, &["register-ignoring", "0xb"])?;
    cut_off(beta, "0xb", "0xa")?;
    registered_on_both_paths(beta, 'b');
    assert_eq!(write(beta)?.error, None);
    assert_eq!(write(alpha)?, Written { acknowledged: 0, error: Some(Errno::EBADE as i32) });
    Ok(())
}

/// With the holder's commands the target of Linux aborts everybody's, and waits for ever for one that came on the path of the preemption: it is not
/// asked to beside this node's own reads.
#[test]
fn who_reads_a_disk_all_the_time_cuts_its_holder_off_without_an_abort() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    disk(alpha, &["register-ignoring", "0xa"])?;
    disk(alpha, &["reserve", "0xa"])?;
    read_without_a_pause(beta)?;
    disk(beta, &["register-ignoring", "0xb"])?;
    let refused = reservation(beta, None, &["preempt-and-abort", "0xb", "0xa"])?.output;
    assert!(refused.contains(OWN_TRAFFIC), "{refused}");
    disk(beta, &["preempt", "0xb", "0xa"])?;
    assert!(disk(beta, &["show"])?.contains("reserved by 0x000000000000000b"));

    // A node that does not read may have others' reads aborted, which their kernel begins anew.
    disk(alpha, &["register-ignoring", "0xa"])?;
    cut_off(alpha, "0xa", "0xb")?;
    assert!(disk(beta, &["show"])?.contains("reserved by 0x000000000000000a"));
    Ok(())
}

/// What is registered is told of each path, by the target of Linux and by no other way: which path lacks it, what is left of a path that is gone,
/// and who else is there.
#[test]
fn a_path_that_is_not_registered_is_named_to_the_operator() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).paths(Paths::Two).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    // Else multipathd registers what comes back.
    for node in [alpha, beta] {
        node.shell("sed -i '/reservation_key/d' /etc/multipath.conf && multipathd reconfigure")?;
        configure(node)?;
    }
    let tried = ha(alpha, &["claim", "test", &disk_link(0), "--node", "alpha"])?;
    assert!(tried.contains("yes        READ FULL STATUS"), "{tried}");

    let (ours, theirs) = (claim_key("alpha")?, claim_key("beta")?);
    reservation(alpha, Some("sdb"), &["register-ignoring", &ours])?.good()?;
    reservation(alpha, Some("sdb"), &["reserve", &ours])?.good()?;
    reservation(beta, Some("sda"), &["register-ignoring", &theirs])?.good()?;
    let (lacks, has, other) = (Way::of(alpha, "sda")?, Way::of(alpha, "sdb")?, Way::of(beta, "sda")?);
    let shown = ha(alpha, &["claim", "show", &disk_link(0)])?;
    for line in [
        "path sda     NOT REGISTERED: what is written on it is refused".to_owned(),
        format!("path sdb     alpha (epoch 1), holds the reservation, {}", has.told()),
        format!("elsewhere    beta (epoch 1), {}", other.told()),
    ] {
        assert!(shown.contains(&line), "{line}: {shown}");
    }

    // A path is registered, and its session is another one from then on: the registration is nobody's any more.
    reservation(alpha, Some("sda"), &["register-ignoring", &ours])?.good()?;
    assert!(!ha(alpha, &["claim", "show", &disk_link(0)])?.contains("NOT REGISTERED"));
    alpha.shell(&format!("iscsiadm -m session -r {} --logout", lacks.session))?;
    eventually("one path is left", || paths_are(alpha, 1));
    alpha.shell(&format!("iscsiadm -m node -T {} --login", lacks.target))?;
    eventually("both paths are there", || paths_are(alpha, 2));
    lab.until_disks(alpha);
    let shown = ha(alpha, &["claim", "show", &disk_link(0)])?;
    assert!(shown.contains("NOT REGISTERED: what is written on it is refused"), "{shown}");
    assert!(shown.contains(&format!("no path here alpha (epoch 1), {}", lacks.told())), "{shown}");
    Ok(())
}

/// A path as the kernel has it: who logged in, to what.
struct Way {
    node: String,
    session: u32,
    target: String,
}

impl Way {
    fn of(node: &Guest, disk: &str) -> Result<Way> {
        let place = node.shell(&format!("readlink -f /sys/block/{disk}/device"))?;
        let session = place.split('/').find_map(|part| part.strip_prefix("session")?.parse().ok());
        let session = session.ok_or_else(|| Trouble::new(format!("no session: {place}")))?;
        let target = node.shell(&format!("cat /sys/class/iscsi_session/session{session}/targetname"))?;
        Ok(Way { node: node.name().to_owned(), session, target: target.trim().to_owned() })
    }

    /// As it is told of a registration. The storage guest numbers the ports of its targets in the order in which it makes them.
    fn told(&self) -> String {
        let port = if self.target.ends_with(":a") { 1 } else { 2 };
        format!("as iqn.2026-01.example.ha-lab:{},i,0x00023d{:06x} at port {port}", self.node, self.session)
    }
}

fn paths_are(node: &Guest, count: usize) -> std::result::Result<(), String> {
    let map = node.shell(&format!("ls /sys/block/$(basename $(readlink -f {}))/slaves", disk_link(0)));
    let slaves = map.map_err(|trouble| trouble.to_string())?;
    if slaves.lines().count() == count { Ok(()) } else { Err(slaves) }
}

/// What `ha` needs to know the keys of the cluster.
fn configure(node: &Guest) -> Result<()> {
    let agent = r#"(
    cluster: "lab",
    nodes: { "alpha": (addresses: ["10.77.0.1:7946"]), "beta": (addresses: ["10.77.0.2:7946"]) },
    keys: "/run/lab/etc/keys",
)
"#;
    let folder = node.dir().join("etc");
    let write = std::fs::create_dir_all(folder.join("hierarchies"))
        .and_then(|()| std::fs::write(folder.join("agent.ron"), agent));
    write.map_err(|error| Trouble::new(error.to_string()))
}

/// A holder's key of this cluster, of epoch 1.
fn claim_key(node: &str) -> Result<String> {
    let trouble = |error: &dyn std::fmt::Display| Trouble::new(error.to_string());
    let name = |name: &str| NodeName::new(name).map_err(|error| trouble(&error));
    let cluster = ClusterName::new("lab").map_err(|error| trouble(&error))?;
    let keyring = Keyring::new(&cluster, [name("alpha")?, name("beta")?]).map_err(|error| trouble(&error))?;
    let number = keyring.number_of(&name(node)?).map_err(|error| trouble(&error))?;
    let key: Key = keyring
        .encode(ClusterKey { role: Role::Holder, node: number, epoch: Epoch(1) })
        .map_err(|error| trouble(&error))?;
    Ok(key.to_string())
}

/// Prints what the user sees, for whoever reads the test's output.
fn ha(node: &Guest, arguments: &[&str]) -> Result<String> {
    let words: Vec<&str> = ["--config", "/run/lab/etc"].iter().chain(arguments).copied().collect();
    let seen = node.run(&program("ha")?.to_string_lossy(), &words)?.good()?;
    eprintln!("{}# ha {}\n{seen}", node.name(), arguments.join(" "));
    Ok(seen)
}

/// A key as the example prints it.
fn key(digit: char) -> String {
    format!("0x{digit:0>16}")
}

/// That a key is the only one, registered twice, and holds the reservation, as each of the paths tells it.
fn registered_on_both_paths(node: &Guest, digit: char) {
    assert_eq!(key_of_both_paths(node), Ok(key(digit)));
}

fn write(node: &Guest) -> Result<Written> {
    let stamper = program("lab-stamp")?;
    let said = node.run(&stamper.to_string_lossy(), &["write", &disk_link(0), node.name(), "64", "2"])?.good()?;
    serde_json::from_str(&said).map_err(|error| Trouble::new(format!("{error}: {said}")))
}

/// Preempts a holder and aborts its commands, as soon as nothing of the node's is under way on the path, such as a scan of udev's.
fn cut_off(node: &Guest, key: &str, victim: &str) -> Result<()> {
    let ended =
        eventually("the path is quiet", || match reservation(node, None, &["preempt-and-abort", key, victim]) {
            Ok(ended) if ended.output.contains(OWN_TRAFFIC) => Err(ended.output),
            sent => Ok(sent),
        });
    ended?.good().map(drop)
}

/// Runs the example program on the shared disk.
fn disk(node: &Guest, words: &[&str]) -> Result<String> {
    reservation(node, None, words)?.good()
}
