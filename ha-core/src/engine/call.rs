//! Every call that changes an engine, as data.
//!
//! Decides nothing: carries a call to the method of the same name. Whoever goes through [`Engine::call`] can write down all that an engine
//! was ever told, and tell it to another one ([`crate::record::flight`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Engine, Input, Joining};
use crate::hierarchy::Hierarchy;
use crate::name::{HierarchyName, ResourceName};
use crate::time::Time;

/// A call of one of the methods of [`Engine`] that change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// [`Engine::handle_timeout`].
    Timeout,
    /// [`Engine::handle`].
    Handle(Input),
    /// [`Engine::join`].
    Join(Joining),
    /// [`Engine::redefine`].
    Redefine(Arc<Hierarchy>),
    /// [`Engine::restart`].
    Restart {
        /// Of which hierarchy.
        hierarchy: HierarchyName,
        /// Which.
        resources: Vec<ResourceName>,
    },
    /// [`Engine::retire`].
    Retire {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// [`Engine::leave`].
    Leave {
        /// Which.
        hierarchy: HierarchyName,
    },
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// Taken in.
    Done,
    /// A [`Call::Leave`] while something of the hierarchy still runs, or its claim is held: nothing was changed.
    NotYet,
}

impl Engine {
    /// Makes a call.
    pub fn call(&mut self, now: Time, call: Call) -> Called {
        match call {
            Call::Timeout => self.handle_timeout(now),
            Call::Handle(input) => self.handle(now, input),
            Call::Join(joining) => self.join(now, joining),
            Call::Redefine(hierarchy) => self.redefine(now, hierarchy),
            Call::Restart { hierarchy, resources } => self.restart(now, &hierarchy, &resources),
            Call::Retire { hierarchy } => self.retire(now, &hierarchy),
            Call::Leave { hierarchy } if !self.leave(now, &hierarchy) => return Called::NotYet,
            Call::Leave { .. } => {}
        }
        Called::Done
    }
}
