//! Names of LVM, as lvm(8) allows them, and what device-mapper makes of them.
//!
//! Decides which texts are names. Leaves to LVM which of them it keeps for itself.

use std::fmt;
use std::str::FromStr;

/// As many characters as a name may have (`NAME_LEN` of LVM, with its end).
const LONGEST: usize = 127;

/// The name of a volume group, or of a volume in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a part of the name of a device: there a single hyphen stands between two names.
    fn mapped(&self) -> String {
        self.0.replace('-', "--")
    }

    /// What stands behind this group's name in the name of one of its devices; `None` for another group's.
    pub(super) fn part_of<'a>(&self, device: &'a str) -> Option<&'a str> {
        let rest = device.strip_prefix(&self.mapped())?.strip_prefix('-')?;
        // Two hyphens are one of a longer name.
        (!rest.is_empty() && !rest.starts_with('-')).then_some(rest)
    }
}

/// The volume's name and what is behind it, of what stands behind the group's name in the name of a device. There is something
/// behind in devices that LVM keeps to itself: `web-real`, `web-cow`.
pub(super) fn volume_and_layer(part: &str) -> (String, Option<&str>) {
    let mut name = String::new();
    let mut rest = part;
    while let Some(at) = rest.find('-') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        name.push_str(before);
        let Some(double) = after.strip_prefix('-') else { return (name, Some(after)) };
        name.push('-');
        rest = double;
    }
    name.push_str(rest);
    (name, None)
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
        let good = !text.is_empty()
            && text.len() <= LONGEST
            && text.chars().all(allowed)
            && !text.starts_with('-')
            && text != "."
            && text != "..";
        if good {
            return Ok(Name(text.to_owned()));
        }
        Err(format!(
            "{text:?} is no name of LVM: expected up to {LONGEST} letters, digits, `+`, `_`, `.` and `-`, no `-` first"
        ))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_checked_at_the_border() {
        for good in ["shop", "shop-1", "a", "_a.b+c", &"x".repeat(127)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-shop", ".", "..", "shop/web", "shop web", "shöp", "$(x)", &"x".repeat(128)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_of_a_group_are_known_by_their_names() {
        let (a, a_b): (Name, Name) = ("a".parse().unwrap(), "a-b".parse().unwrap());
        for (device, of_a, of_a_b) in [
            ("a-web", Some("web"), None),
            ("a--b-web", None, Some("web")),
            ("a-b--web", Some("b--web"), None),
            ("a", None, None),
            ("a-", None, None),
            ("ab-web", None, None),
        ] {
            assert_eq!((a.part_of(device), a_b.part_of(device)), (of_a, of_a_b), "{device}");
        }
        assert_eq!(volume_and_layer("web--1"), ("web-1".to_owned(), None));
        assert_eq!(volume_and_layer("web-real"), ("web".to_owned(), Some("real")));
        assert_eq!(volume_and_layer("web--1-cow"), ("web-1".to_owned(), Some("cow")));
    }

    proptest! {
        #[test]
        fn what_device_mapper_makes_of_names_is_read_back(
            group in "[a-z_][a-z+_.-]{0,8}", volume in "[a-z_][a-z+_.-]{0,8}", noise in ".{0,20}",
        ) {
            let (group, volume): (Name, Name) = (group.parse().unwrap(), volume.parse().unwrap());
            let device = format!("{}-{}", group.mapped(), volume.mapped());
            prop_assert_eq!(group.part_of(&device).map(volume_and_layer), Some((volume.0.clone(), None)));
            let _ = group.part_of(&noise).map(volume_and_layer);
            let _ = noise.parse::<Name>();
        }
    }
}
