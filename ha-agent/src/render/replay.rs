//! `ha replay`: calls, what they led to, and why.

use std::fmt::Write as _;

use ha_core::engine::{Effect, Engine};
use ha_core::record::flight::{Agreement, Damage, Gap, Header, SOFTWARE, Step};
use serde::Serialize;

use crate::cli::replay::{Quiet, Summary, wall};
use crate::words::{BAD, DIM, GOOD, HEAD, WARN, clean, styled};

/// As `ha events` shows it.
pub(crate) fn time(wall_ns: u64) -> String {
    humantime::format_rfc3339_millis(wall(wall_ns)).to_string()
}

/// The head of what is recorded without interruption.
pub(crate) fn begin(header: &Header, gap: &Gap) -> String {
    let mut out = match gap {
        Gap::Begin => String::new(),
        Gap::NewLife { in_order: true } => format!("{}\n\n", styled(DIM, "the agent was started again")),
        Gap::NewLife { in_order: false } => {
            format!("{}\n\n", styled(WARN, "the agent was started again; the life before had not ended in order"))
        }
        Gap::Lost { calls } => format!("{}\n\n", styled(WARN, format!("{} calls are missing here", grouped(*calls)))),
    };
    let from = match header.calls_before {
        0 => "its begin".to_owned(),
        calls => format!("after its call {}", grouped(calls)),
    };
    let _ = writeln!(
        out,
        "{} of cluster {}, life {}, recorded by version {}, from {from}: {} (clock {})",
        styled(HEAD, &header.node),
        header.cluster,
        header.life,
        header.software,
        time(header.wall_ns),
        header.at
    );
    if header.software != SOFTWARE {
        let what = format!("this is version {SOFTWARE}: where it decides otherwise, that is said");
        let _ = writeln!(out, "{}", styled(WARN, what));
    }
    out.push('\n');
    out
}

/// The recorded state is not the one that the replay came to.
pub(crate) fn other_state(header: &Header) -> String {
    let what = format!(
        "{} the state that was recorded here is not the one that this version comes to; going on with the latter",
        time(header.wall_ns)
    );
    format!("{}\n", styled(WARN, what))
}

/// The end of a life.
pub(crate) fn ended() -> String {
    format!("{}\n", styled(DIM, "the agent ended in order"))
}

/// The end of a segment that was cut off.
pub(crate) fn torn() -> String {
    format!("{}\n", styled(DIM, "the recording is cut off here: the agent was stopped while it wrote"))
}

/// The end of a segment that is damaged.
pub(crate) fn damaged(damage: Damage) -> String {
    format!("{}\n", styled(BAD, format!("the rest of this recording is not used: {damage}")))
}

/// Calls that led to nothing worth telling.
pub(crate) fn quiet(quiet: &Quiet) -> Option<String> {
    let counts = [
        (quiet.beats, "beat", "beats"),
        (quiet.messages, "other message", "other messages"),
        (quiet.renewals, "renewal", "renewals"),
        (quiet.monitors, "answer", "answers"),
        (quiet.timers, "timer", "timers"),
        (quiet.others, "other call", "other calls"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| format!("{} {}", grouped(*count), if *count == 1 { one } else { many }))
        .collect();
    (!parts.is_empty())
        .then(|| format!("{}\n", styled(DIM, format!("  … {} with nothing to decide", parts.join(", ")))))
}

/// One call with what it led to.
pub(crate) fn step(engine: &Engine, step: &Step, heard: &str) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} {}  {}",
        styled(DIM, time(step.wall_ns)),
        styled(DIM, format!("#{}", step.number)),
        clean(heard)
    );
    for turn in &step.turns {
        let before = turn.before.as_ref().map_or_else(String::new, |b| format!(" (was: {b})"));
        let what = clean(&format!("{} is {} for {}", engine.me(), turn.standing, turn.hierarchy));
        let _ = writeln!(out, "    {}{}, because", styled(HEAD, what), clean(&before));
        for (i, fact) in turn.reasons.iter().enumerate() {
            let _ = writeln!(out, "      {}. {}", i + 1, clean(&fact.0));
        }
    }
    for line in unchanged(engine, step) {
        let _ = writeln!(out, "    {}", styled(DIM, clean(&line)));
    }
    for effect in step.effects.iter().filter(|e| !matches!(e, Effect::Send(_))) {
        let _ = match effect {
            routine if routine.is_routine() => writeln!(out, "    {}", styled(DIM, clean(&format!("→ {routine}")))),
            Effect::Tell(event) if event.what.is_bad() => {
                writeln!(out, "    {}", styled(WARN, clean(&event.to_string())))
            }
            Effect::Tell(event) => writeln!(out, "    {}", clean(&event.to_string())),
            _ => writeln!(out, "    → {}", clean(&effect.to_string())),
        };
    }
    let to: Vec<&str> = step.effects.iter().filter_map(addressee).collect();
    if !to.is_empty() {
        let _ = writeln!(out, "    {}", styled(DIM, format!("→ send to {}", to.join(", "))));
    }
    match &step.agreement {
        Agreement::Same => {}
        Agreement::NotRecorded => {
            let _ = writeln!(
                out,
                "    {}",
                styled(WARN, "the recording ends with this call: what it led to then is not known")
            );
        }
        Agreement::Details { recorded, now } => {
            let what = format!("the same was decided, with other details (recorded {recorded:08x}, now {now:08x})");
            let _ = writeln!(out, "    {}", styled(WARN, what));
        }
        Agreement::Differs { recorded } => {
            let _ = writeln!(out, "    {}", styled(BAD, "something else was decided when this was recorded:"));
            if recorded.is_empty() {
                let _ = writeln!(out, "      (nothing)");
            }
            for line in recorded {
                let _ = writeln!(out, "      {}", clean(line));
            }
        }
    }
    out
}

