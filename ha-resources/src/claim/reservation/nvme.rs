//! Reservations of an NVMe namespace, by passthrough.
//!
//! Decides how each command of reservations reads in NVMe's (NVM Express Base Specification 2.0, 7.2 to 7.5 and 8.19; NVM Command Set
//! Specification), and each of its answers in ours. The kernel's own calls (`linux/pr.h`) cannot read on kernels before 6.19, nor say
//! what a loss of power is to do; passthrough can.
//!
//! Registration is per host, not per path: the kernel spreads commands over the controllers that it has, and there is one nexus.

mod preempt;
mod report;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Key, Nexus, PowerLoss, Registrations, ReservationType, Sense,
};
use nix::errno::Errno;

use preempt::Preemption;
use report::{Format, Report, ReportError};

/// An open namespace.
#[derive(Debug)]
pub(super) struct NvmeDevice {
    file: File,
    namespace: u32,
    timeout: Duration,
    /// What loss of power can be made to do; none before the namespace was asked.
    power_loss: Option<PowerLoss>,
}

/// The bytes of one command, beside what every command has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Encoded {
    opcode: u8,
    dword_10: u32,
    data: [u64; 2],
    length: usize,
}

/// Opcodes of I/O commands.
const REGISTER: u8 = 0x0d;
const REPORT: u8 = 0x0e;
const ACQUIRE: u8 = 0x11;
const RELEASE: u8 = 0x15;
/// Opcodes of admin commands.
const IDENTIFY: u8 = 0x06;
const GET_FEATURES: u8 = 0x0a;
/// The feature Host Identifier (NVM Express Base Specification 2.0, 5.27.1.28).
const HOST_IDENTIFIER: u32 = 0x81;

/// Actions of Reservation Register.
const REGISTER_KEY: u32 = 0;
const UNREGISTER_KEY: u32 = 1;
const REPLACE_KEY: u32 = 2;
/// Actions of Reservation Acquire.
const ACQUIRE_IT: u32 = 0;
const PREEMPT: u32 = 1;
const PREEMPT_AND_ABORT: u32 = 2;
/// Actions of Reservation Release.
const RELEASE_IT: u32 = 0;
const CLEAR: u32 = 1;
/// Whatever key is registered (IEKEY).
const IGNORE_EXISTING_KEY: u32 = 1 << 3;

/// How much of a report is read at first.
const REPORT_AT_FIRST: usize = 4096;

impl NvmeDevice {
    /// A namespace whose commands the kernel gives up after `timeout`.
    pub(super) fn open(file: File, timeout: Duration) -> io::Result<NvmeDevice> {
        let namespace = ioctl::namespace(&file)?;
        Ok(NvmeDevice { file, namespace, timeout, power_loss: None })
    }

    /// As [`super::scsi::carry_out`].
    pub(super) fn carry_out(&mut self, command: Command) -> Result<Answer, Failure> {
        // Not every target that forgets refuses the wish: that of Linux agrees to it.
        if wishes_to_keep(command) && self.power_loss()? == PowerLoss::Forgets {
            return Err(Failure::NotSupported);
        }
        match command {
            Command::ReadKeys => Ok(Answer::Keys(self.report()?.keys())),
            Command::ReadReservation => Ok(Answer::Reservation(self.report()?.reservation())),
            Command::ReportCapabilities => {
                let now = self.report()?.power_loss;
                Ok(Answer::Capabilities(report::capabilities(&self.identify()?, now)))
            }
            // Replacing without regard to the key works on a host that has none, by the specification. A controller that sees a conflict in it
            // all the same is asked to register; no other reason for one is left.
            Command::RegisterIgnoring { new: Some(_), .. } => match self.change(command, REPLACE_KEY) {
                Err(Failure::Conflict) => self.change(command, REGISTER_KEY),
                answer => answer,
            },
            // Unregistering without regard to the key conflicts only if there is nothing to unregister.
            Command::RegisterIgnoring { new: None, .. } => match self.change(command, UNREGISTER_KEY) {
                Err(Failure::Conflict) => Ok(Answer::Done),
                answer => answer,
            },
            Command::Register { old, new, .. } => self.change(
                command,
                match (old, new) {
                    (None, Some(_)) => REGISTER_KEY,
                    (Some(_), Some(_)) => REPLACE_KEY,
                    (_, None) => UNREGISTER_KEY,
                },
            ),
            Command::Reserve { .. } => self.change(command, ACQUIRE_IT),
            Command::Preempt { key, victim, kind, queued } => self.preempt(Preemption { key, victim, kind, queued }),
            Command::Release { .. } => self.change(command, RELEASE_IT),
            Command::Clear { .. } => self.change(command, CLEAR),
        }
    }

