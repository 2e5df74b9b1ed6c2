//! Two machines that a real systemd runs, as process number 1 of namespaces of their own: the agent under its own unit serves another unit,
//! is restarted, is killed, and hands it over when its machine is shut down or booted anew, while the storage is still there.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in what it is made of too")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
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
[ ! -e /run/lab/nginx.conf ] || mount --bind /run/lab/nginx.conf /etc/nginx/nginx.conf
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
container=lab exec /lib/systemd/systemd --system --unit=lab.target --log-target=null --show-status=no
"#;

/// Stopped at shutdown like any other, and started without the rest of a machine.
const BARE: &str = "DefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n";

/// The line of a unit that has the machine tell what happens to it.
fn tell(when: &str, what: &str) -> String {
    let said = format!("echo \"$(cat /run/lab/name) {what}\" >>/run/shared/log");
    format!("{when}=/bin/sh -c '{}'\n", said.replace("$(", "$$("))
}

/// What a unit tells that is stopped: whether its data are there still, and how its agent is. A unit that is served is ordered to be stopped after the
/// agent: while that one is on its way out, it is the one who stops it.
fn tell_stop(unit: &str) -> String {
    let data = "$(mountpoint -q /run/data && echo there || echo gone)";
    let agent = "$(systemctl show --property=ActiveState --value ha.service)";
    tell("ExecStop", &format!("{unit} stops, data {data}, agent {agent}"))
}

