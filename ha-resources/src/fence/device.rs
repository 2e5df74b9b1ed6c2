//! A watchdog device: resets the machine when it is not written to for a while.
//!
//! Source: the kernel's `watchdog/watchdog-api.rst`. Decides that the device really has the time that was asked for, and that
//! it is disarmed only on purpose. Leaves when to feed it to the engine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Guarded, Watchdog};
use nix::libc;

use super::Reset;

/// `struct watchdog_info` of `linux/watchdog.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const _: () = assert!(size_of::<WatchdogInfo>() == 40);

/// `WDIOF_MAGICCLOSE`: the device is disarmed only if a `V` was written before it was closed. Without it any close disarms it, unless its driver was
/// told `nowayout` (`watchdog_dev.c`, `watchdog_release`).
const MAGIC_CLOSE: u32 = 0x0100;

mod ioctl {
    //! Each takes the descriptor of an open watchdog device and a pointer to a live value of the type named.
    nix::ioctl_read!(get_support, b'W', 0, super::WatchdogInfo);
    nix::ioctl_read!(keep_alive, b'W', 5, nix::libc::c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, nix::libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, nix::libc::c_int);
}

/// An open, running watchdog device.
pub struct WatchdogDevice {
    path: PathBuf,
    file: Mutex<Option<File>>,
    timeout: Duration,
    reset: Reset,
    identity: String,
}

impl WatchdogDevice {
    /// Opens and arms it: from now on it must be fed within `timeout` (whole seconds, at least one). Refused if the device
    /// takes another time than the one asked for: then it was armed with the device's own time, and is disarmed again. Refused too if it would be
    /// disarmed whenever the agent dies.
    pub fn open(path: &Path, timeout: Duration, reset: Reset) -> Result<Self, Failed> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Failed(format!("{}: {what}: {e}; name a watchdog device that nothing else uses", path.display()))
        };
        let seconds = libc::c_int::try_from(timeout.as_secs()).unwrap_or(libc::c_int::MAX);
        if seconds < 1 || timeout.subsec_nanos() != 0 {
            return Err(Failed(format!(
                "a watchdog device counts whole seconds, at least 1: {timeout:?} is not possible"
            )));
        }
        // Not truncated or created: a name written wrongly must harm nothing.
        let file = OpenOptions::new().write(true).open(path).map_err(|e| failed("cannot be opened", &e))?;
        let info = support(&file).map_err(|e| failed("is not a watchdog device", &e))?;
        let device = WatchdogDevice {
            path: path.to_owned(),
            timeout,
            reset,
            identity: String::from_utf8_lossy(info.identity.split(|b| *b == 0).next().unwrap_or_default()).into_owned(),
            file: Mutex::new(Some(file)),
        };
        if !outlives_agent(info.options, device.nowayout()) {
            let identity = &device.identity;
            return Err(Failed(format!(
                "{} ({identity}) is disarmed whenever it is closed, also when the agent dies, and so guards nothing: load its driver with \
                 nowayout=1, or name another device",
                path.display()
            )));
        }
        match device.arm(seconds) {
            Ok(()) => Ok(device),
            Err(e) => {
                let goes_on = device.nowayout() || device.close().is_err();
                let and = if goes_on {
                    "; it runs since it was opened, and cannot be disarmed: this machine is reset"
                } else {
                    ""
                };
                Err(Failed(format!("{}: cannot be set up: {e}{and}", path.display())))
            }
        }
    }

    fn arm(&self, seconds: libc::c_int) -> io::Result<()> {
        self.with_file(|file| {
            let mut asked = seconds;
            let mut has = 0;
            // SAFETY: the descriptor is open and both pointers lead to live integers.
            let (set, got) = unsafe {
                let file = file.as_raw_fd();
                (ioctl::set_timeout(file, &raw mut asked), ioctl::get_timeout(file, &raw mut has))
            };
            let keep = "choose a time that it can keep";
            set.map_err(|e| io::Error::other(format!("it refuses {seconds} s: {}: {keep}", io::Error::from(e))))?;
            got?;
            if has == seconds {
                return Ok(());
            }
            Err(io::Error::other(format!("{seconds} s were asked for, but it takes {has} s: {keep}")))
        })?;
        if self.nowayout() {
            tracing::warn!(device = %self.path.display(), "this watchdog cannot be disarmed: once the agent ends, the machine is reset");
        }
        tracing::info!(device = %self.path.display(), identity = self.identity, seconds, "watchdog armed");
        Ok(())
    }

    /// Whether it goes on when it is closed, whatever was written, because its driver was told so (`nowayout`). A kernel without
    /// `CONFIG_WATCHDOG_SYSFS` does not tell.
    pub fn nowayout(&self) -> bool {
        let by_driver = || {
            let name = std::fs::canonicalize(&self.path).ok()?;
            let attribute = Path::new("/sys/class/watchdog").join(name.file_name()?).join("nowayout");
            Some(std::fs::read_to_string(attribute).ok()?.trim() == "1")
        };
        by_driver().unwrap_or(false)
    }

    fn with_file<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        work(file.as_ref().ok_or_else(|| io::Error::other("it was disarmed"))?)
    }

    fn close(&self) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut file) = file else { return Ok(()) };
        file.write_all(b"V")
    }
}

