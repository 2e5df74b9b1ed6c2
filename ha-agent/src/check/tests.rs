//! What `ha check` says of configurations that read well and would still go wrong.

use std::fs;
use std::path::Path;

use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
use ha_core::claim::lock_area::{AreaId, LeaseTiming};
use ha_core::name::NodeName;
use ha_resources::claim::DirectDevice;

use super::{Report, look};
use crate::config;
use crate::view::Severity;

/// A configuration directory with one hierarchy; `agent` is added to agent.ron.
fn directory(agent: &str, resource: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    fs::create_dir(dir.path().join("hierarchies")).unwrap();
    let text = format!(
        r#"(cluster: "test", nodes: {{ "alpha": (addresses: ["127.0.8.1:17946"]), "beta": (addresses: ["203.0.113.2:17946"]) }},
        keys: "{at}/keys", run_dir: "{at}/run", state_dir: "{at}/state", log_dir: "{at}/log", {agent}
        lock_areas: {{ "main": (path: "{at}/area") }})"#
    );
    fs::write(dir.path().join("agent.ron"), text).unwrap();
    let web = format!(
        r#"Hierarchy(name: "web", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [{resource}])"#
    );
    fs::write(dir.path().join("hierarchies/web.ron"), web).unwrap();
    dir
}

async fn area(dir: &Path, nodes: &[&str]) {
    let path = dir.join("area");
    fs::File::create(&path).unwrap().set_len(2 << 20).unwrap();
    let device = DirectDevice::open(&path, std::time::Duration::from_secs(10)).unwrap();
    let nodes = nodes.iter().map(|n| NodeName::new(n).unwrap()).collect();
    let ms = std::time::Duration::from_millis;
    let timing = LeaseTiming::new(ms(10), ms(400), ms(200), ms(100)).unwrap();
    let plan = AreaPlan { id: AreaId([1; 16]), nodes, hierarchies: 4, timing };
    initialise(&device, plan, Existing::Keep).await.unwrap();
}

async fn report(dir: &Path, me: &str) -> Report {
    let read = config::read(dir);
    let config = read.config.unwrap_or_else(|| panic!("{}", read.diagnostics));
    look(&config, read.hierarchies, &NodeName::new(me).unwrap(), &[]).await
}

#[track_caller]
fn says(report: &Report, severity: Severity, words: &str) {
    assert!(
        report.problems.iter().any(|p| p.severity == severity && p.what.contains(words)),
        "{words}: {:#?}",
        report.problems
    );
}

const SLEEP: &str = r#"Process(name: "app", command: ["/bin/sleep", "1000"])"#;

#[tokio::test]
async fn keys_that_are_missing_or_open_to_others() {
    let dir = directory("", SLEEP);
    says(&report(dir.path(), "alpha").await, Severity::Error, "cannot be read");
    fs::write(dir.path().join("keys"), "1 = 00").unwrap();
    let report = report(dir.path(), "alpha").await;
    says(&report, Severity::Error, "expected 64 hexadecimal digits");
    says(&report, Severity::Error, "others can read the keys");
}

#[tokio::test]
async fn addresses_that_lead_nowhere() {
    let dir = directory("", SLEEP);
    let of_alpha = report(dir.path(), "alpha").await;
    says(&of_alpha, Severity::Warning, "203.0.113.2 is on no network of this machine");
    says(&report(dir.path(), "beta").await, Severity::Error, "203.0.113.2 is not an address of this machine");
    says(
        &report(dir.path(), "delta").await,
        Severity::Error,
        "which agent.ron does not name: expected one of alpha, beta",
    );
}

#[tokio::test]
async fn areas_that_are_missing_or_do_not_fit() {
    let dir = directory("watchdog: Warden(margin: \"300ms\"),", SLEEP);
    says(&report(dir.path(), "alpha").await, Severity::Error, "does not exist");
    fs::File::create(dir.path().join("area")).unwrap().set_len(2 << 20).unwrap();
    says(&report(dir.path(), "alpha").await, Severity::Error, "no lock area");
    area(dir.path(), &["beta", "gamma"]).await;
    let report = report(dir.path(), "alpha").await;
    says(&report, Severity::Error, "it has no slot for alpha: it was made for beta, gamma");
    says(&report, Severity::Error, "the watchdog may take 300ms to end this node, and the others wait 200ms only");
}

#[tokio::test]
async fn leases_without_a_watchdog_and_what_a_warden_cannot_end() {
    let dir = directory("", SLEEP);
    says(&report(dir.path(), "alpha").await, Severity::Warning, "UNPROTECTED");
    let mount = r#"Filesystem(name: "data", device: "/dev/does-not-exist", at: "/srv", fstype: "ext4")"#;
    let dir = directory("watchdog: Warden,", mount);
    let report = report(dir.path(), "alpha").await;
    says(&report, Severity::Warning, "but data would stay mounted");
    says(&report, Severity::Note, "a lease cannot stop a write");
    says(&report, Severity::Error, "data could not be started here");
}

