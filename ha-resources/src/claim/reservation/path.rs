//! One path to a disk, open on a thread of its own.
//!
//! Decides what is found out before a path is used: that it leads to what it was taken for, who the disk is, and that it has reservations.
//! A path that hangs, hangs nothing else: see [`DeviceThread`].

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ha_core::claim::reservation::device::{Answer, Command, Failure, InitiatorPort, PathName, Registrations};
use nix::libc::{O_NONBLOCK, major, minor};

use super::kernel_pr::KernelDevice;
use super::look::{Driver, Node};
use super::nvme::NvmeDevice;
use super::scsi::{self, Designator};
use super::sg::SgDevice;
use super::traffic::Traffic;
use crate::claim::device_thread::{DeviceThread, Unanswered};

/// A nexus has no more kinds of things to be told of than this when it is new; each consumes a command.
const ATTENTIONS_AT_FIRST: u32 = 10;

/// A device that is busy is asked again after this, then after twice as long, and so on.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What a path's thread is asked for.
#[derive(Clone, Copy, Debug)]
enum Job {
    Command(Command),
    /// One that may hang the target beside this node's own traffic on the path.
    WhenQuiet(Command),
    /// See [`scsi::registrations`].
    Registrations,
    /// See [`scsi::rewrite`].
    Rewrite,
}

/// What a path's thread gives back.
type Done = Result<Said, Failure>;

/// What the device said.
#[derive(Debug)]
enum Said {
    Answer(Answer),
    Registrations(Registrations),
}

/// A path that can be used.
#[derive(Debug)]
pub(super) struct DevicePath {
    pub(super) name: PathName,
    pub(super) node: Node,
    thread: DeviceThread<Job, Done>,
    limit: Duration,
}

/// A path that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    path: DevicePath,
    outcome: Receiver<Result<Seen, Trouble>>,
}

/// What was to be opened.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) node: Node,
    pub(super) driver: Driver,
    /// The file through which.
    pub(super) file: PathBuf,
    /// The character device of the same SCSI disk, if the kernel has one.
    pub(super) generic: Option<Generic>,
    /// The port of this machine that the path begins at; none if the kernel does not say.
    pub(super) initiator: Option<InitiatorPort>,
    /// What the kernel says of who the disk is; none if the disk is to be asked.
    pub(super) kernels_designator: Option<String>,
    /// What this node reads and writes on it; none where that hangs no target (NVMe).
    pub(super) traffic: Option<Traffic>,
}

/// A SCSI disk as a character device (`/dev/sg0`): it carries commands and remembers nothing of what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generic {
    /// The file.
    pub(super) file: PathBuf,
    /// Its number.
    pub(super) number: (u32, u32),
}

/// What stays open of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// Something that keeps nothing of the disk's data in memory.
    Commands,
    /// The block device of a SCSI disk: the kernel remembers what was read of it for as long.
    Block,
}

/// What was found out of a path when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Who the disk is.
    pub(super) designator: Designator,
    /// How commands get there.
    pub(super) through: Through,
}

/// Why a path cannot be used.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The system refused.
    System { what: &'static str, error: io::Error },
    /// The file leads elsewhere by now.
    Changed,
    /// The device knows no reservations.
    NoReservations,
    /// The device does not say who it is.
    Anonymous,
    /// The device does not answer as it should.
    Failed(Failure),
}

impl Opening {
    /// Begins to open a path. Every command on it has `limit`.
    pub(super) fn begin(candidate: Candidate, limit: Duration) -> io::Result<Opening> {
        let name = PathName::new(candidate.node.name.clone());
        let node = candidate.node.clone();
        let (thread, outcome) = DeviceThread::start("ha-reservation", move || {
            let (mut link, seen) = Link::open(&candidate, limit)?;
            let carry_out = move |job| {
                while_busy(limit, || match job {
                    Job::WhenQuiet(command) if !is_quiet(&candidate, limit) => {
                        tracing::warn!(path = %candidate.node.name, ?command, "not sent: {}", Failure::OwnTraffic);
                        Err(Failure::OwnTraffic)
                    }
                    Job::Command(command) | Job::WhenQuiet(command) => link.carry_out(command).map(Said::Answer),
                    Job::Registrations => link.registrations(candidate.initiator.clone()).map(Said::Registrations),
                    Job::Rewrite => link.rewrite().map(|()| Said::Answer(Answer::Done)),
                })
            };
            Ok((carry_out, seen))
        })?;
        Ok(Opening { path: DevicePath { name, node, thread, limit }, outcome })
    }

