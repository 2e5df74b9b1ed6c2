//! Whole machines over one simulated disk: delays, lost and late writes, torn runs, pauses, crashes, clocks of different
//! rates and offsets. After every event: no node was given a claim before the tenure of its former holder had ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::device::IoFailure;
use super::layout::{AreaId, Copy2, Header, Record, newest};
use super::machine::{Answer, Config, Effect, Input, Machine, Request, RequestId};
use super::timing::LeaseTiming;
use crate::claim::{Acquire, EarlyFailures, Tenure};
use crate::name::{BootId, Epoch, HierarchyName, Incarnation, NodeName};
use crate::time::Time;

pub(super) fn fast_header(nodes: usize, hierarchies: u32) -> Header {
    let ms = Duration::from_millis;
    Header {
        id: AreaId([3; 16]),
        block_size: 512,
        nodes: (0..nodes).map(|i| NodeName::new(format!("n{i}")).unwrap()).collect(),
        hierarchies,
        timing: LeaseTiming::new(ms(50), ms(400), ms(200), ms(100)).unwrap(),
    }
}

pub(super) fn take() -> Acquire {
    Acquire { beliefs: Arc::default(), known: Epoch::ZERO, adopt: None }
}

pub(super) fn name(i: usize) -> HierarchyName {
    HierarchyName::new(format!("h{i}")).unwrap()
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct Node {
    machine: Machine,
    life: u64,
    offset: u64,
    /// Local nanoseconds for 1,000 of the world's.
    rate: u64,
    paused_until: u64,
    up: bool,
    boots: u64,
    asked: BTreeMap<RequestId, usize>,
    until: Option<Time>,
    /// Which lease, counted: what was held on an earlier one ended with it.
    lapsed: u64,
}

enum Event {
    Land { offset: u64, bytes: Vec<u8> },
    Deliver { node: usize, life: u64, input: Input },
    ReadNow { node: usize, life: u64, tag: super::machine::Tag, offset: u64, len: usize, answer_at: u64 },
    Tick { node: usize, life: u64 },
    Act,
}

struct Tenancy {
    node: usize,
    life: (u64, u64),
    epoch: Epoch,
}

struct World {
    header: Header,
    now: u64,
    order: u64,
    events: BTreeMap<(u64, u64), Event>,
    disk: Vec<u8>,
    nodes: Vec<Node>,
    rng: Rng,
    holders: BTreeMap<usize, Tenancy>,
    epochs: BTreeMap<usize, Epoch>,
    next: u64,
    faults: bool,
    acquired: u64,
    takeovers: u64,
    seed: u64,
    /// World time by which the former holder's resources are certainly stopped, or its node reset.
    over_at: BTreeMap<(usize, (u64, u64)), u64>,
    hierarchies: usize,
    /// To whom each was handed last: an heir is told by other means.
    heirs: BTreeMap<usize, usize>,
    /// Nobody asks for anything.
    quiet: bool,
}

const MS: u64 = 1_000_000;

impl World {
    fn new(seed: u64, nodes: usize, hierarchies: usize, room: u32) -> World {
        let header = fast_header(nodes, room);
        let mut world = World {
            disk: vec![0; header.area_len() as usize],
            now: 1_000 * MS,
            order: 0,
            events: BTreeMap::new(),
            nodes: Vec::new(),
            rng: Rng(seed),
            holders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            next: 0,
            faults: true,
            acquired: 0,
            takeovers: 0,
            seed,
            over_at: BTreeMap::new(),
            hierarchies,
            heirs: BTreeMap::new(),
            quiet: false,
            header,
        };
        for i in 0..nodes {
            let offset = world.rng.below(1 << 40);
            let rate = 990 + world.rng.below(21);
            let machine = world.machine(i, 1, 1);
            world.nodes.push(Node {
                machine,
                life: 1,
                offset,
                rate,
                paused_until: 0,
                up: true,
                boots: 1,
                asked: BTreeMap::new(),
                until: None,
                lapsed: 0,
            });
            world.at(world.now, Event::Tick { node: i, life: 1 });
        }
        world.at(world.now, Event::Act);
        world
    }

    fn machine(&mut self, node: usize, boot: u64, life: u64) -> Machine {
        let mut id = [node as u8 + 1; 16];
        id[..8].copy_from_slice(&boot.to_le_bytes());
        let config = Config {
            node: self.header.nodes[node].clone(),
            boot: BootId(id),
            incarnation: Incarnation(life),
            seed: self.rng.below(u64::MAX),
        };
        Machine::new(self.header.clone(), &config).unwrap()
    }

    fn at(&mut self, when: u64, event: Event) {
        self.order += 1;
        self.events.insert((when.max(self.now), self.order), event);
    }

    fn local(&self, node: usize) -> Time {
        let n = &self.nodes[node];
        Time(n.offset + self.now / 1_000 * n.rate)
    }

    fn world_of(&self, node: usize, local: Time) -> u64 {
        let n = &self.nodes[node];
        (local.0.saturating_sub(n.offset)).div_ceil(n.rate) * 1_000
    }

    fn feed(&mut self, node: usize, input: Input) {
        let now = self.local(node);
        self.nodes[node].machine.handle(now, input);
        let due = self.nodes[node].machine.next_deadline();
        assert!(due.is_none_or(|at| at > now), "node {node} would be called again and again: {due:?} at {now:?}");
        let life = self.nodes[node].life;
        while let Some(effect) = self.nodes[node].machine.poll_effect() {
            match effect {
                Effect::Read { tag, offset, len, bound } => self.read(node, life, tag, offset, len, bound),
                Effect::Write { tag, offset, bytes, bound } => self.write(node, life, tag, offset, bytes, bound),
                Effect::Answer(id, answer) => self.answered(node, id, answer),
                Effect::News(news) => {
                    // A tenure is prolonged by every renewal.
                    self.nodes[node].until = news.until;
                    self.nodes[node].lapsed = news.lapsed;
                    if let Some(until) = news.until {
                        self.prolong(node, until);
                    }
                }
            }
        }
        if let Some(at) = self.nodes[node].machine.next_deadline() {
            let when = self.world_of(node, at).max(self.now + 1_000);
            self.at(when, Event::Tick { node, life });
        }
    }

    fn prolong(&mut self, node: usize, until: Time) {
        let watchdog = self.header.timing.watchdog().as_nanos() as u64;
        let over = self.world_of(node, until) + watchdog;
        let life = (self.nodes[node].boots, self.nodes[node].lapsed);
        let entry = self.over_at.entry((node, life)).or_default();
        *entry = (*entry).max(over);
    }

    fn latency(&mut self) -> u64 {
        if self.faults && self.rng.below(60) == 0 {
            return self.rng.below(900) * MS;
        }
        MS / 5 + self.rng.below(4 * MS)
    }

    fn read(&mut self, node: usize, life: u64, tag: super::machine::Tag, offset: u64, len: usize, bound: Duration) {
        let (start, back) = (self.latency() / 2, self.latency() / 2);
        let bound = self.now + bound.as_nanos() as u64;
        let answer_at = self.now + start + back;
        if answer_at > bound {
            let input = Input::Read(tag, Err(IoFailure::NoAnswer));
            return self.at(bound, Event::Deliver { node, life, input });
        }
        self.at(self.now + start, Event::ReadNow { node, life, tag, offset, len, answer_at });
    }

    /// A write lands block by block, at once or late; the answer comes after it, or never.
    fn write(
        &mut self,
        node: usize,
        life: u64,
        tag: super::machine::Tag,
        offset: u64,
        bytes: Vec<u8>,
        bound: Duration,
    ) {
        let bound = self.now + bound.as_nanos() as u64;
        let mut landed = self.now;
        let lost = self.faults && self.rng.below(200) == 0;
        for (i, block) in bytes.chunks(512).enumerate() {
            let when = self.now + self.latency();
            landed = landed.max(when);
            let at = offset + i as u64 * 512;
            if !lost || self.rng.below(2) == 0 {
                self.at(when, Event::Land { offset: at, bytes: block.to_vec() });
            }
        }
        let answer_at = landed + self.latency() / 2;
        let (when, result) = match lost {
            true => (bound, Err(IoFailure::NoAnswer)),
            false if answer_at > bound => (bound, Err(IoFailure::NoAnswer)),
            false => (answer_at, Ok(())),
        };
        self.at(when, Event::Deliver { node, life, input: Input::Written(tag, result) });
    }

    fn answered(&mut self, node: usize, id: RequestId, answer: Answer) {
        let Some(h) = self.nodes[node].asked.remove(&id) else { return };
        match answer {
            Answer::Acquired(held) => {
                let Tenure::Until(until) = held.tenure else { panic!("a lease has an end") };
                self.prolong(node, until);
                let boots = (self.nodes[node].boots, self.nodes[node].lapsed);
                if let Some(former) = self.holders.get(&h)
                    && (former.node, former.life) != (node, boots)
                    && former.node != node
                {
                    let over = self.over_at[&(former.node, former.life)];
                    assert!(
                        over <= self.now,
                        "S1: seed {}: n{node} got h{h} at {} ms while n{} holds it until {} ms; replay: LOCK_AREA_SEED={} \
                         cargo test -p ha-core lock_area::sim_tests",
                        self.seed,
                        self.now / MS,
                        former.node,
                        over / MS,
                        self.seed
                    );
                    self.takeovers += 1;
                }
                let greatest = self.epochs.entry(h).or_default();
                assert!(held.epoch > *greatest, "S4: seed {}: epoch {} after {greatest}", self.seed, held.epoch);
                *greatest = held.epoch;
                self.acquired += 1;
                self.holders.insert(h, Tenancy { node, life: boots, epoch: held.epoch });
            }
            _ => {}
        }
    }

    fn ask(&mut self, node: usize, h: usize, request: Request) {
        self.next += 1;
        let id = RequestId(self.next);
        self.nodes[node].asked.insert(id, h);
        self.feed(node, Input::Ask(id, request));
    }

    fn act(&mut self) {
        if self.quiet {
            return;
        }
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let h = self.rng.below(self.hierarchies as u64) as usize;
        let paused = self.nodes[node].paused_until > self.now;
        let up = self.nodes[node].up && !paused;
        match self.rng.below(if self.faults { 100 } else { 60 }) {
            0..40 if up => {
                let busy = self.nodes[node].asked.values().any(|x| *x == h);
                let good = self.nodes[node].until.is_some_and(|u| u > self.local(node));
                let mine = self.holders.get(&h).is_some_and(|t| t.node == node && good);
                if !busy && !mine {
                    self.ask(node, h, Request::Acquire(name(h), take()));
                }
            }
            40..60 if up => {
                let epoch = self.holders.get(&h).filter(|t| t.node == node).map(|t| t.epoch);
                let busy = self.nodes[node].asked.values().any(|x| *x == h);
                if let (Some(epoch), false) = (epoch, busy) {
                    let heir = (self.rng.below(2) == 0)
                        .then(|| self.header.nodes[self.rng.below(self.nodes.len() as u64) as usize].clone());
                    let heir = heir.filter(|n| *n != self.header.nodes[node]);
                    let failures = EarlyFailures::default();
                    self.heirs.extend(heir.as_ref().and_then(|heir| Some((h, self.header.slot_of(heir)?))));
                    // Everything is stopped before a claim is given up: the tenancy ends with the request.
                    self.holders.remove(&h);
                    self.ask(node, h, Request::Release { hierarchy: name(h), epoch, heir, failures });
                }
            }
            60..63 => {
                let n = &mut self.nodes[node];
                n.up = false;
                n.life += 1;
                n.asked.clear();
                n.until = None;
                // A node that is reset stops there and then.
                let boots = (n.boots, n.lapsed);
                self.over_at.insert((node, boots), self.now);
            }
            63..75 if !self.nodes[node].up => {
                self.nodes[node].boots += 1;
                let (boots, life) = (self.nodes[node].boots, self.nodes[node].life);
                self.nodes[node].machine = self.machine(node, boots, life);
                self.nodes[node].up = true;
                self.nodes[node].lapsed = 0;
                self.feed(node, Input::Tick);
            }
            75..78 if up => self.nodes[node].paused_until = self.now + self.rng.below(1_500) * MS,
            _ => {}
        }
        let when = self.now + self.rng.below(30 * MS);
        self.at(when, Event::Act);
    }

    /// What was decided in favour of a node that was told otherwise would stay with it for ever.
    fn nobody_owns_without_knowing(&self) {
        for number in 0..self.header.hierarchies {
            let read = |node: usize, copy| {
                let at = self.header.record_at(node, copy, number) as usize;
                Record::decode(&self.disk[at..at + 512], &self.header, node, number)
            };
            let records = (0..self.nodes.len())
                .filter_map(|node| newest(read(node, Copy2::A), read(node, Copy2::B), |r| r.seq).unwrap());
            let Some(known) = records.map(|r| r.committed).max_by_key(|c| c.instance) else { continue };
            let (Some(name), Some((slot, _))) = (known.name, known.ownership.owner) else { continue };
            let slot = usize::from(slot);
            let told = self.holders.iter().any(|(h, t)| (super::sim_tests::name(*h), t.node) == (name.clone(), slot))
                || self.heirs.iter().any(|(h, heir)| (super::sim_tests::name(*h), *heir) == (name.clone(), slot));
            assert!(told, "seed {}: {name} belongs to n{slot}, which does not know", self.seed);
        }
    }

    fn step(&mut self) {
        let ((when, _), event) = self.events.pop_first().unwrap();
        self.now = when;
        match event {
            Event::Land { offset, bytes } => {
                self.disk[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
            }
            Event::ReadNow { node, life, tag, offset, len, answer_at } => {
                let bytes = self.disk[offset as usize..offset as usize + len].to_vec();
                self.at(answer_at, Event::Deliver { node, life, input: Input::Read(tag, Ok(bytes)) });
            }
            Event::Deliver { node, life, input } => {
                let n = &self.nodes[node];
                if !n.up || n.life != life {
                    return;
                }
                if n.paused_until > self.now {
                    return self.at(self.nodes[node].paused_until, Event::Deliver { node, life, input });
                }
                self.feed(node, input);
            }
            Event::Tick { node, life } => {
                let n = &self.nodes[node];
                let due = n.machine.next_deadline().is_some_and(|at| at <= self.local(node));
                if n.up && n.life == life && n.paused_until <= self.now && (due || !n.machine.has_entered()) {
                    self.feed(node, Input::Tick);
                } else if n.up && n.life == life && n.paused_until > self.now {
                    self.at(self.nodes[node].paused_until, Event::Tick { node, life });
                }
            }
            Event::Act => self.act(),
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut world = World::new(seed, 3 + (seed % 3) as usize, 4, 16);
    let storm = world.now + 40_000 * MS;
    while world.now < storm {
        world.step();
    }
    // Healing: everything is repaired, and every hierarchy must be taken by somebody within a bound.
    world.faults = false;
    for node in 0..world.nodes.len() {
        world.nodes[node].paused_until = 0;
        if !world.nodes[node].up {
            world.nodes[node].boots += 1;
            let (boots, life) = (world.nodes[node].boots, world.nodes[node].life);
            world.nodes[node].machine = world.machine(node, boots, life);
            world.nodes[node].up = true;
            world.nodes[node].lapsed = 0;
            world.feed(node, Input::Tick);
        }
    }
    let (before, end) = (world.acquired, world.now + 20_000 * MS);
    while world.now < end {
        world.step();
    }
    let held: BTreeSet<_> = world.epochs.keys().collect();
    assert_eq!(held.len(), 4, "seed {seed}: some hierarchy was never acquired");
    assert!(world.acquired > before, "seed {seed}: nothing is acquired after everything was repaired");
    world.quiet = true;
    let end = world.now + 5_000 * MS;
    while world.now < end {
        world.step();
    }
    world.nobody_owns_without_knowing();
    (world.acquired, world.takeovers)
}

#[test]
fn no_claim_is_given_before_the_former_tenure_is_over() {
    let one = std::env::var("LOCK_AREA_SEED").ok().and_then(|s| s.parse().ok());
    let seeds = one.map_or(1..13, |s: u64| s..s + 1);
    let (mut acquired, mut takeovers) = (0, 0);
    for seed in seeds {
        let (a, t) = run(seed);
        acquired += a;
        takeovers += t;
    }
    assert!(acquired > 50 && takeovers > 10, "too little happened: {acquired} acquired, {takeovers} taken over");
}

#[test]
fn an_area_holds_as_many_hierarchies_as_it_has_records_in_whatever_order_they_are_named() {
    let mut in_vain = 0;
    for seed in 1..9 {
        let mut world = World::new(seed, 3, 8, 8);
        let mut until = |world: &mut World, ms: u64| {
            let end = world.now + ms * MS;
            while world.now < end {
                world.step();
                in_vain += u64::from(world.nodes.iter().any(|n| !n.machine.in_vain.is_empty()));
            }
        };
        world.quiet = true;
        until(&mut world, 3_000);
        for node in 0..3 {
            for h in 0..8 {
                world.ask(
                    node,
                    (h * (2 * node + 1) + node) % 8,
                    Request::Acquire(name((h * (2 * node + 1) + node) % 8), take()),
                );
            }
        }
        until(&mut world, 1_000);
        world.quiet = false;
        world.at(world.now, Event::Act);
        until(&mut world, 20_000);
        assert_eq!(world.epochs.len(), 8, "seed {seed}: the area is full of names that were given twice");
    }
    assert!(in_vain > 0, "no name was ever given twice: this shows nothing");
}

#[test]
fn writes_of_an_agents_earlier_life_that_land_late_are_written_over() {
    let mut world = World::new(1, 1, 1, 16);
    (world.faults, world.quiet) = (false, true);
    let until = |world: &mut World, ms: u64| {
        let end = world.now + ms * MS;
        while world.now < end {
            world.step();
        }
    };
    until(&mut world, 2_000);
    let slots = Copy2::BOTH.map(|copy| world.header.slot_at(0, copy) as usize);
    let late = slots.map(|at| world.disk[at..at + 512].to_vec());
    world.nodes[0].life = 2;
    world.nodes[0].machine = world.machine(0, 1, 2);
    (world.nodes[0].until, world.nodes[0].lapsed) = (None, 0);
    world.feed(0, Input::Tick);
    until(&mut world, 2_000);
    for (at, bytes) in slots.into_iter().zip(late) {
        world.disk[at..at + 512].copy_from_slice(&bytes);
    }
    until(&mut world, 2_000);
    assert!(world.nodes[0].until.is_some_and(|until| until > world.local(0)), "the name is not used by another node");
}
