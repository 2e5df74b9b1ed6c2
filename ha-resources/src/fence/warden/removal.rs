//! Addresses whose tenure is over, taken off their interfaces.
//!
//! Decides that the warden never waits for it: the kernel may hold up whoever asks, and other tenures end meanwhile.

use std::net::IpAddr;
use std::thread::{Builder, JoinHandle};

use ha_core::driver::KillHandle;

use crate::resource::address::remove_now;

/// One thread is enough for a few system calls; all of the warden's memory is locked, so it is to be small.
const STACK: usize = 128 << 10;

/// The removal of one lease's addresses.
#[derive(Default)]
pub(super) struct Removal {
    attempt: Option<JoinHandle<Vec<String>>>,
    /// What the last whole attempt left, and why.
    left: Vec<String>,
}

impl Removal {
    /// Begins the next attempt, or looks what has come of the last. Says what is left of the addresses: nothing when all are gone.
    pub(super) fn turn(&mut self, handles: &[KillHandle]) -> Vec<String> {
        let addresses: Vec<(String, IpAddr)> = handles
            .iter()
            .filter_map(|handle| match handle {
                KillHandle::Address { interface, address } => Some((interface.clone(), *address)),
                KillHandle::ProcessGroup { .. } | KillHandle::Record(_) | KillHandle::Cgroup(_) => None,
            })
            .collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.is_finished()) {
            self.left =
                attempt.join().unwrap_or_else(|_| vec!["the thread that removes addresses has failed".to_owned()]);
            return self.left.clone();
        }
        if self.attempt.is_none() {
            match Builder::new().stack_size(STACK).spawn(move || remove_all(&addresses)) {
                Ok(attempt) => self.attempt = Some(attempt),
                Err(e) => self.left = vec![format!("no thread to remove addresses: {e}")],
            }
        }
        if self.left.is_empty() {
            vec!["addresses, of which the kernel has said nothing yet".to_owned()]
        } else {
            self.left.clone()
        }
    }
}

fn remove_all(addresses: &[(String, IpAddr)]) -> Vec<String> {
    let remove = |(interface, address): &(String, IpAddr)| match remove_now(interface, *address) {
        Ok(()) => None,
        Err(e) => Some(format!("{address} on {interface}: {e}")),
    };
    addresses.iter().filter_map(remove).collect()
}