    /// As [`super::scsi::registrations`]: each host, for all controllers.
    pub(super) fn registrations(&mut self) -> Result<Registrations, Failure> {
        let (generation, registrations) = self.report()?.registrations();
        let initiator = self.host().map(|host| report::port_of(&host));
        Ok(Registrations { generation, registrations, asked_by: Nexus { initiator, port: None } })
    }

    /// This host's identifier as the controller knows it; none if it does not say, or has none.
    fn host(&self) -> Option<Vec<u8>> {
        // Of 128 bits, and of 64 where the controller refuses that.
        let found = [(16, 1), (8, 0)].into_iter().find_map(|(length, extended)| {
            let mut data = vec![0; length];
            let mut sent = self.command(GET_FEATURES, &data);
            (sent.cdw10, sent.cdw11) = (HOST_IDENTIFIER, extended);
            check(ioctl::admin_command(&self.file, &mut sent, &mut data)).ok().map(|()| data)
        });
        found.filter(|host| host.iter().any(|byte| *byte != 0))
    }

    fn change(&mut self, command: Command, action: u32) -> Result<Answer, Failure> {
        let Encoded { opcode, dword_10, data, length } = encode(command, action).ok_or(Failure::NotSupported)?;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&data[0].to_le_bytes());
        bytes[8..].copy_from_slice(&data[1].to_le_bytes());
        let bytes = bytes.get_mut(..length).ok_or(Failure::NotSupported)?;
        let mut sent = self.command(opcode, bytes);
        sent.cdw10 = dword_10;
        check(ioctl::io_command(&self.file, &mut sent, bytes))?;
        Ok(Answer::Done)
    }

    /// The registrants and the reservation, whole, however many there are.
    fn report(&mut self) -> Result<Report, Failure> {
        let (mut format, mut data) = self.read_report(REPORT_AT_FIRST)?;
        let needed = format.length(&data);
        if needed > data.len() {
            (format, data) = self.read_report(needed.next_multiple_of(REPORT_AT_FIRST))?;
        }
        of_data(Report::decode(format, &data))
    }

    /// Hosts with identifiers of 128 bits are to use the extended format, those of 64 bits the other; controllers refuse the wrong one.
    fn read_report(&mut self, room: usize) -> Result<(Format, Vec<u8>), Failure> {
        match self.read_report_in(Format::Extended, room) {
            Err(Failure::NotSupported | Failure::Rejected(_)) => self.read_report_in(Format::Short, room),
            answer => answer,
        }
    }

    fn read_report_in(&mut self, format: Format, room: usize) -> Result<(Format, Vec<u8>), Failure> {
        let mut data = vec![0; room];
        let mut sent = self.command(REPORT, &data);
        // In units of four bytes, counted from zero.
        sent.cdw10 = (room / 4) as u32 - 1;
        sent.cdw11 = match format {
            Format::Short => 0,
            Format::Extended => 1,
        };
        check(ioctl::io_command(&self.file, &mut sent, &mut data))?;
        Ok((format, data))
    }

    fn power_loss(&mut self) -> Result<PowerLoss, Failure> {
        if let Some(known) = self.power_loss {
            return Ok(known);
        }
        let can = report::capabilities(&self.identify()?, PowerLoss::Forgets).power_loss;
        Ok(*self.power_loss.insert(can))
    }

    fn identify(&mut self) -> Result<Vec<u8>, Failure> {
        let mut data = vec![0; 4096];
        let mut sent = self.command(IDENTIFY, &data);
        check(ioctl::admin_command(&self.file, &mut sent, &mut data))?;
        Ok(data)
    }

    fn command(&self, opcode: u8, data: &[u8]) -> ioctl::PassthroughCommand {
        let timeout_ms = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        ioctl::PassthroughCommand {
            opcode,
            nsid: self.namespace,
            data_len: data.len() as u32,
            timeout_ms,
            ..ioctl::PassthroughCommand::default()
        }
    }
}

