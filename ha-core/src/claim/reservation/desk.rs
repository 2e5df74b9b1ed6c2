//! The desk between whoever asks for a claim by reservation and its machine: who waits for which answer.
//!
//! Decides that a claim which was acquired for nobody is given back. Leaves the sending and the clock to [`super::claim`], which has tokio, and to
//! the simulator, which has a time of its own.

use std::collections::BTreeMap;

use super::machine::{Config, Effect, Input, Machine, Reply, Request, RequestId};
use crate::claim::{Loss, Tenure};
use crate::name::Epoch;
use crate::time::Time;

/// A machine, and those who wait for its answers.
pub(crate) struct Desk<W> {
    machine: Machine,
    waiting: BTreeMap<RequestId, W>,
    next: u64,
}

impl<W> Desk<W> {
    pub(crate) fn new(config: Config) -> Self {
        Desk { machine: Machine::new(config), waiting: BTreeMap::new(), next: 0 }
    }

    /// Passes a question on, whose answer is for `who`.
    pub(crate) fn ask(&mut self, now: Time, request: Request, who: W) -> RequestId {
        let id = self.id();
        self.waiting.insert(id, who);
        self.machine.handle(now, Input::Ask(id, request));
        id
    }

    /// Nobody waits for this answer any more. Returns who did.
    #[cfg(feature = "sim")]
    pub(crate) fn forget(&mut self, id: RequestId) -> Option<W> {
        self.waiting.remove(&id)
    }

    pub(crate) fn handle(&mut self, now: Time, input: Input) {
        self.machine.handle(now, input);
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.machine.poll_effect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.machine.next_deadline()
    }

    /// The tenure that is held, if one is.
    #[cfg(feature = "sim")]
    pub(crate) fn held(&self) -> Option<Epoch> {
        self.machine.held()
    }

    /// Whether the claim is held, as is known now.
    pub(crate) fn uphold(&mut self, now: Time, epoch: Epoch) -> Result<Tenure, Loss> {
        self.machine.handle(now, Input::Tick);
        self.machine.uphold(now, epoch)
    }

    /// The tenure that was lost, and how, until the claim is asked for or given up again.
    pub(crate) fn lost_tenure(&self) -> Option<(Epoch, Loss)> {
        self.machine.lost_tenure()
    }

    /// Who waits for an answer. If nobody does, what was acquired is given back.
    pub(crate) fn answer(&mut self, now: Time, id: RequestId, reply: Reply) -> Option<(W, Reply)> {
        match self.waiting.remove(&id) {
            Some(who) => Some((who, reply)),
            None => {
                self.give_back(now, &reply);
                None
            }
        }
    }

    /// The answer reached nobody.
    pub(crate) fn give_back(&mut self, now: Time, reply: &Reply) {
        if let Reply::Acquired(held) = reply {
            let id = self.id();
            self.machine.handle(now, Input::Ask(id, Request::Release(held.epoch)));
        }
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }
}