fn addressee(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::Send(transmit) => Some(transmit.to.as_str()),
        _ => None,
    }
}

/// What is done for a reason that was shown before: again, in its last fact.
fn unchanged(engine: &Engine, step: &Step) -> Vec<String> {
    let acts = |e: &&Effect| {
        matches!(e, Effect::Acquire { .. } | Effect::Release { .. } | Effect::Operate { .. }) && !e.is_routine()
    };
    let mut names: Vec<_> = step.effects.iter().filter(acts).filter_map(Effect::hierarchy).collect();
    names.dedup();
    names.retain(|name| step.turns.iter().all(|t| t.hierarchy != **name));
    let judged = engine.standings().filter(|(name, _)| names.contains(name));
    judged
        .map(|(name, judgement)| {
            let why = judgement.facts.last().map_or_else(String::new, |fact| format!(": {fact}"));
            format!("{} is {} for {name}, as before{why}", engine.me(), judgement.standing)
        })
        .collect()
}

/// One call, for programs.
#[derive(Serialize)]
pub(crate) struct Line {
    number: u64,
    time: String,
    at: ha_core::time::Time,
    call: String,
    turns: Vec<TurnLine>,
    effects: Vec<String>,
    same: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<Vec<String>>,
}

#[derive(Serialize)]
struct TurnLine {
    hierarchy: String,
    before: Option<String>,
    standing: String,
    reasons: Vec<String>,
}

/// One call, for programs.
pub(crate) fn line(step: &Step, heard: &str) -> Line {
    Line {
        number: step.number,
        time: time(step.wall_ns),
        at: step.at,
        call: heard.to_owned(),
        turns: step
            .turns
            .iter()
            .map(|turn| TurnLine {
                hierarchy: turn.hierarchy.to_string(),
                before: turn.before.as_ref().map(ToString::to_string),
                standing: turn.standing.to_string(),
                reasons: turn.reasons.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        effects: step.effects.iter().map(ToString::to_string).collect(),
        same: matches!(step.agreement, Agreement::Same | Agreement::NotRecorded),
        recorded: match &step.agreement {
            Agreement::Differs { recorded } => Some(recorded.clone()),
            _ => None,
        },
    }
}

/// Between two steps.
pub(crate) fn prompt() -> String {
    styled(DIM, "Enter: on, q: end ")
}

/// The last line: whether the same is decided.
pub(crate) fn summary(summary: &Summary) -> String {
    let mut out = String::new();
    let calls = grouped(summary.calls);
    let by = summary.recorded_by.join(", ");
    let versions = if summary.ours() {
        format!("version {SOFTWARE}, as recorded")
    } else {
        format!("recorded by {by}, this is {SOFTWARE}")
    };
    let other = summary.differing + summary.differing_details + summary.differing_states;
    if summary.calls == 0 && summary.damaged > 0 {
        let _ = writeln!(out, "{}", styled(BAD, "nothing could be replayed"));
    } else if other == 0 {
        let _ = writeln!(
            out,
            "{}",
            styled(GOOD, format!("{calls} calls made again: every decision is the same ({versions})"))
        );
    } else {
        let states = match summary.differing_states {
            0 => String::new(),
            count => format!(", and {} recorded states are not those come to", grouped(count)),
        };
        let what = format!(
            "{calls} calls made again: {} led to other decisions, {} to other details{states} ({versions})",
            grouped(summary.differing),
            grouped(summary.differing_details),
        );
        let style = if summary.differing > 0 || summary.ours() { BAD } else { WARN };
        let _ = writeln!(out, "{}", styled(style, what));
        if let Some((number, time)) = &summary.first_difference {
            let _ = writeln!(out, "the first is call {number}, {time}: what comes after may only follow from it");
        }
    }
    if summary.lost > 0 {
        let what = format!(
            "{} calls are missing: never written down because the disk was full, slow or gone, or in recordings that are damaged or were removed",
            grouped(summary.lost)
        );
        let _ = writeln!(out, "{}", styled(WARN, what));
    }
    if summary.damaged > 0 {
        let _ =
            writeln!(out, "{}", styled(BAD, format!("{} recordings could not be used to their end", summary.damaged)));
    }
    out
}

/// "1,204".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
