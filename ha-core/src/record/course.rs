//! The course of one hierarchy, as this node sees it: who has it in service, and what is known of an interruption that is not over.
//!
//! What disturbed it first is the cause, unless something that explains it came to light later ([`Course::find`]). Leaves to
//! [`super::timelines`] which events concern which hierarchy, and the words to [`super::timeline`].

use std::collections::VecDeque;
use std::time::Duration;

use super::event::Happened;
use super::timeline::{Cause, Fault, Mark};
use crate::contact::{AnnouncedPhase, Disturbance, DisturbanceKind};
use crate::name::{Epoch, NodeName};
use crate::time::Time;

/// So many steps of one timeline are kept: the first half and the last half.
const MARKS: usize = 64;
/// A step that happened so many steps ago is counted, and not written down again.
const SAME_WITHIN: usize = 4;
/// What happened so shortly before an interruption belongs to it.
const PRELUDE: Duration = Duration::from_secs(10);
/// And of that so many steps.
const PRELUDES: usize = 4;
/// A node that was silent for so long and still defended its claim was alive: no takeover takes longer to find that out.
const SURELY_HELD: Duration = Duration::from_secs(60);

/// What is found of an interruption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nobody had it in service, as far as is known.
    Nobody,
    Fault(Fault),
    HandedOver(String),
    Asked(String),
}

impl Finding {
    fn of(disturbance: &Disturbance) -> Finding {
        let why = disturbance.why.clone();
        match disturbance.kind {
            DisturbanceKind::Unproven => Finding::Fault(Fault::Unproven { why }),
            DisturbanceKind::ClaimLost => Finding::Fault(Fault::ClaimLost { why }),
            DisturbanceKind::Failed => Finding::Fault(Fault::Failed { why }),
            DisturbanceKind::HandedOver => Finding::HandedOver(why),
            DisturbanceKind::Asked => Finding::Asked(why),
        }
    }

    /// Whether `later` explains more.
    pub(super) fn yields_to(&self, later: &Finding) -> bool {
        use Fault::{AgentEnded, ClaimLost, Failed, Frozen, Unproven, Unseen};
        match (self, later) {
            (Finding::Fault(Unseen), later) => *later != Finding::Fault(Unseen),
            (Finding::Nobody, _)
            | (Finding::Fault(AgentEnded), Finding::Fault(ClaimLost { .. }))
            | (Finding::Fault(Failed { .. }), Finding::Fault(Unproven { .. } | ClaimLost { .. } | Frozen { .. }))
            | (Finding::Fault(Unproven { .. }), Finding::Fault(ClaimLost { .. } | Frozen { .. })) => true,
            _ => false,
        }
    }
}

/// An interruption that is not over.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Who had it in service, and under which tenure.
    pub(super) from: Option<(NodeName, Epoch)>,
    pub(super) finding: Finding,
    /// It is known to be out of service; else it may go on where it was.
    pub(super) down: bool,
    pub(super) fault: Time,
    pub(super) noticed: Time,
    /// When this node began to act.
    pub(super) acted: Option<Time>,
    /// When the node that is not heard last turned out to hold its claim.
    held: Option<Time>,
    pub(super) marks: Vec<Mark>,
    left_out: u32,
}

impl Draft {
    pub(super) fn mark(&mut self, at: Time, what: String) {
        let recent = self.marks.len().saturating_sub(SAME_WITHIN);
        if let Some(same) = self.marks[recent..].iter_mut().find(|mark| mark.what == what) {
            same.again = same.again.saturating_add(1);
            return;
        }
        if self.marks.len() >= MARKS {
            self.marks.remove(MARKS / 2);
            self.left_out += 1;
        }
        self.marks.push(Mark { at, what, again: 0 });
    }

    /// The node that had it in service did not run until `end`: that explains whatever else is found now.
    pub(super) fn froze(&mut self, end: Time, gap: Duration) {
        let frozen = Finding::Fault(Fault::Frozen { gap });
        if self.finding.yields_to(&frozen) || matches!(self.finding, Finding::Fault(Fault::ClaimLost { .. })) {
            self.finding = frozen;
            self.fault = self.fault.min(end - gap);
        }
    }

