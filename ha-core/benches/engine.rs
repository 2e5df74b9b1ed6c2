//! Work of the engine per event: it must depend on the hierarchies that the event concerns, not on how many there are.
#![expect(clippy::expect_used, reason = "a benchmark may stop at anything unexpected")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ha_core::claim::{EarlyFailures, Held, Holding, Tenure};
use ha_core::contact::{ContactConfig, Message, Timing};
use ha_core::engine::{Effect, Engine, EngineConfig, Input, Joining, Lasting};
use ha_core::hierarchy::{Fingerprint, Hierarchy, Monitor, Policy, ResourceSpec, Timeouts};
use ha_core::name::{BootId, ChannelName, ClusterName, Epoch, HierarchyName, Incarnation, NodeName, ResourceName};
use ha_core::recovery::{Operation, Outcome};
use ha_core::time::Time;

const SIZES: [usize; 3] = [10, 1_000, 10_000];

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
        nodes: vec![node("alpha"), node("beta")],
        resources: vec![resource("disk", vec![]), resource("vip", vec![]), resource("server", vec![0, 1])],
        policy: Policy::default(),
        claim: Fingerprint(1),
        fingerprint: Fingerprint(1),
    }
}

/// Two nodes; alpha has everything in service.
struct Pair {
    now: Time,
    alpha: Engine,
    beta: Engine,
    channel: ChannelName,
}

impl Pair {
    fn new(count: usize) -> Self {
        let now = Time::ZERO + Duration::from_secs(1);
        let mut pair = Pair {
            now,
            alpha: engine("alpha", count, now),
            beta: engine("beta", count, now),
            channel: ChannelName::new("net").expect("valid"),
        };
        for _ in 0..100 {
            pair.tick();
        }
        pair
    }

    /// One interval: both beat, everything that is asked for is done at once.
    fn tick(&mut self) {
        self.now = self.now + Duration::from_millis(100);
        self.alpha.handle_timeout(self.now);
        self.beta.handle_timeout(self.now);
        loop {
            let from_alpha = carry_out(&mut self.alpha, self.now);
            let from_beta = carry_out(&mut self.beta, self.now);
            if from_alpha.is_empty() && from_beta.is_empty() {
                return;
            }
            for message in from_alpha {
                deliver(&mut self.beta, "alpha", &self.channel, self.now, message);
            }
            for message in from_beta {
                deliver(&mut self.alpha, "beta", &self.channel, self.now, message);
            }
        }
    }
}

fn engine(me: &str, count: usize, now: Time) -> Engine {
    let contact = ContactConfig {
        me: node(me),
        boot: BootId([1; 16]),
        nodes: vec![node("alpha"), node("beta")],
        timing: Timing::default(),
        channels: BTreeMap::new(),
    };
    let config = EngineConfig {
        cluster: ClusterName::new("shop").expect("valid"),
        contact,
        incarnation: Incarnation(1),
        version: "1".to_owned(),
        definition: Fingerprint(1),
        max_recoveries: count,
        can_reset: false,
        standby: None,
        fences: std::collections::BTreeSet::new(),
    };
    let mut engine = Engine::new(config, now).expect("valid");
    for i in 0..count {
        let hierarchy = Arc::new(hierarchy(i));
        engine.join(
            now,
            Joining {
                hierarchy,
                lease: None,
                lasting: Lasting::default(),
                running: None,
                proven_until: None,
                probed: false,
            },
        );
    }
    engine
}

fn deliver(to: &mut Engine, from: &str, channel: &ChannelName, now: Time, message: Message) {
    let channel = channel.clone();
    to.handle(now, Input::Received { channel, from: node(from), incarnation: Incarnation(1), message });
}

/// Answers everything well; what is left is for the other node.
fn carry_out(engine: &mut Engine, now: Time) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(effect) = engine.poll_effect() {
        let input = match effect {
            Effect::Send(transmit) => {
                messages.push(transmit.message);
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
        engine.handle(now, input);
    }
    messages
}

fn beat_received(c: &mut Criterion) {
    let mut group = c.benchmark_group("a beat is received");
    for count in SIZES {
        let mut pair = Pair::new(count);
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, _| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    pair.now = pair.now + Duration::from_millis(100);
                    pair.alpha.handle_timeout(pair.now);
                    pair.beta.handle_timeout(pair.now);
                    for message in carry_out(&mut pair.beta, pair.now) {
                        deliver(&mut pair.alpha, "beta", &pair.channel, pair.now, message);
                    }
                    for message in carry_out(&mut pair.alpha, pair.now) {
                        let is_beat = matches!(message, Message::Beat(_));
                        let begun = Instant::now();
                        deliver(&mut pair.beta, "alpha", &pair.channel, pair.now, message);
                        if is_beat {
                            took += begun.elapsed();
                        }
                    }
                }
                took
            });
        });
    }
    group.finish();
}

fn operation_ended(c: &mut Criterion) {
    let mut group = c.benchmark_group("an operation ended");
    for count in SIZES {
        let mut pair = Pair::new(count);
        let mut open = Vec::new();
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, _| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    while open.is_empty() {
                        pair.now = pair.now + Duration::from_millis(100);
                        pair.alpha.handle_timeout(pair.now);
                        let mut answers = Vec::new();
                        while let Some(effect) = pair.alpha.poll_effect() {
                            match effect {
                                Effect::Operate { hierarchy, op, operation: Operation::Monitor, .. } => {
                                    open.push((hierarchy, op));
                                }
                                Effect::Uphold { hierarchy, op, .. } => {
                                    answers.push(Input::Upheld { hierarchy, op, answer: Ok(Tenure::UntilRevoked) });
                                }
                                _ => {}
                            }
                        }
                        for answer in answers {
                            pair.alpha.handle(pair.now, answer);
                        }
                    }
                    let (hierarchy, op) = open.pop().expect("not empty");
                    let input = Input::Operated { hierarchy, op, outcome: Outcome::Good };
                    let begun = Instant::now();
                    pair.alpha.handle(pair.now, black_box(input));
                    took += begun.elapsed();
                }
                took
            });
        });
    }
    group.finish();
}

/// The other node, which served everything, is lost: every hierarchy is judged and its claim asked for.
fn peer_lost(c: &mut Criterion) {
    let mut group = c.benchmark_group("the node that served all is lost");
    group.sample_size(10);
    for count in SIZES {
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, _| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    let mut pair = Pair::new(count);
                    let mut asked = 0;
                    while asked == 0 {
                        pair.now = pair.now + Duration::from_millis(100);
                        let begun = Instant::now();
                        pair.beta.handle_timeout(pair.now);
                        let spent = begun.elapsed();
                        while let Some(effect) = pair.beta.poll_effect() {
                            asked += usize::from(matches!(effect, Effect::Acquire { .. }));
                        }
                        if asked > 0 {
                            took += spent;
                        }
                    }
                    assert_eq!(asked, count);
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, beat_received, operation_ended, peer_lost);
criterion_main!(benches);
