//! Values at their places in a text, each read by itself, so that everything wrong is found at once.
//!
//! Decides what is said of a value that is not what was expected. Leaves the fields of a thing to [`super::fields`], and what `ron`
//! accepts as a value to `ron`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use ron::extensions::Extensions;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::diagnostics::{Diagnostics, Problems, Spot};
use super::digest;
use super::fields::Fields;
use super::model::Fingerprint;
use super::outline::{Fault, Node, Shape, outline};
use super::source::Source;
use super::suggest::suggest;

/// How RON is read everywhere: without `Some(…)`, and without wrappers around newtypes.
pub(super) fn options() -> ron::Options {
    let extensions = Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES | Extensions::UNWRAP_VARIANT_NEWTYPES;
    ron::Options::default().with_default_extension(extensions)
}

/// Reads a whole text that holds one value. The text was right if the diagnostics have no errors; what was read of a text that was
/// not is to be thrown away.
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
/// let problem = &diagnostics.problems()[0];
/// assert_eq!((problem.line, problem.column), (1, 27));
/// assert_eq!(problem.message, "limits has no field `wihtin`: expected one of most, within");
/// assert_eq!(problem.help.as_deref(), Some("did you mean `within`?"));
/// ```
pub fn read_value<T>(source: &Source, read: impl FnOnce(Value<'_>) -> Option<T>) -> (Option<T>, Diagnostics) {
    let problems = Problems::new(source);
    let value = parse(source, &problems).and_then(|node| {
        refuse_duplicates(&problems, &node);
        read(Value { problems: &problems, node: &node })
    });
    (value, problems.into_diagnostics())
}

/// Lets `ron` check the syntax, and finds where everything stands.
fn parse(source: &Source, problems: &Problems<'_>) -> Option<Node> {
    let outlined = outline(source.text());
    if let Err(error) = options().from_str::<IgnoredAny>(source.text()) {
        let begin = source.byte_at(error.span.start.line, error.span.start.col);
        let end = source.byte_at(error.span.end.line, error.span.end.col).max(begin);
        // What was found no later is nearer to the cause, and says more.
        let nearer = outlined.as_ref().is_err_and(|wrong| wrong.span.start <= end);
        if !nearer {
            problems.add(&(begin..end), format!("this is not valid RON: {}", in_lower_case(&error.code)), None);
            return None;
        }
    }
    match outlined {
        Ok(node) => return Some(node),
        Err(wrong) => match (wrong.fault, wrong.inside) {
            (Fault::NoComma(_) | Fault::NoFieldName, Some(open)) => {
                problems.add_related(&wrong.span, wrong.fault.to_string(), problems.spot(&open), "inside this bracket");
            }
            _ => problems.add(&wrong.span, wrong.fault.to_string(), None),
        },
    }
    None
}

/// Refuses what `ron` lets pass: one field or key twice. Goes no deeper than the outline does.
fn refuse_duplicates(problems: &Problems<'_>, node: &Node) {
    let slice = |span: &Range<usize>| problems.source().slice(span);
    let mut first: BTreeMap<Cow<'_, str>, &Range<usize>> = BTreeMap::new();
    let mut check = |what: &str, key: Cow<'_, str>, span, owned_key| match first.get(&key) {
        Some(earlier) => {
            let message = format!("{what} `{key}` is here twice");
            problems.add_related(span, message, problems.spot(earlier), "first here");
        }
        None => {
            first.insert(owned_key, span);
        }
    };
    match &node.shape {
        Shape::Scalar => {}
        Shape::List(items) => {
            for item in items {
                refuse_duplicates(problems, item);
            }
        }
        Shape::Map(entries) => {
            for (key, value) in entries {
                let text = slice(&key.span);
                // Two ways to write one string are one key.
                let plain = options().from_str::<String>(text).map_or(Cow::Borrowed(text), Cow::Owned);
                check("key", plain.clone(), &key.span, plain);
                refuse_duplicates(problems, value);
            }
        }
        Shape::Struct { fields, .. } => {
            for field in fields {
                let name = slice(&field.name);
                if !name.is_empty() {
                    check("field", Cow::Borrowed(name), &field.name, Cow::Borrowed(name));
                }
                refuse_duplicates(problems, &field.value);
            }
        }
    }
}