/// Whether it is a registration that is to outlast a loss of power.
fn wishes_to_keep(command: Command) -> bool {
    matches!(
        command,
        Command::Register { new: Some(_), power_loss: PowerLoss::Keeps, .. }
            | Command::RegisterIgnoring { new: Some(_), power_loss: PowerLoss::Keeps, .. }
    )
}

/// None for a command that only reads.
fn encode(command: Command, action: u32) -> Option<Encoded> {
    let value = |key: Option<Key>| key.map_or(0, Key::get);
    let change = |keep: PowerLoss| match keep {
        PowerLoss::Forgets => 0b10 << 30,
        PowerLoss::Keeps => 0b11 << 30,
    };
    let kind_at_8 = |kind| u32::from(number(kind)) << 8;
    Some(match command {
        Command::Register { old, new, power_loss, ports: _ } => Encoded {
            opcode: REGISTER,
            dword_10: action | change(power_loss),
            data: [value(old), value(new)],
            length: 16,
        },
        Command::RegisterIgnoring { new, power_loss, ports: _ } => Encoded {
            opcode: REGISTER,
            dword_10: action | IGNORE_EXISTING_KEY | change(power_loss),
            data: [0, value(new)],
            length: 16,
        },
        Command::Reserve { key, kind } => {
            Encoded { opcode: ACQUIRE, dword_10: action | kind_at_8(kind), data: [key.get(), 0], length: 16 }
        }
        Command::Preempt { key, victim, kind, queued: _ } => Encoded {
            opcode: ACQUIRE,
            dword_10: action | kind_at_8(kind),
            data: [key.get(), value(victim)],
            length: 16,
        },
        Command::Release { key, kind } => {
            Encoded { opcode: RELEASE, dword_10: action | kind_at_8(kind), data: [key.get(), 0], length: 8 }
        }
        Command::Clear { key } => Encoded { opcode: RELEASE, dword_10: action, data: [key.get(), 0], length: 8 },
        Command::ReadKeys | Command::ReadReservation | Command::ReportCapabilities => return None,
    })
}

/// The types, as NVMe and the kernel number them.
pub(super) fn number(kind: ReservationType) -> u8 {
    match kind {
        ReservationType::WriteExclusive => 1,
        ReservationType::ExclusiveAccess => 2,
        ReservationType::WriteExclusiveRegistrantsOnly => 3,
        ReservationType::ExclusiveAccessRegistrantsOnly => 4,
        ReservationType::WriteExclusiveAllRegistrants => 5,
        ReservationType::ExclusiveAccessAllRegistrants => 6,
    }
}

