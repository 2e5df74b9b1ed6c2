//! What is to be sent now, and when this node must act next.

use std::time::Duration;

use crate::name::NodeName;
use crate::time::Time;

use super::event::ContactEvent;
use super::ids::NodeId;
use super::message::{Beat, BeatPeer, Message};
use super::parcel::{ParcelFailure, ParcelId};
use super::peer::PeerState;
use super::{Contact, Peer, Transmit};

impl Contact {
    /// Ends every call: sends what is due, and works out when something is due next.
    pub(super) fn finish(&mut self, now: Time) {
        self.send_beats(now);
        self.send_changes(now);
        self.send_parcels(now);
        if self.told.has_withdrawn() {
            // One that was never heard begins with everything, and needs no withdrawals.
            let heard = self.peers.values().filter(|peer| peer.life.is_some());
            let known_to_all = heard.map(|peer| peer.progress.acknowledged()).min();
            self.told.forget_withdrawn(known_to_all.unwrap_or(u64::MAX));
        }
        self.settled = self.settled || now >= self.grace_until || self.peers.values().all(is_settled);
        let timing = &self.config.timing;
        let per_peer = self.peers.values().flat_map(|peer| {
            let outbox = peer.outbox.deadline(timing);
            [peer.judge_at, peer.beat_at, peer.progress.deadline(), outbox, peer.inbox.deadline()]
        });
        let grace = (!self.settled).then_some(self.grace_until);
        self.deadline = per_peer.chain([Some(self.beat_at), grace]).flatten().min();
    }

    fn send_beats(&mut self, now: Time) {
        let round = self.beat_at <= now;
        if round {
            let next = self.beat_at + self.config.timing.interval;
            self.beat_at = if next > now { next } else { now + self.config.timing.interval };
        }
        let due = |peer: &&mut Peer| round || peer.beat_at.is_some_and(|at| at <= now);
        let to: Vec<NodeName> = self
            .peers
            .values_mut()
            .filter(due)
            .map(|peer| {
                peer.beat_at = None;
                peer.name.clone()
            })
            .collect();
        if to.is_empty() {
            return;
        }
        self.beats += 1;
        let message = Message::Beat(self.beat(now));
        self.transmits.extend(to.into_iter().map(|to| Transmit { to, message: message.clone() }));
    }

    fn beat(&self, now: Time) -> Beat {
        let peers = self.peers.values().filter_map(|peer| {
            let id = NodeId::of(&peer.name);
            let Some(life) = peer.life else {
                return peer.seen.map(|incarnation| BeatPeer { id, incarnation, have: 0, age_us: None });
            };
            let heard = peer.last_heard().filter(|_| peer.heard_until() > now);
            let age_us = heard.map(|at| micros(now.since(at)));
            Some(BeatPeer { id, incarnation: life.incarnation, have: life.have, age_us })
        });
        Beat { sequence: self.beats, boot: self.config.boot, version: self.told.version(), peers: peers.collect() }
    }

    fn send_changes(&mut self, now: Time) {
        for peer in self.peers.values_mut().filter(|peer| peer.in_contact()) {
            let Some(life) = peer.life else { continue };
            for delta in peer.progress.send(&self.told, life.incarnation, now, self.config.timing.interval) {
                self.transmits.push_back(Transmit { to: peer.name.clone(), message: Message::Delta(delta) });
            }
        }
    }

    fn send_parcels(&mut self, now: Time) {
        let timing = self.config.timing;
        let mut expired = Vec::new();
        for peer in self.peers.values_mut() {
            expired.extend(peer.outbox.expire(now, &timing).into_iter().map(|id| (peer.name.clone(), id)));
            let Some(life) = peer.life else { continue };
            let ack = peer.inbox.handle_timeout(life.incarnation, now).map(Message::FragmentAck);
            let pieces = if peer.in_contact() { peer.outbox.send(life.incarnation, now, &timing) } else { Vec::new() };
            let messages = ack.into_iter().chain(pieces);
            self.transmits.extend(messages.map(|message| Transmit { to: peer.name.clone(), message }));
        }
        for (to, id) in expired {
            let why = ParcelFailure::TimedOut { after: timing.parcel_deadline() };
            self.report_failed(&to, vec![id], why);
        }
    }

    pub(super) fn report_failed(&mut self, to: &NodeName, ids: Vec<ParcelId>, why: ParcelFailure) {
        let failed = ids.into_iter().map(|id| ContactEvent::ParcelFailed { to: to.clone(), id, why });
        self.events.extend(failed);
    }

    pub(super) fn fail_all_parcels(&mut self, why: ParcelFailure) {
        let failed: Vec<_> = self.peers.values_mut().map(|peer| (peer.name.clone(), peer.outbox.fail())).collect();
        for (to, ids) in failed {
            self.report_failed(&to, ids, why);
        }
    }

    pub(super) fn say_goodbye(&mut self, now: Time) {
        let Some(left) = self.goodbyes.filter(|left| *left > 0 && self.beat_at <= now) else { return };
        for name in self.peers.keys() {
            self.transmits.push_back(Transmit { to: name.clone(), message: Message::Goodbye });
        }
        self.goodbyes = Some(left - 1);
        self.beat_at = now + self.config.timing.interval / 4;
        self.deadline = (left > 1).then_some(self.beat_at);
    }
}

/// Whether nothing more is to be waited for from a peer at the start.
fn is_settled(peer: &Peer) -> bool {
    match peer.state {
        PeerState::Unknown => false,
        PeerState::Alive | PeerState::Late => peer.synced(),
        PeerState::Lost { .. } | PeerState::Left => true,
    }
}

fn micros(age: Duration) -> u32 {
    u32::try_from(age.as_micros()).unwrap_or(u32::MAX)
}
