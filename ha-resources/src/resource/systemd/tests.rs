//! Against a real systemd, which is process number 1 of namespaces of its own.
//!
//! Systemd's own socket answers only who is in its process namespace. So each test starts a systemd, and then itself inside.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::proc::Stat;
use crate::test_support::{context, until, within};

/// Says to a test that it is inside.
const INSIDE: &str = "HA_TEST_INSIDE_SYSTEMD";

/// The argument is the folder that becomes `/run`. The machine's files can be read but not written, and
/// what it has enabled for itself is not.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1" /run
mount -o remount,bind,ro /
mount -t tmpfs none /etc/systemd/system
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
container=lab exec /lib/systemd/systemd --system --unit=lab.target --log-target=null --show-status=no
"#;

/// A systemd, seen from outside. It ends with everything that it runs when this is dropped, or the test dies.
struct Outside {
    group: PathBuf,
    first: Child,
    _run: tempfile::TempDir,
}

impl Outside {
    fn start() -> Option<Outside> {
        let root = ServiceManager::of_machine().cgroups().map(Path::to_owned);
        let (true, true, Some(root)) =
            (nix::unistd::geteuid().is_root(), Path::new("/lib/systemd/systemd").exists(), root)
        else {
            eprintln!(
                "SKIPPED: NOT TRIED ON systemd: this needs root, /lib/systemd/systemd and control groups of version 2"
            );
            return None;
        };
        let run = tempfile::tempdir().unwrap();
        let name = run.path().file_name().unwrap().to_string_lossy().into_owned();
        let group = root.join(format!("ha-test-systemd-{name}"));
        std::fs::create_dir(&group).unwrap();
        let units = run.path().join("systemd/system");
        std::fs::create_dir_all(&units).unwrap();
        std::fs::create_dir(run.path().join("lock")).unwrap();
        std::fs::write(units.join("lab.target"), "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n").unwrap();
        let enter = "echo $$ >$0/cgroup.procs && exec setpriv --pdeathsig KILL \
                     unshare --pid --fork --mount --cgroup --uts --ipc --net --kill-child sh -c \"$1\" boot \"$2\"";
        let first = Command::new("sh")
            .args(["-c", enter])
            .arg(&group)
            .arg(BOOT)
            .arg(run.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Some(Outside { group, first, _run: run })
    }

    /// Runs this very test inside.
    fn try_inside(&self) {
        let outer = self.first.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        let name = std::thread::current().name().unwrap().to_owned();
        for _ in 0..600 {
            let first = std::fs::read_to_string(&children).unwrap_or_default();
            let entered = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"];
            let nsenter = || {
                let mut command = Command::new("nsenter");
                command.args(["--target", first.trim()]).args(entered).stdin(Stdio::null());
                command
            };
            let up = nsenter().args(["systemctl", "is-system-running"]).stderr(Stdio::null()).output().unwrap();
            if up.status.success() {
                let done = nsenter()
                    .arg(std::env::current_exe().unwrap())
                    .args(["--exact", &name, "--nocapture"])
                    .env(INSIDE, "1")
                    .output()
                    .unwrap();
                let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
                assert!(done.status.success(), "inside: {said}");
                assert!(said.contains("1 passed"), "inside: {said}");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("systemd did not come up");
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
        for _ in 0..600 {
            if cgroup::remove(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} stays behind", self.group.display());
    }
}

/// The machine that systemd runs, seen from inside.
struct Machine;

impl Machine {
    /// `None` outside, where the whole test was done by then, or cannot be, which was said.
    fn enter() -> Option<Machine> {
        if std::env::var_os(INSIDE).is_some() {
            return Some(Machine);
        }
        if let Some(outside) = Outside::start() {
            outside.try_inside();
        }
        None
    }

    #[expect(clippy::unused_self, reason = "who has a machine is inside of it")]
    fn manager(&self) -> ServiceManager {
        ServiceManager::of_machine()
    }

    fn unit_files(&self) -> PathBuf {
        self.manager().unit_files().to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.unit_files().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn manage(&self, method: &str, arguments: &(impl serde::Serialize + zbus::DynamicType)) {
        self.manager().connect().await.unwrap().manager(method, arguments).await.unwrap();
    }

    /// A unit of these lines, `[Service]` before them, and the resource that serves it.
    fn service(&self, name: &str, lines: &str) -> Systemd {
        self.write(name, &format!("[Unit]\nDefaultDependencies=no\n[Service]\n{lines}\n"));
        self.resource(name)
    }

    fn resource(&self, name: &str) -> Systemd {
        Systemd::new(SystemdSpec { unit: UnitName::new(name).unwrap(), check: None }, self.manager())
    }

    fn laid_over(&self, name: &str) -> PathBuf {
        self.unit_files().join(format!("{name}.d/50-ha.conf"))
    }
}

fn group_of(handles: &[KillHandle]) -> &Path {
    let [KillHandle::Cgroup(group)] = handles else { panic!("{handles:?}") };
    group
}

fn members(resource: &Systemd) -> Vec<Stat> {
    process_group::members(&resource.handles(&context("x"))).unwrap()
}

async fn bounded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("within a minute")
}

fn said(result: Result<(), Failed>, all: &[&str]) {
    let text = result.expect_err("this has to fail").to_string();
    for expected in all {
        assert!(text.contains(expected), "{expected:?} is missing in {text:?}");
    }
}

#[tokio::test]
async fn a_unit_is_served_taken_over_and_stopped() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let unit = machine.service("app.service", "ExecStart=/bin/sleep infinity\nRestart=always");
    unit.ready().await.unwrap();
    let told = unit.handles(&x);
    assert_eq!(group_of(&told), Path::new("/sys/fs/cgroup").join("system.slice/app.service"));
    assert!(matches!(unit.monitor(&x).await, Verdict::Bad(_)));
    assert_eq!(unit.adopt(&x).await, Ok(Found::Stopped));

    unit.start(&x).await.unwrap();
    assert_eq!(unit.monitor(&x).await, Verdict::Good);
    let before: Vec<_> = members(&unit).iter().map(Stat::id).collect();
    assert_eq!(before.len(), 1, "what a warden was told before the start is what runs");
    assert!(machine.laid_over("app.service").exists());
    // Another life of the agent finds it, and its group, and a start changes nothing.
    let next = machine.resource("app.service");
    assert_eq!(next.handles(&x), told);
    assert_eq!(next.adopt(&x).await, Ok(Found::Running));
    next.start(&x).await.unwrap();
    assert_eq!(members(&next).iter().map(Stat::id).collect::<Vec<_>>(), before);

    next.stop(&x).await.unwrap();
    assert!(members(&next).is_empty());
    assert!(!machine.unit_files().join("app.service.d").exists());
    assert!(matches!(next.monitor(&x).await, Verdict::Bad(why) if why.contains("inactive")));
    next.stop(&x).await.unwrap();
    next.kill(&x).await.unwrap();
}

#[tokio::test]
async fn an_active_unit_that_does_not_do_its_work_is_bad_and_running() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let mut unit = machine.service("app.service", "ExecStart=/bin/sleep infinity");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    unit.check = Some(Check::Tcp(port.local_addr().unwrap()));
    assert!(matches!(unit.monitor(&x).await, Verdict::Bad(why) if why.contains("inactive")));
    unit.start(&x).await.unwrap();
    assert_eq!(unit.monitor(&x).await, Verdict::Good);
    drop(port);
    assert!(matches!(unit.monitor(&x).await, Verdict::Bad(why) if why.contains("it lives, but 127.0.0.1:")));
    assert_eq!(unit.adopt(&x).await, Ok(Found::Running));
    unit.stop(&x).await.unwrap();
}

#[tokio::test]
async fn a_crash_is_heard_of_and_systemd_starts_nothing_by_itself() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let lines = "ExecStart=/bin/sleep infinity\nRestart=always\nRestartSec=0\nRestartForceExitStatus=SIGKILL";
    let unit = Arc::new(machine.service("app.service", lines));
    // More often than systemd's own limit allows.
    for _ in 0..8 {
        unit.start(&x).await.unwrap();
        let main = members(&unit)[0].id();
        let watched = tokio::spawn({
            let (unit, x) = (unit.clone(), x.clone());
            async move { unit.watch(&x).await }
        });
        main.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        let why = bounded(watched).await.unwrap();
        assert!(why.contains("Result=signal") && why.contains("SIGKILL"), "{why}");
        until("it has failed", || members(&unit).is_empty().then_some(())).await;
    }
    let restarts: u32 = {
        let link = machine.manager().connect().await.unwrap();
        link.property(&object_of("app.service"), crate::systemd::SERVICE_INTERFACE, "NRestarts").await.unwrap()
    };
    assert_eq!(restarts, 0);
    assert!(matches!(unit.monitor(&x).await, Verdict::Bad(why) if why.contains("Result=signal")));
    unit.stop(&x).await.unwrap();
}

#[tokio::test]
async fn systemd_executes_itself_anew_and_the_watch_goes_on() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let unit = Arc::new(machine.service("app.service", "ExecStart=/bin/sleep infinity"));
    unit.start(&x).await.unwrap();
    let mut watched = tokio::spawn({
        let (unit, x) = (unit.clone(), x.clone());
        async move { unit.watch(&x).await }
    });
    for _ in 0..3 {
        // It closes the connection in place of an answer.
        let _ = machine.manager().connect().await.unwrap().manager("Reexecute", &()).await;
        assert_eq!(unit.monitor(&x).await, Verdict::Good);
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut watched).await.is_err(), "nothing has failed");
    members(&unit)[0].id().signal(nix::sys::signal::Signal::SIGABRT).unwrap();
    let why = bounded(watched).await.unwrap();
    assert!(why.contains("SIGABRT"), "{why}");
    unit.stop(&x).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_served_is_said_with_its_remedy() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let sleep = "ExecStart=/bin/sleep infinity";
    let missing = machine.resource("missing.service");
    let masked = machine.resource("masked.service");
    std::os::unix::fs::symlink("/dev/null", machine.unit_files().join("masked.service")).unwrap();
    let enabled = machine.service("enabled.service", &format!("{sleep}\n[Install]\nWantedBy=lab.target"));
    let wants = machine.unit_files().join("lab.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../enabled.service", wants.join("enabled.service")).unwrap();
    let broken = machine.service("broken.service", "ExecStart=relative/path");
    let triggered = machine.service("triggered.service", sleep);
    machine.write("triggered.timer", "[Unit]\nDefaultDependencies=no\n[Timer]\nOnActiveSec=1h\n");
    machine.write(
        "circle.service",
        &format!("[Unit]\nDefaultDependencies=no\nAfter=multi-user.target\n[Service]\n{sleep}\n"),
    );
    let circle = machine.resource("circle.service");
    let oneself = machine.service("oneself.service", &format!("{sleep}\nRestart=always"));
    machine.write("oneself.service.d/99-local.conf", "[Service]\nRestart=on-failure\n");
    machine.manage("Reload", &()).await;
    machine.manage("StartUnit", &("triggered.timer", "replace")).await;

    for (unit, remedy) in [
        (&missing, "install"),
        (&masked, "systemctl unmask masked.service"),
        (&enabled, "systemctl disable enabled.service"),
        (&broken, "systemd-analyze verify broken.service"),
        (&triggered, "systemctl disable --now triggered.timer"),
        (&circle, "After=multi-user.target"),
    ] {
        said(unit.ready().await, &[unit.unit.as_str(), remedy]);
        said(unit.start(&x).await, &[unit.unit.as_str(), remedy]);
        assert!(members(unit).is_empty());
        // There is nothing to be stopped, and that is no error.
        unit.stop(&x).await.unwrap();
        unit.kill(&x).await.unwrap();
    }
    said(oneself.start(&x).await, &["Restart=on-failure", "99-local.conf"]);
}

