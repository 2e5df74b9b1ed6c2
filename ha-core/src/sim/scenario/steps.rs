//! Reading what happens and what must be seen.
//!
//! Decides the grammar of steps and states.

use std::ops::Range;

use super::actions::{ACTIONS, action};
use super::model::{Doing, State, Step, When};
use super::words::{Bad, Line, Names, Parsed};
use crate::contact::AnnouncedPhase;
use crate::hierarchy::{Diagnostics, Problems, Source, suggest};
use crate::name::HierarchyName;
use crate::sim::setup::Setup;

/// The words that a step begins with, beside those of actions.
pub(super) const STEPS: &[&str] = &["at", "wait", "until", "expect"];

/// Reads a text that consists of steps only, for a cluster that is given.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn parse_steps(source: &Source, setup: &Setup) -> Result<Vec<Step>, Diagnostics> {
    let problems = Problems::new(source);
    let names = Names::of(setup);
    let mut steps = Vec::new();
    for (number, span) in lines(source) {
        report(&problems, step(source, number, span, &names, &mut steps));
    }
    finish(problems, steps)
}

/// Every line with its number and place.
pub(super) fn lines(source: &Source) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut at = 0;
    source.text().split('\n').enumerate().map(move |(i, text)| {
        let begin = at;
        at += text.len() + 1;
        (i + 1, begin..begin + text.len())
    })
}

pub(super) fn report<T>(problems: &Problems<'_>, read: Parsed<T>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(Bad { span, message, help }) => {
            problems.add(&span, message, help);
            None
        }
    }
}

pub(super) fn finish<T>(problems: Problems<'_>, value: T) -> Result<T, Diagnostics> {
    let diagnostics = problems.into_diagnostics();
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok(value) }
}

/// Reads one line, if it is a step, and adds it.
pub(super) fn step(
    source: &Source,
    number: usize,
    span: Range<usize>,
    names: &Names,
    steps: &mut Vec<Step>,
) -> Parsed<()> {
    let text = source.text().get(span.clone()).unwrap_or_default();
    if let Some(item) = text.trim().strip_prefix("- ") {
        return match steps.last_mut().map(|step| &mut step.what) {
            Some(Doing::Told { lines, .. }) => {
                lines.push(item.trim().to_owned());
                Ok(())
            }
            _ => Err(Bad {
                span: span.start + (text.len() - text.trim_start().len())..span.end,
                message: "a line that begins with `-` belongs to a list, and none was begun".to_owned(),
                help: Some("a list begins with a line such as `expect alpha told of web:`".to_owned()),
            }),
        };
    }
    let mut line = Line::new(text, span.start, names)?;
    if line.is_over() {
        return Ok(());
    }
    let what = doing(&mut line)?;
    line.over()?;
    steps.push(Step { line: number, text: text.trim().to_owned(), what });
    Ok(())
}

fn doing(line: &mut Line<'_>) -> Parsed<Doing> {
    if line.peek().is_some_and(|word| ACTIONS.contains(&word)) {
        return action(line).map(Doing::Act);
    }
    if !line.peek().is_some_and(|word| STEPS.contains(&word)) {
        let help = line.peek().and_then(|word| suggest(word, STEPS.iter().chain(ACTIONS).copied()));
        return Err(line.expected("an action, `wait`, `until`, `expect` or `at`", help));
    }
    Ok(match line.word(STEPS)? {
        "at" => {
            let after =
                line.read("when, such as `+2s`", |word| humantime::parse_duration(word.strip_prefix('+')?).ok());
            let after = after?;
            Doing::Later(after, action(line)?)
        }
        "wait" => Doing::Wait(line.span()?),
        "until" => {
            let state = state(line)?;
            line.words(&["within"])?;
            Doing::Until { state, within: line.span()? }
        }
        _ => expect(line)?,
    })
}

fn expect(line: &mut Line<'_>) -> Parsed<Doing> {
    let mut list = line.clone();
    if let Ok(node) = list.node()
        && list.takes("told")
        && list.takes("of")
    {
        *line = list;
        let hierarchy = line.hierarchy()?;
        line.mark(':')?;
        return Ok(Doing::Told { node, hierarchy, lines: Vec::new() });
    }
    if line.takes("never") {
        let state = State::Not(Box::new(state(line)?));
        line.words(&["for"])?;
        return Ok(Doing::Expect(When::For(line.span()?), state));
    }
    let state = state(line)?;
    let when = if line.takes("for") { When::For(line.span()?) } else { When::Now };
    Ok(Doing::Expect(when, state))
}

