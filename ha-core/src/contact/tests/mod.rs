//! Scenarios of contact in a small network of virtual time, with real seals: what is lost, doubled, late, cut, stopped
//! and started again.

mod announcements;
mod codec;
mod parcels;
mod sealed;
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::claim::EarlyFailures;
use crate::hierarchy::Fingerprint;
use crate::name::{BootId, ClusterName, Epoch, Utility};

pub(super) const ALPHA: &str = "alpha";
pub(super) const BETA: &str = "beta";
pub(super) const GAMMA: &str = "gamma";

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(super) fn hierarchy(name: &str) -> HierarchyName {
    HierarchyName::new(name).unwrap()
}

pub(super) fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn at_ms(count: u64) -> Time {
    Time::ZERO + ms(count)
}

pub(super) fn announcement(epoch: u64) -> Announcement {
    Announcement {
        phase: AnnouncedPhase::InService,
        epoch: Epoch(epoch),
        utility: Utility::FULL,
        declined: None,
        unready: None,
        failures: EarlyFailures::default(),
        directive: Directive::default(),
        definition: Fingerprint(7),
        heir: None,
        disturbance: None,
        storage: None,
    }
}

/// What the beat of a node says that knows a life of another one.
pub(super) fn knows(name: &str, incarnation: u64) -> BeatPeer {
    BeatPeer { id: NodeId::of(&node(name)), incarnation: Incarnation(incarnation), have: 0, age_us: None }
}

pub(super) fn keys() -> KeyRing {
    KeyRing::generate(KeyId(1), std::array::from_fn(|i| i as u8))
}

pub(super) fn config(me: &str, nodes: &[&str]) -> ContactConfig {
    ContactConfig {
        me: node(me),
        boot: BootId([1; 16]),
        nodes: nodes.iter().map(|name| node(name)).collect(),
        timing: Timing::default(),
        channels: BTreeMap::new(),
    }
}

pub(super) struct Machine {
    pub(super) contact: Contact,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) events: Vec<ContactEvent>,
    /// Datagrams wait in the sockets meanwhile.
    stopped: bool,
    waiting: Vec<(ChannelName, Vec<u8>)>,
}

/// Nodes, and the wires between them.
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) machines: BTreeMap<NodeName, Machine>,
    nodes: Vec<NodeName>,
    pub(super) channels: Vec<ChannelName>,
    wire: BTreeMap<(Time, u64), (NodeName, ChannelName, Vec<u8>)>,
    /// From, to, by channel.
    cut: BTreeSet<(NodeName, NodeName, ChannelName)>,
    pub(super) lost_percent: u64,
    pub(super) doubled_percent: u64,
    pub(super) delay_up_to: Duration,
    random: u64,
    pub(super) sent: Vec<(NodeName, ChannelName, Vec<u8>)>,
}

impl Net {
    /// Nodes that are not running yet, with two channels that lose nothing and take 100 µs.
    pub(super) fn new(nodes: &[&str]) -> Self {
        Self {
            now: Time::ZERO,
            machines: BTreeMap::new(),
            nodes: nodes.iter().map(|name| node(name)).collect(),
            channels: vec![channel("net-a"), channel("net-b")],
            wire: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost_percent: 0,
            doubled_percent: 0,
            delay_up_to: Duration::from_micros(100),
            random: 0x9e37_79b9_7f4a_7c15,
            sent: Vec::new(),
        }
    }

    /// All nodes running, and in contact.
    pub(super) fn settled(nodes: &[&str]) -> Self {
        let mut net = Self::new(nodes);
        for name in nodes {
            net.start(name, 1);
        }
        net.run_until("everybody is settled", |net| net.machines.values().all(|m| m.contact.settled()));
        net.run_for(ms(500));
        for name in nodes {
            net.machine(name).events.clear();
        }
        net
    }

    pub(super) fn start(&mut self, name: &str, incarnation: u64) {
        self.start_booted(name, incarnation, BootId([1; 16]));
    }

    pub(super) fn start_booted(&mut self, name: &str, incarnation: u64, boot: BootId) {
        let nodes: Vec<&str> = self.nodes.iter().map(NodeName::as_str).collect();
        let config = ContactConfig { boot, ..config(name, &nodes) };
        let ids = NodeIds::new(&self.nodes).unwrap();
        let cluster = ClusterName::new("shop").unwrap();
        let machine = Machine {
            contact: Contact::new(config, Incarnation(incarnation), self.now).unwrap(),
            sealer: Sealer::new(&node(name), &cluster, &keys(), Incarnation(incarnation)),
            opener: Opener::new(&node(name), &cluster, ids, &keys()),
            events: Vec::new(),
            stopped: false,
            waiting: Vec::new(),
        };
        self.machines.insert(node(name), machine);
        self.carry(&node(name));
    }

    pub(super) fn kill(&mut self, name: &str) {
        self.machines.remove(&node(name));
    }

    /// The process does not run for a while; what arrives meanwhile waits in its sockets.
    pub(super) fn stop(&mut self, name: &str) {
        self.machine(name).stopped = true;
    }

    pub(super) fn go_on(&mut self, name: &str) {
        let machine = self.machine(name);
        machine.stopped = false;
        for (channel, datagram) in std::mem::take(&mut machine.waiting) {
            self.deliver(&node(name), &channel, &datagram);
        }
    }

