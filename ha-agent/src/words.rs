//! Small words: times, colours, lines that fit, and text of others made harmless.

use std::fmt;

use anstyle::{AnsiColor, Style};

/// Something is wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something is not as it should be.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// A heading.
pub(crate) const HEAD: Style = Style::new().bold();
/// Of lesser interest.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Text in a style.
pub(crate) fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A length of time in milliseconds, with one or two units: "23 ms", "4.1 s", "12 min", "3 h 20 min", "9 d 4 h".
pub(crate) fn ago(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..=9 => format!("{s}.{} s", ms % 1000 / 100),
        10..=119 => format!("{s} s"),
        120..=7_199 => format!("{} min", s / 60),
        7_200..=172_799 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How many columns and lines the terminal has; `None` where the output goes to no terminal, and is not to be broken.
pub(crate) fn terminal() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some((usize::from(width.0), usize::from(height.0)))
}

/// Breaks text between words into lines of `width` characters, 20 at least. A word that is longer stays whole.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(20);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Text after `before`, in lines that fit into `width` columns if that is known, each of the later ones below where the first began.
pub(crate) fn hanging(before: usize, text: &str, style: Style, width: Option<usize>) -> String {
    let text = clean(text);
    let Some(width) = width.filter(|width| before + text.chars().count() > *width) else { return styled(style, text) };
    let lines = wrapped(&text, width.saturating_sub(before));
    let lines: Vec<String> = lines.into_iter().map(|line| styled(style, line)).collect();
    lines.join(&format!("\n{}", " ".repeat(before)))
}

/// Text that came from elsewhere, without characters that could move the cursor or hide something.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// "alpha", "alpha and beta", "alpha, beta and gamma".
pub(crate) fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_people_think_in() {
        let shown: Vec<String> =
            [0, 999, 4_120, 59_000, 119_999, 720_000, 12_000_000, 800_000_000].map(ago).into_iter().collect();
        assert_eq!(shown, ["0 ms", "999 ms", "4.1 s", "59 s", "119 s", "12 min", "3 h 20 min", "9 d 6 h"]);
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(clean("ok\u{1b}[2J\nno"), "ok [2J no");
    }

    #[test]
    fn lines_that_are_too_long_go_on_below_where_they_began() {
        let text = "alpha ready, beta not ready, gamma standby";
        assert_eq!(hanging(4, text, Style::new(), None), text);
        assert_eq!(hanging(4, text, Style::new(), Some(46)), text);
        assert_eq!(hanging(4, text, Style::new(), Some(30)), "alpha ready, beta not\n    ready, gamma standby");
        let word = "x".repeat(50);
        assert_eq!(hanging(4, &word, Style::new(), Some(30)), word, "what cannot be broken is left to the terminal");
    }
}
