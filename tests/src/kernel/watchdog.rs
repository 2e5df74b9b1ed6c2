//! A watchdog device as few machines have one, made in user space (CUSE): the program `lab-watchdog`, in a guest.
//!
//! `lab-watchdog NAME OPTIONS STEP`: `/dev/NAME`, with these options (`WDIOF_…`, hexadecimal), counts in steps of so many seconds, and rounds up what
//! it is asked for, as some drivers do. It resets nothing. What is written to it, and that it is closed, it says in lines.
//!
//! Source: the kernel's `include/uapi/linux/fuse.h`, `fs/fuse/cuse.c` and `watchdog-api.rst`.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

use crate::trouble::{Result, Trouble, While as _};

/// More than the kernel's largest request.
const REQUEST: usize = 1 << 18;
/// `struct fuse_in_header`.
const HEADER: usize = 40;
/// `struct fuse_write_in`, behind which stands what is written; `struct fuse_ioctl_in`, behind which stands the argument.
const WRITE: usize = HEADER + 40;
const IOCTL: usize = HEADER + 32;

const ENOSYS: i32 = 38;
const ENOTTY: i32 = 25;

/// Runs the program.
pub fn run(arguments: &[&str]) -> Result<()> {
    let [name, options, step] = arguments else { return Err(Trouble::new("usage: lab-watchdog NAME OPTIONS STEP")) };
    let options = u32::from_str_radix(options, 16).map_err(|e| Trouble::new(format!("{options}: {e}")))?;
    let step: u32 = step.parse().map_err(|e| Trouble::new(format!("{step}: {e}")))?;
    let mut kernel = OpenOptions::new().read(true).write(true).open("/dev/cuse").to("open /dev/cuse")?;
    let mut device = Device { options, step, timeout: step };
    let mut request = vec![0; REQUEST];
    loop {
        let length = kernel.read(&mut request).to("hear the kernel")?;
        let request = &request[..length];
        let body = match word(request, 4)? {
            // CUSE_INIT: the version that the kernel has.
            4096 => {
                let mut body = words(&[word(request, HEADER)?, word(request, HEADER + 4)?, 0, 0, 4096, 4096, 0, 0]);
                body.extend([0; 40]);
                body.extend(format!("DEVNAME={name}\0").into_bytes());
                Ok(body)
            }
            // FUSE_OPEN, FUSE_WRITE, FUSE_RELEASE, FUSE_INTERRUPT, FUSE_IOCTL.
            14 => Ok(words(&[0; 4])),
            16 => {
                println!("written {}", String::from_utf8_lossy(request.get(WRITE..).unwrap_or_default()));
                Ok(words(&[word(request, HEADER + 16)?, 0]))
            }
            18 => {
                println!("closed");
                Ok(Vec::new())
            }
            36 => continue,
            39 => device.answer(word(request, HEADER + 12)?, request),
            _ => Err(ENOSYS),
        };
        reply(&mut kernel, request, body)?;
    }
}

struct Device {
    options: u32,
    step: u32,
    timeout: u32,
}

impl Device {
    /// `struct fuse_ioctl_out` and what the request asks for.
    fn answer(&mut self, request: u32, all: &[u8]) -> std::result::Result<Vec<u8>, i32> {
        let mut body = words(&[0; 4]);
        match request {
            0x8028_5700 => {
                body.extend(words(&[self.options, 0]));
                body.extend(b"a watchdog of the laboratory's\0\0");
            }
            0x8004_5705 => body.extend(words(&[0])),
            0xc004_5706 => {
                self.timeout = word(all, IOCTL).map_err(|_| ENOTTY)?.div_ceil(self.step) * self.step;
                body.extend(words(&[self.timeout]));
            }
            0x8004_5707 => body.extend(words(&[self.timeout])),
            _ => return Err(ENOTTY),
        }
        Ok(body)
    }
}

fn reply(kernel: &mut File, request: &[u8], body: std::result::Result<Vec<u8>, i32>) -> Result<()> {
    let (error, body) = body.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
    let mut whole = words(&[u32::try_from(16 + body.len())?]);
    whole.extend(error.to_ne_bytes());
    whole.extend(request.get(8..16).unwrap_or_default());
    whole.extend(body);
    kernel.write_all(&whole).to("answer the kernel")
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or_else(|| Trouble::new("the kernel's request is too short"))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
