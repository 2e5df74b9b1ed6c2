//! What is going to happen, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::clock::Moment;

struct Entry<T> {
    at: Moment,
    order: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest; of those at one moment, the one put in first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

pub(super) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    order: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Queue { heap: BinaryHeap::new(), order: 0 }
    }

    pub(super) fn put(&mut self, at: Moment, what: T) {
        self.order += 1;
        self.heap.push(Entry { at, order: self.order, what });
    }

    pub(super) fn next_at(&self) -> Option<Moment> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub(super) fn take(&mut self) -> Option<(Moment, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
    }
}
