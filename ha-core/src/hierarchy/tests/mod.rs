//! Hierarchies as they are written, right and wrong.

mod definitions;
mod places;
mod problems;

use super::*;

/// Kinds as `ha-resources` might have them.
struct Toys;

impl Kinds for Toys {
    type Resource = String;
    type Claim = String;
    type Probe = String;

    fn resource_kinds(&self) -> &[&'static str] {
        &["Process", "Address"]
    }
    fn claim_kinds(&self) -> &[&'static str] {
        &["LockArea"]
    }
    fn probe_kinds(&self) -> &[&'static str] {
        &["Ping"]
    }
    fn resource(&self, kind: &str, fields: &mut Fields<'_>) -> Option<String> {
        if kind == "Process" {
            return fields.required::<Vec<String>>("command", "a list of words").map(|c| c.join(" "));
        }
        let address = fields.required::<String>("address", "an address with its prefix");
        let interface = fields.required::<String>("interface", "the name of an interface");
        Some(format!("{} {}", address?, interface?))
    }
    fn claim(&self, _: &str, fields: &mut Fields<'_>) -> Option<String> {
        fields.only_or("name", "the name of a lock area")
    }
    fn probe(&self, _: &str, fields: &mut Fields<'_>) -> Option<String> {
        fields.only_or("address", "an address")
    }
}

const GOOD: &str = r#"
// The web shop.
Hierarchy(
    name: "web",
    nodes: ["alpha", "beta"],
    claim: LockArea("main"),
    utility: [Ping("10.0.0.254")],
    importance: 5,
    failback: Auto(after: "30s"),
    resources: [
        Process(name: "data", command: ["/bin/data"], timeouts: (start: "5s")),
        Address(name: "vip", address: "10.0.0.10/24", interface: "eth0", requires: []),
        Process(name: "server", command: ["/bin/server", "-p", "80"], requires: ["data", "vip"], monitoring: (every: "1s")),
    ],
)
"#;

fn read(text: &str) -> Reading<Toys> {
    read_sources(&[Source::new("web.ron", text)], &Toys)
}

fn complaints(text: &str) -> Vec<String> {
    let said = |p: &Problem| format!("{}:{}: {}", p.line, p.column, p.message);
    read(text).diagnostics.problems().iter().map(said).collect()
}
