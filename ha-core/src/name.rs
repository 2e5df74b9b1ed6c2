//! The checked names and small numbers that everything else speaks in.
//!
//! Decides what a valid name is, once, at the border; nothing behind it checks again. Leaves to others what a name refers to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name or number that breaks its type's rules. Nothing was changed by the attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: expected {expected}")]
pub struct InvalidName {
    /// The kind of thing, for example "node name".
    pub what: &'static str,
    /// The text as it was given.
    pub value: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

const NAME_RULE: &str = "1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit";

fn check_name(what: &'static str, value: &str) -> Result<(), InvalidName> {
    let first_ok = value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest_ok = value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if first_ok && rest_ok && value.len() <= 63 {
        Ok(())
    } else {
        Err(InvalidName { what, value: value.chars().take(80).collect(), expected: NAME_RULE })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 63 ASCII letters, digits, `.`, `_`, `-`, beginning with a letter or digit. Cloning is cheap.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and takes a name.
            pub fn new(value: impl AsRef<str>) -> Result<Self, InvalidName> {
                check_name($what, value.as_ref())?;
                Ok(Self(Arc::from(value.as_ref())))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = InvalidName;
            fn try_from(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// The name of a cluster: nodes of different clusters never listen to each other.
    ClusterName, "cluster name"
);
name!(
    /// The name of a node, unique in its cluster; the host name unless the operator says otherwise.
    NodeName, "node name"
);
name!(
    /// The name of a hierarchy, unique in its cluster.
    HierarchyName, "hierarchy name"
);
name!(
    /// The name of a group of hierarchies that are to be spread over the nodes.
    GroupName, "group name"
);
name!(
    /// The name of a resource, unique in its hierarchy.
    ResourceName, "resource name"
);
name!(
    /// The name of a lock area, unique in its cluster.
    LockAreaName, "lock area name"
);
name!(
    /// The name of a heartbeat channel of this node, for reports.
    ChannelName, "channel name"
);

/// The number of a tenure of a claim, strictly increasing per hierarchy (invariant S4): the fencing token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first tenure.
    pub const ZERO: Epoch = Epoch(0);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How useful it would be to serve a hierarchy on a node, 0 ("cannot serve") to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Utility(u8);

impl Utility {
    /// Cannot serve.
    pub const NONE: Utility = Utility(0);
    /// As useful as can be; what a node without probes has.
    pub const FULL: Utility = Utility(100);

    /// Checks the range 0 to 100.
    pub fn new(value: u8) -> Result<Self, InvalidName> {
        if value <= 100 {
            Ok(Self(value))
        } else {
            Err(InvalidName { what: "utility", value: value.to_string(), expected: "a whole number from 0 to 100" })
        }
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Utility {
    type Error = InvalidName;
    fn try_from(value: u8) -> Result<Self, InvalidName> {
        Self::new(value)
    }
}

impl From<Utility> for u8 {
    fn from(value: Utility) -> u8 {
        value.0
    }
}

impl fmt::Display for Utility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of a node's agent speaks: greater is later. Chosen by the driver at start, greater than any used before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which boot of a machine: the kernel's `/proc/sys/kernel/random/boot_id` (random(4)), 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(pub [u8; 16]);

impl FromStr for BootId {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, InvalidName> {
        let wrong = || InvalidName {
            what: "boot id",
            value: value.chars().take(80).collect(),
            expected: "32 hexadecimal digits, with or without dashes",
        };
        let digits: Vec<u8> = value.trim().bytes().filter(|b| *b != b'-').collect();
        if digits.len() != 32 {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let text = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(text, 16).map_err(|_| wrong())?;
        }
        Ok(BootId(bytes))
    }
}

impl TryFrom<String> for BootId {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, InvalidName> {
        value.parse()
    }
}

impl From<BootId> for String {
    fn from(value: BootId) -> String {
        value.to_string()
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_border() {
        assert!(NodeName::new("alpha-1.example").is_ok());
        for bad in ["", "-a", "a b", "ä", &"x".repeat(64), "a/b", ".hidden"] {
            let error = NodeName::new(bad).unwrap_err();
            assert_eq!(error.what, "node name");
        }
    }

    #[test]
    fn boot_ids_read_as_the_kernel_writes_them() {
        let text = "b73e5d7f-ed53-4165-80b3-e180f69cf21b";
        assert_eq!(text.parse::<BootId>().unwrap().to_string(), text);
        assert!("b73e5d7f".parse::<BootId>().is_err());
        assert!("zz3e5d7f-ed53-4165-80b3-e180f69cf21b".parse::<BootId>().is_err());
    }

    #[test]
    fn utility_ends_at_100() {
        assert!(Utility::new(100).is_ok());
        assert!(Utility::new(101).is_err());
    }
}
