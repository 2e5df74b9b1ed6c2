//! Disks with reservations as production opens and commands them, on real kernels: SG_IO, paths of a multipath map, and a target that hangs.

use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Held, Key, Keys, Ports, PowerLoss, Queued, Reservation, ReservationType,
};
use ha_tests::kernel::by_hand::read_without_a_pause;
use ha_tests::kernel::device::{Report, Step};
use ha_tests::kernel::{Guest, KernelLab, Paths, Running, disk_link};
use ha_tests::{Result, Trouble, eventually, program};

const RO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const A: Key = Key::new(0xa).unwrap();
const B: Key = Key::new(0xb).unwrap();

fn register(new: Key) -> Command {
    Command::RegisterIgnoring { new: Some(new), ports: Ports::This, power_loss: PowerLoss::Keeps }
}

/// Long enough for a busy machine, and short enough for a test that waits for it three times.
const PATIENT: &str = "10000";
const HASTY: &str = "1000";

fn start(node: &Guest, limit: &str, steps: &[Step]) -> Result<Running> {
    let device = program("lab-device")?.to_string_lossy().into_owned();
    node.start(&device, &[&disk_link(0), limit, &serde_json::to_string(steps)?])
}

fn report(running: Running) -> Result<Report> {
    let text = running.wait()?.good()?;
    serde_json::from_str(&text).map_err(|error| Trouble::new(format!("{error}: {text}")))
}

fn run(node: &Guest, steps: &[Step]) -> Result<Report> {
    report(start(node, PATIENT, steps)?)
}

/// The keys that the last command read, in order.
fn last_keys(report: &Report) -> Vec<Key> {
    let Some((_, Ok(Answer::Keys(Keys { keys, .. })))) = report.answers.last() else { panic!("{report:?}") };
    let mut keys = keys.clone();
    keys.sort_unstable();
    keys
}

fn told(report: &Report) -> Vec<std::result::Result<Answer, Failure>> {
    report.answers.iter().map(|(_, answer)| answer.clone()).collect()
}

#[test]
fn two_nodes_see_one_disk_and_one_preempts_the_other() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    let first = [Step::First(register(A)), Step::First(Command::Reserve { key: A, kind: RO })];
    let of_alpha = run(alpha, &first)?;
    assert_eq!(told(&of_alpha), [Ok(Answer::Done), Ok(Answer::Done)]);
    assert_eq!(of_alpha.findings, Vec::<String>::new());

    let preempt = Command::Preempt { key: B, victim: Some(A), kind: RO, queued: Queued::Aborted };
    let then = [register(B), Command::Reserve { key: B, kind: RO }, preempt, Command::ReadReservation];
    let of_beta = run(beta, &then.map(Step::First))?;
    assert_eq!(of_beta.identity, of_alpha.identity);
    let [Ok(Answer::Done), Err(Failure::Conflict), Ok(Answer::Done), Ok(Answer::Reservation(reservation))] =
        &told(&of_beta)[..]
    else {
        panic!("{of_beta:?}")
    };
    assert_eq!(*reservation, Reservation { held: Some(Held { key: Some(B), kind: RO }), ..*reservation });
    let again = Command::Register { old: Some(A), new: Some(A), ports: Ports::This, power_loss: PowerLoss::Keeps };
    assert_eq!(told(&run(alpha, &[Step::First(again)])?), [Err(Failure::Conflict)], "alpha can see that it was fenced");
    Ok(())
}

/// The kernel does not let go of a command to a target that hangs: who sent it hears in time all the same, no more threads hang than that
/// one, and when the target wakes the disk works again.
#[test]
fn a_target_that_hangs_is_told_of_in_time_and_hangs_nothing_else() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).boot()?;
    let alpha = lab.node("alpha");
    let mut steps = vec![Step::First(register(A)), Step::Tell("ready".to_owned()), Step::Await("hangs".to_owned())];
    steps.extend(vec![Step::First(Command::Reserve { key: A, kind: RO }); 3]);
    steps.extend([Step::Tell("heard".to_owned()), Step::Await("wakes".to_owned())]);
    steps.push(Step::UntilAnswered(Command::ReadKeys));
    let running = start(alpha, HASTY, &steps)?;
    let dir = alpha.dir();
    eventually("the disk is open", || std::fs::metadata(dir.join("ready")).map(drop));
    lab.target().hang()?;
    std::fs::write(dir.join("hangs"), "").map_err(|error| Trouble::new(error.to_string()))?;
    eventually("it was told of while the target hangs", || std::fs::metadata(dir.join("heard")).map(drop));
    lab.target().wake()?;
    std::fs::write(dir.join("wakes"), "").map_err(|error| Trouble::new(error.to_string()))?;
    let report = report(running)?;
    for answer in &told(&report)[1..4] {
        // If all of this took longer than the initiator waits for a sign of the target, the path has failed.
        assert!(matches!(answer, Err(Failure::NoAnswer | Failure::Transport)), "{report:?}");
    }
    assert_eq!((last_keys(&report), report.threads), (vec![A], 2), "{report:?}");
    Ok(())
}

