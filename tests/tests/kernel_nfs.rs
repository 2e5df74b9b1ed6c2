//! NFS on real kernels, both sides: the examples `hierarchies/files.ron` and `hierarchies/homes.ron` with clients that write and hold a lock while
//! their node loses power, and `Filesystem` as a client of a server that goes away.
//!
//! Needs the packages nfs-kernel-server, nfs-common and rpcbind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_tests::kernel::ledger::judge;
use ha_tests::kernel::resource::{operate, operate_within};
use ha_tests::kernel::{ClaimKind, Guest, KernelCluster, KernelLab, LedgerClient, Network, disk_link};
use ha_tests::{Result, Trouble, eventually, need, program};
use nix::unistd::User;

/// An example, and what its machines have beside it.
struct Example {
    /// Its name, its file's and its hierarchy's.
    name: &'static str,
    /// The devices and addresses in it, beside the network's.
    device: &'static str,
    /// What the order of services at boot does on a node, before the agent.
    boot: &'static str,
    /// The programs, and the package of each.
    programs: &'static [(&'static str, &'static str)],
}

/// Version 4 only.
const FILES: Example = Example {
    name: "files",
    device: "/dev/disk/by-id/wwn-0x6001405a1b2c3d4e5f60718293a4b5c6",
    boot: "modprobe nfsd",
    programs: &PROGRAMS,
};

/// Versions 3 and 4.
const HOMES: Example = Example {
    name: "homes",
    device: "/dev/disk/by-id/wwn-0x6001405b2c3d4e5f60718293a4b5c6d7",
    boot: "modprobe nfsd; mkdir -p /run/rpcbind; rpcbind; echo 10.77.0.21 homes >>/etc/hosts",
    programs: &[PROGRAMS[0], PROGRAMS[1], PROGRAMS[2], ("/sbin/rpcbind", "rpcbind")],
};

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

impl Example {
    /// Where it is kept in a node's configuration.
    fn file(&self) -> String {
        format!("hierarchies/{}.ron", self.name)
    }

