//! `ha replay`: what a flight recorder kept, gone through again by the engine of this version.
//!
//! Decides which moments are shown. Leaves how they look to [`crate::render::replay`], and the replay itself to `ha-core`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ha_core::driver::FlightFiles;
use ha_core::engine::{Call, Effect, Engine, Input};
use ha_core::name::HierarchyName;
use ha_core::record::flight::{self, Agreement, CannotReplay, Damage, Header, Records, Replay, Seen, Step};
use ha_core::recovery::OpId;
use ha_core::time::{Span, Time};
use serde::Serialize;

use super::{hierarchy_name, say, span};
use crate::exit::{Exit, Failure};
use crate::render::replay as render;

/// Of `ha replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A recording, or a directory of them [default: flight/ in the state directory that agent.ron names]
    path: Option<PathBuf>,
    /// Only what is about this hierarchy
    #[arg(long, value_name = "HIERARCHY", value_parser = hierarchy_name)]
    hierarchy: Option<HierarchyName>,
    /// Only around this moment: as `ha history` and `ha events` show it, or in seconds of the node's clock
    #[arg(long, value_name = "TIME", value_parser = moment)]
    around: Option<Moment>,
    /// How far around it, before and after
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "10s", requires = "around")]
    window: Span,
    /// Every call, also those that led to nothing
    #[arg(long)]
    all: bool,
    /// Wait after each for Enter; `q` ends
    #[arg(long, conflicts_with_all = ["json", "verify"])]
    step: bool,
    /// Show nothing but whether the same is decided; exit code 1 if it is not
    #[arg(long, conflicts_with_all = ["json", "around", "hierarchy", "all"])]
    verify: bool,
    /// As JSON, one line each, for programs
    #[arg(long)]
    json: bool,
}

/// A moment, as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Nanoseconds since 1970 UTC.
    Wall(u64),
    /// The node's clock.
    Clock(Time),
}

fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || {
        format!("{text:?} is not a moment: expected one such as 2026-11-21T08:28:43.085Z, or seconds such as 1234.567")
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let clock = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        return Ok(Moment::Clock(Time::ZERO + clock));
    }
    let wall = humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?;
    let nanos = wall.duration_since(UNIX_EPOCH).map_err(|_| wrong())?.as_nanos();
    u64::try_from(nanos).map(Moment::Wall).map_err(|_| wrong())
}

impl Moment {
    /// How far it is from a moment of a recording, in nanoseconds; negative: before it.
    fn from(self, at: Time, wall_ns: u64) -> i128 {
        match self {
            Moment::Wall(wanted) => i128::from(wall_ns) - i128::from(wanted),
            Moment::Clock(wanted) => i128::from(at.0) - i128::from(wanted.0),
        }
    }
}

/// What the whole replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Calls made again.
    pub(crate) calls: u64,
    /// Of these, those that led to other decisions than recorded.
    pub(crate) differing: u64,
    /// Those that led to the same decisions with other details.
    pub(crate) differing_details: u64,
    /// Segments whose recorded state is not the one that the replay came to.
    pub(crate) differing_states: u64,
    /// The first call that led to something else: its number and time.
    pub(crate) first_difference: Option<(u64, String)>,
    /// Calls that were never written down.
    pub(crate) lost: u64,
    /// Segments that could not be read, or not to their end.
    pub(crate) damaged: u64,
    /// The versions of the software that recorded.
    pub(crate) recorded_by: Vec<String>,
}

impl Summary {
    /// All was made by this version.
    pub(crate) fn ours(&self) -> bool {
        self.recorded_by.iter().all(|v| v == flight::SOFTWARE)
    }

    /// Whether everything was decided again as it was, as far as two versions can be compared.
    fn agrees(&self) -> bool {
        let details = self.ours() && (self.differing_details > 0 || self.differing_states > 0);
        self.differing == 0 && self.damaged == 0 && !details
    }
}

