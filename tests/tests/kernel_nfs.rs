//! NFS on real kernels, both sides: the example `hierarchies/files.ron` with clients that write and hold a lock while its node loses power, and
//! `Filesystem` as a client of a server that goes away.
//!
//! Needs the packages nfs-kernel-server and nfs-common.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_tests::kernel::ledger::judge;
use ha_tests::kernel::resource::{operate, operate_within};
use ha_tests::kernel::{ClaimKind, Guest, KernelCluster, KernelLab, LedgerClient, Network, disk_link};
use ha_tests::{Result, Trouble, eventually, need, program};

/// The hierarchy of the example.
const FILES: &str = "files";

/// Where clients mount.
const MOUNTED: &str = "/run/files";

/// The client's service, which writes to what it has mounted and answers when that is durable.
const LEDGER: &str = "10.77.0.3:7000";

/// What it runs, and the package of each.
const PROGRAMS: [(&str, &str); 3] = [
    ("/usr/sbin/rpc.nfsd", "nfs-kernel-server"),
    ("/usr/sbin/nfsdcld", "nfs-kernel-server"),
    ("/sbin/mount.nfs", "nfs-common"),
];

/// The example, on the laboratory's first two nodes, its disk and its network.
fn example() -> Result<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hierarchies/files.ron");
    let mut text = fs::read_to_string(file)?;
    for (from, to) in [
        (r#"["beta", "gamma"]"#, r#"["alpha", "beta"]"#),
        ("/dev/disk/by-id/wwn-0x6001405a1b2c3d4e5f60718293a4b5c6", &disk_link(0)),
        ("10.0.0.", "10.77.0."),
    ] {
        assert!(text.contains(from), "files.ron has no {from}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// What is on the disk before the first start: a directory that every client may write to.
fn shared(disk: &Path) -> Result<()> {
    let export = disk.join("export");
    fs::create_dir(&export)?;
    Ok(fs::set_permissions(&export, fs::Permissions::from_mode(0o1777))?)
}

/// Two nodes that serve the example, and gamma without an agent.
fn served() -> Result<KernelCluster> {
    need(&PROGRAMS)?;
    let lab = KernelLab::with_nodes(&["alpha", "beta", "gamma"]).memory(192).ext4(shared);
    let cluster =
        KernelCluster::configured(lab, ClaimKind::Reservation, r#"Process(name: "app", command: ["/bin/true"])"#)?;
    for node in &cluster.lab().nodes()[..2] {
        let etc = node.dir().join("etc");
        fs::remove_file(etc.join("hierarchies/ledger.ron"))?;
        fs::write(etc.join("hierarchies/files.ron"), example()?)?;
        let agent = fs::read_to_string(etc.join("agent.ron"))?;
        let nodes: Vec<&str> = agent.lines().filter(|line| !line.contains("\"gamma\"")).collect();
        fs::write(etc.join("agent.ron"), nodes.join("\n"))?;
        // As the order of services at boot has it: after the module. It is on already.
        node.shell("modprobe nfsd")?;
        node.change(|spec| {
            let script = format!("modprobe nfsd; exec {}", spec.agent.join(" "));
            spec.agent = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        })?;
        node.start_agent()?;
    }
    cluster.until_heard("alpha", "beta", "alive");
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_placed(FILES, "alpha");
    Ok(cluster)
}

/// Has a machine mount what is served.
fn mount(client: &Guest, options: &str) -> Result<()> {
    let from = "10.77.0.20:/";
    client
        .shell(&format!("modprobe nfsv4 && mkdir -p {MOUNTED} && mount -t nfs -o {options} {from} {MOUNTED}"))
        .map(drop)
}

/// Has gamma write to it, and tells it what to write.
fn writer(cluster: &KernelCluster) -> Result<LedgerClient> {
    let (gamma, ledger) = (cluster.lab().node("gamma"), program("lab-ledger")?);
    let entries = format!("{MOUNTED}/entries");
    gamma.start("/usr/bin/env", &["HA_NODE=gamma", "HA_EPOCH=1", &ledger.to_string_lossy(), &entries, LEDGER])?;
    let client = cluster.client_of(LEDGER)?;
    client.until_served();
    Ok(client)
}

/// Asks for the lock that gamma holds, without waiting for it: exit code 1 says that somebody has it.
const TRY: &str = "flock --nonblock /run/files/lock true; code=$?; cat /run/files/held; exit $code";

fn refused(client: &Guest) -> Result<()> {
    let ended = client.run("/bin/sh", &["-c", TRY])?;
    assert_eq!((ended.status, ended.output.as_str()), (1, "by gamma\n"), "{ended:?}");
    Ok(())
}

/// No acknowledged line is lost, no client sees an error, and a lock stays with who has it: when the node that serves loses power, when an
/// operator moves the server, and when the server dies on a node that lives.
#[test]
fn what_is_mounted_and_locked_outlives_the_node_that_serves_it() -> Result<()> {
    let cluster = served()?;
    let lab = cluster.lab();
    let (alpha, gamma, other) = (lab.node("alpha"), lab.node("gamma"), lab.target());
    mount(gamma, "vers=4.2")?;
    mount(other, "vers=4.2")?;
    let client = writer(&cluster)?;
    gamma.shell(&format!("echo by gamma >{MOUNTED}/held && sync {MOUNTED}/held"))?;
    let lock = format!("{MOUNTED}/lock");
    gamma.start("/usr/bin/flock", &["--no-fork", &lock, "/bin/sleep", "100000"])?;
    eventually("gamma has the lock", || refused_or_told(other));

    let before = client.acknowledged().len();
    alpha.power_off()?;
    // While nobody serves, and in the time of grace.
    let early = other.start("/bin/sh", &["-c", TRY])?;
    cluster.until_placed(FILES, "beta");
    client.until_served();
    assert_eq!(early.wait()?.status, 1, "another client got the lock");
    refused(other)?;
    let history = tell(&cluster, "beta", "the node that serves loses power", &client, before)?;
    assert!(history.contains("failover from alpha to beta") && history.contains("alpha was not heard"), "{history}");

    alpha.power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    let before = client.acknowledged().len();
    eventually("it is to be moved", || cluster.ask("beta", &["move", FILES, "alpha", "--no-wait"]).map(drop));
    cluster.until_placed(FILES, "alpha");
    client.until_served();
    refused(other)?;
    let history = tell(&cluster, "alpha", "an operator moves it", &client, before)?;
    assert!(history.contains("switchover from beta to alpha"), "{history}");

    let before = client.acknowledged().len();
    alpha.shell("rpc.nfsd 0")?;
    client.until_served();
    refused(other)?;
    cluster.until_placed(FILES, "alpha");
    let history = tell(&cluster, "alpha", "the server dies on a node that lives", &client, before)?;
    assert!(history.contains("local recovery on alpha") && history.contains("server failed"), "{history}");

    // It was a lock: the other client gets it when it is given back.
    gamma.shell("pkill -x sleep")?;
    other.shell(&format!("flock --timeout 60 {lock} true"))?;
    for client in [gamma, other] {
        assert!(client.shell("! dmesg | grep -iE 'nfs.*(lost|reclaim|stale)'").is_ok(), "{}", client.shell("dmesg")?);
    }

    let acknowledged = client.end();
    gamma.shell("kill -KILL $(pidof lab-ledger)")?;
    for client in [gamma, other] {
        client.shell(&format!("umount {MOUNTED}"))?;
    }
    cluster.ask("alpha", &["stop", FILES])?;
    alpha.shell(&format!("e2fsck -fn {}", disk_link(0)))?;
    let entries = alpha.shell(&format!("debugfs -R 'cat export/entries' {} 2>/dev/null", disk_link(0)))?;
    judge(&entries, &acknowledged).map(drop)
}

/// For people who read the test's output: how long the writer had no answer, and how a node explains it. Returns the explanation.
fn tell(cluster: &KernelCluster, node: &str, what: &str, client: &LedgerClient, before: usize) -> Result<String> {
    eprintln!("{what}: longest time without an answer {:.1?}", client.outage_since(before));
    let history = cluster.ask(node, &["history", "--last", "1"])?;
    eprintln!("{}", history.trim_end());
    Ok(history)
}

fn refused_or_told(client: &Guest) -> Result<()> {
    let ended = client.run("/bin/sh", &["-c", TRY])?;
    if ended.status == 1 { Ok(()) } else { Err(Trouble::new(format!("{ended:?}"))) }
}

/// An NFS server without any agent, for what a client of it goes through.
fn plain_server(node: &Guest) -> Result<()> {
    node.shell(&format!(
        "modprobe nfsd && mkdir -p /srv/files && mount {} /srv/files && echo page >/srv/files/export/page && \
         mount -t nfsd nfsd /proc/fs/nfsd && \
         exportfs -o rw,sync,no_subtree_check,fsid=0 10.77.0.0/24:/srv/files/export && \
         (setsid rpc.mountd --foreground -N 2 -N 3 </dev/null >/dev/null 2>&1 &) && \
         rpc.nfsd --no-nfs-version 3 --grace-time 10 --lease-time 10 2",
        disk_link(0)
    ))
    .map(drop)
}

fn said(node: &Guest, operation: &str, resource: &str) -> Result<String> {
    let said = operate(node, operation, resource)?;
    eprintln!("{operation}: {said}");
    Ok(said)
}

/// A client is ready without a device, its users are found by their mount, and a server that is gone keeps neither a monitor nor a start nor a
/// stop by force from their end.
#[test]
fn a_client_of_a_server_that_is_gone_is_stopped_by_force_and_leaves_nothing() -> Result<()> {
    need(&PROGRAMS)?;
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).memory(192).ext4(shared).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    plain_server(alpha)?;
    beta.shell("modprobe nfsv4")?;
    let files = |at: &str| {
        format!(
            r#"Filesystem(name: "files", device: "10.77.0.1:/", at: {at:?}, fstype: "nfs", options: ["vers=4.2"], mount_point: Created)"#
        )
    };
    let (ours, theirs) = (files("/run/ours"), files("/run/theirs"));
    let short = Duration::from_secs(5);

    assert_eq!(said(beta, "ready", &ours)?, "done");
    assert_eq!(said(beta, "adopt", &ours)?, "stopped");
    assert_eq!(said(beta, "start", &ours)?, "done");
    assert_eq!(said(beta, "start", &ours)?, "done");
    assert_eq!(said(beta, "monitor", &ours)?, "good");
    assert_eq!(said(beta, "adopt", &ours)?, "running");
    assert_eq!(beta.shell("cat /run/ours/page")?, "page\n");

    // The same files, mounted a second time, have the same device: only who uses them by this mount is asked to go.
    assert_eq!(said(beta, "start", &theirs)?, "done");
    beta.start("/usr/bin/env", &["--chdir=/run/ours", "/bin/sleep", "1001"])?;
    beta.start("/usr/bin/env", &["--chdir=/run/theirs", "/bin/sleep", "1002"])?;
    eventually("both use it", || beta.shell("pgrep -f 'sleep 1001$' && pgrep -f 'sleep 1002$'"));
    assert_eq!(said(beta, "stop", &ours)?, "done");
    assert_eq!(said(beta, "stop", &ours)?, "done");
    assert!(beta.shell("pgrep -f 'sleep 1001$'").is_err(), "who used it still lives");
    beta.shell("pgrep -f 'sleep 1002$'")?;
    assert_eq!(said(beta, "stop", &theirs)?, "done");
    assert!(beta.shell("grep :2049 /proc/mounts || grep ' 801 ' /proc/fs/nfsfs/volumes").is_err());

    // Somebody writes, and the server is gone.
    assert_eq!(said(beta, "start", &ours)?, "done");
    beta.start("/bin/sh", &["-c", "exec >/run/ours/written; while head -c 100000 /dev/zero; do sleep 0.1; done"])?;
    eventually("it writes", || beta.shell("test -s /run/ours/written"));
    lab.cut(alpha, Network::Cluster)?;
    beta.shell("sleep 2; echo 3 >/proc/sys/vm/drop_caches")?;
    let monitored = operate_within(beta, "monitor", short, &ours)?;
    assert!(monitored.starts_with("unknown: ") && monitored.contains("does not answer"), "{monitored}");
    let started = operate_within(beta, "start", short, &theirs)?;
    eprintln!("start without a server: {started}");
    assert!(started.contains("the NFS server 10.77.0.1 does not answer"), "{started}");
    let stopped = operate_within(beta, "stop", short, &ours)?;
    eprintln!("stop without a server: {stopped}");
    assert!(stopped.starts_with("failed: "), "{stopped}");
    let killed = operate_within(beta, "kill", Duration::from_secs(20), &ours)?;
    eprintln!("kill without a server: {killed}");
    assert_eq!(killed, "done");
    assert!(beta.shell("grep /run/ours /proc/mounts || grep ' 801 ' /proc/fs/nfsfs/volumes").is_err());

    // The server comes back, and is used again.
    lab.join(alpha, Network::Cluster)?;
    assert_eq!(said(beta, "start", &ours)?, "done");
    assert_eq!(said(beta, "monitor", &ours)?, "good");
    assert_eq!(said(beta, "stop", &ours)?, "done");
    Ok(())
}
