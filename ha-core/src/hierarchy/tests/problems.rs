//! What an operator gets to read when a file is wrong.

use super::*;

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
        "4:12: there is no claim `LockAera`: expected `LockArea`".to_owned(),
        format!("5:5: Hierarchy has no field `importence`: expected one of {known}"),
        "6:13: `settle` is zero: expected a length of time such as \"10s\"".to_owned(),
        "7:27: margin is 200: expected 1 to 100 points of utility".to_owned(),
        "9:9: Process lacks the field `command`: expected a list of words".to_owned(),
        "9:31: Process has no field `comand`: expected one of name, requires, timeouts, monitoring, command".to_owned(),
        "10:9: there is no kind of resource `Adress`: expected one of Process, Address".to_owned(),
        "11:9: Address lacks the field `interface`: expected the name of an interface".to_owned(),
        "11:38: `5` does not fit here: expected an address with its prefix".to_owned(),
        "11:52: there is no resource \"dta\" in this hierarchy: expected one of data, vip, data".to_owned(),
        "12:23: resource \"data\" is here twice".to_owned(),
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
    assert_eq!(complaints(text), ["2:48: these resources require each other in a circle: x → z → y → x"]);
}

/// A good file with one thing wrong in it, and what is said of it.
const WRONG: &[(&str, &str, &[&str])] = &[
    // Syntax: one problem, as near to the cause as can be.
    ("name: \"web\",", "name: \"web,", &["5:14: a comma or `)` is expected here"]),
    ("name: \"web\",", "name: \"web\"", &["5:5: a comma or `)` is expected here"]),
    ("name: \"web\",", "name \"web\",", &["4:10: a comma or `)` is expected here"]),
    ("name: \"web\",", "name: ,", &["4:11: a value is expected here"]),
    ("[\"alpha\", \"beta\"]", "[\"alpha\", \"beta\"", &["6:10: a comma or `]` is expected here"]),
    ("[\"alpha\", \"beta\"]", "[\"alpha\" \"beta\"]", &["5:21: a comma or `]` is expected here"]),
    ("requires: []),", "requires: [],", &["13:9: a field name and a colon are expected here"]),
    ("// The web shop.", "/* The web shop.", &["2:1: this comment is never closed"]),
    ("    ],\n)", "    ],", &["3:10: this bracket is never closed"]),
    ("    ],\n)", "    ],\n))", &["15:2: one value is expected in a file, and nothing after it"]),
    ("\"main\"", "\"ma\\qin\"", &["6:22: this is not valid RON: unknown escape character"]),
    // What is not there, not known, or there twice.
    ("Hierarchy(", "Hierachy(", &["3:1: there is no thing to define `Hierachy`: expected `Hierarchy`"]),
    ("Hierarchy(", "(", &["3:1: `(…)` does not fit here: expected `Hierarchy(…)`"]),
    ("name: \"web\",", "", &["3:1: Hierarchy lacks the field `name`: expected the name of the hierarchy"]),
    (
        "claim: LockArea(\"main\"),",
        "",
        &[
            "3:1: Hierarchy lacks the field `claim`: expected what the hierarchy is owned by, such as `LockArea(\"main\")`",
        ],
    ),
    ("name: \"web\",", "name: \"web\", name: \"shop\",", &["4:18: field `name` is here twice"]),
    ("name: \"vip\", ", "", &["12:9: Address lacks the field `name`: expected the name of the resource"]),
    (
        "name: \"vip\"",
        "Name: \"vip\"",
        &[
            "12:9: Address lacks the field `name`: expected the name of the resource",
            "12:17: Address has no field `Name`: expected one of name, requires, timeouts, monitoring, address, interface",
        ],
    ),
    ("\"vip\"]", "\"vip\", \"data\"]", &["13:97: \"data\" is required twice"]),
    ("requires: []", "requires: [\"vip\"]", &["12:85: resource \"vip\" requires itself"]),
    ("interface: \"eth0\"", "interface: \"eth0\", interface: \"eth1\"", &["12:74: field `interface` is here twice"]),
    (
        "LockArea(\"main\")",
        "LockArea(\"main\", \"spare\")",
        &["6:29: LockArea takes one value, and here is another: expected the name of a lock area"],
    ),
    ("LockArea(\"main\")", "LockArea", &["6:12: LockArea lacks the field `name`: expected the name of a lock area"]),
    (
        "LockArea(\"main\")",
        "LockArea(nam: \"main\")",
        &[
            "6:12: LockArea lacks the field `name`: expected the name of a lock area",
            "6:21: LockArea has no field `nam`: expected `name`",
        ],
    ),
    ("Ping(\"10.0.0.254\")", "Pong(\"10.0.0.254\")", &["7:15: there is no probe `Pong`: expected one of Ping, Spread"]),
    // What is of another kind than expected.
    (
        "[\"alpha\", \"beta\"]",
        "\"alpha\"",
        &["5:12: `\"alpha\"` does not fit here: expected a list of nodes, the preferred one first"],
    ),
    ("[\"alpha\", \"beta\"]", "[]", &["5:12: a hierarchy needs nodes that may serve it: expected at least one"]),
    (
        "[\"alpha\", \"beta\"]",
        "[alpha, 5, \"\", \"gamma\"]",
        &[
            "5:13: `alpha` does not fit here: expected the name of a node",
            "5:20: `5` does not fit here: expected the name of a node",
            "5:23: node name \"\" is not valid: expected 1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit",
        ],
    ),
    ("LockArea(\"main\")", "\"main\"", &["6:12: `\"main\"` does not fit here: expected a claim: `LockArea`"]),
    ("LockArea(\"main\")", "LockArea(5)", &["6:21: `5` does not fit here: expected the name of a lock area"]),
    (
        "command: [\"/bin/data\"]",
        "command: [\"/bin/data\", 5]",
        &["11:54: `5` does not fit here: expected a list of words"],
    ),
    (
        "command: [\"/bin/data\"]",
        "command: \"/bin/data\"",
        &["11:40: `\"/bin/data\"` does not fit here: expected a list of words"],
    ),
    (
        "importance: 5",
        "importance: \"high\"",
        &["8:17: `\"high\"` does not fit here: expected a whole number, more is more important"],
    ),
    (
        "importance: 5",
        "importance: 5000000000",
        &["8:17: `5000000000` is too large or too small: expected a whole number, more is more important"],
    ),
    (
        "utility: [Ping(\"10.0.0.254\")]",
        "utility: Ping(\"10.0.0.254\")",
        &["7:14: `Ping(…)` does not fit here: expected a list of probes, such as `[Ping(\"10.0.0.254\")]`"],
    ),
    ("(start: \"5s\")", "(start: 5)", &["11:73: `5` does not fit here: expected a length of time such as \"10s\""]),
    (
        "(start: \"5s\")",
        "(strat: \"5s\", stop: \"0s\")",
        &[
            "11:66: timeouts has no field `strat`: expected one of start, stop, monitor, kill",
            "11:85: `stop` is zero: expected a length of time such as \"10s\"",
        ],
    ),
    (
        "(start: \"5s\")",
        "\"5s\"",
        &["11:65: `\"5s\"` does not fit here: expected the fields of timeouts in round brackets"],
    ),
    (
        "(every: \"1s\")",
        "(every: \"0ms\", unknowns_tolerated: -1)",
        &[
            "13:118: `every` is zero: expected a length of time such as \"10s\"",
            "13:145: `-1` is too large or too small: expected a whole number",
        ],
    ),
    ("resources: [", "resources: { 1: [", &["15:1: a value is expected here"]),
    // Policy.
    (
        "Auto(after: \"30s\")",
        "Auto",
        &["9:15: Auto lacks the field `after`: expected how long the better node must have been well, such as \"30s\""],
    ),
    (
        "Auto(after: \"30s\")",
        "Manually",
        &["9:15: there is no kind of failback `Manually`: expected one of Manual, Auto"],
    ),
    ("Auto(after: \"30s\")", "Manual(after: \"30s\")", &["9:22: Manual has no field `after`: expected no fields"]),
    (
        "[Ping(\"10.0.0.254\")],\n    importance: 5",
        "[Spread(\"sites\")],\n    rank: Priority",
        &["7:15: `Spread` lowers the utility, and this hierarchy does not rank by utility"],
    ),
    ("[Ping(\"10.0.0.254\")]", "[Spread(\"a\"), Spread(\"b\")]", &["7:28: a hierarchy is in one group only"]),
    (
        "[Ping(\"10.0.0.254\")]",
        "[Spread(\"web sites\")]",
        &[
            "7:22: group name \"web sites\" is not valid: expected 1 to 63 characters of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or digit",
        ],
    ),
    ("importance: 5", "rank: Utility(margin: 101)", &["8:27: margin is 101: expected 1 to 100 points of utility"]),
    (
        "importance: 5",
        "rank: Utility",
        &["8:11: Utility lacks the field `margin`: expected 1 to 100 points of utility"],
    ),
    (
        "importance: 5",
        "restarts: (count: 0, within: \"0s\")",
        &["8:34: `within` is zero: expected a length of time such as \"10s\""],
    ),
    (
        "importance: 5",
        "quarantine: (after: 0, within: \"10min\", count: 3)",
        &[
            "8:25: `after` is 0: expected at least 1",
            "8:45: quarantine has no field `count`: expected one of after, within",
        ],
    ),
    (
        "importance: 5",
        "on_stop_failure: Rest",
        &["8:22: there is no way to treat a failed stop `Rest`: expected one of Reset, Hold"],
    ),
    (
        "importance: 5",
        "decline_for: \"ten minutes\", settle: 30",
        &[
            "8:18: \"ten minutes\" is not a length of time (expected number at 0): expected one such as \"100ms\", \"2s\" or \"10min\"",
            "8:41: `30` does not fit here: expected a length of time such as \"10s\"",
        ],
    ),
];

