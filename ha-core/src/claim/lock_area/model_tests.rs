//! Every interleaving, within bounds, of two nodes that decide owners of one record: each runs the production [`Attempt`],
//! crashes and restarts between any two transfers, and its write in flight at a crash lands, is lost, or lands later.
//!
//! A lease is reduced to what its rules promise: whether it is good, and its term. A node whose lease is not good can be
//! taken for expired by a look at its slot; it may come back at any time, but only under a new term.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::layout::{Committed, Ownership, Record};
use super::lease::first_seq;
use super::paxos::{Attempt, Flaw, Me, Next, Outcome, Standing, Wish};
use crate::name::{BootId, HierarchyName};

const NODES: usize = 2;
const ROUNDS: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Idle,
    Look,
    Slots,
    /// Phase 0 to 2, copy 0 or 1.
    Write(u8, u8),
    Read(u8),
}

#[derive(Clone)]
struct Node {
    boot: u8,
    good: bool,
    term: u8,
    began: u8,
    tries: u8,
    /// Ballots of this try; after a few it gives up, which leaves its accepted value behind.
    rounds: u8,
    at: At,
    attempt: Attempt,
    own: Record,
    fresh: bool,
    seen_expired: [bool; NODES],
    late: Option<(u8, Record)>,
}

#[derive(Clone)]
struct State {
    disk: [[Record; 2]; NODES],
    nodes: [Node; NODES],
    crashes: u8,
    lapses: u8,
    /// Node and term of the holder, as the holder itself believes.
    holder: Option<(u8, u64)>,
    decided: BTreeMap<u64, Committed>,
}

#[derive(Clone, Copy, PartialEq)]
enum Break {
    Nothing,
    Paxos(Flaw),
    OneCopy,
    NoExpiry,
    StaleExpiry,
}

struct Bounds {
    tries: u8,
    crashes: u8,
    lapses: u8,
    states: usize,
}

fn me(i: usize, boot: u8) -> Me {
    Me { slot: i as u8, boot: BootId([boot * 2 + i as u8 + 1; 16]), nodes: NODES as u8 }
}

fn wish() -> Wish {
    Wish::Take { known: 0, adopt: None, beliefs: Arc::default() }
}

fn start() -> State {
    let name = Some(HierarchyName::new("h").unwrap());
    let named = Committed { instance: 1, name, ownership: Ownership::default() };
    let record = Record { seq: 1, instance: 1, mbal: 1, committed: named, ..Record::default() };
    let node = |i| Node {
        boot: 0,
        good: true,
        term: 1,
        began: 0,
        tries: 0,
        rounds: 0,
        at: At::Idle,
        attempt: Attempt::new(me(i, 0), wish(), Record::default()),
        own: Record::default(),
        fresh: true,
        seen_expired: [false; NODES],
        late: None,
    };
    State {
        disk: [[record.clone(), record.clone()], [record.clone(), record]],
        nodes: [node(0), node(1)],
        crashes: 0,
        lapses: 0,
        holder: None,
        decided: BTreeMap::new(),
    }
}

fn shown(disk: &[Record; 2]) -> &Record {
    if disk[1].seq > disk[0].seq { &disk[1] } else { &disk[0] }
}

impl State {
    fn key(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut h = DefaultHasher::new();
        (&self.holder, &self.disk, self.crashes, self.lapses).hash(&mut h);
        for n in &self.nodes {
            (n.boot, n.good, n.term, n.began, n.tries, n.rounds, n.at, &n.own, n.fresh, n.seen_expired, &n.late)
                .hash(&mut h);
            n.attempt.fingerprint(&mut h);
        }
        h.finish()
    }