/// `ha replay`.
pub(crate) fn replay(config: &Path, args: &ReplayArgs) -> Result<Exit, Failure> {
    let path = args.path.clone().map_or_else(|| configured(config), Ok)?;
    let files = recordings(&path)?;
    let files = files.get(first_of_interest(&files, args)..).unwrap_or_default();
    let mut showing =
        Showing { args, summary: Summary::default(), quiet: Quiet::default(), operations: BTreeMap::new() };
    let mut replay = Replay::default();
    for file in files {
        let bytes = read(file)?;
        let mut failed = None;
        let flow = replay.segment(&bytes, &mut |engine, seen| match showing.see(engine, seen) {
            Ok(flow) => flow,
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        match flow {
            Ok(ControlFlow::Break(())) => break,
            // The agent was stopped while it began a segment: nothing was told in it yet.
            Ok(ControlFlow::Continue(()))
            | Err(CannotReplay::Unreadable(flight::Unreadable::Damaged(Damage::Torn { .. }))) => {}
            Err(wrong) => showing.cannot(file, &wrong),
        }
    }
    showing.end()
}

fn configured(config: &Path) -> Result<PathBuf, Failure> {
    match crate::config::read(config).config {
        Some(config) => Ok(config.flight_dir()),
        None => Err(Failure::new(
            Exit::BadInput,
            format!("no recording is named, and {} has no agent.ron that tells where they are", config.display()),
        )
        .help("`ha replay PATH` takes a recording, or a directory of them, from any machine")),
    }
}

fn recordings(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |e: std::io::Error| Failure::new(Exit::System, format!("{}: {e}", path.display()));
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = FlightFiles::list(path).map_err(unreadable)?;
    if files.is_empty() {
        return Err(Failure::new(
            Exit::BadInput,
            format!("{} has no recordings (files such as 00000001.rec)", path.display()),
        )
        .help("the agent records unless agent.ron says `flight_recorder: Off`"));
    }
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    FlightFiles::read(file).map_err(|e| Failure::new(Exit::System, format!("{}: {e}", file.display())))
}

/// Any segment can be the first: what is too early is not gone through at all.
fn first_of_interest(files: &[PathBuf], args: &ReplayArgs) -> usize {
    let Some(around) = args.around else { return 0 };
    let window = i128::try_from(args.window.0.as_nanos()).unwrap_or(i128::MAX);
    let begins_before = |file: &PathBuf| {
        let bytes = FlightFiles::read(file).ok()?;
        let (header, ..) = Records::open(&bytes).ok()?;
        Some(around.from(header.at, header.wall_ns) <= -window)
    };
    files.iter().rposition(|file| begins_before(file) == Some(true)).unwrap_or(0)
}

/// Calls that led to nothing worth telling, counted until something does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quiet {
    pub(crate) beats: u64,
    pub(crate) messages: u64,
    pub(crate) renewals: u64,
    pub(crate) monitors: u64,
    pub(crate) timers: u64,
    pub(crate) others: u64,
}

impl Quiet {
    fn count(&mut self, call: &Call) {
        use ha_core::contact::Message;
        let of = match call {
            Call::Timeout => &mut self.timers,
            Call::Handle(Input::Received { message: Message::Beat(_), .. }) => &mut self.beats,
            Call::Handle(Input::Received { .. }) => &mut self.messages,
            Call::Handle(Input::Lease { .. } | Input::Upheld { .. } | Input::Inspected { .. }) => &mut self.renewals,
            Call::Handle(Input::Operated { .. }) => &mut self.monitors,
            _ => &mut self.others,
        };
        *of += 1;
    }
}

struct Showing<'a> {
    args: &'a ReplayArgs,
    summary: Summary,
    quiet: Quiet,
    /// What runs now, in words: its end is told by number only.
    operations: BTreeMap<OpId, String>,
}

