//! SG_IO: command blocks through the kernel to one path of a SCSI disk, which is open as a character or a block device.
//!
//! Decides how the kernel's account of a command reads (`scsi/sg.h`; what the kernel does is `block/scsi_ioctl.c`, since 5.17
//! `drivers/scsi/scsi_ioctl.c`). Leaves to the caller that this may hang.

use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use ha_core::claim::reservation::device::Failure;
use nix::errno::Errno;

use super::scsi::{Ended, Transfer, Transport};

/// An open SCSI disk.
#[derive(Debug)]
pub(super) struct SgDevice {
    file: File,
    timeout: Duration,
}

impl SgDevice {
    /// Commands that the device does not answer within `timeout`, and 7 s at least, are aborted by the kernel.
    pub(super) fn new(file: File, timeout: Duration) -> SgDevice {
        SgDevice { file, timeout }
    }
}

impl SgDevice {
    /// An error if the kernel lets this process send no commands of reservations: it needs CAP_SYS_RAWIO.
    pub(super) fn check_permission(&self) -> io::Result<()> {
        let mut room = [0; 8];
        // READ KEYS, which is refused like the others. How it ends otherwise will show.
        let block = [0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        match sg_io(&self.file, &block, Transfer::In(&mut room), &mut [0; 252], milliseconds(self.timeout)) {
            Err(error @ (Errno::EPERM | Errno::EACCES)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The least that a block device's driver waits (`BLK_MIN_SG_TIMEOUT`). A character device's would have the kernel begin to abort, and then to
/// reset, earlier, in the way of everything else that is sent to the disk.
const LEAST: Duration = Duration::from_secs(7);

fn milliseconds(timeout: Duration) -> u32 {
    u32::try_from(timeout.max(LEAST).as_millis()).unwrap_or(u32::MAX)
}

impl Transport for SgDevice {
    fn execute(&mut self, command_block: &[u8], transfer: Transfer<'_>) -> Result<Ended, Failure> {
        // What a device may send at most (SPC-4, 4.5.1).
        let mut sense = [0; 252];
        let account =
            sg_io(&self.file, command_block, transfer, &mut sense, milliseconds(self.timeout)).map_err(of_errno)?;
        account.ended(&sense)
    }
}

/// What the kernel says of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    status: u8,
    sense_len: u8,
    host_status: u16,
    driver_status: u16,
    received: usize,
}

/// `DID_TIME_OUT` (`scsi/scsi_status.h`).
const HOST_TIME_OUT: u16 = 0x03;
/// `DRIVER_TIMEOUT`, in the lower half; kernels before 5.14 set it.
const DRIVER_TIME_OUT: u16 = 0x06;

impl Account {
    /// The device's own status comes first: kernels before 6.1 say of a reservation conflict that the host failed, too.
    fn ended(self, sense: &[u8]) -> Result<Ended, Failure> {
        if self.status == 0 {
            if self.host_status == HOST_TIME_OUT || self.driver_status & 0x0f == DRIVER_TIME_OUT {
                return Err(Failure::NoAnswer);
            }
            if self.host_status != 0 {
                return Err(Failure::Transport);
            }
        }
        let sense = sense.get(..usize::from(self.sense_len)).unwrap_or(sense).to_vec();
        Ok(Ended { status: self.status, sense, received: self.received })
    }
}

/// Errors of the call itself: the device is gone, or the kernel did not take the command.
fn of_errno(error: Errno) -> Failure {
    match error {
        // The driver knows no SG_IO.
        Errno::ENOTTY | Errno::EOPNOTSUPP => Failure::NotSupported,
        Errno::ETIMEDOUT => Failure::NoAnswer,
        _ => {
            tracing::debug!(%error, "the kernel did not carry a command to a disk");
            Failure::Transport
        }
    }
}

/// `struct sg_io_hdr`.
#[repr(C)]
struct SgIoHdr {
    interface_id: c_int,
    dxfer_direction: c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: c_uint,
    dxferp: *mut c_void,
    cmdp: *mut u8,
    sbp: *mut u8,
    timeout: c_uint,
    flags: c_uint,
    pack_id: c_int,
    usr_ptr: *mut c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: c_int,
    duration: c_uint,
    info: c_uint,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SgIoHdr>() == 88);

const SG_DXFER_TO_DEV: c_int = -2;
const SG_DXFER_FROM_DEV: c_int = -3;

nix::ioctl_readwrite_bad!(ioctl_sg_io, 0x2285, SgIoHdr);

/// Sends one command, and waits as long as the kernel does. The timeout is in milliseconds.
fn sg_io(
    file: &File,
    command_block: &[u8],
    transfer: Transfer<'_>,
    sense: &mut [u8],
    timeout: u32,
) -> Result<Account, Errno> {
    let (dxfer_direction, dxferp, len) = match transfer {
        Transfer::Out(bytes) => (SG_DXFER_TO_DEV, bytes.as_ptr().cast_mut(), bytes.len()),
        Transfer::In(room) => (SG_DXFER_FROM_DEV, room.as_mut_ptr(), room.len()),
    };
    let too_long = |_| Errno::EINVAL;
    let mut header = SgIoHdr {
        interface_id: c_int::from(b'S'),
        dxfer_direction,
        cmd_len: u8::try_from(command_block.len()).map_err(too_long)?,
        mx_sb_len: u8::try_from(sense.len()).map_err(too_long)?,
        iovec_count: 0,
        dxfer_len: c_uint::try_from(len).map_err(too_long)?,
        dxferp: dxferp.cast(),
        cmdp: command_block.as_ptr().cast_mut(),
        sbp: sense.as_mut_ptr(),
        timeout,
        flags: 0,
        pack_id: 0,
        usr_ptr: ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is as `scsi/sg.h` has it, and every pointer in it is to a live buffer of the length beside it, borrowed for the whole
    // call, after which the kernel uses none of them. It reads the command block and, in direction TO_DEV, the data; it writes the sense
    // data and, in direction FROM_DEV, the data, both of which are borrowed mutably.
    unsafe { ioctl_sg_io(file.as_raw_fd(), &raw mut header) }?;
    let missing = usize::try_from(header.resid).unwrap_or(0).min(len);
    Ok(Account {
        status: header.status,
        sense_len: header.sb_len_wr,
        host_status: header.host_status,
        driver_status: header.driver_status,
        received: len - missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_status_comes_before_what_the_host_makes_of_it() {
        let conflict = Account { status: 0x18, host_status: 0x11, ..Account::default() };
        assert_eq!(conflict.ended(&[]), Ok(Ended { status: 0x18, sense: Vec::new(), received: 0 }));
        // DRIVER_SENSE, as kernels before 5.14 set it.
        let explained = Account { status: 0x02, driver_status: 0x08, sense_len: 3, ..Account::default() };
        assert_eq!(explained.ended(&[0x70, 0, 6, 9]).unwrap().sense, [0x70, 0, 6]);
    }

    #[test]
    fn a_command_without_a_status_was_not_answered_or_did_not_get_there() {
        let of = |host_status, driver_status| Account { host_status, driver_status, ..Account::default() }.ended(&[]);
        assert_eq!(of(0x03, 0), Err(Failure::NoAnswer));
        assert_eq!(of(0, 0x06), Err(Failure::NoAnswer));
        // DID_NO_CONNECT, DID_TRANSPORT_DISRUPTED.
        assert_eq!(of(0x01, 0), Err(Failure::Transport));
        assert_eq!(of(0x0e, 0), Err(Failure::Transport));
    }

    #[test]
    fn what_is_no_scsi_disk_refuses_the_call() {
        let mut device = SgDevice::new(File::open("/dev/null").unwrap(), Duration::from_secs(1));
        let mut room = [0; 8];
        assert_eq!(device.execute(&[0; 6], Transfer::In(&mut room)), Err(Failure::NotSupported));
    }
}