fn state(line: &mut Line<'_>) -> Parsed<State> {
    if line.peek() == Some("not") && !line.is_hierarchy() && !line.is_node() {
        line.words(&["not"])?;
        return Ok(State::Not(Box::new(state(line)?)));
    }
    let mut whole = line.clone();
    if whole.takes("all") && whole.takes("in") && whole.takes("service") {
        *line = whole;
        return Ok(State::AllInService);
    }
    if line.takes("somebody") {
        line.words(&["told"])?;
        return Ok(State::Told(None, line.text()?));
    }
    if line.peek().is_some_and(|word| word.contains('/')) {
        let (hierarchy, resource) = line.resource()?;
        line.words(&["runs", "on"])?;
        return Ok(State::Runs(hierarchy, resource, line.node()?));
    }
    match (line.is_hierarchy(), line.is_node()) {
        (true, false) => of_hierarchy(line),
        (false, true) => of_node(line),
        (true, true) => {
            let mut other = line.clone();
            of_hierarchy(line).or_else(|bad| {
                let state = of_node(&mut other).map_err(|_| bad)?;
                *line = other;
                Ok(state)
            })
        }
        (false, false) => {
            let hierarchies = line.names().hierarchies.iter().map(|(name, _)| name.as_str());
            let nodes = line.names().nodes.iter().map(crate::name::NodeName::as_str);
            Err(line.no_such("node or hierarchy", hierarchies.chain(nodes).collect()))
        }
    }
}

fn of_hierarchy(line: &mut Line<'_>) -> Parsed<State> {
    let name = line.hierarchy()?;
    let words = &[
        "in",
        "out",
        "on",
        "waiting",
        "claiming",
        "starting",
        "restarting",
        "stopping",
        "stop",
        "quarantined",
        "pinned",
        "declined",
        "not",
    ];
    let phase = |line: &mut Line<'_>, name: HierarchyName, phase: AnnouncedPhase| {
        line.words(&["on"])?;
        Ok(State::Phase(name, phase, line.node()?))
    };
    Ok(match line.word(words)? {
        "in" => match line.word(&["service", "maintenance"])? {
            "service" => {
                let node = if line.takes("on") { Some(line.node()?) } else { None };
                State::InService(name, node)
            }
            _ => State::Maintenance(name),
        },
        "out" => {
            line.words(&["of", "service"])?;
            State::OutOfService(name)
        }
        "on" => {
            line.words(&["nobody"])?;
            State::OnNobody(name)
        }
        "waiting" => phase(line, name, AnnouncedPhase::Waiting)?,
        "claiming" => phase(line, name, AnnouncedPhase::Claiming)?,
        "starting" => phase(line, name, AnnouncedPhase::Starting)?,
        "restarting" => phase(line, name, AnnouncedPhase::Restarting)?,
        "stopping" => phase(line, name, AnnouncedPhase::Stopping)?,
        "stop" => {
            line.words(&["failed"])?;
            phase(line, name, AnnouncedPhase::StopFailed)?
        }
        "quarantined" => State::Quarantined(name),
        "pinned" => {
            line.words(&["to"])?;
            State::Pinned(name, line.node()?)
        }
        "declined" => {
            line.words(&["on"])?;
            State::Declined(name, line.node()?)
        }
        _ => {
            line.words(&["ready", "on"])?;
            State::NotReady(name, line.node()?)
        }
    })
}

fn of_node(line: &mut Line<'_>) -> Parsed<State> {
    let node = line.node()?;
    Ok(match line.word(&["on", "off", "has", "in", "resets", "told"])? {
        "on" => State::On(node),
        "off" => State::Off(node),
        "has" => {
            line.words(&["agent"])?;
            State::Agent(node)
        }
        "in" => {
            line.words(&["standby"])?;
            State::Standby(node)
        }
        "resets" => State::Resets(node),
        _ => State::Told(Some(node), line.text()?),
    })
}
