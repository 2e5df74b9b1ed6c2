//! What a device sends back to PERSISTENT RESERVE IN.
//!
//! Decides whether the bytes make sense: nothing is read past their end, and what cannot be is an error, never a guess.

use ha_core::claim::reservation::device::{
    Capabilities, Held, Key, Keys, Ports, PowerLoss, Reservation, ReservationType,
};

use super::encode::number;

/// What is wrong with the data of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// It ends too early.
    #[error("{what} of {needed} bytes was expected, and only {got} came")]
    TooShort {
        /// What was read.
        what: &'static str,
        /// In bytes.
        needed: usize,
        /// In bytes.
        got: usize,
    },
    /// The list is longer than what came of it, as when there was no room for more.
    #[error("the list has {bytes} bytes, more than came")]
    TooMany {
        /// Its whole length with its header.
        bytes: usize,
    },
    /// A length that does not fit what is listed.
    #[error("a list of {0} bytes is not made of whole entries")]
    Length(usize),
    /// Not a type that the standard knows.
    #[error("reservation type {0:X}h is not one of SPC-4")]
    Type(u8),
    /// Something else than the logical unit is reserved.
    #[error("reservation scope {0:X}h is not the logical unit's")]
    Scope(u8),
}

/// READ KEYS (6.15.2).
pub(super) fn keys(data: &[u8]) -> Result<Keys, DataError> {
    let (generation, length) = header("the header of the list of keys", data)?;
    let bytes = length.saturating_add(8);
    if !length.is_multiple_of(8) {
        return Err(DataError::Length(length));
    }
    let list = data.get(8..bytes).ok_or(DataError::TooMany { bytes })?;
    let (entries, _) = list.as_chunks();
    // Zero is no key; nothing that is registered has it.
    let keys = entries.iter().filter_map(|entry| Key::new(u64::from_be_bytes(*entry))).collect();
    Ok(Keys { generation, keys })
}

/// READ RESERVATION (6.15.3).
pub(super) fn reservation(data: &[u8]) -> Result<Reservation, DataError> {
    let (generation, length) = header("the header of the reservation", data)?;
    if length == 0 {
        return Ok(Reservation { generation, held: None });
    }
    let entry: &[u8; 16] = part("the reservation", data, 8)?;
    let (scope, kind) = (entry[13] >> 4, entry[13] & 0x0f);
    if scope != 0 {
        return Err(DataError::Scope(scope));
    }
    let kind = ReservationType::ALL.into_iter().find(|known| number(*known) == kind).ok_or(DataError::Type(kind))?;
    let key = Key::new(u64::from_be_bytes(*part("the holder's key", entry, 0)?));
    // What the field says when all registrants hold it is not for use (table 172).
    let key = key.filter(|_| !kind.is_held_by_all_registrants());
    Ok(Reservation { generation, held: Some(Held { key, kind }) })
}

/// REPORT CAPABILITIES (6.15.4).
pub(super) fn capabilities(data: &[u8]) -> Result<Capabilities, DataError> {
    let bytes: &[u8; 8] = part("the list of capabilities", data, 0)?;
    let power_loss = |keeps| if keeps { PowerLoss::Keeps } else { PowerLoss::Forgets };
    let mask_is_valid = bytes[3] & 0x80 != 0;
    // Table 177. A device that does not say which types it knows may know them all; it will refuse those that it does not.
    let knows = |kind| match kind {
        _ if !mask_is_valid => true,
        ReservationType::WriteExclusive => bytes[4] & 0x02 != 0,
        ReservationType::ExclusiveAccess => bytes[4] & 0x08 != 0,
        ReservationType::WriteExclusiveRegistrantsOnly => bytes[4] & 0x20 != 0,
        ReservationType::ExclusiveAccessRegistrantsOnly => bytes[4] & 0x40 != 0,
        ReservationType::WriteExclusiveAllRegistrants => bytes[4] & 0x80 != 0,
        ReservationType::ExclusiveAccessAllRegistrants => bytes[5] & 0x01 != 0,
    };
    Ok(Capabilities {
        power_loss: power_loss(bytes[2] & 0x01 != 0),
        power_loss_now: power_loss(bytes[3] & 0x01 != 0),
        ports: if bytes[2] & 0x04 != 0 { Ports::All } else { Ports::This },
        types: ReservationType::ALL.into_iter().filter(|kind| knows(*kind)).collect(),
    })
}

/// The generation, and the length of what follows in bytes.
pub(super) fn header(what: &'static str, data: &[u8]) -> Result<(u32, usize), DataError> {
    let generation = u32::from_be_bytes(*part(what, data, 0)?);
    let length = u32::from_be_bytes(*part(what, data, 4)?);
    Ok((generation, length as usize))
}

/// So many bytes from an offset.
pub(super) fn part<'a, const N: usize>(
    what: &'static str,
    data: &'a [u8],
    offset: usize,
) -> Result<&'a [u8; N], DataError> {
    let rest = data.get(offset..).and_then(|rest| rest.first_chunk());
    rest.ok_or(DataError::TooShort { what, needed: offset + N, got: data.len() })
}
