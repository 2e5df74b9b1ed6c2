//! One engine with what surrounds it on its node: what it asked for, what really runs, what outlives its agent.
//!
//! Decides how it is stepped, and keeps what came of it: the same engine with the same input does the same again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::words::{How, Pending, Stimulus, input_of, node, order};
use super::{Bounds, Flaw, NAMES};
use crate::contact::{ContactConfig, Timing};
use crate::engine::supposed::Outlook;
use crate::engine::{Command as Order, CommandId, Effect, Engine, EngineConfig, Input, Joining, Lasting};
use crate::hierarchy::{Fingerprint, Hierarchy, Limit, Monitor, Policy, ResourceSpec, Timeouts};
use crate::name::{BootId, ClusterName, Epoch, HierarchyName, Incarnation, ResourceName};
use crate::record::Happened;
use crate::recovery::{Operation, Outcome};
use crate::sim::model::intern::{Interner, print_of};
use crate::time::Time;

/// The time at which everything happens.
pub(super) const NOW: Time = Time(1_000_000_000_000);
/// And when everything is due that waits.
pub(super) const LATER: Time = Time(2_000_000_000_000);

/// What an engine did that concerns more than its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Emitted {
    Start { part: usize, epoch: u8 },
    InService,
    Reset,
}

/// What came of a step.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) local: u32,
    pub(super) emitted: Vec<Emitted>,
}

/// An engine and its node.
#[derive(Clone)]
pub(super) struct Local {
    i: usize,
    pub(super) engine: Option<Engine>,
    pub(super) outlook: Option<Outlook>,
    pub(super) powered: bool,
    pub(super) pending: Vec<Pending>,
    /// Certainly runs, as its start or an adoption said.
    pub(super) up: Vec<bool>,
    /// A start was asked for, and no stop has ended well since.
    pub(super) may: Vec<bool>,
    recorded: Option<Epoch>,
    lasting: Lasting,
    standby: Option<String>,
    boot: u8,
    life: u8,
    /// What it tells others, by number; and what it last heard of the other one, and whether it is in contact.
    pub(super) told: u32,
    pub(super) heard: (u32, bool),
    /// It has heard the other one, or waited for it long enough.
    pub(super) settled: bool,
}

impl Local {
    pub(super) fn may_run(&self) -> bool {
        self.may.iter().any(|m| *m)
    }
}

/// Everything that both nodes have in common.
pub(super) struct World {
    hierarchy: Arc<Hierarchy>,
    can_reset: bool,
    flaw: Option<Flaw>,
    pub(super) locals: Interner<Local>,
    told: Interner<()>,
    memo: HashMap<u128, Result<Output, String>>,
}

#[expect(clippy::expect_used, reason = "constant names, used in every test")]
impl World {
    pub(super) fn new(bounds: &Bounds) -> World {
        let resource = |n: usize| ResourceSpec {
            name: ResourceName::new(format!("r{n}")).expect("a valid name"),
            kind: "Model".to_owned(),
            requires: n.checked_sub(1).into_iter().collect(),
            timeouts: Timeouts::default(),
            monitor: Monitor::default(),
            fingerprint: Fingerprint(1),
        };
        let once = Limit { count: 1, within: Duration::from_secs(600) };
        let hierarchy = Hierarchy {
            name: HierarchyName::new("web").expect("a valid name"),
            nodes: (0..2).map(node).collect(),
            resources: (0..bounds.resources).map(resource).collect(),
            policy: Policy { restarts: once, ..Policy::default() },
            claim: Fingerprint(1),
            fingerprint: Fingerprint(1),
        };
        World {
            hierarchy: Arc::new(hierarchy),
            can_reset: bounds.can_reset,
            flaw: bounds.flaw,
            locals: Interner::default(),
            told: Interner::default(),
            memo: HashMap::new(),
        }
    }

    /// A node before its first boot.
    pub(super) fn off(&mut self, i: usize) -> u32 {
        let parts = self.hierarchy.resources.len();
        self.keep(Local {
            i,
            engine: None,
            outlook: None,
            powered: false,
            pending: Vec::new(),
            up: vec![false; parts],
            may: vec![false; parts],
            recorded: None,
            lasting: Lasting::default(),
            standby: None,
            boot: 0,
            life: 0,
            told: 0,
            heard: (0, false),
            settled: false,
        })
    }

    pub(super) fn agent_dies(&mut self, local: u32) -> u32 {
        let mut local = self.locals.get(local).clone();
        local.engine = None;
        local.pending.clear();
        self.keep(local)
    }

    pub(super) fn power_loss(&mut self, local: u32) -> u32 {
        let mut local = self.locals.get(local).clone();
        local.engine = None;
        local.pending.clear();
        local.powered = false;
        local.recorded = None;
        local.up.fill(false);
        local.may.fill(false);
        self.keep(local)
    }

