//! A text and everything found wrong in it.
//!
//! Decides how a problem is placed and shown. Leaves finding problems to whoever reads the text.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::outline::{Node, outline};

/// A file that was read, or a text that stands for one.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A text with a name to report it by.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Source { name: name.into(), text: text.into() }
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let failed = |what: String| Diagnostics { problems: vec![Problem::of_file(&name, what)] };
        let bytes = std::fs::read(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source { name, text }),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                Err(failed(format!("is not UTF-8 text: the first wrong byte is number {}", at + 1)))
            }
        }
    }

    /// What it is reported by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte, both counted from 1, the column in characters.
    fn place(&self, byte: usize) -> (usize, usize) {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &self.text[..byte];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        (line, column)
    }

    /// Checks the syntax, and finds where everything stands.
    pub(super) fn outline(&self, problems: &Problems<'_>) -> Option<Node> {
        if let Err(error) = super::fields::options().from_str::<serde::de::IgnoredAny>(&self.text) {
            let begin = byte_at(&self.text, error.span.start.line, error.span.start.col);
            let end = byte_at(&self.text, error.span.end.line, error.span.end.col).max(begin);
            problems.add(begin..end, &format!("this is not valid RON: {}", error.code), None);
            return None;
        }
        match outline(&self.text) {
            Ok(node) => Some(node),
            Err((span, what)) => {
                problems.add(span, what, None);
                None
            }
        }
    }
}

/// The byte at a line and column as `ron` counts them: both from 1, the column in characters.
pub(super) fn byte_at(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = text.get(start..).unwrap_or("");
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(i, _)| i)
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The text is not accepted.
    Error,
    /// It is, but something will probably not do what is wanted.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// From 1; 0 when it is about the whole file.
    pub line: usize,
    /// From 1, in characters; 0 when it is about the whole file.
    pub column: usize,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What would help.
    pub help: Option<String>,
    #[serde(skip)]
    span: Range<usize>,
    #[serde(skip)]
    text: String,
}

impl Problem {
    fn of_file(file: &str, message: String) -> Self {
        Problem {
            file: file.to_owned(),
            line: 0,
            column: 0,
            severity: Severity::Error,
            message,
            help: None,
            span: 0..0,
            text: String::new(),
        }
    }

    fn render(&self, renderer: &Renderer) -> String {
        if self.line == 0 {
            return format!("error: {}: {}", self.file, self.message);
        }
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let snippet = Snippet::source(self.text.as_str())
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(self.span.clone()));
        let mut group = level.primary_title(self.message.as_str()).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Everything found wrong, in the order of files and places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    problems: Vec<Problem>,
}

impl Diagnostics {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A problem of a whole file, or of something that is no file.
    pub fn add(&mut self, file: &str, severity: Severity, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem { severity, help, ..Problem::of_file(file, message.into()) });
    }

    /// Takes over what was found elsewhere.
    pub fn extend(&mut self, other: Diagnostics) {
        self.problems.extend(other.problems);
        self.problems.sort_by(|a, b| (&a.file, a.span.start, a.severity).cmp(&(&b.file, b.span.start, b.severity)));
    }

    /// Every problem.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether anything is wrong enough for the text not to be accepted.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// For a terminal, with colours.
    pub fn in_colour(&self) -> String {
        self.rendered(&Renderer::styled())
    }

    fn rendered(&self, renderer: &Renderer) -> String {
        self.problems.iter().map(|p| p.render(renderer)).collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered(&Renderer::plain()))
    }
}

impl std::error::Error for Diagnostics {}

/// Where problems of one source are gathered while it is read.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    source: &'a Source,
    found: RefCell<Vec<Problem>>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Problems { source, found: RefCell::default() }
    }

    /// Another gathering of the same source, to be thrown away.
    pub(super) fn aside(&self) -> Problems<'a> {
        Problems::new(self.source)
    }

    pub(super) fn text(&self) -> &'a str {
        &self.source.text
    }

    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let (line, column) = self.source.place(span.start);
        format!("line {line}, column {column}")
    }

    pub(super) fn add(&self, span: Range<usize>, message: &str, help: Option<String>) {
        self.add_as(Severity::Error, span, message, help);
    }

    pub(super) fn add_as(&self, severity: Severity, span: Range<usize>, message: &str, help: Option<String>) {
        let (line, column) = self.source.place(span.start);
        self.found.borrow_mut().push(Problem {
            file: self.source.name.clone(),
            line,
            column,
            severity,
            message: message.to_owned(),
            help,
            span: within(&self.source.text, span),
            text: self.source.text.clone(),
        });
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        let mut diagnostics = Diagnostics::new();
        diagnostics.extend(Diagnostics { problems: self.found.into_inner() });
        diagnostics
    }
}

/// A span that lies within the text, on character boundaries.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}
