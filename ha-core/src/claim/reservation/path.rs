//! One path to a device: what is known of this node's registration on it.
//!
//! Decides which keys may be registered there, from what the device confirmed and refused. Leaves to [`super::lane`] what that says about the
//! device.

use super::device::{Key, PathName};
use crate::time::Time;

/// What is known of this node's registration on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    /// Nothing.
    Unknown,
    /// There is none.
    None,
    /// The device confirmed it.
    With(Key),
}

#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) name: PathName,
    pub(super) registration: Registration,
    /// When it did not answer, if it has not answered since.
    pub(super) failed: Option<Time>,
    /// What is not registered, where nothing more is known: the device refused to change or remove it.
    lacks: Vec<Key>,
    /// A registration may have been sent on it for what is being done now.
    pub(super) touched: bool,
    /// A check of the registration failed: not before.
    pub(super) again: Time,
    pub(super) attentions: u8,
}

impl Path {
    pub(super) fn new(name: PathName) -> Path {
        Path {
            name,
            registration: Registration::Unknown,
            lacks: Vec::new(),
            failed: None,
            touched: false,
            again: Time::ZERO,
            attentions: 0,
        }
    }

    pub(super) fn is_registered_with(&self, key: Key) -> bool {
        self.registration == Registration::With(key)
    }

    /// Nothing is being done on it.
    pub(super) fn rest(&mut self) {
        (self.touched, self.failed, self.attentions) = (false, None, 0);
        self.lacks.clear();
    }

    /// What is registered may be as it was, or not.
    pub(super) fn doubt(&mut self) {
        self.know(Registration::Unknown);
    }

    pub(super) fn know(&mut self, registration: Registration) {
        self.registration = registration;
        self.lacks.clear();
    }

    /// This one is to be registered: how it goes is known when the answer is there.
    pub(super) fn try_with(&mut self, key: Key) {
        self.touched = true;
        self.lacks.retain(|one| *one != key);
    }

    /// The device refused to change or remove it.
    pub(super) fn has_not(&mut self, key: Key) {
        self.registration = Registration::Unknown;
        if !self.lacks.contains(&key) {
            self.lacks.push(key);
        }
    }

    /// The device may have this registered on the path, as far as is known.
    pub(super) fn may_have(&self, key: Key) -> bool {
        match self.registration {
            Registration::Unknown => !self.lacks.contains(&key),
            Registration::None => false,
            Registration::With(there) => there == key,
        }
    }
}
