//! What tells that something which runs also does its work.
//!
//! Decides how it is written and what each answer means. Leaves to the resources whether it runs at all, which is asked first.

use std::net::SocketAddr;

use ha_core::driver::{Context, Verdict};
use ha_core::hierarchy::{Fields, Value};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::read::{ADDRESS, COMMAND, words};
use crate::command::{Program, RunError};

/// What a monitor looks at beside whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A connection is accepted at this address. No answer in time is "unknown", a refusal is bad.
    Tcp(SocketAddr),
    /// A command exits with 0. Any other code is bad, no end in time "unknown".
    Command(Vec<String>),
}

impl Check {
    /// Reads the field `check`: `Tcp("10.0.0.10:80")` or `Command(["/usr/bin/app", "check"])`. `Some(None)` where there is none, `None` if
    /// something is wrong, which was reported.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Option<Check>> {
        fields.value("check").map_or(Some(None), |value| one(value).map(Some))
    }

    /// Looks once, until the deadline.
    pub(crate) async fn look(&self, context: &Context, deadline: Instant) -> Verdict {
        let limit = deadline.saturating_duration_since(Instant::now());
        match self {
            Check::Tcp(address) => match tokio::time::timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(_)) => Verdict::Good,
                Ok(Err(e)) => Verdict::Bad(format!("it lives, but {address} answers: {e}")),
                Err(_) => Verdict::Unknown(format!("it lives, but {address} did not answer within {limit:?}")),
            },
            Check::Command(command) => match Program::of(context, command).run(limit).await {
                Ok(finished) if finished.status.success() => Verdict::Good,
                Ok(finished) => Verdict::Bad(format!("it lives, but its check {}", finished.describe())),
                Err(e @ (RunError::TimedOut { .. } | RunError::NotRun { .. } | RunError::TooMuch { .. })) => {
                    Verdict::Unknown(e.to_string())
                }
            },
        }
    }
}

/// The same, where it was seen to run first: what that look found unless it is good.
pub(crate) async fn beside(runs: Verdict, check: Option<&Check>, context: &Context, deadline: Instant) -> Verdict {
    match (runs, check) {
        (Verdict::Good, Some(check)) => check.look(context, deadline).await,
        (runs, _) => runs,
    }
}

fn one(value: Value<'_>) -> Option<Check> {
    let (name, mut inner) = value.variant("Tcp(…) or Command(…)")?;
    let check = match name {
        "Tcp" => inner.only_or::<SocketAddr>("address", ADDRESS).map(Check::Tcp),
        "Command" => match inner.only() {
            Some(value) => words(value).map(Check::Command),
            None => inner.required_value("command", COMMAND).and_then(words).map(Check::Command),
        },
        _ => {
            value.unknown_name("check", name, &["Tcp", "Command"]);
            return None;
        }
    };
    inner.finish();
    check
}
