//! One hierarchy on one node, with everything around it in the hands of the test: each step's whole list of wishes.

mod hangs;
mod orders;
mod random;

use std::sync::Arc;
use std::time::Duration;

use super::works::Pressure;
use super::*;
use crate::claim::{Held, Refusal, Tenure};
use crate::contact::AnnouncedPhase;
use crate::hierarchy::{Fingerprint, Hierarchy, Monitor, Policy, ResourceSpec, Timeouts};
use crate::mastership::Standing;
use crate::name::{HierarchyName, ResourceName};

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(super) fn part(name: &str, requires: &[usize]) -> ResourceSpec {
    ResourceSpec {
        name: ResourceName::new(name).unwrap(),
        kind: "Fake".to_owned(),
        requires: requires.to_vec(),
        timeouts: Timeouts::default(),
        monitor: Monitor::default(),
        fingerprint: Fingerprint(1),
    }
}

/// A disk; an address and a database that need it; a server that needs both.
pub(super) fn diamond() -> Hierarchy {
    Hierarchy {
        name: HierarchyName::new("web").unwrap(),
        nodes: vec![node("alpha"), node("beta")],
        resources: vec![part("disk", &[]), part("vip", &[0]), part("db", &[0]), part("server", &[1, 2])],
        policy: Policy::default(),
        claim: Fingerprint(1),
        fingerprint: Fingerprint(1),
    }
}

/// A life and what surrounds it.
pub(super) struct Fake {
    pub(super) life: Life,
    pub(super) now: Time,
    pub(super) judgement: Judgement,
    pub(super) directive: Directive,
    pub(super) standby: Option<&'static str>,
    pub(super) draining: bool,
    pub(super) utility: Utility,
    pub(super) pressure: Pressure,
    pub(super) can_reset: bool,
    pub(super) out: Out,
    /// The last operation asked of each resource, and the last question to the claim.
    pub(super) ops: Vec<Option<OpId>>,
    pub(super) claim: Option<OpId>,
}

impl Fake {
    pub(super) fn new(hierarchy: Hierarchy) -> Self {
        let count = hierarchy.resources.len();
        let now = Time::ZERO + ms(1000);
        Fake {
            life: Life::new(Arc::new(hierarchy), now),
            now,
            judgement: Judgement {
                standing: Standing::Candidate,
                facts: Vec::new(),
                unfit: None,
                able: Vec::new(),
                best_other: None,
                better: None,
            },
            directive: Directive::default(),
            standby: None,
            draining: false,
            utility: Utility::FULL,
            pressure: Pressure::Calm,
            can_reset: false,
            out: Out::default(),
            ops: vec![None; count],
            claim: None,
        }
    }

