//! Large values kept once, and known by small numbers.
//!
//! Decides which number; leaves to its users what counts as the same value: they give the text, or bytes, that it is known by.

use std::collections::HashMap;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// 128 bits that stand for some bytes. Of a billion different ones, the chance that two share theirs is below 10⁻²⁰.
pub(super) fn print_of(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

/// Values by number.
pub(super) struct Interner<T> {
    by_print: HashMap<u128, u32>,
    values: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner { by_print: HashMap::new(), values: Vec::new() }
    }
}

impl<T> Interner<T> {
    /// The number of the value known by `identity`; `make` is asked if it is new.
    pub(super) fn put(&mut self, identity: &[u8], make: impl FnOnce() -> T) -> u32 {
        let values = &mut self.values;
        *self.by_print.entry(print_of(identity)).or_insert_with(|| {
            values.push(make());
            (values.len() - 1) as u32
        })
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
