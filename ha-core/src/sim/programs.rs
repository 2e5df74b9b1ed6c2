//! What simulated resources do when they are operated, and what a warden does to them.
//!
//! Decides how long an operation takes, how it ends, and what really runs then.

use std::time::Duration;

use super::action::Behaviour;
use super::draws::Draws;
use super::node::{Flight, ForAgent, ForMachine, Part, Real};
use super::world::{What, World};
use crate::engine::Input;
use crate::name::Epoch;
use crate::recovery::{OpId, Operation, Outcome};

/// An operation as the engine asked for it.
pub(super) struct Order {
    pub(super) part: Part,
    pub(super) op: OpId,
    pub(super) operation: Operation,
    pub(super) epoch: Epoch,
    pub(super) timeout: Duration,
}

impl World {
    pub(super) fn operate(&mut self, n: usize, order: &Order) {
        let (h, r) = order.part;
        self.observe_operation(n, order.part, order.operation, order.epoch);
        self.stats.operations += 1;
        let life = self.nodes[n].life;
        let busy = self.nodes[n].flights.values().any(|f| f.part == order.part && f.life == life);
        if busy && order.operation != Operation::Kill {
            let what = format!(
                "{}: two operations at once on {}",
                self.nodes[n].name, self.setup.hierarchies[h].hierarchy.name
            );
            self.observer.violated(self.now, super::Invariant::S3, what);
        }
        let node = &mut self.nodes[n];
        let program = &mut node.parts[h][r];
        let (behaviour, was) = (program.behaviour, program.real);
        let (mut length, outcome, becomes) = fate(order.operation, behaviour, was, &mut node.draws);
        if let (Operation::Start, Some(takes), Some(_)) = (order.operation, node.parts[h][r].start_takes, length) {
            length = Some(takes);
        }
        match order.operation {
            Operation::Start => {
                node.flights.values_mut().filter(|f| f.part == order.part).for_each(Flight::cut_short);
                self.becomes(n, order.part, if was == Real::Running { Real::Running } else { Real::Starting });
            }
            Operation::Stop | Operation::Kill => {
                node.flights.values_mut().filter(|f| f.part == order.part).for_each(Flight::cut_short);
                node.parts[h][r].up = false;
            }
            Operation::Monitor | Operation::Adopt => {}
        }
        self.next_flight += 1;
        let flight = self.next_flight;
        let flight_of = Flight { part: order.part, op: order.op, operation: order.operation, life, outcome, becomes };
        self.nodes[n].flights.insert(flight, flight_of);
        self.for_agent_at(n, self.bound(n, order.timeout), ForAgent::TimedOut(flight, order.timeout));
        if let Some(length) = length {
            let boot = self.nodes[n].boot;
            self.put(self.now + length, What::Machine { node: n, boot, what: ForMachine::Ends(flight) });
        }
    }

    /// The time of an operation is over: if it has not ended, it is dropped.
    pub(super) fn flight_timed_out(&mut self, n: usize, number: u64, after: Duration) {
        let Some(flight) = self.nodes[n].flights.remove(&number) else { return };
        let hierarchy = self.setup.hierarchies[flight.part.0].hierarchy.name.clone();
        self.engine_input(n, Input::Operated { hierarchy, op: flight.op, outcome: Outcome::TimedOut(after) });
    }

    /// An operation ends.
    pub(super) fn flight_ends(&mut self, n: usize, number: u64) {
        if self.nodes[n].hangs {
            let (at, boot) = (self.now + Duration::from_millis(50), self.nodes[n].boot);
            return self.put(at, What::Machine { node: n, boot, what: ForMachine::Ends(number) });
        }
        let Some(flight) = self.nodes[n].flights.remove(&number) else { return };
        let (h, r) = flight.part;
        if let Some(real) = flight.becomes {
            self.becomes(n, flight.part, real);
        }
        if flight.operation == Operation::Start && flight.outcome == Outcome::Good {
            let program = &mut self.nodes[n].parts[h][r];
            program.starts += 1;
            let (starts, behaviour) = (program.starts, program.behaviour);
            if let Behaviour::Crashes(after) = behaviour {
                let boot = self.nodes[n].boot;
                let what = ForMachine::Dies(flight.part, starts);
                self.put(self.now + after, What::Machine { node: n, boot, what });
            }
        }
        if flight.life == self.nodes[n].life && self.nodes[n].agent.is_some() {
            if matches!(flight.operation, Operation::Start | Operation::Adopt) && flight.outcome == Outcome::Good {
                self.nodes[n].parts[h][r].up = true;
            }
            let hierarchy = self.setup.hierarchies[h].hierarchy.name.clone();
            self.for_agent(n, ForAgent::Input(Input::Operated { hierarchy, op: flight.op, outcome: flight.outcome }));
        }
    }

