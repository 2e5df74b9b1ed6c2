//! What the exit codes of OCF agents mean.
//!
//! Source: the Open Cluster Framework's resource agent API 1.1, chapter on exit status codes; 190 and 191 as Pacemaker has them.
//! Decides what each code means after each action. Leaves to the resource what follows from it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use ha_core::driver::{Failed, Verdict};

use crate::command::{self, Finished};

/// What an agent writes before the reason for its exit code (`ocf_exit_reason` of ocf-shellfuncs).
const REASON: &str = "ocf-exit-reason:";

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// 0, `OCF_SUCCESS`.
    Success,
    /// 1, `OCF_ERR_GENERIC`.
    Generic,
    /// 2, `OCF_ERR_ARGS`: the parameters are wrong on this node.
    Arguments,
    /// 3, `OCF_ERR_UNIMPLEMENTED`.
    Unimplemented,
    /// 4, `OCF_ERR_PERM`.
    Permission,
    /// 5, `OCF_ERR_INSTALLED`: something is missing on this node.
    Installed,
    /// 6, `OCF_ERR_CONFIGURED`: the parameters are wrong on every node.
    Configured,
    /// 7, `OCF_NOT_RUNNING`.
    NotRunning,
    /// 8, `OCF_RUNNING_PROMOTED`.
    RunningPromoted,
    /// 9, `OCF_FAILED_PROMOTED`.
    FailedPromoted,
    /// 190, `OCF_DEGRADED`: works, and is likely to fail soon.
    Degraded,
    /// 191, `OCF_DEGRADED_PROMOTED`.
    DegradedPromoted,
    /// Any other code, which no version of the API has.
    Undocumented(i32),
    /// A signal ended it.
    Killed,
}

impl From<ExitStatus> for Code {
    fn from(status: ExitStatus) -> Code {
        match status.code() {
            Some(0) => Code::Success,
            Some(1) => Code::Generic,
            Some(2) => Code::Arguments,
            Some(3) => Code::Unimplemented,
            Some(4) => Code::Permission,
            Some(5) => Code::Installed,
            Some(6) => Code::Configured,
            Some(7) => Code::NotRunning,
            Some(8) => Code::RunningPromoted,
            Some(9) => Code::FailedPromoted,
            Some(190) => Code::Degraded,
            Some(191) => Code::DegradedPromoted,
            Some(other) => Code::Undocumented(other),
            None => Code::Killed,
        }
    }
}

impl Code {
    /// What it says, for people: the name in the API and its meaning.
    fn words(self) -> &'static str {
        match self {
            Code::Success => "OCF_SUCCESS",
            Code::Generic => "OCF_ERR_GENERIC: it failed",
            Code::Arguments => "OCF_ERR_ARGS: a parameter cannot be used on this node",
            Code::Unimplemented => "OCF_ERR_UNIMPLEMENTED: it does not know this action",
            Code::Permission => "OCF_ERR_PERM: something is not permitted to it",
            Code::Installed => "OCF_ERR_INSTALLED: something that it needs is not installed on this node",
            Code::Configured => "OCF_ERR_CONFIGURED: it is configured wrongly, whatever the node",
            Code::NotRunning => "OCF_NOT_RUNNING: it does not run",
            Code::RunningPromoted => "OCF_RUNNING_PROMOTED: it runs, as promoted",
            Code::FailedPromoted => "OCF_FAILED_PROMOTED: it failed, as promoted",
            Code::Degraded => "OCF_DEGRADED: it works, and may soon fail",
            Code::DegradedPromoted => "OCF_DEGRADED_PROMOTED: it works, as promoted, and may soon fail",
            Code::Undocumented(126 | 127) => {
                "not a code of OCF agents: a shell's word for a program that is not there or cannot be executed"
            }
            Code::Undocumented(_) => "not a code of OCF agents: the agent is broken",
            Code::Killed => "",
        }
    }

    /// What the operator can do.
    fn remedy(self) -> &'static str {
        match self {
            Code::Arguments | Code::Configured => {
                "; correct `params` or the program's own configuration: `ha check` compares them with the agent's meta-data"
            }
            Code::Unimplemented => "; this agent cannot be used here: update it, or take another one",
            Code::Permission => {
                "; check the owner and mode of the files that it names, and that the agent `ha` runs as root"
            }
            Code::Installed => "; install it on this node, or take the node off the hierarchy's `nodes`",
            Code::Undocumented(_) => "; run it by hand, or ask its author",
            _ => "",
        }
    }
}

/// What an agent answered to an action.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The action.
    pub(crate) action: &'static str,
    /// What it answered.
    pub(crate) code: Code,
    finished: Finished,
}

impl Answer {
    /// Of an agent that ended by itself.
    pub(crate) fn new(action: &'static str, finished: Finished) -> Answer {
        Answer { action, code: Code::from(finished.status), finished }
    }

    /// What it answered, why, and what can be done about it.
    pub(crate) fn describe(&self) -> String {
        let reason = self.finished.output.lines().rev().find_map(|line| line.strip_prefix(REASON));
        let said = match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
            Some(reason) => format!("; its reason: {reason}"),
            None => command::said(&self.finished.output),
        };
        match self.finished.status.signal() {
            Some(_) => format!("its {} {}{said}", self.action, command::describe(self.finished.status)),
            None => {
                let number = self.finished.status.code().unwrap_or_default();
                format!("its {} answered {number} ({}){said}{}", self.action, self.code.words(), self.code.remedy())
            }
        }
    }

    /// Of an action that should have done something.
    pub(crate) fn done(&self) -> Result<(), Failed> {
        if self.code == Code::Success { Ok(()) } else { Err(Failed(self.describe())) }
    }

    /// Of a stop: what does not run is stopped.
    pub(crate) fn stopped(&self) -> Result<(), Failed> {
        if self.code == Code::NotRunning { Ok(()) } else { self.done() }
    }

    /// Of a monitor after a stop: whether it says that the service runs. A generic error, which some agents give for what is stopped, does not.
    pub(crate) fn says_not_stopped(&self) -> bool {
        let runs = [Code::Success, Code::RunningPromoted, Code::FailedPromoted, Code::Degraded, Code::DegradedPromoted];
        runs.contains(&self.code)
    }

    /// Of a monitor.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.code {
            Code::Success => Verdict::Good,
            Code::RunningPromoted | Code::Degraded | Code::DegradedPromoted => {
                tracing::warn!("{}", self.describe());
                Verdict::Good
            }
            // Neither is a word about the service.
            Code::Undocumented(_) | Code::Killed => Verdict::Unknown(self.describe()),
            Code::Generic
            | Code::Arguments
            | Code::Unimplemented
            | Code::Permission
            | Code::Installed
            | Code::Configured
            | Code::NotRunning
            | Code::FailedPromoted => Verdict::Bad(self.describe()),
        }
    }
}
