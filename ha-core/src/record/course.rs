//! From events to timelines: follows who has each hierarchy in service, as this node sees it, and makes one timeline of every interruption,
//! from the moment at which something was wrong to the moment at which it was in service again, on whichever node.
//!
//! What disturbed it first is the cause, unless something that explains it came to light later ([`Course::find`]). Leaves the words to
//! [`super::timeline`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::event::{Event, Happened, Wish};
use super::timeline::{Afterwards, Cause, Fault, Mark, Ongoing, Return, Timeline};
use crate::contact::{AnnouncedPhase, Disturbance, DisturbanceKind};
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::time::Time;

/// So many finished timelines are kept in memory.
const KEPT: usize = 2048;
/// So many steps of one timeline are kept: the first half and the last half.
const MARKS: usize = 64;
/// A step that happened so many steps ago is counted, and not written down again.
const SAME_WITHIN: usize = 4;
/// What happened so shortly before an interruption belongs to it.
const PRELUDE: Duration = Duration::from_secs(10);
/// And of that so many steps.
const PRELUDES: usize = 4;
/// A pause of this node that is shorter is nothing to tell.
const PAUSE: Duration = Duration::from_secs(1);
/// A node that was silent for so long and still defended its claim was alive: no takeover takes longer to find that out.
const SURELY_HELD: Duration = Duration::from_secs(60);

