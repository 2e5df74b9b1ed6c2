//! The fields of one thing, asked for one by one.
//!
//! Decides what is said of fields that are missing, unknown or out of place. Leaves what they mean to whoever asks, and single values
//! to [`super::value`].

use std::ops::Range;

use serde::de::DeserializeOwned;

use super::diagnostics::Problems;
use super::outline::Field;
use super::suggest::suggest;
use super::value::{Value, one_of};

/// The fields of one thing. Ask for every field that it may have, whether earlier ones were right or not, and only then give up on
/// those that were wrong; so an operator sees all mistakes at once. At last, [`Fields::finish`]: what nobody asked for is unknown.
/// (Readers of [`Kinds`](super::Kinds) need not: it is done for them.)
///
/// ```
/// use ha_core::hierarchy::{Fields, Source, read_value};
///
/// struct Ping { address: String, attempts: u32 }
///
/// fn ping(fields: &mut Fields<'_>) -> Option<Ping> {
///     // `Ping("10.0.0.254")` and `Ping(address: "10.0.0.254", attempts: 5)`.
///     let address = fields.only_or("address", "an IP address");
///     let attempts = fields.or("attempts", "a whole number from 1", 3);
///     if attempts == 0 {
///         fields.problem("attempts", "attempts is 0: expected a whole number from 1", None);
///     }
///     Some(Ping { address: address?, attempts })
/// }
///
/// let source = Source::new("probe.ron", "Ping(\"10.0.0.254\")");
/// let (read, diagnostics) = read_value(&source, |value| {
///     let (_, mut fields) = value.variant("`Ping(…)`")?;
///     let probe = ping(&mut fields);
///     fields.finish();
///     probe
/// });
/// assert!(diagnostics.is_empty());
/// assert_eq!(read.map(|p| (p.address, p.attempts)), Some(("10.0.0.254".to_owned(), 3)));
/// ```
#[derive(Debug)]
pub struct Fields<'a> {
    problems: &'a Problems<'a>,
    /// Where the thing begins, for what is missing in it.
    head: Range<usize>,
    given: &'a [Field],
    used: Vec<bool>,
    known: Vec<&'static str>,
    what: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new(problems: &'a Problems<'a>, head: Range<usize>, given: &'a [Field], what: &str) -> Self {
        let used = vec![false; given.len()];
        Fields { problems, head, given, used, known: Vec::new(), what: what.to_owned() }
    }

    fn name(&self, field: &Field) -> &'a str {
        self.problems.source().slice(&field.name)
    }

    /// The value of a field as it stands, if it is there.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let i = self.given.iter().position(|f| self.name(f) == key)?;
        for (j, field) in self.given.iter().enumerate() {
            self.used[j] |= self.name(field) == key;
        }
        Some(Value { problems: self.problems, node: &self.given[i].value })
    }

    /// The value of a field that must be there.
    pub fn required_value(&mut self, key: &'static str, expected: &str) -> Option<Value<'a>> {
        let value = self.value(key);
        if value.is_none() {
            let message = format!("{} lacks the field `{key}`: expected {expected}", self.what);
            self.problems.add(&self.head, message, None);
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

    /// Reads each element of a list that must be there by itself; `None` if it is not, or anything in it is wrong.
    pub fn each<T: DeserializeOwned>(&mut self, key: &'static str, list: &str, element: &str) -> Option<Vec<T>> {
        self.required_value(key, list)?.each(list, element)
    }

    /// Reads each element of a list that may be there by itself; `Some(None)` if it is not, `None` if anything in it is wrong.
    pub fn each_if_given<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        list: &str,
        element: &str,
    ) -> Option<Option<Vec<T>>> {
        match self.value(key) {
            Some(value) => value.each(list, element).map(Some),
            None => Some(None),
        }
    }

    /// The fields of a field that may be there.
    pub fn fields(&mut self, key: &'static str) -> Option<Fields<'a>> {
        self.value(key)?.fields(key)
    }

    /// The only value of `Name(value)`, without a field name.
    pub fn only(&mut self) -> Option<Value<'a>> {
        match self.given {
            [field] if field.name.is_empty() => {
                self.used[0] = true;
                Some(Value { problems: self.problems, node: &field.value })
            }
            _ => None,
        }
    }

    /// Reads the only value of `Name(value)`, or the field `key` of `Name(key: value, …)`.
    pub fn only_or<T: DeserializeOwned>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        if let Some(value) = self.only() {
            self.known.push(key);
            return value.read(expected);
        }
        match self.given.get(1).filter(|field| field.name.is_empty()) {
            Some(second) => {
                self.used.fill(true);
                let message = format!("{} takes one value, and here is another: expected {expected}", self.what);
                self.problems.add(&second.value.span, message, None);
                None
            }
            None => self.required(key, expected),
        }
    }

    /// Whether there are no fields at all.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Reports something wrong with a field, or with the whole thing if the field is not there.
    pub fn problem(&self, key: &str, message: &str, help: Option<String>) {
        self.problems.add(&self.place_of(key), message, help);
    }

    /// Reports something about a field, or about the whole thing, that will probably not do what is wanted.
    pub fn warning(&self, key: &str, message: &str, help: Option<String>) {
        self.problems.warn(&self.place_of(key), message, help);
    }

    fn place_of(&self, key: &str) -> Range<usize> {
        let field = self.given.iter().find(|f| self.name(f) == key);
        field.map_or_else(|| self.head.clone(), |f| f.value.span.clone())
    }

    /// Reports what nobody asked for.
    pub fn finish(self) {
        let expected = match self.known[..] {
            [] => "no fields".to_owned(),
            _ => one_of(&self.known),
        };
        for (field, _) in self.given.iter().zip(&self.used).filter(|(_, used)| !**used) {
            let name = self.name(field);
            if name.is_empty() {
                let message = format!("{} takes no value without a field name here: expected {expected}", self.what);
                self.problems.add(&field.value.span, message, None);
            } else {
                let message = format!("{} has no field `{name}`: expected {expected}", self.what);
                self.problems.add(&field.name, message, suggest(name, self.known.iter().copied()));
            }
        }
    }
}