#[tokio::test]
async fn programs_that_are_not_there() {
    let dir = directory("watchdog: Warden,", r#"Process(name: "app", command: ["/no/such/program"])"#);
    says(&report(dir.path(), "alpha").await, Severity::Error, "app could not be started here");
}

/// An OCF agent in a folder of the test's own, and an init script.
fn of_others(dir: &Path, params: &str) -> (String, String) {
    let agent = dir.join("resource.d/test/thing");
    fs::create_dir_all(agent.parent().unwrap()).unwrap();
    let meta = r#"<resource-agent name="thing"><parameters><parameter name="ip" required="1"><content type="string"/></parameter>
        </parameters><actions><action name="start" timeout="90s"/></actions></resource-agent>"#;
    let script = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    script(&agent, &format!("#!/bin/sh\n[ \"$1\" != meta-data ] || cat <<XML\n{meta}\nXML\n"));
    script(&dir.join("rc"), "#!/bin/sh\n# Knows how to start and stop.\n");
    let root = dir.display();
    let ocf = format!(r#"Ocf(name: "thing", agent: "ocf:test:thing", root: "{root}", params: {params})"#);
    (ocf, format!(r#"Lsb(name: "old", script: "{root}/rc")"#))
}

#[tokio::test]
async fn parameters_that_an_agent_does_not_know_and_what_it_advises() {
    let place = tempfile::tempdir().unwrap();
    let (ocf, lsb) = of_others(place.path(), r#"{"ipp": "10.0.0.1"}"#);
    let of_mistakes = report(directory("watchdog: Warden,", &format!("{ocf}, {lsb}")).path(), "alpha").await;
    says(
        &of_mistakes,
        Severity::Error,
        "it has no parameter `ipp`; did you mean `ip`?; its parameter `ip` is required",
    );
    says(&of_mistakes, Severity::Warning, "old: the script");
    says(&of_mistakes, Severity::Warning, "what the OCF agents of thing started, but what else");
    let (ocf, _) = of_others(place.path(), r#"{"ip": "10.0.0.1"}"#);
    let report = report(directory("watchdog: Warden,", &ocf).path(), "alpha").await;
    says(&report, Severity::Warning, "thing: it has 60 s for its start, and its agent advises 90 s at least");
}

#[tokio::test]
async fn the_worst_case_follows_the_longest_chain() {
    let both = r#"
        Process(name: "a", command: ["/bin/sleep", "1"], timeouts: (start: "10s")),
        Process(name: "b", command: ["/bin/sleep", "1"], timeouts: (start: "20s")),
        Process(name: "c", command: ["/bin/sleep", "1"], timeouts: (start: "25s"), requires: []),"#;
    let dir = directory("watchdog: Warden(margin: \"200ms\"),", both);
    area(dir.path(), &["alpha", "beta"]).await;
    let bounds = report(dir.path(), "alpha").await.hierarchies[0].bounds;
    assert_eq!((bounds.detect_ms, bounds.lease_ms, bounds.start_ms), (1_100, 720, 30_000));
    assert_eq!(bounds.until_claimed_ms(), 1_120);
}

#[tokio::test]
async fn fence_devices_are_compared_with_what_their_agents_say() {
    let dir = directory("", SLEEP);
    let agent = dir.path().join("fence_thing");
    let meta = r#"<resource-agent name="fence_thing"><parameters>
        <parameter name="plug" required="1"><content type="string"/></parameter></parameters>
        <actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/></actions></resource-agent>"#;
    fs::write(dir.path().join("meta"), meta).unwrap();
    // By a process of its own: one of ours that forks meanwhile would keep the file from being executed.
    let script = format!(
        "printf '#!/bin/sh\ncat {0}/meta\n' > {0}/new; chmod 755 {0}/new; mv {0}/new {0}/fence_thing",
        dir.path().display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let file = dir.path().join("agent.ron");
    let text = fs::read_to_string(&file).unwrap().replace(
        "\"203.0.113.2:17946\"]",
        &format!(
            "\"203.0.113.2:17946\"], fencing: [[(agent: {agent:?}, params: {{\"plugg\": 3}}), (agent: \"fence_of_nobody\")]]"
        ),
    );
    fs::write(&file, text).unwrap();
    area(dir.path(), &["alpha", "beta"]).await;
    let report = report(dir.path(), "alpha").await;
    says(&report, Severity::Error, "level 1, fence_thing: it has no parameter `plugg`; did you mean `plug`?");
    says(&report, Severity::Error, "its parameter `plug` is required");
    says(&report, Severity::Error, "level 1, fence_of_nobody: fence_of_nobody cannot be used");
    says(&report, Severity::Note, "no fencing is configured for it");
}
