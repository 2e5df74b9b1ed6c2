//! The name of a service unit (systemd.unit(5)).
//!
//! Decides which names there can be, and what its control group and its object on the bus are called. Leaves whether there is such a unit
//! to systemd.

use std::fmt::{self, Write as _};

/// The longest name of a unit, in bytes (systemd's `UNIT_NAME_MAX` is 256 with the end of the string).
const LONGEST: usize = 255;

/// The name of a service unit: `nginx.service`, or an instance of a template, `postgres@main.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitName(String);

/// Why something is not the name of a service unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnitName {
    /// It ends in something else, or in nothing.
    #[error("{0:?} is not a service: expected a name that ends in .service, such as {name:?}", name = suggestion(.0))]
    NotAService(String),
    /// It is not instantiated.
    #[error("{0:?} is a template: say which instance is meant, between @ and .service")]
    Template(String),
    /// It is too long.
    #[error("the name of a unit has at most {LONGEST} bytes, and this one has {0}")]
    TooLong(usize),
    /// A character that no unit has in its name.
    #[error(
        "{name:?} has {character:?} in it: expected letters, digits and any of : - _ . \\ @; systemd-escape(1) writes other characters"
    )]
    Character {
        /// The name.
        name: String,
        /// The character.
        character: char,
    },
}

fn suggestion(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{}.service", if stem.is_empty() { "nginx" } else { stem })
}

impl UnitName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidUnitName> {
        let name = name.into();
        if name.len() > LONGEST {
            return Err(InvalidUnitName::TooLong(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
        if let Some(character) = name.chars().find(|c| !allowed(*c)) {
            return Err(InvalidUnitName::Character { name, character });
        }
        match name.strip_suffix(".service") {
            None | Some("") => Err(InvalidUnitName::NotAService(name)),
            Some(stem) if stem.starts_with('@') => Err(InvalidUnitName::NotAService(name)),
            Some(stem) if stem.ends_with('@') && stem.matches('@').count() == 1 => Err(InvalidUnitName::Template(name)),
            Some(_) => Ok(UnitName(name)),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its control group is called. Names that the kernel's files have, or may have one day, get `_` before them (systemd's
    /// `cg_escape`).
    pub(crate) fn control_group(&self) -> String {
        const CONTROLLERS: [&str; 12] = [
            "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids", "hugetlb", "misc", "rdma", "cgroup",
        ];
        let first = self.0.split('.').next().unwrap_or_default();
        let escaped = self.0.starts_with(['_', '.']) || CONTROLLERS.contains(&first);
        if escaped { format!("_{}", self.0) } else { self.0.clone() }
    }

    /// The slice that it is in unless its file names another: `system.slice`, and one of their own for the instances of a template
    /// (systemd.service(5), "Implicit Dependencies").
    pub(crate) fn usual_slice(&self) -> String {
        match self.0.split_once('@') {
            // A dash would be a step in the tree of slices.
            Some((template, _)) => format!("system-{}.slice", template.replace('-', "\\x2d")),
            None => "system.slice".to_owned(),
        }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The object of a unit on the bus: what is no letter or digit is written as `_` and two hexadecimal digits, and so is a digit at the
/// beginning (systemd's `bus_label_escape`).
pub(crate) fn object_of(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (i, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (i > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// Where a slice is, below the root of the control groups: each part of its name is one step (systemd.slice(5)).
pub(crate) fn slice_path(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem.is_empty() || stem == "-" {
        return String::new();
    }
    let ends = stem.match_indices('-').map(|(end, _)| end).chain([stem.len()]);
    ends.map(|end| format!("{}.slice", &stem[..end])).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn services_and_instances_are_units() {
        for name in ["nginx.service", "postgres@main.service", "a\\x2db.service", "x:y_z.service"] {
            assert_eq!(UnitName::new(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        for (name, expected) in [
            ("nginx", "\"nginx.service\""),
            ("nginx.socket", "\"nginx.service\""),
            (".service", "not a service"),
            ("@x.service", "not a service"),
            ("postgres@.service", "instance"),
            ("a/b.service", "'/'"),
            ("a b.service", "' '"),
            ("", "not a service"),
        ] {
            let said = UnitName::new(name).unwrap_err().to_string();
            assert!(said.contains(expected), "{name}: {said}");
        }
        assert!(UnitName::new(format!("{}.service", "x".repeat(250))).is_err());
    }

    #[test]
    fn control_groups_and_objects_are_named_as_systemd_names_them() {
        let unit = |name: &str| UnitName::new(name).unwrap();
        assert_eq!(unit("memory.service").control_group(), "_memory.service");
        assert_eq!(unit("nginx.service").control_group(), "nginx.service");
        assert_eq!(object_of("9p.service"), "/org/freedesktop/systemd1/unit/_39p_2eservice");
        assert_eq!(unit("my-db@a.service").usual_slice(), "system-my\\x2ddb.slice");
        assert_eq!(slice_path("system.slice"), "system.slice");
        assert_eq!(slice_path("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(slice_path("-.slice"), "");
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_what_it_is_not(name in any::<String>()) {
            if let Ok(unit) = UnitName::new(name.as_str()) {
                prop_assert!(unit.as_str().ends_with(".service"));
                prop_assert!(!unit.control_group().contains('/'));
                prop_assert!(zbus::ObjectPath::try_from(object_of(unit.as_str())).is_ok());
            }
        }
    }
}