/// A disk that is open for commands is not open as a block device: what a program has read of it is not remembered for its next life.
#[test]
fn what_was_read_of_a_disk_is_not_remembered_because_it_is_open_for_commands() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    let steps = [
        Step::First(Command::ReadKeys),
        Step::NoBlockDevice,
        Step::Tell("open".to_owned()),
        Step::Await("read".to_owned()),
    ];
    let running = start(alpha, PATIENT, &steps)?;
    let dir = alpha.dir();
    eventually("the disk is open", || std::fs::metadata(dir.join("open")).map(drop));
    // Through the kernel's memory, unlike all else in these tests.
    let read = format!("dd if={} bs=4096 count=1 status=none | cksum", disk_link(0));
    let before = alpha.shell(&read)?;
    beta.shell(&format!("echo another | dd of={} bs=4096 count=1 conv=sync oflag=direct status=none", disk_link(0)))?;
    assert_ne!(alpha.shell(&read)?, before);
    std::fs::write(dir.join("read"), "").map_err(|error| Trouble::new(error.to_string()))?;
    assert_eq!(report(running)?.findings, Vec::<String>::new());

    // Without the module there is nothing else to open, and it is said.
    alpha.shell("rmmod sg")?;
    let found = run(alpha, &[Step::First(Command::ReadKeys)])?.findings;
    assert!(found.len() == 1 && found[0].contains("modprobe sg"), "{found:?}");
    Ok(())
}

#[test]
fn each_path_is_registered_for_itself_and_one_that_appears_before_it_is_used() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha"]).paths(Paths::Two).boot()?;
    let alpha = lab.node("alpha");
    let steps = [
        Step::UntilPaths(2),
        Step::Everywhere(register(A)),
        Step::First(Command::ReadKeys),
        Step::Tell("two".to_owned()),
        Step::UntilPaths(1),
        Step::First(register(B)),
        Step::First(Command::ReadKeys),
        Step::Tell("one".to_owned()),
        Step::UntilPaths(2),
        // multipathd did it: the steps did not.
        Step::First(Command::ReadKeys),
    ];
    // The name leads to one path first, and to the map when multipathd has made it.
    let led = format!("readlink -f {} | grep dm-", disk_link(0));
    eventually("the name leads to the map", || alpha.shell(&led).map_err(|error| error.to_string()));
    let running = start(alpha, PATIENT, &steps)?;
    let dir = alpha.dir();
    eventually("both paths are registered", || std::fs::metadata(dir.join("two")).map(drop));
    alpha.shell("echo 1 > /sys/block/sdb/device/delete")?;
    eventually("one path is left", || std::fs::metadata(dir.join("one")).map(drop));
    let map = alpha.shell("ls /dev/mapper | grep -v control")?;
    assert!(!map.trim().is_empty());
    eventually("multipathd knows the key", || {
        let key = alpha.shell(&format!("multipathd getprkey map {}", map.trim())).map_err(|error| error.to_string())?;
        if key.trim() == "0xb:aptpl" { Ok(()) } else { Err(key) }
    });
    alpha.shell("for host in /sys/class/scsi_host/host*/scan; do echo '- - -' > $host; done")?;
    let report = report(running)?;
    let keys: Vec<Vec<Key>> = report
        .answers
        .iter()
        .filter_map(|(_, answer)| match answer {
            Ok(Answer::Keys(keys)) => Some(keys.keys.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(keys[0], [A, A], "{report:?}");
    assert!(keys[1].len() == 2 && keys[1].contains(&A) && keys[1].contains(&B), "{report:?}");
    assert_eq!(keys[2], [B, B], "{report:?}");
    assert_eq!(report.findings, Vec::<String>::new());
    Ok(())
}

/// Beside its own traffic nobody's commands are aborted but a challenger's, who has none: the holder defends itself at once.
#[test]
fn a_holder_that_reads_all_the_time_strikes_a_challenger_out() -> Result<()> {
    let lab = KernelLab::with_nodes(&["alpha", "beta"]).boot()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    run(alpha, &[Step::First(register(A)), Step::First(Command::Reserve { key: A, kind: RO })])?;
    read_without_a_pause(alpha)?;
    let strike_out = Command::Preempt { key: A, victim: Some(B), kind: RO, queued: Queued::Aborted };
    for _ in 0..5 {
        run(beta, &[Step::First(register(B))])?;
        let steps = [Command::ReadReservation, strike_out, Command::ReadKeys].map(Step::First);
        let report = run(alpha, &steps)?;
        assert_eq!(told(&report)[1], Ok(Answer::Done));
        assert_eq!(last_keys(&report), [A]);
    }
    Ok(())
}
