//! How a hierarchy came to be in service, once: why, from where to where, how long it took, and the steps.
//!
//! T_restore = T_detect + T_recover (Bottomley, "Implementing Clusters for High Availability", equation 1). Decides how that is put into words.
//! Leaves making it of events to [`super::course`].

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{Epoch, HierarchyName, NodeName};
use crate::time::Time;

/// Why a hierarchy entered service, or what it went through without being moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nobody had it in service before, as far as this node knew.
    FirstStart,
    /// After a fault, on another node than before.
    Failover {
        /// The node that had it in service.
        from: NodeName,
        /// What became of it there.
        fault: Fault,
    },
    /// Handed over by another node.
    Switchover {
        /// The node.
        from: NodeName,
        /// Why.
        why: String,
    },
    /// After a fault, on the same node as before.
    LocalRecovery {
        /// The fault.
        fault: Fault,
    },
    /// It was interrupted as somebody had asked, and is in service again.
    Restart {
        /// Who asked for what.
        why: String,
    },
    /// The agent was restarted; nothing was interrupted.
    Adoption,
    /// Something was wrong and is over: the hierarchy was in service all the time, under the same tenure. Clients may not have been
    /// answered meanwhile.
    Stayed {
        /// What was wrong.
        fault: Fault,
    },
}

/// What went wrong on the node that had a hierarchy in service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It was not heard any more.
    Silent,
    /// It was booted.
    Rebooted,
    /// It did not run at all.
    Frozen {
        /// For how long.
        gap: Duration,
    },
    /// It could not prove its claim.
    Unproven {
        /// Why.
        why: String,
    },
    /// It lost its claim.
    ClaimLost {
        /// Why.
        why: String,
    },
    /// A resource failed there.
    Failed {
        /// Which, during what, and why.
        why: String,
    },
    /// Its agent ended, and the next one could not carry on.
    AgentEnded,
    /// It was not to be seen from here.
    Unseen,
}

impl Fault {
    /// What happened on `node`, in words.
    fn on(&self, node: &NodeName) -> String {
        match self {
            Fault::Silent => format!("{node} was not heard any more"),
            Fault::Rebooted => format!("{node} was booted"),
            Fault::Frozen { gap } => format!("{node} did not run for {gap:.1?}: it hung, or was suspended"),
            Fault::Unproven { why } => format!("{node} could not prove its claim: {why}"),
            Fault::ClaimLost { why } => format!("{node} lost its claim: {why}"),
            Fault::Failed { why } => format!("on {node}: {why}"),
            Fault::AgentEnded => {
                format!("the agent on {node} ended, and the next one did not find its claim as it was")
            }
            Fault::Unseen => format!("what happened on {node} was not to be seen from here"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::FirstStart => f.write_str("first start"),
            Cause::Failover { from, .. } => write!(f, "failover from {from}"),
            Cause::Switchover { from, .. } => write!(f, "switchover from {from}"),
            Cause::LocalRecovery { .. } => f.write_str("local recovery"),
            Cause::Restart { .. } => f.write_str("stopped and started"),
            Cause::Adoption => f.write_str("adoption"),
            Cause::Stayed { .. } => f.write_str("nothing moved"),
        }
    }
}

/// How a node that had fallen silent was heard again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Return {
    /// Its machine was booted meanwhile.
    Booted,
    /// Its agent was restarted meanwhile, its machine was not booted.
    AgentRestarted,
    /// Neither.
    AsItWas,
}

/// What was seen later of the node that had a hierarchy in service and fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Afterwards {
    /// When it was heard again, on this node's clock.
    pub at: Time,
    /// How.
    pub how: Return,
}

/// A step of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When, on this node's clock.
    pub at: Time,
    /// What, in one line.
    pub what: String,
    /// How often the same happened again soon.
    #[serde(default, skip_serializing_if = "is_none")]
    pub again: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// How a hierarchy came into service on a node once, or what it went through there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The hierarchy.
    pub hierarchy: HierarchyName,
    /// Why.
    pub cause: Cause,
    /// The node that it is in service on.
    pub on: NodeName,
    /// The tenure.
    pub epoch: Epoch,
    /// The last moment at which all was known to be well, or the first at which something was known not to be.
    pub fault: Time,
    /// When this node began to act: candidate, or the fault known.
    pub detected: Time,
    /// When it was in service, or all was well again.
    pub in_service: Time,
    /// Every step.
    pub marks: Vec<Mark>,
    /// What was seen later of the node that had fallen silent.
    pub afterwards: Option<Afterwards>,
}