    /// What really is with a resource changes.
    pub(super) fn becomes(&mut self, n: usize, (h, r): Part, real: Real) {
        let node = &mut self.nodes[n];
        let before = std::mem::replace(&mut node.parts[h][r].real, real);
        if before == real {
            return;
        }
        self.changed_at = self.now;
        if node.runs(h) {
            if node.may_run.insert(h) {
                self.begin_writing(n, h);
            }
            self.observe_running(n, h);
        } else {
            node.may_run.remove(&h);
            self.end_writing(n, h);
        }
        self.observe_service(h);
    }

    /// A program is gone, whoever ended it.
    pub(super) fn dies(&mut self, n: usize, part: Part) {
        if self.nodes[n].parts[part.0][part.1].real == Real::Stopped {
            return;
        }
        self.becomes(n, part, Real::Stopped);
        self.watch_fires(n, part);
    }

    pub(super) fn watch_fires(&mut self, n: usize, (h, r): Part) {
        let lies = self.nodes[n].parts[h][r].behaviour == Behaviour::MonitorLies;
        let Some(agent) = &self.nodes[n].agent else { return };
        if lies || !agent.watched.contains(&(h, r)) {
            return;
        }
        let hierarchy = self.setup.hierarchies[h].hierarchy.clone();
        let input = Input::WatchFired {
            hierarchy: hierarchy.name.clone(),
            resource: hierarchy.resources[r].name.clone(),
            why: "its program ended".to_owned(),
        };
        self.for_agent_at(n, self.now + Duration::from_millis(1), ForAgent::Input(input));
    }

    /// The warden ends what runs beyond its tenure, and the machine where that does not help.
    pub(super) fn warden(&mut self, n: usize) {
        let (now, boot) = (self.now, self.nodes[n].boot);
        let time = self.nodes[n].time(now);
        let over: Vec<usize> =
            self.nodes[n].guard.until.iter().filter(|(_, (until, _))| *until <= time).map(|(h, _)| *h).collect();
        for h in over {
            if !self.nodes[n].runs(h) {
                continue;
            }
            let Some(area) = self.setup.hierarchies[h].area() else { continue };
            let margin = self.setup.areas[area].header.timing.watchdog() / 2;
            let first = *self.nodes[n].guard.killed.entry(h).or_insert(now);
            if now.since(first) >= margin {
                self.tell(n, || "the warden resets the machine".to_owned());
                return self.reset(n);
            }
            let kill_at = now + Duration::from_millis(self.nodes[n].draws.between(1, 5));
            self.put(kill_at, What::Machine { node: n, boot, what: ForMachine::Killed(h) });
            self.put(now + margin / 4, What::Machine { node: n, boot, what: ForMachine::Warden });
        }
    }

    pub(super) fn killed_by_warden(&mut self, n: usize, h: usize) {
        let time = self.nodes[n].time(self.now);
        if self.nodes[n].guard.until.get(&h).is_none_or(|(until, _)| *until > time) {
            return;
        }
        let starts = self.nodes[n].flights.values_mut().filter(|f| f.part.0 == h && f.operation == Operation::Start);
        starts.for_each(Flight::cut_short);
        for r in 0..self.nodes[n].parts[h].len() {
            if self.nodes[n].parts[h][r].behaviour != Behaviour::Unkillable {
                self.dies(n, (h, r));
            }
        }
    }
}

/// How long an operation takes (`None`: for ever), how it ends, and what the resource is then.
fn fate(
    operation: Operation,
    behaviour: Behaviour,
    was: Real,
    draws: &mut Draws,
) -> (Option<Duration>, Outcome, Option<Real>) {
    use Behaviour as B;
    let ms = |draws: &mut Draws, least: u64, most: u64| {
        Some(Duration::from_micros(draws.between(least * 1_000, most * 1_000)))
    };
    let broken = || Outcome::Bad("broken".to_owned());
    match (operation, behaviour) {
        (Operation::Start, B::StartFails) => (ms(draws, 5, 40), broken(), Some(Real::Stopped)),
        (Operation::Start, B::StartHangs)
        | (Operation::Stop, B::StopHangs | B::Unkillable)
        | (Operation::Kill, B::Unkillable)
        | (Operation::Monitor, B::MonitorHangs) => (None, Outcome::Good, None),
        (Operation::Start, _) => (ms(draws, 5, 40), Outcome::Good, Some(Real::Running)),
        (Operation::Stop, B::StopFails) => (ms(draws, 5, 30), broken(), None),
        (Operation::Stop, _) => (ms(draws, 5, 30), Outcome::Good, Some(Real::Stopped)),
        (Operation::Kill, _) => (ms(draws, 1, 10), Outcome::Good, Some(Real::Stopped)),
        (Operation::Monitor, B::MonitorLies) => (ms(draws, 1, 5), Outcome::Good, None),
        (Operation::Monitor, B::MonitorBad) => (ms(draws, 1, 5), broken(), None),
        (Operation::Monitor | Operation::Adopt, _) if was == Real::Running => (ms(draws, 1, 5), Outcome::Good, None),
        (Operation::Monitor | Operation::Adopt, _) => {
            (ms(draws, 1, 5), Outcome::Bad("it does not run".to_owned()), None)
        }
    }
}
