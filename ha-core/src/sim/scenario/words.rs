//! The words of a line, and taking them one after the other.
//!
//! Decides what a word is, which names are known, and how a wrong word is reported. Leaves the grammar to its neighbours.

use std::ops::Range;
use std::time::Duration;

use crate::hierarchy::suggest;
use crate::name::{HierarchyName, NodeName, ResourceName};
use crate::sim::setup::Setup;

/// What is wrong with a line, and where.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

pub(super) type Parsed<T> = Result<T, Bad>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Word(String),
    Text(String),
    Mark(char),
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    span: Range<usize>,
}

/// The names that a line may use.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) nodes: Vec<NodeName>,
    pub(super) hierarchies: Vec<(HierarchyName, Vec<ResourceName>)>,
    pub(super) channels: usize,
    /// What was to make names known was wrong: any name is accepted.
    pub(super) incomplete: bool,
}

impl Names {
    pub(super) fn of(setup: &Setup) -> Self {
        let hierarchies = setup.hierarchies.iter().map(|h| {
            let resources = h.hierarchy.resources.iter().map(|r| r.name.clone()).collect();
            (h.hierarchy.name.clone(), resources)
        });
        Names {
            nodes: setup.nodes.iter().map(|node| node.name.clone()).collect(),
            hierarchies: hierarchies.collect(),
            channels: setup.channels.len(),
            incomplete: false,
        }
    }
}

/// A line that is being read.
#[derive(Clone)]
pub(super) struct Line<'a> {
    tokens: Vec<Token>,
    next: usize,
    end: usize,
    names: &'a Names,
}

fn is_mark(c: char) -> bool {
    matches!(c, ',' | ':' | '(' | ')')
}

/// What `#` begins is a comment, unless it is within a word or a text.
fn tokens(text: &str, offset: usize) -> Parsed<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, kind) = match c {
            '#' => break,
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            c if is_mark(c) => (1, Kind::Mark(c)),
            '"' => {
                let mut escaped = false;
                let closing = rest[1..].find(|c| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                });
                let length = closing.map_or(rest.len(), |closing| closing + 2);
                let text = serde_json::from_str(&rest[..length]).map_err(|_| Bad {
                    span: offset + at..offset + at + length,
                    message: format!("{} is not a text: expected one between quotes", &rest[..length]),
                    help: Some("write \\\" for a quote within it, and \\\\ for a backslash".to_owned()),
                })?;
                (length, Kind::Text(text))
            }
            _ => {
                let length = rest.find(|c: char| c.is_whitespace() || is_mark(c) || c == '"').unwrap_or(rest.len());
                (length, Kind::Word(rest[..length].to_owned()))
            }
        };
        tokens.push(Token { kind, span: offset + at..offset + at + length });
        at += length;
    }
    Ok(tokens)
}

/// The words that were expected, for people.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

impl<'a> Line<'a> {
    /// A line that begins at a byte of its file.
    pub(super) fn new(text: &str, offset: usize, names: &'a Names) -> Parsed<Self> {
        Ok(Line { tokens: tokens(text, offset)?, next: 0, end: offset + text.trim_end().len(), names })
    }

    pub(super) fn is_over(&self) -> bool {
        self.next == self.tokens.len()
    }

