//! What becomes of a node when all others are dead from now on and nothing fails any more: it must get the claim.
//!
//! Decides what happens to it, one thing after the other, and what its way depends on.

use super::{Ask, Flight, Node, ReservationModel, State, What, name};
use crate::claim::reservation::device::Answer;
use crate::sim::model::intern::print_of;

/// A node left alone must have the claim after so many steps, or it never will.
pub(super) const STEPS_MAX: usize = 300;

impl ReservationModel {
    /// Whether node `i` gets the claim if all others die now, and nobody but it is registered then.
    pub(super) fn left_alone(&mut self, state: &State, i: usize) -> Result<(), String> {
        let mut alone = state.clone();
        for j in (0..self.bounds.nodes).filter(|j| *j != i) {
            let local = self.memo.fresh(j);
            let node = &mut alone.nodes[j];
            *node = Node { local, flight: Flight::Sent, late: None, up: false, tenure: 0, recalled: false, ..*node };
            (node.asked, node.wrote, node.away) = (None, super::LIMIT, 0);
        }
        (alone.nodes[i].late, alone.nodes[i].away) = (None, 0);
        let mut way = Vec::new();
        let left = loop {
            let key = alone_key(&alone, i);
            if let Some(left) = self.alone.get(&key) {
                break *left;
            }
            way.push(key);
            if way.len() > STEPS_MAX {
                return Err(format!("{} does not get the claim for itself although all others are dead", name(i)));
            }
            let Some(what) = self.next_alone(&alone, i) else { break 0 };
            alone.nodes[i].asks = 0;
            alone = self.apply(&alone, i, what)?;
        };
        for (key, more) in way.into_iter().rev().zip(1..) {
            self.alone.insert(key, left + more);
            self.longest_alone = self.longest_alone.max(left + more);
        }
        Ok(())
    }

    /// What happens next to a node that is left alone; none once it has the claim, and nobody else is registered.
    pub(super) fn next_alone(&self, state: &State, i: usize) -> Option<What> {
        let node = &state.nodes[i];
        let local = self.memo.local(node.local);
        if !node.up {
            return Some(What::Boot);
        }
        if local.command.is_some() {
            return Some(match node.flight {
                Flight::Answered(_) => What::Answer,
                _ if local.in_time_for == 0 && node.flight == Flight::Sent => What::Lose(super::Fate::Lost),
                Flight::Silent if local.in_time_for == 0 => What::Limit,
                Flight::Silent => What::Pass(self.quiet_for(state)?),
                Flight::Sent => What::Carry,
            });
        }
        if local.due_in == Some(0) {
            return Some(What::Due);
        }
        if node.asked.is_none() && (node.tenure == 0 || node.recalled || local.held != Some(node.tenure)) {
            return Some(What::Ask(Ask::Take));
        }
        let has_it = node.asked.is_none() && self.memo.disk(state.disk).registrations == 1;
        if has_it { None } else { self.quiet_for(state).map(What::Pass) }
    }

    /// All that the future of a node depends on, but for the device.
    pub(super) fn describe(node: &Node, bytes: &mut Vec<u8>) {
        // All fields are named, so that none that is added later is forgotten.
        let Node {
            local,
            flight,
            late,
            up,
            tenure,
            recorded,
            superseded,
            recalled,
            asked,
            asks,
            heard,
            punctual,
            clean,
            away,
            wrote,
        } = node;
        bytes.extend(local.to_le_bytes());
        let (flight, result) = match flight {
            Flight::Sent => (0, 0),
            Flight::Answered(result) => (1, *result),
            Flight::Silent => (2, 0),
        };
        bytes.push(flight);
        bytes.extend(result.to_le_bytes());
        if let Some(late) = late {
            bytes.extend(format!("{late:?}").as_bytes());
        }
        bytes.extend([
            u8::from(*up),
            *tenure,
            *recorded,
            u8::from(*recalled),
            asked.map_or(0, |ask| ask as u8 + 1),
            *asks,
        ]);
        bytes.extend([u8::from(*superseded), *heard, u8::from(*punctual), u8::from(*clean), *away, *wrote]);
    }

    /// What the device answered, for people.
    pub(super) fn result_in_words(&self, result: u32) -> String {
        let describe = |key| self.memo.keyring.describe(key);
        match self.memo.result(result) {
            Err(failure) => failure.to_string(),
            Ok(Answer::Keys(keys)) => {
                let keys: Vec<_> = keys.keys.iter().map(|key| describe(*key)).collect();
                if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
            }
            Ok(Answer::Reservation(reservation)) => {
                let key = reservation.held.and_then(|held| held.key);
                key.map_or_else(|| "none".to_owned(), describe)
            }
            Ok(_) => "done".to_owned(),
        }
    }
}

/// What the future of a node depends on that is alone.
fn alone_key(state: &State, i: usize) -> u128 {
    let mut bytes = vec![i as u8, state.last, state.given_up];
    bytes.extend(state.disk.to_le_bytes());
    ReservationModel::describe(&state.nodes[i], &mut bytes);
    print_of(&bytes)
}
