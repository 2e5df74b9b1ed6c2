//! An init script as it stands in a hierarchy file.
//!
//! Decides how it is written, and that every mistake is told at its place.

use ha_core::hierarchy::Fields;

use super::super::check::Check;
use super::super::read::choice;
use super::{Judge, LsbSpec};

const SCRIPT: &str = "an init script: a name in /etc/init.d, such as \"nginx\", or a whole path";

impl LsbSpec {
    /// Reads the fields of `Lsb(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Lsb(
    ///     name: "web",
    ///     script: "nginx",                 // or "/etc/init.d/nginx"
    ///     status: Script,                  // or Group: the control group alone says whether it runs
    ///     check: Tcp("10.0.0.10:80"),      // or Command([…]); else only whether it runs
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<LsbSpec> {
        let script: Option<String> = fields.required("script", SCRIPT);
        let status = fields.value("status").map_or(Some(Judge::Script), |value| {
            choice(value, "status", &[("Script", Judge::Script), ("Group", Judge::Group)])
        });
        let check = Check::read(fields);
        let script = script?;
        let is_path = script.starts_with('/');
        let is_name = script.starts_with(|c: char| c.is_ascii_alphanumeric()) && !script.contains('/');
        if !(is_path || is_name) || script.contains('\0') {
            fields.problem("script", &format!("{script:?} is no init script: expected {SCRIPT}"), None);
            return None;
        }
        Some(LsbSpec { script, status: status?, check: check? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::read;

    #[test]
    fn a_script_is_read() {
        let (found, said) = read(r#"Lsb(script: "nginx")"#, LsbSpec::read);
        assert_eq!((found, said), (Some(LsbSpec::new("nginx")), String::new()));
        let (found, said) = read(r#"Lsb(script: "/opt/app/rc", status: Group)"#, LsbSpec::read);
        let expected = LsbSpec { status: Judge::Group, ..LsbSpec::new("/opt/app/rc") };
        assert_eq!((found, said), (Some(expected), String::new()));
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let (found, said) = read("Lsb(\n script: \"../nginx\",\n status: Groop,\n scirpt: \"x\")", LsbSpec::read);
        assert_eq!(found, None);
        for (line, expected) in [(2, "is no init script"), (3, "did you mean `Group`?"), (4, "did you mean `script`?")]
        {
            assert!(said.contains(expected) && said.contains(&format!("web.ron:{line}:")), "{expected}: {said}");
        }
    }
}
