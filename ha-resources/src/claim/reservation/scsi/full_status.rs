//! What a device sends back to READ FULL STATUS: who is registered, nexus by nexus.
//!
//! Decides how the ports of initiators read (SPC-4, 6.15.5 and 7.6.4). A name of a transport that is not known here is given in hexadecimal digits,
//! so that it is told apart from others all the same.

use ha_core::claim::reservation::device::{InitiatorPort, Key, Registration};

use super::data::{DataError, header, part};

/// A descriptor without the name of the initiator's port.
const DESCRIPTOR: usize = 24;

/// Protocol identifiers (SPC-4, 7.6.1).
const FIBRE_CHANNEL: u8 = 0x0;
const RDMA: u8 = 0x4;
const ISCSI: u8 = 0x5;
const SAS: u8 = 0x6;

/// READ FULL STATUS (6.15.5): the generation, and every registration.
pub(super) fn full_status(data: &[u8]) -> Result<(u32, Vec<Registration>), DataError> {
    let (generation, length) = header("the header of the full status", data)?;
    let bytes = length.saturating_add(8);
    let mut rest = data.get(8..bytes).ok_or(DataError::TooMany { bytes })?;
    let mut registrations = Vec::new();
    while !rest.is_empty() {
        let fixed: &[u8; DESCRIPTOR] = part("a registration", rest, 0)?;
        let additional = u32::from_be_bytes(*part("the length of a name", fixed, 20)?) as usize;
        let end = DESCRIPTOR.saturating_add(additional);
        let too_short = DataError::TooShort { what: "a registration", needed: end, got: rest.len() };
        let name = rest.get(DESCRIPTOR..end).ok_or(too_short)?;
        rest = rest.get(end..).unwrap_or_default();
        let all_ports = fixed[12] & 0x02 != 0;
        let port = u16::from_be_bytes(*part("the port", fixed, 18)?);
        // Zero is no key; nothing that is registered has it.
        let Some(key) = Key::new(u64::from_be_bytes(*part("a key", fixed, 0)?)) else { continue };
        registrations.push(Registration {
            key,
            initiator: initiator(name),
            port: (!all_ports).then_some(port),
            holds: fixed[12] & 0x01 != 0,
        });
    }
    Ok((generation, registrations))
}

/// A TransportID (7.6.4).
fn initiator(id: &[u8]) -> InitiatorPort {
    let named = |prefix: &str, bytes: &[u8]| InitiatorPort { name: format!("{prefix}.{}", hex(bytes)), session: None };
    let protocol = id.first().map(|byte| byte & 0x0f);
    let known = match protocol {
        Some(FIBRE_CHANNEL) => id.get(8..16).map(|name| named("fcp", name)),
        Some(RDMA) => id.get(8..24).map(|name| named("srp", name)),
        Some(SAS) => id.get(4..12).map(|address| named("sas", address)),
        Some(ISCSI) => id.get(4..).and_then(iscsi),
        _ => None,
    };
    known.unwrap_or_else(|| named("id", id))
}

/// A name, and after it the session of the port (7.6.4.6). Linux as a target wrote the session outside of the name, and not whole, up to some
/// releases of 6.1: it counts as not told.
fn iscsi(field: &[u8]) -> Option<InitiatorPort> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = std::str::from_utf8(&field[..end]).ok().filter(|text| !text.is_empty())?;
    if text.chars().any(char::is_control) {
        return None;
    }
    let (name, session) = text.split_once(",i,0x").map_or((text, None), |(name, session)| (name, Some(session)));
    let whole = |session: &&str| session.len() == 12 && session.bytes().all(|byte| byte.is_ascii_hexdigit());
    let session = session.filter(whole).map(str::to_ascii_lowercase);
    Some(InitiatorPort { name: name.to_owned(), session })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
