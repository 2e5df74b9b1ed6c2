//! Two machines that a real systemd runs, as process number 1 of namespaces of their own: the agent under its own unit serves another unit,
//! is restarted, and hands it over when its machine is shut down, while the storage is still there.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in what it is made of too")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The arguments are the folder that becomes `/run`, and one that both machines share. The machine's files can be read but not written, and
/// what it has enabled for itself is not.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1" /run
mount --bind "$2" /run/shared
mount -o remount,bind,ro /
mount -t tmpfs none /etc/systemd/system
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
container=lab exec /lib/systemd/systemd --system --unit=lab.target --log-target=null --show-status=no
"#;

/// Stopped at shutdown like any other, and started without the rest of a machine.
const BARE: &str = "DefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n";

/// What a program of the machine does to tell what happens to it.
fn tell(what: &str) -> String {
    format!("echo \"$(cat /run/lab/name) {what}\" >>/run/shared/log")
}

struct Machine {
    name: &'static str,
    group: PathBuf,
    outer: Child,
}

impl Machine {
    fn start(place: &Path, cgroups: &Path, name: &'static str) -> Machine {
        let run = place.join(name);
        for folder in ["shared", "lock", "lab/etc/hierarchies", "lab/state", "lab/log", "systemd/system/ha.service.d"] {
            fs::create_dir_all(run.join(folder)).unwrap();
        }
        let write = |file: &str, text: &str| fs::write(run.join(file), text).unwrap();
        write("lab/name", name);
        write("lab/etc/agent.ron", AGENT);
        write("lab/etc/hierarchies/app.ron", HIERARCHY);
        let unit = |file: &str, text: &str| fs::write(run.join("systemd/system").join(file), text).unwrap();
        unit("ha.service", include_str!("../systemd/ha.service"));
        let agent = env!("CARGO_BIN_EXE_ha");
        let lines = [
            format!("[Unit]\n{BARE}[Service]\nExecStart=\nExecStart={agent} --config /run/lab/etc run --node {name}"),
            "StateDirectory=\nLogsDirectory=\nConfigurationDirectory=".to_owned(),
            format!("StandardError=append:/run/shared/{name}.log\n"),
        ];
        unit("ha.service.d/50-lab.conf", &lines.join("\n"));
        // The network is there already, and nothing of this machine is to be asked for it.
        symlink("/dev/null", run.join("systemd/system/network-online.target")).unwrap();
        // The storage: what remote filesystems need, which the shipped unit of the agent is ordered after.
        let goes = tell("storage goes");
        unit(
            "lab-storage.service",
            &format!(
                "[Unit]\nAfter=local-fs.target\nBefore=remote-fs.target\n{BARE}[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c '{goes}'\n"
            ),
        );
        let (starts, stops) =
            (tell("app starts"), tell("app stops, data $(mountpoint -q /run/data && echo there || echo gone)"));
        unit(
            "app.service",
            &format!(
                "[Unit]\n{BARE}[Service]\nRestart=always\nExecStart=/bin/sh -c '{starts}; exec sleep infinity'\n\
                 ExecStop=/bin/sh -c '{}'\n",
                stops.replace("$(", "$$(")
            ),
        );
        unit(
            "lab.target",
            "[Unit]\nDefaultDependencies=no\nWants=lab-storage.service local-fs.target remote-fs.target\nAllowIsolate=yes\n",
        );
        let group = cgroups.join(format!("ha-test-shutdown-{}-{name}", std::process::id()));
        fs::create_dir(&group).unwrap();
        let outer = Command::new("sh")
            .args(["-c", "echo $$ >$0/cgroup.procs && exec setpriv --pdeathsig KILL unshare --pid --fork --mount --cgroup --uts --ipc --kill-child sh -c \"$1\" boot \"$2\" \"$3\""])
            .arg(&group)
            .arg(BOOT)
            .args([run, place.join("shared")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let machine = Machine { name, group, outer };
        eventually("systemd runs", || machine.run(&["systemctl", "is-system-running"]).0.then_some(()));
        machine
    }

    /// Process number 1, as it is seen from outside.
    fn first(&self) -> Option<String> {
        let outer = self.outer.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    /// Runs a program to its end: whether it ended well, and what it wrote.
    fn run(&self, command: &[&str]) -> (bool, String) {
        let Some(first) = self.first() else { return (false, "it is off".to_owned()) };
        let entered = ["--target", &first, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--"];
        let output = Command::new("nsenter").args(entered).args(command).stdin(Stdio::null()).output().unwrap();
        (
            output.status.success(),
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
        )
    }

    fn must(&self, command: &[&str]) -> String {
        let (done, said) = self.run(command);
        assert!(done, "{command:?} on {}: {said}", self.name);
        said
    }

    fn ha(&self, arguments: &[&str]) -> String {
        let command: Vec<&str> = [env!("CARGO_BIN_EXE_ha"), "--config", "/run/lab/etc"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.run(&command).1
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        for _ in 0..600 {
            if remove_group(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Looks until something is there, for two minutes at most.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it never happened that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const AGENT: &str = r#"(
    cluster: "lab",
    nodes: {
        "alpha": (addresses: ["127.77.0.1:17946"]),
        "beta": (addresses: ["127.77.0.2:17946"]),
    },
    keys: "/run/shared/keys",
    lock_areas: { "main": (path: "/run/shared/area") },
    watchdog: Warden,
    state_dir: "/run/lab/state",
    log_dir: "/run/lab/log",
)"#;

const HIERARCHY: &str = r#"Hierarchy(
    name: "app",
    nodes: ["alpha", "beta"],
    claim: LockArea("main"),
    resources: [
        Filesystem(name: "data", device: "tmpfs", at: "/run/data", fstype: "tmpfs", mount_point: Created),
        Systemd(name: "app", unit: "app.service"),
    ],
)"#;

/// Where control groups of version 2 are.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields[2] == "cgroup2")
        .map(|fields| PathBuf::from(fields[1]))
}

#[test]
fn a_machine_that_is_shut_down_hands_over_while_its_storage_is_there() {
    let (true, true, Some(cgroups)) =
        (nix::unistd::geteuid().is_root(), Path::new("/lib/systemd/systemd").exists(), cgroups())
    else {
        eprintln!("SKIPPED: SHUTDOWN NOT TRIED: this needs root, /lib/systemd/systemd and control groups of version 2");
        return;
    };
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shared = place.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("area"), vec![0; 32 << 20]).unwrap();
    let log = || fs::read_to_string(shared.join("log")).unwrap_or_default();

    let mut alpha = Machine::start(place.path(), &cgroups, "alpha");
    let beta = Machine::start(place.path(), &cgroups, "beta");
    let ha = env!("CARGO_BIN_EXE_ha");
    alpha.must(&[ha, "keys", "generate", "/run/shared/keys"]);
    alpha.must(&[ha, "--config", "/run/lab/etc", "lock-area", "init", "main"]);
    // Type=notify: done when the agent says that it is ready.
    alpha.must(&["systemctl", "start", "ha.service"]);
    beta.must(&["systemctl", "start", "ha.service"]);
    eventually("app is in service on alpha", || {
        let seen = alpha.ha(&["status"]);
        (log() == "alpha app starts\n"
            && alpha.run(&["systemctl", "is-active", "app.service"]).0
            && seen.contains("in service"))
        .then_some(())
    });
    assert!(alpha.must(&["systemctl", "show", "--property=Before", "app.service"]).contains("ha.service"));
    assert!(alpha.must(&["systemctl", "show", "--property=Restart", "app.service"]).contains("Restart=no"));

    // The agent alone is restarted: nothing happens to the unit.
    let main = alpha.must(&["systemctl", "show", "--property=MainPID", "app.service"]);
    alpha.must(&["systemctl", "restart", "ha.service"]);
    eventually("the new agent has taken it over", || alpha.ha(&["status"]).contains("in service").then_some(()));
    assert_eq!(alpha.must(&["systemctl", "show", "--property=MainPID", "app.service"]), main);
    assert_eq!(log(), "alpha app starts\n");

    alpha.must(&["systemctl", "poweroff", "--no-block"]);
    let told = eventually("alpha is off and beta serves", || {
        let off = matches!(alpha.outer.try_wait(), Ok(Some(_)));
        (off && log().contains("beta app starts")).then(log)
    });
    let at = |line: &str| {
        told.lines().position(|other| other == line).unwrap_or_else(|| panic!("{line:?} is missing in {told}"))
    };
    assert_eq!(at("alpha app starts"), 0);
    assert_eq!(at("alpha app stops, data there"), 1, "{told}");
    assert!(at("alpha app stops, data there") < at("alpha storage goes"), "{told}");
    let said = fs::read_to_string(shared.join("alpha.log")).unwrap();
    assert!(said.contains("the machine goes down") && said.contains("drained"), "{said}");
    beta.must(&["systemctl", "is-active", "app.service"]);
}