    fn next(&self, bounds: &Bounds, flaw: Break) -> Result<Vec<State>, String> {
        let mut all = Vec::new();
        for i in 0..NODES {
            if let Some((copy, record)) = &self.nodes[i].late {
                let mut s = self.clone();
                s.disk[i][usize::from(*copy)] = record.clone();
                s.nodes[i].late = None;
                all.push(s);
            }
            if self.nodes[i].at == At::Idle && self.nodes[i].tries == bounds.tries {
                continue;
            }
            if self.crashes < bounds.crashes && self.nodes[i].at != At::Idle {
                all.extend(self.crash(i));
            }
            if self.nodes[i].good && self.lapses < bounds.lapses {
                let mut s = self.clone();
                s.lapses += 1;
                s.nodes[i].good = false;
                s.drop_holder(i);
                all.push(s);
            } else if !self.nodes[i].good {
                let mut s = self.clone();
                s.nodes[i].good = true;
                s.nodes[i].term += 1;
                all.push(s);
            }
            let mut s = self.clone();
            s.step(i, bounds, flaw)?;
            all.push(s);
        }
        Ok(all)
    }

    fn drop_holder(&mut self, i: usize) {
        if self.holder.is_some_and(|(n, _)| usize::from(n) == i) {
            self.holder = None;
        }
    }

    /// The node is reset: what it was writing landed, is lost, or lands some time later (one such write at most).
    fn crash(&self, i: usize) -> Vec<State> {
        let mut base = self.clone();
        base.crashes += 1;
        base.drop_holder(i);
        let node = &mut base.nodes[i];
        let writing = match node.at {
            At::Write(_, copy) => Some((copy, node.attempt.own.clone())),
            _ => None,
        };
        node.boot += 1;
        node.at = At::Idle;
        node.term += 1;
        node.good = true;
        node.fresh = true;
        node.own = Record::default();
        node.attempt = Attempt::new(me(i, node.boot), wish(), Record::default());
        let mut all = vec![base.clone()];
        if let Some((copy, record)) = writing {
            let mut landed = base.clone();
            landed.disk[i][usize::from(copy)] = record.clone();
            all.push(landed);
            if base.nodes[i].late.is_none() {
                base.nodes[i].late = Some((copy, record));
                all.push(base);
            }
        }
        all
    }

    fn step(&mut self, i: usize, bounds: &Bounds, flaw: Break) -> Result<(), String> {
        let others = vec![shown(&self.disk[1 - i]).clone()];
        let good: Vec<bool> = self.nodes.iter().map(|n| n.good).collect();
        let boots: Vec<u8> = self.nodes.iter().map(|n| n.boot).collect();
        let node = &mut self.nodes[i];
        match node.at {
            At::Idle => {
                if !node.good || node.tries == bounds.tries {
                    return Ok(());
                }
                node.tries += 1;
                node.rounds = 0;
                node.began = node.term;
                node.at = At::Look;
                if flaw == Break::StaleExpiry {
                    node.seen_expired = [!good[0], !good[1]];
                }
            }
            At::Look => {
                let mut own = node.own.clone();
                if node.fresh {
                    own = shown(&self.disk[i]).clone();
                    own.seq = first_seq(u64::from(node.boot) + 1, own.seq);
                }
                node.attempt = Attempt::new(me(i, node.boot), wish(), own);
                if let Break::Paxos(flaw) = flaw {
                    node.attempt.flaw = Some(flaw);
                }
                node.attempt.learn(&others);
                node.at = At::Slots;
            }
            At::Slots => {
                if flaw != Break::StaleExpiry {
                    node.seen_expired = [!good[0], !good[1]];
                }
                let seen = node.seen_expired;
                let next = node.attempt.plan(|o| {
                    let (owner, boot) = o.owner.unwrap();
                    let owner = usize::from(owner);
                    let rebooted = boot != me(owner, boots[owner]).boot;
                    if seen[owner] || rebooted || flaw == Break::NoExpiry {
                        return Standing::Expired;
                    }
                    Standing::Alive { retry_at: None, why: String::new() }
                });
                node.go(next, At::Write(0, 0));
                self.decided(i)?;
            }
            At::Write(phase, copy) => {
                if copy == 0 {
                    node.own = node.attempt.own.clone();
                    node.fresh = false;
                }
                self.disk[i][usize::from(copy)] = node.attempt.own.clone();
                if copy == 0 && flaw != Break::OneCopy {
                    node.at = At::Write(phase, 1);
                } else if phase < 2 {
                    node.at = At::Read(phase);
                } else {
                    let next = node.attempt.conclude();
                    let own = (node.good && node.term == node.began).then_some(next.clone());
                    node.go(next, At::Idle);
                    self.decided(i)?;
                    if let Some(Next::Done(Outcome::Owned(o))) = own {
                        return self.hold(i, o.epoch);
                    }
                }
            }
            At::Read(phase) => {
                let next = if phase == 0 { node.attempt.accept(&others) } else { node.attempt.decide(&others) };
                node.go(next, At::Write(phase + 1, 0));
            }
        }
        Ok(())
    }

