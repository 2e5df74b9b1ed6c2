//! What an operator gets to read when a file is wrong.

use proptest::prelude::*;

use super::*;

/// Kinds as `ha-resources` might have them.
#[derive(Clone, Debug)]
struct Some3;

impl Kinds for Some3 {
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
        match kind {
            "Process" => fields.required::<Vec<String>>("command", "a list of words").map(|c| c.join(" ")),
            _ => {
                let address = fields.required::<String>("address", "an address with its prefix");
                let interface = fields.required::<String>("interface", "the name of an interface");
                Some(format!("{} {}", address?, interface?))
            }
        }
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

fn read(text: &str) -> Reading<Some3> {
    read_sources(&[Source::new("web.ron", text)], &Some3)
}

fn complaints(text: &str) -> Vec<String> {
    let said = |p: &Problem| format!("{}:{}: {}", p.line, p.column, p.message);
    read(text).diagnostics.problems().iter().map(said).collect()
}

#[test]
fn a_good_file_is_read_as_it_was_meant() {
    let reading = read(GOOD);
    assert_eq!(reading.diagnostics.to_string(), "");
    let web = &reading.loaded[0];
    assert_eq!(web.claim, "main");
    assert_eq!(web.hierarchy.policy.importance, 5);
    assert_eq!(web.hierarchy.resources[2].requires, [0, 1]);
    assert_eq!(web.hierarchy.resources[1].requires, [0_usize; 0]);
    assert_eq!(web.resources, ["/bin/data", "10.0.0.10/24 eth0", "/bin/server -p 80"]);
}

#[test]
fn all_mistakes_are_told_at_once_each_at_its_place() {
    let text = r#"Hierarchy(
    name: "we b",
    nodes: ["alpha", "alpha"],
    claim: LockAera("main"),
    importence: 5,
    settle: "0s",
    rank: Utility(margin: 200),
    resources: [
        Process(name: "data", comand: ["/bin/data"]),
        Adress(name: "vip"),
        Address(name: "ip", address: 5, requires: ["dta"]),
        Process(name: "data", command: ["x"], timeouts: (start: "5 parsecs"), requires: []),
    ],
)"#;
    let known = "name, nodes, claim, utility, importance, rank, failback, restarts, quarantine, decline_for, settle, \
                 forced_stop_within, on_stop_failure, resources";
    let name_rule = "1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit";
    let expected = [
        format!("2:11: hierarchy name \"we b\" is not valid: expected {name_rule}"),
        "3:22: node \"alpha\" is listed twice".to_owned(),
        "4:12: there is no claim `LockAera`: expected one of LockArea".to_owned(),
        format!("5:5: Hierarchy has no field `importence`: expected one of {known}"),
        "6:13: `settle` is zero: expected a length of time such as \"10s\"".to_owned(),
        "7:27: margin is 200: expected 1 to 100 points of utility".to_owned(),
        "9:9: Process has no field `command`: expected a list of words".to_owned(),
        "9:31: Process has no field `comand`: expected one of name, requires, timeouts, monitoring, command".to_owned(),
        "10:9: there is no kind of resource `Adress`: expected one of Process, Address".to_owned(),
        "11:9: Address has no field `interface`: expected the name of an interface".to_owned(),
        "11:38: `5` does not fit here: expected an address with its prefix".to_owned(),
        "11:51: there is no resource \"dta\" in this hierarchy: expected one of data, vip, ip, data".to_owned(),
        "12:23: resource \"data\" is here twice: first at line 9, column 9".to_owned(),
        "12:65: \"5 parsecs\" is not a length of time (unknown time unit \"parsecs\", supported units: ns, us/µs, ms, \
         sec, min, hours, days, weeks, months, years (and few variations)): expected one such as \"100ms\", \"2s\" or \
         \"10min\""
            .to_owned(),
    ];
    assert_eq!(complaints(text), expected);
    assert!(read(text).loaded.is_empty());
    let shown = read(text).diagnostics.to_string();
    assert!(shown.contains("did you mean `LockArea`?") && shown.contains("did you mean `command`?"), "{shown}");
    assert!(shown.contains("web.ron:5:5"), "{shown}");
}

