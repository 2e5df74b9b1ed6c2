//! What fencing rests on, without any agent: reservations, writers that are cut off, and the target itself, on real kernels.

use ha_tests::kernel::stamp::{Stamp, Written};
use ha_tests::kernel::{Guest, KernelLab, Network, Persistence, disk_link, spec};
use ha_tests::{Result, Trouble, eventually, program};
use nix::errno::Errno;

/// Write exclusive, registrants only.
const TYPE: &str = "--prout-type=5";

/// The blocks that writers stamp.
const BLOCKS: &str = "64";

/// A holder that hangs and is preempted: the write that it wakes up with is refused, and what it had on the way is not on the disk.
#[test]
fn a_frozen_writer_that_wakes_after_it_was_preempted_writes_no_more() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    registered(alpha, "0xa")?;
    reserve(alpha, "0xa", &["--reserve", TYPE])?;
    assert_eq!(keys(beta)?, ["0xa"], "the other node sees the registration");
    assert_eq!(write(beta, "beta", "1")?.error, Some(Errno::EBADE as i32), "no registration, no write");

    let writing = alpha.start(&stamper()?, &["write", &disk_link(0), "alpha", BLOCKS, "0"])?;
    eventually("alpha has written", || {
        stamps(beta)
            .map(|found| found.iter().any(Option::is_some))
            .map_err(|e| e.to_string())?
            .then_some(())
            .ok_or("no stamp".to_owned())
    });
    alpha.hang()?;
    registered(beta, "0xb")?;
    reserve(beta, "0xb", &["--preempt-abort", "--param-sark=0xa", TYPE])?;
    assert_eq!(keys(beta)?, ["0xb"], "alpha's registration is gone");
    assert_eq!(write(beta, "beta", "1")?.error, None);
    alpha.wake()?;

    let ended: Written = said(&writing.wait()?.good()?)?;
    assert_eq!(ended.error, Some(Errno::EBADE as i32), "{ended:?}");
    assert!(ended.acknowledged > 0);
    let late: Vec<Option<Stamp>> =
        stamps(beta)?.into_iter().filter(|stamp| stamp.as_ref().is_none_or(|stamp| stamp.who != "beta")).collect();
    assert!(late.is_empty(), "written after alpha was preempted: {late:?}");
    Ok(())
}

/// A node that loses power keeps its registration, and can be preempted; started again it is a stranger until it registers.
#[test]
fn a_reservation_outlives_its_node_and_if_kept_its_target() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    registered(alpha, "0xa")?;
    reserve(alpha, "0xa", &["--reserve", TYPE])?;
    alpha.power_off()?;
    assert_eq!(keys(beta)?, ["0xa"]);
    alpha.power_on()?;
    lab.until_up();
    assert_eq!(write(alpha, "alpha", "1")?.error, None, "the path is the same, and so is its registration");

    for (persistence, expected) in [(Persistence::Kept, vec!["0xa"]), (Persistence::Forgotten, vec![])] {
        lab.target().power_off()?;
        lab.target().change(|spec| spec.role = spec::Role::Target(persistence))?;
        lab.target().power_on()?;
        lab.until_up();
        assert_eq!(keys(beta)?, expected, "{persistence:?}");
    }
    Ok(())
}

/// Without the network there is no I/O, and with it there is again, by itself.
#[test]
fn a_path_that_is_cut_gives_errors_and_works_again_when_it_is_back() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).boot()?;
    let alpha = lab.node("alpha");
    lab.cut(alpha, Network::StorageA)?;
    assert_eq!(write(alpha, "alpha", "1")?.error, Some(Errno::EIO as i32));
    lab.join(alpha, Network::StorageA)?;
    lab.until_disks(alpha);
    assert_eq!(write(alpha, "alpha", "1")?.error, None);
    Ok(())
}

