//! By which name a target knows this machine on a path: the port of the initiator.
//!
//! Decides it from what the kernel shows in sysfs, for iSCSI (`scsi_transport_iscsi.c`) and Fibre Channel (`scsi_transport_fc.c`); of other
//! transports nothing is said.

use std::fs;
use std::path::Path;

use ha_core::claim::reservation::device::InitiatorPort;

use super::look::read;

/// What open-iscsi begins its sessions' identifiers with (`DRIVER_ISID_0` to `_2`).
const OPEN_ISCSI: &str = "00023d";

/// The port of this machine through which the SCSI disk with this name of the kernel's is reached.
pub(super) fn port(sys: &Path, name: &str) -> Option<InitiatorPort> {
    let place = fs::canonicalize(sys.join("block").join(name).join("device")).ok()?;
    let parts = || place.iter().filter_map(|part| part.to_str());
    let numbered = |part: &&str, what| {
        let number = part.strip_prefix(what);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let host = parts().find(|part| numbered(part, "host"))?;
    if let Some(session) = parts().find(|part| numbered(part, "session")) {
        let place = sys.join("class/iscsi_session").join(session);
        let driver = read(&sys.join("class/scsi_host").join(host), "proc_name");
        let name = read(&place, "initiatorname").filter(|name| is_told(name))?;
        return Some(InitiatorPort { name, session: isid(session, read(&place, "isid"), driver.as_deref()) });
    }
    let digits = read(&sys.join("class/fc_host").join(host), "port_name")?;
    let digits = digits.strip_prefix("0x").filter(|digits| digits.len() == 16)?.to_ascii_lowercase();
    Some(InitiatorPort { name: format!("fcp.{digits}"), session: None })
}

/// The identifier of a session, as the kernel says it, which it does not for every driver; for sessions that open-iscsi logs in, from the kernel's
/// number of the session, which is what open-iscsi makes it of.
fn isid(session: &str, told: Option<String>, driver: Option<&str>) -> Option<String> {
    let told = told.filter(|told| told.len() == 12 && told.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if let Some(told) = told {
        return Some(told.to_ascii_lowercase());
    }
    let number: u32 = session.strip_prefix("session")?.parse().ok()?;
    let logged_in_by_it = matches!(driver?, "iscsi_tcp" | "iser");
    (logged_in_by_it && number < 1 << 24).then(|| format!("{OPEN_ISCSI}{number:06x}"))
}

/// The kernel prints an attribute that it has not as `(null)` or `<NULL>`.
fn is_told(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['(', '<'])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// As seen on Linux 6.1, with open-iscsi 2.1.
    #[test]
    fn the_ports_of_iscsi_and_fibre_channel_are_read_and_of_others_nothing_is_said() {
        let made = tempfile::tempdir().unwrap();
        let sys = made.path();
        let write = |file: &str, text: &str| {
            let file = sys.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let disk = |name: &str, place: &str| {
            fs::create_dir_all(sys.join(place)).unwrap();
            fs::create_dir_all(sys.join("block").join(name)).unwrap();
            symlink(sys.join(place), sys.join("block").join(name).join("device")).unwrap();
        };
        disk("sda", "devices/platform/host0/session17/target0:0:0/0:0:0:0");
        write("class/iscsi_session/session17/initiatorname", "iqn.2026-01.example.ha-lab:alpha\n");
        write("class/scsi_host/host0/proc_name", "iscsi_tcp\n");
        disk("sdb", "devices/pci0000:00/host1/session2/target1:0:0/1:0:0:0");
        write("class/iscsi_session/session2/initiatorname", "iqn.x\n");
        write("class/scsi_host/host1/proc_name", "qla4xxx\n");
        disk("sdc", "devices/pci0000:00/host2/rport-2:0-1/target2:0:1/2:0:1:0");
        write("class/fc_host/host2/port_name", "0x5001438003B0DA0C\n");
        disk("sdd", "devices/pci0000:00/ata1/host3/target3:0:0/3:0:0:0");

        let told = |name| port(sys, name).map(|port| port.to_string());
        assert_eq!(told("sda").as_deref(), Some("iqn.2026-01.example.ha-lab:alpha,i,0x00023d000011"));
        assert_eq!(told("sdb").as_deref(), Some("iqn.x"), "whose sessions are numbered otherwise");
        assert_eq!(told("sdc").as_deref(), Some("fcp.5001438003b0da0c"));
        assert_eq!((told("sdd"), told("sde")), (None, None));
        write("class/iscsi_session/session2/isid", "00AD3D0000ff\n");
        assert_eq!(told("sdb").as_deref(), Some("iqn.x,i,0x00ad3d0000ff"));
        write("class/iscsi_session/session17/initiatorname", "(null)\n");
        assert_eq!(told("sda"), None);
    }
}
