//! What the flight recorder costs: for a beat, for the state that a segment begins with, and in bytes of an idle hour.
#![expect(clippy::expect_used, reason = "a benchmark may stop at anything unexpected")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ha_core::claim::{EarlyFailures, Held, Holding, Tenure};
use ha_core::contact::{ContactConfig, Message, Timing};
use ha_core::engine::{Call, Effect, EngineConfig, Input, Joining, Lasting};
use ha_core::hierarchy::{Fingerprint, Hierarchy, Monitor, Policy, ResourceSpec, Timeouts};
use ha_core::name::{BootId, ChannelName, ClusterName, Epoch, HierarchyName, Incarnation, NodeName, ResourceName};
use ha_core::record::flight::{Flight, Limits, Piece, Sink};
use ha_core::recovery::Outcome;
use ha_core::time::Time;

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];
const SIZES: [usize; 3] = [10, 1_000, 10_000];
const BEAT: Duration = Duration::from_millis(100);

/// Counts what it is given, and throws it away.
#[derive(Clone, Default)]
struct Scale {
    state: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    /// Refuses the next piece: then a segment begins.
    refuses: Arc<AtomicBool>,
}

impl Sink for Scale {
    fn put(&mut self, piece: Piece) -> bool {
        match piece {
            Piece::Segment(bytes) => self.state.store(bytes.len(), Ordering::Relaxed),
            Piece::More { .. } if self.refuses.swap(false, Ordering::Relaxed) => return false,
            Piece::More { bytes, .. } => {
                self.calls.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        }
        true
    }

    fn ready(&self) -> bool {
        true
    }

    fn wall_ns(&self) -> u64 {
        0
    }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("valid")
}

fn hierarchy(i: usize) -> Hierarchy {
    let resource = |name: &str, requires: Vec<usize>| ResourceSpec {
        name: ResourceName::new(name).expect("valid"),
        kind: "Fake".to_owned(),
        requires,
        timeouts: Timeouts::default(),
        monitor: Monitor::default(),
        fingerprint: Fingerprint(1),
    };
    Hierarchy {
        name: HierarchyName::new(format!("h{i:05}")).expect("valid"),
        nodes: NODES.iter().map(|n| node(n)).collect(),
        resources: vec![resource("disk", vec![]), resource("vip", vec![]), resource("server", vec![0, 1])],
        policy: Policy::default(),
        claim: Fingerprint(1),
        fingerprint: Fingerprint(1),
    }
}

/// Three nodes; the first has everything in service.
struct Cluster {
    now: Time,
    flights: Vec<Flight>,
    scales: Vec<Scale>,
    channel: ChannelName,
}

impl Cluster {
    fn new(count: usize, recorded: bool, limits: Limits) -> Self {
        let now = Time::ZERO + Duration::from_secs(1);
        let scales = vec![Scale::default(), Scale::default(), Scale::default()];
        let flights = NODES.iter().zip(&scales).map(|(name, scale)| {
            let tape = recorded.then(|| -> (Box<dyn Sink>, Limits) { (Box::new(scale.clone()), limits) });
            flight(name, count, now, tape)
        });
        let channel = ChannelName::new("udp-10.1.0.1").expect("valid");
        let mut cluster = Cluster { now, flights: flights.collect(), scales, channel };
        for _ in 0..150 {
            cluster.tick();
        }
        cluster
    }

    /// One interval: all beat, everything that is asked for is done at once.
    fn tick(&mut self) {
        self.now = self.now + BEAT;
        for flight in &mut self.flights {
            flight.call(self.now, Call::Timeout);
        }
        loop {
            let mut sent = Vec::new();
            for (i, flight) in self.flights.iter_mut().enumerate() {
                sent.extend(carry_out(flight, self.now).into_iter().map(|(to, message)| (i, to, message)));
                flight.flush();
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, message) in sent {
                let to = NODES.iter().position(|n| *n == to.as_str()).expect("a node");
                let input = self.received(from, message);
                self.flights[to].call(self.now, input);
            }
        }
    }

