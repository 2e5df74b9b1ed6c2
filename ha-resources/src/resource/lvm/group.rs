//! What LVM knows of a volume group.
//!
//! Decides how its report is read, and which group may be activated by whom. Leaves how the report was got.

use std::collections::BTreeMap;

use ha_core::driver::Failed;

use super::name::Name;

/// What is asked of vgs(8), whose answers are read here.
pub(super) const FIELDS: &str = "vg_name,vg_systemid,vg_missing_pv_count,vg_clustered,vg_shared,vg_exported";

/// The same with [`Group::automatic`], which versions before 2.03.12 refuse to tell.
pub(super) const ALL_FIELDS: &str =
    "vg_name,vg_systemid,vg_missing_pv_count,vg_clustered,vg_shared,vg_exported,vg_autoactivation";

/// A volume group at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The node that it belongs to, by that node's system id; `None`: to whoever sees it.
    pub(super) owner: Option<String>,
    /// So many of its disks are not to be seen.
    pub(super) missing: u64,
    /// Some other arbiter decides who may use it: lvmlockd(8) or clvmd.
    pub(super) shared: bool,
    /// It was made ready to be carried to another system, with vgexport(8).
    pub(super) exported: bool,
    /// Whether the system is known to activate it by itself, as at boot.
    pub(super) automatic: bool,
}

/// How vgs(8) is asked: one line for each group, which stands by itself wherever words of warning come between.
pub(super) const FORM: [&str; 8] =
    ["--foreign", "--shared", "--binary", "--noheadings", "--nameprefixes", "--unquoted", "--separator=|", "--options"];

/// What the line of a group begins with.
const LINE: &str = "LVM2_VG_NAME=";

impl Group {
    /// Reads the one group of this name in what vgs(8) says.
    pub(super) fn read(name: &Name, said: &str) -> Result<Group, Failed> {
        let unreadable =
            |why: &str| Failed(format!("lvm's report of {name} cannot be understood, {why}: {}", said.trim()));
        let row = |line| -> BTreeMap<&str, &str> {
            str::split(line, '|').filter_map(|field| field.split_once('=')).collect()
        };
        let lines = said.lines().map(str::trim).filter(|line| line.starts_with(LINE)).map(row);
        let mut rows = lines.filter(|row| row.get("LVM2_VG_NAME") == Some(&name.as_str()));
        let row = rows.next().ok_or_else(|| unreadable("the group is not in it"))?;
        if rows.next().is_some() {
            return Err(Failed(format!(
                "there are two volume groups called {name}: rename one, as by `vgrename UUID NAME`, or name its `devices`"
            )));
        }
        let field = |key: &str| row.get(key).copied().ok_or_else(|| unreadable(&format!("there is no {key} in it")));
        // A flag is "0", "1", or "-1" where it is not known.
        let flag = |key: &str| field(key).map(|flag| flag == "1");
        let owner = field("LVM2_VG_SYSTEMID")?;
        Ok(Group {
            owner: Some(owner).filter(|owner| !owner.is_empty()).map(str::to_owned),
            missing: field("LVM2_VG_MISSING_PV_COUNT")?.parse().map_err(|_| unreadable("a count is no number"))?,
            shared: flag("LVM2_VG_CLUSTERED")? || flag("LVM2_VG_SHARED")?,
            exported: flag("LVM2_VG_EXPORTED")?,
            automatic: row.get("LVM2_VG_AUTOACTIVATION") == Some(&"1"),
        })
    }

    /// Why nobody may activate it, if so.
    pub(super) fn refusal(&self, name: &Name) -> Result<(), Failed> {
        if self.shared {
            return Err(Failed(format!(
                "the volume group {name} is shared or clustered: lvmlockd decides who uses it, not this claim; make it a local \
                 one (`vgchange --locktype none {name}`)"
            )));
        }
        if self.exported {
            return Err(Failed(format!("the volume group {name} is exported: `vgimport {name}` first")));
        }
        if self.missing > 0 {
            return Err(Failed(format!(
                "the volume group {name} is incomplete: {} of its disks cannot be seen here; look at `pvs` and `vgs --foreign -o +devices`",
                self.missing
            )));
        }
        if let Some(owner) = self.owner.as_deref().filter(|owner| !is_system_id(owner)) {
            return Err(Failed(format!("the volume group {name} has {owner:?} as its system id, which is none")));
        }
        Ok(())
    }
}

/// What LVM said beside its report, in one line.
pub(super) fn without_report(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(LINE));
    lines.collect::<Vec<_>>().join(" / ")
}

/// lvmsystemid(7): letters, digits, and `-`, `_`, `+`, `.`, with a letter or digit first.
pub(super) fn is_system_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 127
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_+.".contains(c))
}

/// This node's, of what `lvm systemid` says: `  system ID: alpha`.
pub(super) fn read_system_id(said: &str) -> Option<String> {
    let id = said.lines().find_map(|line| line.trim().strip_prefix("system ID:"))?.trim();
    is_system_id(id).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(owner: &str, missing: u32, shared: u32, exported: u32) -> String {
        format!(
            "  LVM2_VG_NAME=shop|LVM2_VG_SYSTEMID={owner}|LVM2_VG_MISSING_PV_COUNT={missing}|LVM2_VG_CLUSTERED=0|\
             LVM2_VG_SHARED={shared}|LVM2_VG_EXPORTED={exported}|LVM2_VG_AUTOACTIVATION=1\n"
        )
    }

    #[test]
    fn a_report_is_read_and_what_may_not_be_activated_is_told() {
        let shop: Name = "shop".parse().unwrap();
        let read = |rows: &str| Group::read(&shop, &format!("  WARNING: x.\n{rows}  WARNING: y.\n"));
        let group = read(&row("alpha", 0, 0, 0)).unwrap();
        assert_eq!((group.owner.as_deref(), group.automatic, group.refusal(&shop)), (Some("alpha"), true, Ok(())));
        assert_eq!(read(&row("", 0, 0, 0)).unwrap().owner, None);
        for (rows, expected) in [
            (row("alpha", 1, 0, 0), "incomplete: 1 of its disks"),
            (row("alpha", 0, 1, 0), "shared or clustered"),
            (row("alpha", 0, 0, 1), "vgimport shop"),
            (row("a\"]b", 0, 0, 0), "which is none"),
        ] {
            let Failed(why) = read(&rows).unwrap().refusal(&shop).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let twice = row("", 0, 0, 0).repeat(2);
        assert!(read(&twice).unwrap_err().0.contains("two volume groups"));
        assert!(read("").unwrap_err().0.contains("not in it"));
        assert!(read("LVM2_VG_NAME=shop|LVM2_VG_SYSTEMID=\n").unwrap_err().0.contains("no LVM2_VG_MISSING_PV_COUNT"));
    }

    #[test]
    fn words_beside_a_report_are_told() {
        let said = format!("  WARNING: x.\n{}  Volume group \"shop\" not found\n", row("", 0, 0, 0));
        assert_eq!(without_report(&said), "WARNING: x. / Volume group \"shop\" not found");
        assert_eq!(without_report("only words"), "only words");
    }

    #[test]
    fn a_system_id_is_read() {
        assert_eq!(read_system_id("  WARNING: x\n  system ID: alpha.example\n"), Some("alpha.example".to_owned()));
        assert_eq!(read_system_id("  system ID: \n"), None);
        assert_eq!(read_system_id(""), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(said in ".{0,200}") {
            let _ = Group::read(&"shop".parse().unwrap(), &said);
            let _ = read_system_id(&said);
        }
    }
}