/// The target itself is no suspect: it passes the suites of libiscsi that are about persistent reservations.
#[test]
fn the_target_keeps_to_the_standard() -> Result<()> {
    /// The suites, and how many tests each has.
    const SUITES: [(&str, usize); 7] = [
        ("PrinReadKeys", 2),
        ("PrinServiceactionRange", 1),
        ("PrinReportCapabilities", 1),
        ("ProutRegister", 1),
        ("ProutReserve", 13),
        ("ProutClear", 1),
        ("ProutPreempt", 1),
    ];
    let lab = KernelLab::with_nodes(&[]).boot()?;
    let url = format!("iscsi://{}/{}/0", lab.target().address(Network::StorageA), spec::target_name(Network::StorageA));
    for (suite, tests) in SUITES {
        let output =
            lab.outside("iscsi-test-cu", &["--dataloss", "--normal", &format!("--test=SCSI.{suite}"), &url])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.trim_start().starts_with("tests ")).unwrap_or_default();
        let counted: Vec<&str> = line.split_whitespace().skip(1).collect();
        let tests = tests.to_string();
        assert_eq!(counted[..4], [tests.as_str(), &tests, &tests, "0"], "{suite}:\n{text}");
        // That one is asked for by every test, and only for more checks.
        let skipped =
            text.lines().filter(|line| line.contains("SKIPPED") && !line.contains("REPORT_SUPPORTED_OPCODES"));
        assert_eq!(skipped.count(), 0, "{suite}:\n{text}");
    }
    Ok(())
}

fn stamper() -> Result<String> {
    Ok(program("lab-stamp")?.to_string_lossy().into_owned())
}

fn said<T: for<'a> serde::Deserialize<'a>>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Trouble::new(format!("{error}: {text}")))
}

/// Stamps all blocks so many times.
fn write(node: &Guest, who: &str, rounds: &str) -> Result<Written> {
    said(&node.run(&stamper()?, &["write", &disk_link(0), who, BLOCKS, rounds])?.good()?)
}

fn stamps(node: &Guest) -> Result<Vec<Option<Stamp>>> {
    said(&node.run(&stamper()?, &["read", &disk_link(0), BLOCKS])?.good()?)
}

/// Registers a key that outlives a loss of the target's power.
fn registered(node: &Guest, key: &str) -> Result<()> {
    persist(node, &["--out", "--register-ignore", &format!("--param-sark={key}"), "--param-aptpl"]).map(drop)
}

fn reserve(node: &Guest, key: &str, how: &[&str]) -> Result<()> {
    let arguments: Vec<&str> = ["--out"].into_iter().chain(how.iter().copied()).collect();
    let key = format!("--param-rk={key}");
    persist(node, &[&arguments[..], &[&key]].concat()).map(drop)
}

/// All registered keys.
fn keys(node: &Guest) -> Result<Vec<String>> {
    let text = persist(node, &["--in", "--read-keys"])?;
    Ok(text.lines().map(str::trim).filter(|line| line.starts_with("0x")).map(str::to_owned).collect())
}

/// A command that is refused because the unit has something to say first is given again: it was not carried out.
fn persist(node: &Guest, arguments: &[&str]) -> Result<String> {
    const UNIT_ATTENTION: i32 = 6;
    let link = disk_link(0);
    let all: Vec<&str> = arguments.iter().copied().chain([link.as_str()]).collect();
    for _ in 0..3 {
        let ended = node.run("sg_persist", &all)?;
        if ended.status != UNIT_ATTENTION {
            return ended.good();
        }
    }
    Err(Trouble::new("one unit attention after the other"))
}

/// A watchdog that is opened and not fed resets its machine, again and again.
#[test]
fn a_watchdog_resets_its_machine() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).boot()?;
    let alpha = lab.node("alpha");
    for _ in 0..3 {
        let life = alpha.boot_id()?;
        // It stays open until the machine is gone.
        let _never = alpha.start("/bin/sh", &["-c", "exec 9>/dev/watchdog1; exec sleep 600"])?;
        alpha.until_reset(&life);
        lab.until_disks(alpha);
    }
    Ok(())
}
