//! Every call that changes an engine, as data.
//!
//! Decides nothing: carries a call to the method of the same name. Whoever goes through [`Engine::call`] can write down all that an engine
//! was ever told, and tell it to another one ([`crate::record::flight`]).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Engine, Input, Joining};
use crate::contact::Message;
use crate::hierarchy::Hierarchy;
use crate::name::{HierarchyName, ResourceName};
use crate::record::Happened;
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

impl Call {
    /// The hierarchy that it is about, if it is about one.
    pub fn hierarchy(&self) -> Option<&HierarchyName> {
        match self {
            Call::Timeout => None,
            Call::Handle(input) => input.hierarchy(),
            Call::Join(joining) => Some(&joining.hierarchy.name),
            Call::Redefine(hierarchy) => Some(&hierarchy.name),
            Call::Restart { hierarchy, .. } | Call::Retire { hierarchy } | Call::Leave { hierarchy } => Some(hierarchy),
        }
    }
}

impl Input {
    /// The hierarchy that it is about, if it is about one.
    pub fn hierarchy(&self) -> Option<&HierarchyName> {
        match self {
            Input::Acquired { hierarchy, .. }
            | Input::Inspected { hierarchy, .. }
            | Input::Upheld { hierarchy, .. }
            | Input::Released { hierarchy, .. }
            | Input::Operated { hierarchy, .. }
            | Input::WatchFired { hierarchy, .. }
            | Input::Measured { hierarchy, .. }
            | Input::Readiness { hierarchy, .. }
            | Input::ClaimLost { hierarchy, .. }
            | Input::StandsOn { hierarchy, .. } => Some(hierarchy),
            Input::Command { command, .. } => command.what.hierarchy(),
            Input::Received { .. }
            | Input::Lease { .. }
            | Input::Pressure(_)
            | Input::Trouble { .. }
            | Input::Fencing { .. } => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Timeout => f.write_str("time passed"),
            Call::Handle(input) => input.fmt(f),
            Call::Join(joining) => match joining.running {
                Some(epoch) => {
                    write!(f, "{} is defined; it was running here under epoch {epoch}", joining.hierarchy.name)
                }
                None => write!(f, "{} is defined", joining.hierarchy.name),
            },
            Call::Redefine(hierarchy) => write!(f, "{} is redefined", hierarchy.name),
            Call::Restart { hierarchy, resources } => {
                let names: Vec<&str> = resources.iter().map(ResourceName::as_str).collect();
                write!(f, "{hierarchy}: redefined, to be restarted: {}", names.join(", "))
            }
            Call::Retire { hierarchy } => write!(f, "{hierarchy} is to be taken out"),
            Call::Leave { hierarchy } => write!(f, "{hierarchy} leaves if it can"),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Received { channel, from, message, .. } => match message {
                Message::Beat(beat) => write!(f, "beat {} from {from} on {channel}", beat.sequence),
                Message::Delta(delta) => write!(f, "{from} tells {} things on {channel}", delta.items.len()),
                Message::Fragment(_) => write!(f, "part of a command or answer from {from} on {channel}"),
                Message::FragmentAck(_) => write!(f, "{from} has parts of a command or answer, on {channel}"),
                Message::Goodbye => write!(f, "goodbye from {from} on {channel}"),
            },
            Input::Acquired { hierarchy, answer: Ok(held), .. } => {
                write!(f, "{hierarchy}: claim acquired, epoch {}", held.epoch)
            }
            Input::Acquired { hierarchy, answer: Err(why), .. } => write!(f, "{hierarchy}: claim refused: {why}"),
            Input::Inspected { hierarchy, answer: Ok(_), .. } => write!(f, "{hierarchy}: claim inspected"),
            Input::Inspected { hierarchy, answer: Err(why), .. } => {
                write!(f, "{hierarchy}: claim could not be inspected: {why}")
            }
            Input::Upheld { hierarchy, answer: Ok(_), .. } => write!(f, "{hierarchy}: claim upheld"),
            Input::Upheld { hierarchy, answer: Err(loss), .. } => write!(f, "{hierarchy}: claim not upheld: {loss}"),
            Input::StandsOn { hierarchy, storage } => {
                let names: Vec<String> =
                    storage.iter().map(|one| format!("{} is {}", one.name, one.identity)).collect();
                write!(f, "{hierarchy}: {}", names.join(", "))
            }
            Input::Fencing { node, news } => Happened::Fencing { node: node.clone(), news: news.clone() }.fmt(f),
            Input::ClaimLost { hierarchy, loss, .. } => write!(f, "{hierarchy}: claim lost: {loss}"),
            Input::Released { hierarchy, answer: Ok(()), .. } => write!(f, "{hierarchy}: claim released"),
            Input::Released { hierarchy, answer: Err(why), .. } => write!(f, "{hierarchy}: claim not released: {why}"),
            Input::Operated { hierarchy, op, outcome } => write!(f, "{hierarchy}: operation {} ended: {outcome}", op.0),
            Input::WatchFired { hierarchy, resource, why } => write!(f, "{hierarchy}: {resource} failed: {why}"),
            Input::Measured { hierarchy, utility, facts } => {
                write!(f, "{hierarchy}: utility {utility} measured: {facts}")
            }
            Input::Readiness { hierarchy, lacking: Some(lacking) } => write!(f, "{hierarchy}: not ready: {lacking}"),
            Input::Readiness { hierarchy, lacking: None } => write!(f, "{hierarchy}: ready"),
            Input::Lease { lease, news } => match (&news.trouble, news.until) {
                (Some(trouble), _) => write!(f, "lease {lease}: {trouble}"),
                (None, Some(until)) => write!(f, "lease {lease} good until {until}"),
                (None, None) => write!(f, "lease {lease} not held"),
            },
            Input::Command { command, to: None, .. } => write!(f, "{} asks: {}", command.by, command.what),
            Input::Command { command, to: Some(to), .. } => write!(f, "{} asks {to}: {}", command.by, command.what),
            Input::Pressure(pressure) => write!(f, "pressure: {pressure:?}"),
            Input::Trouble { part, trouble: Some(what) } => write!(f, "trouble with {part}: {what}"),
            Input::Trouble { part, trouble: None } => write!(f, "no more trouble with {part}"),
        }
    }
}
