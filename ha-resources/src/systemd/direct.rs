//! The way to systemd's own socket, one to one, for a library that expects what a bus would have done.
//!
//! On a bus, the sender of a message is the unique name that the bus gave it, and zbus understands nothing else. On its own socket systemd
//! signs with the name that it would own on a bus. So whatever comes from it is passed on here, with that name changed into a unique one
//! of the same length. No file descriptors are passed on. Source: the D-Bus specification, "Message Format" and "Authentication Protocol".

use std::io;
use std::os::unix::net::UnixStream as Plain;
use std::path::Path;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// As which systemd signs.
const SIGNED: &[u8] = b"org.freedesktop.systemd1";

/// A message begins with so many bytes of a fixed form.
const FIXED: usize = 16;

/// The longest message there may be, in bytes.
const LONGEST: usize = 128 << 20;

/// Connects to a socket; what is returned speaks to it. Ends when either side does.
pub(super) async fn connect(socket: &Path) -> io::Result<Plain> {
    let systemd = UnixStream::connect(socket).await?;
    let (ours, theirs) = Plain::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    tokio::spawn(async move {
        let (from_systemd, mut to_systemd) = systemd.into_split();
        let (mut from_us, mut to_us) = ours.into_split();
        tokio::select! {
            _ = tokio::io::copy(&mut from_us, &mut to_systemd) => {}
            _ = pass_on(BufReader::new(from_systemd), &mut to_us) => {}
        }
    });
    Ok(theirs)
}

/// Passes on lines, of which the authentication is made, and messages, which begin with the order of their bytes.
async fn pass_on(mut from: impl AsyncBufRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match from.fill_buf().await?.first() {
            None => return Ok(()),
            Some(b'l' | b'B') => {
                piece.resize(FIXED, 0);
                from.read_exact(&mut piece).await?;
                let length = length(&piece).filter(|length| *length <= LONGEST).ok_or(io::ErrorKind::InvalidData)?;
                piece.resize(length, 0);
                from.read_exact(&mut piece[FIXED..]).await?;
                sign_as_unique(&mut piece);
            }
            Some(_) => {
                from.read_until(b'\n', &mut piece).await?;
            }
        }
        to.write_all(&piece).await?;
    }
}

/// How long a message is that begins with these bytes: the fixed part, its fields up to a multiple of eight, its body.
fn length(fixed: &[u8]) -> Option<usize> {
    let body = number(fixed, 4)?;
    FIXED.checked_add(fields(fixed)?.checked_next_multiple_of(8)?)?.checked_add(body)
}

/// How long the fields of a message are, in bytes.
fn fields(message: &[u8]) -> Option<usize> {
    number(message, 12)
}

/// A number in a message, in the message's own order of bytes.
fn number(message: &[u8], at: usize) -> Option<usize> {
    let bytes = message.get(at..at + 4)?.try_into().ok()?;
    let number = if message.first() == Some(&b'l') { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    usize::try_from(number).ok()
}

/// Changes the sender's first letter into a colon, if it is systemd's well-known name. Each field begins at a multiple of eight: its
/// number (7 is the sender), the signature of its value (`s`), then the length and the text.
fn sign_as_unique(message: &mut [u8]) {
    let end = FIXED + fields(message).unwrap_or(0);
    for at in (FIXED..end.min(message.len())).step_by(8) {
        let is_sender = message.get(at..at + 4) == Some(&[7, 1, b's', 0])
            && number(message, at + 4) == Some(SIGNED.len())
            && message[at + 8..].starts_with(SIGNED);
        if is_sender {
            message[at + 8] = b':';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As systemd signs it: a signal without a body.
    fn message() -> Vec<u8> {
        let mut bytes = vec![b'l', 4, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 33, 0, 0, 0, 7, 1, b's', 0, 24, 0, 0, 0];
        bytes.extend(SIGNED);
        bytes.resize(56, 0);
        bytes
    }

    async fn passed_on(given: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = pass_on(given, &mut out).await;
        out
    }

    #[tokio::test]
    async fn only_the_sender_is_changed() {
        let lines = b"OK 0123\r\nAGREE_UNIX_FD\r\n";
        let given = [lines.as_slice(), &message(), &message()].concat();
        let mut expected = given.clone();
        expected[lines.len() + 24] = b':';
        expected[lines.len() + 56 + 24] = b':';
        assert_eq!(passed_on(&given).await, expected);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_does_harm(bytes: Vec<u8>, begun in 0_usize..56) {
            let mut given = message();
            given.truncate(begun);
            given.extend(bytes);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let passed = runtime.block_on(passed_on(&given));
            prop_assert!(passed.len() <= given.len());
        }
    }
}
