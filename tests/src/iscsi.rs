//! A small iSCSI initiator (RFC 7143): one session with one connection, no digests, no error recovery, no logout. What goes to the target goes
//! with its command ("immediate data"), so a command is whole when it was sent.
//!
//! Decides nothing of SCSI: command blocks go out and answers come back as they are ([`Transport`]). A command that is not answered in time is
//! left to the target, which may carry it out later; the session goes on, and its answer is passed over when it comes.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Answer, Command, Failure, PathName, Registrations, ReservationDevice};
use ha_resources::claim::reservation::scsi::{self, Ended, Transfer, Transport};

use crate::wait::patience;

/// What stands for "no tag".
const NO_TAG: u32 = 0xffff_ffff;

/// The opcodes that are used, as they stand in the first byte; 40h there means "immediate".
mod opcode {
    pub(super) const NOP_OUT: u8 = 0x40;
    pub(super) const COMMAND: u8 = 0x01;
    pub(super) const LOGIN: u8 = 0x43;
    pub(super) const NOP_IN: u8 = 0x20;
    pub(super) const RESPONSE: u8 = 0x21;
    pub(super) const LOGIN_RESPONSE: u8 = 0x23;
    pub(super) const DATA_IN: u8 = 0x25;
}

/// A session with a target: a nexus, once it is logged in.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    lun: u8,
    limit: Duration,
    /// Counts commands; also their tags.
    command: u32,
    /// The next status that the target will number.
    status: u32,
}

/// One message: its header, of which the first byte is the opcode, and its data.
#[derive(Debug)]
struct Message {
    header: [u8; 48],
    data: Vec<u8>,
}

impl Message {
    fn new(opcode: u8, flags: u8) -> Message {
        let mut header = [0; 48];
        (header[0], header[1]) = (opcode, flags);
        Message { header, data: Vec::new() }
    }

    fn with(mut self, offset: usize, value: u32) -> Message {
        self.header[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn word(&self, offset: usize) -> usize {
        let bytes = [0, 1, 2, 3].map(|i| self.header[offset + i]);
        u32::from_be_bytes(bytes) as usize
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    fn send(mut self, stream: &mut TcpStream) -> io::Result<()> {
        let length = self.data.len() as u32;
        self.header[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        self.data.resize(self.data.len().next_multiple_of(4), 0);
        stream.write_all(&[&self.header[..], &self.data].concat())
    }

    fn receive(stream: &mut TcpStream) -> io::Result<Message> {
        let mut header = [0; 48];
        stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let additional = usize::from(header[4]) * 4;
        let mut data = vec![0; additional + length.next_multiple_of(4)];
        stream.read_exact(&mut data)?;
        data.drain(..additional);
        data.truncate(length);
        Ok(Message { header, data })
    }
}

impl Session {
    /// Logs in as `initiator` (an iSCSI name) for one logical unit. Each command has `limit` to be answered in; logging in, the patience of a
    /// test.
    pub fn login(portal: SocketAddr, target: &str, initiator: &str, lun: u8, limit: Duration) -> io::Result<Session> {
        let mut stream = TcpStream::connect_timeout(&portal, patience())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience()))?;
        let (own, whom) = (format!("InitiatorName={initiator}"), format!("TargetName={target}"));
        let keys = [
            own.as_str(),
            whom.as_str(),
            "SessionType=Normal",
            "HeaderDigest=None",
            "DataDigest=None",
            "ImmediateData=Yes",
            "MaxRecvDataSegmentLength=65536",
        ];
        let mut said = keys.iter().flat_map(|key| [key.as_bytes(), b"\0"].concat()).collect();
        let mut status = 0;
        let answer = loop {
            // From the stage of operational negotiation straight to the full feature phase; a random ISID of one's own name.
            let mut login = Message::new(opcode::LOGIN, 0x87).with(16, 1).with(24, 1).with(28, status);
            login.header[8] = 0x80;
            login.data = said;
            login.send(&mut stream)?;
            let answer = Message::receive(&mut stream)?;
            if answer.opcode() != opcode::LOGIN_RESPONSE || answer.header[36] != 0 {
                let status = (answer.header[36], answer.header[37]);
                return Err(io::Error::other(format!("the target refuses the login, with status {status:02x?}")));
            }
            if answer.header[1] & 0x80 != 0 {
                break answer;
            }
            // It has proposals of its own, all of which are agreed to.
            said = proposals(&answer.data, &keys);
            if said.is_empty() {
                return Err(io::Error::other("the target does not end the login, and proposes nothing"));
            }
            status = answer.word(24) as u32 + 1;
        };
        if answer.data.split(|byte| *byte == 0).any(|key| key == b"ImmediateData=No") {
            return Err(io::Error::other(
                "the target takes no data with a command, and this initiator knows no other way",
            ));
        }
        let status = answer.word(24) as u32 + 1;
        Ok(Session { stream, lun, limit, command: 1, status })
    }

    /// Sends a command block with its data; takes the target's data and its answer.
    fn exchange(&mut self, block: &[u8], mut transfer: Transfer<'_>) -> io::Result<Ended> {
        let until = Instant::now() + self.limit;
        let tag = self.command;
        let (direction, data, length) = match &transfer {
            Transfer::Out(data) => (0x20, data.to_vec(), data.len()),
            Transfer::In(room) => (0x40, Vec::new(), room.len()),
        };
        let mut command = Message::new(opcode::COMMAND, 0x80 | direction | 0x01)
            .with(16, tag)
            .with(20, length as u32)
            .with(24, self.command)
            .with(28, self.status);
        command.header[9] = self.lun;
        command.header[32..32 + block.len()].copy_from_slice(block);
        command.data = data;
        self.command += 1;
        command.send(&mut self.stream)?;
        let mut received = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let message = Message::receive(&mut self.stream)?;
            let is_ours = message.word(16) == tag as usize;
            match message.opcode() {
                opcode::NOP_IN => self.answer_nop(&message)?,
                opcode::DATA_IN => {
                    let offset = message.word(40);
                    if let (true, Transfer::In(room)) = (is_ours, &mut transfer) {
                        let end = (offset + message.data.len()).min(room.len());
                        let begin = offset.min(end);
                        room[begin..end].copy_from_slice(&message.data[..end - begin]);
                        received = received.max(end);
                    }
                    if message.header[1] & 0x01 != 0 {
                        self.status = message.word(24) as u32 + 1;
                        if is_ours {
                            return Ok(Ended { status: message.header[3], sense: Vec::new(), received });
                        }
                    }
                }
                opcode::RESPONSE => {
                    self.status = message.word(24) as u32 + 1;
                    if is_ours {
                        // What the target could not even hand on has a response code of its own.
                        if message.header[2] != 0 {
                            return Err(io::Error::other(format!("response {:02x}h of the target", message.header[2])));
                        }
                        let sense = message.data.get(2..).unwrap_or_default().to_vec();
                        return Ok(Ended { status: message.header[3], sense, received });
                    }
                }
                other => return Err(io::Error::other(format!("unexpected message {other:02x}h of the target"))),
            }
        }
    }

    fn answer_nop(&mut self, asked: &Message) -> io::Result<()> {
        let tag = asked.word(20) as u32;
        if tag == NO_TAG {
            return Ok(());
        }
        let mut pong = Message::new(opcode::NOP_OUT, 0x80)
            .with(16, NO_TAG)
            .with(20, tag)
            .with(24, self.command)
            .with(28, self.status);
        pong.header[8..16].copy_from_slice(&asked.header[8..16]);
        pong.send(&mut self.stream)
    }
}

/// What a target has said and was not asked, as it is said back to it: the same value is an agreement.
fn proposals(text: &[u8], asked: &[&str]) -> Vec<u8> {
    let name = |key: &[u8]| key.split(|byte| *byte == b'=').next().unwrap_or_default().to_vec();
    let of_us = |key: &[u8]| asked.iter().any(|own| name(own.as_bytes()) == name(key));
    let keys =
        text.split(|byte| *byte == 0).filter(|key| !key.is_empty() && !key.starts_with(b"Target") && !of_us(key));
    keys.flat_map(|key| [key, b"\0"].concat()).collect()
}

impl Transport for Session {
    fn execute(&mut self, command_block: &[u8], transfer: Transfer<'_>) -> std::result::Result<Ended, Failure> {
        self.exchange(command_block, transfer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::NoAnswer,
            _ => Failure::Transport,
        })
    }
}

