//! From views to text for people.
//!
//! Decides layout and words. Colours are always written; the terminal layer (`anstream`) takes them out where they do
//! not belong. Leaves JSON to the types themselves.

#[cfg(test)]
mod golden;
pub(crate) mod replay;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod why;
