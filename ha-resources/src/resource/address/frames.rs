//! The frames that tell a network where an address is now.
//!
//! Decides their bytes: ARP (RFC 826, RFC 5227) and unsolicited neighbour advertisements (RFC 4861, section 7.2.6). Leaves sending them to
//! the packet socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address of Ethernet.
pub(super) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

/// The frames that announce an address as ours. ARP in both forms: some systems heed only requests, some only replies. In a reply
/// the target has the sender's hardware address too (RFC 5944, section 4.6), without which Linux does not take it as an announcement.
pub(super) fn announcements(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(ip) => {
            vec![arp(ARP_REQUEST, mac, ip, [0; 6], ip), arp(ARP_REPLY, mac, ip, mac, ip)]
        }
        IpAddr::V6(ip) => vec![neighbour_advertisement(ip, mac)],
    }
}

/// Asks who has an address, without claiming it (RFC 5227, "ARP Probe").
pub(super) fn probe(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    arp(ARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, [0; 6], address)
}

fn arp(operation: u8, mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}

fn neighbour_advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Type 136, code 0, checksum, flags: override; target; option 2: target link-layer address, length 1 (8 bytes).
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac);
    let sum = checksum(ip, all_nodes, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((icmp.len() as u16).to_be_bytes());
    // Next header ICMPv6; hop limit 255, as receivers demand.
    frame.extend([58, 255]);
    frame.extend(ip.octets());
    frame.extend(all_nodes.octets());
    frame.extend(icmp);
    frame
}

fn ethernet(to: Mac, from: Mac, ethertype: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(to);
    frame.extend(from);
    frame.extend(ethertype);
    frame
}

/// The checksum of ICMPv6 (RFC 4443, section 2.3), over a pseudo-header and the message.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(40 + message.len());
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Who says in an ARP frame that an address is theirs.
pub(super) fn arp_claims(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let is_arp = frame.get(12..14)? == ETHERTYPE_ARP && frame.get(14..20)? == [0, 1, 8, 0, 6, 4];
    let sender = frame.get(28..32)?;
    if !is_arp || sender != address.octets() {
        return None;
    }
    frame.get(22..28)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn gratuitous_arp_byte_for_byte() {
        let frames = announcements("10.0.0.10".parse().unwrap(), MAC);
        #[rustfmt::skip]
        let request = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 7, 10, 0, 0, 10,
            0, 0, 0, 0, 0, 0, 10, 0, 0, 10,
        ];
        assert_eq!(frames[0], request);
        #[rustfmt::skip]
        let reply = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 7, 10, 0, 0, 10,
            2, 0, 0, 0, 0, 7, 10, 0, 0, 10,
        ];
        assert_eq!(frames[1], reply);
        assert_eq!(arp_claims(&frames[1], "10.0.0.10".parse().unwrap()), Some(MAC));
        assert_eq!(arp_claims(&frames[1], "10.0.0.11".parse().unwrap()), None);
        assert_eq!(arp_claims(&probe("10.0.0.10".parse().unwrap(), MAC), "10.0.0.10".parse().unwrap()), None);
    }

    #[test]
    fn an_unsolicited_advertisement_overrides_and_its_checksum_is_good() {
        let ip: Ipv6Addr = "fd00::10".parse().unwrap();
        let frame = &announcements(IpAddr::V6(ip), MAC)[0];
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[21], 255);
        assert_eq!((frame[54], frame[58]), (136, 0x20));
        assert_eq!(frame[80..], MAC);
        // Over a message with a good checksum the sum is zero.
        assert_eq!(checksum(ip, "ff02::1".parse().unwrap(), &frame[54..]), 0);
    }

    proptest! {
        #[test]
        fn no_frame_from_the_network_makes_the_decoder_panic(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = arp_claims(&frame, Ipv4Addr::LOCALHOST);
        }
    }
}
