//! One path to a disk, open on a thread of its own.
//!
//! Decides what is found out before a path is used: that it leads to what it was taken for, who the disk is, and that it has reservations.
//! A path that hangs, hangs nothing else: see [`DeviceThread`].

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ha_core::claim::reservation::device::{Answer, Command, Failure, PathName};
use nix::libc::{major, minor};

use super::kernel_pr::KernelDevice;
use super::look::{Driver, Node};
use super::nvme::NvmeDevice;
use super::scsi::{self, Designator};
use super::sg::SgDevice;
use crate::claim::device_thread::{DeviceThread, Unanswered};

/// A nexus has no more kinds of things to be told of than this when it is new; each consumes a command.
const ATTENTIONS_AT_FIRST: u32 = 10;

/// What a path's thread gives back.
type Done = Result<Answer, Failure>;

/// A path that can be used.
#[derive(Debug)]
pub(super) struct DevicePath {
    pub(super) name: PathName,
    pub(super) node: Node,
    thread: DeviceThread<Command, Done>,
    limit: Duration,
}

/// A path that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    path: DevicePath,
    outcome: Receiver<Result<Designator, Trouble>>,
}

/// What was to be opened.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) node: Node,
    pub(super) driver: Driver,
    /// The file through which.
    pub(super) file: PathBuf,
    /// What the kernel says of who the disk is; none if the disk is to be asked.
    pub(super) kernels_designator: Option<String>,
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
            let (mut link, designator) = Link::open(&candidate, limit)?;
            Ok((move |command| link.carry_out(command), designator))
        })?;
        Ok(Opening { path: DevicePath { name, node, thread, limit }, outcome })
    }

    pub(super) fn node(&self) -> &Node {
        &self.path.node
    }

    /// Waits so long at most for the path to open. An error if that takes longer: wait again later.
    pub(super) fn wait(self, limit: Duration) -> Result<Result<(DevicePath, Designator), Trouble>, Opening> {
        match self.outcome.recv_timeout(limit) {
            Ok(outcome) => Ok(outcome.map(|designator| (self.path, designator))),
            Err(_) => Err(self),
        }
    }
}

impl DevicePath {
    /// As [`send`](ha_core::claim::reservation::device::ReservationDevice::send).
    pub(super) async fn send(&self, command: Command) -> Done {
        self.thread.carry_out(command, self.limit).await.unwrap_or_else(|unanswered| match unanswered {
            Unanswered::InTime => Err(Failure::NoAnswer),
            Unanswered::Ever => Err(Failure::Transport),
        })
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
    fn open(candidate: &Candidate, timeout: Duration) -> Result<(Link, Designator), Trouble> {
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
        Ok((link, designator.ok_or(Trouble::Anonymous)?))
    }

    fn carry_out(&mut self, command: Command) -> Done {
        match self {
            Link::Scsi(device) => scsi::carry_out(device, command),
            Link::Nvme(device) => device.carry_out(command),
            Link::Kernel(device) => device.carry_out(command),
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