#[tokio::test]
async fn a_start_that_fails_says_how() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let fails = machine.service("fails.service", "Type=oneshot\nExecStart=/bin/sh -c 'exit 7'\nRemainAfterExit=yes");
    said(fails.start(&x).await, &["failed", "exited with code 7"]);
    let ends = machine.service("ends.service", "Type=oneshot\nExecStart=/bin/true");
    said(ends.start(&x).await, &["RemainAfterExit=yes"]);
    let absent = "[Unit]\nDefaultDependencies=no\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep 9\n";
    machine.write("absent.service", absent);
    said(machine.resource("absent.service").start(&x).await, &["Condition"]);
    let needs = "[Unit]\nDefaultDependencies=no\nRequires=fails.service\nAfter=fails.service\n[Service]\nExecStart=/bin/sleep 9\n";
    machine.write("needs.service", needs);
    said(machine.resource("needs.service").start(&x).await, &["requires", "list-dependencies"]);
    for unit in ["fails.service", "ends.service", "absent.service", "needs.service"] {
        machine.resource(unit).stop(&x).await.unwrap();
        assert!(!machine.laid_over(unit).exists());
    }
}

#[tokio::test]
async fn a_unit_that_never_says_that_it_is_ready_is_given_up() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let unit = machine.service("mute.service", "Type=notify\nExecStart=/bin/sleep infinity\nTimeoutStartSec=infinity");
    said(unit.start(&within(&x, Duration::from_secs(8))).await, &["activating", "READY=1", "sleep"]);
    assert!(matches!(unit.monitor(&x).await, Verdict::Unknown(_)));
    unit.stop(&x).await.unwrap();
    assert!(members(&unit).is_empty());
    // The unit's own limit is the shorter one.
    let unit = machine.service("brief.service", "Type=notify\nExecStart=/bin/sleep infinity\nTimeoutStartSec=1");
    said(unit.start(&x).await, &["failed", "Result=timeout"]);
    unit.stop(&x).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_hangs_is_bounded_and_a_kill_ends_it() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let lines = "ExecStart=/bin/sleep infinity\nExecStop=/bin/sleep infinity\nExecStopPost=/bin/sleep infinity\n\
                 TimeoutStopSec=infinity\nRestart=always";
    let unit = machine.service("stays.service", lines);
    unit.start(&x).await.unwrap();
    said(unit.stop(&within(&x, Duration::from_secs(8))).await, &["deactivating", "sleep"]);
    unit.kill(&x).await.unwrap();
    assert!(members(&unit).is_empty());
    assert!(matches!(unit.monitor(&x).await, Verdict::Bad(why) if why.contains("inactive")));
    assert!(!machine.laid_over("stays.service").exists());
}

