//! Calls that do not come back: neither with a result nor when their time is over.
//!
//! Every operation is ended by the driver when its time is over. One that has not ended after twice that time hangs where nothing can end it:
//! in a call into the kernel that never returns, for example. Decides that such a resource is stopped by force, that the node is unfit for the
//! hierarchy as long as the call is out, and that nothing counts as stopped that a call still out could start. Leaves to
//! [`super::repair`] what follows from a stop that cannot be confirmed.

use std::time::Duration;

use super::life::{Life, LifeTimer, Phase};
use super::table::{Step, Trigger};
use super::works::{Operation, Outcome, State, Works};
use super::{Around, OpId, Out};
use crate::contact::DisturbanceKind;
use crate::record::Happened;
use crate::time::Time;

/// So many times as long as it may take, and an operation is overdue.
pub(super) const PATIENCE: u32 = 2;
/// Noticed so much later, it says something of this node and nothing of the operation: its end may be waiting to be taken in.
const LATE: Duration = Duration::from_secs(1);

impl Works {
    /// The operation under way on a resource, and its monitor, with the time when each is overdue.
    fn calls(&self, i: usize) -> impl Iterator<Item = (Time, OpId, Operation)> + '_ {
        let part = &self.parts[i];
        let operation = match part.state {
            State::Starting(op) => Some((op, Operation::Start)),
            State::Stopping(op) => Some((op, Operation::Stop)),
            State::Killing(op) => Some((op, Operation::Kill)),
            State::Adopting(op) => Some((op, Operation::Adopt)),
            State::Down | State::Leftover | State::Up | State::Failed | State::Stuck => None,
        };
        let operation = operation.map(|(op, what)| (part.overdue_at, op, what));
        let monitor = part.monitoring.map(|op| (part.monitor_overdue_at, op, Operation::Monitor));
        operation.into_iter().chain(monitor)
    }

    /// When the next operation is overdue.
    pub(super) fn next_overdue(&self) -> Option<Time> {
        (0..self.parts.len()).flat_map(|i| self.calls(i)).map(|(at, ..)| at).min()
    }

    /// An operation that is overdue. Where that is noticed late, it gets as much time again.
    fn overdue(&mut self, now: Time) -> Option<(usize, OpId, Operation)> {
        for i in 0..self.parts.len() {
            let calls: Vec<_> = self.calls(i).filter(|(at, ..)| *at <= now).collect();
            for (at, op, what) in calls {
                if now.since(at) < LATE {
                    return Some((i, op, what));
                }
                let again = now + self.timeout(i, what).saturating_mul(PATIENCE);
                let part = &mut self.parts[i];
                *if what == Operation::Monitor { &mut part.monitor_overdue_at } else { &mut part.overdue_at } = again;
            }
        }
        None
    }

    /// The call is not waited for any more. What it was for has to be taken down by force.
    fn give_up_on(&mut self, i: usize, op: OpId, what: Operation, why: &str) {
        let part = &mut self.parts[i];
        part.out.push((op, what));
        part.trouble = Some(why.to_owned());
        if what == Operation::Monitor {
            part.monitoring = None;
        }
        part.state = if what == Operation::Kill { State::Stuck } else { State::Failed };
    }

    /// A call that was given up has come back; says of which resource.
    pub(super) fn came_back(&mut self, op: OpId) -> Option<usize> {
        let i = self.parts.iter().position(|part| part.out.iter().any(|(out, _)| *out == op))?;
        self.parts[i].out.retain(|(out, _)| *out != op);
        Some(i)
    }

    /// Which calls are out, in words.
    pub(super) fn still_out(&self) -> Option<String> {
        let out = self.parts.iter().zip(&self.hierarchy.resources).find(|(part, _)| !part.out.is_empty());
        let (part, spec) = out?;
        let what: Vec<&str> = part.out.iter().map(|(_, what)| what.word()).collect();
        Some(format!("{}: a call that never came back ({})", spec.name, what.join(", ")))
    }
}

impl Life {
    /// Gives up on every call that is overdue.
    pub(super) fn overdue(&mut self, around: &Around<'_>, now: Time, out: &mut Out) {
        while let Some((part, op, what)) = self.works.overdue(now) {
            let name = self.hierarchy.resources[part].name.clone();
            let why = format!("the call has not come back, although twice its time is over (operation {})", op.0);
            let during = what.word().to_owned();
            out.record(Happened::ResourceFailed { resource: name.clone(), during, why: why.clone() });
            self.works.quiet_but(part, op, out);
            self.works.give_up_on(part, op, what, &why);
            let reason = format!("{name} hangs ({}): {why}", what.word());
            if self.declined.is_none() {
                self.decline(&reason, now, out);
            }
            if what == Operation::Kill {
                self.stuck(around, now, out);
            } else if self.step(Trigger::GiveUp) == Step::Stop && !around.directive.maintenance {
                let heir = around.judgement.best_other.clone();
                self.give_up(DisturbanceKind::Failed, heir, &reason, around, now, out);
            }
            self.proceed(around, now, out);
        }
    }

    /// A call that was given up has come back: what it held up can go on.
    pub(super) fn returned(&mut self, part: usize, what: &Outcome, around: &Around<'_>, now: Time, out: &mut Out) {
        let name = &self.hierarchy.resources[part].name;
        let what = format!("{name}: a call that had been given up came back ({})", what.reason());
        out.record(Happened::Trouble { what });
        // Judged anew: the node may be fit again.
        self.turned = true;
        if matches!(self.phase, Phase::StopFailed { .. }) {
            self.timers.set(LifeTimer::Unstick, now);
        } else {
            self.works.unstick();
        }
        self.proceed(around, now, out);
    }

    /// Why this node cannot serve the hierarchy for now, whatever else is known of it.
    pub(crate) fn hangs(&self) -> Option<String> {
        self.works.still_out()
    }
}
