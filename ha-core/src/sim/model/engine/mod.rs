//! Two engines, whole, with one hierarchy: every interleaving of what they hear of each other, of answers, commands, timers and faults.
//!
//! Production code: [`Engine`](crate::engine::Engine), so mastership, recovery and everything that puts them together. Supposed instead of computed:
//! - **Contact.** A node hears the other one, with everything that it tells at that moment, or has not heard it for too long; in any order and as
//!   late as it likes. Beats, deltas and hearsay are left out (they have tests of their own), and so are commands passed on to
//!   another node.
//! - **Time.** It stands still, and any timer can run off at any time: every order of timers is covered, also those that real lengths rule out.
//!   What counts within a window never leaves it.
//! - **The claim.** A register with epochs, honest: it is given to one node at a time, and to another one only when the tenure of the first is over. A
//!   tenure is over only after its node stopped everything, or was reset.

mod bounds;
mod heal;
mod node;
mod words;

use std::collections::HashSet;

pub use bounds::{Bounds, Flaw};
use node::{Emitted, Local, Output, World};
use words::{Answer, Command, How, Pending, Stimulus};

use super::explore::Model;
use super::intern::print_of;
use crate::engine::supposed::Due;
use crate::recovery::LifeTimer;

const NAMES: [&str; 2] = ["alpha", "beta"];

/// The truth about the claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Register {
    holder: Option<u8>,
    /// The holder's tenure is not over.
    good: bool,
    /// Kept for this node.
    heir: Option<u8>,
    epoch: u8,
}

/// The whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    locals: [u32; 2],
    register: Register,
    commands: u8,
    silences: u8,
    crashes: u8,
    failures: u8,
    lapses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The claim answers; `lost`: it was carried out or not, but no answer comes.
    Claim {
        at: usize,
        trouble: Option<Trouble>,
    },
    /// The claim was asked, and its answer is on its way.
    ClaimLater {
        at: usize,
    },
    Deliver {
        at: usize,
    },
    Ended {
        at: usize,
        how: How,
    },
    Due(Due),
    Hear,
    Silence,
    Command(Command),
    Fails {
        part: usize,
    },
    AgentDies,
    PowerLoss,
    Begins,
    LeaseOver,
    HeirGone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Done,
    NotDone,
}

/// Two engines, to be explored.
pub struct EngineModel {
    bounds: Bounds,
    world: World,
    /// States from which the hierarchy is known to reach a fixed place.
    healing: HashSet<u128>,
    /// The most steps that it took to get there.
    pub longest_healing: usize,
    /// How often a node had it in service.
    pub served: u64,
}

impl EngineModel {
    /// A cluster within `bounds`.
    pub fn new(bounds: Bounds) -> EngineModel {
        EngineModel { world: World::new(&bounds), bounds, healing: HashSet::new(), longest_healing: 0, served: 0 }
    }

    /// How many different states the engines themselves were in.
    pub fn parts(&self) -> usize {
        self.world.locals.len()
    }

    fn local(&self, state: &State, i: usize) -> &Local {
        self.world.locals.get(state.locals[i])
    }

    fn stir(&mut self, state: &mut State, i: usize, stimulus: Stimulus) -> Result<(), String> {
        let output = self.world.stir(state.locals[i], &stimulus)?;
        self.take(state, i, output)
    }

    fn take(&mut self, state: &mut State, i: usize, output: Output) -> Result<(), String> {
        state.locals[i] = output.local;
        let mut reset = false;
        for emitted in output.emitted {
            match emitted {
                Emitted::Start { part, epoch } => {
                    let r = state.register;
                    if r.holder != Some(i as u8) || r.epoch != epoch || !r.good {
                        return Err(format!("S2: {} starts resource {part} under epoch {epoch}: {r:?}", NAMES[i]));
                    }
                    if self.local(state, 1 - i).may_run() {
                        return Err(format!("S1: {} starts resource {part} while {} may run", NAMES[i], NAMES[1 - i]));
                    }
                }
                Emitted::InService => self.served += 1,
                Emitted::Reset => reset = true,
            }
        }
        if reset {
            state.locals[i] = self.world.power_loss(state.locals[i]);
        }
        Ok(())
    }

