//! What the model checker has to know of a machine: how the times in it move, and which machines are equal.
//!
//! Decides in what two machines may differ without ever behaving differently. Leaves to [`crate::sim::model`] what happens, and when.

use std::fmt::Write as _;
use std::time::Duration;

use super::device::Command;
use super::lane::{Goal, Lane};
use super::machine::{CommandId, Machine};
use super::take::{Blank, Duel};
use crate::time::Time;

/// The moment at which a model's machines live. Time passes by moving everything else into the past.
pub(crate) const NOW: Time = Time(1_000_000_000_000);

impl Machine {
    /// The command under way to the arbiter, and when it was sent.
    pub(crate) fn under_way(&self) -> Option<(CommandId, Command, Time)> {
        let pending = self.lanes.first()?.pending.as_ref()?;
        Some((pending.id, pending.command, pending.sent))
    }

    /// So much time passes.
    pub(crate) fn age(&mut self, by: Duration) {
        self.lanes.iter_mut().for_each(|lane| lane.map_times(&|at, _| at - by));
    }

    /// Takes away in what machines may differ without ever behaving differently: how commands are numbered, how many there were, and when
    /// what is long past was.
    pub(crate) fn make_canonical(&mut self) {
        let interval = self.common.timing.defend_interval();
        let bound = self.common.timing.uphold_bound();
        let mut commands = 0;
        for lane in &mut self.lanes {
            lane.map_times(&|at, matters| {
                at.max(match matters {
                    Matters::Ahead => NOW,
                    Matters::ForAnInterval => NOW - interval - Duration::from_nanos(1),
                    Matters::ForTheBound => NOW - bound,
                })
            });
            lane.steps = 0;
            if let Some(pending) = &mut lane.pending {
                commands += 1;
                pending.id = CommandId(commands);
                lane.wake = None;
            }
            if let Goal::Nothing = lane.goal {
                lane.forget();
                for path in &mut lane.paths {
                    path.rest();
                }
            }
            if lane.reservation.is_none() {
                lane.seen_at = NOW - bound;
            }
        }
        self.next_command = commands;
    }

    /// A text that tells it from every machine of the same node that would behave differently. To be asked of a canonical one.
    pub(crate) fn identity(&self) -> String {
        // All fields are named, so that none that is added later is forgotten.
        let Machine { common: _, lanes, phase, tenure, loss: _, queue, current, floor, effects, next_command } = self;
        let mut text = format!("{phase:?}{tenure:?}{queue:?}{current:?}{floor:?}{effects:?}{next_command}");
        for lane in lanes {
            let Lane {
                name: _,
                limit: _,
                paths,
                goal,
                pending,
                keys,
                reservation,
                seen_at,
                steps,
                wake,
                audited,
                power_loss,
                queued,
                own_traffic,
                trouble: _,
            } = lane;
            let known = (keys, reservation, seen_at, steps, wake, audited, power_loss, queued, own_traffic);
            let _ = write!(text, "{paths:?}{goal:?}{pending:?}{known:?}");
        }
        text
    }
}

/// For how long a moment makes a difference.
#[derive(Clone, Copy)]
enum Matters {
    /// Only while it has not come.
    Ahead,
    /// Until it is more than a defence interval ago.
    ForAnInterval,
    /// Until it is an uphold bound ago.
    ForTheBound,
}

impl Lane {
    fn map_times(&mut self, map: &dyn Fn(Time, Matters) -> Time) {
        let change = |at: &mut Time, matters| *at = map(*at, matters);
        change(&mut self.seen_at, Matters::ForTheBound);
        self.wake.iter_mut().for_each(|at| change(at, Matters::Ahead));
        self.pending.iter_mut().for_each(|pending| change(&mut pending.sent, Matters::ForTheBound));
        for path in &mut self.paths {
            path.failed.iter_mut().for_each(|at| change(at, Matters::ForAnInterval));
            change(&mut path.again, Matters::Ahead);
        }
        match &mut self.goal {
            Goal::Take(take) => {
                change(&mut take.begun, Matters::ForAnInterval);
                take.settle.iter_mut().for_each(|at| change(at, Matters::Ahead));
                match &mut take.blank {
                    Blank::NotSeen => {}
                    Blank::Waiting(until) => change(until, Matters::Ahead),
                    Blank::Waited(until) => change(until, Matters::ForTheBound),
                }
                if let Duel::Challenging { until: Some(until), .. } = &mut take.duel {
                    change(until, Matters::Ahead);
                }
            }
            Goal::Hold(hold) => {
                change(&mut hold.look_at, Matters::Ahead);
                change(&mut hold.proven, Matters::ForTheBound);
            }
            Goal::Nothing | Goal::GiveUp(_) => {}
        }
    }
}
