//! A machine that has far too much to do: nothing may move because of that. The laboratory's own files are in memory, as the storage of a
//! cluster is not the disk of one of its nodes: storage that does not answer is another fault (`storage.rs`).

use std::fs;
use std::path::Path;

use ha_tests::cluster::{Lease, served};
use ha_tests::{Cluster, Lab, Load, Result, Trouble, Work, eventually};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// What keeps the machine busy.
const LOAD: Work = Work { computing: 50, flushing: 3, direct: 3 };
/// The agents and what keeps them from running share so many processors, if there are as many: with more the same work is no trouble.
const PROCESSORS: usize = 2;
/// So many renewals of each node's lease are lived through, ten in a second, unless `HA_RENEWALS` says otherwise.
const RENEWALS: u64 = 480;
/// So often in a row a monitor says that it does not know: more than is tolerated in calm, and less than under pressure.
const UNKNOWNS: usize = 6;

/// A hierarchy whose only resource is a monitor that counts its rounds, and is told by a file how often it is not to know.
fn watched() -> String {
    let monitor = "cd /run/lab; echo round >>rounds; left=$(cat unknowns 2>/dev/null); [ ${left:-0} -gt 0 ] || exit 0; \
                   echo $((left - 1)) >unknowns; exit 75";
    format!(
        r#"Hierarchy(
    name: "watched",
    nodes: ["beta", "alpha"],
    claim: LockArea("main"),
    resources: [
        Exec(
            name: "look",
            start: ["/bin/sh", "-c", "echo start >>/run/lab/starts"],
            stop: ["/bin/true"],
            monitor: ["/bin/sh", "-c", {monitor:?}],
            monitoring: (every: "1s"),
        ),
    ],
)
"#
    )
}

/// The processors that a process may run on.
fn processors(pid: Pid) -> Result<Vec<usize>> {
    let set = sched_getaffinity(pid).map_err(Trouble::new)?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Has this thread, and all that it starts from now on, run on a few processors only.
fn on_few_processors() -> Result<()> {
    let all = processors(Pid::this())?;
    let mut few = CpuSet::new();
    for cpu in all.iter().take(PROCESSORS) {
        few.set(*cpu).map_err(Trouble::new)?;
    }
    sched_setaffinity(Pid::from_raw(0), &few).map_err(Trouble::new)?;
    println!("of {} processors, the laboratory and its load have {:?}", all.len(), processors(Pid::from_raw(0))?);
    Ok(())
}

/// How often each node has renewed its lease, as it says itself.
fn renewals(cluster: &Cluster) -> Result<Vec<u64>> {
    let shown = cluster.ask("alpha", &["lock-area", "show", "main"])?;
    let beats =
        shown.lines().filter_map(|line| line.strip_prefix("node ")?.rsplit_once("beat ")?.1.trim().parse().ok());
    let beats: Vec<u64> = beats.collect();
    if beats.len() == 2 { Ok(beats) } else { Err(Trouble::new(format!("no two beats in: {shown}"))) }
}

/// The threads of a process: name and scheduling policy (`proc_pid_stat(5)`, field 41).
fn policies(pid: Pid) -> Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let policy = rest.split_whitespace().nth(38).and_then(|field| field.parse().ok());
        found.push((name.to_owned(), policy.ok_or_else(|| Trouble::new(format!("no policy in {stat}")))?));
    }
    Ok(found)
}

