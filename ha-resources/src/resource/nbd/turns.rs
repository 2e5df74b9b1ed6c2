//! Whose turn it is to change something in the kernel.
//!
//! Decides that of work which was given up, and may wait for a server or a device on a thread of its own, nothing is done any more once
//! somebody else had his turn. Two never act at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where turns are given out.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<u64>>);

/// A turn: over when the next one begins.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    number: u64,
}

impl Turns {
    /// Begins a turn. Waits for who acts in the middle of his.
    pub(super) fn next(&self) -> Turn {
        let mut latest = self.latest();
        *latest += 1;
        Turn { turns: self.clone(), number: *latest }
    }

    fn latest(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Does something, unless the turn is over.
    pub(super) fn act<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let latest = self.turns.latest();
        (*latest == self.number).then(act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_given_up_does_nothing_any_more() {
        let turns = Turns::default();
        let first = turns.next();
        assert_eq!(first.act(|| 1), Some(1));
        let second = turns.next();
        assert_eq!(first.act(|| 1), None);
        assert_eq!(second.act(|| 2), Some(2));
    }
}