    /// What the claim says, and what becomes of it.
    fn arbitrate(&self, register: &mut Register, i: usize, pending: &Pending) -> Answer {
        let me = i as u8;
        match pending {
            Pending::Acquire { known, adopt, .. } => {
                let mine = register.holder == Some(me) && register.good;
                let theirs =
                    register.holder.filter(|h| *h != me && register.good).or(register.heir.filter(|h| *h != me));
                if let Some(holder) = theirs.filter(|_| self.bounds.flaw != Some(Flaw::ClaimGivenTwice)) {
                    return Answer::HeldBy(holder, register.epoch);
                }
                if !mine || *adopt != Some(register.epoch) {
                    register.epoch = register.epoch.max(*known) + 1;
                }
                (register.holder, register.good, register.heir) = (Some(me), true, None);
                Answer::Won { epoch: register.epoch }
            }
            Pending::Inspect { .. } => {
                let holder = register.holder.filter(|_| register.good).or(register.heir);
                Answer::Seen { holder, epoch: register.epoch }
            }
            Pending::Uphold { epoch, .. } => {
                let mine = register.holder == Some(me) && register.good && register.epoch == *epoch;
                if mine { Answer::Proven } else { Answer::Taken }
            }
            Pending::Release { epoch, heir, .. } => {
                if register.holder == Some(me) && register.epoch == *epoch {
                    (register.holder, register.good, register.heir) = (None, false, *heir);
                }
                Answer::Released
            }
            Pending::Operate { .. } | Pending::Answered { .. } => Answer::Unreachable,
        }
    }

    /// Whether a tenure under `epoch` is still good as its news arrives.
    fn still_good(&self, state: &State, i: usize, answer: Answer) -> bool {
        if self.bounds.flaw == Some(Flaw::OldTenure) {
            return true;
        }
        let r = state.register;
        match answer {
            Answer::Won { epoch } => r.holder == Some(i as u8) && r.good && r.epoch == epoch,
            _ => r.holder == Some(i as u8) && r.good,
        }
    }

    fn apply(&mut self, state: &State, i: usize, what: What) -> Result<State, String> {
        let mut next = *state;
        match what {
            What::Claim { at, trouble } => {
                let pending = self.local(state, i).pending[at].clone();
                let mut register = state.register;
                let answer = self.arbitrate(&mut register, i, &pending);
                if trouble != Some(Trouble::NotDone) {
                    next.register = register;
                }
                next.failures += u8::from(trouble.is_some());
                let answer = if trouble.is_some() { Answer::Unreachable } else { answer };
                let good = self.still_good(&next, i, answer);
                self.stir(&mut next, i, Stimulus::Claim { at, answer, good })?;
            }
            What::ClaimLater { at } => {
                let pending = self.local(state, i).pending[at].clone();
                let answer = self.arbitrate(&mut next.register, i, &pending);
                self.stir(&mut next, i, Stimulus::Later { at, answer })?;
            }
            What::Deliver { at } => {
                let Pending::Answered { answer, .. } = self.local(state, i).pending[at].clone() else {
                    return Ok(next);
                };
                let good = self.still_good(state, i, answer);
                self.stir(&mut next, i, Stimulus::Claim { at, answer, good })?;
            }
            What::Ended { at, how } => {
                next.failures += u8::from(how.costs());
                self.stir(&mut next, i, Stimulus::Ended { at, how })?;
            }
            What::Due(due) => {
                next.lapses += u8::from(due == Due::TenureEnd);
                self.stir(&mut next, i, Stimulus::Due(due))?;
            }
            What::Hear => {
                let output = self.world.hear(state.locals[i], state.locals[1 - i])?;
                self.take(&mut next, i, output)?;
            }
            What::Silence => {
                next.silences += u8::from(self.local(state, 1 - i).engine.is_some());
                self.stir(&mut next, i, Stimulus::Silent)?;
            }
            What::Command(command) => {
                next.commands += 1;
                self.stir(&mut next, i, Stimulus::Command(command))?;
            }
            What::Fails { part } => {
                next.failures += 1;
                self.stir(&mut next, i, Stimulus::Fails { part })?;
            }
            What::AgentDies => {
                next.crashes += 1;
                next.locals[i] = self.world.agent_dies(state.locals[i]);
            }
            What::PowerLoss => {
                next.crashes += 1;
                next.locals[i] = self.world.power_loss(state.locals[i]);
            }
            What::Begins => {
                let output = self.world.begin(state.locals[i])?;
                self.take(&mut next, i, output)?;
            }
            What::LeaseOver => {
                next.lapses += u8::from(self.is_told_of_it(state, i));
                next.register.good = false;
                if self.local(state, i).may_run() && self.bounds.flaw != Some(Flaw::NoWatchdog) {
                    next.locals[i] = self.world.power_loss(state.locals[i]);
                }
            }
            What::HeirGone => next.register.heir = None,
        }
        Ok(next)
    }

