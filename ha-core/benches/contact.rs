//! What contact costs: sealing and opening beats, and telling what changed.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop at anything unexpected")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ha_core::claim::EarlyFailures;
use ha_core::contact::{
    AnnouncedPhase, Announcement, Beat, BeatPeer, Contact, ContactConfig, Directive, KeyId, KeyRing, Message, NodeId,
    NodeIds, Opener, Sealer, Timing,
};
use ha_core::hierarchy::Fingerprint;
use ha_core::name::{BootId, ChannelName, ClusterName, Epoch, HierarchyName, Incarnation, NodeName, Utility};
use ha_core::time::Time;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn announcement(epoch: u64) -> Announcement {
    Announcement {
        phase: AnnouncedPhase::InService,
        epoch: Epoch(epoch),
        utility: Utility::FULL,
        declined: None,
        unready: None,
        failures: EarlyFailures::default(),
        directive: Directive::default(),
        definition: Fingerprint(0x1234_5678_9abc_def0),
        heir: None,
        disturbance: None,
        storage: None,
    }
}

fn beat() -> Message {
    let known = ["beta", "gamma"].map(|name| BeatPeer {
        id: NodeId::of(&node(name)),
        incarnation: Incarnation(1_795_000_000_000_000_000),
        have: 1_000,
        age_us: Some(50_000),
    });
    Message::Beat(Beat { sequence: 123_456, boot: BootId([7; 16]), version: 1_000, peers: known.to_vec() })
}

fn sealing(c: &mut Criterion) {
    let (alpha, beta) = (node("alpha"), node("beta"));
    let cluster = ClusterName::new("shop").unwrap();
    let keys = KeyRing::generate(KeyId(1), std::array::from_fn(|i| i as u8));
    let mut sealer = Sealer::new(&alpha, &cluster, &keys, Incarnation(1));
    let message = beat();
    println!("a sealed beat of 3 nodes: {} bytes", sealer.seal(&beta, &message).unwrap().len());
    c.bench_function("beat/encode", |b| {
        b.iter(|| {
            let mut bytes = Vec::new();
            black_box(&message).encode(&mut bytes);
            bytes
        });
    });
    c.bench_function("beat/seal", |b| b.iter(|| sealer.seal(&beta, black_box(&message)).unwrap()));
    let datagram = sealer.seal(&beta, &message).unwrap();
    let nodes = [alpha.clone(), beta.clone()];
    c.bench_function("beat/open", |b| {
        b.iter_batched_ref(
            || Opener::new(&beta, &cluster, NodeIds::new(&nodes).unwrap(), &keys),
            |opener| opener.open(black_box(&datagram)).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

/// Two nodes that know each other and have told each other everything.
struct Pair {
    alpha: Contact,
    beta: Contact,
    channel: ChannelName,
    now: Time,
}

impl Pair {
    fn new() -> Self {
        let start = |me: &str| {
            let config = ContactConfig {
                me: node(me),
                boot: BootId([1; 16]),
                nodes: vec![node("alpha"), node("beta")],
                timing: Timing::default(),
                channels: std::collections::BTreeMap::new(),
            };
            Contact::new(config, Incarnation(1), Time::ZERO).unwrap()
        };
        let channel = ChannelName::new("udp").unwrap();
        let mut pair = Pair { alpha: start("alpha"), beta: start("beta"), channel, now: Time::ZERO };
        pair.exchange();
        pair
    }

    /// Carries messages until nobody has anything to say but the next beat.
    fn exchange(&mut self) {
        for _ in 0..100_000 {
            let (from_alpha, from_beta) = (self.alpha.poll_transmit(), self.beta.poll_transmit());
            let idle = from_alpha.is_none() && from_beta.is_none();
            if let Some(sent) = from_alpha {
                self.beta.received(self.now, &self.channel, &node("alpha"), Incarnation(1), sent.message);
            }
            if let Some(sent) = from_beta {
                self.alpha.received(self.now, &self.channel, &node("beta"), Incarnation(1), sent.message);
            }
            let version_told = self.beta.peer(&node("alpha")).is_some_and(ha_core::contact::Peer::synced);
            if idle && version_told {
                break;
            }
            if idle {
                self.now = self.alpha.next_deadline().min(self.beta.next_deadline()).unwrap();
                self.alpha.handle_timeout(self.now);
                self.beta.handle_timeout(self.now);
            }
        }
        while self.alpha.poll_event().is_some() {}
        while self.beta.poll_event().is_some() {}
    }
}

fn deltas(c: &mut Criterion) {
    for count in [1u64, 100, 1_000] {
        let names: Vec<_> = (0..count).map(|i| HierarchyName::new(format!("service-{i}")).unwrap()).collect();
        c.bench_function(&format!("delta/{count}"), |b| {
            b.iter_batched_ref(
                Pair::new,
                |pair| {
                    for name in &names {
                        pair.alpha.set_announcement(pair.now, name, announcement(7));
                    }
                    pair.exchange();
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, sealing, deltas);
criterion_main!(benches);
