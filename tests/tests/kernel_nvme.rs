//! NVMe reservations on a real kernel: its own target, and two hosts of it (see `ha_tests::kernel::nvme`).

use std::time::Duration;

use ha_core::claim::reservation::device::{
    Answer, Capabilities, Command, Failure, Held, Key, Ports, PowerLoss, Queued, ReservationType,
};
use ha_tests::kernel::device::{Report, Step};
use ha_tests::kernel::nvme::{Identifiers, disk};
use ha_tests::kernel::stamp::Written;
use ha_tests::kernel::{NvmeLab, Running};
use ha_tests::{Result, Trouble, eventually};
use nix::errno::Errno;

const RO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const A: Key = Key::new(0xa).unwrap();
const B: Key = Key::new(0xb).unwrap();
const NOBODYS: Key = Key::new(0xdead).unwrap();

type Told = std::result::Result<Answer, Failure>;
const DONE: Told = Ok(Answer::Done);
const CONFLICT: Told = Err(Failure::Conflict);

/// The answers of one host to these commands, one after the other.
fn ask(lab: &NvmeLab, host: &str, commands: &[Command]) -> Result<Vec<Told>> {
    let steps: Vec<Step> = commands.iter().copied().map(Step::First).collect();
    let said = lab.run("lab-device", &[&disk(host), "5000", &serde_json::to_string(&steps)?])?.good()?;
    let report: Report = serde_json::from_str(&said).map_err(|error| Trouble::new(format!("{error}: {said}")))?;
    assert_eq!(report.findings, Vec::<String>::new());
    Ok(report.answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Every key in order, and the reservation.
fn state(lab: &NvmeLab, host: &str) -> Result<(Vec<Key>, Option<Held>)> {
    let answers = ask(lab, host, &[Command::ReadKeys, Command::ReadReservation])?;
    let [Ok(Answer::Keys(keys)), Ok(Answer::Reservation(reservation))] = &answers[..] else { panic!("{answers:?}") };
    let mut sorted = keys.keys.clone();
    sorted.sort_unstable();
    Ok((sorted, reservation.held))
}

/// The reservation of the holder with this key.
const fn of(key: Key) -> Held {
    Held { key: Some(key), kind: RO }
}

fn register(new: Key) -> Command {
    Command::RegisterIgnoring { new: Some(new), ports: Ports::This, power_loss: PowerLoss::Forgets }
}

/// Changes the key that is registered, or registers where there is none.
fn over(old: Option<Key>, new: Key) -> Command {
    Command::Register { old, new: Some(new), ports: Ports::This, power_loss: PowerLoss::Forgets }
}

fn reserve(key: Key) -> Command {
    Command::Reserve { key, kind: RO }
}

fn release(key: Key) -> Command {
    Command::Release { key, kind: RO }
}

fn unregister(old: Key) -> Command {
    Command::Register { old: Some(old), new: None, ports: Ports::This, power_loss: PowerLoss::Forgets }
}

fn preempt(key: Key, victim: Key, queued: Queued) -> Command {
    Command::Preempt { key, victim: Some(victim), kind: RO, queued }
}

fn write(lab: &NvmeLab, host: &str) -> Result<Written> {
    let said = lab.run("lab-stamp", &["write", &disk(host), host, "8", "2"])?.good()?;
    serde_json::from_str(&said).map_err(|error| Trouble::new(format!("{error}: {said}")))
}

const WRITTEN: Written = Written { acknowledged: 16, error: None };
const FENCED: Written = Written { acknowledged: 0, error: Some(Errno::EBADE as i32) };

#[test]
fn every_command_does_on_nvme_what_it_says() -> Result<()> {
    let lab = NvmeLab::boot(Identifiers::OfTheirOwn, &[])?;
    // What the target says that it can do is believed: it keeps nothing over a loss of power.
    let [Ok(Answer::Capabilities(can))] = &ask(&lab, "alpha", &[Command::ReportCapabilities])?[..] else {
        panic!("it does not say what it can do")
    };
    let (types, none) = (ReservationType::ALL.to_vec(), PowerLoss::Forgets);
    assert_eq!(*can, Capabilities { power_loss: none, power_loss_now: none, ports: Ports::All, types });
    let keeping = Command::RegisterIgnoring { new: Some(A), ports: Ports::This, power_loss: PowerLoss::Keeps };
    assert_eq!(ask(&lab, "alpha", &[keeping])?, [Err(Failure::NotSupported)]);
    assert_eq!(state(&lab, "alpha")?, (vec![], None));

    registers(&lab)?;
    reserves(&lab)?;
    preempts(&lab)?;
    gives_up(&lab)
}

/// Hosts that are not registered, under their own key, and with a wrong one. Leaves both registered.
fn registers(lab: &NvmeLab) -> Result<()> {
    let alpha = [register(B), register(A), over(Some(A), A), over(Some(NOBODYS), A), over(None, B)];
    assert_eq!(ask(lab, "alpha", &alpha)?, [DONE, DONE, DONE, CONFLICT, CONFLICT]);
    let beta = [unregister(B), reserve(B), release(B), over(None, B)];
    assert_eq!(ask(lab, "beta", &beta)?, [CONFLICT, CONFLICT, CONFLICT, DONE]);
    assert_eq!(state(lab, "beta")?, (vec![A, B], None), "both hosts, each under its key");
    Ok(())
}

/// One holds the reservation, and all that are registered write. Leaves it to alpha.
fn reserves(lab: &NvmeLab) -> Result<()> {
    assert_eq!(ask(lab, "alpha", &[reserve(A), reserve(A)])?, [DONE, DONE]);
    assert_eq!(ask(lab, "beta", &[reserve(B), release(B)])?, [CONFLICT, DONE]);
    assert_eq!(state(lab, "beta")?, (vec![A, B], Some(of(A))));
    assert_eq!((write(lab, "alpha")?, write(lab, "beta")?), (WRITTEN, WRITTEN));
    Ok(())
}

/// The holder preempts who is registered, and the others the holder. Leaves it to alpha.
fn preempts(lab: &NvmeLab) -> Result<()> {
    assert_eq!(ask(lab, "alpha", &[preempt(A, B, Queued::Stay)])?, [DONE]);
    let of_nobody = ask(lab, "alpha", &[preempt(A, NOBODYS, Queued::Aborted)])?;
    assert!(of_nobody == [CONFLICT] || of_nobody == [DONE], "Linux 6.16 says that it is done: {of_nobody:?}");
    assert_eq!(state(lab, "alpha")?, (vec![A], Some(of(A))));
    assert_eq!((write(lab, "beta")?, write(lab, "alpha")?), (FENCED, WRITTEN));
    lab.shell(&format!("dd if={} of=/dev/null bs=4096 count=1", disk("beta")))?;
    assert_eq!(ask(lab, "beta", &[preempt(B, A, Queued::Stay), reserve(B)])?, [CONFLICT, CONFLICT]);

    assert_eq!(ask(lab, "alpha", &[over(Some(A), NOBODYS)])?, [DONE]);
    assert_eq!(state(lab, "beta")?, (vec![NOBODYS], Some(of(NOBODYS))), "a new key keeps the reservation");
    assert_eq!(ask(lab, "beta", &[register(B), preempt(B, NOBODYS, Queued::Aborted)])?, [DONE, DONE]);
    assert_eq!(state(lab, "alpha")?, (vec![B], Some(of(B))));
    assert_eq!((write(lab, "alpha")?, write(lab, "beta")?), (FENCED, WRITTEN));
    let again = [over(Some(NOBODYS), A), reserve(NOBODYS), register(A), preempt(A, B, Queued::Stay)];
    assert_eq!(ask(lab, "alpha", &again)?, [CONFLICT, CONFLICT, DONE, DONE]);
    assert_eq!(state(lab, "beta")?, (vec![A], Some(of(A))));
    Ok(())
}

/// Releasing, unregistering twice, clearing.
fn gives_up(lab: &NvmeLab) -> Result<()> {
    assert_eq!(ask(lab, "alpha", &[release(A)])?, [DONE]);
    assert_eq!(state(lab, "beta")?, (vec![A], None));
    let nothing = Command::RegisterIgnoring { new: None, ports: Ports::This, power_loss: PowerLoss::Forgets };
    assert_eq!(ask(lab, "alpha", &[reserve(A), unregister(A), nothing])?, [DONE, DONE, DONE]);
    assert_eq!(state(lab, "beta")?, (vec![], None), "the reservation ends with its holder's registration");
    assert_eq!(ask(lab, "alpha", &[register(A), reserve(A)])?, [DONE, DONE]);
    assert_eq!(ask(lab, "beta", &[register(B), Command::Clear { key: B }])?, [DONE, DONE]);
    assert_eq!(state(lab, "alpha")?, (vec![], None));
    Ok(())
}

/// A node that claims the disk, as a process in the guest.
struct Holder<'a> {
    lab: &'a NvmeLab,
    node: &'a str,
    log: String,
    pid: String,
}

impl<'a> Holder<'a> {
    fn start(lab: &'a NvmeLab, node: &'a str, name: &str) -> Result<Holder<'a>> {
        Holder::run(lab, node, name, None)
    }

    /// Goes on with the tenure of an earlier life.
    fn adopt(lab: &'a NvmeLab, node: &'a str, name: &str, epoch: u64) -> Result<Holder<'a>> {
        Holder::run(lab, node, name, Some(epoch))
    }

    fn run(lab: &'a NvmeLab, node: &'a str, name: &str, adopt: Option<u64>) -> Result<Holder<'a>> {
        let adopt = adopt.map(|epoch| epoch.to_string()).unwrap_or_default();
        let log = format!("/run/{name}");
        let line = format!("lab-holder {} {node} {adopt} >{log} 2>&1 & echo $!", disk(node));
        Ok(Holder { lab, node, pid: lab.shell(&line)?.trim().to_owned(), log })
    }

    fn said(&self) -> Result<String> {
        self.lab.shell(&format!("cat {}", self.log))
    }

    fn until(&self, words: &str) {
        eventually(&format!("{} says: {words}", self.node), || match self.said() {
            Ok(said) if said.contains(words) => Ok(()),
            other => {
                std::thread::sleep(Duration::from_millis(100));
                Err(other.map_err(|trouble| trouble.to_string()))
            }
        });
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.lab.shell(&format!("kill -{signal} {}", self.pid)).map(drop)
    }

    /// Waits until it has proven its claim once more.
    fn until_proven_again(&self) -> Result<()> {
        let before = self.said()?.matches("proven").count();
        eventually(&format!("{} proves its claim again", self.node), || {
            let now = self.said().map_err(|trouble| trouble.to_string())?;
            if now.matches("proven").count() > before { Ok(()) } else { Err(now) }
        });
        Ok(())
    }
}