    fn whats(&self, state: &State) -> Vec<(usize, What)> {
        let mut all = Vec::new();
        for i in 0..2 {
            let local = self.local(state, i);
            let other = self.local(state, 1 - i);
            let failing = state.failures < self.bounds.failures;
            let crashing = state.crashes < self.bounds.crashes;
            if local.engine.is_none() {
                all.push((i, What::Begins));
            } else {
                self.pending_whats(local, i, failing, &mut all);
                self.engine_whats(state, local, other, i, failing, &mut all);
                if crashing {
                    all.push((i, What::AgentDies));
                }
            }
            if crashing && local.powered {
                all.push((i, What::PowerLoss));
            }
            let free = !self.is_told_of_it(state, i) || state.lapses < self.bounds.lapses;
            if free && self.lease_can_end(state, i) {
                all.push((i, What::LeaseOver));
            }
            if state.register.heir == Some(i as u8) {
                all.push((i, What::HeirGone));
            }
        }
        all
    }

    /// A tenure is over when its node does not uphold it any more.
    fn lease_can_end(&self, state: &State, i: usize) -> bool {
        let local = self.local(state, i);
        let r = state.register;
        let upheld = local.outlook.as_ref().is_some_and(|o| o.held.is_some_and(|e| e.0 == u64::from(r.epoch)));
        r.holder == Some(i as u8) && r.good && !upheld
    }

    /// The news of its tenure is on the way to it.
    fn is_told_of_it(&self, state: &State, i: usize) -> bool {
        let won = |p: &Pending| matches!(p, Pending::Answered { answer: Answer::Won { .. }, .. });
        self.local(state, i).pending.iter().any(won)
    }

    fn pending_whats(&self, local: &Local, i: usize, failing: bool, all: &mut Vec<(usize, What)>) {
        for (at, pending) in local.pending.iter().enumerate() {
            match pending {
                Pending::Answered { .. } => all.push((i, What::Deliver { at })),
                Pending::Operate { operation, part, .. } => {
                    let hows = How::of(*operation, local.up[*part]);
                    all.extend(
                        hows.iter().filter(|h| failing || !h.costs()).map(|how| (i, What::Ended { at, how: *how })),
                    );
                }
                _ => {
                    all.push((i, What::Claim { at, trouble: None }));
                    if self.bounds.late_answers {
                        all.push((i, What::ClaimLater { at }));
                    }
                    if failing {
                        all.push((i, What::Claim { at, trouble: Some(Trouble::NotDone) }));
                        if matches!(pending, Pending::Acquire { .. } | Pending::Release { .. }) {
                            all.push((i, What::Claim { at, trouble: Some(Trouble::Done) }));
                        }
                    }
                }
            }
        }
    }