    /// The agent begins, on a machine that is booted first if it is off.
    pub(super) fn begin(&mut self, local: u32) -> Result<Output, String> {
        let mut local = self.locals.get(local).clone();
        local.life += 1;
        if !local.powered {
            local.powered = true;
            local.boot += 1;
        }
        let contact = ContactConfig {
            me: node(local.i),
            boot: BootId([local.boot * 2 + local.i as u8; 16]),
            nodes: (0..2).map(node).collect(),
            timing: Timing::default(),
            channels: BTreeMap::new(),
        };
        let config = EngineConfig {
            cluster: ClusterName::new("model").expect("a valid name"),
            contact,
            incarnation: Incarnation(local.life.into()),
            version: String::new(),
            definition: Fingerprint(1),
            max_recoveries: 1,
            can_reset: self.can_reset,
            standby: local.standby.clone(),
            fences: std::collections::BTreeSet::new(),
        };
        let mut engine = Engine::new(config, NOW).map_err(|e| e.to_string())?;
        let joining = Joining {
            hierarchy: self.hierarchy.clone(),
            lease: None,
            lasting: local.lasting.clone(),
            running: local.recorded,
            // When a tenure is over is the model's choice, whoever knows of it.
            proven_until: None,
            probed: false,
        };
        engine.join(NOW, joining);
        local.engine = Some(engine);
        local.heard = (0, false);
        local.settled = false;
        self.finish(local)
    }

    /// The engine takes something in.
    pub(super) fn stir(&mut self, local: u32, stimulus: &Stimulus) -> Result<Output, String> {
        let key = print_of(format!("{local} {stimulus:?}").as_bytes());
        if let Some(known) = self.memo.get(&key) {
            return known.clone();
        }
        let output = self.step(self.locals.get(local).clone(), *stimulus);
        self.memo.insert(key, output.clone());
        output
    }

    pub(super) fn hear(&mut self, local: u32, other: u32) -> Result<Output, String> {
        let told = self.locals.get(other).told;
        let key = print_of(format!("{local} hears {told}").as_bytes());
        if let Some(known) = self.memo.get(&key) {
            return known.clone();
        }
        let mut local = self.locals.get(local).clone();
        if let (Some(engine), Some(other)) = (&mut local.engine, &self.locals.get(other).engine) {
            engine.suppose_heard(other);
        }
        local.heard = (told, true);
        local.settled = true;
        let output = self.finish(local);
        self.memo.insert(key, output.clone());
        output
    }

    fn step(&mut self, mut local: Local, stimulus: Stimulus) -> Result<Output, String> {
        let name = self.hierarchy.name.clone();
        let other = node(1 - local.i);
        let Some(engine) = &mut local.engine else { return Err("nothing happens on a dead agent".to_owned()) };
        match stimulus {
            Stimulus::Later { at, answer } => {
                let asked = Box::new(local.pending[at].clone());
                local.pending[at] = Pending::Answered { asked, answer };
            }
            Stimulus::Claim { at, answer, good } => {
                let mut asked = local.pending.remove(at);
                if let Pending::Answered { asked: inner, .. } = asked {
                    asked = *inner;
                }
                if let Some(input) = input_of(&name, local.i, &asked, answer, good) {
                    engine.handle(NOW, input);
                }
            }
            Stimulus::Ended { at, how } => {
                let Pending::Operate { op, part, operation } = local.pending.remove(at) else {
                    return Err("not an operation".to_owned());
                };
                match (operation, how) {
                    (Operation::Start | Operation::Adopt, How::Good) => local.up[part] = true,
                    (Operation::Stop | Operation::Kill, How::Good) if self.flaw != Some(Flaw::StopLies) => {
                        (local.up[part], local.may[part]) = (false, false);
                    }
                    (Operation::Start | Operation::Stop, _) => local.up[part] = false,
                    _ => {}
                }
                let outcome = match how {
                    How::Good => Outcome::Good,
                    How::Bad if operation == Operation::Start && self.flaw == Some(Flaw::StartLies) => Outcome::Good,
                    How::Bad | How::NotRunning => Outcome::Bad("it failed".to_owned()),
                    How::TimedOut => Outcome::TimedOut(Duration::from_secs(1)),
                };
                engine.handle(NOW, Input::Operated { hierarchy: name, op, outcome });
            }
            Stimulus::Due(due) => engine.suppose_due(NOW, &name, due),
            Stimulus::Silent => {
                engine.suppose_silent(&other);
                local.heard.1 = false;
                local.settled = true;
            }
            Stimulus::Fails { part } => {
                local.up[part] = false;
                let resource = self.hierarchy.resources[part].name.clone();
                engine.handle(NOW, Input::WatchFired { hierarchy: name, resource, why: "it failed".to_owned() });
            }
            Stimulus::Command(command) => {
                let what = order(command, name, other);
                let command = Order { what, by: "operator".to_owned(), reason: String::new() };
                engine.handle(NOW, Input::Command { id: CommandId(1), to: None, command });
            }
        }
        self.finish(local)
    }

    /// Takes the effects in, and gives the node its number.
    fn finish(&mut self, mut local: Local) -> Result<Output, String> {
        let mut emitted = Vec::new();
        while let Some(effect) = local.engine.as_mut().and_then(Engine::poll_effect) {
            self.effect(&mut local, effect, &mut emitted)?;
        }
        if let Some(engine) = &mut local.engine {
            engine.make_plain(LATER);
        }
        Ok(Output { local: self.keep(local), emitted })
    }

