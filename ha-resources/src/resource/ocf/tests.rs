//! Agents that do as they should, and agents that hang, fork away, write without end and answer what no standard has.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::proc::{ProcessId, Stat};
use crate::test_support::{context, until, usable_cgroups, within};
use ha_core::hierarchy::{Fingerprint, Timeouts};
use ha_core::name::ResourceName;

/// Meta-data, and a log of which action ran in which environment.
const HEAD: &str = r#"#!/bin/sh
here=${0%/*}
echo "$1 $OCF_CHECK_LEVEL" >> "$here/log"
[ "$1 $OCF_RESKEY_ip" != "meta-data 10.0.0.1" ] || exit 6
[ "$1" != meta-data ] || cat <<XML
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="thing"><version>1.1</version>
<parameters>
<parameter name="ip" required="1"><content type="string"/></parameter>
<parameter name="port"><content type="integer" default="80"/></parameter>
<parameter name="addr"><deprecated><replaced-with name="ip"/></deprecated><content type="string"/></parameter>
</parameters>
<actions>
<action name="start" timeout="90s"/><action name="stop" timeout="20s"/>
<action name="monitor" timeout="20s" interval="10s" depth="0"/>
<action name="monitor" timeout="45s" interval="2min" depth="10"/>
<action name="promote" timeout="1s"/><action name="validate-all" timeout="5s"/>
</actions></resource-agent>
XML
"#;

/// Writes an agent. By a process of its own: one of ours that forks meanwhile would keep the file from being executed.
fn write(place: &Path, text: &str) {
    let folder = place.join("resource.d/test");
    std::fs::create_dir_all(&folder).unwrap();
    let script = "cat > new && chmod 755 new && mv new thing";
    let mut child = Command::new("sh").args(["-c", script]).current_dir(&folder).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// An agent that does this after [`HEAD`], in this folder.
fn agent(place: &Path, cgroups: Option<PathBuf>, body: &str) -> Ocf {
    write(place, &format!("{HEAD}{body}\n"));
    let directories = Directories { run: place.join("run"), logs: place.join("log"), cgroups };
    let name = AgentName { provider: "test".to_owned(), agent: "thing".to_owned() };
    let params = BTreeMap::from([("ip".to_owned(), "10.0.0.1".to_owned())]);
    Ocf::new(OcfSpec { params, root: place.to_owned(), ..OcfSpec::new(name) }, directories)
}

fn log(place: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(place.join("resource.d/test/log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn pid_in(file: &Path) -> ProcessId {
    let pid = until("an agent writes a pid", || std::fs::read_to_string(file).ok()?.trim().parse().ok()).await;
    until("that process is there", || Stat::of(pid)).await.id()
}

fn failed(result: Result<(), Failed>) -> String {
    let Failed(why) = result.unwrap_err();
    why
}

#[tokio::test]
async fn an_agent_finds_exactly_what_the_standard_has_in_its_environment() {
    let place = tempfile::tempdir().unwrap();
    let thing = agent(place.path(), None, "env > \"$here/env.$1.$OCF_RESKEY_CRM_meta_interval\"");
    let x = context("vip");
    thing.start(&x).await.unwrap();
    assert_eq!(thing.monitor(&x).await, Verdict::Good);
    assert_eq!(thing.adopt(&x).await, Ok(Found::Running));
    let read = |action: &str| -> BTreeMap<String, String> {
        let file = place.path().join("resource.d/test").join(format!("env.{action}"));
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let mut found = read("start.0");
    // The shell's own.
    found.retain(|name, _| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
    let limit: u64 = found.remove("OCF_RESKEY_CRM_meta_timeout").unwrap().parse().unwrap();
    assert!((1..=30_000).contains(&limit), "{limit}");
    let run = place.path().join("run/resource-agents");
    let expected = [
        ("HA_RSCTMP", run.to_str().unwrap()),
        ("OCF_CHECK_LEVEL", "0"),
        ("OCF_RA_VERSION_MAJOR", "1"),
        ("OCF_RA_VERSION_MINOR", "1"),
        ("OCF_RESKEY_CRM_meta_interval", "0"),
        ("OCF_RESKEY_CRM_meta_name", "start"),
        ("OCF_RESKEY_ip", "10.0.0.1"),
        ("OCF_RESOURCE_INSTANCE", "vip@web"),
        ("OCF_RESOURCE_PROVIDER", "test"),
        ("OCF_RESOURCE_TYPE", "thing"),
        ("OCF_ROOT", place.path().to_str().unwrap()),
        ("PATH", command::PATH),
    ];
    assert_eq!(found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    assert!(run.is_dir());
    // A monitor again and again is none that is done once.
    assert_eq!(read("monitor.10000")["OCF_RESKEY_CRM_meta_name"], "monitor");
    assert_eq!(read("monitor.0")["OCF_RESKEY_CRM_meta_name"], "monitor");
}

#[tokio::test]
async fn exit_codes_mean_what_the_table_says() {
    let place = tempfile::tempdir().unwrap();
    let x = context("codes");
    let code = place.path().join("code");
    // The look after a stop that succeeded finds it stopped.
    let stopped =
        r#"case "$1 $code" in "stop 0") touch "$here/stopped" ;; "monitor 0") rm "$here/stopped" && exit 7 ;; esac"#;
    let body = format!(
        "code=$(cat {}); echo noise; echo 'ocf-exit-reason:it is so' >&2; echo more; {stopped}; exit $code",
        code.display()
    );
    let thing = agent(place.path(), None, &body);
    for (number, start, stop, verdict, adopted) in [
        (0, "", "", "good", "running"),
        (1, "OCF_ERR_GENERIC", "OCF_ERR_GENERIC", "bad", "failed"),
        (2, "correct `params`", "OCF_ERR_ARGS", "bad", "failed"),
        (3, "does not know this action", "OCF_ERR_UNIMPLEMENTED", "bad", "failed"),
        (4, "runs as root", "OCF_ERR_PERM", "bad", "failed"),
        (5, "install it on this node", "OCF_ERR_INSTALLED", "bad", "failed"),
        (6, "correct `params`", "OCF_ERR_CONFIGURED", "bad", "failed"),
        (7, "OCF_NOT_RUNNING", "", "bad", "stopped"),
        (8, "OCF_RUNNING_PROMOTED", "OCF_RUNNING_PROMOTED", "good", "running"),
        (9, "OCF_FAILED_PROMOTED", "OCF_FAILED_PROMOTED", "bad", "failed"),
        (190, "OCF_DEGRADED", "OCF_DEGRADED", "good", "running"),
        (191, "OCF_DEGRADED_PROMOTED", "OCF_DEGRADED_PROMOTED", "good", "running"),
        (42, "not a code of OCF agents", "answered 42", "unknown", "failed"),
        (127, "a program that is not there", "answered 127", "unknown", "failed"),
    ] {
        std::fs::write(&code, number.to_string()).unwrap();
        let told = |result: Result<(), Failed>| result.err().map(|Failed(why)| why).unwrap_or_default();
        for (why, expected) in [(told(thing.start(&x).await), start), (told(thing.stop(&x).await), stop)] {
            assert_eq!(why.is_empty(), expected.is_empty(), "{number}: {why}");
            assert!(why.contains(expected), "{number}: {why}");
            assert!(why.is_empty() || why.contains("its reason: it is so"), "{number}: {why}");
        }
        let seen = match thing.monitor(&x).await {
            Verdict::Good => "good",
            Verdict::Bad(why) | Verdict::Unknown(why) if !why.contains("it is so") => panic!("{number}: {why}"),
            Verdict::Bad(_) => "bad",
            Verdict::Unknown(_) => "unknown",
        };
        assert_eq!(seen, verdict, "{number}");
        let seen = match thing.adopt(&x).await {
            Ok(Found::Running) => "running",
            Ok(Found::Stopped) => "stopped",
            Err(_) => "failed",
        };
        assert_eq!(seen, adopted, "{number}");
    }
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up_and_a_monitor_that_hangs_says_nothing() {
    let place = tempfile::tempdir().unwrap();
    let child = place.path().join("child");
    // It does not listen to SIGTERM, nor does its child.
    let body = format!("trap '' TERM; echo began; sleep 1000 & echo $! > {}; wait", child.display());
    let thing = agent(place.path(), None, &body);
    let x = within(&context("hangs"), Duration::from_secs(2));
    let why = failed(thing.start(&x).await);
    assert!(why.contains("did not end within") && why.contains("it said: began"), "{why}");
    let first = pid_in(&child).await;
    until("the child of the start is killed", || (!first.is_alive()).then_some(())).await;
    assert!(matches!(thing.monitor(&x).await, Verdict::Unknown(why) if why.contains("did not end within")));
    assert!(failed(thing.stop(&x).await).contains("did not end within"));
    let last = pid_in(&child).await;
    until("the child of the stop is killed", || (!last.is_alive()).then_some(())).await;
}

#[tokio::test]
async fn what_a_start_forked_away_is_seen_after_a_stop_and_can_be_killed() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let daemon = place.path().join("daemon");
    let body = format!(
        "case $1 in start) setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1000; done' >/dev/null 2>&1 & ;; monitor) exit 7 ;; esac",
        daemon.display()
    );
    let thing = agent(place.path(), Some(cgroups), &body);
    let x = context("forks");
    assert!(matches!(thing.handles(&x).as_slice(), [KillHandle::Cgroup(_)]));
    thing.start(&x).await.unwrap();
    let daemon = pid_in(&daemon).await;
    let why = failed(thing.stop(&x).await);
    assert!(why.contains("what its start left still runs"), "{why}");
    assert!(daemon.is_alive());
    thing.kill(&x).await.unwrap();
    assert!(!daemon.is_alive());
    assert_eq!(log(place.path()), ["start 0", "stop 0", "stop 0", "monitor 0"]);
}

/// Starts what lives on and a helper of it, and says that it runs while the first one does. A zombie, which whoever is process 1 here may
/// leave for a while, does not.
const DAEMON: &str = r#"case $1 in
start) setsid sh -c 'sleep 1000 & echo $! > "$0/helper"; echo $$ > "$0/daemon"; exec sleep 1000' "$here" >/dev/null 2>&1 &
    while ! [ -s "$here/daemon" ]; do sleep 0.01; done ;;
monitor) grep -q '^State:.*[^Z] (' "/proc/$(cat "$here/daemon")/status" 2>/dev/null || exit 7 ;;
esac"#;

/// Both of [`DAEMON`].
async fn started_by(place: &Path) -> [ProcessId; 2] {
    let here = place.join("resource.d/test");
    [pid_in(&here.join("daemon")).await, pid_in(&here.join("helper")).await]
}

async fn end(process: ProcessId) {
    process.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    until("it is dead", || (!process.is_alive()).then_some(())).await;
}

/// Whether the watch says nothing for a while.
async fn is_silent(watch: impl Future<Output = String>) -> bool {
    tokio::time::timeout(Duration::from_millis(100), watch).await.is_err()
}

async fn bounded(watch: impl Future<Output = String>) -> String {
    tokio::time::timeout(Duration::from_secs(30), watch).await.unwrap()
}

#[tokio::test]
async fn the_death_of_all_that_a_start_left_is_known_without_a_monitor() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = within(&context("dies"), Duration::MAX);
    let thing = agent(place.path(), Some(cgroups.clone()), DAEMON);
    let start = within(&x, Duration::from_secs(30));
    thing.start(&start).await.unwrap();
    let [daemon, helper] = started_by(place.path()).await;
    assert!(is_silent(thing.watch(&x)).await);
    // While a helper lives, only the monitor knows.
    end(daemon).await;
    assert!(is_silent(thing.watch(&x)).await);
    assert_eq!(log(place.path()), ["start 0"]);
    let (why, ()) = tokio::join!(bounded(thing.watch(&x)), end(helper));
    assert!(why.contains("nothing runs any more of what its start left; its monitor answered 7"), "{why}");

    // What ends between a start and the watch, or between an adoption and the watch of the agent's next life, is known too.
    for adopted in [false, true] {
        std::fs::remove_file(place.path().join("resource.d/test/daemon")).unwrap();
        let thing = agent(place.path(), Some(cgroups.clone()), DAEMON);
        thing.start(&start).await.unwrap();
        let thing = if adopted { agent(place.path(), Some(cgroups.clone()), DAEMON) } else { thing };
        if adopted {
            assert_eq!(thing.adopt(&start).await, Ok(Found::Running));
        }
        for process in started_by(place.path()).await {
            end(process).await;
        }
        let why = bounded(thing.watch(&x)).await;
        assert!(why.contains("its monitor answered 7"), "{adopted}: {why}");
    }
    thing.kill(&start).await.unwrap();
}

#[tokio::test]
async fn what_a_start_left_may_end_when_its_agent_says_that_it_runs() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("helper-ends");
    // As an agent that announces an address, and one whose program is started anew by somebody else.
    let helper = r#"[ $1 != start ] || { setsid sleep 1000 >/dev/null 2>&1 & echo $! >"$here/helper"; }"#;
    let thing = agent(place.path(), Some(cgroups.clone()), helper);
    thing.start(&x).await.unwrap();
    let helper = pid_in(&place.path().join("resource.d/test/helper")).await;
    let asked = async {
        end(helper).await;
        until("its agent was asked several times", || (log(place.path()).len() == 4).then_some(())).await;
    };
    tokio::select! {
        why = thing.watch(&x) => panic!("it has not failed: {why}"),
        () = asked => {}
    }
    assert_eq!(log(place.path()), ["start 0", "monitor 0", "monitor 0", "monitor 0"]);

    // One that leaves nothing is not asked, nor one of which nothing can be known.
    for cgroups in [Some(cgroups), None] {
        let place = tempfile::tempdir().unwrap();
        let thing = agent(place.path(), cgroups, "");
        thing.start(&x).await.unwrap();
        assert!(is_silent(thing.watch(&x)).await);
        assert_eq!(log(place.path()), ["start 0"]);
    }
    Started::of(&thing.directories, &x).forget();
}

#[tokio::test]
async fn what_stays_behind_of_a_look_is_ended_and_a_daemon_that_it_started_is_not() {
    let place = tempfile::tempdir().unwrap();
    let x = context("leaves");
    let body = r#"(sleep 1000 >/dev/null 2>&1 & echo $! >"$here/left.$1")
setsid sh -c 'echo $$ >"$0"; exec sleep 1000' "$here/daemon.$1" >/dev/null 2>&1 &
while ! [ -s "$here/daemon.$1" ]; do sleep 0.01; done"#;
    let thing = agent(place.path(), None, body);
    thing.start(&x).await.unwrap();
    assert_eq!(thing.monitor(&x).await, Verdict::Good);
    thing.ready().await.unwrap();
    thing.validate(&thing.meta_data().await.unwrap()).await;
    let of = async |what: &str| pid_in(&place.path().join("resource.d/test").join(what)).await;
    for action in ["monitor", "meta-data", "validate-all"] {
        let file = place.path().join("resource.d/test").join(format!("left.{action}"));
        let left: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = || Stat::of(left).is_none_or(|process| !process.is_alive());
        until("what it left is killed", || gone().then_some(())).await;
        end(of(&format!("daemon.{action}")).await).await;
    }
    for started in ["left.start", "daemon.start"] {
        let started = of(started).await;
        assert!(started.is_alive(), "what a start left runs on");
        end(started).await;
    }
}

#[tokio::test]
async fn a_stop_is_not_believed_while_the_monitor_contradicts_it() {
    let place = tempfile::tempdir().unwrap();
    let x = within(&context("liar"), Duration::from_secs(3));
    let monitor = |exit: &str| format!("[ $1 != monitor ] || {{ echo 'ocf-exit-reason:threads' >&2; {exit}; }}");
    for code in [0, 8, 9, 190] {
        let thing = agent(place.path(), None, &monitor(&format!("exit {code}")));
        for why in [failed(thing.stop(&x).await), failed(thing.kill(&x).await)] {
            assert!(why.contains("its stop succeeded, but its monitor answered"), "{code}: {why}");
            assert!(why.contains(&code.to_string()) && why.contains("threads"), "{code}: {why}");
        }
    }
    // Neither what cannot be looked at nor what says nothing contradicts it.
    for code in [1, 2, 3, 4, 5, 6, 7, 42] {
        agent(place.path(), None, &monitor(&format!("exit {code}"))).stop(&x).await.unwrap();
    }
    agent(place.path(), None, &monitor("sleep 1000")).stop(&x).await.unwrap();
    // What was said once stands while nothing else is said.
    let once = r#"mkdir "$here/once" 2>/dev/null && exit 0; sleep 1000"#;
    let why = failed(agent(place.path(), None, &monitor(once)).stop(&x).await);
    assert!(why.contains("its monitor answered 0"), "{why}");
    // What ends a little later is waited for.
    let later = r#"rm "$here/ends" 2>/dev/null && exit 0; exit 7"#;
    let thing = agent(place.path(), None, &monitor(later));
    std::fs::write(place.path().join("resource.d/test/ends"), "").unwrap();
    thing.stop(&x).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_writes_without_end_is_cut() {
    let place = tempfile::tempdir().unwrap();
    let x = context("loud");
    let loud =
        "case $1 in start) i=0; while [ $i -lt 20000 ]; do echo \"line $i $OCF_ROOT\"; i=$((i+1)); done; exit 1;; esac";
    let why = failed(agent(place.path(), None, loud).start(&x).await);
    assert!(why.contains("line 19999") && why.len() < 2 * command::OUTPUT_KEPT, "{why}");
    let endless = agent(place.path(), None, "while :; do echo \"<!-- $here -->\"; done");
    let why = failed(endless.ready().await);
    assert!(why.contains("ocf:test:thing cannot be used") && why.contains("wrote too much"), "{why}");
}

#[tokio::test]
async fn meta_data_that_hang_fail_or_say_nothing_are_told() {
    let place = tempfile::tempdir().unwrap();
    let why = failed(agent(place.path(), None, "exec sleep 1000").ready().await);
    assert!(why.contains("did not end within 4s"), "{why}");
    let why = failed(agent(place.path(), None, "exit 3").ready().await);
    assert!(why.contains("its meta-data: it exited with code 3"), "{why}");
    write(place.path(), "#!/bin/sh\necho usage: start or stop\n");
    let silent = agent(place.path(), None, "");
    write(place.path(), "#!/bin/sh\necho usage: start or stop\n");
    assert!(failed(silent.ready().await).contains("not XML"));
    std::fs::remove_file(place.path().join("resource.d/test/thing")).unwrap();
    assert!(failed(silent.ready().await).contains("there is no agent ocf:test:thing"));
}

#[tokio::test]
async fn parameters_are_compared_with_the_meta_data_which_are_asked_for_once() {
    let place = tempfile::tempdir().unwrap();
    let mut thing = agent(place.path(), None, "");
    thing.ready().await.unwrap();
    thing.ready().await.unwrap();
    assert_eq!(log(place.path()), ["meta-data 0"]);
    thing.spec.params = [("ipp", "1"), ("port", "http")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let why = failed(thing.ready().await);
    for expected in ["`ipp`; did you mean `ip`?", "`ip` is required", "`port` is \"http\": expected a whole number"] {
        assert!(why.contains(expected), "{why}");
    }
    // An agent that is updated is asked again.
    write(place.path(), &HEAD.replace("name=\"ip\" required=\"1\"", "name=\"ipp\"").replace("integer", "string"));
    thing.ready().await.unwrap();
}

#[tokio::test]
async fn a_deep_monitor_takes_the_place_of_an_ordinary_one_when_it_is_due() {
    let place = tempfile::tempdir().unwrap();
    let slow = place.path().join("slow");
    let mut thing =
        agent(place.path(), None, &format!("[ $OCF_CHECK_LEVEL = 0 ] || ! [ -e {} ] || exit 42", slow.display()));
    let x = context("deep");
    thing.spec.deep_monitor = Some(DeepMonitor { level: 10, every: Duration::from_secs(3600) });
    thing.start(&x).await.unwrap();
    assert_eq!(thing.monitor(&x).await, Verdict::Good);
    assert_eq!(log(place.path()), ["start 0", "monitor 0"]);
    // It is due, and says nothing: the next one is deep again, until one was answered.
    *thing.deep_due.lock().unwrap() = Some(Instant::now());
    std::fs::write(&slow, "").unwrap();
    assert!(matches!(thing.monitor(&x).await, Verdict::Unknown(_)));
    std::fs::remove_file(&slow).unwrap();
    assert_eq!(thing.monitor(&x).await, Verdict::Good);
    assert_eq!(thing.monitor(&x).await, Verdict::Good);
    assert_eq!(log(place.path())[2..], ["monitor 10", "monitor 10", "monitor 0"]);
}

#[tokio::test]
async fn what_the_agent_advises_is_passed_on() {
    let place = tempfile::tempdir().unwrap();
    let mut thing =
        agent(place.path(), None, "[ $1 != validate-all ] || { echo 'ocf-exit-reason:no such place' >&2; exit 5; }");
    let spec = ResourceSpec {
        name: ResourceName::new("vip").unwrap(),
        kind: "Ocf".to_owned(),
        requires: Vec::new(),
        timeouts: Timeouts::default(),
        monitor: Monitor::default(),
        fingerprint: Fingerprint::default(),
    };
    let told = |advice: Vec<Advice>| {
        let lines = advice.into_iter().map(|a| format!("{} {}", a.what, a.help.unwrap_or_default()));
        lines.collect::<Vec<_>>().join("\n")
    };
    let said = told(thing.advice(&spec).await);
    for expected in [
        "it has 60 s for its start, and its agent advises 90 s at least `timeouts: (start: \"90s\")`",
        "at depth 10 `deep_monitor: (level: 10, every: \"120s\")`",
        "can be promoted: here it is only started",
        "its validate-all answered 5 (OCF_ERR_INSTALLED: something that it needs is not installed on this node); its reason: no such place",
    ] {
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
    thing.spec.params = BTreeMap::from([("addr".to_owned(), "10.0.0.1".to_owned())]);
    thing.spec.deep_monitor = Some(DeepMonitor { level: 10, every: Duration::from_secs(60) });
    let said = told(thing.advice(&spec).await);
    assert!(said.contains("its parameter `addr` is deprecated: use `ip`"), "{said}");
    assert!(said.contains("20 s for its deep monitor, and its agent advises 45 s at least"), "{said}");
    thing.spec.deep_monitor = Some(DeepMonitor { level: 20, every: Duration::from_secs(60) });
    assert!(told(thing.advice(&spec).await).contains("knows no monitor of depth 20"));
}
