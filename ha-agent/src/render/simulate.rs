//! How a simulation looks: where each hierarchy ends, how long it was out and why, and what breaks.

use std::fmt::Write as _;

use anstyle::Style;

use super::status::problems;
use super::table::{Cell, table};
use crate::simulate::{FailedRun, Outcome, Random, Report, Served, is_well};
use crate::words::{BAD, DIM, GOOD, HEAD, WARN, ago, hanging, styled};

/// So many hierarchies are shown for one thing that happens; the others are counted.
const ROWS: usize = 12;
/// Where the text of a timeline begins, without the name of the node.
const TIME: usize = 12;

/// The whole report.
pub(crate) fn report(report: &Report, width: Option<usize>) -> String {
    let mut out = format!(
        "{} {}, simulated: {}\n",
        styled(HEAD, "cluster"),
        styled(HEAD, &report.cluster),
        report.nodes.join(", ")
    );
    match report.happenings.as_slice() {
        [one] => out.push_str(&single(one, width)),
        many => out.push_str(&all_losses(many, width)),
    }
    if !report.findings.is_empty() {
        let _ = write!(out, "\n{}", problems(&report.findings, width));
    }
    let _ = writeln!(out, "\n{}", verdict(&report.happenings));
    out
}

fn single(outcome: &Outcome, width: Option<usize>) -> String {
    let mut out = format!("\n{}\n\n", hanging(0, &outcome.what, HEAD, width));
    let (shown, more) = shown(outcome);
    if shown.is_empty() {
        out.push_str("  nothing is out of service, and nothing moves\n");
        return out;
    }
    let rows: Vec<Vec<Cell>> = shown.iter().map(|served| row(served)).collect();
    out.push_str(&table(&HEADINGS, &rows, width));
    out.push_str(&more.map(|more| format!("  {more}\n")).unwrap_or_default());
    let calm: Vec<&str> = outcome.hierarchies.iter().filter(|s| !affected(s)).map(|s| s.name.as_str()).collect();
    if !calm.is_empty() {
        let _ = writeln!(out, "\n  not affected: {}", hanging(16, &calm.join(", "), Style::new(), width));
    }
    out
}

fn all_losses(outcomes: &[Outcome], width: Option<usize>) -> String {
    let headings: Vec<&str> = std::iter::once("LOST").chain(HEADINGS).collect();
    let mut rows = Vec::new();
    for outcome in outcomes {
        let mut lost = Cell::plain(outcome.lost.join(", "));
        let (shown, more) = shown(outcome);
        if shown.is_empty() {
            rows.push(vec![lost, Cell::in_style(DIM, "nothing affected")]);
            continue;
        }
        for served in shown {
            let mut cells = vec![std::mem::replace(&mut lost, Cell::plain(""))];
            cells.extend(row(served));
            rows.push(cells);
        }
        rows.extend(more.map(|more| vec![Cell::plain(""), Cell::in_style(DIM, more)]));
    }
    format!("\n{}", table(&headings, &rows, width))
}

const HEADINGS: [&str; 8] = ["HIERARCHY", "FROM", "TO", "OUT FOR", "DETECT", "CLAIM", "START", "AT MOST"];

fn row(served: &Served) -> Vec<Cell> {
    let to = match (&served.to, served.could) {
        (Some(to), _) => Cell::plain(to),
        (None, true) => Cell::in_style(BAD, "nowhere"),
        (None, false) => Cell::in_style(BAD, "no node left"),
    };
    let out = match (&served.to, served.out_ms) {
        (None, _) => Cell::in_style(BAD, "stays out"),
        (Some(_), 0) => Cell::in_style(GOOD, "0 ms"),
        (Some(_), ms) => Cell::in_style(WARN, ago(ms)),
    };
    let part = |ms: Option<u64>| Cell::plain(ms.map(ago).unwrap_or_default());
    let at_most = served.spent.map_or_else(String::new, |_| ago(served.at_most_ms));
    vec![
        Cell::plain(&served.name),
        Cell::plain(served.from.as_deref().unwrap_or("nowhere")),
        to,
        out,
        part(served.spent.map(|s| s.detect_ms)),
        part(served.spent.map(|s| s.claim_ms)),
        part(served.spent.map(|s| s.start_ms)),
        Cell::in_style(DIM, at_most),
    ]
}

fn affected(served: &Served) -> bool {
    served.out_ms > 0 || served.to.is_none() || served.from != served.to
}

/// Those that are shown, and a word on the others.
fn shown(outcome: &Outcome) -> (Vec<&Served>, Option<String>) {
    let mut affected: Vec<&Served> = outcome.hierarchies.iter().filter(|s| affected(s)).collect();
    if affected.len() <= ROWS {
        return (affected, None);
    }
    affected.sort_by_key(|s| (s.to.is_some(), std::cmp::Reverse(s.out_ms)));
    let rest = affected.split_off(ROWS);
    let longest = rest.iter().map(|s| s.out_ms).max().unwrap_or_default();
    (affected, Some(format!("and {} more, none of them out for longer than {}", rest.len(), ago(longest))))
}

fn verdict(outcomes: &[Outcome]) -> String {
    if is_well(outcomes) {
        return styled(
            GOOD,
            match outcomes {
                [_] => "everything is in service in the end",
                _ => "everything that a node is left for is in service in the end, whichever nodes are lost",
            },
        );
    }
    styled(BAD, "not all is well in the end: the errors above say what")
}

/// What came of random trouble.
pub(crate) fn random(random: &Random) -> String {
    let Random { runs, seed, simulated_hours, takeovers, resets, failed } = random;
    let mut text = format!(
        "{runs} random runs from seed {seed} on: {simulated_hours:.1} hours of the cluster's life, {takeovers} takeovers, {resets} machines reset.\n"
    );
    match failed {
        None => text.push_str(
            "Nothing unsafe happened, and after every repair everything was in service again and stayed where it was.\n",
        ),
        Some(failed) => {
            let FailedRun { seed, what, story } = failed;
            let _ = write!(text, "\nIn run {seed}: {what}\n\n{story}\nTo see it again: ha simulate --random 1 --seed {seed}\n");
        }
    }
    text
}

/// What was told, from the moment at which something happened.
pub(crate) fn timeline(outcome: &Outcome, width: Option<usize>) -> String {
    let names = outcome.timeline.iter().filter_map(|line| line.node.as_ref()).map(|node| node.chars().count());
    let wide = names.max().unwrap_or_default();
    let mut out = format!("{}\n", hanging(0, &outcome.what, HEAD, width));
    for line in &outcome.timeline {
        let at = format!("+{}.{:03} s", line.after_ms / 1000, line.after_ms % 1000);
        let (node, style) =
            (line.node.as_deref().unwrap_or_default(), if line.node.is_some() { Style::new() } else { WARN });
        let text = hanging(TIME + wide + 4, &line.text, style, width);
        let _ = writeln!(out, "{at:>TIME$}  {node:<wide$}  {text}");
    }
    out
}