/// A session as the device with reservations that the machines of `ha-core` drive. A broken session is not made anew.
#[derive(Clone, Debug)]
pub struct Initiator {
    name: String,
    limit: Duration,
    session: Arc<Mutex<Session>>,
}

impl Initiator {
    /// Over this session; the name is also that of its one path.
    pub fn new(name: &str, session: Session) -> Initiator {
        Initiator { name: name.to_owned(), limit: session.limit, session: Arc::new(Mutex::new(session)) }
    }

    /// Sends a command and waits for its end.
    pub fn run(&self, command: Command) -> std::result::Result<Answer, Failure> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        scsi::carry_out(&mut *session, command)
    }

    /// Reads the first block and writes back what is there.
    pub fn rewrite(&self) -> std::result::Result<(), Failure> {
        scsi::rewrite(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who is registered, nexus by nexus; which nexus this one is, is not said.
    pub fn registrations(&self) -> std::result::Result<Registrations, Failure> {
        scsi::registrations(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner), None)
    }

    /// Who the logical unit says that it is.
    pub fn designator(&self) -> std::result::Result<Option<scsi::Designator>, Failure> {
        scsi::designator(&mut *self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl ReservationDevice for Initiator {
    fn name(&self) -> &str {
        &self.name
    }

    fn paths(&self) -> Vec<PathName> {
        vec![PathName::new(self.name.clone())]
    }

    async fn paths_changed(&self, _seen: &[PathName]) {
        std::future::pending().await
    }

    async fn send(&self, _path: &PathName, command: Command) -> std::result::Result<Answer, Failure> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.run(command)).await.unwrap_or(Err(Failure::Transport))
    }

    fn time_limit(&self) -> Duration {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_proposes_is_agreed_to_and_what_it_answers_is_not_repeated() {
        let text = b"TargetPortalGroupTag=1\0ImmediateData=Yes\0MaxBurstLength=262144\0InitialR2T=Yes\0";
        let asked = ["ImmediateData=Yes", "MaxRecvDataSegmentLength=65536"];
        assert_eq!(proposals(text, &asked), b"MaxBurstLength=262144\0InitialR2T=Yes\0");
    }
}
