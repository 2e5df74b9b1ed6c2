//! The keys of a cluster: secrets by number, one of them for sending, all of them for receiving.
//!
//! Decides what a key file looks like, and that a secret is never shown. A key is rolled in three steps, each done on
//! all nodes before the next: add the new key; send with it; remove the old one. Leaves to the driver where the file is
//! and who may read it.
//!
//! ```text
//! # one key a line: a number from 0 to 255, and 32 bytes as 64 hexadecimal digits
//! 1 = 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
//! 2 = 202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f send
//! ```

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

/// The number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u8);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 32 secret bytes, wiped from memory when dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// The keys of a cluster. Its `Debug` shows numbers only.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing {
    secrets: BTreeMap<KeyId, Secret>,
    sending: KeyId,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("ids", &self.secrets.keys().map(|id| id.0).collect::<Vec<_>>())
            .field("sending", &self.sending.0)
            .finish_non_exhaustive()
    }
}

/// A key file that cannot be used, or a change that cannot be made. No key was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct KeyFileError {
    /// The line, counted from 1; the last one if something is missing.
    pub line: usize,
    /// The column, in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: KeyProblem,
}

/// What is wrong with a key. Never contains any part of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// No number before the equals sign.
    #[error("expected a key number from 0 to 255")]
    Number,
    /// No equals sign.
    #[error("expected '=' after the key number")]
    Equals,
    /// Not 64 hexadecimal digits.
    #[error("expected 64 hexadecimal digits (32 bytes), found {0} characters")]
    Length(usize),
    /// Something else among the digits.
    #[error("expected a hexadecimal digit")]
    Digit,
    /// The same byte 32 times is not a secret.
    #[error("this key is the same byte 32 times: make a random one")]
    Weak,
    /// Something after the key that is not "send".
    #[error("expected \"send\" or the end of the line after the key")]
    Surplus,
    /// A number used twice.
    #[error("key {0} is there already: every key has a number of its own")]
    Twice(KeyId),
    /// Two keys marked for sending.
    #[error("key {0} is marked \"send\" already: exactly one key is")]
    TwoSending(KeyId),
    /// No key marked for sending.
    #[error("no key is marked \"send\": mark the one to seal with")]
    NoneSending,
    /// A key that is not in the ring.
    #[error("there is no key {0}")]
    Unknown(KeyId),
    /// The key in use cannot be removed.
    #[error("key {0} is the one for sending: send with another one first")]
    InUse(KeyId),
}

impl KeyRing {
    /// A ring of one key, from 32 random bytes of the caller's (getrandom(2)).
    pub fn generate(id: KeyId, random: [u8; 32]) -> Self {
        Self { secrets: BTreeMap::from([(id, Zeroizing::new(random))]), sending: id }
    }

    /// Reads a key file. A single key needs no "send".
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut secrets = BTreeMap::new();
        let mut sending = None;
        let mut last_line = 1;
        for (index, line) in text.lines().enumerate() {
            last_line = index + 1;
            let content = line.split('#').next().unwrap_or_default();
            if content.trim().is_empty() {
                continue;
            }
            let wrong = |(rest, problem): (&str, KeyProblem)| {
                // `rest` is a suffix of the line's content: where it begins is where the problem is.
                let before = content.len().saturating_sub(rest.len());
                let column = content.get(..before).map_or(1, |b| b.chars().count() + 1);
                KeyFileError { line: index + 1, column, problem }
            };
            let (id, secret, sends) = parse_line(content).map_err(wrong)?;
            if sends && let Some(earlier) = sending.replace(id) {
                return Err(wrong((content.trim_start(), KeyProblem::TwoSending(earlier))));
            }
            if secrets.insert(id, secret).is_some() {
                return Err(wrong((content.trim_start(), KeyProblem::Twice(id))));
            }
        }
        let only = if secrets.len() == 1 { secrets.keys().next().copied() } else { None };
        let none = KeyFileError { line: last_line, column: 1, problem: KeyProblem::NoneSending };
        let sending = sending.or(only).ok_or(none)?;
        Ok(Self { secrets, sending })
    }

    /// The ring as a key file. Contains the secrets: for a file that only the agent's user can read.
    pub fn to_file(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.secrets.len() * 80));
        for (id, secret) in &self.secrets {
            text.push_str(&id.to_string());
            text.push_str(" = ");
            for byte in secret.iter() {
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
            text.push_str(if *id == self.sending { " send\n" } else { "\n" });
        }
        text
    }

    /// The first step of rolling: a new key for receiving, from 32 random bytes of the caller's.
    pub fn add(&mut self, id: KeyId, random: [u8; 32]) -> Result<(), KeyProblem> {
        if self.secrets.contains_key(&id) {
            return Err(KeyProblem::Twice(id));
        }
        self.secrets.insert(id, Zeroizing::new(random));
        Ok(())
    }

    /// The second step: seal with this key from now on.
    pub fn send_with(&mut self, id: KeyId) -> Result<(), KeyProblem> {
        if !self.secrets.contains_key(&id) {
            return Err(KeyProblem::Unknown(id));
        }
        self.sending = id;
        Ok(())
    }

    /// The third step: do not accept this key any more.
    pub fn remove(&mut self, id: KeyId) -> Result<(), KeyProblem> {
        if id == self.sending {
            return Err(KeyProblem::InUse(id));
        }
        self.secrets.remove(&id).map(drop).ok_or(KeyProblem::Unknown(id))
    }

    /// The numbers of all keys.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.secrets.keys().copied()
    }

    /// The number of the key for sending.
    pub fn sending(&self) -> KeyId {
        self.sending
    }

    pub(super) fn sending_secret(&self) -> &Secret {
        // Cannot fail: every constructor and every change keeps `sending` among the secrets.
        &self.secrets[&self.sending]
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = (KeyId, &Secret)> {
        self.secrets.iter().map(|(id, secret)| (*id, secret))
    }
}