    fn hold(&mut self, i: usize, epoch: u64) -> Result<(), String> {
        if let Some((other, held)) = self.holder
            && usize::from(other) != i
        {
            return Err(format!("node {i} holds epoch {epoch} while node {other} holds epoch {held}"));
        }
        self.holder = Some((i as u8, epoch));
        Ok(())
    }

    /// What a node takes for decided must be the same for all, for ever.
    fn decided(&mut self, i: usize) -> Result<(), String> {
        let known = self.nodes[i].attempt.known.clone();
        let first = self.decided.entry(known.instance).or_insert_with(|| known.clone());
        if *first != known {
            return Err(format!("instance {}: {:?} and {:?}", known.instance, first.ownership, known.ownership));
        }
        Ok(())
    }
}

impl Node {
    #[expect(clippy::needless_pass_by_value, reason = "it is taken, never looked at again")]
    fn go(&mut self, next: Next, write: At) {
        self.at = match next {
            Next::Write => {
                self.attempt.own.seq += 1;
                write
            }
            Next::Again { .. } if self.rounds < ROUNDS => {
                self.rounds += 1;
                At::Slots
            }
            Next::Again { .. } | Next::Done(_) => At::Idle,
        };
    }
}

/// Breadth first; how many states, or the first violation.
fn check(bounds: &Bounds, flaw: Break) -> Result<usize, String> {
    let first = start();
    let mut seen = HashSet::from([first.key()]);
    let mut queue = VecDeque::from([first]);
    while let Some(state) = queue.pop_front() {
        for next in state.next(bounds, flaw)? {
            if seen.len() < bounds.states && seen.insert(next.key()) {
                queue.push_back(next);
            }
        }
    }
    Ok(seen.len())
}

/// For a longer check: `LOCK_AREA_STATES=5000000 cargo test --release -p ha-core lock_area::model_tests`.
fn states() -> usize {
    std::env::var("LOCK_AREA_STATES").ok().and_then(|s| s.parse().ok()).unwrap_or(200_000)
}

#[test]
fn agreement_survives_crashes_late_writes_and_lapses() {
    for (tries, crashes, lapses) in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1), (2, 0, 2), (3, 1, 0), (2, 2, 0)] {
        let bounds = Bounds { tries, crashes, lapses, states: states() };
        let seen = check(&bounds, Break::Nothing).unwrap();
        let how = if seen < bounds.states { "all" } else { "the first" };
        println!("tries {tries}, crashes {crashes}, lapses {lapses}: {how} {seen} states");
        assert!(seen > 500, "the check must look at something: {seen}");
    }
}

/// A check that cannot fail proves nothing: each rule switched off must show up.
#[test]
fn the_check_notices_each_rule_that_is_broken() {
    let flaws = [
        ("ballots", Break::Paxos(Flaw::IgnoreBallots), (1, 0, 0)),
        ("accepted values", Break::Paxos(Flaw::IgnoreAccepted), (1, 0, 0)),
        ("expiry", Break::NoExpiry, (1, 0, 0)),
        ("two copies", Break::OneCopy, (2, 1, 0)),
        ("a fresh look at the slots", Break::StaleExpiry, (2, 0, 1)),
    ];
    for (what, flaw, (tries, crashes, lapses)) in flaws {
        let found = check(&Bounds { tries, crashes, lapses, states: 400_000 }, flaw);
        assert!(found.is_err(), "without the rule about {what} the check should find a violation");
    }
}
