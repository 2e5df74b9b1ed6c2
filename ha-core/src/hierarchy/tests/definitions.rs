//! What a file means, what counts as the same definition, and what a change of it touches.

use super::*;
use crate::name::GroupName;

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
fn a_hierarchy_that_is_spread_ranks_by_utility() {
    let policy = |more: &str| {
        let text = GOOD.replace("Ping(\"10.0.0.254\")]", &format!("Ping(\"10.0.0.254\"), Spread(\"sites\")]{more}"));
        let reading = read(&text);
        assert_eq!(reading.diagnostics.to_string(), "");
        assert_eq!(reading.loaded[0].probes, ["10.0.0.254"], "it is no probe to be measured by anybody");
        reading.loaded[0].hierarchy.policy.rank.clone()
    };
    let spread = |margin| Rank::Utility { margin, spread: GroupName::new("sites").ok() };
    assert_eq!(policy(""), spread(10));
    assert_eq!(policy(", rank: Utility(margin: 25)"), spread(25));
}