impl Showing<'_> {
    fn see(&mut self, engine: &Engine, seen: Seen<'_>) -> Result<ControlFlow<()>, Failure> {
        match seen {
            Seen::Begin { header, gap } => {
                if let flight::Gap::Lost { calls } = gap {
                    self.summary.lost += calls;
                }
                self.recorded_by(header);
                self.say(|| render::begin(header, &gap))?;
            }
            Seen::Continues { header, same_state } => {
                self.recorded_by(header);
                self.summary.differing_states += u64::from(!same_state);
                if !same_state {
                    self.say(|| render::other_state(header))?;
                }
            }
            Seen::Step(step) => return self.step(engine, *step),
            Seen::End => self.say(render::ended)?,
            // A writer that was stopped in the middle of a frame is no damage.
            Seen::Damaged(Damage::Torn { .. }) => self.say(render::torn)?,
            Seen::Damaged(damage) => {
                self.summary.damaged += 1;
                self.say(|| render::damaged(damage))?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn recorded_by(&mut self, header: &Header) {
        if !self.summary.recorded_by.contains(&header.software) {
            self.summary.recorded_by.push(header.software.clone());
        }
    }

    fn step(&mut self, engine: &Engine, mut step: Step) -> Result<ControlFlow<()>, Failure> {
        self.summary.calls += 1;
        match &step.agreement {
            Agreement::Same | Agreement::NotRecorded => {}
            Agreement::Details { .. } => self.summary.differing_details += 1,
            Agreement::Differs { .. } => self.summary.differing += 1,
        }
        let heard = self.heard(&step);
        let other = matches!(step.agreement, Agreement::Details { .. } | Agreement::Differs { .. });
        if other && self.summary.first_difference.is_none() {
            self.summary.first_difference = Some((step.number, render::time(step.wall_ns)));
        }
        if self.args.verify {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(around) = self.args.around {
            let window = i128::try_from(self.args.window.0.as_nanos()).unwrap_or(i128::MAX);
            let distance = around.from(step.at, step.wall_ns);
            if distance < -window {
                return Ok(ControlFlow::Continue(()));
            }
            if distance > window {
                return Ok(ControlFlow::Break(()));
            }
        }
        if !self.is_of_interest(&mut step) {
            self.quiet.count(&step.call);
            return Ok(ControlFlow::Continue(()));
        }
        if self.args.json {
            let line =
                serde_json::to_string(&render::line(&step, &heard)).map_err(|e| Failure::new(Exit::System, e))?;
            say(line + "\n")?;
            return Ok(ControlFlow::Continue(()));
        }
        self.say(|| render::step(engine, &step, &heard))?;
        if self.args.step && wait()? == Next::End {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What the engine was told, in words.
    fn heard(&mut self, step: &Step) -> String {
        let ended = match &step.call {
            Call::Handle(Input::Operated { op, outcome, .. }) => {
                self.operations.remove(op).map(|what| format!("{what} ended: {outcome}"))
            }
            _ => None,
        };
        for effect in &step.effects {
            if let Effect::Operate { op, .. } = effect {
                self.operations.insert(*op, effect.to_string());
            }
        }
        ended.unwrap_or_else(|| step.call.to_string())
    }

    /// Whether a step is shown; of one hierarchy, no more than what is about it, and what is about the node.
    fn is_of_interest(&self, step: &mut Step) -> bool {
        let differs = matches!(step.agreement, Agreement::Details { .. } | Agreement::Differs { .. });
        let Some(only) = &self.args.hierarchy else {
            let told = |e: &Effect| !e.is_routine();
            return self.args.all || differs || !step.turns.is_empty() || step.effects.iter().any(told);
        };
        let about = |effect: &Effect| effect.hierarchy() == Some(only);
        let concerned = step.call.hierarchy() == Some(only) && self.args.all
            || step.effects.iter().any(|e| about(e) && !e.is_routine())
            || step.turns.iter().any(|t| t.hierarchy == *only)
            || matches!(&step.agreement, Agreement::Differs { recorded } if recorded.iter().any(|l| l.contains(only.as_str())));
        step.effects.retain(|e| e.hierarchy().is_none_or(|h| h == only));
        step.turns.retain(|t| t.hierarchy == *only);
        concerned
    }

    /// Shows something, after what was skipped before it.
    fn say(&mut self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.args.verify || self.args.json {
            return Ok(());
        }
        let quiet = std::mem::take(&mut self.quiet);
        if let Some(line) = render::quiet(&quiet) {
            say(line)?;
        }
        say(text())
    }

    fn cannot(&mut self, file: &Path, wrong: &CannotReplay) {
        self.summary.damaged += 1;
        anstream::eprintln!("{}: {wrong}", file.display());
    }

    fn end(mut self) -> Result<Exit, Failure> {
        self.say(String::new)?;
        if self.args.json {
            let line = serde_json::json!({ "summary": self.summary });
            say(format!("{line}\n"))?;
        } else {
            say(render::summary(&self.summary))?;
        }
        Ok(if self.summary.agrees() || !self.args.verify { Exit::Done } else { Exit::Refused })
    }
}

/// Waits for Enter.
fn wait() -> Result<Next, Failure> {
    if std::io::stdin().is_terminal() {
        say(render::prompt())?;
    }
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let read = read.map_err(|e| Failure::new(Exit::System, format!("standard input cannot be read: {e}")))?;
    Ok(if read == 0 || answer.trim() == "q" { Next::End } else { Next::GoOn })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// From nanoseconds since 1970 to the system's own kind.
pub(crate) fn wall(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