impl Timeline {
    /// From the fault to the begin of action.
    pub fn t_detect(&self) -> Duration {
        self.detected.since(self.fault)
    }

    /// From the begin of action to service, the wait for the claim included.
    pub fn t_recover(&self) -> Duration {
        self.in_service.since(self.detected)
    }

    /// Where from and where to, in words: "failover from alpha to beta".
    pub fn what(&self) -> String {
        let Timeline { cause, on, .. } = self;
        match cause {
            Cause::Failover { .. } | Cause::Switchover { .. } => format!("{cause} to {on}"),
            Cause::Stayed { .. } => format!("{cause}, in service on {on} all the time"),
            _ => format!("{cause} on {on}"),
        }
    }

    /// What was wrong, or who asked for it, in words.
    pub fn why(&self) -> Option<String> {
        match &self.cause {
            Cause::FirstStart => None,
            Cause::Adoption => Some("the agent was restarted; the service was not interrupted".to_owned()),
            Cause::Failover { from, fault } => Some(fault.on(from)),
            Cause::LocalRecovery { fault } => Some(fault.on(&self.on)),
            Cause::Stayed { fault } => Some(format!("{}; clients may not have been answered", fault.on(&self.on))),
            Cause::Switchover { why, .. } | Cause::Restart { why } => Some(why.clone()),
        }
    }

    /// What was seen later of the node that had fallen silent, in words.
    pub fn later(&self) -> Option<String> {
        let Afterwards { at, how } = self.afterwards?;
        let node = if let Cause::Failover { from, .. } = &self.cause { from } else { &self.on };
        let meaning = match how {
            Return::Booted => "booted anew: it had lost power, crashed, or was reset",
            Return::AgentRestarted => "with a new agent: its agent had ended, the machine ran on",
            Return::AsItWas => "with the same agent: it hung, or its network was cut",
        };
        Some(format!("{node} was heard again {:.1?} after the fault, {meaning}", at.since(self.fault)))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        write!(f, "{}: {}, epoch {}: ", self.hierarchy, self.what(), self.epoch)?;
        let whole = ms(self.in_service.since(self.fault));
        match self.cause {
            Cause::Stayed { .. } => writeln!(f, "disturbed for {whole:.1} ms")?,
            Cause::Restart { .. } => {
                let since = ms(self.t_recover());
                writeln!(f, "out of service for {whole:.1} ms, the last {since:.1} ms of them to begin again")?;
            }
            _ => writeln!(
                f,
                "T_detect {:.1} ms + T_recover {:.1} ms = {whole:.1} ms",
                ms(self.t_detect()),
                ms(self.t_recover())
            )?,
        }
        if let Some(why) = self.why() {
            writeln!(f, "  why: {why}")?;
        }
        if let Some(later) = self.later() {
            writeln!(f, "  later: {later}")?;
        }
        write_marks(f, self.fault, &self.marks)
    }
}

pub(super) fn write_marks(f: &mut fmt::Formatter<'_>, from: Time, marks: &[Mark]) -> fmt::Result {
    for Mark { at, what, again } in marks {
        let before = from.since(*at).as_secs_f64() * -1e3;
        let after = at.since(from).as_secs_f64() * 1e3;
        write!(f, "  {:>+10.1} ms  {what}", before + after)?;
        match again {
            0 => writeln!(f)?,
            again => writeln!(f, " ({again} more of these)")?,
        }
    }
    Ok(())
}

/// A hierarchy that is out of service, or disturbed, by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ongoing {
    /// The hierarchy.
    pub hierarchy: HierarchyName,
    /// The last moment at which all was known to be well, or the first at which something was known not to be.
    pub fault: Time,
    /// What is wrong, in words.
    pub why: String,
    /// Every step so far.
    pub marks: Vec<Mark>,
}

impl fmt::Display for Ongoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: NOT OVER YET: {}", self.hierarchy, self.why)?;
        write_marks(f, self.fault, &self.marks)
    }
}

impl Fault {
    pub(super) fn words(&self, node: Option<&NodeName>) -> String {
        node.map_or_else(|| "nobody has it in service".to_owned(), |node| self.on(node))
    }
}