/// Reads one line; an error comes with the rest of the line at which it was found.
fn parse_line(content: &str) -> Result<(KeyId, Secret, bool), (&str, KeyProblem)> {
    let rest = content.trim_start();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, after) = rest.split_at(digits);
    let id = number.parse().map(KeyId).map_err(|_| (rest, KeyProblem::Number))?;
    let rest = after.trim_start();
    let rest = rest.strip_prefix('=').ok_or((rest, KeyProblem::Equals))?.trim_start();
    let (hex, marker) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    if let Some(at) = hex.find(|c: char| !c.is_ascii_hexdigit()) {
        return Err((&rest[at..], KeyProblem::Digit));
    }
    if hex.len() != 64 {
        return Err((rest, KeyProblem::Length(hex.len())));
    }
    let mut secret = Secret::default();
    for (byte, pair) in secret.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    if secret.iter().all(|byte| *byte == secret[0]) {
        return Err((rest, KeyProblem::Weak));
    }
    match marker.trim() {
        "" => Ok((id, secret, false)),
        "send" => Ok((id, secret, true)),
        _ => Err((marker.trim_start(), KeyProblem::Surplus)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn problem_of(text: &str) -> (usize, usize, KeyProblem) {
        let error = KeyRing::parse(text).unwrap_err();
        (error.line, error.column, error.problem)
    }

    #[test]
    fn a_key_file_reads_back_as_it_was_written() {
        let mut ring = KeyRing::generate(KeyId(1), std::array::from_fn(|i| i as u8));
        ring.add(KeyId(2), std::array::from_fn(|i| 255 - i as u8)).unwrap();
        ring.send_with(KeyId(2)).unwrap();
        assert_eq!(KeyRing::parse(&ring.to_file()), Ok(ring.clone()));
        assert_eq!(ring.remove(KeyId(2)), Err(KeyProblem::InUse(KeyId(2))));
        ring.remove(KeyId(1)).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [KeyId(2)]);
    }

    #[test]
    fn each_mistake_is_shown_where_it_is() {
        assert_eq!(problem_of(""), (1, 1, KeyProblem::NoneSending));
        assert_eq!(problem_of("# keys\n  one = 00"), (2, 3, KeyProblem::Number));
        assert_eq!(problem_of("256 = 00"), (1, 1, KeyProblem::Number));
        assert_eq!(problem_of("1 00"), (1, 3, KeyProblem::Equals));
        assert_eq!(problem_of("1 = 0011"), (1, 5, KeyProblem::Length(4)));
        assert_eq!(problem_of("1 = 00ü1"), (1, 7, KeyProblem::Digit));
        assert_eq!(problem_of(&format!("1 = {}", "00".repeat(32))), (1, 5, KeyProblem::Weak));
        assert_eq!(problem_of(&format!("1 = {ONE} receive")), (1, 70, KeyProblem::Surplus));
        assert_eq!(problem_of(&format!("1 = {ONE}\n1 = {ONE}")), (2, 1, KeyProblem::Twice(KeyId(1))));
        assert_eq!(problem_of(&format!("1 = {ONE}\n2 = {ONE}")), (2, 1, KeyProblem::NoneSending));
        let two = format!("1 = {ONE} send\n2 = {ONE} send");
        assert_eq!(problem_of(&two), (2, 1, KeyProblem::TwoSending(KeyId(1))));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let ring = KeyRing::parse(&format!("1 = {ONE}")).unwrap();
        assert_eq!(format!("{ring:?}"), "KeyRing { ids: [1], sending: 1, .. }");
        let error = KeyRing::parse(&format!("1 = {ONE}f")).unwrap_err();
        assert!(!error.to_string().contains("0102"), "{error}");
    }
}