    fn received(&self, from: usize, message: Message) -> Call {
        let channel = self.channel.clone();
        Call::Handle(Input::Received { channel, from: node(NODES[from]), incarnation: Incarnation(1 << 60), message })
    }
}

fn flight(me: &str, count: usize, now: Time, tape: Option<(Box<dyn Sink>, Limits)>) -> Flight {
    let contact = ContactConfig {
        me: node(me),
        boot: BootId([1; 16]),
        nodes: NODES.iter().map(|n| node(n)).collect(),
        timing: Timing::default(),
        channels: BTreeMap::new(),
    };
    let config = EngineConfig {
        cluster: ClusterName::new("shop").expect("valid"),
        contact,
        incarnation: Incarnation(1 << 60),
        version: "1".to_owned(),
        definition: Fingerprint(1),
        max_recoveries: count,
        can_reset: false,
        standby: None,
        fences: std::collections::BTreeSet::new(),
    };
    let mut flight = Flight::new(config, now, tape).expect("valid");
    for i in 0..count {
        let hierarchy = Arc::new(hierarchy(i));
        let joining = Joining {
            hierarchy,
            lease: None,
            lasting: Lasting::default(),
            running: None,
            proven_until: None,
            probed: false,
        };
        flight.call(now, Call::Join(joining));
    }
    flight
}

/// Answers everything well; what is left is for the other nodes.
fn carry_out(flight: &mut Flight, now: Time) -> Vec<(NodeName, Message)> {
    let mut messages = Vec::new();
    while let Some(effect) = flight.poll_effect() {
        let input = match effect {
            Effect::Send(transmit) => {
                messages.push((transmit.to, transmit.message));
                continue;
            }
            Effect::Acquire { hierarchy, op, request } => {
                let failures = EarlyFailures::default();
                let held = Held { epoch: request.known.next(), tenure: Tenure::UntilRevoked, failures };
                Input::Acquired { hierarchy, op, answer: Ok(held) }
            }
            Effect::Inspect { hierarchy, op } => {
                let holding = Holding { holder: None, epoch: Epoch::ZERO, failures: EarlyFailures::default() };
                Input::Inspected { hierarchy, op, answer: Ok(holding) }
            }
            Effect::Uphold { hierarchy, op, .. } => Input::Upheld { hierarchy, op, answer: Ok(Tenure::UntilRevoked) },
            Effect::Release { hierarchy, op, .. } => Input::Released { hierarchy, op, answer: Ok(()) },
            Effect::Operate { hierarchy, op, .. } => Input::Operated { hierarchy, op, outcome: Outcome::Good },
            _ => continue,
        };
        flight.call(now, Call::Handle(input));
    }
    messages
}

fn a_beat(c: &mut Criterion) {
    let mut group = c.benchmark_group("a beat is received and handed over");
    for (name, recorded) in [("not recorded", false), ("recorded", true)] {
        let mut cluster = Cluster::new(10, recorded, Limits::default());
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    cluster.now = cluster.now + BEAT;
                    for flight in &mut cluster.flights {
                        flight.call(cluster.now, Call::Timeout);
                    }
                    let now = cluster.now;
                    for (to, message) in carry_out(&mut cluster.flights[1], now) {
                        if to.as_str() == "alpha" && matches!(message, Message::Beat(_)) {
                            let input = cluster.received(1, message);
                            let begun = Instant::now();
                            cluster.flights[0].call(now, input);
                            cluster.flights[0].flush();
                            took += begun.elapsed();
                        }
                    }
                    for flight in &mut cluster.flights {
                        carry_out(flight, now);
                        flight.flush();
                    }
                }
                took
            });
        });
    }
    group.finish();
}

/// A segment begins with the state: the only moment at which the recorder takes long.
fn a_segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("a segment begins");
    group.sample_size(10);
    for count in SIZES {
        let mut cluster = Cluster::new(count, true, Limits { segment_bytes: usize::MAX / 8 });
        let mut begin = || {
            let alpha = &mut cluster.flights[0];
            cluster.scales[0].refuses.store(true, Ordering::Relaxed);
            alpha.call(cluster.now, Call::Timeout);
            alpha.flush();
        };
        begin();
        let bytes = cluster.scales[0].state.load(Ordering::Relaxed);
        eprintln!("{count} hierarchies: a segment begins with {bytes} bytes");
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, _| b.iter(&mut begin));
    }
    group.finish();
}

/// Not a time but a size, and so printed once.
fn an_idle_hour(_: &mut Criterion) {
    for count in SIZES {
        let cluster = &mut Cluster::new(count, true, Limits { segment_bytes: usize::MAX / 8 });
        for (i, who) in ["the node that serves all", "a node that serves nothing"].iter().enumerate() {
            let before = cluster.scales[i].calls.load(Ordering::Relaxed);
            for _ in 0..600 {
                cluster.tick();
            }
            let minute = cluster.scales[i].calls.load(Ordering::Relaxed) - before;
            eprintln!("{count} hierarchies, {who}: {:.1} MB in an idle hour", minute as f64 * 60.0 / 1e6);
        }
    }
}

criterion_group!(benches, a_beat, a_segment, an_idle_hour);
criterion_main!(benches);
