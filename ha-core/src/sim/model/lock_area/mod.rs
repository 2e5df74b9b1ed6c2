//! The lock area's machine, whole, on two or three nodes over one record: every interleaving of their transfers, with resets, deaths of
//! agents, lapses of leases and failing transfers between any two of them, and writes that land, are lost, torn, or land much later.
//!
//! Production code: [`Machine`](crate::claim::lock_area::machine::Machine) with its batches, ballots, on-disk format and copies. Supposed instead of computed:
//! - **The lease.** It is good or not. While it is not, the node runs nothing, and the others can find its slot expired. It can be entered
//!   anew at any time, under a new term. (That real times keep this promise is for the simulation and the tests of the lease.)
//! - **Times.** A pause after a lost ballot, and the wait before something abandoned is given up, take any time.
//! - **A restart** follows at once; a node that is down for longer is one that takes no step.
//! - **A late write.** A node has one write of an earlier life on its way at most. One of a life that goes on lands before the next
//!   write of that life, if it lands: the device keeps the order.

mod bounds;
mod node;
mod truth;

use std::collections::{BTreeMap, HashMap};

pub use bounds::{Bounds, Flaw};
use node::{Ask, Blocks, Fate, Local, Memo, Stimulus};
use truth::Truth;

use super::explore::Model;
use super::intern::{Interner, print_of};
use super::{Answered, Output};
use crate::claim::lock_area::Header;
use crate::claim::lock_area::layout::{AreaId, Copy2};
use crate::claim::lock_area::supposed::Sight;
use crate::claim::lock_area::timing::LeaseTiming;
use crate::name::{BootId, HierarchyName, Incarnation, NodeName};

/// The most nodes that a model has room for.
pub const NODES_MAX: usize = 3;

/// A node left alone must have the claim after so many steps, or it never will.
const ALONE_STEPS: usize = 300;

/// A write that may still land.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Late {
    copy: u8,
    block: u32,
    /// Of the life that goes on: it lands before that life's next write, or never.
    of_this_life: bool,
}

/// One node, its part of the disk included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    local: u32,
    copies: [u32; 2],
    late: Option<Late>,
    /// Its lease stands.
    good: bool,
    /// The epoch under which its resources run, as it believes; 0 when nothing runs.
    tenure: u8,
    /// Its agent died: the tenure has to be confirmed first.
    recalled: bool,
    asked: Option<Ask>,
    boot: u8,
    life: u8,
    tries: u8,
    /// What its slots showed when it was asked, for the flaw that goes on believing that.
    seen_then: u8,
}

/// The whole cluster.
#[derive(Clone, Debug)]
pub struct State {
    nodes: [Node; NODES_MAX],
    crashes: u8,
    lapses: u8,
    failures: u8,
    truth: Truth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Ask(Ask),
    /// The transfer under way is carried out and answered.
    Transfer,
    /// No answer comes; a write may have been carried out all the same.
    NoAnswer(Fate),
    Due,
    Lapse,
    Renew,
    Reset(Fate),
    AgentDies(Fate),
    Lands,
}

/// The lock area's machine, to be explored.
pub struct LockAreaModel {
    bounds: Bounds,
    header: Header,
    locals: Interner<Local>,
    blocks: Blocks,
    memo: Memo,
    /// How many steps a node needs that is left alone, by what it depends on.
    alone: HashMap<u128, u16>,
    /// The most steps that a node needed which was left alone.
    pub longest_alone: u16,
    /// How often a node was told that it has the claim.
    pub acquired: u64,
}

