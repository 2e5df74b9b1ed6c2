//! From events to timelines: how long a recovery took, and where the time went.
//!
//! T_restore = T_detect + T_recover (Bottomley, "Implementing Clusters for High Availability", equation 1).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Event, Happened};
use crate::contact::AnnouncedPhase;
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::time::Time;

/// So many finished timelines are kept in memory.
const KEPT: usize = 2048;

/// Why a hierarchy entered service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nobody had it in service before, as far as this node knew.
    FirstStart,
    /// After a fault of another node.
    Failover {
        /// The node.
        from: NodeName,
    },
    /// Handed over, or given up, by another node.
    Switchover {
        /// The node.
        from: NodeName,
    },
    /// A resource failed here and was restarted here.
    LocalRecovery,
    /// The agent was restarted; nothing was interrupted.
    Adoption,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::FirstStart => f.write_str("first start"),
            Cause::Failover { from } => write!(f, "failover from {from}"),
            Cause::Switchover { from } => write!(f, "switchover from {from}"),
            Cause::LocalRecovery => f.write_str("local recovery"),
            Cause::Adoption => f.write_str("adoption"),
        }
    }
}

/// A step of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When, on this node's clock.
    pub at: Time,
    /// What, in one line.
    pub what: String,
}

/// How a hierarchy came into service on this node once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The hierarchy.
    pub hierarchy: HierarchyName,
    /// Why.
    pub cause: Cause,
    /// The tenure.
    pub epoch: Epoch,
    /// The last moment at which all was known to be well, or the first at which something was known not to be.
    pub fault: Time,
    /// When this node began to act: candidate, or the failed resource known.
    pub detected: Time,
    /// When it was in service.
    pub in_service: Time,
    /// Every step.
    pub marks: Vec<Mark>,
}

impl Timeline {
    /// From the fault to the begin of action.
    pub fn t_detect(&self) -> Duration {
        self.detected.since(self.fault)
    }

    /// From the begin of action to service, the wait for the claim included.
    pub fn t_recover(&self) -> Duration {
        self.in_service.since(self.detected)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {}, epoch {}: T_detect {:.1} ms + T_recover {:.1} ms = {:.1} ms",
            self.hierarchy,
            self.cause,
            self.epoch,
            self.t_detect().as_secs_f64() * 1e3,
            self.t_recover().as_secs_f64() * 1e3,
            self.in_service.since(self.fault).as_secs_f64() * 1e3,
        )?;
        for mark in &self.marks {
            writeln!(f, "  {:>+10.1} ms  {}", mark.at.since(self.fault).as_secs_f64() * 1e3, mark.what)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Draft {
    cause: Cause,
    fault: Time,
    detected: Time,
    marks: Vec<Mark>,
}

/// Makes timelines of events; keeps the last 2048.
#[derive(Clone, Debug, Default)]
pub struct Timelines {
    drafts: BTreeMap<HierarchyName, Draft>,
    done: VecDeque<Timeline>,
    lost: BTreeMap<NodeName, Time>,
}

impl Timelines {
    /// Takes one event in; returns the timeline that it finishes.
    pub fn observe(&mut self, event: &Event) -> Option<&Timeline> {
        if let Happened::ContactLost { peer, .. } = &event.what {
            self.lost.insert(peer.clone(), event.at);
        }
        let hierarchy = event.hierarchy.as_ref()?;
        match &event.what {
            Happened::Candidate { before, fault, .. } => self.begin(hierarchy, event.at, before.as_ref(), *fault),
            Happened::ResourceFailed { .. } if !self.drafts.contains_key(hierarchy) => {
                let draft =
                    Draft { cause: Cause::LocalRecovery, fault: event.at, detected: event.at, marks: Vec::new() };
                self.drafts.insert(hierarchy.clone(), draft);
            }
            _ => {}
        }
        let in_service = match &event.what {
            Happened::InService { epoch, adopted } => Some((*epoch, *adopted)),
            _ => None,
        };
        if let Some((epoch, adopted)) = in_service {
            let mut draft = self.drafts.remove(hierarchy)?;
            draft.marks.push(Mark { at: event.at, what: event.what.to_string() });
            return self.finish(hierarchy, event.at, draft, epoch, adopted);
        }
        // Given up: whatever comes later is another recovery, with a fault of its own.
        let left_to_others = matches!(event.what, Happened::Phase { phase: AnnouncedPhase::Out, .. });
        if left_to_others || matches!(event.what, Happened::ClaimReleased { .. } | Happened::ClaimLost { .. }) {
            self.drafts.remove(hierarchy);
        } else if let Some(draft) = self.drafts.get_mut(hierarchy)
            // What leads to a phase is a mark of its own already.
            && !matches!(event.what, Happened::Phase { .. })
        {
            draft.marks.push(Mark { at: event.at, what: event.what.to_string() });
        }
        None
    }

    fn finish(
        &mut self,
        hierarchy: &HierarchyName,
        in_service: Time,
        draft: Draft,
        epoch: Epoch,
        adopted: bool,
    ) -> Option<&Timeline> {
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        self.done.push_back(Timeline {
            hierarchy: hierarchy.clone(),
            cause: if adopted { Cause::Adoption } else { draft.cause },
            epoch,
            fault: draft.fault,
            detected: draft.detected,
            in_service,
            marks: draft.marks,
        });
        self.done.back()
    }

    fn begin(&mut self, hierarchy: &HierarchyName, at: Time, before: Option<&NodeName>, fault: Option<Time>) {
        // A candidate that was refused and asks again is still in the same recovery.
        if self.drafts.contains_key(hierarchy) {
            return;
        }
        let mut marks = Vec::new();
        let cause = match (before, fault) {
            (Some(from), Some(last_heard)) => {
                marks.push(Mark { at: last_heard, what: format!("last sign of life of {from}") });
                if let Some(lost) = self.lost.get(from).filter(|lost| **lost >= last_heard) {
                    marks.push(Mark { at: *lost, what: format!("contact with {from} lost") });
                }
                Cause::Failover { from: from.clone() }
            }
            (Some(from), None) => Cause::Switchover { from: from.clone() },
            (None, _) => Cause::FirstStart,
        };
        let draft = Draft { cause, fault: fault.unwrap_or(at), detected: at, marks };
        self.drafts.insert(hierarchy.clone(), draft);
    }

    /// The finished timelines, the oldest first.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = &Timeline> {
        self.done.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, what: Happened) -> Event {
        Event { at: Time(at), hierarchy: Some(HierarchyName::new("web").unwrap()), what }
    }

    #[test]
    fn an_attempt_that_was_given_up_is_no_part_of_the_next_recovery() {
        let gamma = || NodeName::new("gamma").unwrap();
        let mut timelines = Timelines::default();
        let early = Happened::Candidate { before: None, fault: None, why: String::new() };
        timelines.observe(&event(10, early));
        timelines.observe(&event(20, Happened::Phase { phase: AnnouncedPhase::Out, why: "behind gamma".to_owned() }));
        let real = Happened::Candidate { before: Some(gamma()), fault: Some(Time(900)), why: String::new() };
        timelines.observe(&event(1_000, real));
        let finished =
            timelines.observe(&event(1_040, Happened::InService { epoch: Epoch(6), adopted: false })).unwrap();
        assert_eq!(finished.cause, Cause::Failover { from: gamma() });
        assert_eq!((finished.t_detect().as_nanos(), finished.t_recover().as_nanos()), (100, 40));
    }
}