#[test]
fn a_claim_is_acquired_defended_and_taken_over_from_a_dead_holder() -> Result<()> {
    let lab = NvmeLab::boot(Identifiers::OfTheirOwn, &[])?;
    let alpha = Holder::start(&lab, "alpha", "alpha-1")?;
    alpha.until("held 1\n");
    assert_eq!((write(&lab, "alpha")?, write(&lab, "beta")?), (WRITTEN, FENCED));

    // It is alive, and the other hears nothing of it.
    let challenger = Holder::start(&lab, "beta", "beta-1")?;
    challenger.until("refused held by alpha (epoch 1)");
    alpha.until_proven_again()?;
    let (keys, held) = state(&lab, "beta")?;
    assert_eq!((keys.len(), held.and_then(|held| held.key)), (1, keys.first().copied()), "only the holder is left");
    assert_eq!((write(&lab, "alpha")?, write(&lab, "beta")?), (WRITTEN, FENCED));

    // It hangs, is taken over, and goes on.
    alpha.signal("STOP")?;
    let beta = Holder::start(&lab, "beta", "beta-2")?;
    beta.until("held 2\n");
    assert_eq!((write(&lab, "alpha")?, write(&lab, "beta")?), (FENCED, WRITTEN));
    alpha.signal("CONT")?;
    alpha.until("lost taken over by");
    beta.until_proven_again()?;
    assert_eq!(write(&lab, "alpha")?, FENCED, "it does not let itself in again");

    // It dies.
    beta.signal("KILL")?;
    let alpha = Holder::start(&lab, "alpha", "alpha-2")?;
    alpha.until("held 3\n");
    assert_eq!((write(&lab, "alpha")?, write(&lab, "beta")?), (WRITTEN, FENCED));

    // It is only restarted, and goes on under a new key: what its earlier life sent is refused when it comes late.
    let (keys, _) = state(&lab, "beta")?;
    let [old] = keys[..] else { panic!("{keys:?}") };
    alpha.signal("KILL")?;
    let alpha = Holder::adopt(&lab, "alpha", "alpha-3", 3)?;
    alpha.until("held 3\n");
    assert_eq!(ask(&lab, "alpha", &[release(old), unregister(old)])?, [CONFLICT, CONFLICT]);
    let (keys, held) = state(&lab, "beta")?;
    let [new] = keys[..] else { panic!("{keys:?}") };
    assert_eq!((held, new == old), (Some(of(new)), false));
    assert_eq!((write(&lab, "alpha")?, write(&lab, "beta")?), (WRITTEN, FENCED));

    // It gives the claim up.
    alpha.signal("TERM")?;
    alpha.until("released");
    assert_eq!(state(&lab, "beta")?, (vec![], None));
    Ok(())
}

