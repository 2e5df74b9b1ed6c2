//! Reservations by the kernel's own calls (`linux/pr.h`, Documentation/block/pr.rst).
//!
//! Decides what its numbers mean, on kernels old and new. For disks that take no other command: those of drivers that have nothing else, and
//! multipath maps whose paths have no file here, as in a container that was given the map only; then the map stands for all of its paths, and
//! the kernel registers each.
//!
//! The kernel reads keys and the reservation from 6.19 on. Before, they are read by SG_IO, which a map passes to one of its paths.
//! It always has registrations survive loss of power, so a SCSI disk that cannot do that refuses them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Held, Key, Keys, Nexus, Queued, Registrations, Reservation, ReservationType, Sense,
};
use nix::errno::Errno;

use super::nvme::number;
use super::scsi::{self, Designator};
use super::sg::SgDevice;

/// Room for so many keys at first.
const KEYS_AT_FIRST: usize = 64;
/// The most that the kernel accepts (`PR_KEYS_MAX`).
const MOST_KEYS: usize = 1 << 16;
/// Whatever key is registered (`PR_FL_IGNORE_KEY`).
const IGNORE_KEY: u32 = 1;

/// An open disk.
#[derive(Debug)]
pub(super) struct KernelDevice {
    file: File,
    reads: SgDevice,
}

impl KernelDevice {
    /// What is read by SG_IO has `timeout`; the kernel gives every other command what its driver does.
    pub(super) fn new(file: File, timeout: Duration) -> std::io::Result<KernelDevice> {
        let reads = SgDevice::new(file.try_clone()?, timeout);
        Ok(KernelDevice { file, reads })
    }

    /// As [`scsi::carry_out`].
    pub(super) fn carry_out(&mut self, command: Command) -> Result<Answer, Failure> {
        match command {
            Command::ReadKeys => match self.keys() {
                Err(error) if is_unknown(error) => scsi::carry_out(&mut self.reads, command),
                answer => answer.map_err(of_errno).map(Answer::Keys),
            },
            Command::ReadReservation => match ioctl::read_reservation(&self.file) {
                Err(error) if is_unknown(error) => scsi::carry_out(&mut self.reads, command),
                answer => answer.map_err(of_errno).and_then(reservation),
            },
            Command::ReportCapabilities => scsi::carry_out(&mut self.reads, command),
            _ => check(self.change(command)).map(|()| Answer::Done),
        }
    }

    /// As [`scsi::designator`].
    pub(super) fn designator(&mut self) -> Result<Option<Designator>, Failure> {
        scsi::designator(&mut self.reads)
    }

    /// As [`scsi::registrations`]. Which path of a map is asked is up to the kernel, so nothing is said of who asks.
    pub(super) fn registrations(&mut self) -> Result<Registrations, Failure> {
        let seen = scsi::registrations(&mut self.reads, None)?;
        Ok(Registrations { asked_by: Nexus::default(), ..seen })
    }

    fn change(&self, command: Command) -> Result<i32, Errno> {
        let value = |key: Option<Key>| key.map_or(0, Key::get);
        let kind = |kind| u32::from(number(kind));
        match command {
            Command::Register { old, new, .. } => ioctl::register(&self.file, value(old), value(new), 0),
            Command::RegisterIgnoring { new, .. } => ioctl::register(&self.file, 0, value(new), IGNORE_KEY),
            Command::Reserve { key, kind: it } => ioctl::reserve(&self.file, key.get(), kind(it)),
            Command::Release { key, kind: it } => ioctl::release(&self.file, key.get(), kind(it)),
            Command::Clear { key } => ioctl::clear(&self.file, key.get()),
            Command::Preempt { key, victim, kind: it, queued } => {
                let preempt = match queued {
                    Queued::Stay => ioctl::preempt,
                    Queued::Aborted => ioctl::preempt_and_abort,
                };
                preempt(&self.file, key.get(), value(victim), kind(it))
            }
            Command::ReadKeys | Command::ReadReservation | Command::ReportCapabilities => Err(Errno::EOPNOTSUPP),
        }
    }

    fn keys(&self) -> Result<Keys, Errno> {
        let mut room = KEYS_AT_FIRST;
        loop {
            let mut values = vec![0; room];
            let (generation, count) = ioctl::read_keys(&self.file, &mut values)?;
            let Some(found) = values.get(..count) else {
                // Some more, for those that come in between.
                room = count + KEYS_AT_FIRST;
                if room > MOST_KEYS {
                    return Err(Errno::EOVERFLOW);
                }
                continue;
            };
            return Ok(Keys { generation, keys: found.iter().copied().filter_map(Key::new).collect() });
        }
    }
}

/// Whether the kernel, or its driver, knows no such call. A SCSI disk below a map finds the argument invalid.
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL)
}