/// What must not wait for others does not have to: the agent's loop, its channels, and whatever renews its leases.
fn assert_urgent(cluster: &Cluster) -> Result<()> {
    const REAL_TIME: u32 = 2;
    for node in cluster.lab().nodes() {
        let said = cluster.said(node.name(), &["status"])?;
        let pid = node.agent()?.ok_or_else(|| Trouble::new("no agent"))?;
        if said.contains("not real-time") || said.contains("not locked") {
            eprintln!("SKIPPED: priority and memory of the agent, which this machine refuses: {said}");
            continue;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap_or_default().trim();
        assert_ne!(locked, "0 kB", "nothing of the agent's memory is locked");
        let policies = policies(pid)?;
        println!("{}: {locked} locked, threads {policies:?}", node.name());
        for wanted in ["tokio", "ha-block-io"] {
            let mut of_name = policies.iter().filter(|(name, _)| name.starts_with(wanted)).peekable();
            assert!(of_name.peek().is_some(), "no thread {wanted}: {policies:?}");
            assert!(of_name.all(|(_, policy)| *policy == REAL_TIME), "{policies:?}");
        }
    }
    Ok(())
}

/// How often a kind of event was told on a node.
fn count(cluster: &Cluster, node: &str, kind: &str) -> Result<usize> {
    Ok(cluster.events(node)?.iter().filter(|event| event.kind() == kind).count())
}

/// L4, S6: fifty busy programs and heavy writing, on the same few cores that the agents run on, and all that stands for networks and storage:
/// every service goes on in one tenure and is not restarted, every lease is renewed in time, and a monitor that does not know is borne with.
#[test]
fn fifty_busy_programs_and_heavy_writing_move_nothing() -> Result<()> {
    on_few_processors()?;
    let web = served("web", &["alpha", "beta"])?;
    let other = ha_tests::cluster::witnessed("other", &["beta", "alpha"], 10)?;
    let hierarchies = [("web", web), ("other", other), ("watched", watched())];
    let lab = Lab::with_nodes(&["alpha", "beta"]);
    let cluster = Cluster::with_leases(lab, 2, &hierarchies, Lease::Lasting)?;
    cluster.start()?;
    for (name, node) in [("web", "alpha"), ("other", "beta"), ("watched", "beta")] {
        cluster.until_placed(name, node);
    }
    assert_urgent(&cluster)?;
    for node in cluster.lab().nodes() {
        let pid = node.agent()?.ok_or_else(|| Trouble::new("no agent"))?;
        assert!(processors(pid)?.len() <= PROCESSORS, "the agent of {} runs on {:?}", node.name(), processors(pid)?);
    }
    let client = cluster.client()?;
    eventually("the client is served", || client.served_by().ok_or("no answer"));
    let settled = ["alpha", "beta"].map(|node| cluster.events(node).map(|events| events.len()));
    let [alpha_before, beta_before] = settled;
    let before = [alpha_before?, beta_before?];
    let rounds =
        || fs::read_to_string(cluster.node("beta").dir().join("rounds")).map_or(0, |text| text.lines().count());

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let load = Load::new(LOAD, folder.path())?;
    let told = Path::new("/proc/pressure/cpu").exists();
    if told {
        for node in ["alpha", "beta"] {
            cluster.until_said(node, &["status"], &["its machine is under pressure"]);
        }
        let unknowns = cluster.node("beta").dir().join("unknowns");
        fs::write(&unknowns, UNKNOWNS.to_string())?;
        eventually("the monitor has not known so often", || {
            let left = fs::read_to_string(&unknowns).unwrap_or_default();
            if left.trim() == "0" { Ok(()) } else { Err(left) }
        });
    } else {
        eprintln!("SKIPPED: what follows from pressure, of which this kernel does not tell (/proc/pressure)");
    }
    let (begun, rounds_before) = (renewals(&cluster)?, rounds());
    let wanted = std::env::var("HA_RENEWALS").ok().and_then(|count| count.parse().ok()).unwrap_or(RENEWALS);
    for part in 1..=12 {
        eventually(&format!("{part} of 12 parts of the renewals"), || {
            let now = renewals(&cluster).map_err(|trouble| trouble.to_string())?;
            let done = now.iter().zip(&begun).all(|(now, begun)| now - begun >= wanted / 12 * part);
            if done { Ok(()) } else { Err(format!("{begun:?} {now:?}")) }
        });
    }
    let rounds = rounds() - rounds_before;
    println!("rounds of the monitor meanwhile: {rounds}; the kernel: {}", fs::read_to_string("/proc/loadavg")?.trim());
    assert!(rounds > 3, "the monitor was forgotten: {rounds} rounds");

    let verdict = cluster.lab().witness().check()?;
    for (name, node) in [("web", "alpha"), ("other", "beta")] {
        assert_eq!(verdict.nodes_of(name), [node]);
        assert_eq!(verdict.of(name)[0].starts, 1, "{name} was restarted");
    }
    let starts = fs::read_to_string(cluster.node("beta").dir().join("starts"))?;
    assert_eq!(starts, "start\n", "a monitor that did not know was taken for a failure");
    for (node, before) in ["alpha", "beta"].into_iter().zip(before) {
        let events = cluster.events(node)?;
        let since: Vec<&str> = events[before..].iter().map(|event| event.line.as_str()).collect();
        let moved = events[before..].iter().find(|event| {
            let kinds =
                ["phase", "claim-asked", "claim-lost", "claim-released", "unproven", "resource-failed", "declined"];
            kinds.contains(&event.kind())
        });
        assert!(moved.is_none(), "{node}: {since:#?}");
        println!("{node} told meanwhile: {since:#?}");
        if told {
            assert!(events.iter().any(|event| event.line.contains("this machine is under pressure")), "{since:#?}");
        }
    }
    if told {
        assert!(count(&cluster, "beta", "monitor-unknown")? >= UNKNOWNS);
    }
    assert_urgent(&cluster)?;
    drop(load);

    // And afterwards all is as before.
    assert_eq!(client.servers().len(), 1, "{:?}", client.servers());
    eventually("the client is served", || client.served_by().ok_or("no answer"));
    println!("the client: {:?}", client.finish());
    for (name, node) in [("web", "alpha"), ("other", "beta"), ("watched", "beta")] {
        cluster.until_placed(name, node);
    }
    cluster.until_heard("alpha", "beta", "alive");
    Ok(())
}