/// What the machines serve: the hierarchy, and files of theirs, by their places under `/run`.
struct Served {
    hierarchy: String,
    files: Vec<(&'static str, String)>,
}

struct Machine {
    name: &'static str,
    group: PathBuf,
    outer: Child,
}

impl Machine {
    /// Boots it. Of an earlier time it knows what is on its disk.
    fn start(lab: &Lab, served: &Served, name: &'static str) -> Machine {
        let (place, cgroups) = (lab.place.path(), &lab.cgroups);
        let run = place.join(name);
        let _ = fs::remove_dir_all(&run);
        let write = |file: &str, text: &str| {
            let path = run.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for folder in ["shared", "lock", "lab/log"] {
            fs::create_dir_all(run.join(folder)).unwrap();
        }
        fs::create_dir_all(lab.shared().join(name)).unwrap();
        symlink(format!("/run/shared/{name}"), run.join("lab/state")).unwrap();
        write("lab/name", name);
        write("lab/etc/agent.ron", &AGENT.replace("127.77.0.", lab.network));
        write("lab/etc/hierarchies/served.ron", &served.hierarchy);
        served.files.iter().for_each(|(file, text)| write(file, &text.replace("NODE", name)));
        let unit = |file: &str, text: &str| write(&format!("systemd/system/{file}"), text);
        unit("ha.service", include_str!("../systemd/ha.service"));
        let agent = env!("CARGO_BIN_EXE_ha");
        let lines = [
            format!("[Unit]\n{BARE}[Service]\nExecStart=\nExecStart={agent} --config /run/lab/etc run --node {name}"),
            "StateDirectory=\nLogsDirectory=\nConfigurationDirectory=".to_owned(),
            format!("StandardError=append:/run/shared/{name}.log\n{}", tell("ExecStopPost", "agent ended")),
        ];
        unit("ha.service.d/50-lab.conf", &lines.join("\n"));
        // The network is there already, and nothing of this machine is to be asked for it.
        symlink("/dev/null", run.join("systemd/system/network-online.target")).unwrap();
        // The storage: what remote filesystems need, which the shipped unit of the agent is ordered after.
        unit(
            "lab-storage.service",
            &format!(
                "[Unit]\nAfter=local-fs.target\nBefore=remote-fs.target\n{BARE}[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n{}",
                tell("ExecStop", "storage goes")
            ),
        );
        unit(
            "lab.target",
            "[Unit]\nDefaultDependencies=no\nWants=lab-storage.service local-fs.target remote-fs.target\nAllowIsolate=yes\n",
        );
        let group = cgroups.join(format!("ha-test-shutdown-{}{name}-{}", lab.network, std::process::id()));
        fs::create_dir(&group).unwrap();
        let outer = Command::new("sh")
            .args(["-c", "echo $$ >$0/cgroup.procs && exec setpriv --pdeathsig KILL unshare --pid --fork --mount --cgroup --uts --ipc --kill-child sh -c \"$1\" boot \"$2\" \"$3\""])
            .arg(&group)
            .arg(BOOT)
            .args([run, lab.shared()])
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

    /// A property of a unit, as systemd has it.
    fn property(&self, unit: &str, name: &str) -> String {
        self.must(&["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
    }

    /// Waits until the next agent serves what the former one left running: `pid` is the former one's.
    fn until_adopted(&self, pid: &str) {
        eventually("the next agent has adopted what runs", || {
            let next = self.property("ha.service", "MainPID");
            let events = self.ha(&["events"]);
            (next != pid && next != "0" && events.contains("adopted in service")).then_some(())
        });
    }

    /// Waits until it is off, and says by which signal its process number 1 ended in the eyes of those outside: `reboot(2)`.
    fn until_off(&mut self) -> Option<i32> {
        eventually("it is off", || self.outer.try_wait().unwrap()).signal()
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

/// A unit of the test's own.
fn app() -> Served {
    let hierarchy = r#"Hierarchy(
    name: "app",
    nodes: ["alpha", "beta"],
    claim: LockArea("main"),
    resources: [
        Filesystem(name: "data", device: "tmpfs", at: "/run/data", fstype: "tmpfs", mount_point: Created),
        Systemd(name: "app", unit: "app.service"),
    ],
)"#;
    let (starts, stops) = (tell("ExecStartPre", "app starts"), tell_stop("app"));
    let unit = format!("[Unit]\n{BARE}[Service]\nRestart=always\n{starts}ExecStart=/usr/bin/sleep infinity\n{stops}");
    Served { hierarchy: hierarchy.to_owned(), files: vec![("systemd/system/app.service", unit)] }
}

/// Where the machine's nginx answers, of which there is one at a time.
const SITE: &str = "127.77.1.80:18080";

/// The example of docs/resources/systemd.md, with Debian's own nginx.service and a filesystem in memory. The unit starts without the rest of a machine, and
/// tells of itself; nginx says which node it is on.
fn nginx() -> Served {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/resources/systemd.md");
    let page = fs::read_to_string(page).unwrap();
    let mut hierarchy = page.split("```ron\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    for (from, to) in [
        ("/dev/disk/by-id/…-part1", "tmpfs"),
        ("\"/srv/web\"", "\"/run/data\", mount_point: Created"),
        ("ext4", "tmpfs"),
    ] {
        assert!(hierarchy.contains(from), "the page has no {from}: {hierarchy}");
        hierarchy = hierarchy.replace(from, to);
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path /run/lab/{what}; "))
        .concat();
    let settings = format!(
        "pid /run/nginx.pid; error_log /run/lab/nginx.log; events {{}}\n\
         http {{ access_log off; {temporary}server {{ listen {SITE}; location / {{ return 200 \"this is NODE\"; }} }} }}\n"
    );
    let own = format!("[Unit]\n{BARE}[Service]\n{}", tell_stop("nginx"));
    let files = vec![("lab/nginx.conf", settings), ("systemd/system/nginx.service.d/50-lab.conf", own)];
    Served { hierarchy, files }
}

/// What nginx answers, if it does.
fn page() -> Option<String> {
    let mut stream = TcpStream::connect(SITE).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Where control groups of version 2 are.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields[2] == "cgroup2")
        .map(|fields| PathBuf::from(fields[1]))
}

/// What two machines need, and what they share.
struct Lab {
    place: tempfile::TempDir,
    cgroups: PathBuf,
    network: &'static str,
}

impl Lab {
    /// With a loopback network of its own, as the addresses of [`AGENT`] begin. `None`, said loudly, where systemd cannot be run.
    fn new(network: &'static str) -> Option<Lab> {
        let (true, true, Some(cgroups)) =
            (nix::unistd::geteuid().is_root(), Path::new("/lib/systemd/systemd").exists(), cgroups())
        else {
            eprintln!(
                "SKIPPED: SHUTDOWN NOT TRIED: this needs root, /lib/systemd/systemd and control groups of version 2"
            );
            return None;
        };
        let lab = Lab { place: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), cgroups, network };
        fs::create_dir(lab.shared()).unwrap();
        fs::write(lab.shared().join("area"), vec![0; 32 << 20]).unwrap();
        Some(lab)
    }

    fn shared(&self) -> PathBuf {
        self.place.path().join("shared")
    }

    /// What the machines told.
    fn log(&self) -> String {
        fs::read_to_string(self.shared().join("log")).unwrap_or_default()
    }

    /// Two machines, of which the first serves.
    fn machines(&self, served: &Served, is_served: impl Fn(&Machine) -> bool) -> (Machine, Machine) {
        let alpha = Machine::start(self, served, "alpha");
        let beta = Machine::start(self, served, "beta");
        let ha = env!("CARGO_BIN_EXE_ha");
        alpha.must(&[ha, "keys", "generate", "/run/shared/keys"]);
        alpha.must(&[ha, "--config", "/run/lab/etc", "lock-area", "init", "main"]);
        // Type=notify: done when the agent says that it is ready.
        alpha.must(&["systemctl", "start", "ha.service"]);
        beta.must(&["systemctl", "start", "ha.service"]);
        eventually("it is in service on alpha", || {
            (is_served(&alpha) && alpha.ha(&["status"]).contains("in service")).then_some(())
        });
        (alpha, beta)
    }

    /// What a machine told since its unit was stopped must be that the agent did so, then ended, and that its storage went after that.
    fn assert_handed_over(&self, name: &str, unit: &str) {
        let told = self.log();
        let of_it: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect();
        let stops = of_it.iter().rposition(|line| line.starts_with(&format!("{unit} stops"))).unwrap();
        let stopped = format!("{unit} stops, data there, agent deactivating");
        assert_eq!(of_it[stops..], [stopped.as_str(), "agent ended", "storage goes"], "{told}");
        let said = fs::read_to_string(self.shared().join(format!("{name}.log"))).unwrap();
        assert!(said.contains("the machine goes down") && said.contains("drained"), "{said}");
    }
}

/// An agent that is restarted, and one that is killed, leaves the unit as it is to the next one. A machine that is switched off hands it over.
#[test]
fn a_machine_that_is_shut_down_hands_over_while_its_storage_is_there() {
    let Some(lab) = Lab::new("127.77.0.") else { return };
    let of_app = || lab.log().lines().filter(|line| line.contains(" app ")).map(str::to_owned).collect::<Vec<_>>();
    let (mut alpha, beta) = lab.machines(&app(), |alpha| alpha.run(&["systemctl", "is-active", "app.service"]).0);
    assert_eq!(of_app(), ["alpha app starts"]);
    assert!(alpha.property("app.service", "Before").contains("ha.service"));
    assert_eq!(alpha.property("app.service", "Restart"), "no");

    let app = alpha.property("app.service", "MainPID");
    for end in [
        &["systemctl", "restart", "ha.service"] as &[&str],
        &["systemctl", "kill", "--kill-who=main", "--signal=KILL", "ha.service"],
    ] {
        let agent = alpha.property("ha.service", "MainPID");
        alpha.must(end);
        alpha.until_adopted(&agent);
        assert_eq!(alpha.property("app.service", "MainPID"), app, "after {end:?}");
        assert_eq!(of_app(), ["alpha app starts"], "after {end:?}");
    }

    alpha.must(&["systemctl", "poweroff", "--no-block"]);
    assert_eq!(alpha.until_off(), Some(nix::libc::SIGINT), "it was not switched off");
    lab.assert_handed_over("alpha", "app");
    eventually("beta serves", || lab.log().contains("beta app starts").then_some(()));
    eventually("app is active", || beta.run(&["systemctl", "is-active", "app.service"]).0.then_some(()));
}

/// The page about units: nginx as Debian has it. A machine that is booted anew hands over as well, and leaves what was handed over where it is.
#[test]
fn a_machine_that_is_booted_anew_hands_nginx_over_and_comes_back() {
    let Some(lab) = Lab::new("127.77.1.") else { return };
    if !Path::new("/lib/systemd/system/nginx.service").exists() {
        return eprintln!("SKIPPED: there is no nginx.service here (package nginx)");
    }
    let nginx = nginx();
    let on =
        |name: &str| page().is_some_and(|text| text.contains("200 OK") && text.ends_with(&format!("this is {name}")));
    let (mut alpha, beta) = lab.machines(&nginx, |_| on("alpha"));

    alpha.must(&["systemctl", "reboot", "--no-block"]);
    assert_eq!(alpha.until_off(), Some(nix::libc::SIGHUP), "it was not booted anew");
    lab.assert_handed_over("alpha", "nginx");
    eventually("nginx answers from beta", || on("beta").then_some(()));

    drop(alpha);
    let alpha = Machine::start(&lab, &nginx, "alpha");
    alpha.must(&["systemctl", "start", "ha.service"]);
    eventually("alpha sees where it is", || {
        let seen = alpha.ha(&["status"]).split_whitespace().collect::<Vec<_>>().join(" ");
        seen.contains("in service beta").then_some(())
    });
    assert!(on("beta"));
    assert_eq!(beta.property("nginx.service", "ActiveState"), "active");
    assert!(!alpha.run(&["systemctl", "is-active", "nginx.service"]).0);
}
