//! This host's identifier as the kernel uses it on fabrics (`hostid` of `nvme-cli`, NVMe over Fabrics 1.1, 3.3).
//!
//! Decides where it stands in sysfs. On PCI Express only the controller knows it.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::sys::stat::{major, minor};

/// What the controllers of this namespace were connected with, if the kernel says so and they agree.
pub(super) fn on_fabrics(namespace: &File) -> Option<Vec<u8>> {
    let metadata = namespace.metadata().ok()?;
    // Namespaces are block devices, and generic ones, which are character devices.
    let kind = if metadata.file_type().is_char_device() { "char" } else { "block" };
    let number = metadata.rdev();
    let device = format!("/sys/dev/{kind}/{}:{}/device", major(number), minor(number));
    said_in(Path::new(&device))
}

/// A namespace belongs to a controller, or, where the kernel joins the paths, to a subsystem with controllers.
fn said_in(device: &Path) -> Option<Vec<u8>> {
    let below = std::fs::read_dir(device).into_iter().flatten().flatten().map(|entry| entry.path().join("hostid"));
    let mut said = below.chain([device.join("hostid")]).filter_map(|path| std::fs::read_to_string(path).ok());
    let first = said.next()?;
    if said.any(|other| other != first) {
        return None;
    }
    bytes_of(first.trim())
}

fn bytes_of(uuid: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = uuid.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 {
        return None;
    }
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_is_that_of_all_controllers() {
        let device = tempfile::tempdir().unwrap();
        let says = |controller: &str, uuid: &str| {
            let place = device.path().join(controller);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("hostid"), format!("{uuid}\n")).unwrap();
        };
        assert_eq!(said_in(device.path()), None);
        says("nvme0", "00000000-0000-4000-8000-00000000000a");
        says("nvme1", "00000000-0000-4000-8000-00000000000a");
        assert_eq!(said_in(device.path()), Some(vec![0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x0a]));
        says("nvme1", "00000000-0000-4000-8000-00000000000b");
        assert_eq!(said_in(device.path()), None, "they do not agree");
        assert_eq!(bytes_of("none"), None);
    }
}