    pub(super) fn node(&self) -> &Node {
        &self.path.node
    }

    /// Waits so long at most for the path to open. An error if that takes longer: wait again later.
    pub(super) fn wait(self, limit: Duration) -> Result<Result<(DevicePath, Seen), Trouble>, Opening> {
        match self.outcome.recv_timeout(limit) {
            Ok(outcome) => Ok(outcome.map(|seen| (self.path, seen))),
            Err(_) => Err(self),
        }
    }
}

impl DevicePath {
    /// As [`send`](ha_core::claim::reservation::device::ReservationDevice::send).
    pub(super) async fn send(&self, command: Command) -> Result<Answer, Failure> {
        self.answer(Job::Command(command)).await
    }

    /// The same for a command that hangs targets beside this node's own traffic on the path: [`Failure::OwnTraffic`] unless it is quiet.
    pub(super) async fn send_when_quiet(&self, command: Command) -> Result<Answer, Failure> {
        self.answer(Job::WhenQuiet(command)).await
    }

    async fn answer(&self, job: Job) -> Result<Answer, Failure> {
        match self.ask(job).await? {
            Said::Answer(answer) => Ok(answer),
            Said::Registrations(_) => Err(Failure::Transport),
        }
    }

    /// As [`scsi::registrations`].
    pub(super) async fn registrations(&self) -> Result<Registrations, Failure> {
        match self.ask(Job::Registrations).await? {
            Said::Registrations(registrations) => Ok(registrations),
            Said::Answer(_) => Err(Failure::Transport),
        }
    }

    /// As [`scsi::rewrite`].
    pub(super) async fn rewrite(&self) -> Result<(), Failure> {
        self.ask(Job::Rewrite).await.map(drop)
    }

    async fn ask(&self, job: Job) -> Done {
        self.thread.carry_out(job, self.limit).await.unwrap_or_else(|unanswered| match unanswered {
            Unanswered::InTime => Err(Failure::NoAnswer),
            Unanswered::Ever => Err(Failure::Transport),
        })
    }
}

fn is_quiet(candidate: &Candidate, limit: Duration) -> bool {
    candidate.traffic.as_ref().is_none_or(|traffic| traffic.falls_quiet(limit))
}

