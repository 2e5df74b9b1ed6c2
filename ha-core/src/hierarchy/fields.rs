//! Reading values out of a text, each by itself, so that everything wrong is found at once.
//!
//! Decides how fields are asked for, and what is said of those that are missing, wrong, unknown or given twice. Leaves what the
//! fields mean to whoever asks.

use std::ops::Range;

use ron::extensions::Extensions;
use serde::de::DeserializeOwned;

use super::outline::{Field, Node, Shape};
use super::source::{Diagnostics, Problems, Severity, Source};

/// How RON is read everywhere: without `Some(…)`, and without wrappers around newtypes.
pub(super) fn options() -> ron::Options {
    let extensions = Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES | Extensions::UNWRAP_VARIANT_NEWTYPES;
    ron::Options::default().with_default_extension(extensions)
}

/// Reads a whole text that holds one value. `None` only together with an error among the diagnostics.
///
/// ```
/// use ha_core::hierarchy::{Source, read_value};
/// use ha_core::time::Span;
///
/// let source = Source::new("limits.ron", "(most: 5, within: \"1min\", wihtin: \"2s\")");
/// let (read, diagnostics) = read_value(&source, |value| {
///     let mut fields = value.fields("limits")?;
///     let most: Option<u32> = fields.required("most", "a whole number");
///     let within: Option<Span> = fields.required("within", "a length of time");
///     fields.finish();
///     Some((most?, within?))
/// });
/// assert_eq!(read.unwrap().0, 5);
/// assert!(diagnostics.to_string().contains("did you mean `within`?"));
/// ```
pub fn read_value<T>(source: &Source, read: impl FnOnce(Value<'_>) -> Option<T>) -> (Option<T>, Diagnostics) {
    let problems = Problems::new(source);
    let value = source.outline(&problems).and_then(|node| read(Value { problems: &problems, node: &node }));
    (value, problems.into_diagnostics())
}

/// A value at its place in the text.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    problems: &'a Problems<'a>,
    node: &'a Node,
}

impl<'a> Value<'a> {
    /// The text of the value.
    pub fn text(&self) -> &'a str {
        self.problems.text().get(self.node.span.clone()).unwrap_or("")
    }

    /// Reports something wrong with the value.
    pub fn problem(&self, message: &str, help: Option<String>) {
        self.problems.add(self.node.span.clone(), message, help);
    }

    /// Reports something about the value that will probably not do what is wanted.
    pub fn warning(&self, message: &str, help: Option<String>) {
        self.problems.add_as(Severity::Warning, self.node.span.clone(), message, help);
    }

    /// Where it stands, in words.
    pub fn place(&self) -> String {
        self.problems.place(&self.node.span)
    }

    /// Reads it as a `T`; reports what is wrong, with what was `expected`.
    pub fn read<T: DeserializeOwned>(&self, expected: &str) -> Option<T> {
        let text = self.text();
        match options().from_str::<T>(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let at = super::source::byte_at(text, error.span.start.line, error.span.start.col);
                let begin = self.node.span.start + at;
                let inner = begin > self.node.span.start && begin < self.node.span.end;
                let span = if inner && !matches!(self.node.shape, Shape::Scalar) {
                    begin
                        ..(self.node.span.start
                            + super::source::byte_at(text, error.span.end.line, error.span.end.col).max(at + 1))
                } else {
                    self.node.span.clone()
                };
                self.problems.add(span, &sentence(&error.code, text, expected), None);
                None
            }
        }
    }

    /// The elements of a list.
    pub fn list(&self, expected: &str) -> Option<Vec<Value<'a>>> {
        match &self.node.shape {
            Shape::List(items) => Some(items.iter().map(|node| Value { problems: self.problems, node }).collect()),
            _ => {
                self.problem(&format!("this is not a list: expected {expected}"), None);
                None
            }
        }
    }

    /// The entries of a map. A key that is there twice is an error.
    pub fn entries(&self, expected: &str) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        let Shape::Map(entries) = &self.node.shape else {
            self.problem(&format!("this is not a map: expected {expected}"), None);
            return None;
        };
        let entries: Vec<_> = entries
            .iter()
            .map(|(k, v)| (Value { problems: self.problems, node: k }, Value { problems: self.problems, node: v }))
            .collect();
        for (i, (key, _)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..i].iter().find(|(k, _)| k.text() == key.text()) {
                key.problem(&format!("{} is here twice: first at {}", key.text(), first.place()), None);
            }
        }
        Some(entries)
    }

    /// The fields of `(…)` or `Name(…)`; `what` names the thing in messages.
    pub fn fields(&self, what: &str) -> Option<Fields<'a>> {
        match &self.node.shape {
            Shape::Struct { fields, .. } => Some(Fields::new(self.problems, self.node, fields, what)),
            _ => {
                self.problem(&format!("this is not a {what}: expected fields in round brackets"), None);
                None
            }
        }
    }

    /// `Name(…)`, or `Name` alone: the name and the fields behind it.
    pub fn variant(&self, expected: &str) -> Option<(&'a str, Fields<'a>)> {
        let wrong = || {
            self.problem(&format!("a name is missing here: expected {expected}"), None);
            None
        };
        match &self.node.shape {
            Shape::Struct { name, fields } if !name.is_empty() => {
                let name = self.problems.text().get(name.clone()).unwrap_or("");
                Some((name, Fields::new(self.problems, self.node, fields, name)))
            }
            Shape::Scalar if self.text().starts_with(|c: char| c.is_ascii_alphabetic()) => {
                Some((self.text(), Fields::new(self.problems, self.node, &[], self.text())))
            }
            _ => wrong(),
        }
    }

    /// Reports something wrong with a field of it, or with the whole if the field is not there.
    pub(super) fn problem_at(&self, key: &str, message: &str, help: Option<String>) {
        if let Shape::Struct { fields, .. } = &self.node.shape {
            Fields::new(&self.problems.aside(), self.node, fields, "").place_of(key, |span| {
                self.problems.add(span, message, help.clone());
            });
        } else {
            self.problem(message, help);
        }
    }

    /// Reads fields of it without reporting anything.
    pub(super) fn quietly<T>(&self, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        let Shape::Struct { fields, .. } = &self.node.shape else { return None };
        Some(read(&mut Fields::new(&self.problems.aside(), self.node, fields, "")))
    }

    /// Says that a name is none of those known, with the likeliest one.
    pub fn unknown_name(&self, what: &str, name: &str, known: &[&str]) {
        let span = match &self.node.shape {
            Shape::Struct { name, .. } if !name.is_empty() => name.clone(),
            _ => self.node.span.clone(),
        };
        self.problems.add(
            span,
            &format!("there is no {what} `{name}`: expected one of {}", known.join(", ")),
            suggest(name, known),
        );
    }

    /// A stable digest of the value, whatever its layout and comments, and the order of its fields; of a struct, without the fields named.
    pub(super) fn digest(&self, without: &[&str]) -> u64 {
        let mut hash = Fnv::default();
        hash_node(self.problems.text(), self.node, without, &mut hash);
        hash.0
    }
}

