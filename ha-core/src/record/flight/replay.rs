//! Goes through a recording with the engine of this version.
//!
//! Decides whether the same was decided again, and what concluded why. Leaves what of it is shown, and how, to the agent.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use super::codec::{Damage, Header, LedTo, Record, Records, Start, Unreadable, encode};
use crate::contact::ContactConfigError;
use crate::engine::{Call, Effect, Engine};
use crate::mastership::{Fact, Standing};
use crate::name::HierarchyName;
use crate::time::Time;

/// Whether a call led to the same as when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Every effect is the same.
    Same,
    /// The decisions are the same; something of beats, monitors, renewals or details is not.
    Details {
        /// As recorded.
        recorded: u32,
        /// As it is now.
        now: u32,
    },
    /// Something else was decided then.
    Differs {
        /// What, in words.
        recorded: Vec<String>,
    },
    /// The recording ends with this call: what it led to is not known. The agent may have ended in the middle of it.
    NotRecorded,
}

/// What a node concluded about itself changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// For which hierarchy.
    pub hierarchy: HierarchyName,
    /// What it was; `None` when the hierarchy was not known.
    pub before: Option<Standing>,
    /// What it is.
    pub standing: Standing,
    /// The facts that led to it, in order.
    pub reasons: Vec<Fact>,
}

/// One call, made again.
#[derive(Debug)]
pub struct Step {
    /// Counts the calls of this life of the agent, from 1.
    pub number: u64,
    /// When, on the node's clock.
    pub at: Time,
    /// When, on the wall clock as the segment's header knew it, in nanoseconds since 1970 UTC.
    pub wall_ns: u64,
    /// What the engine was told.
    pub call: Call,
    /// What it led to.
    pub effects: Vec<Effect>,
    /// Whether it led to the same before.
    pub agreement: Agreement,
    /// What this node concluded otherwise than before.
    pub turns: Vec<Turn>,
}

/// Why the calls before and after do not follow on each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Here the recording begins.
    Begin,
    /// A new life of the agent; the one before had ended in order, or not.
    NewLife {
        /// It had ended in order.
        in_order: bool,
    },
    /// Calls are missing.
    Lost {
        /// How many.
        calls: u64,
    },
}

/// What is seen in a replay.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A segment begins that does not go on where the one before ended.
    Begin {
        /// What it says of itself.
        header: &'a Header,
        /// Why.
        gap: Gap,
    },
    /// A segment goes on where the one before ended.
    Continues {
        /// What it says of itself.
        header: &'a Header,
        /// The state that was recorded is the one that the replay came to.
        same_state: bool,
    },
    /// A call.
    Step(Box<Step>),
    /// The engine was ended in order.
    End,
    /// The segment ends early.
    Damaged(Damage),
}

/// Why a segment was not replayed. The next one can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotReplay {
    /// Its bytes.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// What the engine was made from is refused by this version.
    #[error("this version refuses what the engine was made from: {0}")]
    Refused(#[from] ContactConfigError),
}

/// An engine that is told again what was recorded.
#[derive(Default)]
pub struct Replay {
    engine: Option<Engine>,
    life: Option<Header>,
    at: Time,
    calls: u64,
    ended: bool,
    standings: BTreeMap<HierarchyName, Standing>,
    scratch: Vec<u8>,
}

