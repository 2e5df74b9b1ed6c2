//! What the exit codes of init scripts mean.
//!
//! Source: Linux Standard Base 5.0, core, 20.2 "Init Script Actions". Decides what each code means after `status` and after every other
//! action. Leaves to the resource how far a script is believed.

use std::process::ExitStatus;

use crate::command::{self, Finished};

/// What a script answered to `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// 0: it runs.
    Running,
    /// 1, 2, 3: it does not, and what the script said.
    Dead(String),
    /// Every other code, no answer in time, death by a signal: what was seen.
    Unknown(String),
}

impl Status {
    /// Of a script that ended by itself.
    pub(super) fn of(finished: &Finished) -> Status {
        let told = || describe("status", finished);
        match finished.status.code() {
            Some(0) => Status::Running,
            Some(1..=3) => Status::Dead(told()),
            _ => Status::Unknown(told()),
        }
    }
}

/// What a script answered to an action, and why, for people.
pub(super) fn describe(action: &str, finished: &Finished) -> String {
    let said = command::said(&finished.output);
    match finished.status.code() {
        Some(code) => format!("its {action} answered {code} ({}){said}", words(action, finished.status)),
        None => format!("its {action} {}{said}", command::describe(finished.status)),
    }
}

fn words(action: &str, status: ExitStatus) -> &'static str {
    match (action, status.code().unwrap_or_default()) {
        ("status", 0) => "it runs",
        ("status", 1) => "it is dead and left its pid file",
        ("status", 2) => "it is dead and left its lock file",
        ("status", 3) => "it does not run",
        ("status", 4) => "its state is not known",
        (_, 0) => "done",
        (_, 1) => "it failed",
        (_, 2) => "it does not take these arguments",
        (_, 3) => "the script does not know this action",
        (_, 4) => "it is not permitted: the agent `ha` should run as root",
        (_, 5) => "the program is not installed on this node: install it",
        (_, 6) => "the program is not configured on this node: configure it",
        (_, 7) => "it does not run, and this action needs it to",
        (_, 126 | 127) => "a shell's word for a program that is not there or cannot be executed: see the script",
        (_, 100..=149) => "a code of this distribution: see the script",
        (_, 150..=199) => "a code of this program: see the script",
        _ => "no code of init scripts: the script is broken",
    }
}
