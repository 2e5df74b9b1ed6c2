//! The bytes of an echo request and of its reply (RFC 792, RFC 4443 section 4), told apart from all others by a token in them.
//!
//! Decides nothing about sockets or times.

use std::net::IpAddr;

/// What a request carries and its reply brings back.
pub(super) type Token = [u8; 16];

/// Type, code, checksum, identifier and sequence.
const HEADER: usize = 8;

/// What stands before a message that comes in over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Nothing: an echo socket.
    None,
    /// The header of IP: a raw socket. There is none over IPv6 either way.
    Ip,
}

/// How messages look on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    V4(Header),
    V6,
}

impl Framing {
    pub(super) fn of(address: IpAddr, header: Header) -> Framing {
        if address.is_ipv4() { Framing::V4(header) } else { Framing::V6 }
    }
}

/// A request. Echo sockets write an identifier and a checksum of their own, and so does IPv6 with the checksum.
pub(super) fn request(framing: Framing, sequence: u16, token: Token) -> [u8; HEADER + 16] {
    let mut bytes = [0; HEADER + 16];
    bytes[0] = match framing {
        Framing::V4(_) => 8,
        Framing::V6 => 128,
    };
    // The end of the token changes with every process.
    bytes[4..6].copy_from_slice(&token[14..]);
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[HEADER..].copy_from_slice(&token);
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Whether this is the reply to a request with this token. The kernel hands on all that the other machine sends.
pub(super) fn is_reply(framing: Framing, bytes: &[u8], token: Token) -> bool {
    let (kind, message) = match framing {
        Framing::V4(Header::None) => (0, Some(bytes)),
        Framing::V4(Header::Ip) => (0, after_ip_header(bytes)),
        Framing::V6 => (129, Some(bytes)),
    };
    message.is_some_and(|message| message.starts_with(&[kind, 0]) && message.get(HEADER..) == Some(&token))
}

/// What follows the header of IPv4, whose length is counted in units of four bytes (RFC 791 section 3.1).
fn after_ip_header(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 == 4 && length >= 20 { bytes.get(length..) } else { None }
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: Token = *b"what only we say";

    fn reply(kind: u8) -> Vec<u8> {
        let mut bytes = request(Framing::V6, 7, TOKEN).to_vec();
        bytes[0] = kind;
        bytes
    }

    #[test]
    fn a_request_is_as_the_standard_says() {
        let bytes = request(Framing::V4(Header::None), 0x0102, [0; 16]);
        // 0x0800 + 0x0102 = 0x0902, whose complement is the checksum.
        assert_eq!(bytes[..8], [8, 0, 0xf6, 0xfd, 0, 0, 1, 2]);
        assert_eq!(checksum(&request(Framing::V4(Header::None), 9, TOKEN)), 0);
    }

    #[test]
    fn only_a_whole_reply_with_our_token_counts() {
        assert!(is_reply(Framing::V6, &reply(129), TOKEN));
        assert!(is_reply(Framing::V4(Header::None), &reply(0), TOKEN));
        let mut raw = vec![0; 24];
        raw[0] = 0x46;
        raw.extend(reply(0));
        assert!(is_reply(Framing::V4(Header::Ip), &raw, TOKEN));

        assert!(!is_reply(Framing::V6, &reply(128), TOKEN), "our own request");
        assert!(!is_reply(Framing::V4(Header::None), &reply(3), TOKEN), "unreachable");
        assert!(!is_reply(Framing::V6, &reply(129), [0; 16]), "somebody else's");
        assert!(!is_reply(Framing::V6, &reply(129)[..20], TOKEN), "cut");
    }

    proptest! {
        #[test]
        fn anything_may_come_in(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for framing in [Framing::V4(Header::None), Framing::V4(Header::Ip), Framing::V6] {
                prop_assert!(!is_reply(framing, &bytes, TOKEN));
            }
        }
    }
}