#[tokio::test]
async fn what_a_unit_leaves_running_is_no_stop() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let lines = "KillMode=process\nExecStart=/bin/sh -c 'sleep infinity & exec sleep infinity'";
    let unit = machine.service("litters.service", lines);
    unit.start(&x).await.unwrap();
    until("both run", || (members(&unit).len() == 2).then_some(())).await;
    said(unit.stop(&x).await, &["left running", "sleep", "KillMode="]);
    said(unit.adopt(&x).await.map(drop), &["left running"]);
    unit.kill(&x).await.unwrap();
    assert!(members(&unit).is_empty());
    unit.stop(&x).await.unwrap();
}

#[tokio::test]
async fn no_unit_starts_where_the_warden_does_not_look() {
    let Some(machine) = Machine::enter() else { return };
    let x = context("x");
    let unit = machine.service("memory.service", "Slice=a-b.slice\nExecStart=/bin/sleep infinity");
    let guessed = unit.handles(&x);
    assert_eq!(group_of(&guessed), Path::new("/sys/fs/cgroup").join("system.slice/_memory.service"));
    said(unit.start(&x).await, &["a.slice/a-b.slice/_memory.service", "warden"]);
    let told = unit.handles(&x);
    assert_eq!(group_of(&told), Path::new("/sys/fs/cgroup").join("a.slice/a-b.slice/_memory.service"));
    unit.start(&x).await.unwrap();
    assert_eq!(members(&unit).len(), 1);
    // Another life, which has asked nobody yet, finds it.
    assert_eq!(machine.resource("memory.service").handles(&x), told);
    unit.stop(&x).await.unwrap();
}

#[tokio::test]
async fn without_a_systemd_that_is_said() {
    let nowhere = tempfile::tempdir().unwrap();
    let manager = ServiceManager::at(nowhere.path().join("private"), nowhere.path(), nowhere.path());
    assert!(manager.state().await.is_err());
    let unit = Systemd::new(SystemdSpec { unit: UnitName::new("app.service").unwrap(), check: None }, manager);
    said(unit.ready().await, &["systemd cannot be reached"]);
    said(unit.start(&context("x")).await, &["systemd cannot be reached"]);
    said(unit.stop(&context("x")).await, &["systemd cannot be reached"]);
    assert!(matches!(unit.monitor(&context("x")).await, Verdict::Unknown(_)));
}
