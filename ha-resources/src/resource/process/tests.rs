use super::*;
use crate::proc::ProcessId;
use crate::proc::Stat;
use crate::test_support::{context, until, within};
use ha_core::driver::Verdict;

/// A place of its own for a test, with control groups where this machine has them.
struct Place {
    directory: tempfile::TempDir,
    cgroups: Option<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let cgroups = cgroup::find_root().filter(|root| {
            let usable = cgroup::prepare(&root.join("probe")).is_ok();
            if !usable {
                eprintln!("SKIPPED IN PART: {} cannot be used: only process groups are tested", root.display());
            }
            usable
        });
        if cgroups.is_none() {
            eprintln!("SKIPPED IN PART: no control groups of version 2 here: only process groups are tested");
        }
        Self { directory: tempfile::tempdir().unwrap(), cgroups }
    }

    fn without_cgroups() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), cgroups: None }
    }

    /// A new life of the agent.
    fn process(&self, spec: ProcessSpec) -> Process {
        let path = self.directory.path();
        let directories = Directories { run: path.join("run"), logs: path.join("log"), cgroups: self.cgroups.clone() };
        Process::new(spec, directories)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn shell(script: impl Into<String>) -> ProcessSpec {
    ProcessSpec::new(["sh".to_owned(), "-c".to_owned(), script.into()])
}

fn main_of(process: &Process) -> ProcessId {
    process.tracked.lock().unwrap().as_ref().unwrap().who.main
}

async fn pid_in(file: PathBuf) -> ProcessId {
    let pid = until("a program writes its pid", || std::fs::read_to_string(&file).ok()?.trim().parse().ok()).await;
    until("that process is there", || Stat::of(pid)).await.id()
}

#[tokio::test]
async fn a_program_is_started_seen_and_stopped_and_leaves_nothing() {
    let place = Place::new();
    let app = context("plain");
    let process = place.process(ProcessSpec::new(["sleep", "1000"]));
    assert_eq!(process.ready().await, Ok(()));
    assert!(matches!(process.monitor(&app).await, Verdict::Bad(_)));

    process.start(&app).await.unwrap();
    let main = main_of(&process);
    assert_eq!(process.monitor(&app).await, Verdict::Good);
    process.start(&app).await.unwrap();
    assert_eq!(main_of(&process), main, "a start of what runs starts nothing");

    process.stop(&app).await.unwrap();
    assert!(!main.is_alive());
    assert!(!process.record_path(&app).exists());
    until("the child is reaped", || main.stat().is_none().then_some(())).await;
    process.stop(&app).await.unwrap();
}

#[tokio::test]
async fn the_program_is_told_whose_it_is_and_nothing_of_the_agents_own_environment() {
    let place = Place::new();
    let app = context("environment");
    let mut spec = shell("env; echo at $(pwd); exec sleep 1000");
    spec.env.insert("COLOUR".to_owned(), "green".to_owned());
    spec.directory = PathBuf::from("/usr");
    let process = place.process(spec);
    process.start(&app).await.unwrap();
    let log = process.log(&app);
    let said = until("it says where it is", || Some(log.end(4096)).filter(|text| text.contains("at /usr"))).await;
    process.kill(&app).await.unwrap();
    for expected in ["HA_HIERARCHY=web", "HA_RESOURCE=environment", "HA_EPOCH=7", "HA_NODE=test-", "COLOUR=green"] {
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
    assert!(!said.contains("CARGO"), "{said}");
}

#[tokio::test]
async fn a_crash_is_told_at_once_with_the_exit_code_and_the_last_words() {
    let place = Place::new();
    let app = context("crash");
    let go = place.file("go");
    let script = format!("while ! test -e {}; do sleep 0.01; done; echo out of cheese >&2; exit 3", go.display());
    let process = place.process(shell(script));
    process.start(&app).await.unwrap();
    let (why, ()) = tokio::join!(process.watch(&app), async { std::fs::write(&go, "").unwrap() });
    assert_eq!(why, "it exited with code 3; it said: out of cheese");
    assert_eq!(process.monitor(&app).await, Verdict::Bad(why));
    process.stop(&app).await.unwrap();
}

#[tokio::test]
async fn a_program_that_ends_before_it_is_ready_was_not_started() {
    let place = Place::new();
    let app = context("early");
    let mut spec = shell("echo no licence; exit 1");
    spec.ready = Ready::After(Duration::from_secs(20));
    let process = place.process(spec);
    let Failed(why) = process.start(&app).await.unwrap_err();
    assert_eq!(why, "it exited with code 1 before it was ready; it said: no licence");
    process.stop(&app).await.unwrap();
}

#[tokio::test]
async fn a_program_is_ready_when_its_port_answers() {
    let place = Place::new();
    let app = context("port");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut spec = ProcessSpec::new(["sleep", "1000"]);
    spec.ready = Ready::Tcp(address);
    spec.check = Some(Check::Tcp(address));
    let process = place.process(spec);
    process.start(&app).await.unwrap();
    assert_eq!(process.monitor(&app).await, Verdict::Good);
    drop(listener);
    assert!(matches!(process.monitor(&app).await, Verdict::Bad(why) if why.contains("refused")));
    process.kill(&app).await.unwrap();

    let Failed(why) = process.start(&within(&app, Duration::from_millis(300))).await.unwrap_err();
    assert!(why.contains("was not ready"), "{why}");
    process.kill(&app).await.unwrap();
}

#[tokio::test]
async fn a_program_that_ignores_the_request_to_end_is_named_and_then_killed_with_its_children() {
    let place = Place::new();
    let app = context("stubborn");
    let child = place.file("child");
    let script = format!("trap '' TERM; sleep 1000 & echo $! > {}; while :; do sleep 0.1; done", child.display());
    let process = place.process(shell(script));
    process.start(&app).await.unwrap();
    let child = pid_in(child).await;
    let Failed(why) = process.stop(&within(&app, Duration::from_millis(300))).await.unwrap_err();
    assert!(why.contains("after SIGTERM: sh (pid"), "{why}");
    process.kill(&app).await.unwrap();
    assert!(!child.is_alive());
}

#[tokio::test]
async fn a_stopped_program_still_ends() {
    let place = Place::new();
    let app = context("frozen");
    let process = place.process(ProcessSpec::new(["sleep", "1000"]));
    process.start(&app).await.unwrap();
    let main = main_of(&process);
    main.signal(Signal::SIGSTOP).unwrap();
    until("it is stopped", || main.stat().filter(|stat| stat.state == 'T')).await;
    process.stop(&app).await.unwrap();
    assert!(!main.is_alive());
}

#[tokio::test]
async fn what_left_the_session_is_found_by_the_control_group() {
    let place = Place::new();
    if place.cgroups.is_none() {
        eprintln!("SKIPPED: no control groups of version 2 that can be used here");
        return;
    }
    let app = context("daemon");
    let daemon = place.file("daemon");
    let script = format!("(setsid sh -c 'echo $$ > {}; exec sleep 1000' &) ; exec sleep 1000", daemon.display());
    let process = place.process(shell(script));
    process.start(&app).await.unwrap();
    let daemon = pid_in(daemon).await;
    assert_ne!(daemon.stat().unwrap().session, main_of(&process).pid);
    process.stop(&app).await.unwrap();
    assert!(!daemon.is_alive());
    assert!(!command::cgroup_of(place.cgroups.as_deref(), &app).unwrap().exists());
}

#[tokio::test]
async fn a_restarted_agent_finds_the_program_and_watches_it() {
    for place in [Place::new(), Place::without_cgroups()] {
        let app = context("adopted");
        let before = place.process(ProcessSpec::new(["sleep", "1000"]));
        before.start(&app).await.unwrap();
        let main = main_of(&before);

        let after = place.process(ProcessSpec::new(["sleep", "1000"]));
        assert_eq!(after.adopt(&app).await, Ok(Found::Running));
        assert_eq!(after.monitor(&app).await, Verdict::Good);
        let (why, ()) = tokio::join!(after.watch(&app), async { main.signal(Signal::SIGKILL).unwrap() });
        assert_eq!(why, "it is gone");
        assert_eq!(after.adopt(&app).await, Ok(Found::Stopped));
        after.stop(&app).await.unwrap();
    }
}

#[tokio::test]
async fn a_restarted_agent_can_stop_what_an_earlier_one_started() {
    let place = Place::without_cgroups();
    let app = context("inherited");
    let before = place.process(shell("sleep 1000 & exec sleep 1000"));
    before.start(&app).await.unwrap();
    let main = main_of(&before);
    place.process(ProcessSpec::new(["sleep", "1000"])).stop(&app).await.unwrap();
    assert!(!main.is_alive());
    assert_eq!(before.adopt(&app).await, Ok(Found::Stopped));
}

#[tokio::test]
async fn a_stranger_with_the_recorded_number_is_left_alone() {
    let place = Place::without_cgroups();
    let app = context("reused");
    let process = place.process(ProcessSpec::new(["sleep", "1000"]));
    process.start(&app).await.unwrap();
    let stranger = main_of(&process);

    let record = process.record_path(&app);
    let text = std::fs::read_to_string(&record).unwrap();
    let forged = text.replacen(&stranger.started.to_string(), &(stranger.started - 1).to_string(), 1);
    std::fs::write(&record, forged).unwrap();
    let after = place.process(ProcessSpec::new(["sleep", "1000"]));
    assert_eq!(after.adopt(&app).await, Ok(Found::Stopped));
    after.kill(&app).await.unwrap();
    assert!(stranger.is_alive());

    std::fs::write(&record, text.replace(&proc::boot_id().unwrap(), "another boot")).unwrap();
    after.kill(&app).await.unwrap();
    assert!(stranger.is_alive());

    std::fs::write(&record, text).unwrap();
    after.kill(&app).await.unwrap();
    assert!(!stranger.is_alive());
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_that_a_stop_does_not_find() {
    let place = Place::new();
    let app = context("given-up");
    for turn in 0..20u32 {
        let process = place.process(ProcessSpec::new(["sleep", "1000"]));
        let limit = Duration::from_micros(u64::from(turn) * 200);
        let _ = tokio::time::timeout(limit, process.start(&app)).await;
        process.stop(&app).await.unwrap();
        assert_eq!(process.adopt(&app).await, Ok(Found::Stopped));
        let left = Stat::all().unwrap().into_iter().filter(Stat::is_alive).find(|stat| {
            let environment = std::fs::read(format!("/proc/{}/environ", stat.pid)).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&format!("HA_NODE={}\0HA_RESOURCE=given-up", app.node))
        });
        assert_eq!(left, None);
    }
}

#[tokio::test]
async fn what_this_node_lacks_is_said_before_it_matters() {
    let place = Place::new();
    let lacking = async |change: fn(&mut ProcessSpec)| {
        let mut spec = ProcessSpec::new(["sleep", "1000"]);
        change(&mut spec);
        place.process(spec).ready().await.unwrap_err().0
    };
    assert!(lacking(|spec| spec.command = vec!["no-such-program".to_owned()]).await.contains("no-such-program"));
    assert!(lacking(|spec| spec.command = vec!["/etc/passwd".to_owned()]).await.contains("not an executable"));
    assert!(lacking(|spec| spec.command = Vec::new()).await.contains("no program"));
    assert!(lacking(|spec| spec.directory = PathBuf::from("/nowhere")).await.contains("/nowhere"));
    assert!(lacking(|spec| spec.user = Some("nobody-at-all".to_owned())).await.contains("nobody-at-all"));

    let mut shared = ProcessSpec::new(["/srv/web/bin/app"]);
    shared.found_on = FoundOn::Hierarchy;
    assert_eq!(place.process(shared).ready().await, Ok(()));
}

#[tokio::test]
async fn a_program_runs_as_the_user_it_was_given() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run a program as somebody else");
        return;
    }
    let place = Place::new();
    let app = context("user");
    let mut spec = shell("echo I am $(id -u) in $HOME; exec sleep 1000");
    spec.user = Some("nobody".to_owned());
    let process = place.process(spec);
    process.start(&app).await.unwrap();
    let log = process.log(&app);
    let said = until("it says who it is", || Some(log.end(4096)).filter(|text| text.contains("I am"))).await;
    process.stop(&app).await.unwrap();
    let nobody = User::from_name("nobody").unwrap().unwrap();
    assert_eq!(said.trim(), format!("I am {} in {}", nobody.uid, nobody.dir.display()));
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_leaves_no_record() {
    let place = Place::new();
    let app = context("broken");
    let file = place.file("broken");
    std::fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let process = place.process(ProcessSpec::new([file.display().to_string()]));
    let Failed(why) = process.start(&app).await.unwrap_err();
    assert!(why.contains("broken: No such file"), "{why}");
    assert!(!process.record_path(&app).exists());
    process.stop(&app).await.unwrap();
}
