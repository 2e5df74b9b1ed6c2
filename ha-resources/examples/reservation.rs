//! Persistent reservations of a disk, by hand: what `sg_persist` does for SCSI disks, for multipath maps path by path, and for NVMe.
//!
//! `cargo run --example reservation -- show /dev/disk/by-id/wwn-0x6001405…`. Keys are numbers, also in hexadecimal (`0x1a2b`). A reservation
//! is taken as Write Exclusive – Registrants Only; what a change is answered is printed for each path on which it was sent.

use std::process::ExitCode;
use std::time::Duration;

use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Key, Ports, PowerLoss, Queued, ReservationDevice, ReservationType,
};
use ha_resources::claim::reservation::Disk;

const USAGE: &str = "\
usage: reservation show DISK                        who it is, its paths, keys and reservation
       reservation watch DISK                       its paths, as they come and go
       reservation keep DISK NEW                    registered on every path, also on those that appear
       reservation register DISK OLD NEW            on every path; 0 for none
       reservation register-ignoring DISK NEW       on every path; 0 for none
       reservation reserve DISK KEY                 on the first path
       reservation release DISK KEY                 on every path
       reservation preempt DISK KEY VICTIM          on the first path
       reservation preempt-and-abort DISK KEY VICTIM
       reservation clear DISK KEY
DISK@PATH, for example /dev/dm-0@sdb, means this path only. HA_POWER_LOSS=keeps has registrations survive loss of power.";

const LIMIT: Duration = Duration::from_secs(10);
const KIND: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was done.
async fn run(words: &[&str]) -> Result<bool, String> {
    let [verb, disk, numbers @ ..] = words else { return Err(USAGE.to_owned()) };
    let (disk, only) = match disk.split_once('@') {
        Some((disk, path)) => (disk, Some(path)),
        None => (*disk, None),
    };
    let keys: Vec<Option<Key>> = numbers.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
    let command = command(verb, &keys);
    let follows = matches!(*verb, "watch" | "keep");
    if command.is_none() && !matches!(*verb, "show" | "watch") {
        return Err(USAGE.to_owned());
    }
    let disk = Disk::open(disk, LIMIT).map_err(|error| error.to_string())?;
    if follows {
        follow(&disk, command.map(|(command, _)| command)).await;
    }
    let Some((command, everywhere)) = command else { return Ok(show(&disk).await) };
    let mut paths = disk.paths();
    match only {
        Some(name) => paths.retain(|path| path.as_str() == name),
        None if everywhere == Where::FirstPath => paths.truncate(1),
        None => {}
    }
    if paths.is_empty() {
        return Err(format!("{} has no such path now", disk.name()));
    }
    let mut all_done = true;
    for path in paths {
        let answer = past_attentions(&disk, &path, command).await;
        println!("{path}: {}", answer.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned()));
        all_done &= answer.is_ok();
    }
    if tokio::time::timeout(LIMIT, disk.multipathd_is_told()).await.is_err() {
        println!("multipathd was not told of this");
    }
    Ok(all_done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    EveryPath,
    FirstPath,
}

fn command(verb: &str, keys: &[Option<Key>]) -> Option<(Command, Where)> {
    let power_loss = if std::env::var("HA_POWER_LOSS").is_ok_and(|it| it == "keeps") {
        PowerLoss::Keeps
    } else {
        PowerLoss::Forgets
    };
    let (ports, kind) = (Ports::This, KIND);
    let preempt = |key, victim, queued| (Command::Preempt { key, victim, kind, queued }, Where::FirstPath);
    Some(match (verb, keys) {
        ("register", &[old, new]) => (Command::Register { old, new, ports, power_loss }, Where::EveryPath),
        ("register-ignoring", &[new]) | ("keep", &[new @ Some(_)]) => {
            (Command::RegisterIgnoring { new, ports, power_loss }, Where::EveryPath)
        }
        ("reserve", &[Some(key)]) => (Command::Reserve { key, kind }, Where::FirstPath),
        ("release", &[Some(key)]) => (Command::Release { key, kind }, Where::EveryPath),
        ("preempt", &[Some(key), victim]) => preempt(key, victim, Queued::Stay),
        ("preempt-and-abort", &[Some(key), victim]) => preempt(key, victim, Queued::Aborted),
        ("clear", &[Some(key)]) => (Command::Clear { key }, Where::FirstPath),
        _ => return None,
    })
}

fn key(text: &str) -> Result<Option<Key>, String> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    value.map(Key::new).map_err(|error| format!("{text} is not a key: {error}"))
}

/// Sends a command until it is not answered with news of what happened before; prints the news.
async fn past_attentions(
    disk: &Disk,
    path: &ha_core::claim::reservation::device::PathName,
    command: Command,
) -> Result<Answer, Failure> {
    for _ in 0..10 {
        match disk.send(path, command).await {
            Err(told @ Failure::UnitAttention(_)) => println!("{path}: {told}"),
            answer => return answer,
        }
    }
    disk.send(path, command).await
}

async fn show(disk: &Disk) -> bool {
    println!("disk: {}", disk.identity());
    for finding in disk.findings() {
        println!("note: {finding}");
    }
    let mut all_done = true;
    for path in disk.paths() {
        println!("path: {path}");
        for command in [Command::ReadKeys, Command::ReadReservation, Command::ReportCapabilities] {
            match past_attentions(disk, &path, command).await {
                Ok(Answer::Keys(keys)) => println!("  generation {}, keys {:?}", keys.generation, keys.keys),
                Ok(Answer::Reservation(reservation)) => match reservation.held {
                    Some(held) => {
                        let holder = held.key.map_or("all registrants".to_owned(), |key| key.to_string());
                        println!("  reserved by {holder}, {:?}", held.kind);
                    }
                    None => println!("  not reserved"),
                },
                Ok(answer) => println!("  {answer:?}"),
                // Not every device says what it can do.
                Err(Failure::NotSupported) if command == Command::ReportCapabilities => {
                    println!("  it does not say what it can do");
                }
                Err(failure) => {
                    println!("  {command:?}: {failure}");
                    all_done = false;
                }
            }
        }
    }
    all_done
}

/// Prints the paths whenever they change, and has those that are new carry the command out. Never ends.
async fn follow(disk: &Disk, command: Option<Command>) {
    let mut seen = Vec::new();
    loop {
        let paths = disk.paths();
        let names: Vec<&str> = paths.iter().map(|path| path.as_str()).collect();
        println!("paths: {}", names.join(" "));
        for path in paths.iter().filter(|path| !seen.contains(*path)) {
            if let Some(command) = command {
                let answer = past_attentions(disk, path, command).await;
                println!("{path}: {}", answer.map_or_else(|failure| failure.to_string(), |_| "done".to_owned()));
            }
        }
        disk.paths_changed(&paths).await;
        seen = paths;
    }
}
