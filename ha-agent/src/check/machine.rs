//! What agent.ron names on this machine: the key file, the addresses, the watchdog.

use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use ha_core::contact::KeyRing;
use ha_core::name::NodeName;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::Found;
use crate::config::{Config, WatchdogSettings};
use crate::view::Severity;

pub(super) fn keys(config: &Config, found: &mut Found) {
    let Some(file) = &config.keys else { return };
    let shown = file.display();
    match std::fs::read_to_string(file) {
        Err(e) => {
            let help = match e.kind() {
                std::io::ErrorKind::PermissionDenied => "run this as root, as the agent does".to_owned(),
                _ => format!("make it with `ha keys generate {shown}` on one node, and copy it to the others"),
            };
            found.add(Severity::Error, "keys", format!("{shown} cannot be read: {e}"), help);
        }
        Ok(text) => {
            if let Err(wrong) = KeyRing::parse(&text) {
                found.add(Severity::Error, "keys", format!("{shown}: {wrong}"), None);
            }
        }
    }
    if let Ok(about) = std::fs::metadata(file) {
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let what = format!("{shown} has mode {mode:04o}: others can read the keys, and speak as a node");
            found.add(Severity::Error, "keys", what, format!("chmod 600 {shown}"));
        }
    }
}

pub(super) fn addresses(config: &Config, me: &NodeName, found: &mut Found) {
    let Some(own) = config.node(me) else {
        let known: Vec<&str> = config.nodes.iter().map(|n| n.name.as_str()).collect();
        let what =
            format!("this node is called {me:?}, which agent.ron does not name: expected one of {}", known.join(", "));
        found.add(Severity::Error, "agent.ron", what, "say with --node which of them this machine is".to_owned());
        return;
    };
    let networks = match local_networks() {
        Ok(networks) => networks,
        Err(e) => {
            found.add(
                Severity::Warning,
                "addresses",
                format!("the addresses of this machine cannot be read: {e}"),
                None,
            );
            return;
        }
    };
    for address in &own.addresses {
        if !networks.iter().any(|n| n.address == address.ip() || n.is_loopback_of(address.ip())) {
            let what = format!("{} is not an address of this machine: nothing can be heard there", address.ip());
            found.add(Severity::Error, me, what, "correct it in agent.ron, or bring the interface up".to_owned());
        }
    }
    for other in config.nodes.iter().filter(|n| n.name != *me) {
        for address in &other.addresses {
            if !networks.iter().any(|n| n.contains(address.ip())) {
                let what = format!(
                    "{} is on no network of this machine: it is reached through a gateway, if at all",
                    address.ip()
                );
                found.add(Severity::Warning, &other.name, what, None);
            }
        }
        let shared = other.addresses.len().min(own.addresses.len());
        if shared == 1 {
            let what = "only one network leads to it: one broken switch looks like a dead node".to_owned();
            found.add(Severity::Note, &other.name, what, "give every node an address on a second network".to_owned());
        }
    }
}

struct Network {
    address: IpAddr,
    mask: Option<IpAddr>,
}

impl Network {
    /// The whole of 127.0.0.0/8 is this machine.
    fn is_loopback_of(&self, other: IpAddr) -> bool {
        self.address.is_loopback() && other.is_loopback() && self.address.is_ipv4() == other.is_ipv4()
    }

    fn contains(&self, other: IpAddr) -> bool {
        match (self.address, self.mask, other) {
            (IpAddr::V4(own), Some(IpAddr::V4(mask)), IpAddr::V4(other)) => own & mask == other & mask,
            (IpAddr::V6(own), Some(IpAddr::V6(mask)), IpAddr::V6(other)) => own & mask == other & mask,
            (own, _, other) => own == other,
        }
    }
}

fn local_networks() -> nix::Result<Vec<Network>> {
    let ip = |s: &SockaddrStorage| {
        s.as_sockaddr_in().map(|s| IpAddr::V4(s.ip())).or_else(|| s.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip())))
    };
    let networks = getifaddrs()?.filter_map(|interface| {
        let address = ip(interface.address.as_ref()?)?;
        Some(Network { address, mask: interface.netmask.as_ref().and_then(ip) })
    });
    Ok(networks.collect())
}

pub(super) fn watchdog(config: &Config, found: &mut Found) {
    let WatchdogSettings::Device { path, .. } = &config.watchdog else { return };
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) => found.add(
            Severity::Error,
            "watchdog",
            format!("{shown}: {e}"),
            "load the machine's watchdog driver (softdog has no hardware behind it), or use `watchdog: Warden`"
                .to_owned(),
        ),
        Ok(about) if !about.file_type().is_char_device() => {
            found.add(
                Severity::Error,
                "watchdog",
                format!("{shown} is not a watchdog device: expected /dev/watchdog, or /dev/watchdogN"),
                None,
            );
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_neighbours_only() {
        let network = |address: &str, mask: &str| Network {
            address: address.parse().unwrap(),
            mask: Some(mask.parse().unwrap()),
        };
        let lan = network("10.1.0.1", "255.255.255.0");
        assert!(lan.contains("10.1.0.77".parse().unwrap()));
        assert!(!lan.contains("10.1.1.77".parse().unwrap()));
        assert!(!lan.contains("fe80::1".parse().unwrap()));
        assert!(network("fd00::1", "ffff:ffff::").contains("fd00::9".parse().unwrap()));
        assert!(network("127.0.0.1", "255.0.0.0").is_loopback_of("127.0.9.1".parse().unwrap()));
    }
}
