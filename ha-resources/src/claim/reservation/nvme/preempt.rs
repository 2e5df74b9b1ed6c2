//! Preemption, and a way round targets that do not carry out a holder's.
//!
//! Linux's own target, from 6.13 to at least 6.16 (7.3 does it right), takes a preemption that comes from the reservation's holder for a wish to
//! change the type of the reservation, whoever is to be preempted: it answers that it is done, and nobody is. A holder could not
//! defend itself there. So what is registered is read afterwards, and where the victim still is, the holder goes another way: it does change the type,
//! to the one that all registrants hold, and then preempts all the others at once, which makes it the only holder again, of the type as before. A host
//! that is not registered may not write at any moment of it.
//!
//! Decides when to go that way, which is never with anybody registered who is none of the cluster's, since all the others lose their
//! registration.

use ha_core::claim::reservation::device::{Answer, Command, Failure, Key, Queued, ReservationType};
use ha_core::claim::reservation::key::of_one_cluster;

use super::report::Report;
use super::{NvmeDevice, PREEMPT, PREEMPT_AND_ABORT};

/// How often the type is asked to be changed back, where no answer comes.
const TRIES: usize = 3;

/// A preemption.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preemption {
    pub(super) key: Key,
    pub(super) victim: Option<Key>,
    pub(super) kind: ReservationType,
    pub(super) queued: Queued,
}

impl Preemption {
    fn command(self) -> Command {
        let Preemption { key, victim, kind, queued } = self;
        Command::Preempt { key, victim, kind, queued }
    }

    fn action(self) -> u32 {
        match self.queued {
            Queued::Stay => PREEMPT,
            Queued::Aborted => PREEMPT_AND_ABORT,
        }
    }
}

impl NvmeDevice {
    /// Carries a preemption out.
    pub(super) fn preempt(&mut self, wanted: Preemption) -> Result<Answer, Failure> {
        let done = self.change(wanted.command(), wanted.action())?;
        // Whoever asked reads again in any case.
        let Ok(report) = self.report() else { return Ok(done) };
        match way_round(&report, wanted) {
            Some(shared) => self.preempt_all_others(wanted, shared),
            None => Ok(done),
        }
    }

    fn preempt_all_others(&mut self, wanted: Preemption, shared: ReservationType) -> Result<Answer, Failure> {
        tracing::warn!(victim = %wanted.victim.map_or_else(String::new, |key| key.to_string()),
            "this NVMe target says that it has preempted a key, and has not, as that of Linux before 7 does: going round that");
        let first = Preemption { kind: shared, queued: Queued::Stay, ..wanted };
        self.change(first.command(), first.action())?;
        if self.report().is_ok_and(|report| report.kind() != Some(shared)) {
            // It was carried out as it should be: the victim had come back meanwhile, and is gone.
            return Ok(Answer::Done);
        }
        let second = Preemption { victim: None, ..wanted };
        let mut answer = Err(Failure::NoAnswer);
        for _ in 0..TRIES {
            answer = self.change(second.command(), second.action());
            if !matches!(answer, Err(Failure::NoAnswer | Failure::Transport)) {
                break;
            }
        }
        // As unknown as whether the type was changed: what is there is to be read.
        if answer == Err(Failure::NotSupported) { Ok(Answer::Done) } else { answer }
    }
}

/// The type that all registrants hold, if a preemption that is said to be done was not carried out, and can be so that way.
pub(super) fn way_round(report: &Report, wanted: Preemption) -> Option<ReservationType> {
    let victim = wanted.victim?;
    let shared = match wanted.kind {
        ReservationType::WriteExclusiveRegistrantsOnly => ReservationType::WriteExclusiveAllRegistrants,
        ReservationType::ExclusiveAccessRegistrantsOnly => ReservationType::ExclusiveAccessAllRegistrants,
        _ => return None,
    };
    let held = report.reservation().held?;
    let is_ours = held.kind == wanted.kind && held.key == Some(wanted.key) && victim != wanted.key;
    let keys = report.keys().keys;
    let is_left = keys.contains(&victim);
    let known = |key: &Key| *key == wanted.key || *key == victim || of_one_cluster(*key, wanted.key);
    (is_ours && is_left && keys.iter().all(known)).then_some(shared)
}
