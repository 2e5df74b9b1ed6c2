//! A text that stands for a file, and where its lines are.
//!
//! Decides how places are counted: lines and columns from 1, columns in characters. Leaves what the text means to [`super::fields`].

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::diagnostics::{Diagnostics, Severity};

/// A file that was read, or a text that stands for one. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// Where each line begins.
    lines: Arc<[usize]>,
}

impl Source {
    /// A text with a name to report it by.
    pub fn new(name: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { name: Arc::from(name.as_ref()), text: Arc::from(text), lines }
    }

    /// Reads a file. It is reported by its path.
    ///
    /// # Errors
    /// One problem of the whole file when it cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let failed = |what: String, help: &str| {
            let mut diagnostics = Diagnostics::new();
            diagnostics.add(&name, Severity::Error, what, Some(help.to_owned()));
            diagnostics
        };
        let bytes = std::fs::read(path)
            .map_err(|error| failed(format!("the file cannot be read: {error}"), "check its path and permissions"))?;
        String::from_utf8(bytes).map(|text| Source::new(&name, text)).map_err(|error| {
            let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
            let line = bytes[..at].split(|b| *b == b'\n').count();
            let what = format!("the file is not UTF-8 text: the first wrong byte is {:#04x} in line {line}", bytes[at]);
            failed(what, "save it as UTF-8")
        })
    }

    /// What it is reported by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; nothing if the span is not one of this text.
    pub(super) fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// Line and column of a byte.
    pub(super) fn place(&self, byte: usize) -> (usize, usize) {
        let byte = self.floor(byte);
        let line = self.lines.partition_point(|begin| *begin <= byte).max(1);
        (line, self.slice(&(self.lines[line - 1]..byte)).chars().count() + 1)
    }

    /// The byte at a line and column; the nearest one there is, if there is no such place.
    pub(super) fn byte_at(&self, line: usize, column: usize) -> usize {
        let line = line.clamp(1, self.lines.len());
        let whole = self.lines[line - 1]..self.line_end(line);
        let nth = self.slice(&whole).char_indices().nth(column.saturating_sub(1));
        nth.map_or(whole.end, |(at, _)| whole.start + at)
    }

    /// Where a line, counted from 1, begins.
    pub(super) fn line_begin(&self, line: usize) -> usize {
        self.lines.get(line - 1).copied().unwrap_or(self.text.len())
    }

    /// Where a line, counted from 1, ends, without its line feed.
    pub(super) fn line_end(&self, line: usize) -> usize {
        self.lines.get(line).map_or(self.text.len(), |next| next - 1)
    }

    /// The span brought within the text, onto borders of characters, and within the line that it begins in.
    pub(super) fn clip(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.floor(span.start);
        let end = self.floor(span.end).min(self.line_end(self.place(start).0));
        start..end.max(start)
    }

    fn floor(&self, byte: usize) -> usize {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }
}