/// What an operator has in the guest: a folder of configuration for each host, and in it one hierarchy on the shared disk.
fn configuration() -> Vec<(String, String)> {
    let agent = r#"(
    cluster: "lab",
    nodes: { "alpha": (addresses: ["127.0.0.1:7946"]), "beta": (addresses: ["127.0.0.1:7947"]) },
    keys: "/etc/keys",
    watchdog: None,
    run_dir: "/run/ha",
    state_dir: "/run/ha-state",
    log_dir: "/run/ha-log",
)
"#;
    let hierarchy = |host| {
        format!(
            r#"Hierarchy(
    name: "ledger",
    nodes: ["alpha", "beta"],
    claim: Reservation(devices: ["{}"]),
    resources: [Process(name: "app", command: ["/bin/sleep", "1000"])],
)
"#,
            disk(host)
        )
    };
    let of = |host| {
        [
            (format!("/etc/{host}/agent.ron"), agent.to_owned()),
            (format!("/etc/{host}/hierarchies/ledger.ron"), hierarchy(host)),
        ]
    };
    ["alpha", "beta"].into_iter().flat_map(of).collect()
}

fn ha<'a>(host: &'a str, arguments: &[&'a str]) -> Vec<String> {
    let arguments = arguments.iter().map(ToString::to_string);
    ["--config".to_owned(), format!("/etc/{host}")].into_iter().chain(arguments).collect()
}