fn reservation((key, generation, kind): (u64, u32, u32)) -> Result<Answer, Failure> {
    let known = ReservationType::ALL.into_iter().find(|known| u32::from(number(*known)) == kind);
    let held = match (kind, known) {
        (0, _) => None,
        (_, Some(kind)) => Some(Held { key: Key::new(key).filter(|_| !kind.is_held_by_all_registrants()), kind }),
        (_, None) => return Err(Failure::Transport),
    };
    Ok(Answer::Reservation(Reservation { generation, held }))
}

/// What the kernel returned: an error of its own, or zero, or what went wrong in one of three ways. Up to 6.1 it is the result of a SCSI
/// command (the device's status in the low byte, above it what the kernel made of it) or the status of an NVMe command; since then
/// `enum pr_status`, whose low bytes are those of SCSI.
fn check(outcome: Result<i32, Errno>) -> Result<(), Failure> {
    /// `SCSIML_STAT_TGT_FAILURE`, with the status "check condition": the device says that it does not know the command, or a field in it.
    const TARGET_FAILURE: i32 = 0x402;
    match outcome.map_err(of_errno)? {
        0 => Ok(()),
        TARGET_FAILURE => Err(Failure::NotSupported),
        code => match code & 0xff {
            // Of SCSI, and of NVMe.
            0x18 | 0x83 => Err(Failure::Conflict),
            // The device had something to say, and the kernel does not tell what: a unit attention, an error, or both.
            0x02 => Err(Failure::Rejected(Sense { key: 0, asc: 0, ascq: 0 })),
            // The path failed: PR_STS_PATH_FAILED and the like, or a host byte.
            _ => Err(Failure::Transport),
        },
    }
}

fn of_errno(error: Errno) -> Failure {
    match error {
        // The last is how newer kernels say that the device does not know a field.
        Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL => Failure::NotSupported,
        Errno::ETIMEDOUT | Errno::ETIME => Failure::NoAnswer,
        Errno::EBADE => Failure::Conflict,
        _ => {
            tracing::debug!(%error, "the kernel did not carry a reservation to a disk");
            Failure::Transport
        }
    }
}

/// `linux/pr.h`.
mod ioctl {
    use super::{AsRawFd, Errno, File};

    #[repr(C)]
    struct PrReservation {
        key: u64,
        kind: u32,
        flags: u32,
    }

    #[repr(C)]
    struct PrRegistration {
        old_key: u64,
        new_key: u64,
        flags: u32,
        pad: u32,
    }

    #[repr(C)]
    struct PrPreempt {
        /// One's own key, whatever the name says.
        old_key: u64,
        /// The victim's.
        new_key: u64,
        kind: u32,
        flags: u32,
    }

    #[repr(C)]
    struct PrClear {
        key: u64,
        flags: u32,
        pad: u32,
    }

    #[repr(C)]
    struct PrReadKeys {
        generation: u32,
        num_keys: u32,
        keys_ptr: u64,
    }

    #[repr(C)]
    #[derive(Default)]
    struct PrReadReservation {
        key: u64,
        generation: u32,
        kind: u32,
    }

    const _: () = assert!(size_of::<PrReservation>() == 16 && size_of::<PrRegistration>() == 24);
    const _: () = assert!(size_of::<PrPreempt>() == 24 && size_of::<PrClear>() == 16);
    const _: () = assert!(size_of::<PrReadKeys>() == 16 && size_of::<PrReadReservation>() == 16);

    nix::ioctl_write_ptr!(ioc_pr_register, b'p', 200, PrRegistration);
    nix::ioctl_write_ptr!(ioc_pr_reserve, b'p', 201, PrReservation);
    nix::ioctl_write_ptr!(ioc_pr_release, b'p', 202, PrReservation);
    nix::ioctl_write_ptr!(ioc_pr_preempt, b'p', 203, PrPreempt);
    nix::ioctl_write_ptr!(ioc_pr_preempt_abort, b'p', 204, PrPreempt);
    nix::ioctl_write_ptr!(ioc_pr_clear, b'p', 205, PrClear);
    nix::ioctl_readwrite!(ioc_pr_read_keys, b'p', 206, PrReadKeys);
    nix::ioctl_read!(ioc_pr_read_reservation, b'p', 207, PrReadReservation);

    pub(super) fn register(file: &File, old_key: u64, new_key: u64, flags: u32) -> Result<i32, Errno> {
        let argument = PrRegistration { old_key, new_key, flags, pad: 0 };
        // SAFETY: the kernel reads the struct, which lives through the call.
        unsafe { ioc_pr_register(file.as_raw_fd(), &raw const argument) }
    }

    pub(super) fn reserve(file: &File, key: u64, kind: u32) -> Result<i32, Errno> {
        let argument = PrReservation { key, kind, flags: 0 };
        // SAFETY: as in `register`.
        unsafe { ioc_pr_reserve(file.as_raw_fd(), &raw const argument) }
    }

    pub(super) fn release(file: &File, key: u64, kind: u32) -> Result<i32, Errno> {
        let argument = PrReservation { key, kind, flags: 0 };
        // SAFETY: as in `register`.
        unsafe { ioc_pr_release(file.as_raw_fd(), &raw const argument) }
    }

