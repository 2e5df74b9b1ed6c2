//! One instance after the other for one record: Disk Paxos (Gafni & Lamport, "Disk Paxos", 2003) with a single disk.
//!
//! Decides what this node's record says next, given what the other nodes' records say. Leaves to [`super::batch`] to write
//! and to read, and to [`super::lease`] who has expired. The model checker runs whole machines over it.

use super::layout::{Committed, Failures, Ownership, Record, Value};
use crate::claim::Beliefs;
use crate::mutation::{self, Mutation};
use crate::name::{BootId, HierarchyName};
use crate::time::Time;

/// What a node wants of a record.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// To give it to a hierarchy, if nobody did; or instead of one that has another place.
    Name { name: HierarchyName, instead_of: Option<HierarchyName> },
    /// To own it.
    Take { known: u64, adopt: Option<u64>, beliefs: Beliefs },
    /// To own it no more.
    Release { epoch: u64, heir: Option<(u8, BootId)>, failures: Failures },
    /// To own it no more, if this node turns out to own it without having been told; and to leave nothing behind that others could decide
    /// in its favour.
    Settle,
}

/// Whether an owner can still rely on its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No: it is over, provably.
    Expired,
    /// Perhaps; over at that time if nothing more is seen of it.
    Alive { retry_at: Option<Time>, why: String },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Named,
    Owned(Ownership),
    Released,
    Held { owner: u8, epoch: u64, retry_at: Option<Time>, why: String },
    Raced,
}

/// What to do after a look at the other records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write the own record.
    Write,
    /// Begin again; if a higher ballot was seen, after a pause.
    Again { preempted: bool },
    /// It is settled.
    Done(Outcome),
}

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Me {
    pub(super) slot: u8,
    pub(super) boot: BootId,
    pub(super) nodes: u8,
}

/// One node's work on one record, from a wish to its outcome.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    me: Me,
    wish: Wish,
    /// The own record: what was last written, or is to be written next.
    pub(super) own: Record,
    /// The greatest decision seen anywhere.
    pub(super) known: Committed,
    /// The greatest instance seen in any record, and the greatest ballot in it.
    heard: (u64, u64),
    ballot: u64,
    wanted: Option<Value>,
}

impl Attempt {
    pub(super) fn new(me: Me, wish: Wish, own: Record) -> Attempt {
        let mut attempt = Attempt {
            me,
            wish,
            known: own.committed.clone(),
            heard: (own.instance, own.mbal),
            own,
            ballot: 0,
            wanted: None,
        };
        attempt.hear(&attempt.own.clone());
        attempt
    }

    /// The same wish, from the own record as it was found on disk.
    pub(super) fn with_own(self, own: Record) -> Attempt {
        Attempt::new(self.me, self.wish, own)
    }

    /// Whether others can still decide what this node proposed.
    pub(super) fn is_pending(&self) -> bool {
        self.own.instance > self.known.instance && self.own.bal > 0
    }

    /// Whether it gives ownership up on request.
    pub(super) fn is_release(&self) -> bool {
        matches!(self.wish, Wish::Release { .. })
    }

    fn hear(&mut self, record: &Record) {
        if record.committed.instance > self.known.instance && !mutation::is_on(Mutation::ForgetDecided) {
            self.known = record.committed.clone();
        }
        self.heard = self.heard.max((record.instance, record.mbal));
    }

    /// Takes in what the other nodes' records say.
    pub(super) fn learn(&mut self, others: &[Record]) {
        for record in others {
            self.hear(record);
        }
    }

    /// Chooses the next instance and begins a ballot in it, or ends. `standing` must rest on a look at the slots that
    /// began after what is `known` was read: an owner may have come back in between.
    pub(super) fn plan(&mut self, standing: impl Fn(&Ownership) -> Standing) -> Next {
        let instance = self.known.instance + 1;
        match self.wanted(instance, standing) {
            Err(outcome) => return Next::Done(outcome),
            Ok(value) => self.wanted = Some(value),
        }
        let nodes = u64::from(self.me.nodes);
        let above = if self.heard.0 == instance { self.heard.1 } else { 0 };
        self.ballot = (above / nodes + 1) * nodes + u64::from(self.me.slot) + 1;
        if self.own.instance != instance {
            self.own.instance = instance;
            self.own.bal = 0;
            self.own.value = None;
        }
        self.own.mbal = self.ballot;
        self.own.committed = self.known.clone();
        Next::Write
    }

