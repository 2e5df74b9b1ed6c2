//! An array as it stands in a hierarchy file.
//!
//! Decides how it is written, which names mdadm(8) takes for arrays, and that every mistake is told at its place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ha_core::hierarchy::Fields;

use super::{Degraded, MdSpec};
use crate::resource::read::{choice, devices, found_on};

/// Who an array is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid([u32; 4]);

impl FromStr for Uuid {
    type Err = String;

    /// Reads 32 hexadecimal digits, with colons or hyphens wherever one likes, as mdadm does.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        let wrong = || {
            format!(
                "{text:?} is no UUID of an array: expected one as `mdadm --detail` shows it, of 32 hexadecimal digits"
            )
        };
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut words = [0; 4];
        for (at, word) in words.iter_mut().enumerate() {
            *word = u32::from_str_radix(&digits[at * 8..at * 8 + 8], 16).map_err(|_| wrong())?;
        }
        Ok(Uuid(words))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.map(|word| format!("{word:08x}"));
        f.write_str(&words.join(":"))
    }
}

impl MdSpec {
    /// Reads the fields of `Md(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Md(
    ///     name: "mirror",
    ///     device: "/dev/md/shop",
    ///     members: ["/dev/disk/by-id/…", "/dev/disk/by-id/…"],   // or uuid, or both
    ///     uuid: "c0ffee00:…",
    ///     degraded: Refuse,                // or Allow
    ///     found_on: Node,                  // or Hierarchy: another resource of the hierarchy brings the members
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<MdSpec> {
        let device: Option<PathBuf> = fields.required("device", "the array's device, such as \"/dev/md/shop\"");
        let members = fields.value("members").map_or(Some(Vec::new()), devices);
        let uuid = match fields.value("uuid") {
            None => Some(None),
            Some(value) => value
                .read::<String>("the UUID of an array")
                .and_then(|text| text.parse().map_err(|wrong: String| value.problem(&wrong, None)).ok())
                .map(Some),
        };
        let degraded = fields.value("degraded").map_or(Some(Degraded::Refuse), |value| {
            choice(value, "treatment", &[("Refuse", Degraded::Refuse), ("Allow", Degraded::Allow)])
        });
        let found_on = found_on(fields);
        let (device, members, uuid) = (device?, members?, uuid?);
        if !is_array_name(&device) {
            let expected = "expected \"/dev/md/NAME\" or \"/dev/mdN\"";
            fields.problem("device", &format!("{} is no name of an array: {expected}", device.display()), None);
            return None;
        }
        if members.is_empty() && uuid.is_none() {
            fields.problem("members", "nothing says which array it is: say `members`, `uuid` or both", None);
            return None;
        }
        Some(MdSpec { device, members, uuid, degraded: degraded?, found_on: found_on? })
    }
}

/// Of the names that mdadm takes those that say what the device will be called.
fn is_array_name(device: &Path) -> bool {
    let Some(text) = device.to_str() else { return false };
    let named = |name: &str| {
        !name.is_empty()
            && name.len() <= 32
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    let numbered = |number: &str| (1..=6).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix("/dev/md/").is_some_and(named) || text.strip_prefix("/dev/md").is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::process::FoundOn;
    use crate::test_support::read;
    use proptest::prelude::*;

    #[test]
    fn an_array_is_read_and_every_mistake_is_told() {
        let text = r#"Md(device: "/dev/md/shop", members: ["/dev/a", "/dev/b"], degraded: Allow)"#;
        let (found, said) = read(text, MdSpec::read);
        assert_eq!(said, "");
        let expected = MdSpec {
            device: PathBuf::from("/dev/md/shop"),
            members: vec!["/dev/a".to_owned(), "/dev/b".to_owned()],
            uuid: None,
            degraded: Degraded::Allow,
            found_on: FoundOn::Node,
        };
        assert_eq!(found, Some(expected));
        let (found, said) =
            read(r#"Md(device: "/dev/md0", uuid: "00112233-44556677:8899aabb:ccddeeff")"#, MdSpec::read);
        assert_eq!(said, "");
        assert_eq!(found.unwrap().uuid.unwrap().to_string(), "00112233:44556677:8899aabb:ccddeeff");
        for (text, expected) in [
            ("Md()", "lacks the field `device`"),
            (r#"Md(device: "/dev/md/shop")"#, "nothing says which array"),
            (r#"Md(device: "/dev/sda", uuid: "00112233445566778899aabbccddeeff")"#, "no name of an array"),
            (r#"Md(device: "/dev/md/a b", members: ["/dev/a"])"#, "no name of an array"),
            (r#"Md(device: "/dev/md/shop", uuid: "12")"#, "32 hexadecimal digits"),
            (r#"Md(device: "/dev/md/shop", members: ["sda"])"#, "whole path"),
            (r#"Md(device: "/dev/md/shop", members: ["/dev/a"], degraded: Perhaps)"#, "`Perhaps`"),
            (r#"Md(device: "/dev/md/shop", member: ["/dev/a"])"#, "did you mean `members`?"),
        ] {
            let (_, said) = read(text, MdSpec::read);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_a_uuid_without_panic(text in ".{0,40}", words in any::<[u32; 4]>()) {
            let _ = text.parse::<Uuid>();
            prop_assert_eq!(Uuid(words).to_string().parse(), Ok(Uuid(words)));
        }
    }
}
