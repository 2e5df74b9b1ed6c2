//! How the program ends: the exit codes, and the failures that carry them.
//!
//! Decides which code means what. Leaves the words of a failure to where it happens.

use std::fmt;
use std::process::ExitCode;

/// How a run of `ha` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: refused, not done, or found to be wrong.
    Refused,
    /// 2: the command line or a file cannot be understood.
    BadInput,
    /// 3: the agent cannot be reached.
    Unreachable,
    /// 4: what was asked for is under way, but was not seen to be finished in time.
    TimedOut,
    /// 5: the system refused something that should have worked: a file, a device, a socket.
    System,
    /// 6, of `ha run` only: drained; the supervisor must not start it again.
    Drained,
}

/// For `ha --help` and the documentation.
pub(crate) const EXIT_CODES: &str = "Exit codes:\n  \
    0  done\n  \
    1  refused, or not done: the message says why\n  \
    2  the command line or a configuration file cannot be understood\n  \
    3  the agent cannot be reached\n  \
    4  accepted, but not seen to be finished in time\n  \
    5  a file, device or socket failed\n  \
    6  of `ha run` only: drained, not to be started again";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::BadInput => 2,
            Exit::Unreachable => 3,
            Exit::TimedOut => 4,
            Exit::System => 5,
            Exit::Drained => 6,
        })
    }
}

/// A command that did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened: the thing, the value, what was expected.
    pub(crate) what: String,
    /// What the user can do, if there is something.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), help: None }
    }

    /// Adds what the user can do.
    #[must_use]
    pub(crate) fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }
}

impl Failure {
    /// Says first why the agent may have been looked for in the wrong place, if it was not found.
    #[must_use]
    pub(crate) fn unless_there(self, why: &str) -> Self {
        let Failure { exit: Exit::Unreachable, what, help } = self else { return self };
        let help = help.map_or_else(|| why.to_owned(), |help| format!("{why}; {help}"));
        Failure { exit: Exit::Unreachable, what, help: Some(help) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