#[test]
fn each_mistake_is_told_at_its_place_with_what_was_expected() {
    for (right, wrong, expected) in WRONG {
        assert_eq!(GOOD.matches(right).count(), 1, "{right} is not once in the good file");
        let text = GOOD.replace(right, wrong);
        assert_eq!(complaints(&text), *expected, "{right} replaced by {wrong}:\n{text}");
        assert!(read(&text).loaded.is_empty(), "{wrong} was read all the same");
    }
}

#[test]
fn a_name_is_defined_once_in_all_files_and_both_places_are_shown() {
    let reading = read_sources(&[Source::new("a.ron", GOOD), Source::new("b.ron", GOOD)], &Toys);
    let shown = "\
error: hierarchy \"web\" is defined twice
 --> b.ron:4:11
  |
4 |     name: \"web\",
  |           ^^^^^
  |
 ::: a.ron:4:11
  |
4 |     name: \"web\",
  |           ----- first here";
    assert_eq!(reading.diagnostics.to_string(), shown);
    assert_eq!(reading.loaded.len(), 1);
}

#[test]
fn what_was_meant_is_suggested_below_the_line_that_is_wrong() {
    let text = GOOD.replace("name: \"web\",", "name: \"web\", name: \"b\",").replace("importance", "importence");
    let shown = "\
error: field `name` is here twice
 --> web.ron:4:18
  |
4 |     name: \"web\", name: \"b\",
  |     ----         ^^^^
  |     |
  |     first here

error: Hierarchy has no field `importence`: expected one of name, nodes, claim, utility, importance, rank, failback, restarts, \
quarantine, decline_for, settle, forced_stop_within, on_stop_failure, resources
 --> web.ron:8:5
  |
8 |     importence: 5,
  |     ^^^^^^^^^^
  |
  = help: did you mean `importance`?";
    assert_eq!(read(&text).diagnostics.to_string(), shown);
    assert!(read(&text).diagnostics.in_colour().contains("\u{1b}["));
}