    pub(super) fn names(&self) -> &'a Names {
        self.names
    }

    /// Where the next word is.
    pub(super) fn here(&self) -> Range<usize> {
        self.tokens.get(self.next).map_or(self.end..self.end, |token| token.span.clone())
    }

    fn shown(&self) -> String {
        match self.tokens.get(self.next).map(|token| &token.kind) {
            None => "the line ends here".to_owned(),
            Some(Kind::Word(word)) => format!("`{word}` is not expected here"),
            Some(Kind::Text(text)) => format!("{text:?} is not expected here"),
            Some(Kind::Mark(mark)) => format!("`{mark}` is not expected here"),
        }
    }

    /// The next word is not one that was expected.
    pub(super) fn expected(&self, what: &str, help: Option<String>) -> Bad {
        Bad { span: self.here(), message: format!("{}: expected {what}", self.shown()), help }
    }

    pub(super) fn peek(&self) -> Option<&str> {
        match self.tokens.get(self.next).map(|token| &token.kind) {
            Some(Kind::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// Takes the next word if it is this one.
    pub(super) fn takes(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.next += usize::from(is);
        is
    }

    pub(super) fn takes_mark(&mut self, mark: char) -> bool {
        let is = self.tokens.get(self.next).is_some_and(|token| token.kind == Kind::Mark(mark));
        self.next += usize::from(is);
        is
    }

    pub(super) fn mark(&mut self, mark: char) -> Parsed<()> {
        if self.takes_mark(mark) { Ok(()) } else { Err(self.expected(&format!("`{mark}`"), None)) }
    }

    /// One of several words.
    pub(super) fn word(&mut self, words: &[&'static str]) -> Parsed<&'static str> {
        if let Some(word) = words.iter().find(|word| self.peek() == Some(**word)) {
            self.next += 1;
            return Ok(*word);
        }
        let help = self.peek().and_then(|word| suggest(word, words.iter().copied()));
        Err(self.expected(&one_of(words), help))
    }

    /// These words, one after the other.
    pub(super) fn words(&mut self, words: &[&'static str]) -> Parsed<()> {
        words.iter().try_for_each(|word| self.word(&[*word]).map(drop))
    }

    /// A word that something makes of it what it means.
    pub(super) fn read<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Parsed<T> {
        let value = self.peek().and_then(&read).ok_or_else(|| self.expected(what, None))?;
        self.next += 1;
        Ok(value)
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Parsed<T> {
        self.read(what, |word| word.parse().ok())
    }

    pub(super) fn span(&mut self) -> Parsed<Duration> {
        self.read("a length of time, such as `100ms`, `2s` or `1min30s`", |word| humantime::parse_duration(word).ok())
    }

    pub(super) fn text(&mut self) -> Parsed<String> {
        let Some(Kind::Text(text)) = self.tokens.get(self.next).map(|token| token.kind.clone()) else {
            return Err(self.expected("a text between quotes", None));
        };
        self.next += 1;
        Ok(text)
    }

    pub(super) fn node(&mut self) -> Parsed<NodeName> {
        let known = &self.names.nodes;
        let name = self.peek().and_then(|word| NodeName::new(word).ok());
        if let Some(name) = name.filter(|name| known.contains(name) || self.names.incomplete) {
            self.next += 1;
            return Ok(name);
        }
        Err(self.no_such("node", known.iter().map(NodeName::as_str).collect()))
    }

    pub(super) fn is_node(&self) -> bool {
        self.clone().node().is_ok()
    }

    pub(super) fn hierarchy(&mut self) -> Parsed<HierarchyName> {
        let known = &self.names.hierarchies;
        let name = self.peek().and_then(|word| HierarchyName::new(word).ok());
        if let Some(name) = name.filter(|name| known.iter().any(|(n, _)| n == name) || self.names.incomplete) {
            self.next += 1;
            return Ok(name);
        }
        Err(self.no_such("hierarchy", known.iter().map(|(name, _)| name.as_str()).collect()))
    }

    pub(super) fn is_hierarchy(&self) -> bool {
        self.clone().hierarchy().is_ok()
    }

    /// A resource with its hierarchy: `web/server`.
    pub(super) fn resource(&mut self) -> Parsed<(HierarchyName, ResourceName)> {
        let known = self.names.hierarchies.iter();
        let known = known.flat_map(|(h, resources)| resources.iter().map(move |r| (h, r)));
        let given = self.peek().and_then(|word| word.split_once('/'));
        let given = given.and_then(|(h, r)| Some((HierarchyName::new(h).ok()?, ResourceName::new(r).ok()?)));
        let is_known = |(h, r): &(HierarchyName, ResourceName)| known.clone().any(|known| known == (h, r));
        if let Some(given) = given.filter(|given| self.names.incomplete || is_known(given)) {
            self.next += 1;
            return Ok(given);
        }
        let known: Vec<String> = known.map(|(h, r)| format!("{h}/{r}")).collect();
        Err(self.no_such("resource", known.iter().map(String::as_str).collect()))
    }

    pub(super) fn no_such(&self, what: &str, known: Vec<&str>) -> Bad {
        let expected = if known.is_empty() { format!("a {what}, and none is known here") } else { one_of(&known) };
        match self.peek() {
            Some(word) => Bad {
                span: self.here(),
                message: format!("there is no {what} `{word}`: expected {expected}"),
                help: suggest(word, known),
            },
            None => self.expected(&expected, None),
        }
    }

    /// Nothing more may follow.
    pub(super) fn over(&self) -> Parsed<()> {
        if self.is_over() { Ok(()) } else { Err(self.expected("the end of the line", None)) }
    }
}
