//! Who a device says that it is.
//!
//! Decides which of the names that it gives itself is used: one that is the same through every path and on every node.

use std::fmt;

/// The page of vital product data with designators (SPC-4, 7.8.6).
pub(super) const DEVICE_IDENTIFICATION: u8 = 0x83;
/// The page with the serial number (SPC-4, 7.8.18).
pub(super) const UNIT_SERIAL_NUMBER: u8 = 0x80;

/// A name that a logical unit gives itself, the same through every path: `naa.6001405…`, `eui.…`, `t10.…`, `serial.…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Designator(String);

impl Designator {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that the kernel gives, as in `/sys/block/nvme0n1/wwid`; none for an empty one.
    pub fn of_kernel(name: &str) -> Option<Designator> {
        let name = name.trim();
        (!name.is_empty()).then(|| Designator(name.to_owned()))
    }
}

impl fmt::Display for Designator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The best designator of the logical unit on the page; none if there is none of use.
pub(super) fn of_device_identification(page: &[u8]) -> Option<Designator> {
    let mut rest = payload(page, DEVICE_IDENTIFICATION)?;
    let mut best: Option<(u8, Designator)> = None;
    while let [set, kind, _, length, after @ ..] = rest {
        let Some((value, next)) = after.split_at_checked(usize::from(*length)) else { break };
        rest = next;
        // Others are about the port or the whole target.
        let about_the_unit = kind & 0x30 == 0;
        let Some((rank, name)) = about_the_unit.then(|| read(*set & 0x0f, *kind & 0x0f, value)).flatten() else {
            continue;
        };
        if best.as_ref().is_none_or(|(other, _)| rank > *other) {
            best = Some((rank, Designator(name)));
        }
    }
    best.map(|(_, name)| name)
}

/// Through which of the target's ports the page came: its relative target port identifier (7.8.6.8); none if it is not told.
pub(super) fn target_port(page: &[u8]) -> Option<u16> {
    let mut rest = payload(page, DEVICE_IDENTIFICATION)?;
    while let [set, kind, _, length, after @ ..] = rest {
        let (value, next) = after.split_at_checked(usize::from(*length))?;
        rest = next;
        if let ([_, _, high, low], 1, 0x14) = (value, *set & 0x0f, *kind & 0x3f) {
            return Some(u16::from_be_bytes([*high, *low]));
        }
    }
    None
}

/// The serial number.
pub(super) fn of_serial_number(page: &[u8]) -> Option<Designator> {
    let serial = text(payload(page, UNIT_SERIAL_NUMBER)?)?;
    Some(Designator(format!("serial.{serial}")))
}

/// How good a designator is, and what it reads.
fn read(code_set: u8, kind: u8, value: &[u8]) -> Option<(u8, String)> {
    const BINARY: u8 = 1;
    let hex = || value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let says_something = value.iter().any(|byte| *byte != 0);
    match kind {
        _ if !says_something => None,
        3 if code_set == BINARY => {
            // 16 bytes tell more than 8; a locally assigned one (3h) is worth less than any other.
            let rank = match value.first()? >> 4 {
                6 => 9,
                3 => 3,
                _ => 8,
            };
            Some((rank, format!("naa.{}", hex())))
        }
        2 if code_set == BINARY => Some((7, format!("eui.{}", hex()))),
        // A SCSI name string begins with naa., eui. or iqn. itself.
        8 => Some((6, text(value)?)),
        1 => Some((2, format!("t10.{}", text(value)?))),
        _ => None,
    }
}

/// What follows the header of a page, if it is that page.
fn payload(page: &[u8], code: u8) -> Option<&[u8]> {
    let [_, found, high, low, rest @ ..] = page else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (*found == code).then(|| rest.get(..length).unwrap_or(rest))
}

/// Printable text, each run of anything else as one underscore. None if nothing is left.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let printable = String::from_utf8_lossy(&bytes[..end]);
    let words: Vec<&str> = printable.split(|c: char| !c.is_ascii_graphic()).filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join("_"))
}