/// The fields of one thing. Ask for every field that it may have, whether earlier ones were right or not; then
/// [`Fields::finish`]: what nobody asked for is unknown.
#[derive(Debug)]
pub struct Fields<'a> {
    problems: &'a Problems<'a>,
    span: Range<usize>,
    fields: &'a [Field],
    used: Vec<bool>,
    known: Vec<&'static str>,
    what: String,
}

impl<'a> Fields<'a> {
    fn new(problems: &'a Problems<'a>, node: &Node, fields: &'a [Field], what: &str) -> Self {
        let read = Fields {
            problems,
            span: node.span.clone(),
            fields,
            used: vec![false; fields.len()],
            known: Vec::new(),
            what: what.to_owned(),
        };
        for (i, field) in fields.iter().enumerate() {
            let name = read.name(field);
            if let Some(first) = fields[..i].iter().find(|f| !name.is_empty() && read.name(f) == name) {
                let message = format!("field `{name}` is here twice: first at {}", problems.place(&first.name));
                problems.add(field.name.clone(), &message, None);
            }
        }
        read
    }

    fn name(&self, field: &Field) -> &'a str {
        self.problems.text().get(field.name.clone()).unwrap_or("")
    }

    /// The value of a field as it stands, if it is there.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let i = self.fields.iter().position(|f| self.name(f) == key)?;
        for (j, field) in self.fields.iter().enumerate() {
            self.used[j] |= self.name(field) == key;
        }
        Some(Value { problems: self.problems, node: &self.fields[i].value })
    }

    /// The value of a field that must be there.
    pub fn required_value(&mut self, key: &'static str, expected: &str) -> Option<Value<'a>> {
        let value = self.value(key);
        if value.is_none() {
            let message = format!("{} has no field `{key}`: expected {expected}", self.what);
            self.problems.add(self.head(), &message, None);
        }
        value
    }

    /// Reads a field that must be there.
    pub fn required<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        self.required_value(key, expected)?.read(expected)
    }

    /// Reads a field that may be there; `None` if it is not, or is wrong (which is reported).
    pub fn optional<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        self.value(key)?.read(expected)
    }

    /// Reads a field that may be there; `default` if it is not, or is wrong (which is reported).
    pub fn or<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str, default: T) -> T {
        self.optional(key, expected).unwrap_or(default)
    }

    /// The fields of a field that may be there.
    pub fn fields(&mut self, key: &'static str) -> Option<Fields<'a>> {
        self.value(key)?.fields(key)
    }

    /// The only value of `Name(value)`, without a field name.
    pub fn only(&mut self) -> Option<Value<'a>> {
        match self.fields {
            [field] if field.name.is_empty() => {
                self.used[0] = true;
                Some(Value { problems: self.problems, node: &field.value })
            }
            _ => None,
        }
    }

    /// Reads the only value of `Name(value)`, or the field `key` of `Name(key: value, …)`.
    pub fn only_or<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        match self.only() {
            Some(value) => {
                self.known.push(key);
                value.read(expected)
            }
            None => self.required(key, expected),
        }
    }

    /// Whether there are no fields at all.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Reports something wrong with a field, or with the whole thing if the field is not there.
    pub fn problem(&self, key: &str, message: &str, help: Option<String>) {
        self.place_of(key, |span| self.problems.add(span, message, help));
    }

    fn place_of(&self, key: &str, tell: impl FnOnce(Range<usize>)) {
        tell(self.fields.iter().find(|f| self.name(f) == key).map_or(self.head(), |f| f.value.span.clone()));
    }

    /// Reports what nobody asked for.
    pub fn finish(self) {
        for (field, used) in self.fields.iter().zip(&self.used) {
            if *used {
                continue;
            }
            let name = self.name(field);
            let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
            if name.is_empty() {
                let message = format!("{} takes no value without a name here: expected {known}", self.what);
                self.problems.add(field.value.span.clone(), &message, None);
            } else {
                let message = format!("{} has no field `{name}`: expected one of {known}", self.what);
                self.problems.add(field.name.clone(), &message, suggest(name, &self.known));
            }
        }
    }

    /// Where the thing begins, for what is missing in it.
    fn head(&self) -> Range<usize> {
        let text = self.problems.text().get(self.span.clone()).unwrap_or("");
        let length = text.find('(').map_or(text.len(), |i| i + 1).min(text.find('\n').unwrap_or(text.len()));
        self.span.start..self.span.start + length
    }
}