impl LockAreaModel {
    /// A cluster within `bounds`.
    ///
    /// # Panics
    /// If there are no nodes, or more than [`NODES_MAX`].
    #[expect(clippy::expect_used, reason = "constant names and times, checked by every test")]
    pub fn new(bounds: Bounds) -> LockAreaModel {
        assert!((1..=NODES_MAX).contains(&bounds.nodes), "1 to {NODES_MAX} nodes");
        let name = |i| NodeName::new(["alpha", "beta", "gamma"][i]).expect("a valid name");
        let header = Header {
            id: AreaId([7; 16]),
            block_size: 512,
            nodes: (0..bounds.nodes).map(name).collect(),
            hierarchies: 1,
            timing: LeaseTiming::default(),
        };
        LockAreaModel {
            blocks: Blocks::new(header.clone()),
            header,
            bounds,
            locals: Interner::default(),
            memo: Memo { flaw: bounds.flaw, ..Memo::default() },
            alone: HashMap::new(),
            longest_alone: 0,
            acquired: 0,
        }
    }

    /// How many different states the machines themselves were in, and how many different blocks were written.
    pub fn parts(&self) -> (usize, usize) {
        (self.locals.len(), self.blocks.len())
    }

    fn fresh(&mut self, i: usize, boot: u8, life: u8) -> u32 {
        let counted = if self.bounds.flaw == Some(Flaw::NoJump) { 1 } else { life };
        let local = Local::new(&self.header, i, sight_of(i, boot, life, false), u64::from(counted));
        self.locals.put(local.identity(&self.blocks).as_bytes(), || local)
    }

    /// What the slots show at the moment.
    fn sights(&self, state: &State, i: usize) -> Vec<Sight> {
        let of = |(j, n): (usize, &Node)| {
            let seen_then = state.nodes[i].seen_then & 1 << j != 0;
            let expired = match self.bounds.flaw {
                Some(Flaw::NoExpiry) => true,
                Some(Flaw::StaleSight) => seen_then,
                _ => !n.good,
            };
            sight_of(j, n.boot, n.life, expired && j != i)
        };
        state.nodes[..self.bounds.nodes].iter().enumerate().map(of).collect()
    }

    /// Has the machine of node `i` take something in, and looks at what comes of it.
    fn stir(&mut self, state: &mut State, i: usize, stimulus: Stimulus) -> Result<(), String> {
        let sights = self.sights(state, i);
        let disk: Vec<[u32; 2]> = state.nodes[..self.bounds.nodes].iter().map(|n| n.copies).collect();
        let node = state.nodes[i].local;
        let Output { local, answer } =
            self.memo.stir(&mut self.locals, &mut self.blocks, node, stimulus, &sights, &disk, i)?;
        state.nodes[i].local = local;
        if let Some(block) = self.locals.get(local).writing() {
            if state.nodes[i].late.is_some_and(|l| l.of_this_life) {
                state.nodes[i].late = None;
            }
            let committed = self.blocks.record(block).committed.clone();
            state.truth.told(&committed, &mut self.blocks.values).map_err(|e| format!("{}: {e}", name(i)))?;
        }
        match answer {
            Some(answer) => self.answered(state, i, &answer),
            None => Ok(()),
        }
    }

