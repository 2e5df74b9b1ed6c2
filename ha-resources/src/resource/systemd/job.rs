//! A start or a stop of a unit, as systemd carries it out: a job, and the word with which that very job ended.
//!
//! Source: org.freedesktop.systemd1(5), `StartUnit`, `JobRemoved`. Leaves what the unit is like afterwards to others.

use std::fmt;

use futures::StreamExt as _;
use zbus::{Message, OwnedObjectPath};

use crate::systemd::{Link, NotSaid, ServiceManager, UnitName};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
}

impl Verb {
    fn method(self) -> &'static str {
        match self {
            Verb::Start => "StartUnit",
            Verb::Stop => "StopUnit",
        }
    }
}

/// How a job gets on with those that are planned already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In its order among them; those that contradict it are given up.
    Replace,
    /// At once: see [`super::drop_in`].
    IgnoreDependencies,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Replace => "replace",
            Mode::IgnoreDependencies => "ignore-dependencies",
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was carried out.
    Done,
    /// It did not apply to the unit as it was.
    Skipped,
    /// Another job took its place.
    Canceled,
    /// Its own time was over.
    TimedOut,
    /// It did not succeed.
    Failed,
    /// Something that the unit requires did not start.
    Dependency,
    /// Another word of systemd's.
    Other(String),
    /// It is over, and its end was not heard: systemd executed itself anew meanwhile.
    Unheard,
}

impl End {
    fn parse(word: String) -> End {
        match word.as_str() {
            "done" => End::Done,
            "skipped" => End::Skipped,
            "canceled" => End::Canceled,
            "timeout" => End::TimedOut,
            "failed" => End::Failed,
            "dependency" => End::Dependency,
            _ => End::Other(word),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Done => f.write_str("was done"),
            End::Skipped => f.write_str("was skipped"),
            End::Canceled => f.write_str("was canceled: somebody asked for the opposite"),
            End::TimedOut => f.write_str("timed out"),
            End::Failed => f.write_str("failed"),
            End::Dependency => f.write_str(
                "was given up because a unit that it requires did not start; see `systemctl list-dependencies`",
            ),
            End::Other(word) => write!(f, "ended as {word:?}"),
            End::Unheard => f.write_str("is over, and how it ended was not heard"),
        }
    }
}

/// Asks for it, and waits until the job has ended.
pub(super) async fn carry_out(
    manager: &ServiceManager,
    unit: &UnitName,
    verb: Verb,
    mode: Mode,
) -> Result<End, NotSaid> {
    let mut asked: Option<OwnedObjectPath> = None;
    loop {
        let link = manager.connect().await?;
        match until_ended(&link, unit, verb, mode, &mut asked).await {
            // The jobs of a systemd that executes itself anew go on, under the same numbers.
            Err(NotSaid::Lost(why)) => tracing::debug!(%unit, why, "asks again for a job"),
            ended => return ended,
        }
    }
}

async fn until_ended(
    link: &Link,
    unit: &UnitName,
    verb: Verb,
    mode: Mode,
    asked: &mut Option<OwnedObjectPath>,
) -> Result<End, NotSaid> {
    let mut ends = link.ends_of_jobs().await?;
    let mut heard: Vec<(OwnedObjectPath, String)> = Vec::new();
    let job = match asked.clone() {
        Some(job) => {
            let number: u32 = job.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
            match link.manager("GetJob", &number).await {
                Err(NotSaid::Refused { .. }) => return Ok(End::Unheard),
                other => other?,
            };
            job
        }
        None => {
            let body = (unit.as_str(), mode.name());
            let call = link.manager(verb.method(), &body);
            let mut call = std::pin::pin!(call);
            // A short job may end before it is known which one it is; and signals must not pile up before the answer.
            let answer = loop {
                tokio::select! {
                    answer = &mut call => break answer?,
                    end = ends.next() => heard.extend(read_end(end, unit)?),
                }
            };
            asked.insert(answer.body().deserialize()?).clone()
        }
    };
    loop {
        if let Some((_, word)) = heard.iter().find(|(ended, _)| *ended == job) {
            return Ok(End::parse(word.clone()));
        }
        heard = read_end(ends.next().await, unit)?.into_iter().collect();
    }
}

/// Which job has ended and how, if it was one of this unit.
fn read_end(
    signal: Option<zbus::Result<Message>>,
    unit: &UnitName,
) -> Result<Option<(OwnedObjectPath, String)>, NotSaid> {
    let signal = signal.ok_or_else(|| NotSaid::Lost("systemd closed the connection".to_owned()))??;
    let (_, job, of, word): (u32, OwnedObjectPath, String, String) = signal.body().deserialize()?;
    Ok((of == unit.as_str()).then_some((job, word)))
}