/// A value at its place in the text.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pub(super) problems: &'a Problems<'a>,
    pub(super) node: &'a Node,
}

impl<'a> Value<'a> {
    fn at(&self, node: &'a Node) -> Value<'a> {
        Value { problems: self.problems, node }
    }

    /// The text of the value.
    pub fn text(&self) -> &'a str {
        self.problems.source().slice(&self.node.span)
    }

    /// Reports something wrong with the value.
    pub fn problem(&self, message: &str, help: Option<String>) {
        self.problems.add(&self.node.span, message, help);
    }

    /// Reports something about the value that will probably not do what is wanted.
    pub fn warning(&self, message: &str, help: Option<String>) {
        self.problems.warn(&self.node.span, message, help);
    }

    /// Reports that what is here was used elsewhere first.
    pub(super) fn problem_with(&self, message: &str, first: Spot) {
        self.problems.add_related(&self.node.span, message, first, "first here");
    }

    /// Where it stands, in words.
    pub fn place(&self) -> String {
        let (line, column) = self.problems.source().place(self.node.span.start);
        format!("line {line}, column {column}")
    }

    pub(super) fn spot(&self) -> Spot {
        self.problems.spot(&self.node.span)
    }

    /// Reads it as a `T`, with serde; reports what is wrong, with what was `expected`. Of a `T` made of parts, only the first
    /// wrong one is found: read parts by themselves, with [`Value::each`], [`Value::entries`] or [`Value::fields`].
    pub fn read<T: DeserializeOwned>(&self, expected: &str) -> Option<T> {
        let error = match options().from_str::<T>(self.text()) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let part = Source::new("", self.text());
        let begin = self.node.span.start + part.byte_at(error.span.start.line, error.span.start.col);
        let wrong = self.at(innermost(self.node, begin));
        let message = match &error.code {
            // Our own types say what they expect.
            ron::Error::Message(message) if message.contains("expected") => message.clone(),
            ron::Error::Message(message) => format!("{message}: expected {expected}"),
            ron::Error::NoSuchStructField { .. } | ron::Error::MissingStructField { .. } => {
                format!("{}: expected {expected}", in_lower_case(&error.code))
            }
            ron::Error::IntegerOutOfBounds => {
                format!("{} is too large or too small: expected {expected}", wrong.in_short())
            }
            _ => format!("{} does not fit here: expected {expected}", wrong.in_short()),
        };
        wrong.problem(&message, None);
        None
    }