    /// Nothing passes from one to the other any more, on any channel.
    pub(super) fn cut(&mut self, from: &str, to: &str) {
        for channel in &self.channels {
            self.cut.insert((node(from), node(to), channel.clone()));
        }
    }

    pub(super) fn cut_both_ways(&mut self, one: &str, other: &str) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(super) fn cut_channel(&mut self, name: &str) {
        for from in &self.nodes {
            for to in &self.nodes {
                self.cut.insert((from.clone(), to.clone(), channel(name)));
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        (self.lost_percent, self.doubled_percent) = (0, 0);
    }

    pub(super) fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines.get_mut(&node(name)).unwrap()
    }

    pub(super) fn contact(&self, name: &str) -> &Contact {
        &self.machines[&node(name)].contact
    }

    pub(super) fn state(&self, at: &str, of: &str) -> PeerState {
        self.contact(at).peer(&node(of)).unwrap().state()
    }

    /// Does something at a node, and sends what follows from it.
    pub(super) fn at<R>(&mut self, name: &str, action: impl FnOnce(&mut Contact, Time) -> R) -> R {
        let now = self.now;
        let result = action(&mut self.machine(name).contact, now);
        self.carry(&node(name));
        result
    }

    pub(super) fn announce(&mut self, name: &str, of: &str, epoch: u64) {
        self.at(name, |contact, now| contact.set_announcement(now, &hierarchy(of), announcement(epoch)));
    }

    pub(super) fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while self.next().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until something is so; a minute is too long for anything.
    pub(super) fn run_until(&mut self, what: &str, so: impl Fn(&Net) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !so(self) {
            assert!(self.next().is_some_and(|next| next <= end), "within a minute: {what}");
            self.step();
        }
    }

    pub(super) fn run_until_all_has_arrived(&mut self) {
        self.run_until("the wires are empty", |net| net.wire.is_empty());
    }

    pub(super) fn replay(&mut self, to: &NodeName, channel: &ChannelName, datagram: &[u8]) {
        self.deliver(to, channel, datagram);
    }

    fn next(&self) -> Option<Time> {
        let running = self.machines.values().filter(|machine| !machine.stopped);
        let due = running.filter_map(|machine| machine.contact.next_deadline());
        due.chain(self.wire.keys().next().map(|(at, _)| *at)).min().map(|at| at.max(self.now))
    }

    fn step(&mut self) {
        let Some(next) = self.next() else { return };
        self.now = next;
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= next) {
            let (to, channel, datagram) = entry.remove();
            self.deliver(&to, &channel, &datagram);
        }
        for name in self.machines.keys().cloned().collect::<Vec<_>>() {
            let machine = self.machines.get_mut(&name).unwrap();
            if !machine.stopped && machine.contact.next_deadline().is_some_and(|at| at <= next) {
                machine.contact.handle_timeout(next);
                self.carry(&name);
            }
        }
    }

    fn deliver(&mut self, to: &NodeName, channel: &ChannelName, datagram: &[u8]) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(to) else { return };
        if machine.stopped {
            machine.waiting.push((channel.clone(), datagram.to_vec()));
            return;
        }
        if let Ok(opened) = machine.opener.open(datagram) {
            machine.contact.received(now, channel, &opened.from, opened.incarnation, opened.message);
            self.carry(to);
        }
    }

    /// Seals and sends what a node has to say, and does what its driver does with its events.
    fn carry(&mut self, name: &NodeName) {
        let now = self.now;
        let machine = self.machines.get_mut(name).unwrap();
        while let Some(event) = machine.contact.poll_event() {
            if let ContactEvent::KnownAsLater { incarnation } = &event {
                let higher = Incarnation(incarnation.0 + 1);
                machine.sealer.reincarnate(higher);
                machine.contact.reincarnate(now, higher);
            }
            machine.events.push(event);
        }
        let mut datagrams = Vec::new();
        while let Some(transmit) = machine.contact.poll_transmit() {
            for channel in &self.channels {
                let datagram = machine.sealer.seal(&transmit.to, &transmit.message).unwrap();
                assert!(datagram.len() <= 1280, "{} bytes of {:?}", datagram.len(), transmit.message);
                datagrams.push((transmit.to.clone(), channel.clone(), datagram));
            }
        }
        for (to, channel, datagram) in datagrams {
            self.sent.push((to.clone(), channel.clone(), datagram.clone()));
            if self.cut.contains(&(name.clone(), to.clone(), channel.clone())) {
                continue;
            }
            let copies = 1 + u64::from(self.chance(self.doubled_percent));
            for _ in 0..copies {
                if !self.chance(self.lost_percent) {
                    let micros = self.delay_up_to.as_micros() as u64;
                    let delay = Duration::from_micros(micros / 2 + self.draw() % (micros / 2).max(1));
                    let key = (now + delay, self.sent.len() as u64 * 2 + u64::from(self.wire.len() % 2 == 1));
                    self.wire.insert(key, (to.clone(), channel.clone(), datagram.clone()));
                }
            }
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.draw() % 100 < percent
    }

    /// xorshift64 (Marsaglia 2003).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.random ^= seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    }
}