#[test]
fn a_circle_is_told_as_a_path() {
    let text = r#"Hierarchy(name: "a", nodes: ["n"], claim: LockArea("m"), resources: [
    Process(name: "x", command: [], requires: ["z"]),
    Process(name: "y", command: []),
    Process(name: "z", command: []),
])"#;
    assert_eq!(complaints(text), ["2:47: these resources require each other in a circle: x → z → y → x"]);
}

#[test]
fn a_name_is_defined_once_in_all_files() {
    let both = [Source::new("a.ron", GOOD), Source::new("b.ron", GOOD)];
    let reading = read_sources(&both, &Some3);
    let text = reading.diagnostics.to_string();
    assert!(text.contains("hierarchy \"web\" is defined twice: first in a.ron, line 3, column 1"), "{text}");
}

#[test]
fn a_syntax_error_has_its_place() {
    let said = complaints("Hierarchy(\n    name: \"web\n)");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("this is not valid RON"), "{said:?}");
}

#[test]
fn layout_and_comments_do_not_change_a_fingerprint_but_values_do() {
    let fingerprint = |text: &str| read(text).loaded[0].hierarchy.fingerprint;
    let same =
        GOOD.replace("// The web shop.", "/* another */").replace("    ", " ").replace("\"beta\"]", "\"beta\",]");
    assert_eq!(fingerprint(GOOD), fingerprint(&same));
    assert_ne!(fingerprint(GOOD), fingerprint(&GOOD.replace("importance: 5", "importance: 6")));
    let server = |text: &str| read(text).loaded[0].hierarchy.resources[2].fingerprint;
    assert_eq!(server(GOOD), server(&GOOD.replace("every: \"1s\"", "every: \"2s\"")));
    assert_ne!(server(GOOD), server(&GOOD.replace("\"80\"", "\"81\"")));
}

#[test]
fn a_plan_says_what_is_touched() {
    let old = read(GOOD).loaded.remove(0).hierarchy;
    let plan = |text: &str| Plan::between(&[&old], &[&read(text).loaded[0].hierarchy]).to_string();
    assert_eq!(plan(GOOD), "nothing changes");
    let live = plan(&GOOD.replace("importance: 5", "importance: 6").replace("every: \"1s\"", "every: \"2s\""));
    assert!(live.contains("while it runs, untouched: policy") && live.contains("monitor of server"), "{live}");
    let restart = plan(&GOOD.replace("\"80\"", "\"81\""));
    assert!(restart.contains("restarted in place, with what requires it: server"), "{restart}");
    let rebuild = plan(&GOOD.replace("LockArea(\"main\")", "LockArea(\"other\")"));
    assert!(rebuild.contains("taken out of service and brought back: its claim is another one"), "{rebuild}");
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let deep = format!("Hierarchy(name: {}{})", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(complaints(&deep).len(), 1);
}

/// Texts that are nearly right.
fn mutated() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "(", ")", "[", "]", "\"", ",", ":", "{", "}", "//", "/*", "r#\"", "'", "\\", "ä", "5",
    ]);
    (prop::collection::vec((0..GOOD.len(), pieces, any::<bool>()), 1..6)).prop_map(|edits| {
        let mut text = GOOD.to_owned();
        for (at, piece, replace) in edits {
            let mut at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end = text[at..].chars().next().filter(|_| replace).map_or(at, |c| at + c.len_utf8());
            text.replace_range(at..end, piece);
        }
        text
    })
}

proptest! {
    #[test]
    fn nothing_that_can_be_written_makes_the_reader_panic(text in prop_oneof![any::<String>(), mutated()]) {
        let reading = read(&text);
        for problem in reading.diagnostics.problems() {
            prop_assert!(problem.line >= 1 && problem.line <= text.matches('\n').count() + 1);
        }
        let _ = reading.diagnostics.to_string();
        prop_assert!(!reading.loaded.is_empty() || reading.diagnostics.has_errors() || text.trim_start().starts_with('['));
    }
}
