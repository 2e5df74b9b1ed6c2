//! A volume group as it stands in a hierarchy file.
//!
//! Decides how it is written, and that every mistake is told at its place.

use ha_core::hierarchy::{Fields, Value};

use super::{LvmSpec, Name};
use crate::resource::read::{devices, found_on};

impl LvmSpec {
    /// Reads the fields of `Lvm(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Lvm(
    ///     name: "volumes",
    ///     group: "shop",
    ///     volume: "web",                   // all, if it is left out
    ///     devices: ["/dev/disk/by-id/…"],  // LVM looks at these only
    ///     found_on: Node,                  // or Hierarchy: another resource of the hierarchy brings the disks
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<LvmSpec> {
        let group = fields.required_value("group", "the name of a volume group, such as \"shop\"").map(name);
        let volume = fields.value("volume").map_or(Some(None), |value| name(value).map(Some));
        let devices = fields.value("devices").map_or(Some(Vec::new()), devices);
        let found_on = found_on(fields);
        Some(LvmSpec { group: group??, volume: volume?, devices: devices?, found_on: found_on? })
    }
}

fn name(value: Value<'_>) -> Option<Name> {
    let text: String = value.read("a name of LVM, such as \"shop\"")?;
    text.parse().map_err(|wrong: String| value.problem(&wrong, None)).ok()
}
