//! The error of this library: what the laboratory was doing, and what went wrong. Leaves it to the test to fail with it.

use std::fmt;

/// Something that the laboratory could not do. Its `Debug` is its text, so that a test that returns it fails readably.
pub struct Trouble(String);

/// A result of the laboratory.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// From what is to be said.
    pub fn new(what: impl fmt::Display) -> Self {
        Trouble(what.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble(error.to_string())
    }
}

/// The last so many characters of a long text, for whoever reads why a test failed.
pub(crate) fn end_of(text: &str, characters: usize) -> &str {
    let from = text.char_indices().rev().nth(characters).map_or(0, |(at, _)| at);
    &text[from..]
}

/// Adds what was being done to an error.
pub(crate) trait While<T> {
    /// `what` completes "could not …".
    fn to(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> While<T> for std::result::Result<T, E> {
    fn to(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Trouble(format!("could not {what}: {error}")))
    }
}
