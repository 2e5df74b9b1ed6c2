//! Init scripts that do as the standard has it, and scripts that do what real ones do instead.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::proc::{ProcessId, Stat};
use crate::test_support::{context, until, usable_cgroups, within};

/// A script by the book, in a folder of its own: `$pid` names its daemon, and any action may be written anew behind it.
const HEAD: &str = r#"#!/bin/sh
here=${0%/*}
pid=$here/pid
echo "$1" >> "$here/log"
# A zombie, which whoever is process 1 here may leave for a while, does not run.
runs() { [ -e "$pid" ] && grep -q '^State:.*[^Z] (' "/proc/$(cat "$pid")/status" 2>/dev/null; }
start() { runs || { setsid sleep 1000 >/dev/null 2>&1 & echo $! >"$pid"; }; }
stop() { if runs; then kill "$(cat "$pid")"; fi; rm -f "$pid"; }
status() { runs && return; [ ! -e "$pid" ] || return 1; return 3; }
"#;

/// The script with deviations, which are functions defined anew.
fn script(place: &Path, deviations: &str, cgroups: Option<PathBuf>, status: Judge) -> Lsb {
    let usage = r#"case $1 in start|stop|status) "$1" ;; *) echo "Usage: start|stop|status" >&2; exit 2 ;; esac"#;
    let text = format!("{HEAD}{deviations}\n{usage}\n");
    // By a process of its own: one of ours that forks meanwhile would keep the file from being executed.
    let write = "cat > rc && chmod 755 rc";
    let mut child = Command::new("sh").args(["-c", write]).current_dir(place).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let directories = Directories { run: place.join("run"), logs: place.join("logs"), cgroups };
    let spec = LsbSpec { status, ..LsbSpec::new(place.join("rc").to_string_lossy()) };
    Lsb::new(spec, directories)
}

fn daemon(place: &Path) -> Option<ProcessId> {
    let pid = std::fs::read_to_string(place.join("pid")).ok()?.trim().parse().ok()?;
    Stat::of(pid).map(|stat| stat.id())
}

fn failed(result: Result<(), Failed>) -> String {
    let Failed(why) = result.unwrap_err();
    why
}

fn bad(verdict: Verdict) -> String {
    match verdict {
        Verdict::Bad(why) => why,
        other => panic!("{other:?}"),
    }
}

async fn until_dead(process: ProcessId) {
    until("it is dead", || (!process.is_alive()).then_some(())).await;
}

async fn end(process: ProcessId) {
    process.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    until_dead(process).await;
}

#[tokio::test]
async fn a_script_by_the_book_is_started_watched_adopted_and_stopped() {
    // Where there are no control groups, too.
    for cgroups in [usable_cgroups(), None] {
        let place = tempfile::tempdir().unwrap();
        let x = context("book");
        let book = script(place.path(), "", cgroups, Judge::Script);
        book.ready().await.unwrap();
        book.stop(&x).await.unwrap();
        book.start(&x).await.unwrap();
        book.start(&x).await.unwrap();
        assert_eq!(book.monitor(&x).await, Verdict::Good);
        assert_eq!(book.adopt(&x).await, Ok(Found::Running));
        let first = daemon(place.path()).unwrap();
        end(first).await;
        assert!(bad(book.monitor(&x).await).contains("its status answered 1 (it is dead and left its pid file)"));
        assert_eq!(book.adopt(&x).await, Ok(Found::Stopped));
        book.start(&x).await.unwrap();
        let second = daemon(place.path()).unwrap();
        book.stop(&x).await.unwrap();
        until_dead(second).await;
        assert!(bad(book.monitor(&x).await).contains("its status answered 3 (it does not run)"));
        book.stop(&x).await.unwrap();
    }
}

#[tokio::test]
async fn the_death_of_a_program_is_known_without_its_status() {
    let Some(cgroups) = usable_cgroups() else { return };
    let x = context("dies");
    let in_service = within(&x, Duration::MAX);
    for (judge, expected) in
        [(Judge::Script, "its status answered 1"), (Judge::Group, "nothing runs any more of what its start left")]
    {
        let place = tempfile::tempdir().unwrap();
        script(place.path(), "", Some(cgroups.clone()), judge).start(&x).await.unwrap();
        // By the next life of this program.
        let book = script(place.path(), "", Some(cgroups.clone()), judge);
        assert_eq!(book.adopt(&x).await, Ok(Found::Running));
        let daemon = daemon(place.path()).unwrap();
        let bounded = tokio::time::timeout(Duration::from_secs(30), book.watch(&in_service));
        let (why, ()) = tokio::join!(bounded, end(daemon));
        assert!(why.as_ref().unwrap().contains(expected), "{why:?}");
        book.stop(&x).await.unwrap();
    }
    // Where nothing can be known, it waits for its status.
    let place = tempfile::tempdir().unwrap();
    let book = script(place.path(), "", None, Judge::Script);
    book.start(&x).await.unwrap();
    end(daemon(place.path()).unwrap()).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), book.watch(&in_service)).await.is_err());
}

#[tokio::test]
async fn what_a_status_leaves_behind_is_ended() {
    let place = tempfile::tempdir().unwrap();
    let x = context("leaves");
    let deviation = "status() { (sleep 1000 >/dev/null 2>&1 & echo $! >\"$here/left\"); runs; }";
    let odd = script(place.path(), deviation, None, Judge::Script);
    odd.start(&x).await.unwrap();
    let left: i32 = std::fs::read_to_string(place.path().join("left")).unwrap().trim().parse().unwrap();
    let gone = || Stat::of(left).is_none_or(|process| !process.is_alive());
    until("it is ended", || gone().then_some(())).await;
    assert!(daemon(place.path()).unwrap().is_alive());
    end(daemon(place.path()).unwrap()).await;
}

#[tokio::test]
async fn a_stop_of_what_is_stopped_may_fail() {
    let place = tempfile::tempdir().unwrap();
    let x = context("stop-fails");
    let deviation =
        "stop() { runs || { echo 'not running, exiting' >&2; return 1; }; kill \"$(cat \"$pid\")\"; rm -f \"$pid\"; }";
    let odd = script(place.path(), deviation, usable_cgroups(), Judge::Script);
    odd.stop(&x).await.unwrap();
    odd.start(&x).await.unwrap();
    let daemon = daemon(place.path()).unwrap();
    odd.stop(&x).await.unwrap();
    until_dead(daemon).await;
    odd.stop(&x).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_fails_and_leaves_it_running_is_told_and_kill_ends_it() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("stop-lies");
    for (deviation, expected) in
        [("stop() { return 1; }", "its stop answered 1"), ("stop() { :; }", "its stop answered 0")]
    {
        let odd = script(place.path(), deviation, Some(cgroups.clone()), Judge::Script);
        odd.start(&x).await.unwrap();
        let daemon = daemon(place.path()).unwrap();
        let why = failed(odd.stop(&x).await);
        assert!(why.contains(expected) && why.contains("what its start left still runs: sleep"), "{why}");
        odd.kill(&x).await.unwrap();
        assert!(!daemon.is_alive());
    }
}

#[tokio::test]
async fn a_status_that_always_says_that_it_runs_is_found_out_by_the_group() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("status-lies");
    let odd = script(place.path(), "status() { return 0; }", Some(cgroups), Judge::Script);
    odd.start(&x).await.unwrap();
    let daemon = daemon(place.path()).unwrap();
    assert_eq!(odd.monitor(&x).await, Verdict::Good);
    end(daemon).await;
    assert!(bad(odd.monitor(&x).await).contains("its script's status is wrong"));
    assert_eq!(odd.adopt(&x).await, Ok(Found::Stopped));
    odd.stop(&x).await.unwrap();
}

#[tokio::test]
async fn a_script_without_status_is_told_and_the_group_can_judge_instead() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("no-status");
    let deviation = "status() { echo 'Usage: start|stop' >&2; exit 1; }";
    let odd = script(place.path(), deviation, Some(cgroups.clone()), Judge::Script);
    let why = failed(odd.start(&within(&x, Duration::from_secs(2))).await);
    assert!(why.contains("set `status: Group`") && why.contains("Usage"), "{why}");
    odd.kill(&x).await.unwrap();
    let odd = script(place.path(), deviation, Some(cgroups), Judge::Group);
    odd.ready().await.unwrap();
    odd.start(&x).await.unwrap();
    odd.start(&x).await.unwrap();
    assert_eq!(odd.monitor(&x).await, Verdict::Good);
    let daemon = daemon(place.path()).unwrap();
    odd.stop(&x).await.unwrap();
    until_dead(daemon).await;
    assert!(bad(odd.monitor(&x).await).contains("nothing of it runs"));
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    assert_eq!(log.lines().rev().take(2).collect::<Vec<_>>(), ["stop", "start"], "the script was asked for its status");
    let nowhere = script(place.path(), deviation, None, Judge::Group);
    assert!(failed(nowhere.ready().await).contains("needs control groups"));
}

#[tokio::test]
async fn what_runs_already_and_was_not_started_here_is_started_anew() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("foreign");
    // One that fails when it runs already, as many do.
    let deviation = "start() { runs && return 1; setsid sleep 1000 >/dev/null 2>&1 & echo $! >\"$pid\"; }";
    let odd = script(place.path(), deviation, Some(cgroups), Judge::Script);
    assert!(Command::new(place.path().join("rc")).arg("start").status().unwrap().success());
    let foreign = daemon(place.path()).unwrap();
    odd.start(&x).await.unwrap();
    until_dead(foreign).await;
    let own = daemon(place.path()).unwrap();
    assert_eq!(odd.group(&x), Ok(Group::Alive(format!("sleep (pid {}, state S)", own.pid))));
    odd.start(&x).await.unwrap();
    assert_eq!(daemon(place.path()), Some(own));
    odd.stop(&x).await.unwrap();
}

#[tokio::test]
async fn a_start_whose_program_ends_at_once_is_told_at_once() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("ends");
    let odd = script(place.path(), "start() { :; }", Some(cgroups), Judge::Script);
    let why = failed(odd.start(&x).await);
    assert!(why.contains("its start answered 0 (done), but its status answered 3"), "{why}");
    let odd = script(place.path(), "start() { echo 'no configuration' >&2; return 6; }", None, Judge::Script);
    let why = failed(odd.start(&x).await);
    assert!(why.contains("answered 6 (the program is not configured") && why.contains("no configuration"), "{why}");
}

#[tokio::test]
async fn a_program_that_somebody_else_runs_is_judged_by_the_script_alone() {
    let Some(cgroups) = usable_cgroups() else { return };
    let place = tempfile::tempdir().unwrap();
    let x = context("elsewhere");
    // As rules of a packet filter: nothing that runs.
    let deviation = "start() { touch \"$here/up\"; }\nstop() { rm -f \"$here/up\"; }\nstatus() { [ -e \"$here/up\" ] || return 3; }";
    let odd = script(place.path(), deviation, Some(cgroups), Judge::Script);
    odd.start(&x).await.unwrap();
    assert_eq!(odd.group(&x), Ok(Group::None));
    assert_eq!(odd.monitor(&x).await, Verdict::Good);
    odd.stop(&x).await.unwrap();
    assert!(bad(odd.monitor(&x).await).contains("answered 3"));
}

#[tokio::test]
async fn a_status_that_is_not_known_hangs_or_is_no_status_says_nothing() {
    let place = tempfile::tempdir().unwrap();
    let x = within(&context("unknown"), Duration::from_secs(1));
    for (deviation, expected) in [
        ("status() { return 4; }", "its state is not known"),
        ("status() { return 150; }", "a code of this program"),
        ("status() { no-such-program 2>/dev/null; }", "a program that is not there"),
        ("status() { return 77; }", "no code of init scripts"),
        ("status() { trap '' TERM; while :; do sleep 1000; done; }", "did not end within"),
    ] {
        let odd = script(place.path(), deviation, None, Judge::Script);
        match odd.monitor(&x).await {
            Verdict::Unknown(why) => assert!(why.contains(expected), "{why}"),
            other => panic!("{deviation}: {other:?}"),
        }
        assert!(odd.adopt(&x).await.is_err());
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_beforehand() {
    let place = tempfile::tempdir().unwrap();
    let directories = Directories { run: place.path().join("run"), logs: place.path().join("logs"), cgroups: None };
    let missing = Lsb::new(LsbSpec::new("no-such-script"), directories.clone());
    assert!(failed(missing.ready().await).contains("there is no script \"no-such-script\" in /etc/init.d"));
    let path = place.path().join("old");
    std::fs::write(&path, "#!/bin/sh\ncase $1 in start) ;; stop) ;; esac\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let plain = Lsb::new(LsbSpec::new(path.to_string_lossy()), directories);
    assert!(
        matches!(plain.advice().await.as_slice(), [advice] if advice.help.as_deref() == Some("set `status: Group`"))
    );
}

#[tokio::test]
async fn one_that_runs_and_does_not_do_its_work_is_bad_and_running() {
    let place = tempfile::tempdir().unwrap();
    let x = context("idle");
    let mut idle = script(place.path(), "", usable_cgroups(), Judge::Script);
    let works = place.path().join("works");
    idle.spec.check = Some(Check::Command(vec!["test".to_owned(), "-e".to_owned(), works.display().to_string()]));
    assert!(bad(idle.monitor(&x).await).contains("its status answered 3 (it does not run)"));
    idle.start(&x).await.unwrap();
    assert!(bad(idle.monitor(&x).await).contains("it lives, but its check exited with code 1"));
    // Else an agent that was restarted would start it beside itself.
    assert_eq!(idle.adopt(&x).await, Ok(Found::Running));
    std::fs::write(&works, "").unwrap();
    assert_eq!(idle.monitor(&x).await, Verdict::Good);
    idle.stop(&x).await.unwrap();
}