    fn answered(&mut self, state: &mut State, i: usize, answer: &Answered) -> Result<(), String> {
        let node = &mut state.nodes[i];
        let asked = node.asked.take();
        let recalled = std::mem::take(&mut node.recalled);
        match (asked, answer) {
            (Some(Ask::Take), Answered::Acquired(epoch)) => {
                self.acquired += 1;
                let epoch = *epoch;
                let confirmed = recalled && node.tenure == epoch;
                node.tenure = epoch;
                let boot = boot_of(i, node.boot);
                if let Some(other) = (0..self.bounds.nodes).find(|j| *j != i && state.nodes[*j].tenure > 0) {
                    let theirs = state.nodes[other].tenure;
                    return Err(format!(
                        "{} acquires epoch {epoch} while {} runs under epoch {theirs}",
                        name(i),
                        name(other)
                    ));
                }
                state.truth.acquired((i as u8, boot), epoch, confirmed, &self.blocks.values)
            }
            (Some(Ask::Take), Answered::Refused(_)) if recalled => {
                // What ran under it is stopped.
                node.tenure = 0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn apply(&mut self, state: &State, i: usize, what: What) -> Result<State, String> {
        let mut next = state.clone();
        let node = &mut next.nodes[i];
        match what {
            What::Ask(ask) => {
                node.tries += 1;
                node.asked = Some(ask);
                let good = |s: &State| (0..self.bounds.nodes).filter(|j| !s.nodes[*j].good).fold(0, |m, j| m | 1 << j);
                if self.bounds.flaw == Some(Flaw::StaleSight) {
                    next.nodes[i].seen_then = good(state);
                }
                let node = &mut next.nodes[i];
                let adopt = node.recalled.then_some(node.tenure);
                if ask != Ask::Take && self.bounds.flaw != Some(Flaw::ReleaseWhileRunning) {
                    // Everything is stopped before the claim is given up.
                    node.tenure = 0;
                }
                let epoch = state.nodes[i].tenure;
                self.stir(&mut next, i, Stimulus::Ask { ask, adopt, epoch })?;
            }
            What::Transfer => {
                self.carry_out(&mut next, i, Fate::Landed);
                self.stir(&mut next, i, Stimulus::Done)?;
            }
            What::NoAnswer(fate) => {
                next.failures += 1;
                self.carry_out(&mut next, i, fate);
                if let Some(late) = &mut next.nodes[i].late {
                    late.of_this_life |= fate == Fate::Late;
                }
                self.stir(&mut next, i, Stimulus::NoAnswer)?;
            }
            What::Due => self.stir(&mut next, i, Stimulus::Due)?,
            What::Lapse => {
                next.lapses += 1;
                node.good = false;
                node.tenure = 0;
                node.recalled = false;
                self.stir(&mut next, i, Stimulus::Lapsed)?;
            }
            What::Renew => {
                node.good = true;
                let same_term = self.bounds.flaw == Some(Flaw::LapseForgotten);
                self.stir(&mut next, i, Stimulus::Renewed { same_term })?;
            }
            What::Reset(fate) | What::AgentDies(fate) => {
                next.crashes += 1;
                self.carry_out(&mut next, i, fate);
                let node = &mut next.nodes[i];
                if let Some(late) = &mut node.late {
                    late.of_this_life = false;
                }
                node.asked = None;
                node.good = true;
                node.life += 1;
                if matches!(what, What::Reset(_)) {
                    node.boot += 1;
                    node.tenure = 0;
                }
                node.recalled = node.tenure > 0;
                let (boot, life) = (node.boot, node.life);
                next.nodes[i].local = self.fresh(i, boot, life);
            }
            What::Lands => {
                if let Some(late) = node.late.take() {
                    node.copies[usize::from(late.copy)] = late.block;
                }
            }
        }
        Ok(next)
    }

    /// What becomes of a write under way.
    fn carry_out(&mut self, state: &mut State, i: usize, fate: Fate) {
        let Some((copy, block)) = self.locals.get(state.nodes[i].local).write() else { return };
        let node = &mut state.nodes[i];
        let place = &mut node.copies[usize::from(copy)];
        match fate {
            Fate::Landed if copy == Copy2::B as u8 && self.bounds.flaw == Some(Flaw::OneCopy) => {}
            Fate::Landed => *place = block,
            Fate::Lost => {}
            Fate::Torn => *place = Blocks::TORN,
            Fate::Late => node.late = Some(Late { copy, block, of_this_life: false }),
        }
    }

    fn whats(&self, state: &State) -> Vec<(usize, What)> {
        let bounds = &self.bounds;
        let mut all = Vec::new();
        for (i, node) in state.nodes[..bounds.nodes].iter().enumerate() {
            let local = self.locals.get(node.local);
            let writes = local.write().is_some();
            let mut fates = vec![Fate::Lost];
            if writes {
                fates.push(Fate::Landed);
                fates.extend(bounds.torn.then_some(Fate::Torn));
                fates.extend((bounds.late && node.late.is_none()).then_some(Fate::Late));
            }
            if node.late.is_some() {
                all.push((i, What::Lands));
            }
            if local.is_busy() && local.machine.rounds() <= bounds.rounds {
                all.push((i, What::Transfer));
                if state.failures < bounds.failures {
                    all.extend(fates.iter().map(|f| (i, What::NoAnswer(*f))));
                }
            }
            if local.machine.due().is_some() && local.machine.rounds() <= bounds.rounds {
                all.push((i, What::Due));
            }
            if node.good && state.lapses < bounds.lapses {
                all.push((i, What::Lapse));
            }
            if !node.good {
                all.push((i, What::Renew));
            }
            let idle = !local.is_busy() && node.tenure == 0 && node.tries == bounds.tries[i];
            if state.crashes < bounds.crashes && !idle {
                all.extend(fates.iter().map(|f| (i, What::Reset(*f))));
                all.extend(fates.iter().map(|f| (i, What::AgentDies(*f))));
            }
            if node.asked.is_none() && node.good && node.tries < bounds.tries[i] {
                if node.tenure == 0 || node.recalled {
                    all.push((i, What::Ask(Ask::Take)));
                } else {
                    all.push((i, What::Ask(Ask::Release { heir: None })));
                    let heirs = (0..bounds.nodes).filter(|j| *j != i && bounds.heirs);
                    all.extend(heirs.map(|j| (i, What::Ask(Ask::Release { heir: Some(j as u8) }))));
                }
            }
        }
        all
    }

    /// Whether node `i` gets the claim when all others are dead from now on and nothing fails any more.
    fn alone(&mut self, state: &State, i: usize) -> Result<(), String> {
        let mut alone = state.clone();
        for (_, node) in alone.nodes.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            node.good = false;
            node.tenure = 0;
        }
        let mut way = Vec::new();
        let left = loop {
            let key = self.alone_key(&alone, i);
            if let Some(left) = self.alone.get(&key) {
                break *left;
            }
            way.push(key);
            if way.len() > ALONE_STEPS {
                return Err(format!("{} does not get the claim although all others are dead", name(i)));
            }
            let node = alone.nodes[i];
            let what = if !node.good {
                What::Renew
            } else if self.locals.get(node.local).is_busy() {
                What::Transfer
            } else if node.asked.is_some() {
                What::Due
            } else if node.tenure > 0 && !node.recalled {
                break 0;
            } else {
                What::Ask(Ask::Take)
            };
            alone.nodes[i].tries = 0;
            alone = self.apply(&alone, i, what)?;
        };
        for (key, more) in way.into_iter().rev().zip(1..) {
            self.alone.insert(key, left + more);
            self.longest_alone = self.longest_alone.max(left + more);
        }
        Ok(())
    }

    /// What the future of a node depends on that is alone.
    fn alone_key(&self, state: &State, i: usize) -> u128 {
        let mut key = Vec::with_capacity(64);
        let node = state.nodes[i];
        key.extend([i as u8, u8::from(node.good), node.tenure, u8::from(node.recalled)]);
        key.push(node.asked.map_or(0, Ask::code));
        key.extend(node.local.to_le_bytes());
        for n in &state.nodes[..self.bounds.nodes] {
            key.extend(n.copies.iter().flat_map(|c| c.to_le_bytes()));
            key.extend([n.boot, n.life]);
        }
        print_of(&key)
    }
}

impl Model for LockAreaModel {
    type State = State;

    fn start(&mut self) -> State {
        let mut node = |i: usize| Node {
            local: if i < self.bounds.nodes { self.fresh(i, 0, 1) } else { 0 },
            copies: [Blocks::BLANK; 2],
            late: None,
            good: true,
            tenure: 0,
            recalled: false,
            asked: None,
            boot: 0,
            life: 1,
            tries: 0,
            seen_then: 0,
        };
        let mut nodes = [node(0), node(1), node(2)];
        let mut truth = Truth::default();
        if self.bounds.named {
            let (named, committed) = self.blocks.named();
            let _ = truth.told(&committed, &mut self.blocks.values);
            nodes[..self.bounds.nodes].iter_mut().zip(named).for_each(|(n, block)| n.copies = [block; 2]);
        }
        State { nodes, crashes: 0, lapses: 0, failures: 0, truth }
    }

    fn fingerprint(&mut self, state: &State) -> u128 {
        let mut bytes: Vec<u8> = vec![state.crashes, state.lapses, state.failures];
        for node in &state.nodes[..self.bounds.nodes] {
            self.describe(node, &mut bytes);
        }
        state.truth.describe(&mut bytes);
        print_of(&bytes)
    }

    fn next(&mut self, state: &State, found: &mut Vec<Result<State, String>>) {
        for (i, what) in self.whats(state) {
            let next = self.apply(state, i, what);
            found.push(next);
        }
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        if !self.bounds.liveness {
            return Ok(());
        }
        for i in 0..self.bounds.nodes {
            self.alone(state, i)?;
        }
        Ok(())
    }

    fn tell(&mut self, state: &State, step: usize) -> String {
        let (i, what) = self.whats(state)[step];
        let local = self.locals.get(state.nodes[i].local);
        let transfer = local.transfer_in_words(&self.blocks);
        match what {
            What::Ask(ask) => format!("{} is asked to {}", name(i), ask.in_words()),
            What::Transfer => format!("{}: {transfer}", name(i)),
            What::NoAnswer(fate) => format!("{}: {transfer}: no answer ({})", name(i), fate.in_words()),
            What::Due => format!("{}: a pause is over", name(i)),
            What::Lapse => format!("the lease of {} runs out; nothing runs there any more", name(i)),
            What::Renew => format!("{} enters its slot again", name(i)),
            What::Reset(fate) => format!("{} is reset while: {transfer} ({})", name(i), fate.in_words()),
            What::AgentDies(fate) => format!("the agent of {} dies while: {transfer} ({})", name(i), fate.in_words()),
            What::Lands => format!("a late write of {} lands", name(i)),
        }
    }
}

impl LockAreaModel {
    /// All that the future of a node depends on. Of the sequences of its blocks only their order counts, and which of them are of
    /// the life that goes on: how many writes it took to get here does not matter.
    fn describe(&self, node: &Node, bytes: &mut Vec<u8>) {
        let local = self.locals.get(node.local);
        bytes.extend(local.without_sequences.to_le_bytes());
        bytes.extend([u8::from(node.good), node.tenure, u8::from(node.recalled), node.asked.map_or(0, Ask::code)]);
        bytes.extend([node.boot, node.life, node.tries, node.seen_then]);
        let late = node.late.map(|l| (l.copy + 1 + 2 * u8::from(l.of_this_life), l.block));
        bytes.push(late.map_or(0, |(how, _)| how));
        let blocks = node.copies.into_iter().chain(late.map(|(_, block)| block)).chain(local.writing());
        let mut sequences = vec![u64::from(node.life) << 36];
        sequences.extend(&local.sequences);
        for block in blocks {
            let (rest, sequence) = self.blocks.split(block);
            bytes.extend(rest.to_le_bytes());
            sequences.push(sequence);
        }
        let mut ranked = sequences.clone();
        ranked.sort_unstable();
        ranked.dedup();
        bytes.extend(sequences.iter().map(|s| ranked.partition_point(|r| r < s) as u8));
    }
}

fn name(i: usize) -> &'static str {
    ["alpha", "beta", "gamma"][i]
}

fn boot_of(i: usize, boot: u8) -> BootId {
    BootId([boot * 4 + i as u8 + 1; 16])
}

fn sight_of(i: usize, boot: u8, life: u8, expired: bool) -> Sight {
    Sight { boot: boot_of(i, boot), incarnation: Incarnation(u64::from(life)), expired }
}

#[expect(clippy::expect_used, reason = "a constant")]
fn hierarchy() -> HierarchyName {
    HierarchyName::new("web").expect("a valid name")
}

/// Decided values by number.
type Values = BTreeMap<u8, truth::Decided>;