    /// In service, long enough to have settled.
    pub(super) fn serving() -> Self {
        let mut fake = Fake::new(diamond());
        fake.judged();
        fake.won(1);
        fake.room();
        for name in ["disk", "vip", "db", "server"] {
            fake.good(name);
        }
        assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService);
        fake
    }

    /// Beta is in contact and could serve.
    pub(super) fn beta_is_able(&mut self) {
        self.judgement.best_other = Some(node("beta"));
        self.judgement.able = vec![node("beta")];
    }

    fn act(&mut self, act: impl FnOnce(&mut Life, &Around<'_>, Time, &mut Out)) -> Vec<String> {
        if self.life.holds() {
            self.judgement.standing = Standing::Owner;
        }
        let around = Around {
            judgement: &self.judgement,
            directive: &self.directive,
            standby: self.standby,
            draining: self.draining,
            utility: self.utility,
            pressure: self.pressure,
            can_reset: self.can_reset,
            recalled_until: None,
            before: None,
            lease_length: None,
            lease_is_good: true,
        };
        act(&mut self.life, &around, self.now, &mut self.out);
        let list = std::mem::take(&mut self.out.list);
        list.iter().filter_map(|what| self.line(what)).collect()
    }

    /// What is wished, as a line; the record is left out, since it only tells.
    fn line(&mut self, what: &Do) -> Option<String> {
        let name = |i: usize| self.life.hierarchy.resources[i].name.to_string();
        Some(match what {
            Do::Acquire { op, adopt, .. } => {
                self.claim = Some(*op);
                adopt.map_or_else(|| "acquire".to_owned(), |epoch| format!("confirm epoch {epoch}"))
            }
            Do::Inspect { op } => {
                self.claim = Some(*op);
                "inspect".to_owned()
            }
            Do::Release { op, epoch, heir, .. } => {
                self.claim = Some(*op);
                let to = heir.as_ref().map_or_else(String::new, |h| format!(" to {h}"));
                format!("release epoch {epoch}{to}")
            }
            Do::Operate { op, resource, operation, .. } => {
                let line = format!("{} {}", operation.word(), name(*resource));
                self.ops[*resource] = Some(*op);
                line
            }
            Do::Cancel { op } => {
                let which = self.ops.iter().position(|o| *o == Some(*op));
                format!("cancel {}", which.map_or_else(|| "?".to_owned(), name))
            }
            Do::Watch { resource } => format!("watch {}", name(*resource)),
            Do::Unwatch { resource } => format!("unwatch {}", name(*resource)),
            Do::Running(Some(epoch)) => format!("remember epoch {epoch}"),
            Do::Running(None) => "remember nothing".to_owned(),
            Do::Lasting => "remember decline".to_owned(),
            Do::Quarantine { .. } => "quarantine".to_owned(),
            Do::Reset { .. } => "reset".to_owned(),
            Do::Record(_) => return None,
        })
    }

    pub(super) fn judged(&mut self) -> Vec<String> {
        self.act(|life, around, now, out| life.judged(around, now, out))
    }

    pub(super) fn won(&mut self, epoch: u64) -> Vec<String> {
        let held = Held { epoch: Epoch(epoch), tenure: Tenure::UntilRevoked, failures: EarlyFailures::default() };
        self.answer(Ok(held))
    }

    pub(super) fn answer(&mut self, answer: Result<Held, Refusal>) -> Vec<String> {
        let op = self.claim.unwrap();
        self.act(|life, around, now, out| life.claimed(op, answer, around, now, out))
    }

    pub(super) fn released(&mut self, answer: Result<(), Refusal>) -> Vec<String> {
        let op = self.claim.unwrap();
        self.act(|life, _, now, out| life.released(op, answer, now, out))
    }

    pub(super) fn room(&mut self) -> Vec<String> {
        self.act(|life, around, now, out| life.let_start(around, now, out))
    }

    pub(super) fn lost(&mut self) -> Vec<String> {
        self.act(|life, around, now, out| life.claim_lost("taken over", around, now, out))
    }

    pub(super) fn recall(&mut self, epoch: u64) -> Vec<String> {
        self.act(|life, _, now, out| life.recall(Epoch(epoch), now, out))
    }

    pub(super) fn clear(&mut self) -> Vec<String> {
        self.act(|life, _, now, out| life.clear(now, out))
    }

    fn index(&self, name: &str) -> usize {
        self.life.hierarchy.resources.iter().position(|r| r.name.as_str() == name).unwrap()
    }

    /// The last operation asked of the resource ended.
    pub(super) fn ended(&mut self, name: &str, outcome: &Outcome) -> Vec<String> {
        let op = self.ops[self.index(name)].unwrap();
        self.act(|life, around, now, out| life.operated(op, outcome, around, now, out))
    }

    pub(super) fn good(&mut self, name: &str) -> Vec<String> {
        self.ended(name, &Outcome::Good)
    }

    pub(super) fn bad(&mut self, name: &str) -> Vec<String> {
        self.ended(name, &Outcome::Bad("broken".to_owned()))
    }

    pub(super) fn crashed(&mut self, name: &str) -> Vec<String> {
        let i = self.index(name);
        self.act(|life, around, now, out| life.watch_fired(i, "crashed", around, now, out))
    }

    pub(super) fn due(&mut self) -> Vec<String> {
        self.act(|life, around, now, out| {
            life.timers_due(around, now, out);
        })
    }

    /// Time goes by, and what is due by then is done.
    pub(super) fn wait(&mut self, length: Duration) -> Vec<String> {
        self.now = self.now + length;
        self.due()
    }
}