    /// Whether anything in it was found wrong so far.
    pub fn has_errors(&self) -> bool {
        self.problems.any_error_in(&self.node.span)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.shape, Shape::List(_))
    }

    /// The elements of a list.
    pub fn list(&self, expected: &str) -> Option<Vec<Value<'a>>> {
        let Shape::List(items) = &self.node.shape else {
            self.misfit(expected);
            return None;
        };
        Some(items.iter().map(|node| self.at(node)).collect())
    }

    /// Reads each element of a list by itself; `None` if any is wrong.
    pub fn each<T: DeserializeOwned>(&self, list: &str, element: &str) -> Option<Vec<T>> {
        let read: Vec<Option<T>> = self.list(list)?.iter().map(|value| value.read(element)).collect();
        read.into_iter().collect()
    }

    /// The entries of a map, no key twice.
    pub fn entries(&self, expected: &str) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        let Shape::Map(entries) = &self.node.shape else {
            self.misfit(expected);
            return None;
        };
        Some(entries.iter().map(|(key, value)| (self.at(key), self.at(value))).collect())
    }

    /// The fields of `(…)` or `Name(…)`; `what` names the thing in messages.
    pub fn fields(&self, what: &str) -> Option<Fields<'a>> {
        let Shape::Struct { fields, .. } = &self.node.shape else {
            self.misfit(&format!("the fields of {what} in round brackets"));
            return None;
        };
        Some(Fields::new(self.problems, self.head(), fields, what))
    }

    /// `Name(…)`, or `Name` alone: the name and the fields behind it.
    pub fn variant(&self, expected: &str) -> Option<(&'a str, Fields<'a>)> {
        let is_name = |text: &str| {
            text.starts_with(|c: char| c.is_alphabetic()) && text.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        let fields: &'a [_] = match &self.node.shape {
            Shape::Struct { name, fields } if !name.is_empty() => fields,
            Shape::Scalar if is_name(self.text()) => &[],
            _ => {
                self.misfit(expected);
                return None;
            }
        };
        let name = self.problems.source().slice(&self.head());
        Some((name, Fields::new(self.problems, self.head(), fields, name)))
    }

    /// Says that a name is none of those known, with the likeliest one.
    pub fn unknown_name<S: AsRef<str>>(&self, what: &str, name: &str, known: &[S]) {
        self.unknown_name_for(what, name, known, None);
    }

    /// As [`Value::unknown_name`], where it may be known which one is `meant`.
    pub(super) fn unknown_name_for<S: AsRef<str>>(&self, what: &str, name: &str, known: &[S], meant: Option<&str>) {
        let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
        let message = format!("there is no {what} `{name}`: expected {}", one_of(&known));
        let help = meant.map_or_else(|| suggest(name, known), |meant| Some(format!("did you mean `{meant}`?")));
        self.problems.add(&self.head(), message, help);
    }

    /// A stable digest of the value, whatever its layout and comments and the order of its fields; of a struct, without the
    /// fields named.
    pub(super) fn digest(&self, without: &[&str]) -> Fingerprint {
        digest::of_node(self.problems.source().text(), self.node, without)
    }

    fn misfit(&self, expected: &str) {
        self.problems.add(&self.head(), format!("{} does not fit here: expected {expected}", self.in_short()), None);
    }

    /// Its name, or its opening bracket, or all of it when it is a plain value.
    fn head(&self) -> Range<usize> {
        match &self.node.shape {
            Shape::Struct { name, .. } if !name.is_empty() => name.clone(),
            Shape::Scalar => self.node.span.clone(),
            _ => self.node.span.start..self.node.span.start + 1,
        }
    }

    fn in_short(&self) -> String {
        match &self.node.shape {
            Shape::List(_) => "a list".to_owned(),
            Shape::Map(_) => "a map".to_owned(),
            Shape::Struct { .. } => match self.problems.source().slice(&self.head()) {
                "(" => "`(…)`".to_owned(),
                name => format!("`{name}(…)`"),
            },
            Shape::Scalar if self.text().chars().count() > 60 => {
                format!("`{}…`", self.text().chars().take(60).collect::<String>())
            }
            Shape::Scalar => format!("`{}`", self.text()),
        }
    }
}

/// The smallest part that begins at or surrounds a byte, if any does.
fn innermost(node: &Node, byte: usize) -> &Node {
    let parts: Vec<&Node> = match &node.shape {
        Shape::Scalar => return node,
        Shape::List(items) => items.iter().collect(),
        Shape::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
        Shape::Struct { fields, .. } => fields.iter().map(|field| &field.value).collect(),
    };
    parts.into_iter().find(|part| part.span.contains(&byte)).map_or(node, |part| innermost(part, byte))
}

/// "one of a, b", "`a`", "nothing".
pub(super) fn one_of(known: &[&str]) -> String {
    match known {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        // A long list helps nobody.
        _ if known.len() > 20 => format!("one of {}, … ({} in all)", known[..20].join(", "), known.len()),
        _ => format!("one of {}", known.join(", ")),
    }
}

fn in_lower_case(error: &ron::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