/// Whether it goes on when whoever fed it has died.
fn outlives_agent(options: u32, nowayout: bool) -> bool {
    options & MAGIC_CLOSE != 0 || nowayout
}

fn support(file: &File) -> io::Result<WatchdogInfo> {
    let mut info = WatchdogInfo { options: 0, firmware_version: 0, identity: [0; 32] };
    // SAFETY: the descriptor is open and the pointer leads to a live structure of the kernel's layout.
    unsafe { ioctl::get_support(file.as_raw_fd(), &raw mut info)? };
    Ok(info)
}

#[async_trait]
impl Watchdog for WatchdogDevice {
    async fn feed(&self, _leases: &[Guarded]) -> Result<(), Failed> {
        self.with_file(|file| {
            let mut unused = 0;
            // SAFETY: the descriptor is open and the pointer leads to a live integer.
            unsafe { ioctl::keep_alive(file.as_raw_fd(), &raw mut unused)? };
            Ok(())
        })
        .map_err(|e| Failed(format!("{} cannot be fed: {e}", self.path.display())))
    }

    /// The device knows nothing of leases: the machine is reset at the latest one time-out after the last feeding.
    fn margin(&self) -> Duration {
        self.timeout
    }

    async fn reset(&self, reason: &str) -> Failed {
        Failed(format!("this node cannot be reset: {}; stop feeding its watchdog", self.reset.now(reason)))
    }

    async fn disarm(&self) -> Result<(), Failed> {
        self.close().map_err(|e| Failed(format!("{} cannot be disarmed: {e}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernels_header() {
        assert_eq!(nix::request_code_read!(b'W', 0, size_of::<WatchdogInfo>()), 0x8028_5700);
        assert_eq!(nix::request_code_read!(b'W', 5, size_of::<libc::c_int>()), 0x8004_5705);
        assert_eq!(nix::request_code_readwrite!(b'W', 6, size_of::<libc::c_int>()), 0xc004_5706);
        assert_eq!(nix::request_code_read!(b'W', 7, size_of::<libc::c_int>()), 0x8004_5707);
    }

    #[test]
    fn a_device_that_the_death_of_the_agent_disarms_is_not_used() {
        for (options, nowayout, expected) in [(0x8180, false, true), (0x8080, true, true), (0x8080, false, false)] {
            assert_eq!(outlives_agent(options, nowayout), expected, "{options:#x} {nowayout}");
        }
    }

    #[test]
    fn what_is_no_watchdog_is_refused_and_not_changed() {
        // A real one is never armed by a test.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "precious").unwrap();
        let Failed(why) = WatchdogDevice::open(file.path(), Duration::from_secs(10), Reset::Refused).err().unwrap();
        assert!(why.contains("is not a watchdog device"), "{why}");
        assert_eq!(std::fs::read(file.path()).unwrap(), b"precious");
        let Failed(why) = WatchdogDevice::open(file.path(), Duration::from_millis(500), Reset::Refused).err().unwrap();
        assert!(why.contains("whole seconds"), "{why}");
        let Failed(why) =
            WatchdogDevice::open(Path::new("/dev/no-watchdog"), Duration::from_secs(1), Reset::Refused).err().unwrap();
        assert!(why.contains("cannot be opened"), "{why}");
    }
}
