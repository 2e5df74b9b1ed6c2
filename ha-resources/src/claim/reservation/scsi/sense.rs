//! How a command ended: the status byte, and the sense data that explain it.
//!
//! Decides which [`Failure`] a status is (SAM-5, 5.3.1; SPC-4, 4.5).

use ha_core::claim::reservation::device::{Failure, Sense, UnitAttention};

use super::Ended;

/// Status bytes (SAM-5, table 31).
const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const CONDITION_MET: u8 = 0x04;
const BUSY: u8 = 0x08;
const RESERVATION_CONFLICT: u8 = 0x18;
const TASK_SET_FULL: u8 = 0x28;

/// Sense keys (SPC-4, table 43).
const RECOVERED_ERROR: u8 = 0x1;
const ILLEGAL_REQUEST: u8 = 0x5;
const UNIT_ATTENTION: u8 = 0x6;

/// Fails unless the command was carried out.
pub(super) fn check(ended: &Ended) -> Result<(), Failure> {
    match ended.status {
        GOOD | CONDITION_MET => Ok(()),
        RESERVATION_CONFLICT => Err(Failure::Conflict),
        CHECK_CONDITION => explained(&ended.sense),
        // The kernel asks again by itself for a while; then it tells of it.
        BUSY | TASK_SET_FULL => Err(Failure::Busy),
        // Task aborted and the like: nothing is known.
        _ => Err(Failure::Transport),
    }
}

fn explained(data: &[u8]) -> Result<(), Failure> {
    let (sense, about) = decode(data);
    match sense {
        // Deferred sense is about an earlier command; this one was not carried out.
        _ if about == About::EarlierCommand => Err(Failure::Rejected(sense)),
        Sense { key: RECOVERED_ERROR, .. } => Ok(()),
        Sense { key: UNIT_ATTENTION, asc, ascq } => Err(Failure::UnitAttention(attention(asc, ascq))),
        // Invalid operation code, invalid field in the command block, invalid field in the parameter list.
        Sense { key: ILLEGAL_REQUEST, asc: 0x20 | 0x24 | 0x26, ascq: 0x00 } => Err(Failure::NotSupported),
        _ => Err(Failure::Rejected(sense)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    ThisCommand,
    EarlierCommand,
}

/// Fixed and descriptor format (SPC-4, 4.5.2 and 4.5.3). What is missing reads as zero, "no additional sense information".
fn decode(data: &[u8]) -> (Sense, About) {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let about = |response| if response & 1 == 0 { About::ThisCommand } else { About::EarlierCommand };
    match byte(0) & 0x7f {
        response @ (0x70 | 0x71) => (Sense { key: byte(2) & 0x0f, asc: byte(12), ascq: byte(13) }, about(response)),
        response @ (0x72 | 0x73) => (Sense { key: byte(1) & 0x0f, asc: byte(2), ascq: byte(3) }, about(response)),
        _ => (Sense { key: 0, asc: 0, ascq: 0 }, About::ThisCommand),
    }
}

fn attention(asc: u8, ascq: u8) -> UnitAttention {
    match (asc, ascq) {
        // Power on; and a reset of the device's own making, which may have cost it its memory.
        (0x29, 0x00 | 0x01 | 0x04) => UnitAttention::PowerOn,
        (0x29, 0x02 | 0x03) => UnitAttention::Reset,
        (0x29, 0x07) => UnitAttention::NexusLost,
        (0x2a, 0x03) => UnitAttention::ReservationsPreempted,
        (0x2a, 0x04) => UnitAttention::ReservationsReleased,
        (0x2a, 0x05) => UnitAttention::RegistrationsPreempted,
        _ => UnitAttention::Other { asc, ascq },
    }
}