/// Asks again, within `limit`, for as long as the device is busy: it has carried nothing out then.
fn while_busy<T>(limit: Duration, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let (begun, mut pause) = (Instant::now(), BUSY_PAUSE);
    loop {
        let answer = ask();
        if !matches!(answer, Err(Failure::Busy)) || begun.elapsed() + pause >= limit {
            return answer;
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
}

/// An open path, where it may hang.
#[derive(Debug)]
enum Link {
    Scsi(SgDevice),
    Nvme(NvmeDevice),
    Kernel(KernelDevice),
}

impl Link {
    fn open(candidate: &Candidate, timeout: Duration) -> Result<(Link, Seen), Trouble> {
        let about = |what| move |error| Trouble::System { what, error };
        // Not for writing: then closing it has udev look at the disk anew, and from Linux 6.8 on a mounted disk may not be opened so.
        // What commands need instead is a privilege (CAP_SYS_RAWIO, CAP_SYS_ADMIN).
        let file = File::open(&candidate.file).map_err(about("opening it"))?;
        let number = file.metadata().map_err(about("looking at it"))?.rdev();
        if (major(number), minor(number)) != candidate.node.number {
            return Err(Trouble::Changed);
        }
        let mut link = match candidate.driver {
            Driver::Scsi => {
                let device = SgDevice::new(file, timeout);
                device.check_permission().map_err(about("sending commands to it"))?;
                Link::Scsi(device)
            }
            Driver::Kernel => Link::Kernel(KernelDevice::new(file, timeout).map_err(about("opening it"))?),
            Driver::Nvme => Link::Nvme(NvmeDevice::open(file, timeout).map_err(about("asking for its namespace"))?),
        };
        link.past_attentions(|link| link.carry_out(Command::ReadKeys))?;
        let designator = match &candidate.kernels_designator {
            Some(name) => Designator::of_kernel(name),
            None => link.past_attentions(Link::designator)?,
        };
        let designator = designator.ok_or(Trouble::Anonymous)?;
        if !matches!(link, Link::Scsi(_)) {
            return Ok((link, Seen { designator, through: Through::Commands }));
        }
        Ok(match candidate.generic.as_ref().and_then(|generic| Link::generic(generic, &designator, timeout)) {
            // The block device is closed here.
            Some(generic) => (generic, Seen { designator, through: Through::Commands }),
            None => (link, Seen { designator, through: Through::Block }),
        })
    }

    /// The same disk through its character device; none if that cannot be opened, or leads elsewhere.
    fn generic(generic: &Generic, expected: &Designator, timeout: Duration) -> Option<Link> {
        // One that somebody has opened for himself alone would hold this up.
        let file = File::options().read(true).custom_flags(O_NONBLOCK).open(&generic.file).ok()?;
        let found = file.metadata().ok()?;
        if !found.file_type().is_char_device() || (major(found.rdev()), minor(found.rdev())) != generic.number {
            return None;
        }
        let mut link = Link::Scsi(SgDevice::new(file, timeout));
        // A number can be another disk's by the time it is opened.
        let designator = link.past_attentions(Link::designator).ok().flatten()?;
        (designator == *expected).then_some(link)
    }

    fn carry_out(&mut self, command: Command) -> Result<Answer, Failure> {
        match self {
            Link::Scsi(device) => scsi::carry_out(device, command),
            Link::Nvme(device) => device.carry_out(command),
            Link::Kernel(device) => device.carry_out(command),
        }
    }

    fn registrations(&mut self, initiator: Option<InitiatorPort>) -> Result<Registrations, Failure> {
        match self {
            Link::Scsi(device) => scsi::registrations(device, initiator),
            Link::Nvme(device) => device.registrations(),
            Link::Kernel(device) => device.registrations(),
        }
    }

    fn rewrite(&mut self) -> Result<(), Failure> {
        match self {
            Link::Scsi(device) => scsi::rewrite(device),
            Link::Nvme(_) | Link::Kernel(_) => Err(Failure::NotSupported),
        }
    }

    fn designator(&mut self) -> Result<Option<Designator>, Failure> {
        match self {
            Link::Scsi(device) => scsi::designator(device),
            Link::Kernel(device) => device.designator(),
            // The kernel's is the only one.
            Link::Nvme(_) => Ok(None),
        }
    }

    /// A path that is new to the device has something to hear first. Whoever uses the path will read what is registered anyway.
    fn past_attentions<T>(&mut self, ask: impl Fn(&mut Link) -> Result<T, Failure>) -> Result<T, Trouble> {
        let mut answer = ask(self);
        for _ in 0..ATTENTIONS_AT_FIRST {
            if !matches!(answer, Err(Failure::UnitAttention(_))) {
                break;
            }
            answer = ask(self);
        }
        answer.map_err(|failure| match failure {
            Failure::NotSupported => Trouble::NoReservations,
            failure => Trouble::Failed(failure),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Duration = Duration::from_secs(60);

    #[test]
    fn a_busy_device_is_asked_again_and_nobody_else() {
        let mut answers = vec![Err(Failure::Conflict), Ok(3), Err(Failure::Busy), Err(Failure::Busy)];
        assert_eq!(while_busy(ENOUGH, || answers.pop().unwrap()), Ok(3));
        assert_eq!(while_busy(ENOUGH, || answers.pop().unwrap()), Err::<i32, _>(Failure::Conflict));
    }

    #[test]
    fn a_device_that_stays_busy_is_not_asked_for_longer_than_it_may_take() {
        let mut asked = 0;
        let answer = while_busy(BUSY_PAUSE * 8, || {
            asked += 1;
            Err::<(), _>(Failure::Busy)
        });
        assert_eq!(answer, Err(Failure::Busy));
        assert!((2..=4).contains(&asked), "{asked}");
    }
}
