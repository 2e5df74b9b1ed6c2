//! Inside a node: real disks over iSCSI, with the names that udev gives them, and joined by dm-multipath where there are two ways; and a
//! watchdog, `/dev/watchdog1`.
//!
//! Decides the times after which a lost path is given up. Logs in on each path by itself, again and again, so that a node that starts
//! while a path or the target is away has it as soon as it is back.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::init::program;
use super::spec::{PORTAL, Paths, Spec, TARGET, initiator_name, target_name};
use crate::trouble::{Result, While as _};

/// What differs from the initiator's defaults, which are made for networks that take minutes to heal.
const TIMES: &str = "\
node.session.timeo.replacement_timeout = 5
node.conn[0].timeo.noop_out_interval = 1
node.conn[0].timeo.noop_out_timeout = 2
node.conn[0].timeo.login_timeout = 3
node.session.initial_login_retry_max = 1
node.session.err_timeo.abort_timeout = 3
node.session.err_timeo.lu_reset_timeout = 3
";

/// Every path is used as long as it lives; with none left, I/O fails instead of waiting for ever. These go before what multipathd knows of
/// this target by itself. The key under which paths are registered is given to it by whoever registers the first.
const MULTIPATH: &str = "\
defaults {
    user_friendly_names no
    find_multipaths no
    polling_interval 1
    reservation_key file
}
overrides {
    no_path_retry fail
    path_grouping_policy multibus
    fast_io_fail_tmo 5
}
blacklist {
    devnode \"^ubd\"
}
";

/// Starts what a node needs to see the target's disks. They appear some time later.
pub(crate) fn start(spec: &Spec, paths: Paths) -> Result<()> {
    for module in ["iscsi_tcp", "sd_mod", "sg"] {
        program("modprobe", &[module])?;
    }
    // User Mode Linux has a watchdog of its own, which needs a program outside: this one is the second.
    program("modprobe", &["softdog", "soft_margin=2"])?;
    fs::create_dir_all("/run/lock/iscsi").to("make the initiator's lock folder")?;
    let name = format!("InitiatorName={}\n", initiator_name(&spec.name));
    fs::write("/etc/iscsi/initiatorname.iscsi", name).to("name the initiator")?;
    let defaults = fs::read_to_string("/etc/iscsi/iscsid.conf").unwrap_or_default();
    let ours = |line: &str| TIMES.lines().any(|our| line.split(" = ").next() == our.split(" = ").next());
    let kept: String = defaults.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
    fs::write("/etc/iscsi/iscsid.conf", kept + TIMES).to("set the initiator's times")?;
    program("/lib/systemd/systemd-udevd", &["--daemon"])?;
    if paths == Paths::Two {
        for module in ["dm-mod", "dm-multipath", "dm-round-robin", "dm-service-time"] {
            program("modprobe", &[module])?;
        }
        fs::write("/etc/multipath.conf", MULTIPATH).to("configure dm-multipath")?;
        program("multipathd", &[])?;
    }
    program("iscsid", &[])
}

/// Logs in on each path until it has succeeded; then the initiator keeps it by itself. Returns at once.
pub(crate) fn log_in(paths: Paths) {
    for network in paths.networks() {
        let portal = format!("{}:{PORTAL}", network.address(TARGET));
        let target = target_name(*network);
        std::thread::spawn(move || log_in_on(&target, &portal));
    }
}

fn log_in_on(target: &str, portal: &str) {
    let node = ["-m", "node", "-T", target, "-p", portal];
    let ask = |more: &[&str]| {
        let asked = Command::new("iscsiadm").args(node).args(more).stdin(Stdio::null()).stdout(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    while !ask(&["-o", "new"]) || !ask(&["--login"]) {
        std::thread::sleep(Duration::from_millis(200));
    }
}