    fn effect(&self, local: &mut Local, effect: Effect, emitted: &mut Vec<Emitted>) -> Result<(), String> {
        let me = NAMES[local.i];
        let small = |e: Epoch| u8::try_from(e.0).unwrap_or(u8::MAX);
        match effect {
            Effect::Acquire { op, request, .. } => local.pending.push(Pending::Acquire {
                op,
                known: small(request.known),
                adopt: request.adopt.map(small),
            }),
            Effect::Inspect { op, .. } => local.pending.push(Pending::Inspect { op }),
            Effect::Uphold { op, epoch, .. } => local.pending.push(Pending::Uphold { op, epoch: small(epoch) }),
            Effect::Release { op, epoch, heir, .. } => {
                if local.may_run() {
                    return Err(format!("S5: {me} releases its claim while {:?} may run", local.may));
                }
                let heir = heir.and_then(|h| NAMES.iter().position(|n| *n == h.as_str())).map(|h| h as u8);
                local.pending.push(Pending::Release { op, epoch: small(epoch), heir });
            }
            Effect::Operate { resource, op, operation, epoch, .. } => {
                let resources = &self.hierarchy.resources;
                let Some(part) = resources.iter().position(|r| r.name == resource) else { return Ok(()) };
                let busy = |p: &Pending| matches!(p, Pending::Operate { part: busy, .. } if *busy == part);
                if let Some(beside) = local.pending.iter().find(|p| busy(p)) {
                    return Err(format!("{me}: {} of {resource} beside {}", operation.word(), beside.in_words()));
                }
                self.check_order(local, part, operation)?;
                if operation == Operation::Start {
                    local.may[part] = true;
                    local.up[part] = false;
                    emitted.push(Emitted::Start { part, epoch: small(epoch) });
                }
                local.pending.push(Pending::Operate { op, part, operation });
            }
            Effect::Cancel { op } => local.pending.retain(|p| p.op() != op),
            Effect::RememberRunning { epoch, .. } => local.recorded = epoch,
            Effect::RememberLasting { lasting, .. } => local.lasting = lasting,
            Effect::RememberStandby(why) => local.standby = why,
            Effect::Reset { .. } => emitted.push(Emitted::Reset),
            Effect::Tell(event) => {
                if matches!(event.what, Happened::InService { .. }) {
                    emitted.push(Emitted::InService);
                }
            }
            Effect::Fence { node, why } => return Err(format!("{me} fences {node}, which nobody allows it: {why}")),
            Effect::Send(_)
            | Effect::RememberTenure { .. }
            | Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::Answer { .. }
            | Effect::Reincarnate(_)
            | Effect::Drained => {}
        }
        Ok(())
    }

    /// S3: what a resource requires runs before it starts, and what requires it is stopped before it stops.
    fn check_order(&self, local: &Local, part: usize, operation: Operation) -> Result<(), String> {
        let resources = &self.hierarchy.resources;
        let me = NAMES[local.i];
        match operation {
            Operation::Start => match resources[part].requires.iter().find(|r| !local.up[**r]) {
                Some(below) => Err(format!("S3: {me} starts resource {part} while resource {below} does not run")),
                None => Ok(()),
            },
            Operation::Stop => {
                match (0..resources.len()).find(|above| resources[*above].requires.contains(&part) && local.may[*above])
                {
                    Some(above) => Err(format!("S3: {me} stops resource {part} while resource {above} may run")),
                    None => Ok(()),
                }
            }
            Operation::Kill | Operation::Monitor | Operation::Adopt => Ok(()),
        }
    }

    fn keep(&mut self, mut local: Local) -> u32 {
        local.pending.sort();
        let (text, told) = match &local.engine {
            Some(engine) => engine.identity(),
            None => (String::new(), String::new()),
        };
        local.outlook = local.engine.as_ref().and_then(|e| e.outlook(&self.hierarchy.name));
        local.told = self.told.put(told.as_bytes(), || ());
        let lasting = (&local.lasting.epoch, local.lasting.declined.is_some(), &local.lasting.directive);
        let node = (local.i, local.powered, &local.up, &local.may, local.recorded, lasting, &local.standby);
        let rest = (local.boot, local.life, local.heard, local.settled, &local.pending);
        let identity = without_numbers(&format!("{text}{node:?}{rest:?}"));
        self.locals.put(identity.as_bytes(), || local)
    }
}

/// The text with operations numbered as they appear: how many there were before does not matter.
fn without_numbers(text: &str) -> String {
    const MARK: &str = "OpId(";
    let mut seen: Vec<&str> = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, after) = rest.split_at(at + MARK.len());
        out.push_str(before);
        let end = after.find(')').unwrap_or(after.len());
        let number = &after[..end];
        let place = seen.iter().position(|n| *n == number).unwrap_or_else(|| {
            seen.push(number);
            seen.len() - 1
        });
        out.push_str(&place.to_string());
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}
