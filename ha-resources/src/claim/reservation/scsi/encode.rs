//! Command blocks and parameter lists, byte for byte.
//!
//! Decides nothing but where each bit goes: SPC-4, 6.15 (PERSISTENT RESERVE IN), 6.16 (PERSISTENT RESERVE OUT) and 6.6 (INQUIRY).

use ha_core::claim::reservation::device::{Command, Key, Ports, PowerLoss, Queued, ReservationType};

const INQUIRY: u8 = 0x12;
/// SBC-3, 5.15, 5.10 and 5.32.
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const PERSISTENT_RESERVE_IN: u8 = 0x5e;
const PERSISTENT_RESERVE_OUT: u8 = 0x5f;

/// Service actions of PERSISTENT RESERVE IN.
pub(super) const READ_KEYS: u8 = 0x00;
pub(super) const READ_RESERVATION: u8 = 0x01;
pub(super) const REPORT_CAPABILITIES: u8 = 0x02;
pub(super) const READ_FULL_STATUS: u8 = 0x03;

/// Service actions of PERSISTENT RESERVE OUT.
const REGISTER: u8 = 0x00;
const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const CLEAR: u8 = 0x03;
const PREEMPT: u8 = 0x04;
const PREEMPT_AND_ABORT: u8 = 0x05;
const REGISTER_AND_IGNORE_EXISTING_KEY: u8 = 0x06;

/// Bits of byte 20 of the parameter list.
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;

/// A command block of PERSISTENT RESERVE IN.
pub(super) fn reserve_in(service_action: u8, room: u16) -> [u8; 10] {
    let [high, low] = room.to_be_bytes();
    [PERSISTENT_RESERVE_IN, service_action, 0, 0, 0, 0, 0, high, low, 0]
}

/// A command block of INQUIRY for a page of vital product data.
pub(super) fn inquiry(page: u8, room: u16) -> [u8; 6] {
    let [high, low] = room.to_be_bytes();
    [INQUIRY, 0x01, page, high, low, 0]
}

/// A command block of READ CAPACITY, which answers with eight bytes.
pub(super) const CAPACITY: [u8; 10] = [READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A command block that reads the first block.
pub(super) const READ_FIRST: [u8; 10] = [READ_10, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// A command block that writes the first block.
pub(super) const WRITE_FIRST: [u8; 10] = [WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A command block of PERSISTENT RESERVE OUT, and its parameter list. None for a command that only reads.
pub(super) fn reserve_out(command: Command) -> Option<([u8; 10], [u8; 24])> {
    let (service_action, kind, key, other, flags) = match command {
        Command::Register { old, new, ports, power_loss } => (REGISTER, 0, old, new, flags(ports, power_loss)),
        Command::RegisterIgnoring { new, ports, power_loss } => {
            (REGISTER_AND_IGNORE_EXISTING_KEY, 0, None, new, flags(ports, power_loss))
        }
        Command::Reserve { key, kind } => (RESERVE, number(kind), Some(key), None, 0),
        Command::Release { key, kind } => (RELEASE, number(kind), Some(key), None, 0),
        Command::Clear { key } => (CLEAR, 0, Some(key), None, 0),
        Command::Preempt { key, victim, kind, queued } => {
            let service_action = match queued {
                Queued::Stay => PREEMPT,
                Queued::Aborted => PREEMPT_AND_ABORT,
            };
            (service_action, number(kind), Some(key), victim, 0)
        }
        Command::ReadKeys | Command::ReadReservation | Command::ReportCapabilities => return None,
    };
    let mut parameters = [0; 24];
    let bytes = |key: Option<Key>| key.map_or(0, Key::get).to_be_bytes();
    parameters[..8].copy_from_slice(&bytes(key));
    parameters[8..16].copy_from_slice(&bytes(other));
    parameters[20] = flags;
    // The scope, in the upper half of byte 2, is zero: the logical unit.
    let block = [PERSISTENT_RESERVE_OUT, service_action, kind, 0, 0, 0, 0, 0, parameters.len() as u8, 0];
    Some((block, parameters))
}

fn flags(ports: Ports, power_loss: PowerLoss) -> u8 {
    let ports = match ports {
        Ports::This => 0,
        Ports::All => ALL_TG_PT,
    };
    let power_loss = match power_loss {
        PowerLoss::Forgets => 0,
        PowerLoss::Keeps => APTPL,
    };
    ports | power_loss
}

/// SPC-4, table 173.
pub(super) fn number(kind: ReservationType) -> u8 {
    match kind {
        ReservationType::WriteExclusive => 1,
        ReservationType::ExclusiveAccess => 3,
        ReservationType::WriteExclusiveRegistrantsOnly => 5,
        ReservationType::ExclusiveAccessRegistrantsOnly => 6,
        ReservationType::WriteExclusiveAllRegistrants => 7,
        ReservationType::ExclusiveAccessAllRegistrants => 8,
    }
}