#[test]
fn problems_can_be_handed_to_programs() {
    let diagnostics = read(&GOOD.replace("importance: 5", "importance: x")).diagnostics;
    let json = serde_json::to_value(&diagnostics).unwrap();
    let expected = serde_json::json!([{
        "file": "web.ron", "line": 8, "column": 17, "severity": "error",
        "message": "`x` does not fit here: expected a whole number, more is more important",
        "help": null, "related": null,
    }]);
    assert_eq!(json, expected);
}

#[test]
fn a_list_of_hierarchies_loses_only_those_that_are_wrong() {
    let one = GOOD.replace("// The web shop.", "");
    let other = one.replace("\"web\"", "\"shop\"").replace("importance: 5", "importance: high");
    let reading = read(&format!("[{one}, {other}]"));
    let names: Vec<_> = reading.loaded.iter().map(|l| l.hierarchy.name.as_str()).collect();
    assert_eq!(names, ["web"]);
    assert!(reading.diagnostics.has_errors());
}

#[test]
fn a_node_that_the_cluster_does_not_have_is_refused_where_the_cluster_is_known() {
    struct Known(Vec<crate::name::NodeName>);
    impl Kinds for Known {
        type Resource = String;
        type Claim = String;
        type Probe = String;
        fn resource_kinds(&self) -> &[&'static str] {
            Toys.resource_kinds()
        }
        fn claim_kinds(&self) -> &[&'static str] {
            Toys.claim_kinds()
        }
        fn probe_kinds(&self) -> &[&'static str] {
            Toys.probe_kinds()
        }
        fn cluster_nodes(&self) -> Option<&[crate::name::NodeName]> {
            Some(&self.0)
        }
        fn resource(&self, kind: &str, fields: &mut Fields<'_>) -> Option<String> {
            Toys.resource(kind, fields)
        }
        fn claim(&self, kind: &str, fields: &mut Fields<'_>) -> Option<String> {
            Toys.claim(kind, fields)
        }
        fn probe(&self, kind: &str, fields: &mut Fields<'_>) -> Option<String> {
            Toys.probe(kind, fields)
        }
    }
    let cluster = Known(["alpha", "betty"].map(|n| crate::name::NodeName::new(n).unwrap()).to_vec());
    let diagnostics = read_sources(&[Source::new("web.ron", GOOD)], &cluster).diagnostics;
    let problem = &diagnostics.problems()[0];
    assert_eq!(problem.message, "there is no node of this cluster `beta`: expected one of alpha, betty");
    assert_eq!(problem.help.as_deref(), Some("did you mean `betty`?"));
}

