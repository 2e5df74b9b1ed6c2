//! Reservations as production touches them, in a guest: the program `lab-device`, which opens a disk, does steps, and tells what it saw.
//!
//! `lab-device DISK LIMIT_MS STEPS`, where the steps are a list of [`Step`] in JSON; it writes a [`Report`] in JSON.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_core::claim::reservation::device::{Answer, Command, Failure, PathName, ReservationDevice};
use ha_resources::claim::reservation::Disk;
use serde::{Deserialize, Serialize};

use crate::boot::LAB;
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::{eventually, patience};

/// Something to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Sends a command on every path.
    Everywhere(Command),
    /// Sends a command on the first path.
    First(Command),
    /// Sends a command on the first path until it is answered.
    UntilAnswered(Command),
    /// Waits until there are so many paths.
    UntilPaths(usize),
    /// Says that nothing of the disk is open but what carries commands: fails if a block device is.
    NoBlockDevice,
    /// Makes this file in the guest's folder.
    Tell(String),
    /// Waits until somebody has made this file there.
    Await(String),
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who the disk is.
    pub identity: String,
    /// What may become a trouble.
    pub findings: Vec<String>,
    /// The answers of all commands in their order, unit attentions left out, and the paths that they were sent on.
    pub answers: Vec<(String, std::result::Result<Answer, Failure>)>,
    /// How many threads look after paths in the end.
    pub threads: usize,
}

/// Runs the program.
pub fn run(arguments: &[&str]) -> Result<String> {
    let [disk, limit, steps] = arguments else {
        return Err(Trouble::new("usage: lab-device DISK LIMIT_MS STEPS"));
    };
    let limit = limit.parse().map(Duration::from_millis).map_err(|error| Trouble::new(format!("{limit}: {error}")))?;
    let steps: Vec<Step> = serde_json::from_str(steps)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().to("make a runtime")?;
    let report = runtime.block_on(follow(Path::new(disk), limit, steps))?;
    Ok(serde_json::to_string(&report)?)
}

async fn follow(disk: &Path, limit: Duration, steps: Vec<Step>) -> Result<Report> {
    let disk = Disk::open(disk, limit).map_err(|error| Trouble::new(error.to_string()))?;
    let mut answers = Vec::new();
    for step in steps {
        match step {
            Step::Everywhere(command) => {
                for path in disk.paths() {
                    answers.push(send(&disk, &path, command).await);
                }
            }
            Step::First(command) => answers.push(send(&disk, &first(&disk)?, command).await),
            Step::UntilAnswered(command) => {
                let late = |_| Trouble::new("the disk never answered again");
                answers.push(tokio::time::timeout(patience(), answered(&disk, command)).await.map_err(late)??);
            }
            Step::UntilPaths(count) => {
                let counted = async {
                    while disk.paths().len() != count {
                        disk.paths_changed(&disk.paths()).await;
                    }
                };
                let late = |_| Trouble::new(format!("{count} paths were expected, and there are {:?}", disk.paths()));
                tokio::time::timeout(patience(), counted).await.map_err(late)?;
            }
            Step::NoBlockDevice => no_block_device()?,
            Step::Tell(file) => std::fs::write(place(&file), "").to("tell")?,
            Step::Await(file) => eventually(&file, || std::fs::metadata(place(&file)).map(drop)),
        }
    }
    let findings = disk.findings().iter().map(ToString::to_string).collect();
    Ok(Report { identity: disk.identity().to_string(), findings, answers, threads: threads()? })
}

/// What happened earlier is told first, and consumes the command; and some are not sent while a scan of udev's is under way.
async fn send(disk: &Disk, path: &PathName, command: Command) -> (String, std::result::Result<Answer, Failure>) {
    let mut answer = disk.send(path, command).await;
    for _ in 0..5 {
        if !matches!(answer, Err(Failure::UnitAttention(_) | Failure::OwnTraffic)) {
            break;
        }
        answer = disk.send(path, command).await;
    }
    (path.to_string(), answer)
}

async fn answered(disk: &Disk, command: Command) -> Result<(String, std::result::Result<Answer, Failure>)> {
    loop {
        let told = send(disk, &first(disk)?, command).await;
        if !matches!(told.1, Err(Failure::NoAnswer | Failure::Transport)) {
            return Ok(told);
        }
    }
}

fn first(disk: &Disk) -> Result<PathName> {
    disk.paths().into_iter().next().ok_or_else(|| Trouble::new("the disk has no path"))
}

fn place(file: &str) -> PathBuf {
    Path::new(LAB).join(file)
}

/// Each path's thread has a table of open files of its own.
fn no_block_device() -> Result<()> {
    for task in std::fs::read_dir("/proc/self/task").to("look at the threads")?.flatten() {
        for file in std::fs::read_dir(task.path().join("fd")).to("look at open files")?.flatten() {
            if std::fs::metadata(file.path()).is_ok_and(|file| file.file_type().is_block_device()) {
                let which = std::fs::read_link(file.path()).to("read which file is open")?;
                return Err(Trouble::new(format!("{} is kept open", which.display())));
            }
        }
    }
    Ok(())
}

fn threads() -> Result<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").to("count threads")?;
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    Ok(names.filter(|name| name.trim() == "ha-reservation").count())
}