    fn engine_whats(
        &self,
        state: &State,
        local: &Local,
        other: &Local,
        i: usize,
        failing: bool,
        all: &mut Vec<(usize, What)>,
    ) {
        let Some(outlook) = &local.outlook else { return };
        for due in &outlook.dues {
            let possible = match due {
                Due::TenureEnd => state.lapses < self.bounds.lapses,
                Due::Life(LifeTimer::Monitor(_)) => failing,
                Due::Life(LifeTimer::ForcedStop) => failing || local.pending.is_empty(),
                Due::Life(_) => true,
            };
            if possible {
                all.push((i, What::Due(*due)));
            }
        }
        if other.engine.is_some() && local.heard != (other.told, true) {
            all.push((i, What::Hear));
        }
        let silent = other.engine.is_none() || state.silences < self.bounds.silences;
        if silent && (local.heard.1 || !local.settled) {
            all.push((i, What::Silence));
        }
        if state.commands < self.bounds.commands {
            all.extend(Command::possible(outlook).into_iter().map(|c| (i, What::Command(c))));
        }
        if failing {
            let up = local.up.iter().enumerate().filter(|(_, up)| **up);
            all.extend(up.map(|(part, _)| (i, What::Fails { part })));
        }
    }
}

impl Model for EngineModel {
    type State = State;

    fn start(&mut self) -> State {
        let locals = [self.world.off(0), self.world.off(1)];
        State { locals, register: Register::default(), commands: 0, silences: 0, crashes: 0, failures: 0, lapses: 0 }
    }

    fn fingerprint(&mut self, state: &State) -> u128 {
        print_of(format!("{state:?}").as_bytes())
    }

    fn next(&mut self, state: &State, found: &mut Vec<Result<State, String>>) {
        for (i, what) in self.whats(state) {
            let next = self.apply(state, i, what);
            found.push(next);
        }
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        if self.bounds.liveness { self.heals(state) } else { Ok(()) }
    }

    fn tell(&mut self, state: &State, step: usize) -> String {
        let (i, what) = self.whats(state)[step];
        self.in_words(state, i, what)
    }
}

impl EngineModel {
    fn in_words(&self, state: &State, i: usize, what: What) -> String {
        let me = NAMES[i];
        let pending = |at: usize| self.local(state, i).pending[at].in_words();
        let after = match &self.local(state, i).outlook {
            Some(o) => format!("{}", o.phase),
            None => "off".to_owned(),
        };
        let what = match what {
            What::Claim { at, trouble: None } => format!("{}: answered", pending(at)),
            What::Claim { at, trouble: Some(Trouble::Done) } => format!("{}: carried out, but no answer", pending(at)),
            What::Claim { at, trouble: Some(Trouble::NotDone) } => {
                format!("{}: no answer, not carried out", pending(at))
            }
            What::ClaimLater { at } => format!("{}: carried out, the answer is on its way", pending(at)),
            What::Deliver { at } => format!("{}: the answer arrives", pending(at)),
            What::Ended { at, how } => format!("{}: {how:?}", pending(at)),
            What::Due(due) => format!("{due:?} is due"),
            What::Hear => format!("hears {}", NAMES[1 - i]),
            What::Silence => format!("has not heard {} for too long", NAMES[1 - i]),
            What::Command(command) => format!("is told: {command:?}"),
            What::Fails { part } => format!("resource {part} fails"),
            What::AgentDies => "the agent dies".to_owned(),
            What::PowerLoss => "loses power".to_owned(),
            What::Begins => "the agent begins".to_owned(),
            What::LeaseOver => "its tenure is over".to_owned(),
            What::HeirGone => "the claim is not kept for it any longer".to_owned(),
        };
        format!("{me} ({after}): {what}")
    }
}