    /// As it stands, on the laboratory's first two nodes, its disk and its network.
    fn text(&self) -> Result<String> {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(self.file());
        let mut text = fs::read_to_string(file)?;
        for (from, to) in
            [(r#"["beta", "gamma"]"#, r#"["alpha", "beta"]"#), (self.device, &disk_link(0)), ("10.0.0.", "10.77.0.")]
        {
            assert!(text.contains(from), "{} has no {from}", self.file());
            text = text.replace(from, to);
        }
        Ok(text)
    }
}

/// What is on the disk before the first start: a directory that every client may write to, and room for the notes about clients of version 3.
fn shared(disk: &Path) -> Result<()> {
    let statd = User::from_name("statd").ok().flatten().ok_or_else(|| Trouble::new("there is no user statd"))?;
    for notes in [".statd", ".statd/sm", ".statd/sm.bak", ".notify", ".notify/sm", ".notify/sm.bak"] {
        let notes = disk.join(notes);
        fs::create_dir(&notes)?;
        chown(notes, Some(statd.uid.as_raw()), Some(statd.gid.as_raw()))?;
    }
    let export = disk.join("export");
    fs::create_dir(&export)?;
    Ok(fs::set_permissions(&export, fs::Permissions::from_mode(0o1777))?)
}

/// Two nodes that serve an example, and gamma without an agent.
fn served(example: &Example) -> Result<KernelCluster> {
    need(example.programs)?;
    let lab = KernelLab::with_nodes(&["alpha", "beta", "gamma"]).memory(192).ext4(shared);
    let cluster =
        KernelCluster::configured(lab, ClaimKind::Reservation, r#"Process(name: "app", command: ["/bin/true"])"#)?;
    for node in &cluster.lab().nodes()[..2] {
        let etc = node.dir().join("etc");
        fs::remove_file(etc.join("hierarchies/ledger.ron"))?;
        fs::write(etc.join(example.file()), example.text()?)?;
        let agent = fs::read_to_string(etc.join("agent.ron"))?;
        let nodes: Vec<&str> = agent.lines().filter(|line| !line.contains("\"gamma\"")).collect();
        fs::write(etc.join("agent.ron"), nodes.join("\n"))?;
        // It is on already.
        node.shell(example.boot)?;
        node.change(|spec| {
            let script = format!("{}; exec {}", example.boot, spec.agent.join(" "));
            spec.agent = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        })?;
        node.start_agent()?;
    }
    cluster.until_heard("alpha", "beta", "alive");
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_placed(example.name, "alpha");
    Ok(cluster)
}

/// Has a machine mount what is served.
fn mount(client: &Guest, options: &str, from: &str, at: &str) -> Result<()> {
    client.shell(&format!("mkdir -p {at} && mount -t nfs -o {options} {from} {at}")).map(drop)
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

/// Has gamma take a lock, which is then refused to another client.
fn locked(gamma: &Guest, other: &Guest) -> Result<()> {
    gamma.shell(&format!("echo by gamma >{MOUNTED}/held && sync {MOUNTED}/held"))?;
    gamma.start("/usr/bin/flock", &["--no-fork", &format!("{MOUNTED}/lock"), "/bin/sleep", "100000"])?;
    eventually("gamma has the lock", || refused_or_told(other));
    Ok(())
}

/// It was a lock: the other client gets it when gamma gives it back. No client was told that it had lost one, everything can be unmounted, and what
/// was acknowledged is on the disk.
fn given_back(cluster: &KernelCluster, example: &Example, serves: &Guest, client: LedgerClient) -> Result<()> {
    let (gamma, other) = (cluster.lab().node("gamma"), cluster.lab().target());
    gamma.shell("pkill -x sleep")?;
    other.shell(&format!("flock --timeout 60 {MOUNTED}/lock true"))?;
    for client in [gamma, other] {
        let said = client.shell("dmesg | grep -iE 'nfs.*(lost|reclaim|stale)|lockd: (failed|cannot)' || true")?;
        assert_eq!(said, "", "{}", client.name());
    }

    let acknowledged = client.end();
    gamma.shell("kill -KILL $(pidof lab-ledger)")?;
    for client in [gamma, other] {
        client.shell("umount --all --types nfs,nfs4")?;
    }
    cluster.ask(serves.name(), &["stop", example.name])?;
    serves.shell(&format!("e2fsck -fn {}", disk_link(0)))?;
    let entries = serves.shell(&format!("debugfs -R 'cat export/entries' {} 2>/dev/null", disk_link(0)))?;
    judge(&entries, &acknowledged).map(drop)
}

/// No acknowledged line is lost, no client sees an error, and a lock stays with who has it: when the node that serves loses power, when an
/// operator moves the server, and when the server dies on a node that lives.
#[test]
fn what_is_mounted_and_locked_outlives_the_node_that_serves_it() -> Result<()> {
    let cluster = served(&FILES)?;
    let lab = cluster.lab();
    let (alpha, gamma, other) = (lab.node("alpha"), lab.node("gamma"), lab.target());
    for client in [gamma, other] {
        client.shell("modprobe nfsv4")?;
        mount(client, "vers=4.2", "10.77.0.20:/", MOUNTED)?;
    }
    let client = writer(&cluster)?;
    locked(gamma, other)?;

    let before = client.acknowledged().len();
    alpha.power_off()?;
    // While nobody serves, and in the time of grace.
    let early = other.start("/bin/sh", &["-c", TRY])?;
    cluster.until_placed(FILES.name, "beta");
    client.until_served();
    assert_eq!(early.wait()?.status, 1, "another client got the lock");
    refused(other)?;
    let history = tell(&cluster, "beta", "the node that serves loses power", &client, before)?;
    assert!(history.contains("failover from alpha to beta") && history.contains("alpha was not heard"), "{history}");

    alpha.power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    let before = client.acknowledged().len();
    eventually("it is to be moved", || cluster.ask("beta", &["move", FILES.name, "alpha", "--no-wait"]).map(drop));
    cluster.until_placed(FILES.name, "alpha");
    client.until_served();
    refused(other)?;
    let history = tell(&cluster, "alpha", "an operator moves it", &client, before)?;
    assert!(history.contains("switchover from beta to alpha"), "{history}");

    let before = client.acknowledged().len();
    alpha.shell("rpc.nfsd 0")?;
    client.until_served();
    refused(other)?;
    cluster.until_placed(FILES.name, "alpha");
    let history = tell(&cluster, "alpha", "the server dies on a node that lives", &client, before)?;
    assert!(history.contains("local recovery on alpha") && history.contains("server failed"), "{history}");

    given_back(&cluster, &FILES, alpha, client)
}

/// The same by version 3, which has no state of its own: rpc.statd's notes are taken over, and sm-notify has clients take their locks back. Also
/// when rpc.statd dies on a node that lives, and when its rpcbind does, which is a reason to hand over. All the while version 4 says the same.
#[test]
fn what_is_locked_by_version_3_is_taken_back_from_the_next_node() -> Result<()> {
    let cluster = served(&HOMES)?;
    let lab = cluster.lab();
    let (alpha, beta, gamma, other) = (lab.node("alpha"), lab.node("beta"), lab.node("gamma"), lab.target());
    for client in [gamma, other] {
        client.shell("modprobe nfsv3 && mkdir -p /run/rpcbind && rpcbind")?;
        mount(client, "vers=3,timeo=50", "10.77.0.21:/srv/homes/export", MOUNTED)?;
    }
    other.shell("modprobe nfsv4")?;
    mount(other, "vers=4.2", "10.77.0.21:/", "/run/four")?;
    let refused_by_both = || {
        refused(other)?;
        let ended = other.run("/usr/bin/flock", &["--nonblock", "/run/four/lock", "true"])?;
        assert_eq!(ended.status, 1, "by version 4: {ended:?}");
        Ok::<(), Trouble>(())
    };
    let client = writer(&cluster)?;
    locked(gamma, other)?;

    let before = client.acknowledged().len();
    alpha.power_off()?;
    // While nobody serves, and in the time of grace.
    let early = other.start("/bin/sh", &["-c", TRY])?;
    cluster.until_placed(HOMES.name, "beta");
    client.until_served();
    assert_eq!(early.wait()?.status, 1, "another client got the lock");
    refused_by_both()?;
    let history = tell(&cluster, "beta", "the node that serves loses power", &client, before)?;
    assert!(history.contains("failover from alpha to beta") && history.contains("alpha was not heard"), "{history}");

    let before = client.acknowledged().len();
    beta.shell("kill -KILL $(pidof rpc.statd)")?;
    eventually("it has recovered", || {
        let history = cluster.ask("beta", &["history", "--last", "1"])?;
        if history.contains("local recovery on beta") { Ok(()) } else { Err(Trouble::new(history)) }
    });
    client.until_served();
    refused_by_both()?;
    let history = tell(&cluster, "beta", "rpc.statd dies on a node that lives", &client, before)?;
    assert!(history.contains("statd failed"), "{history}");

    alpha.power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    eventually("alpha can serve", || {
        let why = cluster.ask("alpha", &["why", HOMES.name])?;
        if why.contains("beta holds the claim") { Ok(()) } else { Err(Trouble::new(why)) }
    });
    let before = client.acknowledged().len();
    beta.shell("kill $(pidof rpcbind)")?;
    cluster.until_placed(HOMES.name, "alpha");
    client.until_served();
    refused_by_both()?;
    let history = tell(&cluster, "alpha", "rpcbind ends on a node that lives", &client, before)?;
    // Either the probe or mountd's monitor sees it first.
    assert!(history.contains("from beta to alpha") && !history.contains("not heard"), "{history}");

    beta.shell("rpcbind")?;
    let before = client.acknowledged().len();
    eventually("it is to be moved", || cluster.ask("alpha", &["move", HOMES.name, "beta", "--no-wait"]).map(drop));
    cluster.until_placed(HOMES.name, "beta");
    client.until_served();
    refused_by_both()?;
    let history = tell(&cluster, "beta", "an operator moves it", &client, before)?;
    assert!(history.contains("switchover from alpha to beta"), "{history}");

    given_back(&cluster, &HOMES, beta, client)
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
