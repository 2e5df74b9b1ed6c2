//! From every state, once nothing fails any more, the hierarchy reaches a fixed place and stays there (L4).
//!
//! Decides one fair order in which everything that is pending happens, and what counts as a fixed place. Whoever is dead is started again.

use super::{Due, EngineModel, Flaw, How, NAMES, Pending, State, What};
use crate::contact::AnnouncedPhase;
use crate::engine::supposed::Outlook;
use crate::recovery::LifeTimer;
use crate::sim::model::explore::Model;

/// More steps than any healing needs.
const STEPS: usize = 400;

impl EngineModel {
    pub(super) fn heals(&mut self, state: &State) -> Result<(), String> {
        let mut state = *state;
        let mut way: Vec<u128> = Vec::new();
        let mut steps: Vec<String> = Vec::new();
        loop {
            let known = State { commands: 0, silences: 0, crashes: 0, failures: 0, lapses: 0, ..state };
            let print = self.fingerprint(&known);
            if self.healing.contains(&print) {
                break;
            }
            if way.contains(&print) || way.len() > STEPS {
                return Err(format!("L4: with no new fault this goes on for ever:\n     {}", steps.join("\n     ")));
            }
            way.push(print);
            let Some((i, what)) = self.heal(&state) else {
                self.is_at_rest(&state).map_err(|e| format!("{e}; after\n     {}", steps.join("\n     ")))?;
                break;
            };
            steps.push(self.in_words(&state, i, what));
            state = self.apply(&state, i, what)?;
        }
        self.longest_healing = self.longest_healing.max(way.len());
        self.healing.extend(way);
        Ok(())
    }

    /// What happens next when nothing fails: all that is asked is answered, all is heard, and then the timers run off.
    fn heal(&self, state: &State) -> Option<(usize, What)> {
        let both = 0..2;
        for i in both.clone() {
            let local = self.local(state, i);
            if local.engine.is_none() {
                return Some((i, What::Begins));
            }
            if let Some((at, pending)) = local.pending.iter().enumerate().next() {
                return Some((
                    i,
                    match pending {
                        Pending::Answered { .. } => What::Deliver { at },
                        Pending::Operate { operation, part, .. } => {
                            What::Ended { at, how: *How::of(*operation, local.up[*part]).first()? }
                        }
                        _ => What::Claim { at, trouble: None },
                    },
                ));
            }
        }
        for i in both.clone() {
            let (local, other) = (self.local(state, i), self.local(state, 1 - i));
            if local.heard != (other.told, true) {
                return Some((i, What::Hear));
            }
        }
        for i in both.clone() {
            if self.lease_can_end(state, i) {
                return Some((i, What::LeaseOver));
            }
            if state.register.heir == Some(i as u8) {
                return Some((i, What::HeirGone));
            }
        }
        for i in both {
            let outlook = self.local(state, i).outlook.as_ref()?;
            let due = outlook.dues.iter().find(|due| match due {
                Due::TenureEnd | Due::Life(LifeTimer::Monitor(_)) => false,
                Due::Life(LifeTimer::Retry) => self.bounds.flaw != Some(Flaw::NoRetry),
                Due::Life(_) => true,
            });
            if let Some(due) = due {
                return Some((i, What::Due(*due)));
            }
        }
        None
    }

    /// In service at one place; or nowhere, for a reason that only an operator can take away.
    fn is_at_rest(&self, state: &State) -> Result<(), String> {
        let both: Vec<&Outlook> = (0..2).filter_map(|i| self.local(state, i).outlook.as_ref()).collect();
        let [a, b] = both[..] else { return Err("L4: an agent is dead".to_owned()) };
        if a.directive != b.directive {
            return Err(format!("L4: the nodes do not agree on what is wanted: {:?}, {:?}", a.directive, b.directive));
        }
        let directive = &a.directive;
        if directive.maintenance {
            return Ok(());
        }
        let serving = both.iter().filter(|o| o.phase == AnnouncedPhase::InService).count();
        let running = both.iter().filter(|o| o.runs || o.held.is_some()).count();
        let wanted = !directive.stopped && directive.quarantined.is_none() && both.iter().any(|o| !o.standby);
        let fixed = if wanted { serving == 1 && running == 1 } else { running <= serving && serving <= 1 };
        if fixed {
            return Ok(());
        }
        let phases: Vec<String> = NAMES.iter().zip(&both).map(|(n, o)| format!("{n} {}", o.phase)).collect();
        let register = state.register;
        Err(format!("L4: it comes to rest nowhere: {}; wanted: {wanted}; {register:?}", phases.join(", ")))
    }
}
