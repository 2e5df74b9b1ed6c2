//! What operators can ask of a node, and how it answers.
//!
//! Decides the closed set of requests. Leaves to [`super::Engine`] what they do, and to the agent how they are typed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hierarchy::suggest::suggest;
use crate::name::{HierarchyName, NodeName};

/// A request with its author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What is asked.
    pub what: Ask,
    /// Who asks, for people: "root@alpha".
    #[serde(default)]
    pub by: String,
    /// Why, as they gave it; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// The hierarchy may be in service again after a `Stop`.
    Start {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// The hierarchy is to be out of service on every node until a `Start`.
    Stop {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// A switchover: to the node named, or to the best one that is not the holder. Pins the hierarchy there.
    Move {
        /// Which.
        hierarchy: HierarchyName,
        /// Where to.
        #[serde(default)]
        to: Option<NodeName>,
    },
    /// Takes the pin of a switchover away. Moves nothing by itself.
    Unpin {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// Hands off: nothing of the hierarchy is started, stopped or monitored on any node. Its claim is kept.
    Maintenance {
        /// Which.
        hierarchy: HierarchyName,
        /// Begin or end of it.
        switch: Switch,
    },
    /// Forgets declines, failure counts and quarantine of the hierarchy on every node. Touches nothing that runs.
    Clear {
        /// Which.
        hierarchy: HierarchyName,
    },
    /// An operator has removed every key and the reservation from the claim's disks: to be remembered, and as after `Clear`, the hierarchy is
    /// taken up anew.
    Broken {
        /// Which.
        hierarchy: HierarchyName,
        /// Whose keys were removed, and from which disks, in words.
        was: String,
    },
    /// The node hands over all it serves and takes nothing.
    Standby,
    /// Ends `Standby`.
    Online,
    /// The node hands over or stops all that it serves, releases its claims and says goodbye; its agent then ends.
    Drain,
    /// The node's view of the cluster.
    View,
}

/// On or off, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// Begins.
    On,
    /// Ends.
    Off,
}

impl Ask {
    /// The hierarchy that it is about, if it is about one.
    pub fn hierarchy(&self) -> Option<&HierarchyName> {
        match self {
            Ask::Start { hierarchy }
            | Ask::Stop { hierarchy }
            | Ask::Move { hierarchy, .. }
            | Ask::Unpin { hierarchy }
            | Ask::Maintenance { hierarchy, .. }
            | Ask::Clear { hierarchy }
            | Ask::Broken { hierarchy, .. } => Some(hierarchy),
            Ask::Standby | Ask::Online | Ask::Drain | Ask::View => None,
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Start { hierarchy } => write!(f, "start {hierarchy}"),
            Ask::Stop { hierarchy } => write!(f, "stop {hierarchy}"),
            Ask::Move { hierarchy, to: Some(to) } => write!(f, "move {hierarchy} to {to}"),
            Ask::Move { hierarchy, to: None } => write!(f, "move {hierarchy}"),
            Ask::Unpin { hierarchy } => write!(f, "unpin {hierarchy}"),
            Ask::Maintenance { hierarchy, switch: Switch::On } => write!(f, "begin maintenance of {hierarchy}"),
            Ask::Maintenance { hierarchy, switch: Switch::Off } => write!(f, "end maintenance of {hierarchy}"),
            Ask::Clear { hierarchy } => write!(f, "clear {hierarchy}"),
            Ask::Broken { hierarchy, was } => write!(f, "the reservation of {hierarchy} was broken, which was {was}"),
            Ask::Standby => f.write_str("standby"),
            Ask::Online => f.write_str("online"),
            Ask::Drain => f.write_str("drain"),
            Ask::View => f.write_str("view"),
        }
    }
}

/// What a node answers to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is being done, or was so already: what will be seen.
    Accepted(String),
    /// The view that was asked for.
    View(Box<super::Snapshot>),
}

/// Why a command was refused. Nothing was changed, but for [`Refused::NoAnswer`], where that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// No such hierarchy on the node that was asked.
    #[error("there is no hierarchy {name:?} on {node}: {}", those_there_are(.name.as_str(), .known))]
    UnknownHierarchy {
        /// As it was given.
        name: HierarchyName,
        /// The node that was asked.
        node: NodeName,
        /// Those there are.
        known: Vec<HierarchyName>,
    },
    /// No such node in the cluster.
    #[error("there is no node {name:?} in the cluster: {}", those_there_are(.name.as_str(), .known))]
    UnknownNode {
        /// As it was given.
        name: NodeName,
        /// Those there are.
        known: Vec<NodeName>,
    },
    /// It cannot be done now: why, and what would help.
    #[error("{0}")]
    NotNow(String),
    /// The node that would have to do it did not answer.
    #[error("{node} did not answer: {why}; `ha status` shows whether it was done")]
    NoAnswer {
        /// The node.
        node: NodeName,
        /// What happened.
        why: String,
    },
}

/// So many names are listed.
const LISTED: usize = 12;

/// What could have been given instead of a name that is unknown.
fn those_there_are<T: fmt::Display>(name: &str, known: &[T]) -> String {
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    let listed = known.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let expected = match known.len() {
        0 => "there are none".to_owned(),
        count if count > LISTED => format!("expected one of {listed} and {} more", count - LISTED),
        _ => format!("expected one of {listed}"),
    };
    match suggest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("{expected}; {meant}"),
        None => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_what_was_probably_meant_and_a_list_that_can_be_read() {
        let name = |text: &str| HierarchyName::new(text).unwrap();
        let refused = |given: &str, known: Vec<HierarchyName>| {
            Refused::UnknownHierarchy { name: name(given), node: NodeName::new("alpha").unwrap(), known }.to_string()
        };
        let expected = "there is no hierarchy \"mial\" on alpha: expected one of mail, web; did you mean `mail`?";
        assert_eq!(refused("mial", vec![name("mail"), name("web")]), expected);
        let many = (0..1_000).map(|i| name(&format!("h{i:04}"))).collect();
        let expected = "expected one of h0000, h0001, h0002, h0003, h0004, h0005, h0006, h0007, h0008, h0009, h0010, h0011 and 988 more";
        assert!(refused("database", many).ends_with(expected));
        assert!(refused("web", Vec::new()).ends_with("there are none"));
    }
}