/// What is found of an interruption.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
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
    fn yields_to(&self, later: &Finding) -> bool {
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
struct Draft {
    /// Who had it in service, and under which tenure.
    from: Option<(NodeName, Epoch)>,
    finding: Finding,
    /// It is known to be out of service; else it may go on where it was.
    down: bool,
    fault: Time,
    noticed: Time,
    /// When this node began to act.
    acted: Option<Time>,
    /// When the node that is not heard last turned out to hold its claim.
    held: Option<Time>,
    marks: Vec<Mark>,
    left_out: u32,
}

impl Draft {
    fn mark(&mut self, at: Time, what: String) {
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
    fn froze(&mut self, end: Time, gap: Duration) {
        let frozen = Finding::Fault(Fault::Frozen { gap });
        if self.finding.yields_to(&frozen) || matches!(self.finding, Finding::Fault(Fault::ClaimLost { .. })) {
            self.finding = frozen;
            self.fault = self.fault.min(end - gap);
        }
    }

    fn was_on(&self, node: &NodeName) -> bool {
        self.from.as_ref().is_some_and(|(from, _)| from == node)
    }

    fn marks(&self) -> Vec<Mark> {
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
struct Course {
    /// Who had it in service last, as far as is known, and under which tenure.
    serving: Option<(NodeName, Epoch)>,
    draft: Option<Draft>,
    /// What happened shortly before.
    prelude: VecDeque<Mark>,
}

impl Course {
    fn serves(&self, node: &NodeName) -> bool {
        self.serving.as_ref().is_some_and(|(serving, _)| serving == node)
    }

    fn open(&mut self, finding: Finding, fault: Time, noticed: Time) -> &mut Draft {
        let prelude = std::mem::take(&mut self.prelude).into_iter();
        let marks =
            prelude.filter(|mark| fault.since(mark.at) <= PRELUDE && noticed.since(mark.at) <= PRELUDE).collect();
        let from = self.serving.clone();
        let (acted, held) = (None, None);
        let draft = Draft { from, finding, down: false, fault, noticed, acted, held, marks, left_out: 0 };
        self.draft.insert(draft)
    }

    /// Something is wrong, or asked for, on the node that has it in service: since when, and when that was noticed.
    fn find(&mut self, finding: Finding, (since, at): (Time, Time), pause: Option<(Time, Duration)>) {
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

    fn mark(&mut self, at: Time, what: &Happened) {
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
    fn serve(&mut self, node: &NodeName, epoch: Epoch, adopted: bool, here: bool, at: Time) -> Option<(Cause, Draft)> {
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

/// Makes timelines of events, and keeps the last 2048.
#[derive(Clone, Debug)]
pub struct Timelines {
    me: NodeName,
    courses: BTreeMap<HierarchyName, Course>,
    done: VecDeque<Timeline>,
    /// Peers that are not heard: when each was last heard.
    lost: BTreeMap<NodeName, Time>,
    /// How those that spoke with a new life meanwhile did so.
    restarted: BTreeMap<NodeName, Return>,
    /// When this node last did not run, and for how long.
    pause: Option<(Time, Duration)>,
}

impl Timelines {
    /// Those of the node of this name, from its events.
    pub fn new(me: NodeName) -> Self {
        Timelines {
            me,
            courses: BTreeMap::new(),
            done: VecDeque::new(),
            lost: BTreeMap::new(),
            restarted: BTreeMap::new(),
            pause: None,
        }
    }

    /// Takes one event in; returns the timeline that it finishes. (What concerns many hierarchies at once may finish several: they are among
    /// [`Timelines::finished`].)
    pub fn observe(&mut self, event: &Event) -> Option<&Timeline> {
        match &event.hierarchy {
            Some(hierarchy) => self.observe_hierarchy(hierarchy, event),
            None => {
                self.observe_node(event);
                None
            }
        }
    }

    /// The finished timelines, in the order in which they were finished.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = &Timeline> {
        self.done.iter()
    }

    /// What is out of service, or disturbed, by now.
    pub fn ongoing(&self) -> impl Iterator<Item = Ongoing> + '_ {
        self.courses.iter().filter_map(|(hierarchy, course)| {
            let draft = course.draft.as_ref()?;
            let why = match &draft.finding {
                Finding::Nobody => "nobody has it in service".to_owned(),
                Finding::Fault(fault) => fault.words(draft.from.as_ref().map(|(from, _)| from)),
                Finding::HandedOver(why) | Finding::Asked(why) => why.clone(),
            };
            Some(Ongoing { hierarchy: hierarchy.clone(), fault: draft.fault, why, marks: draft.marks() })
        })
    }

    fn observe_node(&mut self, event: &Event) {
        let at = event.at;
        match &event.what {
            Happened::ContactLost { peer, last_heard } => self.silent(peer, *last_heard, event),
            Happened::ContactMade { peer, .. } => self.heard(peer, event),
            Happened::PeerRestarted { peer, rebooted } => {
                let how = if *rebooted { Return::Booted } else { Return::AgentRestarted };
                self.restarted.insert(peer.clone(), how);
                for course in self.courses.values_mut() {
                    let on_it = course.serves(peer);
                    match &mut course.draft {
                        Some(draft) if draft.was_on(peer) => {
                            draft.mark(at, event.what.to_string());
                            draft.down |= *rebooted;
                        }
                        None if on_it && *rebooted => {
                            let draft = course.open(Finding::Fault(Fault::Rebooted), at, at);
                            draft.mark(at, event.what.to_string());
                            draft.down = true;
                        }
                        Some(_) | None => {}
                    }
                }
            }
            Happened::TimeGap { gap } if *gap >= PAUSE => {
                self.pause = Some((at, *gap));
                let me = self.me.clone();
                self.end_where(at, |course| {
                    // What was due in the meantime is told first.
                    if let Some(draft) = course.draft.as_mut().filter(|d| d.was_on(&me) && d.noticed == at) {
                        draft.froze(at, *gap);
                        draft.mark(at, event.what.to_string());
                    }
                    let idle = course.draft.is_none() && course.serves(&me);
                    if idle {
                        let draft = course.open(Finding::Fault(Fault::Frozen { gap: *gap }), at - *gap, at);
                        draft.mark(at, event.what.to_string());
                    }
                    idle
                });
            }
            _ => {}
        }
    }

    fn silent(&mut self, peer: &NodeName, last_heard: Time, event: &Event) {
        self.restarted.remove(peer);
        self.lost.insert(peer.clone(), last_heard);
        for course in self.courses.values_mut() {
            let on_it = course.serves(peer);
            match &mut course.draft {
                Some(draft) if draft.was_on(peer) => {
                    let silent = Finding::Fault(Fault::Silent);
                    if !draft.down && draft.finding.yields_to(&silent) {
                        (draft.finding, draft.fault, draft.noticed, draft.acted) = (silent, last_heard, event.at, None);
                    }
                    draft.mark(event.at, event.what.to_string());
                }
                None if on_it => {
                    let draft = course.open(Finding::Fault(Fault::Silent), last_heard, event.at);
                    draft.mark(last_heard, format!("last sign of life of {peer}"));
                    draft.mark(event.at, event.what.to_string());
                }
                Some(_) | None => {}
            }
        }
    }

    fn heard(&mut self, peer: &NodeName, event: &Event) {
        let how = self.restarted.remove(peer).unwrap_or(Return::AsItWas);
        if let Some(last_heard) = self.lost.remove(peer) {
            let afterwards = Afterwards { at: event.at, how };
            for done in self.done.iter_mut().rev().filter(|done| done.in_service > last_heard) {
                if matches!(&done.cause, Cause::Failover { from, .. } if from == peer) {
                    done.afterwards.get_or_insert(afterwards);
                }
            }
        }
        self.end_where(event.at, |course| {
            let Some(draft) = course.draft.as_mut().filter(|draft| draft.was_on(peer)) else { return false };
            draft.mark(event.at, event.what.to_string());
            how == Return::AsItWas && !draft.down && draft.finding == Finding::Fault(Fault::Silent)
        });
        for done in self.done.iter_mut().rev().take_while(|done| done.in_service == event.at) {
            if done.on == *peer && matches!(done.cause, Cause::Stayed { fault: Fault::Silent }) {
                done.afterwards = Some(Afterwards { at: event.at, how });
            }
        }
    }

    /// Ends the drafts of those that `which` says: what was disturbed stayed where it was.
    fn end_where(&mut self, at: Time, mut which: impl FnMut(&mut Course) -> bool) {
        let names: Vec<HierarchyName> =
            self.courses.iter_mut().filter_map(|(name, course)| which(course).then(|| name.clone())).collect();
        for name in names {
            if let Some((node, epoch)) = self.courses.get(&name).and_then(|course| course.serving.clone()) {
                self.serve(&name, &node, epoch, false, at);
            }
        }
    }

    fn observe_hierarchy(&mut self, name: &HierarchyName, event: &Event) -> Option<&Timeline> {
        let at = event.at;
        let (me, pause) = (self.me.clone(), self.pause);
        let course = self.courses.entry(name.clone()).or_default();
        match &event.what {
            Happened::Peer { peer, phase, epoch, disturbance } => {
                if course.serving.as_ref().is_some_and(|(node, known)| node != peer && epoch < known) {
                    return None;
                }
                course.mark(at, &event.what);
                if *phase == AnnouncedPhase::InService && disturbance.is_none() {
                    return self.serve(name, &peer.clone(), *epoch, false, at);
                }
                if course.serves(peer) {
                    course.disturbed(*phase, disturbance.as_ref(), at, None);
                } else if course.draft.is_none() && course.serving.is_some() && *phase == AnnouncedPhase::Starting {
                    course.find(Finding::Fault(Fault::Unseen), (at, at), None);
                }
            }
            Happened::Phase { phase, why, disturbance } if course.serves(&me) => {
                let disturbance = disturbance.map(|kind| Disturbance { kind, why: why.clone(), told_after_ms: 0 });
                if course.draft.as_ref().is_none_or(|draft| draft.marks.is_empty()) && disturbance.is_some() {
                    course.mark(at, &event.what);
                }
                course.disturbed(*phase, disturbance.as_ref(), at, pause);
            }
            Happened::Phase { phase: AnnouncedPhase::Out, .. } => {
                // An attempt that was given up before anybody had it in service is no part of the next one.
                course.draft.take_if(|draft| draft.finding == Finding::Nobody);
            }
            Happened::Phase { .. } => {}
            Happened::Unproven { why, since } if course.serves(&me) => {
                course.find(Finding::Fault(Fault::Unproven { why: why.clone() }), (*since, at), pause);
                course.mark(at, &event.what);
            }
            Happened::ProvenAgain { .. } => {
                course.mark(at, &event.what);
                let draft = course.draft.as_ref()?;
                let (from, epoch) = draft.from.clone()?;
                let was_unproven =
                    matches!(&draft.finding, Finding::Fault(Fault::Unproven { .. } | Fault::Frozen { .. }));
                if was_unproven && !draft.down && from == me {
                    return self.serve(name, &from, epoch, false, at);
                }
            }
            Happened::ClaimLost { why } if course.serves(&me) => {
                course.find(Finding::Fault(Fault::ClaimLost { why: why.clone() }), (at, at), pause);
                course.mark(at, &event.what);
            }
            Happened::Recalled { epoch } => {
                course.serving = Some((me, *epoch));
                course.open(Finding::Fault(Fault::AgentEnded), at, at).down = true;
                course.mark(at, &event.what);
            }
            Happened::Candidate { before, fault, .. } => {
                course.candidate(before.as_ref(), *fault, self.lost.get(before.as_ref().unwrap_or(&me)), at);
                course.mark(at, &event.what);
            }
            Happened::ClaimAsked => {
                if let Some(draft) = &mut course.draft {
                    draft.acted.get_or_insert(at);
                }
                course.mark(at, &event.what);
            }
            Happened::ClaimRefused { holder: Some(holder), .. } => {
                course.mark(at, &event.what);
                course.refused(holder, at);
            }
            Happened::ClaimWon { .. } => {
                if course.draft.is_none() {
                    let unseen = course.serving.is_some();
                    course.open(if unseen { Finding::Fault(Fault::Unseen) } else { Finding::Nobody }, at, at);
                }
                course.mark(at, &event.what);
            }
            Happened::InService { epoch, adopted } => {
                if course.draft.is_some() {
                    course.mark(at, &event.what);
                }
                return self.serve(name, &me, *epoch, *adopted, at);
            }
            Happened::Directive { wish: Wish::Start, .. } => {
                if let Some(draft) = &mut course.draft {
                    draft.acted = Some(at);
                }
                course.mark(at, &event.what);
            }
            _ => course.mark(at, &event.what),
        }
        None
    }

    fn serve(
        &mut self,
        name: &HierarchyName,
        node: &NodeName,
        epoch: Epoch,
        adopted: bool,
        at: Time,
    ) -> Option<&Timeline> {
        let here = *node == self.me;
        let (cause, draft) = self.courses.get_mut(name)?.serve(node, epoch, adopted, here, at)?;
        // A pause that turned out to be more than a pause.
        let frozen = |done: &Timeline| matches!(done.cause, Cause::Stayed { fault: Fault::Frozen { .. } });
        let twice = |done: &Timeline| done.hierarchy == *name && frozen(done) && done.fault == draft.fault;
        if let Some(place) = self.done.iter().rposition(twice) {
            self.done.remove(place);
        }
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        let detected = match cause {
            // What is asked for needs no detection.
            Cause::Switchover { .. } => draft.fault,
            _ => draft.acted.unwrap_or(draft.noticed).max(draft.fault),
        };
        self.done.push_back(Timeline {
            hierarchy: name.clone(),
            cause,
            on: node.clone(),
            epoch,
            fault: draft.fault,
            detected,
            in_service: at,
            marks: draft.marks(),
            afterwards: None,
        });
        self.done.back()
    }
}

impl Course {
    /// The node that has it in service is in another phase, or says what disturbs it.
    fn disturbed(
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

    fn candidate(&mut self, before: Option<&NodeName>, last_heard: Option<Time>, lost: Option<&Time>, at: Time) {
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
    fn refused(&mut self, holder: &NodeName, at: Time) {
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
