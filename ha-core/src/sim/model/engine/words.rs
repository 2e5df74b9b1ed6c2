//! What passes between an engine and what surrounds it, small enough to be listed.
//!
//! Decides what can be answered and asked. Leaves to the model when.

use std::time::Duration;

use super::NAMES;
use super::node::{LATER, NOW};
use crate::claim::{EarlyFailures, Held, Holder, Holding, Loss, Refusal, Tenure};
use crate::engine::supposed::{Due, Outlook};
use crate::engine::{Ask, Input, Switch};
use crate::name::{Epoch, HierarchyName, NodeName};
use crate::recovery::{OpId, Operation};

/// What an engine waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pending {
    Acquire {
        op: OpId,
        known: u8,
        adopt: Option<u8>,
    },
    Inspect {
        op: OpId,
    },
    Uphold {
        op: OpId,
        epoch: u8,
    },
    Release {
        op: OpId,
        epoch: u8,
        heir: Option<u8>,
    },
    Operate {
        op: OpId,
        part: usize,
        operation: Operation,
    },
    /// The claim has answered; the answer is on its way.
    Answered {
        asked: Box<Pending>,
        answer: Answer,
    },
}

impl Pending {
    pub(super) fn op(&self) -> OpId {
        match self {
            Pending::Acquire { op, .. }
            | Pending::Inspect { op }
            | Pending::Uphold { op, .. }
            | Pending::Release { op, .. }
            | Pending::Operate { op, .. } => *op,
            Pending::Answered { asked, .. } => asked.op(),
        }
    }

    pub(super) fn in_words(&self) -> String {
        match self {
            Pending::Acquire { adopt: None, .. } => "acquire".to_owned(),
            Pending::Acquire { adopt: Some(epoch), .. } => format!("confirm epoch {epoch}"),
            Pending::Inspect { .. } => "inspect".to_owned(),
            Pending::Uphold { epoch, .. } => format!("uphold epoch {epoch}"),
            Pending::Release { epoch, heir, .. } => {
                format!("release epoch {epoch} to {}", heir.map_or("anybody", |h| NAMES[usize::from(h)]))
            }
            Pending::Operate { part, operation, .. } => format!("{} resource {part}", operation.word()),
            Pending::Answered { asked, answer } => format!("{} ({answer:?})", asked.in_words()),
        }
    }
}

/// What the claim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Won { epoch: u8 },
    HeldBy(u8, u8),
    Seen { holder: Option<u8>, epoch: u8 },
    Proven,
    Taken,
    Released,
    Unreachable,
}

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Good,
    Bad,
    TimedOut,
    /// An adoption that finds what is so.
    NotRunning,
}

impl How {
    /// The ways in which an operation can end.
    pub(super) fn of(operation: Operation, up: bool) -> &'static [How] {
        match operation {
            Operation::Adopt if up => &[How::Good, How::TimedOut],
            Operation::Adopt => &[How::NotRunning],
            Operation::Monitor => &[How::Good, How::Bad],
            Operation::Start | Operation::Stop => &[How::Good, How::Bad, How::TimedOut],
            Operation::Kill => &[How::Good, How::TimedOut],
        }
    }

    /// Whether it is a fault.
    pub(super) fn costs(self) -> bool {
        matches!(self, How::Bad | How::TimedOut)
    }
}

/// What an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Start,
    Stop,
    MoveToOther,
    MaintenanceOn,
    MaintenanceOff,
    Clear,
    Standby,
    Online,
}

impl Command {
    /// Those that mean something now.
    pub(super) fn possible(outlook: &Outlook) -> Vec<Command> {
        let d = &outlook.directive;
        vec![
            if d.stopped { Command::Start } else { Command::Stop },
            if d.maintenance { Command::MaintenanceOff } else { Command::MaintenanceOn },
            if outlook.standby { Command::Online } else { Command::Standby },
            Command::MoveToOther,
            Command::Clear,
        ]
    }
}

/// What an engine takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stimulus {
    /// `good`: the tenure that the answer tells of is still good as it arrives.
    Claim {
        at: usize,
        answer: Answer,
        good: bool,
    },
    Later {
        at: usize,
        answer: Answer,
    },
    Ended {
        at: usize,
        how: How,
    },
    Due(Due),
    Silent,
    Command(Command),
    Fails {
        part: usize,
    },
}

/// What the engine is told of an answer; nothing if it has no place for such news.
pub(super) fn input_of(name: &HierarchyName, i: usize, asked: &Pending, answer: Answer, good: bool) -> Option<Input> {
    let hierarchy = name.clone();
    let failures = EarlyFailures::default();
    let tenure = Tenure::Until(if good { LATER } else { NOW - Duration::from_secs(1) });
    let unreachable = || Refusal::Unreachable("no answer".to_owned());
    Some(match asked {
        Pending::Acquire { op, .. } => {
            let answer = match answer {
                Answer::Won { epoch } => Ok(Held { epoch: Epoch(epoch.into()), tenure, failures }),
                Answer::HeldBy(holder, epoch) => Err(Refusal::Held {
                    holder: node(holder.into()),
                    epoch: Epoch(epoch.into()),
                    why: "its tenure is good".to_owned(),
                    retry_at: None,
                }),
                _ => Err(unreachable()),
            };
            Input::Acquired { hierarchy, op: *op, answer }
        }
        Pending::Inspect { op } => {
            let answer = match answer {
                Answer::Seen { holder, epoch } => {
                    let who = |h: u8| if usize::from(h) == i { Holder::Me } else { Holder::Node(node(h.into())) };
                    Ok(Holding { holder: holder.map(who), epoch: Epoch(epoch.into()), failures })
                }
                _ => Err(unreachable()),
            };
            Input::Inspected { hierarchy, op: *op, answer }
        }
        Pending::Uphold { op, .. } => {
            let answer = match answer {
                Answer::Proven => Ok(tenure),
                Answer::Taken => Err(Loss::Taken("another node".to_owned())),
                _ => Err(Loss::unproven("no answer")),
            };
            Input::Upheld { hierarchy, op: *op, answer }
        }
        Pending::Release { op, .. } => {
            let answer = if answer == Answer::Released { Ok(()) } else { Err(unreachable()) };
            Input::Released { hierarchy, op: *op, answer }
        }
        Pending::Operate { .. } | Pending::Answered { .. } => return None,
    })
}

/// What an operator asks, as the engine takes it in.
pub(super) fn order(command: Command, hierarchy: HierarchyName, other: NodeName) -> Ask {
    match command {
        Command::Start => Ask::Start { hierarchy },
        Command::Stop => Ask::Stop { hierarchy },
        Command::MoveToOther => Ask::Move { hierarchy, to: Some(other) },
        Command::MaintenanceOn => Ask::Maintenance { hierarchy, switch: Switch::On },
        Command::MaintenanceOff => Ask::Maintenance { hierarchy, switch: Switch::Off },
        Command::Clear => Ask::Clear { hierarchy },
        Command::Standby => Ask::Standby,
        Command::Online => Ask::Online,
    }
}

#[expect(clippy::expect_used, reason = "constant names, used in every test")]
/// A node's name.
pub(super) fn node(i: usize) -> NodeName {
    NodeName::new(NAMES[i]).expect("a valid name")
}