    pub(super) fn was_on(&self, node: &NodeName) -> bool {
        self.from.as_ref().is_some_and(|(from, _)| from == node)
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        let mut marks = self.marks.clone();
        if self.left_out > 0 {
            let at = marks.get(MARKS / 2).map_or(self.fault, |mark| mark.at);
            marks
                .insert(MARKS / 2, Mark { at, what: format!("({} steps are left out here)", self.left_out), again: 0 });
        }
        marks
    }
}

/// One hierarchy.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    /// Who had it in service last, as far as is known, and under which tenure.
    pub(super) serving: Option<(NodeName, Epoch)>,
    pub(super) draft: Option<Draft>,
    /// What happened shortly before.
    prelude: VecDeque<Mark>,
}

impl Course {
    pub(super) fn serves(&self, node: &NodeName) -> bool {
        self.serving.as_ref().is_some_and(|(serving, _)| serving == node)
    }

    pub(super) fn open(&mut self, finding: Finding, fault: Time, noticed: Time) -> &mut Draft {
        let prelude = std::mem::take(&mut self.prelude).into_iter();
        let marks =
            prelude.filter(|mark| fault.since(mark.at) <= PRELUDE && noticed.since(mark.at) <= PRELUDE).collect();
        let from = self.serving.clone();
        let (acted, held) = (None, None);
        let draft = Draft { from, finding, down: false, fault, noticed, acted, held, marks, left_out: 0 };
        self.draft.insert(draft)
    }

    /// Something is wrong, or asked for, on the node that has it in service: since when, and when that was noticed.
    pub(super) fn find(&mut self, finding: Finding, (since, at): (Time, Time), pause: Option<(Time, Duration)>) {
        // A node that stood still finds everything else wrong afterwards.
        let paused = pause.filter(|(end, _)| at.since(*end) <= PRELUDE);
        let is_fault = matches!(finding, Finding::Fault(Fault::Unproven { .. } | Fault::ClaimLost { .. }));
        let (finding, fault) = match paused.filter(|_| is_fault) {
            Some((end, gap)) => (Finding::Fault(Fault::Frozen { gap }), end - gap),
            None => (finding, since),
        };
        match &mut self.draft {
            None => {
                self.open(finding, fault, at);
            }
            Some(draft) if draft.finding.yields_to(&finding) => {
                draft.finding = finding;
                draft.fault = draft.fault.min(fault);
            }
            Some(_) => {}
        }
    }

    pub(super) fn mark(&mut self, at: Time, what: &Happened) {
        match &mut self.draft {
            Some(draft) => draft.mark(at, what.to_string()),
            None => {
                if self.prelude.len() == PRELUDES {
                    self.prelude.pop_front();
                }
                self.prelude.push_back(Mark { at, what: what.to_string(), again: 0 });
            }
        }
    }

    /// It is in service on `node`. Returns what that ends, if it ends anything that is worth telling.
    pub(super) fn serve(
        &mut self,
        node: &NodeName,
        epoch: Epoch,
        adopted: bool,
        here: bool,
        at: Time,
    ) -> Option<(Cause, Draft)> {
        let before = self.serving.replace((node.clone(), epoch));
        let same_tenure = before.as_ref() == self.serving.as_ref();
        self.prelude.clear();
        let Some(mut draft) = self.draft.take() else {
            let unseen = match before {
                _ if same_tenure => return None,
                None if !here => return None,
                None => Finding::Nobody,
                Some(_) => Finding::Fault(Fault::Unseen),
            };
            let serving = self.serving.take();
            self.serving = before;
            self.open(unseen, at, at);
            self.serving = serving;
            let draft = self.draft.take()?;
            return Some((if adopted { Cause::Adoption } else { cause(&draft, node, epoch)? }, draft));
        };
        if adopted {
            return Some((Cause::Adoption, draft));
        }
        if draft.finding == Finding::Nobody && !here {
            // It was in service there all the time, for all that is known.
            return None;
        }
        if let (Finding::Fault(Fault::Silent), Some(held)) = (&draft.finding, draft.held)
            && held.since(draft.noticed) > SURELY_HELD
            && !draft.was_on(node)
        {
            (draft.fault, draft.noticed, draft.acted) = (held, held, None);
        }
        let cause = cause(&draft, node, epoch)?;
        Some((cause, draft))
    }

