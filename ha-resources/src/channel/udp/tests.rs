use super::*;
use crate::test_support::{TwoNetworks, until};
use futures::FutureExt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn only(name: &str, at: SocketAddr) -> BTreeMap<NodeName, SocketAddr> {
    BTreeMap::from([(node(name), at)])
}

/// Two nodes on one machine.
fn pair(host: std::net::IpAddr) -> (Udp, Udp) {
    // The first port is not known before it is bound; hold one with another socket until its number is known.
    let alpha = std::net::UdpSocket::bind((host, 0)).unwrap();
    let at_alpha = alpha.local_addr().unwrap();
    let beta = Udp::bind((host, 0).into(), only("alpha", at_alpha)).unwrap();
    drop(alpha);
    let alpha = Udp::bind(at_alpha, only("beta", beta.local_address().unwrap())).unwrap();
    (alpha, beta)
}

async fn next(channel: &Udp) -> Vec<u8> {
    tokio::time::timeout(Duration::from_secs(30), channel.receive()).await.unwrap().unwrap()
}

#[tokio::test]
async fn datagrams_go_both_ways_over_ipv4_and_ipv6() {
    for host in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let (alpha, beta) = pair(host);
        alpha.send(&node("beta"), b"beat of alpha").await.unwrap();
        beta.send(&node("alpha"), b"beat of beta").await.unwrap();
        assert_eq!(next(&beta).await, b"beat of alpha");
        assert_eq!(next(&alpha).await, b"beat of beta");
    }
}

#[tokio::test]
async fn beats_are_marked_as_network_control() {
    let (alpha, _) = pair(Ipv4Addr::LOCALHOST.into());
    let socket = SockRef::from(&alpha.socket);
    assert_eq!(socket.tos_v4().unwrap(), NETWORK_CONTROL);
    assert_eq!(socket.priority().unwrap(), PRIORITY);
    let (alpha, _) = pair(Ipv6Addr::LOCALHOST.into());
    assert_eq!(SockRef::from(&alpha.socket).tclass_v6().unwrap(), NETWORK_CONTROL);
}

#[tokio::test]
async fn a_channel_is_named_after_its_address() {
    assert_eq!(name_of(address("10.1.0.1:7946")).as_str(), "udp-10.1.0.1-7946");
    assert_eq!(name_of(address("[fd00::1]:7946")).as_str(), "udp-fd00--1-7946");
    let longest = "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535";
    assert_eq!(name_of(address(longest)).as_str().len(), 60);
}

#[tokio::test]
async fn a_node_that_the_channel_does_not_lead_to_is_left_out() {
    let (alpha, beta) = pair(Ipv4Addr::LOCALHOST.into());
    alpha.send(&node("gamma"), b"lost").await.unwrap();
    alpha.send(&node("beta"), b"found").await.unwrap();
    assert_eq!(next(&beta).await, b"found");
}

#[tokio::test]
async fn anything_from_anybody_is_handed_on_and_cut_to_the_longest() {
    let (alpha, beta) = pair(Ipv4Addr::LOCALHOST.into());
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = beta.local_address().unwrap();
    stranger.send_to(b"", at).unwrap();
    stranger.send_to(&[0xff; 3], at).unwrap();
    stranger.send_to(&vec![7; 65_000], at).unwrap();
    alpha.send(&node("beta"), b"beat").await.unwrap();
    assert_eq!(next(&beta).await, b"");
    assert_eq!(next(&beta).await, [0xff; 3]);
    assert_eq!(next(&beta).await, [7; DATAGRAM_BYTES_MAX]);
    assert_eq!(next(&beta).await, b"beat");
    let error = alpha.send(&node("beta"), &[0; DATAGRAM_BYTES_MAX + 1]).await.unwrap_err();
    assert!(error.0.contains("4097 bytes"), "{error}");
}

#[tokio::test]
async fn an_address_in_use_and_mixed_families_are_refused() {
    let (alpha, _beta) = pair(Ipv4Addr::LOCALHOST.into());
    let taken = alpha.local_address().unwrap();
    assert!(matches!(Udp::bind(taken, BTreeMap::new()), Err(BindError::InUse(at)) if at == taken));
    let mixed = Udp::bind(address("127.0.0.1:0"), only("beta", address("[::1]:7946"))).unwrap_err();
    assert!(mixed.to_string().contains("beta has [::1]:7946"), "{mixed}");
}

#[tokio::test]
async fn a_peer_that_does_not_listen_harms_neither_sending_nor_receiving() {
    let (alpha, beta) = pair(Ipv4Addr::LOCALHOST.into());
    let at_beta = beta.local_address().unwrap();
    drop(beta);
    // Each is answered by an ICMP message.
    for _ in 0..10 {
        alpha.send(&node("beta"), b"beat").await.unwrap();
    }
    let beta = Udp::bind(at_beta, only("alpha", alpha.local_address().unwrap())).unwrap();
    alpha.send(&node("beta"), b"again").await.unwrap();
    beta.send(&node("alpha"), b"answer").await.unwrap();
    assert_eq!(next(&beta).await, b"again");
    assert_eq!(next(&alpha).await, b"answer");
}

/// Whether a test datagram gets from one to the other, tried again while the networks come up.
async fn heard(from: &Udp, to: &Udp, peer: &NodeName, beat: &'static [u8]) {
    for _ in 0..3000 {
        let _ = from.send(peer, beat).await;
        let waited = tokio::time::timeout(Duration::from_millis(10), to.receive()).await;
        if waited.is_ok_and(|received| received.unwrap() == beat) {
            return;
        }
    }
    panic!("{} never heard {}", to.name, from.name);
}

#[tokio::test]
async fn the_channel_outlives_its_address_and_its_network() {
    for (own, peer, prefix) in [("10.99.0.1", "10.99.0.2", 24), ("fd99::1", "fd99::2", 64)] {
        let Some(networks) = TwoNetworks::new() else { return };
        let (own, peer): (std::net::IpAddr, std::net::IpAddr) = (own.parse().unwrap(), peer.parse().unwrap());
        let (at_alpha, at_beta) = (SocketAddr::new(own, 7946), SocketAddr::new(peer, 7946));

        // Neither address exists yet.
        let alpha = networks.inside(0, || Udp::bind(at_alpha, only("beta", at_beta)).unwrap());
        let beta = networks.inside(1, || Udp::bind(at_beta, only("alpha", at_alpha)).unwrap());
        let error = alpha.send(&node("beta"), b"too early").await.unwrap_err();
        assert!(error.0.contains("beta"), "{error}");

        networks.ip(0, &format!("address add {own}/{prefix} dev veth nodad"));
        networks.ip(1, &format!("address add {peer}/{prefix} dev veth nodad"));
        heard(&alpha, &beta, &node("beta"), b"one").await;
        heard(&beta, &alpha, &node("alpha"), b"two").await;

        // The network goes, with the address, and comes back.
        networks.ip(0, "link set veth down");
        networks.ip(0, "address flush dev veth");
        until("sending fails", || {
            let sent = alpha.send(&node("beta"), b"lost").now_or_never().expect("sending never waits");
            sent.is_err().then_some(())
        })
        .await;
        networks.ip(0, "link set veth up");
        networks.ip(0, &format!("address add {own}/{prefix} dev veth nodad"));
        heard(&alpha, &beta, &node("beta"), b"three").await;
        heard(&beta, &alpha, &node("alpha"), b"four").await;
    }
}
