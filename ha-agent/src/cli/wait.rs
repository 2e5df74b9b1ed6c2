//! Waits for a goal, and shows how far it is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::goal::{Goal, Progress};
use super::say;
use crate::api::client::Client;
use crate::exit::{Exit, Failure};
use crate::view::ClusterView;
use crate::words::clean;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks again and again until the goal is reached, or cannot be, or the time is over.
pub(crate) async fn wait_for(client: &Client, goal: &Goal, timeout: Duration) -> Result<Exit, Failure> {
    let deadline = Instant::now() + timeout;
    let mut line = ProgressLine::default();
    loop {
        let seen = match client.get::<ClusterView>("/v1/status").await {
            Ok(view) => match goal.progress(&view) {
                Progress::Done(what) => {
                    line.end();
                    say(format!("{}\n", clean(&what)))?;
                    return Ok(Exit::Done);
                }
                Progress::Hopeless(why) => {
                    line.end();
                    return Err(Failure::new(Exit::Refused, clean(&why)));
                }
                Progress::Pending(what) => clean(&what),
            },
            Err(failure) if failure.exit == Exit::Unreachable && *goal == Goal::AgentEnded => {
                line.end();
                say("the agent has ended\n")?;
                return Ok(Exit::Done);
            }
            Err(failure) if failure.exit == Exit::Unreachable => failure.what,
            Err(failure) => return Err(failure),
        };
        if Instant::now() >= deadline {
            line.end();
            let waited = humantime::format_duration(timeout);
            return Err(Failure::new(Exit::TimedOut, format!("not seen to be done within {waited}: {seen}"))
                .help("it goes on; `ha status` shows how far it is, --timeout waits longer"));
        }
        line.show(&seen);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// On a terminal one line that changes; elsewhere a line for every change. On standard error.
#[derive(Default)]
struct ProgressLine {
    shown: String,
}

impl ProgressLine {
    fn show(&mut self, text: &str) {
        if self.shown == text {
            return;
        }
        text.clone_into(&mut self.shown);
        let mut err = std::io::stderr();
        // Progress that cannot be shown is no reason to stop.
        let _ = if err.is_terminal() { write!(err, "\r\x1b[K{text}") } else { writeln!(err, "{text}") };
        let _ = err.flush();
    }

    fn end(&mut self) {
        let mut err = std::io::stderr();
        if !self.shown.is_empty() && err.is_terminal() {
            let _ = write!(err, "\r\x1b[K");
            let _ = err.flush();
        }
    }
}