    pub(super) fn preempt(file: &File, own: u64, victim: u64, kind: u32) -> Result<i32, Errno> {
        let argument = PrPreempt { old_key: own, new_key: victim, kind, flags: 0 };
        // SAFETY: as in `register`.
        unsafe { ioc_pr_preempt(file.as_raw_fd(), &raw const argument) }
    }

    pub(super) fn preempt_and_abort(file: &File, own: u64, victim: u64, kind: u32) -> Result<i32, Errno> {
        let argument = PrPreempt { old_key: own, new_key: victim, kind, flags: 0 };
        // SAFETY: as in `register`.
        unsafe { ioc_pr_preempt_abort(file.as_raw_fd(), &raw const argument) }
    }

    pub(super) fn clear(file: &File, key: u64) -> Result<i32, Errno> {
        let argument = PrClear { key, flags: 0, pad: 0 };
        // SAFETY: as in `register`.
        unsafe { ioc_pr_clear(file.as_raw_fd(), &raw const argument) }
    }

    /// The generation, and how many keys there are, of which as many as fit are written.
    pub(super) fn read_keys(file: &File, room: &mut [u64]) -> Result<(u32, usize), Errno> {
        let mut argument =
            PrReadKeys { generation: 0, num_keys: room.len() as u32, keys_ptr: room.as_mut_ptr() as u64 };
        // SAFETY: the kernel reads and writes the struct, and writes as many keys as it says there is room for, in memory that is borrowed
        // mutably for the whole call.
        let returned = unsafe { ioc_pr_read_keys(file.as_raw_fd(), &raw mut argument) }?;
        failed(returned)?;
        Ok((argument.generation, argument.num_keys as usize))
    }

    /// The holder's key, the generation, and the type; zero if nobody holds it.
    pub(super) fn read_reservation(file: &File) -> Result<(u64, u32, u32), Errno> {
        let mut argument = PrReadReservation::default();
        // SAFETY: the kernel writes the struct, which lives through the call.
        let returned = unsafe { ioc_pr_read_reservation(file.as_raw_fd(), &raw mut argument) }?;
        failed(returned)?;
        Ok((argument.key, argument.generation, argument.kind))
    }

    /// Reading conflicts with nothing; what else the device says of it is an error of input and output.
    fn failed(returned: i32) -> Result<(), Errno> {
        if returned == 0 { Ok(()) } else { Err(Errno::EIO) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_old_and_new_kernels_return_is_told_apart() {
        for (returned, expected) in [
            (Ok(0), Ok(())),
            // 6.1: the result of a SCSI command. Newer: PR_STS_RESERVATION_CONFLICT.
            (Ok(0x118), Err(Failure::Conflict)),
            (Ok(0x18), Err(Failure::Conflict)),
            // 6.1: the status of an NVMe command, with "do not retry" and without.
            (Ok(0x4083), Err(Failure::Conflict)),
            (Ok(0x83), Err(Failure::Conflict)),
            // A unit attention, or an error; and PR_STS_IOERR.
            (Ok(2), Err(Failure::Rejected(Sense { key: 0, asc: 0, ascq: 0 }))),
            (Ok(1026), Err(Failure::NotSupported)),
            // PR_STS_PATH_FAILED, PR_STS_RETRY_PATH_FAILURE, PR_STS_PATH_FAST_FAILED.
            (Ok(0x10000), Err(Failure::Transport)),
            (Ok(0xe0000), Err(Failure::Transport)),
            (Ok(0xf0000), Err(Failure::Transport)),
            (Err(Errno::EOPNOTSUPP), Err(Failure::NotSupported)),
            (Err(Errno::EINVAL), Err(Failure::NotSupported)),
            (Err(Errno::ENODEV), Err(Failure::Transport)),
        ] {
            assert_eq!(check(returned), expected, "{returned:?}");
        }
    }

    #[test]
    fn a_reservation_reads_in_the_kernels_numbers() {
        let key = Key::new(7);
        let held = |held| Ok(Answer::Reservation(Reservation { generation: 3, held }));
        assert_eq!(reservation((0, 3, 0)), held(None));
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        assert_eq!(reservation((7, 3, 3)), held(Some(Held { key, kind })));
        let kind = ReservationType::WriteExclusiveAllRegistrants;
        assert_eq!(reservation((7, 3, 5)), held(Some(Held { key: None, kind })));
        assert_eq!(reservation((7, 3, 9)), Err(Failure::Transport));
    }

    #[test]
    fn what_has_no_reservations_says_so_to_every_command() {
        let file = File::open("/dev/null").unwrap();
        let mut device = KernelDevice::new(file, Duration::from_secs(1)).unwrap();
        let key = Key::new(1).unwrap();
        for command in [Command::ReadKeys, Command::ReadReservation, Command::Clear { key }] {
            assert_eq!(device.carry_out(command), Err(Failure::NotSupported), "{command:?}");
        }
    }
}