/// What is wrong with a value, with what was expected said once.
fn sentence(error: &ron::Error, text: &str, expected: &str) -> String {
    match error {
        ron::Error::Message(message) if message.contains("expected") => message.clone(),
        ron::Error::Message(message) => format!("{message}: expected {expected}"),
        _ if text.len() <= 40 && !text.contains('\n') => format!("`{text}` does not fit here: expected {expected}"),
        other => format!("{other}: expected {expected}"),
    }
}

/// The known name that is probably meant.
pub(super) fn suggest(name: &str, known: &[&str]) -> Option<String> {
    let (best, distance) = known.iter().map(|k| (k, edit_distance(name, k))).min_by_key(|(_, d)| *d)?;
    (distance <= 1 + best.len() / 3).then(|| format!("did you mean `{best}`?"))
}

/// How many letters have to be changed, added, removed or exchanged with their neighbour.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(64).flat_map(char::to_lowercase).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// FNV-1a, 64 bits: the same on every machine and in every version.
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn hash_node(text: &str, node: &Node, without: &[&str], hash: &mut Fnv) {
    let slice = |span: &Range<usize>| text.get(span.clone()).unwrap_or("").as_bytes();
    match &node.shape {
        Shape::Scalar => hash.add(slice(&node.span)),
        Shape::List(items) => {
            hash.add(b"[");
            items.iter().for_each(|item| hash_node(text, item, &[], hash));
            hash.add(b"]");
        }
        Shape::Map(entries) => {
            hash.add(b"{");
            for (key, value) in entries {
                hash_node(text, key, &[], hash);
                hash_node(text, value, &[], hash);
            }
            hash.add(b"}");
        }
        Shape::Struct { name, fields } => {
            hash.add(slice(name));
            hash.add(b"(");
            let mut fields: Vec<&Field> = fields.iter().collect();
            fields.sort_by_key(|f| slice(&f.name));
            for field in fields {
                let name = slice(&field.name);
                if !without.iter().any(|w| w.as_bytes() == name) {
                    hash.add(name);
                    hash_node(text, &field.value, &[], hash);
                }
            }
            hash.add(b")");
        }
    }
}
