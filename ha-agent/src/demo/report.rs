//! What the demonstration shows: a paragraph for each step, and the table at the end.

use std::fmt::Write as _;
use std::time::Duration;

use ha_core::record::Timeline;

use crate::words::{BAD, DIM, GOOD, HEAD, styled};

/// A step that was played.
#[derive(Clone, Debug)]
pub(super) struct Played {
    pub(super) title: &'static str,
    /// Which hierarchy the figures are of, and what happened to it.
    pub(super) what: String,
    pub(super) t_detect: Option<Duration>,
    pub(super) t_recover: Option<Duration>,
    /// The longest time that a client got no answer.
    pub(super) outage: Option<Duration>,
    /// What was not as it must be.
    pub(super) wrong: Vec<String>,
}

pub(super) fn head(number: usize, title: &str, told: &str) -> String {
    let mut text = format!("\n{}\n", styled(HEAD, format!("{number}. {title}")));
    for line in fold(told, 92) {
        let _ = writeln!(text, "   {line}");
    }
    text
}

/// Words in lines of at most `width` characters.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

pub(super) fn timeline(timeline: &Timeline) -> String {
    let mut text = String::new();
    for (i, line) in timeline.to_string().lines().enumerate() {
        let line = if i == 0 { line.to_owned() } else { styled(DIM, line) };
        let _ = writeln!(text, "     {line}");
    }
    text
}

pub(super) fn client(hierarchy: &str, gap: Duration, lost: u64) -> String {
    format!("     client of {hierarchy}: longest time without an answer {}, questions lost {lost}\n", ms(gap))
}

pub(super) fn verdict(wrong: &[String]) -> String {
    if wrong.is_empty() {
        return format!("   {}\n", styled(GOOD, "as it must be"));
    }
    let mut text = String::new();
    for what in wrong {
        let _ = writeln!(text, "   {} {what}", styled(BAD, "WRONG:"));
    }
    text
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

pub(super) fn table(steps: &[Played]) -> String {
    let cell = |d: Option<Duration>| d.map_or_else(|| "-".to_owned(), ms);
    let mut text = format!(
        "\n{}\n",
        styled(
            HEAD,
            format!(
                "{:<30} {:<38} {:>9} {:>10} {:>10}  verdict",
                "step", "what happened", "T_detect", "T_recover", "outage"
            )
        )
    );
    for step in steps {
        let verdict =
            if step.wrong.is_empty() { styled(GOOD, "good".to_owned()) } else { styled(BAD, "WRONG".to_owned()) };
        let _ = writeln!(
            text,
            "{:<30} {:<38} {:>9} {:>10} {:>10}  {verdict}",
            step.title,
            step.what,
            cell(step.t_detect),
            cell(step.t_recover),
            cell(step.outage),
        );
    }
    text
}
