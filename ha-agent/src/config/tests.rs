//! What is said of files that are wrong: everything at once, each thing at its place.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Config, FencingBy, FlightSettings, OnKernelFault, WardenAct, WatchdogSettings, agent, read};
use ha_core::hierarchy::Source;

const GOOD: &str = r#"(
    cluster: "shop",
    nodes: {
        "alpha": (addresses: ["10.1.0.1:7946", "10.2.0.1:7946"]),
        "beta": (addresses: ["10.1.0.2:7946", "10.2.0.2:7946"]),
    },
    heartbeat: (interval: "50ms", dead_after: "500ms"),
    keys: "/etc/ha/keys",
    lock_areas: { "main": (path: "/dev/vdb", renew: "100ms", deadline: "1s", watchdog: "500ms", margin: "100ms") },
    watchdog: Warden(on_expiry: KillElseReset),
)"#;

fn config(text: &str) -> Config {
    let (config, diagnostics) = agent::read(&Source::new("agent.ron", text));
    config.unwrap_or_else(|| panic!("{diagnostics}"))
}

/// All mistakes as "line:column: message".
fn mistakes(text: &str) -> Vec<String> {
    let (_, diagnostics) = agent::read(&Source::new("agent.ron", text));
    diagnostics.problems().iter().map(|p| format!("{}:{}: {}", p.line, p.column, p.message)).collect()
}

#[test]
fn a_good_file_and_its_defaults() {
    let config = config(GOOD);
    assert_eq!(config.timing.late_after, Duration::from_millis(300));
    assert_eq!(config.lock_areas[0].timing.unwrap().expires_after(), Duration::from_millis(1600));
    assert_eq!(
        config.watchdog,
        WatchdogSettings::Warden { on_expiry: WardenAct::KillElseReset, margin: Duration::from_millis(500) }
    );
    assert_eq!(config.socket.path, Path::new("/run/ha/ha.sock"));
    assert_eq!(config.socket.mode, 0o660);
}

#[test]
fn late_after_follows_the_other_times() {
    let with = |times: &str| config(&GOOD.replace("interval: \"50ms\", dead_after: \"500ms\"", times)).timing;
    assert_eq!(with("interval: \"10ms\", dead_after: \"30ms\"").late_after, Duration::from_millis(20));
    assert_eq!(with("interval: \"1s\", dead_after: \"10s\"").late_after, Duration::from_secs(1));
    assert_eq!(with("dead_after: \"1min\"").startup_grace, Duration::from_secs(60));
}

#[test]
fn the_flight_recorder_is_on_unless_it_is_switched_off() {
    let with = |field: &str| GOOD.replace("watchdog: Warden", &format!("{field}\n    watchdog: Warden"));
    assert_eq!(config(GOOD).flight_recorder, FlightSettings::Ring { mebibytes: 64 });
    assert_eq!(config(&with("flight_recorder: Off,")).flight_recorder, FlightSettings::Off);
    let large = config(&with("flight_recorder: Ring(mebibytes: 256),"));
    assert_eq!(large.flight_recorder, FlightSettings::Ring { mebibytes: 256 });
    let wrong = mistakes(&with("flight_recorder: Ring(mebibytes: 1),"));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("mebibytes is 1: expected 4 to 65536"), "{wrong:?}");
}

#[test]
fn a_broken_kernel_is_reported_unless_more_is_asked_for() {
    let with = |field: &str| GOOD.replace("watchdog: Warden", &format!("{field}\n    watchdog: Warden"));
    assert_eq!(config(GOOD).on_kernel_fault, OnKernelFault::Report);
    assert_eq!(config(&with("on_kernel_fault: Drain,")).on_kernel_fault, OnKernelFault::Drain);
    assert_eq!(config(&with("on_kernel_fault: Reset,")).on_kernel_fault, OnKernelFault::Reset);
    let unguarded = with("on_kernel_fault: Reset,").replace("Warden(on_expiry: KillElseReset)", "None");
    assert!(mistakes(&unguarded).concat().contains("there is no watchdog that could reset"), "{unguarded}");
    assert!(mistakes(&with("on_kernel_fault: Panic,")).concat().contains("`Panic`"));
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let text = r#"(
    cluster: "my shop",
    nodes: {
        "alpha": (addresses: ["10.1.0.1:7946", "10.1.0.2"]),
        "beta": (adresses: ["10.1.0.1:7946"]),
    },
    heartbeat: (interval: "100ms", dead_after: "200ms"),
    watchdog: Wardn,
    run_dir: "run",
    socket: (mode: "rw"),
    log: (level: "loud"),
    colour: "red",
)"#;
    let found = mistakes(text);
    let contains = |place: &str, words: &str| {
        assert!(found.iter().any(|m| m.starts_with(place) && m.contains(words)), "{place} {words}: {found:#?}");
    };
    contains("2:14:", "cluster name \"my shop\" is not valid");
    contains("4:48:", "expected an address and a port");
    contains("5:17:", "node lacks the field `addresses`");
    contains("5:18:", "node has no field `adresses`");
    contains("7:16:", "dead_after of the cluster is 200ms: expected at least three intervals");
    contains("8:15:", "there is no kind of watchdog `Wardn`: expected one of Device, Warden, None");
    contains("9:14:", "run is not absolute");
    contains("10:20:", "mode is \"rw\"");
    contains("11:18:", "there is no level \"loud\"");
    contains("12:5:", "agent.ron has no field `colour`");
}