impl Replay {
    /// The engine as it is now; none before the first segment.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Goes through one segment. `see` is shown everything, with the engine as it is after it, and may break off.
    pub fn segment(
        &mut self,
        bytes: &[u8],
        see: &mut dyn FnMut(&Engine, Seen<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, CannotReplay> {
        let (header, start, records) = Records::open(bytes)?;
        let mut engine = match self.engine.take() {
            Some(engine) if self.continues(&header) => {
                let same_state = match &start {
                    Start::State(state) => self.same(&engine, state),
                    Start::New(_) => false,
                };
                if see(&engine, Seen::Continues { header: &header, same_state }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                engine
            }
            _ => {
                let gap = self.gap(&header);
                let engine = match start {
                    Start::New(config) => Engine::new(config.into_owned(), header.at)?,
                    Start::State(state) => state.into_owned(),
                };
                (self.calls, self.ended) = (header.calls_before, false);
                self.standings = engine.standings().map(|(n, j)| (n.clone(), j.standing.clone())).collect();
                if see(&engine, Seen::Begin { header: &header, gap }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                engine
            }
        };
        self.at = header.at;
        let flow = self.run(&mut engine, &header, records, see);
        self.life = Some(header);
        self.engine = Some(engine);
        Ok(flow)
    }

    fn continues(&self, header: &Header) -> bool {
        let same_life = |life: &Header| life.life == header.life && life.node == header.node;
        !self.ended && self.calls == header.calls_before && self.life.as_ref().is_some_and(same_life)
    }

    fn gap(&self, header: &Header) -> Gap {
        match &self.life {
            None => Gap::Begin,
            Some(life) if life.life != header.life || life.node != header.node => Gap::NewLife { in_order: self.ended },
            Some(_) => Gap::Lost { calls: header.calls_before.saturating_sub(self.calls) },
        }
    }

    fn same(&mut self, one: &Engine, other: &Engine) -> bool {
        let mut bytes = Vec::new();
        self.scratch.clear();
        encode(one, &mut self.scratch);
        encode(other, &mut bytes);
        bytes == self.scratch
    }

    fn run(
        &mut self,
        engine: &mut Engine,
        header: &Header,
        records: Records<'_>,
        see: &mut dyn FnMut(&Engine, Seen<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // A call is judged when it is known whether a record of what it led to follows.
        let mut waiting: Option<(u64, Call)> = None;
        for record in records {
            let (seen, next) = match record {
                Ok(Record::Call { after_ns, call }) => (None, Some((after_ns, call.into_owned()))),
                Ok(Record::LedTo(led_to)) => (Some(led_to), None),
                Ok(Record::End) => {
                    self.flush(engine, header, &mut waiting, Some(LedTo::default()), see)?;
                    self.ended = true;
                    see(engine, Seen::End)?;
                    continue;
                }
                Ok(Record::Header(_) | Record::Start(_)) => continue,
                Err(damage) => {
                    self.flush(engine, header, &mut waiting, None, see)?;
                    return see(engine, Seen::Damaged(damage));
                }
            };
            let led_to = Some(seen.unwrap_or_default());
            self.flush(engine, header, &mut waiting, led_to, see)?;
            waiting = next;
        }
        self.flush(engine, header, &mut waiting, None, see)
    }

    fn flush(
        &mut self,
        engine: &mut Engine,
        header: &Header,
        waiting: &mut Option<(u64, Call)>,
        recorded: Option<LedTo>,
        see: &mut dyn FnMut(&Engine, Seen<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match waiting.take() {
            Some((after_ns, call)) => {
                let step = self.step(engine, header, after_ns, call, recorded);
                see(engine, Seen::Step(Box::new(step)))
            }
            None => ControlFlow::Continue(()),
        }
    }

    fn step(
        &mut self,
        engine: &mut Engine,
        header: &Header,
        after_ns: u64,
        call: Call,
        recorded: Option<LedTo>,
    ) -> Step {
        self.calls += 1;
        self.at = Time(self.at.0.wrapping_add(after_ns));
        engine.call(self.at, call.clone());
        let effects: VecDeque<Effect> = std::iter::from_fn(|| engine.poll_effect()).collect();
        let now = LedTo::of(&effects, &mut self.scratch).unwrap_or_default();
        let agreement = match recorded {
            None if effects.is_empty() => Agreement::Same,
            None => Agreement::NotRecorded,
            Some(recorded) if recorded == now => Agreement::Same,
            Some(recorded) if recorded.decisions == now.decisions => {
                Agreement::Details { recorded: recorded.digest, now: now.digest }
            }
            Some(recorded) => Agreement::Differs { recorded: recorded.decisions },
        };
        let wall_ns = header.wall_ns.wrapping_add(self.at.0.wrapping_sub(header.at.0));
        let turns = self.turns(engine);
        Step { number: self.calls, at: self.at, wall_ns, call, effects: effects.into(), agreement, turns }
    }

    fn turns(&mut self, engine: &Engine) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (name, judgement) in engine.standings() {
            if self.standings.get(name) != Some(&judgement.standing) {
                let before = self.standings.insert(name.clone(), judgement.standing.clone());
                turns.push(Turn {
                    hierarchy: name.clone(),
                    before,
                    standing: judgement.standing.clone(),
                    reasons: judgement.facts.clone(),
                });
            }
        }
        if self.standings.len() > engine.standings().len() {
            self.standings = engine.standings().map(|(n, j)| (n.clone(), j.standing.clone())).collect();
        }
        turns
    }
}