/// The kernel gives the status field of the completion back, or an error of its own.
fn check(outcome: Result<i32, Errno>) -> Result<(), Failure> {
    /// Type and code; what is above tells whether to try again.
    const STATUS: i32 = 0x7ff;
    /// How SCSI would say it (NVM Express: SCSI Translation Reference).
    const INTERNAL: Sense = Sense { key: 0x4, asc: 0x44, ascq: 0x00 };
    const ABORTED: Sense = Sense { key: 0xb, asc: 0x00, ascq: 0x00 };
    let status = match outcome {
        Ok(status) => status & STATUS,
        Err(Errno::ETIMEDOUT | Errno::ETIME | Errno::EINTR) => return Err(Failure::NoAnswer),
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => return Err(Failure::NotSupported),
        Err(error) => {
            tracing::debug!(%error, "the kernel did not carry a command to a namespace");
            return Err(Failure::Transport);
        }
    };
    match status {
        0x000 => Ok(()),
        // Invalid command opcode, invalid field in command.
        0x001 | 0x002 => Err(Failure::NotSupported),
        0x083 => Err(Failure::Conflict),
        // Host aborted command: its time was up.
        0x371 => Err(Failure::NoAnswer),
        // Path-related.
        0x300..=0x3ff => Err(Failure::Transport),
        status => {
            tracing::debug!(status = format_args!("{status:#05x}"), "a namespace refuses a command");
            Err(Failure::Rejected(if status == 0x006 { INTERNAL } else { ABORTED }))
        }
    }
}

/// An answer that cannot be read says nothing of the device, and something of the path.
fn of_data<T>(decoded: Result<T, ReportError>) -> Result<T, Failure> {
    decoded.map_err(|error| {
        tracing::warn!(%error, "a namespace's answer about reservations cannot be read");
        Failure::Transport
    })
}

/// Passthrough (`linux/nvme_ioctl.h`).
mod ioctl {
    use super::{AsRawFd, Errno, File, io};

    /// `struct nvme_passthru_cmd`.
    #[repr(C)]
    #[derive(Debug, Default)]
    pub(super) struct PassthroughCommand {
        pub(super) opcode: u8,
        pub(super) flags: u8,
        pub(super) rsvd1: u16,
        pub(super) nsid: u32,
        pub(super) cdw2: u32,
        pub(super) cdw3: u32,
        pub(super) metadata: u64,
        pub(super) addr: u64,
        pub(super) metadata_len: u32,
        pub(super) data_len: u32,
        pub(super) cdw10: u32,
        pub(super) cdw11: u32,
        pub(super) cdw12: u32,
        pub(super) cdw13: u32,
        pub(super) cdw14: u32,
        pub(super) cdw15: u32,
        pub(super) timeout_ms: u32,
        pub(super) result: u32,
    }

    const _: () = assert!(size_of::<PassthroughCommand>() == 72);

    nix::ioctl_none_bad!(nvme_ioctl_id, nix::request_code_none!(b'N', 0x40));
    nix::ioctl_readwrite!(nvme_ioctl_admin_cmd, b'N', 0x41, PassthroughCommand);
    nix::ioctl_readwrite!(nvme_ioctl_io_cmd, b'N', 0x43, PassthroughCommand);

    /// The number of the namespace.
    pub(super) fn namespace(file: &File) -> io::Result<u32> {
        // SAFETY: NVME_IOCTL_ID takes no argument.
        let number = unsafe { nvme_ioctl_id(file.as_raw_fd()) }?;
        u32::try_from(number).map_err(io::Error::other)
    }

    /// Sends an I/O command with its data, in whichever direction its opcode says.
    pub(super) fn io_command(file: &File, command: &mut PassthroughCommand, data: &mut [u8]) -> Result<i32, Errno> {
        attach(command, data);
        // SAFETY: the command is as `linux/nvme_ioctl.h` has it; its data pointer and length are those of a live buffer that is borrowed
        // mutably for the whole call, after which the kernel does not use it; it has no metadata.
        unsafe { nvme_ioctl_io_cmd(file.as_raw_fd(), command) }
    }

    /// The same with an admin command.
    pub(super) fn admin_command(file: &File, command: &mut PassthroughCommand, data: &mut [u8]) -> Result<i32, Errno> {
        attach(command, data);
        // SAFETY: as in `io_command`.
        unsafe { nvme_ioctl_admin_cmd(file.as_raw_fd(), command) }
    }

    fn attach(command: &mut PassthroughCommand, data: &mut [u8]) {
        command.addr = data.as_mut_ptr() as u64;
        command.data_len = data.len() as u32;
    }
}

#[cfg(test)]
mod tests;
