//! Inside the storage guest: gives its disks away with the kernel's own target (LIO) over iSCSI, configured through configfs.
//!
//! There is one target for each storage network, all with the same logical units. Reservations are kept by the kernel in `/etc/target/pr`
//! and have to be given back to it by whoever configures it, before anything is exported: see `target_core_pr.c`,
//! `core_scsi3_update_aptpl_buf`, and `res_aptpl_metadata` in `target_core_configfs.c`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::init::{mount_at, program};
use super::spec::{Network, PORTAL, Paths, Persistence, Spec, serial, target_name};
use crate::trouble::{Result, While as _};

/// Where the kernel writes reservations that are made to last, if it is there before its modules are. It creates files, but no folder.
const RESERVATIONS: &str = "/etc/target/pr";

const TARGET: &str = "/sys/kernel/config/target";

/// Exports every disk of the guest.
pub(crate) fn export(spec: &Spec, persistence: Persistence) -> Result<()> {
    let kept = Spec::inside("reservations");
    fs::create_dir_all(&kept).to("make a folder for reservations")?;
    fs::create_dir_all("/etc/target").to("make the target's folder")?;
    symlink(&kept, RESERVATIONS).to("show the target its folder")?;
    for module in ["target_core_mod", "target_core_iblock", "iscsi_target_mod"] {
        program("modprobe", &[module])?;
    }
    if !Path::new("/sys/kernel/config/target").exists() {
        mount_at("configfs", "configfs", "/sys/kernel/config", "")?;
    }
    let mut units = Vec::new();
    for unit in 0..spec.disks.len() {
        units.push(logical_unit(unit, persistence)?);
    }
    make(&Path::new(TARGET).join("iscsi"))?;
    for network in Paths::Two.networks() {
        target(spec, *network, &units)?;
    }
    Ok(())
}

/// Makes a logical unit of a disk, and gives it the reservations that it had.
fn logical_unit(unit: usize, persistence: Persistence) -> Result<PathBuf> {
    let dir = Path::new(TARGET).join(format!("core/iblock_0/unit{unit}"));
    make(&dir)?;
    let letter = char::from(b'a' + u8::try_from(unit)?);
    set(&dir.join("control"), &format!("udev_path=/dev/ubd{letter}"))?;
    set(&dir.join("enable"), "1")?;
    set(&dir.join("wwn/vpd_unit_serial"), &serial(unit))?;
    let kept = Path::new(RESERVATIONS).join(format!("aptpl_{}", serial(unit)));
    match (persistence, fs::read_to_string(&kept)) {
        (Persistence::Kept, Ok(text)) => {
            for registration in registrations(&text) {
                set(&dir.join("pr/res_aptpl_metadata"), &registration)?;
            }
        }
        (Persistence::Forgotten, Ok(_)) => fs::remove_file(&kept).to("forget the reservations")?,
        (_, Err(_)) => {}
    }
    Ok(dir)
}

/// The registrations in a file of the kernel's, each in the form in which it takes them back.
pub(crate) fn registrations(text: &str) -> Vec<String> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("PR_REG_START") {
            found.push(Vec::new());
        } else if line.contains('=')
            && let Some(registration) = found.last_mut()
        {
            registration.push(line);
        }
    }
    found.into_iter().map(|fields| fields.join(",")).collect()
}

/// Makes the target of a network, with all logical units, for every initiator that asks.
fn target(spec: &Spec, network: Network, units: &[PathBuf]) -> Result<()> {
    let group = Path::new(TARGET).join("iscsi").join(target_name(network)).join("tpgt_1");
    make(&group)?;
    for (unit, device) in units.iter().enumerate() {
        let place = group.join(format!("lun/lun_{unit}"));
        make(&place)?;
        symlink(device, place.join("device")).to("give a logical unit to a target")?;
    }
    let open = [
        ("authentication", "0"),
        ("generate_node_acls", "1"),
        ("cache_dynamic_acls", "1"),
        ("demo_mode_write_protect", "0"),
    ];
    for (name, value) in open {
        set(&group.join("attrib").join(name), value)?;
    }
    make(&group.join(format!("np/{}:{PORTAL}", spec.address(network))))?;
    set(&group.join("enable"), "1")
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).to(format!("make {}", dir.display()))
}

fn set(file: &Path, value: &str) -> Result<()> {
    fs::write(file, format!("{value}\n")).to(format!("write {value:?} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_given_back_as_the_kernel_wrote_them() {
        let text = "PR_REG_START: 0\ninitiator_fabric=iSCSI\nsa_res_key=7\nPR_REG_END: 0\n\
                    PR_REG_START: 1\ninitiator_fabric=iSCSI\nsa_res_key=8\nPR_REG_END: 1\n";
        assert_eq!(registrations(text), ["initiator_fabric=iSCSI,sa_res_key=7", "initiator_fabric=iSCSI,sa_res_key=8"]);
        assert!(registrations("No Registrations or Reservations\n").is_empty());
    }
}
