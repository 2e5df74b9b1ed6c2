//! From events to timelines: one of every interruption of a hierarchy, from the moment at which something was wrong to the moment at which
//! it was in service again, on whichever node.
//!
//! Decides which hierarchies an event concerns, and what is kept. Leaves what it means for one of them to [`Course`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::course::{Course, Finding};
use super::event::{Event, Happened, Wish};
use super::timeline::{Afterwards, Cause, Fault, Ongoing, Return, Timeline};
use crate::contact::{AnnouncedPhase, Disturbance};
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::time::Time;

/// So many finished timelines are kept in memory.
const KEPT: usize = 2048;
/// A pause of this node that is shorter is nothing to tell.
const PAUSE: Duration = Duration::from_secs(1);

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
            Happened::Fencing { node, .. } => {
                let drafts = self.courses.values_mut().filter_map(|course| course.draft.as_mut());
                for draft in drafts.filter(|draft| draft.was_on(node)) {
                    draft.mark(at, event.what.to_string());
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
