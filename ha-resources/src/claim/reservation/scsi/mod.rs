//! The commands of reservations in the bytes of SCSI, over anything that carries command blocks to a device.
//!
//! Decides how a [`Command`] is written (SPC-4, 6.15 and 6.16), how the answers and the sense data read, and how a device says who it is.
//! Leaves carrying the bytes, and every limit of time, to a [`Transport`]: the kernel's ([`super::open`]), or one of an embedder's own.

mod data;
mod encode;
mod full_status;
mod identity;
mod sense;

use ha_core::claim::reservation::device::{Answer, Command, Failure, InitiatorPort, Nexus, Registrations};

pub use data::DataError;
pub use identity::Designator;

/// Carries one command block to a device and its answer back: one path.
pub trait Transport {
    /// Sends one command, once, and waits for how it ends, for as long as the transport sees fit.
    ///
    /// Fails with [`Failure::NoAnswer`] or [`Failure::Transport`] if the device gave no status.
    fn execute(&mut self, command_block: &[u8], transfer: Transfer<'_>) -> Result<Ended, Failure>;
}

/// The data that goes with a command.
#[derive(Debug)]
pub enum Transfer<'a> {
    /// To the device.
    Out(&'a [u8]),
    /// From the device, at most as much as fits.
    In(&'a mut [u8]),
}

/// How a command ended, as the device says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The status byte (SAM-5, 5.3.1).
    pub status: u8,
    /// The sense data; empty if there was none.
    pub sense: Vec<u8>,
    /// How many bytes came from the device.
    pub received: usize,
}

/// Room for so many keys is offered at first: more than the paths of most clusters.
const KEYS_AT_FIRST: usize = 63;

/// The allocation length is a field of 16 bits; keys come in eights after a header of eight.
const MOST_BYTES: usize = 0xfff8;

/// Room for some hundreds of registrations with their names. There are targets that leave out what does not fit, and do not say so.
const FULL_STATUS_ROOM: u16 = 0xfff8;

/// How often the keys are read again because there were more of them than before.
const READS: u32 = 4;

/// Carries one command out, as [`send`](ha_core::claim::reservation::device::ReservationDevice::send) wants it, without the limit of time.
///
/// A command that changes something is sent once. READ KEYS is read again with more room if the keys did not fit.
pub fn carry_out(transport: &mut dyn Transport, command: Command) -> Result<Answer, Failure> {
    match command {
        Command::ReadKeys => read_keys(transport),
        Command::ReadReservation => {
            let data = read_in(transport, &encode::reserve_in(encode::READ_RESERVATION, 24), 24)?;
            of_data(data::reservation(&data)).map(Answer::Reservation)
        }
        Command::ReportCapabilities => {
            let data = read_in(transport, &encode::reserve_in(encode::REPORT_CAPABILITIES, 8), 8)?;
            of_data(data::capabilities(&data)).map(Answer::Capabilities)
        }
        _ => {
            let (block, parameters) = encode::reserve_out(command).ok_or(Failure::NotSupported)?;
            let ended = transport.execute(&block, Transfer::Out(&parameters))?;
            sense::check(&ended)?;
            Ok(Answer::Done)
        }
    }
}

/// Who is registered, nexus by nexus, on a path from the initiator's port that is given. [`Failure::NotSupported`] if the device knows no READ FULL
/// STATUS.
pub fn registrations(
    transport: &mut dyn Transport,
    initiator: Option<InitiatorPort>,
) -> Result<Registrations, Failure> {
    let block = encode::reserve_in(encode::READ_FULL_STATUS, FULL_STATUS_ROOM);
    let data = read_in(transport, &block, usize::from(FULL_STATUS_ROOM))?;
    let (generation, registrations) = of_data(full_status::full_status(&data))?;
    let port = match inquire(transport, identity::DEVICE_IDENTIFICATION) {
        Ok(page) => identity::target_port(&page),
        Err(Failure::NotSupported) => None,
        Err(failure) => return Err(failure),
    };
    Ok(Registrations { generation, registrations, asked_by: Nexus { initiator, port } })
}

/// Who the device says that it is: the best of what it tells about the logical unit (SPC-4, 7.8.6), or its serial number.
///
/// None if it tells nothing of use.
pub fn designator(transport: &mut dyn Transport) -> Result<Option<Designator>, Failure> {
    match inquire(transport, identity::DEVICE_IDENTIFICATION) {
        Ok(page) => {
            if let Some(found) = identity::of_device_identification(&page) {
                return Ok(Some(found));
            }
        }
        // It lacks the page.
        Err(Failure::NotSupported) => {}
        Err(failure) => return Err(failure),
    }
    match inquire(transport, identity::UNIT_SERIAL_NUMBER) {
        Ok(page) => Ok(identity::of_serial_number(&page)),
        Err(Failure::NotSupported) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Reads the first block and writes back what is there: a write that changes nothing, to see whether it is refused. To be used only on a disk
/// that nobody uses: what somebody else writes to that block in between would be lost.
pub fn rewrite(transport: &mut dyn Transport) -> Result<(), Failure> {
    let capacity = read_in(transport, &encode::CAPACITY, 8)?;
    let length = capacity.get(4..8).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes));
    if !(512..=1 << 16).contains(&length) {
        return Err(Failure::NotSupported);
    }
    let data = read_in(transport, &encode::READ_FIRST, length as usize)?;
    if data.len() != length as usize {
        return Err(Failure::Transport);
    }
    sense::check(&transport.execute(&encode::WRITE_FIRST, Transfer::Out(&data))?)
}

fn inquire(transport: &mut dyn Transport, page: u8) -> Result<Vec<u8>, Failure> {
    const ROOM: u16 = 1024;
    read_in(transport, &encode::inquiry(page, ROOM), usize::from(ROOM))
}

fn read_keys(transport: &mut dyn Transport) -> Result<Answer, Failure> {
    let mut room = 8 + 8 * KEYS_AT_FIRST;
    let mut outcome = Err(DataError::TooMany { bytes: 0 });
    for _ in 0..READS {
        let data = read_in(transport, &encode::reserve_in(encode::READ_KEYS, room as u16), room)?;
        outcome = data::keys(&data);
        match outcome {
            Err(DataError::TooMany { bytes }) if bytes > room && bytes <= MOST_BYTES => {
                // Some more, for those that come in between.
                room = (bytes + 8 * KEYS_AT_FIRST).min(MOST_BYTES);
            }
            _ => break,
        }
    }
    of_data(outcome).map(Answer::Keys)
}

fn read_in(transport: &mut dyn Transport, block: &[u8], room: usize) -> Result<Vec<u8>, Failure> {
    let mut data = vec![0; room];
    let ended = transport.execute(block, Transfer::In(&mut data))?;
    sense::check(&ended)?;
    data.truncate(ended.received);
    Ok(data)
}

/// An answer that cannot be read says nothing of the device, and something of the path.
fn of_data<T>(decoded: Result<T, DataError>) -> Result<T, Failure> {
    decoded.map_err(|error| {
        tracing::warn!(%error, "a device's answer about reservations cannot be read");
        Failure::Transport
    })
}

#[cfg(test)]
mod tests;