#[test]
fn files_of_a_directory_are_read_by_name_and_those_that_cannot_be_are_told_too() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    put("b.ron", GOOD.as_bytes());
    put("a.ron", GOOD.replace("\"web\"", "\"shop\"").as_bytes());
    put("c.ron", b"Hierarchy(\n  name: \"\xff\")");
    put(".d.ron", b"an editor's own");
    put("notes.txt", b"not for us");
    let reading = read_directory(directory.path(), &Toys);
    let names: Vec<_> = reading.loaded.iter().map(|l| l.hierarchy.name.as_str()).collect();
    assert_eq!(names, ["shop", "web"]);
    let told: Vec<_> = reading.diagnostics.problems().iter().map(|p| (p.line, p.message.as_str())).collect();
    assert_eq!(told, [(0, "the file is not UTF-8 text: the first wrong byte is 0xff in line 2")]);
    let missing = read_directory(&directory.path().join("missing"), &Toys);
    assert!(missing.diagnostics.to_string().contains("cannot be read: No such file or directory"));
    assert!(missing.diagnostics.to_string().contains("create the directory"), "{}", missing.diagnostics);
}

#[test]
fn a_map_with_one_key_twice_is_refused_however_it_is_read_and_written() {
    let source = Source::new("nodes.ron", "{ \"alpha\": 1, \"beta\": 2, \"al\\u{70}ha\": 3 }");
    let (_, diagnostics) =
        read_value(&source, |value| value.read::<std::collections::BTreeMap<String, u8>>("nodes with their numbers"));
    let problem = &diagnostics.problems()[0];
    assert_eq!((problem.column, problem.message.as_str()), (26, "key `alpha` is here twice"));
    assert_eq!(problem.related.as_ref().map(|r| (r.column, r.label.as_str())), Some((3, "first here")));
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let deep = format!("Hierarchy(name: {}{})", "[".repeat(100_000), "]".repeat(100_000));
    let said = complaints(&deep);
    assert_eq!(said, ["1:81: values nest too deeply: at most 64 levels are expected"]);
}
