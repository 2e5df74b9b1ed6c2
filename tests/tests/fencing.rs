//! Fencing of nodes: real fence agents (Debian's `fence-agents`) read and run, and nodes of a laboratory switched off and on through an agent of its
//! own, which asks the laboratory's power switch.

#![expect(clippy::unwrap_used, reason = "what fails here is the laboratory, not what is tested")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use ha_resources::fence::agents::{DeviceSpec, FenceDevice, Findings, PowerState, Proof, fence, switch_on};
use ha_tests::cluster::{Lease, served, write};
use ha_tests::switch::{self, AGENT, Turn};
use ha_tests::{Client, Cluster, Lab, Result, Spare, Trouble, eventually};

/// An error that says so, loudly, if the real agents are not here.
fn need_agents() -> Result<()> {
    if !Path::new("/usr/sbin/fence_ipmilan").exists() {
        let what = "this test NEEDS fence-agents: it was NOT RUN; install this package, or use tests/run";
        return Err(Trouble::new(what));
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn device(agent: &str, params: &[(&str, &str)], secrets: &[(&str, &Path)]) -> FenceDevice {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let secrets = secrets.iter().map(|(name, file)| ((*name).to_owned(), file.to_path_buf())).collect();
    FenceDevice::new(DeviceSpec { params, secrets, ..DeviceSpec::new(agent) }, None)
}

/// What all agents of the package say of themselves is understood: what they miss is only what nobody gave them.
#[test]
fn the_meta_data_of_every_installed_fence_agent_are_read() -> Result<()> {
    need_agents()?;
    let mut agents: Vec<PathBuf> = fs::read_dir("/usr/sbin")?.map(|entry| entry.unwrap().path()).collect();
    agents.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("fence_"));
    agents.sort();
    let runtime = runtime();
    let found: Vec<(String, Findings)> = runtime.block_on(async {
        let checks = futures::stream::iter(&agents).map(|path| async move {
            let agent = path.to_string_lossy().into_owned();
            let findings = device(&agent, &[], &[]).check().await;
            (agent, findings)
        });
        // A few at a time: they are large programs, and have a deadline.
        checks.buffer_unordered(2).collect().await
    });
    let (mut read, mut mute, mut fabric) = (0, Vec::new(), Vec::new());
    for (agent, findings) in &found {
        let name = agent.trim_start_matches("/usr/sbin/");
        // Not one of the API: it asks an operator to say that a node is off.
        if name == "fence_ack_manual" {
            assert!(findings.mistakes[0].contains("its meta-data"), "{findings:?}");
            continue;
        }
        let strange: Vec<&String> = findings.mistakes.iter().filter(|m| !m.contains("is required")).collect();
        assert!(strange.is_empty(), "{name}: {strange:?}");
        let says = |words: &str| findings.warnings.iter().any(|warning| warning.contains(words));
        if says("no status") {
            mute.push(name);
        }
        if says("leaves its power alone") {
            fabric.push(name);
        }
        read += 1;
    }
    eprintln!("{read} agents were read; without status: {mute:?}; that cut off something else than power: {fabric:?}");
    assert!(read > 70, "{read}");
    for power in ["fence_ipmilan", "fence_apc", "fence_virsh", "fence_redfish", "fence_sbd"] {
        assert!(!mute.contains(&power) && !fabric.contains(&power), "{power}");
    }
    assert!(fabric.contains(&"fence_scsi") && fabric.contains(&"fence_mpath") && mute.contains(&"fence_kdump"));
    Ok(())
}

/// Parameters as an administrator writes them fit, and the usual mistakes do not.
#[test]
fn parameters_are_checked_against_real_meta_data() -> Result<()> {
    need_agents()?;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "hunter2\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let runtime = runtime();
    let check = |agent: &str, params: &[(&str, &str)]| {
        runtime.block_on(device(agent, params, &[("password", &secret)]).check())
    };
    let ipmi = [("ip", "10.9.0.1"), ("username", "ha"), ("lanplus", "true"), ("auth", "md5")];
    assert_eq!(check("fence_ipmilan", &ipmi), Findings::default());
    let plug = [("ip", "10.9.0.1"), ("username", "apc"), ("plug", "3")];
    assert_eq!(check("fence_apc", &plug), Findings::default());
    let wrong =
        check("fence_ipmilan", &[("lanplsu", "true"), ("auth", "md6"), ("ipport", "ipmi"), ("ipaddr", "10.9.0.1")]);
    let said = wrong.mistakes.join("\n");
    for expected in [
        "did you mean `lanplus`?",
        "`auth` is \"md6\": expected one of",
        "`ipport` is \"ipmi\": expected a whole number",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(wrong.warnings.iter().any(|warning| warning.contains("`ipaddr` is deprecated: use `ip`")), "{wrong:?}");
    Ok(())
}

/// A real agent of the package, run from end to end: its device is a file.
#[test]
fn a_real_agent_switches_off_proves_it_and_switches_on() -> Result<()> {
    need_agents()?;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let file = state.to_string_lossy().into_owned();
    fs::write(&state, "on")?;
    runtime().block_on(async {
        let (progress, _steps) = tokio::sync::mpsc::unbounded_channel();
        let levels = [vec![device("fence_dummy", &[("type", "file"), ("status_file", &file)], &[])]];
        assert_eq!(levels[0][0].status().await, Ok(PowerState::On));
        let report = fence(&levels, &progress).await;
        assert_eq!(report.proof, Proof::Off, "{report:?}");
        assert_eq!(fs::read_to_string(&state).unwrap().trim(), "off");
        switch_on(1, &levels[0], &progress).await.unwrap();
        assert_eq!(levels[0][0].status().await, Ok(PowerState::On));
        // One that talks to a machine where nobody listens says what it says, and proves nothing.
        let silent = DeviceSpec {
            params: BTreeMap::from(
                [("ip", "127.0.0.1"), ("ipport", "9"), ("username", "x"), ("plug", "1"), ("login_timeout", "1")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ),
            timeout: Duration::from_secs(20),
            ..DeviceSpec::new("fence_apc")
        };
        let report = fence(&[vec![FenceDevice::new(silent, None)]], &progress).await;
        assert_eq!(report.proof, Proof::None);
        assert!(report.describe().contains("does not say"), "{}", report.describe());
    });
    Ok(())
}

/// Alpha serves "web", beta is next; every node of the laboratory can be fenced by these levels (`{node}` is the node).
fn with_fencing(levels: &str, what: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let agents = Agents { by: "Operator", lease: Lease::Short, watchdog: "Warden" };
    with_fencing_by(agents, served("web", &NODES)?, levels, what)
}

const NODES: [&str; 2] = ["alpha", "beta"];

/// How the agents are to be: who has nodes fenced, how long leases are, and what resets a node from within.
struct Agents {
    by: &'static str,
    lease: Lease,
    watchdog: &'static str,
}

fn with_fencing_by(agents: Agents, web: String, levels: &str, what: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let Agents { by, lease, watchdog } = agents;
    let cluster = Cluster::with_leases(Lab::with_nodes(&NODES), 1, &[("web", web)], lease)?;
    for node in cluster.lab().nodes() {
        let etc = node.dir().join("etc");
        switch::install(&etc)?;
        let mut text = fs::read_to_string(etc.join("agent.ron"))?;
        for (place, name) in NODES.iter().enumerate() {
            let address = format!("\"10.77.0.{}:7946\"]", place + 1);
            let fencing = levels.replace("{node}", name).replace("fence_lab", AGENT);
            text = text.replace(&address, &format!("{address}, fencing: {fencing}"));
        }
        let by = format!("fencing_by: {by},\n    fencing_check_every: \"1s\",\n    keys:");
        let watched = format!("watchdog: {watchdog},\n    run_dir:");
        write(node, "agent.ron", &text.replace("keys:", &by).replace("watchdog: Warden,\n    run_dir:", &watched))?;
    }
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    let folders: Vec<PathBuf> = cluster.lab().nodes().iter().map(|node| node.dir().join("etc")).collect();
    let turn = |turn, plug: &str| {
        let node = cluster.node(plug);
        match turn {
            Turn::Off => node.power_off().map(|()| "done"),
            Turn::On => node.power_on().map(|()| "done"),
            Turn::Status => Ok(if node.is_on() { "on" } else { "off" }),
        }
    };
    switch::attended(&folders, turn, || what(&cluster))
}

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has_events(cluster: &Cluster, node: &str, expected: &[&str]) {
    eventually(&format!("the events of {node} have {expected:?}"), || {
        let lines: Vec<String> = cluster.events(node).map_err(|e| e.to_string())?.into_iter().map(|e| e.line).collect();
        let mut rest = lines.iter();
        let all = expected.iter().all(|words| rest.any(|line| line.contains(words)));
        if all { Ok(()) } else { Err(lines.join("\n")) }
    });
}

/// An operator's way: check, test, fence, and have the node back.
#[test]
fn an_operator_fences_a_node_and_sees_that_it_is_off() -> Result<()> {
    with_fencing(r#"[[(agent: "fence_lab", params: {"plug": "{node}"}, timeout: "20s")]]"#, |cluster| {
        let (alpha, beta) = (cluster.node("alpha"), cluster.node("beta"));
        let checked = flat(&cluster.said("beta", &["check", "--node", "beta"])?);
        assert!(!checked.contains("fencing of"), "{checked}");
        let tested = cluster.ha(beta, &["fence", "alpha", "--test"])?;
        eprintln!("{tested}");
        let tested = flat(&tested);
        for words in
            ["level 1, fence_lab (plug alpha), status: it says that the node is on", "every device of alpha answers"]
        {
            assert!(tested.contains(words), "{words}: {tested}");
        }
        for (arguments, words) in [
            (vec!["fence", "beta", "--reason", "x", "--yes"], "beta is this node"),
            (vec!["fence", "gamma", "--reason", "x", "--yes"], "there is no node gamma: expected one of alpha, beta"),
            (vec!["fence", "alpha", "--reason", "x"], "--yes was not given: nothing was changed"),
            (vec!["fence", "alpha", "--yes"], "--reason"),
        ] {
            let refused = cluster.ha(beta, &arguments).unwrap_err().to_string();
            assert!(refused.contains(words), "{words}: {refused}");
        }
        assert!(alpha.is_on());

        let fenced = cluster.ha(beta, &["fence", "alpha", "--reason", "it is sick", "--yes"])?;
        eprintln!("{fenced}");
        let fenced = flat(&fenced);
        assert!(fenced.contains("alpha is proven to be off"), "{fenced}");
        assert!(!alpha.is_on());
        cluster.until_placed("web", "beta");
        let proven = "alpha is fenced, proven to be off: level 1: fence_lab (plug alpha) says off";
        has_events(cluster, "beta", &["fencing alpha, by root@beta: it is sick", proven, "claim held"]);

        // Off already: that is proven, too. Then it is switched on.
        let again = flat(&cluster.ha(beta, &["fence", "alpha", "--reason", "once more", "--yes", "--reboot"])?);
        assert!(
            again.contains("alpha is proven to be off") && again.contains("alpha was switched on again"),
            "{again}"
        );
        assert!(alpha.is_on());
        cluster.until_heard("beta", "alpha", "alive");
        cluster.until_served_for("web", 1_000)?;
        let verdict = cluster.lab().witness().check()?;
        assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);

        fs::write(beta.dir().join("etc/cut"), "")?;
        let trouble = "fencing of alpha: level 1, fence_lab (plug alpha): monitor: exited with code 1; it said: the switch does not answer";
        cluster.until_said("beta", &["status"], &[trouble]);
        let tested = cluster.ha(beta, &["fence", "alpha", "--test"]).unwrap_err().to_string();
        assert!(flat(&tested).contains("fencing of alpha has troubles: 2"), "{tested}");
        fs::remove_file(beta.dir().join("etc/cut"))?;
        eventually("the trouble is over", || {
            let said = flat(&cluster.said("beta", &["status"]).map_err(|e| e.to_string())?);
            if said.contains("fencing of alpha") { Err(said) } else { Ok(()) }
        });
        Ok(())
    })
}

/// Agents that lie and hang: nothing is proven by them, nothing of them is left, and the next level is tried.
#[test]
fn what_is_not_proven_is_never_a_success() -> Result<()> {
    let levels = r#"[
        [(agent: "fence_lab", params: {"plug": "{node}", "mode": "lies"})],
        [(agent: "fence_lab", params: {"plug": "{node}", "mode": "hangs"}, timeout: "2s"), (agent: "fence_lab", params: {"plug": "{node}"})],
        [(agent: "fence_lab", params: {"plug": "{node}"}, timeout: "5s")]]"#;
    with_fencing(levels, |cluster| {
        let (alpha, beta) = (cluster.node("alpha"), cluster.node("beta"));
        fs::write(beta.dir().join("etc/cut"), "")?;
        let said = cluster.ha(beta, &["fence", "alpha", "--reason", "drill", "--yes"]).unwrap_err().to_string();
        let said = flat(&said);
        for words in [
            "NOT proven: alpha may be running",
            "level 1: fence_lab (plug alpha) says on",
            "fence_lab (plug alpha) does not say (off: /run/lab/etc/fence_lab was killed because it did not end within 2s)",
            "level 3: fence_lab (plug alpha) does not say (off: exited with code 1; it said: the switch does not answer)",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(alpha.is_on());
        has_events(
            cluster,
            "beta",
            &["fencing alpha, by root@beta: drill", "fencing alpha is NOT proven, it may be running: level 1"],
        );
        assert_eq!(cluster.status("beta")?.place("web"), Some("alpha"));

        // The devices can be reached again: the second level has one that hangs, the third proves it.
        fs::remove_file(beta.dir().join("etc/cut"))?;
        let said = flat(&cluster.ha(beta, &["fence", "alpha", "--reason", "in earnest", "--yes"])?);
        assert!(said.contains("alpha is proven to be off level 3: fence_lab (plug alpha) says off"), "{said}");
        assert!(!alpha.is_on());
        cluster.until_placed("web", "beta");
        eventually("nothing of the agents is left", || {
            let listed = beta.run("ps", &["-eo", "args"]).map_err(|e| e.to_string())?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            if listed.contains("sleep 10000") { Err(listed) } else { Ok(()) }
        });
        cluster.lab().witness().check().map(drop)
    })
}

/// A lease of ten minutes is not waited for: the holder is fenced by the node that needs it to be, and switched on again.
#[test]
fn a_holder_that_hangs_is_fenced_by_the_node_that_waits_for_its_lease() -> Result<()> {
    let levels = r#"[[(agent: "fence_lab", params: {"plug": "{node}"}, timeout: "20s")]]"#;
    let agents = Agents { by: "Nodes", lease: Lease::Long, watchdog: "Warden" };
    with_fencing_by(agents, served("web", &NODES)?, levels, |cluster| {
        let client = cluster.client()?;
        eventually("the client is served by alpha", || served_by(&client, "alpha"));
        client.forget();
        cluster.node("alpha").hang(Spare::Nothing)?;
        cluster.until_placed("web", "beta");
        eventually("the client is served by beta", || served_by(&client, "beta"));
        let begun = "fencing alpha, by ha@beta: it is silent, and web waits for the end of its lease";
        let proven = "alpha is fenced, proven to be off: level 1: fence_lab (plug alpha) says off";
        has_events(cluster, "beta", &[begun, proven, "claim held", "alpha was switched on again"]);
        eprintln!("{}", cluster.ask("beta", &["history", "web"])?);
        cluster.until_heard("beta", "alpha", "alive");
        cluster.until_served_for("web", 1_000)?;
        let verdict = cluster.lab().witness().check()?;
        assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);
        Ok(())
    })
}

