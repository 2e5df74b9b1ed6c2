//! Everything found wrong in what was read, and how it is shown.
//!
//! Decides the order of problems and their look. Leaves finding them to whoever reads.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::source::Source;

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
    /// Another place that has to do with it, such as where a name was used first.
    pub related: Option<Related>,
    #[serde(skip)]
    spot: Option<Spot>,
}

/// A place that has to do with a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is there.
    pub label: String,
    #[serde(skip)]
    spot: Spot,
}

/// Part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) source: Source,
    pub(super) span: Range<usize>,
}

impl Spot {
    /// A snippet that shows the lines of this spot and, if given, of another one of the same text.
    fn snippet<'a>(
        &'a self,
        kind: AnnotationKind,
        label: Option<&'a str>,
        also: Option<&'a Related>,
    ) -> Snippet<'a, Annotation<'a>> {
        let source = &self.source;
        let other = also.map_or_else(|| self.span.clone(), |also| also.spot.span.clone());
        let first = source.place(self.span.start.min(other.start)).0;
        let last = source.place(self.span.start.max(other.start)).0;
        let begin = source.line_begin(first);
        let within = |span: &Range<usize>| {
            let span = source.clip(span);
            span.start - begin..span.end - begin
        };
        let lines = source.slice(&(begin..source.line_end(last)));
        let snippet = Snippet::source(lines)
            .line_start(first)
            .path(source.name())
            .annotation(kind.span(within(&self.span)).label(label));
        match also {
            Some(also) => snippet.annotation(AnnotationKind::Context.span(within(&other)).label(also.label.as_str())),
            None => snippet,
        }
    }
}

impl Problem {
    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        // A problem of a whole file has nothing to show but the file's name.
        let title = match &self.spot {
            Some(_) => self.message.clone(),
            None => format!("{}: {}", self.file, self.message),
        };
        let mut group = level.primary_title(title).elements(Vec::<Snippet<'_, Annotation<'_>>>::new());
        if let Some(spot) = &self.spot {
            let (here, elsewhere) = match &self.related {
                Some(related) if related.spot.source == spot.source => (Some(related), None),
                other => (None, other.as_ref()),
            };
            group = group.element(spot.snippet(AnnotationKind::Primary, None, here));
            if let Some(related) = elsewhere {
                group =
                    group.element(related.spot.snippet(AnnotationKind::Context, Some(related.label.as_str()), None));
            }
        }
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
        let (file, message) = (file.to_owned(), message.into());
        self.take(vec![Problem { file, line: 0, column: 0, severity, message, help, related: None, spot: None }]);
    }

    /// Takes over what was found elsewhere.
    pub fn extend(&mut self, other: Diagnostics) {
        self.take(other.problems);
    }

    fn take(&mut self, problems: Vec<Problem>) {
        if problems.is_empty() {
            return;
        }
        self.problems.extend(problems);
        self.problems
            .sort_by(|a, b| (&a.file, a.line, a.column, a.severity).cmp(&(&b.file, b.line, b.column, b.severity)));
    }

    /// Every problem.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether anything is wrong enough for the text not to be accepted.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// For a terminal, with colours. [`Display`](fmt::Display) is the same without.
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
pub(crate) struct Problems<'a> {
    source: &'a Source,
    found: RefCell<Vec<Problem>>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Problems { source, found: RefCell::default() }
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// Whether anything in a span is wrong so far.
    pub(super) fn any_error_in(&self, span: &Range<usize>) -> bool {
        let is_in = |p: &Problem| p.spot.as_ref().is_some_and(|spot| span.contains(&spot.span.start));
        self.found.borrow().iter().any(|p| p.severity == Severity::Error && is_in(p))
    }

    pub(super) fn spot(&self, span: &Range<usize>) -> Spot {
        Spot { source: self.source.clone(), span: span.clone() }
    }

    pub(crate) fn add(&self, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.put(Severity::Error, span, message.into(), help, None);
    }

    pub(super) fn warn(&self, span: &Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.put(Severity::Warning, span, message.into(), help, None);
    }

    /// An error that has to do with another place, too, which may be in another file.
    pub(super) fn add_related(&self, span: &Range<usize>, message: impl Into<String>, other: Spot, label: &str) {
        let (line, column) = other.source.place(other.span.start);
        let (file, label) = (other.source.name().to_owned(), label.to_owned());
        let related = Related { file, line, column, label, spot: other };
        self.put(Severity::Error, span, message.into(), None, Some(related));
    }

    fn put(
        &self,
        severity: Severity,
        span: &Range<usize>,
        message: String,
        help: Option<String>,
        related: Option<Related>,
    ) {
        let (line, column) = self.source.place(span.start);
        let (file, spot) = (self.source.name().to_owned(), Some(self.spot(span)));
        self.found.borrow_mut().push(Problem { file, line, column, severity, message, help, related, spot });
    }

    pub(crate) fn into_diagnostics(self) -> Diagnostics {
        let mut diagnostics = Diagnostics::new();
        diagnostics.take(self.found.into_inner());
        diagnostics
    }
}