#[test]
fn single_mistakes() {
    let cases = [
        ("10.1.0.2:7946", "10.1.0.1:7946", "10.1.0.1:7946 is the address of \"alpha\" already"),
        ("10.1.0.2:7946", "0.0.0.0:7946", "cannot be sent to"),
        ("\"beta\"", "\"alpha\"", "is here twice"),
        ("    keys: \"/etc/ha/keys\",\n", "", "agent.ron lacks the field `keys`"),
        ("deadline: \"1s\"", "deadline: \"200ms\"", "deadline is 200 ms: expected at least 4 times renew"),
        ("Warden(on_expiry: KillElseReset)", "Device(path: \"/dev/watchdog\", timeout: \"1500ms\")", "whole seconds"),
        ("KillElseReset", "Explode", "expected one of Kill, KillElseReset, Reset"),
    ];
    for (from, to, words) in cases {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let found = mistakes(&text);
        assert!(found.iter().any(|m| m.contains(words)), "{to}: {found:#?}");
    }
}

#[test]
fn fencing_is_read_for_each_node_and_is_no_part_of_what_nodes_must_agree_on() {
    let device = r#"(agent: "fence_ipmilan", params: {"ip": "10.9.0.2"}, secrets: {"password": "/etc/ha/beta"})"#;
    let text = GOOD
        .replace("\"10.2.0.2:7946\"])", &format!("\"10.2.0.2:7946\"], fencing: [[{device}], [{device}, {device}]])"));
    let with = config(&text.replace("keys:", "fencing_check_every: \"1h\", fencing_by: Nodes, keys:"));
    assert_eq!((with.fencing_by, config(&text).fencing_by), (FencingBy::Nodes, FencingBy::Operator));
    let levels: Vec<(&str, Vec<usize>)> =
        with.fencing.iter().map(|(node, levels)| (node.as_str(), levels.iter().map(Vec::len).collect())).collect();
    assert_eq!(levels, [("beta", vec![1, 2])]);
    assert_eq!(with.fencing_check_every, Duration::from_secs(3600));
    let without = config(GOOD);
    assert_eq!(without.fencing_check_every, Duration::from_secs(600));
    assert_eq!(with.definition(), without.definition());
    let found = mistakes(&text.replace("secrets", "params_"));
    assert!(found.iter().any(|m| m.contains("device has no field `params_`")), "{found:#?}");
    let found = mistakes(&GOOD.replace("keys:", "fencing_check_every: \"0s\", keys:"));
    assert!(found.iter().any(|m| m.contains("fencing_check_every is 0")), "{found:#?}");
    for (by, words) in [("Nodes", "nobody could be fenced"), ("Node", "expected one of Operator, Nodes")] {
        let found = mistakes(&GOOD.replace("keys:", &format!("fencing_by: {by}, keys:")));
        assert!(found.iter().any(|m| m.contains(words)), "{by}: {found:#?}");
    }
}

#[test]
fn a_hierarchy_must_fit_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("hierarchies")).unwrap();
    fs::write(dir.path().join("agent.ron"), GOOD).unwrap();
    let web = r#"Hierarchy(
    name: "web", nodes: ["alpha", "delta"], claim: LockArea("spare"),
    resources: [Process(name: "app", command: ["/bin/sleep", "1000"])],
)"#;
    fs::write(dir.path().join("hierarchies/web.ron"), web).unwrap();
    let shown = read(dir.path()).diagnostics.to_string();
    assert!(
        shown.contains("web names node \"delta\", which agent.ron does not: expected one of alpha, beta"),
        "{shown}"
    );
    assert!(shown.contains("lock area \"spare\", which agent.ron does not name: expected one of main"), "{shown}");
}

#[test]
fn one_disk_belongs_to_one_hierarchy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("agent.ron"), GOOD).unwrap();
    fs::create_dir(dir.path().join("hierarchies")).unwrap();
    for name in ["mail", "web"] {
        let text = format!(
            r#"Hierarchy(name: "{name}", nodes: ["alpha"], claim: Reservation(devices: ["/dev/disk/by-id/wwn-0x1"]), resources: [])"#
        );
        fs::write(dir.path().join(format!("hierarchies/{name}.ron")), text).unwrap();
    }
    let told = read(dir.path()).diagnostics.to_string();
    assert!(told.contains("web is claimed with /dev/disk/by-id/wwn-0x1, which hierarchy mail has reserved"), "{told}");
}
