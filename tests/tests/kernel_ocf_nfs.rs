//! An NFS server by its OCF agents, `nfsserver` and `exportfs`, on a real kernel, and a machine that mounts what it exports.
//!
//! It runs the hierarchy of `docs/resources/nfs.md`, resource by resource, as on a node without systemd: by the distribution's init script, and by
//! that page's own for what the other one does not do.
//!
//! Needs the packages nfs-kernel-server, nfs-common, rpcbind and resource-agents.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_tests::kernel::resource::operate_within;
use ha_tests::kernel::{Guest, KernelLab, disk_link};
use ha_tests::{Result, Trouble, eventually, need, page};

/// What an agent's action may take on a busy machine; the longest of them takes a few seconds.
const LIMIT: Duration = Duration::from_secs(50);

/// What it runs, and the package of each.
const PROGRAMS: [(&str, &str); 4] = [
    ("/etc/init.d/nfs-kernel-server", "nfs-kernel-server"),
    ("/sbin/mount.nfs", "nfs-common"),
    ("/sbin/rpcbind", "rpcbind"),
    ("/usr/lib/ocf/resource.d/heartbeat/nfsserver", "resource-agents"),
];

/// What is on the disk before the first start: a directory that every client may write to.
fn shared(disk: &Path) -> Result<()> {
    let export = disk.join("export");
    fs::create_dir(&export)?;
    Ok(fs::set_permissions(&export, fs::Permissions::from_mode(0o1777))?)
}

/// What the page says that a node needs.
fn prepare(node: &Guest) -> Result<()> {
    node.shell("mkdir -p /run/rpcbind && rpcbind </dev/null >/dev/null 2>&1")?;
    eventually("rpcbind answers", || node.shell("rpcinfo -p"));
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/resources/nfs.md");
    let page = fs::read_to_string(page)?;
    let commands = page.split("```sh\n").find(|block| block.starts_with("# By the agents"));
    let commands = commands.and_then(|block| block.split("```").next());
    node.shell(commands.ok_or_else(|| Trouble::new("nfs.md does not say what a node needs for the agents"))?).map(drop)
}

/// The resources of the page's hierarchy, each as it is written there, on the laboratory's disk and network.
struct Resources(String);

impl Resources {
    fn read() -> Result<Resources> {
        let places = [("/dev/disk/by-id/wwn-0x6001405a1b2c3d4e", disk_link(0)), ("10.0.0.", "10.77.0.".to_owned())];
        let mut hierarchies = page("nfs", &places.each_ref().map(|(from, to)| (*from, to.as_str())))?;
        let (_, text) = hierarchies.pop().ok_or_else(|| Trouble::new("nfs.md has no hierarchy"))?;
        Ok(Resources(text))
    }

    fn named(&self, name: &str) -> Result<&str> {
        let within = self.0.split_once("resources: [\n").map_or("", |(_, rest)| rest);
        // One begins where the margin is eight wide, and what belongs to it stands further in.
        let mut starts = within
            .match_indices("\n        ")
            .map(|(at, _)| at + 1)
            .filter(|at| within[*at + 8..].starts_with(char::is_alphabetic));
        let mut from = 0;
        loop {
            let to = starts.next();
            let one = &within[from..to.or_else(|| within.find("\n    ]")).unwrap_or(within.len())];
            if one.contains(&format!("(name: {name:?}")) {
                return Ok(one.trim().trim_end_matches(','));
            }
            from = to.ok_or_else(|| Trouble::new(format!("nfs.md has no resource {name}")))?;
        }
    }

    /// Has a node do an operation on one of them.
    fn said(&self, node: &Guest, operation: &str, name: &str) -> Result<String> {
        let said = operate_within(node, operation, LIMIT, self.named(name)?)?;
        eprintln!("{operation} {name}: {said}");
        Ok(said)
    }

    fn done(&self, node: &Guest, operation: &str, names: &[&str]) -> Result<()> {
        for name in names {
            assert_eq!(self.said(node, operation, name)?, "done", "{operation} {name}");
        }
        Ok(())
    }
}

/// Nothing of the server is left on a node: no thread of the kernel's, no daemon, no mount where it kept its notes, no export.
fn nothing_is_left(node: &Guest) -> Result<()> {
    let left = node.shell(
        "ps -eo comm | grep -xE 'nfsd|lockd|rpc.mountd|rpc.statd|sm-notify'; grep /var/lib/nfs /proc/mounts; true",
    )?;
    assert_eq!(left, "");
    assert_eq!(node.shell("exportfs")?, "");
    Ok(())
}

/// Started, mounted, written to and read; without its threads it is known to have failed, and a client goes on where it was once it is started
/// anew. Stopped or killed, it leaves nothing, so that the filesystem under it can go.
#[test]
fn a_server_by_its_agents_is_mounted_fails_and_leaves_nothing() -> Result<()> {
    need(&PROGRAMS)?;
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).memory(192).ext4(shared).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    prepare(alpha)?;
    let resources = Resources::read()?;

    for name in ["data", "server", "export", "vip"] {
        assert_eq!(resources.said(alpha, "ready", name)?, "done");
        assert_eq!(resources.said(alpha, "adopt", name)?, "stopped");
    }
    resources.done(alpha, "start", &["data", "server", "server", "export", "export", "vip"])?;
    for name in ["server", "export"] {
        assert_eq!(resources.said(alpha, "monitor", name)?, "good");
        assert_eq!(resources.said(alpha, "adopt", name)?, "running");
    }
    assert_eq!(alpha.shell("cat /proc/fs/nfsd/nfsv4gracetime")?, "10\n");

    beta.shell("modprobe nfsv4 && mkdir /run/files && mount -t nfs -o vers=4.2 10.77.0.20:/ /run/files")?;
    beta.shell("echo one >/run/files/page && sync /run/files/page")?;
    assert_eq!(alpha.shell("cat /srv/files/export/page")?, "one\n");
    assert_eq!(beta.shell("echo 3 >/proc/sys/vm/drop_caches; cat /run/files/page")?, "one\n");

    // The threads of the kernel end, and nothing else does.
    alpha.shell("rpc.nfsd 0")?;
    let monitored = resources.said(alpha, "monitor", "server")?;
    assert!(monitored.starts_with("bad: ") && monitored.contains("OCF_NOT_RUNNING"), "{monitored}");
    resources.done(alpha, "stop", &["vip", "export", "server"])?;
    nothing_is_left(alpha)?;
    resources.done(alpha, "start", &["server", "export", "vip"])?;
    beta.shell("echo two >>/run/files/page && sync /run/files/page")?;
    assert_eq!(alpha.shell("cat /srv/files/export/page")?, "one\ntwo\n");

    // Stopped while a client has it mounted.
    resources.done(alpha, "stop", &["vip", "export", "export", "server", "server"])?;
    for name in ["export", "server"] {
        assert_eq!(resources.said(alpha, "adopt", name)?, "stopped");
    }
    nothing_is_left(alpha)?;
    resources.done(alpha, "stop", &["data"])?;

    // Killed.
    resources.done(alpha, "start", &["data", "server", "export"])?;
    assert_eq!(resources.said(alpha, "monitor", "server")?, "good");
    resources.done(alpha, "kill", &["export", "server", "server"])?;
    nothing_is_left(alpha)?;
    assert_eq!(resources.said(alpha, "adopt", "server")?, "stopped");
    resources.done(alpha, "stop", &["data"])
}