/// Prints what the user sees, for whoever reads the test's output.
fn see(lab: &NvmeLab, host: &str, arguments: &[&str]) -> Result<String> {
    let words = ha(host, arguments);
    let ended = lab.run("ha", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
    eprintln!("{host}# ha {}\n{}{}", arguments.join(" "), ended.output, ended.errors);
    ended.good()
}

fn operated(identifiers: Identifiers) -> Result<NvmeLab> {
    let files = configuration();
    let files: Vec<(&str, String)> = files.iter().map(|(path, text)| (path.as_str(), text.clone())).collect();
    NvmeLab::boot(identifiers, &files)
}

/// Beta holds the disk until alpha has cut it off.
fn hold(lab: &NvmeLab) -> Result<Running> {
    let words = ha("beta", &["arm", "ledger", "--node", "beta", "--hold"]);
    lab.start("ha", &words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Machines made from one image: a reservation of one is the other's as well.
#[test]
fn nodes_with_one_host_identifier_are_not_armed() -> Result<()> {
    let lab = operated(Identifiers::Alike)?;
    let holds = hold(&lab)?;
    let refused = see(&lab, "alpha", &["arm", "ledger", "--node", "alpha", "--against", "beta"]).unwrap_err();
    assert!(refused.to_string().contains("both nodes are one host to the disk"), "{refused}");
    holds.wait()?;
    assert_eq!(state(&lab, "beta")?, (vec![], None));
    Ok(())
}

#[test]
fn an_operator_sees_tries_out_and_arms_an_nvme_disk() -> Result<()> {
    let lab = operated(Identifiers::OfTheirOwn)?;
    let shown = see(&lab, "alpha", &["claim", "show"])?;
    assert!(shown.contains("ledger: /dev/alpha uuid.") && shown.contains("reservation  none"), "{shown}");
    assert!(shown.contains("can: not outlast loss of power (APTPL)"), "{shown}");
    let tried = see(&lab, "alpha", &["claim", "test", "/dev/alpha", "--node", "alpha"])?;
    for line in [
        "yes        it can be registered with and reserved",
        "yes        PREEMPT AND ABORT",
        "NO         APTPL",
        "yes        READ FULL STATUS: a path that is not registered is named",
        "yes        everything was taken away again",
    ] {
        assert!(tried.contains(line), "{line}: {tried}");
    }
    assert_eq!(state(&lab, "beta")?, (vec![], None));

    // Two hosts show each other that a holder is cut off.
    let holds = hold(&lab)?;
    let armed = see(&lab, "alpha", &["arm", "ledger", "--node", "alpha", "--against", "beta"])?;
    assert!(armed.contains("yes        a holder is cut off by preemption"), "{armed}");
    assert!(armed.contains("ledger is armed on this node"), "{armed}");
    holds.wait()?.good()?;

    // Somebody has it.
    let holder = Holder::start(&lab, "alpha", "alpha")?;
    holder.until("held 1\n");
    let shown = see(&lab, "beta", &["claim", "show", "ledger"])?;
    assert!(shown.contains("reservation  alpha (epoch 1) WriteExclusiveRegistrantsOnly"), "{shown}");
    assert!(
        shown.contains("not registered\n    elsewhere    alpha (epoch 1), holds the reservation, as nvme."),
        "{shown}"
    );
    let own = see(&lab, "alpha", &["claim", "show", "ledger"])?;
    assert!(own.contains(" alpha (epoch 1), holds the reservation, as nvme.") && !own.contains("elsewhere"), "{own}");
    let refused = see(&lab, "beta", &["claim", "test", "/dev/beta", "--node", "beta"]).unwrap_err().to_string();
    assert!(refused.contains("is in use: reserved by alpha (epoch 1)"), "{refused}");
    Ok(())
}