    fn wanted(&self, instance: u64, standing: impl Fn(&Ownership) -> Standing) -> Result<Value, Outcome> {
        let ownership = self.known.ownership;
        let mine = ownership.owner.is_some_and(|(slot, _)| slot == self.me.slot);
        let next_epoch = |known: u64| {
            let next = instance.max(known + 1).max(ownership.epoch + 1);
            if mutation::is_on(Mutation::ReuseEpoch) { ownership.epoch } else { next }
        };
        match &self.wish {
            Wish::Name { name, .. } if instance == 1 => Ok(Value::Name(name.clone())),
            Wish::Name { name, instead_of } if instead_of.is_some() && *instead_of == self.known.name => {
                Ok(Value::Name(name.clone()))
            }
            Wish::Name { .. } => Err(Outcome::Named),
            // Only a named record is ever taken; the naming comes first.
            _ if instance == 1 => Err(Outcome::Raced),
            Wish::Take { known, adopt, beliefs: _ } => {
                if let Some((owner, _)) = ownership.owner
                    && !mine
                    && let Standing::Alive { retry_at, why } = standing(&ownership)
                {
                    return Err(self.held(owner, retry_at, why));
                }
                let same_life = ownership.owner == Some((self.me.slot, self.me.boot));
                if same_life && *adopt == Some(ownership.epoch) {
                    return Ok(Value::Owner(ownership));
                }
                Ok(Value::Owner(Ownership {
                    epoch: next_epoch(*known),
                    owner: Some((self.me.slot, self.me.boot)),
                    failures: ownership.failures,
                }))
            }
            Wish::Release { epoch, heir, failures } if mine && ownership.epoch == *epoch => {
                let epoch = if heir.is_some() { next_epoch(*epoch) } else { *epoch };
                Ok(Value::Owner(Ownership { epoch, owner: *heir, failures: *failures }))
            }
            Wish::Settle if mine => Ok(Value::Owner(Ownership { owner: None, ..ownership })),
            // What this node proposed once is decided now, one way or the other, before anybody finds it.
            Wish::Settle if self.is_pending() => Ok(Value::Owner(ownership)),
            Wish::Release { .. } | Wish::Settle => Err(Outcome::Released),
        }
    }

    fn held(&self, owner: u8, retry_at: Option<Time>, why: String) -> Outcome {
        if self.wanted.is_some() {
            return Outcome::Raced;
        }
        Outcome::Held { owner, epoch: self.known.ownership.epoch, retry_at, why }
    }

    /// After the first write is durable and the others were read: accepts a value, unless somebody is ahead.
    pub(super) fn accept(&mut self, others: &[Record]) -> Next {
        if let Some(again) = self.overtaken(others) {
            return again;
        }
        let best = others
            .iter()
            .filter(|r| r.instance == self.own.instance && r.bal > 0)
            .chain((self.own.bal > 0).then_some(&self.own))
            .max_by_key(|r| r.bal)
            .and_then(|r| r.value.clone());
        self.own.value = best.or_else(|| self.wanted.clone());
        self.own.bal = self.ballot;
        Next::Write
    }

    /// After the second write is durable and the others were read: it is decided, unless somebody is ahead.
    pub(super) fn decide(&mut self, others: &[Record]) -> Next {
        if let Some(again) = self.overtaken(others) {
            return again;
        }
        self.own.committed.instance = self.own.instance;
        match &self.own.value {
            Some(Value::Name(name)) => self.own.committed.name = Some(name.clone()),
            Some(Value::Owner(ownership)) => self.own.committed.ownership = *ownership,
            None => return Next::Again { preempted: false },
        }
        Next::Write
    }

    /// After the third write is durable: the outcome, or another instance if this one decided something else.
    pub(super) fn conclude(&mut self) -> Next {
        self.known = self.own.committed.clone();
        if self.own.value != self.wanted {
            return Next::Again { preempted: false };
        }
        Next::Done(match (&self.wish, &self.own.value) {
            (Wish::Name { .. }, _) => Outcome::Named,
            (Wish::Take { .. }, Some(Value::Owner(o))) => Outcome::Owned(*o),
            _ => Outcome::Released,
        })
    }

    fn overtaken(&mut self, others: &[Record]) -> Option<Next> {
        self.learn(others);
        if self.known.instance >= self.own.instance {
            return Some(Next::Again { preempted: false });
        }
        (self.heard > (self.own.instance, self.ballot)).then_some(Next::Again { preempted: true })
    }

    /// What the caller believes of a node, if the wish came with beliefs.
    pub(super) fn beliefs(&self) -> Option<&Beliefs> {
        match &self.wish {
            Wish::Take { beliefs, .. } => Some(beliefs),
            _ => None,
        }
    }
}
