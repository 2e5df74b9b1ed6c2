//! Agents that do as they should, and agents that hang, fork away, write without end, lie, and answer what no API has.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use ha_core::driver::Failed;
use ha_core::hierarchy::{Source, read_value};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::proc::{ProcessId, Stat};
use crate::test_support::{until, usable_cgroups};

/// Reads its options, notes them, and what it was started with; and writes meta-data. `$here/state` is the power of its node.
const HEAD: &str = r#"#!/bin/bash
here=${0%/*}
while IFS='=' read -r name value; do declare "o_$name=$value"; echo "$name=$value" >> "$here/read"; done
echo "$o_action" >> "$here/log"
{ tr '\0' ' ' < /proc/$$/cmdline; tr '\0' ' ' < /proc/$$/environ; } >> "$here/started"
[ "$o_action" != metadata ] || { cat "$here/meta"; exit 0; }
"#;

/// Does as it should.
const HONEST: &str = r#"case $o_action in
  off|on) echo "$o_action" > "$here/state";;
  reboot) echo on > "$here/state";;
  status) [ "$(cat "$here/state")" = off ] && exit 2; exit 0;;
  monitor) exit 0;;
esac"#;

const EVERYTHING: &[&str] = &["on", "off", "reboot", "status", "monitor", "metadata"];

fn meta_data(actions: &[&str]) -> String {
    let actions: String = actions.iter().map(|name| format!("<action name=\"{name}\"/>")).collect();
    format!(
        r#"<?xml version="1.0" ?><resource-agent name="fence_thing" shortdesc="x"><parameters>
<parameter name="action" unique="0" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="ipaddr" unique="0" required="1" deprecated="1"><content type="string"/></parameter>
<parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string"/></parameter>
<parameter name="ipport" unique="0" required="0"><content type="integer" default="23"/></parameter>
<parameter name="method" unique="0" required="0"><content type="select" default="onoff"><option value="onoff"/><option value="cycle"/></content></parameter>
<parameter name="password" unique="0" required="0"><content type="string"/></parameter>
</parameters><actions>{actions}</actions></resource-agent>"#
    )
}

/// A folder with an agent that does this after [`HEAD`], and can do these actions.
fn agent(body: &str, actions: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("meta"), meta_data(actions)).unwrap();
    std::fs::write(folder.path().join("state"), "on\n").unwrap();
    // By a process of its own: one of ours that forks meanwhile would keep the file from being executed.
    let script = "cat > new && chmod 755 new && mv new fence_thing";
    let mut child =
        Command::new("sh").args(["-c", script]).current_dir(folder.path()).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{HEAD}{body}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    folder
}

fn spec(folder: &Path) -> DeviceSpec {
    let params = BTreeMap::from([("ip".to_owned(), "10.9.0.1".to_owned())]);
    let agent = folder.join("fence_thing").to_string_lossy().into_owned();
    DeviceSpec { params, timeout: Duration::from_secs(20), ..DeviceSpec::new(agent) }
}

fn device(folder: &Path) -> FenceDevice {
    FenceDevice::new(spec(folder), usable_cgroups())
}

fn text(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default()
}

async fn fenced(levels: &[Vec<FenceDevice>]) -> (FenceReport, Vec<Step>) {
    let (progress, mut steps) = unbounded_channel();
    let report = fence(levels, &progress).await;
    drop(progress);
    let mut all = Vec::new();
    while let Some(step) = steps.recv().await {
        all.push(step);
    }
    (report, all)
}

fn actions(steps: &[Step]) -> Vec<(usize, &str)> {
    steps.iter().map(|step| (step.level, step.action.as_str())).collect()
}

#[tokio::test]
async fn a_device_that_says_off_afterwards_is_proof() {
    let honest = agent(HONEST, EVERYTHING);
    let levels = [vec![device(honest.path())]];
    let (report, steps) = fenced(&levels).await;
    assert_eq!((&report.proof, report.levels.len()), (&Proof::Off, 1), "{report:?}");
    assert_eq!(report.describe(), "level 1: fence_thing (ip 10.9.0.1) says off");
    assert_eq!(actions(&steps), [(1, "off"), (1, "status")]);
    let (progress, _steps) = unbounded_channel();
    switch_on(1, &levels[0], &progress).await.unwrap();
    assert_eq!(levels[0][0].status().await, Ok(PowerState::On));
    assert_eq!(look_at(&levels, &progress).await, [""; 0]);
    assert_eq!(text(honest.path(), "state"), "on\n", "looking touches nothing");
}

#[tokio::test]
async fn an_agent_that_lies_proves_nothing_and_the_next_level_is_tried() {
    let liar = agent("[ $o_action = status ] && { echo 'outlet 3 is ON'; exit 0; }; exit 0", EVERYTHING);
    let honest = agent(HONEST, EVERYTHING);
    let (report, steps) = fenced(&[vec![device(liar.path())], vec![device(honest.path())]]).await;
    assert_eq!(report.proof, Proof::Off);
    assert_eq!((&report.levels[0].proof, report.levels[0].devices[0].answered), (&Proof::None, Some(PowerState::On)));
    assert_eq!(steps.iter().filter(|step| (step.level, step.action.as_str()) == (1, "status")).count(), 6);
    assert_eq!(text(honest.path(), "state"), "off\n");
}

#[tokio::test]
async fn all_devices_of_a_level_must_say_off_and_all_are_told_before_any_is_asked() {
    let (one, other) = (agent(HONEST, EVERYTHING), agent("exit 1", EVERYTHING));
    let mut limited = spec(other.path());
    limited.timeout = Duration::from_secs(3);
    let levels = [vec![device(one.path()), FenceDevice::new(limited, None)]];
    let (report, steps) = fenced(&levels).await;
    assert_eq!(report.proof, Proof::None);
    assert_eq!(actions(&steps[..3]), [(1, "off"), (1, "off"), (1, "status")]);
    assert_eq!(
        report.describe(),
        "level 1: fence_thing (ip 10.9.0.1) says off, fence_thing (ip 10.9.0.1) does not say (off: exited with code 1)"
    );
}

#[tokio::test]
async fn what_was_off_already_is_off_even_if_switching_it_off_failed() {
    let off = agent("[ $o_action = status ] && exit 2; echo 'no such command'; exit 1", EVERYTHING);
    let (report, _) = fenced(&[vec![device(off.path())]]).await;
    assert_eq!(report.proof, Proof::Off);
    assert_eq!(report.levels[0].devices[0].troubles, ["off: exited with code 1; it said: no such command"]);
}

#[tokio::test]
async fn what_cuts_off_a_disk_or_a_network_does_not_prove_that_the_node_is_off() {
    let fabric = agent(HONEST, &["on", "off", "status", "monitor"]);
    let (report, _) = fenced(&[vec![device(fabric.path())]]).await;
    assert_eq!(report.proof, Proof::CutOff);
}

#[tokio::test]
async fn an_agent_that_can_only_reboot_is_used_and_is_proof_only_where_it_says_off() {
    let reboots = agent(HONEST, &["on", "reboot", "status", "monitor"]);
    let mut spec = spec(reboots.path());
    spec.timeout = Duration::from_secs(1);
    let (report, steps) = fenced(&[vec![FenceDevice::new(spec, None)]]).await;
    assert_eq!((report.proof, actions(&steps)[0]), (Proof::None, (1, "reboot")));
    let mute = agent(HONEST, &["on", "off", "reboot", "monitor"]);
    let (report, steps) = fenced(&[vec![device(mute.path())]]).await;
    assert_eq!((report.proof, actions(&steps)), (Proof::None, vec![(1, "off")]));
    assert!(report.levels[0].devices[0].troubles[0].contains("no status"));
}

#[tokio::test]
async fn a_secret_is_read_from_its_file_and_seen_nowhere() {
    let body = r#"echo "login as ha with $o_password failed"; echo "and $o_password again" >&2; exit 1"#;
    let talker = agent(body, EVERYTHING);
    let file = talker.path().join("secret");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut spec = spec(talker.path());
    spec.secrets.insert("password".to_owned(), file.clone());
    let device = FenceDevice::new(spec, None);
    let Failed(said) = device.monitor().await.unwrap_err();
    assert_eq!(said, "monitor: exited with code 1; it said: login as ha with <password> failed / and <password> again");
    assert_eq!(text(talker.path(), "read"), "action=monitor\nip=10.9.0.1\npassword=hunter2\n");
    let started = text(talker.path(), "started");
    assert!(!started.contains("hunter2") && started.contains("fence_thing"), "{started}");
    assert!(!format!("{device:?}").contains("hunter2"));
    assert_eq!(device.check().await, Findings::default());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(device.monitor().await.unwrap_err().0.contains("can be read by everybody"));
    assert!(device.check().await.mistakes[0].contains("can be read by everybody"));
}

async fn pid_in(file: &Path) -> ProcessId {
    until("the agent has noted a pid", || {
        let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        Some(Stat::of(pid)?.id())
    })
    .await
}

#[tokio::test]
async fn one_that_hangs_and_ignores_signals_is_killed_in_time_with_all_that_it_started() {
    let body = r#"trap '' TERM INT HUP; echo 'logging in'; sleep 1000 & echo $! > "$here/child"; wait; sleep 1000"#;
    let hangs = agent(body, EVERYTHING);
    let mut spec = spec(hangs.path());
    spec.timeout = Duration::from_secs(2);
    let device = FenceDevice::new(spec, usable_cgroups());
    let child = hangs.path().join("child");
    let (asked, child) = tokio::join!(device.status(), pid_in(&child));
    let Failed(said) = asked.unwrap_err();
    assert!(said.contains("killed because it did not end within 2s; it said: logging in"), "{said}");
    until("the agent's child is gone", || (!child.is_alive()).then_some(())).await;
}

#[tokio::test]
async fn what_an_agent_leaves_running_is_killed_when_it_ends() {
    let Some(groups) = usable_cgroups() else { return };
    let body = r#"setsid bash -c 'echo $$ > "$0/child"; exec sleep 1000' "$here" &
        until [ -s "$here/child" ]; do sleep 0.01; done; exit 0"#;
    let forks = agent(body, EVERYTHING);
    let device = FenceDevice::new(spec(forks.path()), Some(groups.clone()));
    device.monitor().await.unwrap();
    let pid: i32 = text(forks.path(), "child").trim().parse().unwrap();
    until("what forked away is gone", || Stat::of(pid).is_none_or(|it| !it.is_alive()).then_some(())).await;
    let ours = format!("fencing:{}:", std::process::id());
    let left = || {
        let names = std::fs::read_dir(&groups).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&ours)).count()
    };
    // Those of tests that run at the same time go, too.
    until("no control group is left", || (left() == 0).then_some(())).await;
}

#[tokio::test]
async fn one_that_writes_megabytes_or_answers_what_no_api_has_is_a_clear_error() {
    let body = r"case $o_action in
        off) head -c 50000000 /dev/zero | tr '\0' 'x'; echo; echo 'the end'; exit 1;;
        status) echo 'what?' >&2; exit 7;;
        monitor) kill -9 $$;;
    esac";
    let wild = agent(body, EVERYTHING);
    let device = device(wild.path());
    let Failed(said) = device.run("off").await.unwrap_err();
    assert!(said.len() < 10_000 && said.ends_with("/ the end"), "{} bytes", said.len());
    let Failed(said) = device.status().await.unwrap_err();
    assert_eq!(said, "status: exited with code 7: expected 0 for on or 2 for off; it said: what?");
    assert_eq!(device.monitor().await.unwrap_err().0, "monitor: was killed by SIGKILL");
    std::fs::write(wild.path().join("meta"), vec![b'x'; 3 << 20]).unwrap();
    assert!(device.check().await.mistakes[0].contains("wrote too much"));
    std::fs::write(wild.path().join("meta"), "usage: fence_thing NODE").unwrap();
    assert!(device.check().await.mistakes[0].contains("not XML"));
    let none = FenceDevice::new(DeviceSpec::new("fence_nothing_of_this_name"), None);
    assert!(none.check().await.mistakes[0].contains("install it"));
}

#[tokio::test]
async fn parameters_are_checked_against_the_meta_data() {
    let honest = agent(HONEST, EVERYTHING);
    let with = |given: &[(&str, &str)]| {
        let params = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        FenceDevice::new(DeviceSpec { params, ..spec(honest.path()) }, None)
    };
    assert_eq!(with(&[("ip", "10.9.0.1"), ("method", "cycle")]).check().await, Findings::default());
    let found = with(&[("colour", "red"), ("ipport", "many"), ("method", "sudden")]).check().await;
    assert_eq!(
        found.mistakes,
        [
            "it has no parameter `colour`: expected one of `action`, `ipaddr`, `ip`, `ipport`, `method`, `password`",
            "its parameter `ip` is required",
            "its parameter `ipport` is \"many\": expected a whole number",
            "its parameter `method` is \"sudden\": expected one of `onoff`, `cycle`",
        ]
    );
    assert!(with(&[("ip", "1"), ("ipprt", "23")]).check().await.mistakes[0].contains("did you mean `ipport`?"));
    let old = with(&[("ipaddr", "10.9.0.1")]).check().await;
    assert_eq!(
        (old.mistakes, old.warnings),
        (vec![], vec!["its parameter `ipaddr` is deprecated: use `ip`".to_owned()])
    );
    let fabric = agent(HONEST, &["on", "off", "status"]);
    assert!(device(fabric.path()).check().await.warnings[0].contains("leaves its power alone"));
    let useless = agent(HONEST, &["monitor"]);
    let found = device(useless.path()).check().await;
    assert!(found.mistakes[0].contains("neither switch off nor reboot") && found.warnings[0].contains("no status"));
}

fn read(text: &str) -> (Option<Vec<Vec<DeviceSpec>>>, String) {
    let (read, diagnostics) = read_value(&Source::new("agent.ron", text), levels);
    (read, diagnostics.to_string())
}

#[test]
fn levels_are_read_with_all_they_may_have() {
    let (read, said) = read(
        r#"[[(agent: "fence_ipmilan", params: {"ip": "10.9.0.1", "lanplus": true, "ipport": 623},
             secrets: {"password": "/etc/ha/bmc"}, timeout: "90s")],
            [(agent: "/opt/fence_x"), (agent: "fence_apc")]]"#,
    );
    assert_eq!(said, "");
    let read = read.unwrap();
    assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    let first = &read[0][0];
    assert_eq!(first.params["lanplus"], "true");
    assert_eq!((first.secrets["password"].to_str(), first.timeout), (Some("/etc/ha/bmc"), Duration::from_secs(90)));
    assert_eq!(read[1][0], DeviceSpec::new("/opt/fence_x"));
}

#[test]
fn every_mistake_in_levels_is_told() {
    for (text, expected) in [
        (r#"[(agent: "fence_apc")]"#, "a list of devices"),
        ("[[]]", "a level without devices"),
        (r#"[[(agent: "ipmitool")]]"#, "names no fence agent"),
        ("[[(params: {})]]", "`agent`"),
        (r#"[[(agent: "fence_apc", parms: {})]]"#, "did you mean `params`?"),
        (r#"[[(agent: "fence_apc", params: {"password": "x"})]]"#, "`password` is a password"),
        (r#"[[(agent: "fence_apc", params: {"action": "off"})]]"#, "`action` cannot be set"),
        (r#"[[(agent: "fence_apc", params: {"ip": "1\naction=on"})]]"#, "several lines"),
        (r#"[[(agent: "fence_apc", secrets: {"password": "secret"})]]"#, "the whole path of a file"),
        (r#"[[(agent: "fence_apc", params: {"key": "1"}, secrets: {"key": "/x"})]]"#, "expected it once"),
        (r#"[[(agent: "fence_apc", timeout: "0s")]]"#, "timeout is 0"),
    ] {
        let (_, said) = read(text);
        assert!(said.starts_with("error") && said.contains(expected), "{text}: {expected:?} is missing in {said}");
    }
}