    /// The node that has it in service is in another phase, or says what disturbs it.
    pub(super) fn disturbed(
        &mut self,
        phase: AnnouncedPhase,
        disturbance: Option<&Disturbance>,
        at: Time,
        pause: Option<(Time, Duration)>,
    ) {
        let in_service = phase == AnnouncedPhase::InService;
        match disturbance {
            Some(disturbance) => {
                let since = at - Duration::from_millis(u64::from(disturbance.told_after_ms));
                self.find(Finding::of(disturbance), (since, at), pause);
            }
            // What is found running by a new agent is announced as being restarted.
            None if in_service || phase == AnnouncedPhase::Restarting => return,
            None => self.find(Finding::Fault(Fault::Unseen), (at, at), None),
        }
        if let Some(draft) = &mut self.draft {
            draft.down |= !in_service;
        }
    }

    pub(super) fn candidate(
        &mut self,
        before: Option<&NodeName>,
        last_heard: Option<Time>,
        lost: Option<&Time>,
        at: Time,
    ) {
        if self.serving.is_none() {
            self.serving = before.map(|node| (node.clone(), Epoch::ZERO));
        }
        let silent = last_heard.filter(|_| before.is_some_and(|node| self.serves(node)));
        match &mut self.draft {
            None => {
                let (finding, fault) = match (&self.serving, silent) {
                    (None, _) => (Finding::Nobody, at),
                    (Some(_), Some(last_heard)) => (Finding::Fault(Fault::Silent), last_heard),
                    // It asks to make sure that the claim is not its own, and interrupts nothing.
                    (Some(_), None) => return,
                };
                let noticed = lost.copied().unwrap_or(at).max(fault);
                self.open(finding, fault, noticed).acted = Some(at);
            }
            Some(draft) => {
                draft.acted.get_or_insert(at);
                if draft.from.is_none() {
                    draft.from.clone_from(&self.serving);
                    if let Some(last_heard) = silent {
                        (draft.finding, draft.fault) = (Finding::Fault(Fault::Silent), last_heard);
                        draft.acted = Some(at);
                    }
                }
            }
        }
    }

    /// Another node turned out to hold the claim.
    pub(super) fn refused(&mut self, holder: &NodeName, at: Time) {
        let Some(draft) = &mut self.draft else { return };
        match &draft.finding {
            // It may serve, unheard: what was well until now is interrupted later at the earliest.
            Finding::Nobody | Finding::Fault(Fault::Unseen) => {
                if self.serving.as_ref().is_none_or(|(serving, _)| serving != holder) {
                    self.serving = Some((holder.clone(), Epoch::ZERO));
                }
                draft.from.clone_from(&self.serving);
                draft.finding = Finding::Fault(Fault::Unseen);
                (draft.fault, draft.noticed, draft.acted) = (at, at, None);
            }
            Finding::Fault(_) | Finding::HandedOver(_) | Finding::Asked(_) => {
                if draft.was_on(holder) {
                    draft.held = Some(at);
                }
            }
        }
    }
}

/// Why a hierarchy is in service on `node` under `epoch`, after what the draft tells.
fn cause(draft: &Draft, node: &NodeName, epoch: Epoch) -> Option<Cause> {
    let Some((from, before)) = draft.from.clone() else { return Some(Cause::FirstStart) };
    let stayed = from == *node && before == epoch && !draft.down;
    match draft.finding.clone() {
        Finding::Nobody => Some(Cause::FirstStart),
        // Refused by it, and then it was heard: it had it in service all the time.
        Finding::Fault(Fault::Unseen) if from == *node => None,
        Finding::Fault(fault) if stayed => Some(Cause::Stayed { fault }),
        Finding::Fault(fault) if from == *node => Some(Cause::LocalRecovery { fault }),
        Finding::Fault(fault) => Some(Cause::Failover { from, fault }),
        Finding::HandedOver(why) => Some(Cause::Switchover { from, why }),
        Finding::Asked(why) => Some(Cause::Restart { why }),
    }
}