/// S5: neither a stop nor force ends a resource, and nothing resets the node from within. What is below it goes on, under a lease of ten minutes, until the
/// node is switched off: only then it is served elsewhere.
#[test]
fn a_node_that_cannot_stop_what_it_serves_is_fenced_by_the_one_that_is_to_serve_it() -> Result<()> {
    let levels = r#"[[(agent: "fence_lab", params: {"plug": "{node}"}, timeout: "20s")]]"#;
    let stuck = r#"Exec(name: "stuck", start: ["/bin/true"], stop: ["/bin/false"], monitor: ["/bin/true"], kill: ["/bin/false"]),
    ],
)"#;
    let web = served("web", &NODES)?.replace("],\n)", stuck);
    assert!(web.contains("stuck"), "{web}");
    let agents = Agents { by: "Nodes", lease: Lease::Long, watchdog: "None" };
    with_fencing_by(agents, web, levels, |cluster| {
        let client = cluster.client()?;
        eventually("the client is served by alpha", || served_by(&client, "alpha"));
        // It does not come back to give up its lease of ten minutes.
        write(cluster.node("beta"), "broken", "")?;
        let moved = flat(&cluster.said("alpha", &["move", "web", "beta", "--reason", "an upgrade"])?);
        eprintln!("asked to move: {moved}");
        cluster.until_placed("web", "beta");
        eventually("the client is served by beta", || served_by(&client, "beta"));
        let begun = "fencing alpha, by ha@beta: it could not stop web";
        let proven = "alpha is fenced, proven to be off: level 1: fence_lab (plug alpha) says off";
        has_events(cluster, "beta", &[begun, proven, "claim held", "in service"]);
        has_events(cluster, "beta", &[proven, "alpha was not switched on again"]);
        eprintln!("{}", cluster.ask("beta", &["history", "web"])?);
        cluster.until_served_for("web", 1_000)?;
        let verdict = cluster.lab().witness().check()?;
        assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);
        assert_eq!(verdict.of("web")[0].starts, 1, "what is below was touched");
        Ok(())
    })
}

fn served_by(client: &Client, node: &str) -> std::result::Result<(), Option<(String, u64)>> {
    let served = client.served_by();
    if served.as_ref().is_some_and(|(by, _)| by == node) { Ok(()) } else { Err(served) }
}
