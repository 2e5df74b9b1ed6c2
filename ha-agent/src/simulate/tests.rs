//! The examples of the repository and small clusters, simulated from their files as `ha simulate` does it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ha_core::hierarchy::Source;
use ha_core::name::NodeName;
use ha_core::sim::scenario::parse_steps;

use super::{
    Assumed, Fault, Outcome, Part, Report, Served, Spent, Stage, Whose, findings, is_well, losses, scenario, trial,
};
use crate::render::simulate as render;
use crate::view::Severity;

const AGENT: &str = r#"(
    cluster: "shop",
    nodes: {
        "alpha": (addresses: ["10.1.0.1:7946", "10.2.0.1:7946"]),
        "beta": (addresses: ["10.1.0.2:7946", "10.2.0.2:7946"]),
        "gamma": (addresses: ["10.1.0.3:7946", "10.2.0.3:7946"]),
    },
    keys: "/etc/ha/keys",
    lock_areas: { "main": (path: "/dev/vdb") },
    watchdog: Device("/dev/watchdog"),
)"#;

fn assumed() -> Assumed {
    Assumed { starts: Vec::new(), boot: Duration::from_secs(60), seed: 1 }
}

/// The examples under `hierarchies/`, with this agent.ron.
fn examples(agent: &str, assumed: Assumed) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("agent.ron"), agent).unwrap();
    fs::create_dir(dir.path().join("hierarchies")).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../hierarchies")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("hierarchies").join(entry.file_name())).unwrap();
    }
    let (config, hierarchies, _) = crate::config::read_whole(dir.path()).unwrap();
    Stage::new(&config, &hierarchies, assumed).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn served<'a>(outcome: &'a Outcome, name: &str) -> &'a Served {
    outcome.hierarchies.iter().find(|served| served.name == name).unwrap()
}

fn told(stage: &Stage, outcomes: &[Outcome]) -> Vec<String> {
    findings(stage, outcomes).iter().map(|p| format!("{}: {}", p.about, p.what)).collect()
}

#[test]
fn after_every_loss_each_example_is_served_as_long_as_one_of_its_nodes_is_left() {
    let stage = examples(AGENT, assumed());
    let nodes: Vec<NodeName> = stage.setup.nodes.iter().map(|n| n.name.clone()).collect();
    let mut outcomes = Vec::new();
    for (number, lost) in (0..).zip(losses(&nodes)) {
        let faults: Vec<Fault> = lost.into_iter().map(Fault::Kill).collect();
        let outcome = trial(&stage, number, &faults);
        assert_eq!(outcome.violation, None, "{outcome:?}");
        for (served, setup) in outcome.hierarchies.iter().zip(&stage.setup.hierarchies) {
            let left = setup.hierarchy.nodes.iter().any(|n| !outcome.lost.iter().any(|l| l == n.as_str()));
            assert_eq!(served.to.is_some(), left, "{}: {served:?}", outcome.what);
            assert!(
                served.from == served.to || !left || served.out_ms <= served.at_most_ms,
                "{}: {served:?}",
                outcome.what
            );
        }
        outcomes.push(outcome);
    }
    assert!(is_well(&outcomes));
    let told = told(&stage, &outcomes);
    let only = "accounts, catalogue, database, gateway, search: after losing alpha and beta nothing can run them: their nodes are alpha and beta only";
    assert!(told.iter().any(|line| line == only), "{told:#?}");
    let stand_in = "shop: it is claimed by reservation, and a lease of 5.0 s stands in for that here";
    assert!(told.iter().any(|line| line.starts_with(stand_in)), "{told:#?}");
    assert!(findings(&stage, &outcomes).iter().all(|p| p.severity != Severity::Error), "{told:#?}");
}

#[test]
fn what_is_asked_for_and_leaves_something_unserved_is_an_error() {
    let stage = examples(AGENT, assumed());
    let outcomes = [trial(&stage, 0, &[Fault::Kill(node("alpha")), Fault::Kill(node("beta"))])];
    assert!(!is_well(&outcomes));
    assert_eq!(outcomes[0].what, "alpha and beta lose power");
    assert_eq!(served(&outcomes[0], "web").to.as_deref(), Some("gamma"));
    assert_eq!(served(&outcomes[0], "database").to, None);
    assert_eq!(findings(&stage, &outcomes)[0].severity, Severity::Error);
}

#[test]
fn a_cut_network_moves_nothing_and_so_does_a_restart_of_all_agents() {
    let stage = examples(AGENT, assumed());
    for fault in
        [Fault::Cut("alpha,beta|gamma".parse().unwrap()), Fault::Cut("beta".parse().unwrap()), Fault::RestartAgents]
    {
        let outcome = trial(&stage, 0, std::slice::from_ref(&fault));
        assert_eq!(outcome.violation, None);
        assert!(outcome.hierarchies.iter().all(|s| s.out_ms == 0 && s.from == s.to), "{fault}: {outcome:#?}");
    }
}

#[test]
fn a_node_without_storage_gives_way_and_a_crash_is_repaired_in_place() {
    let stage = examples(AGENT, assumed());
    let outcome = trial(&stage, 0, &[Fault::StorageLoss(Whose::Of(node("alpha")))]);
    let web = served(&outcome, "web");
    assert_eq!((web.from.as_deref(), web.to.as_deref()), (Some("alpha"), Some("beta")));
    assert!(web.out_ms > 0);
    let outcome = trial(&stage, 0, &[Fault::Crash("web/server".parse().unwrap())]);
    let web = served(&outcome, "web");
    assert_eq!((web.from.as_deref(), web.to.as_deref()), (Some("alpha"), Some("alpha")));
    assert!(web.out_ms > 0);
}

#[test]
fn a_machine_that_hangs_with_its_warden_is_told_to_be_unsafe() {
    let stage = examples(&AGENT.replace("Device(\"/dev/watchdog\")", "Warden"), assumed());
    let outcomes = [trial(&stage, 0, &[Fault::Hang(node("alpha"))])];
    assert!(!is_well(&outcomes));
    let told = told(&stage, &outcomes);
    assert!(told[0].starts_with("alpha hangs: UNSAFE"), "{told:#?}");
    let device = examples(AGENT, assumed());
    assert!(is_well(&[trial(&device, 0, &[Fault::Hang(node("alpha"))])]));
}

#[test]
fn start_times_that_are_told_are_part_of_the_outage() {
    let start = |part: &str| (Some(part.parse::<Part>().unwrap()), Duration::from_secs(20));
    let stage = examples(AGENT, Assumed { starts: vec![start("web/server")], ..assumed() });
    let outcome = trial(&stage, 0, &[Fault::Kill(node("alpha"))]);
    let spent = served(&outcome, "web").spent.unwrap();
    assert!((20_000..21_000).contains(&spent.start_ms), "{spent:?}");
    assert!(served(&outcome, "gateway").spent.unwrap().start_ms < 1_000);
}

#[test]
fn the_same_seed_tells_the_same() {
    let run = || {
        let outcome = trial(&examples(AGENT, assumed()), 0, &[Fault::Kill(node("gamma"))]);
        serde_json::to_string(&outcome).unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn steps_of_a_scenario_are_told_where_they_fail() {
    let stage = examples(AGENT, assumed());
    let play = |text: &str| {
        let steps = parse_steps(&Source::new("x.scenario", text), &stage.setup).unwrap();
        scenario(&stage, "x.scenario", &steps)
    };
    let good = play("power off alpha\nuntil web in service on beta within 20s\n");
    assert!(is_well(std::slice::from_ref(&good)), "{good:#?}");
    let bad = play("power off alpha\nuntil web in service on gamma within 20s\n");
    assert!(bad.failed.as_deref().is_some_and(|why| why.starts_with("line 2: ")), "{bad:#?}");
    assert!(!is_well(&[bad]));
}

#[test]
fn names_that_are_not_there_are_refused() {
    let stage = examples(AGENT, assumed());
    let refused = |fault: Fault| fault.check(&stage.setup).unwrap_err();
    assert_eq!(refused(Fault::Kill(node("alfa"))).what, "there is no node \"alfa\" in agent.ron");
    let crash = Fault::Crash("web/sever".parse().unwrap());
    assert_eq!(refused(crash).help.as_deref(), Some("expected one of: data, vip, server"));
    assert!("web".parse::<Part>().is_err());
    assert!("alpha|alpha".parse::<super::Groups>().is_err());
}

#[test]
fn the_report_of_one_fault_letter_by_letter() {
    let web = Served {
        name: "web".to_owned(),
        from: Some("alpha".to_owned()),
        to: Some("beta".to_owned()),
        out_ms: 6_890,
        spent: Some(Spent { detect_ms: 1_301, claim_ms: 5_519, start_ms: 70 }),
        at_most_ms: 8_540,
        could: true,
        why: Vec::new(),
    };
    let database = Served { name: "database".to_owned(), to: None, spent: None, could: false, ..web.clone() };
    let queue = Served { name: "queue".to_owned(), to: web.from.clone(), out_ms: 0, spent: None, ..web.clone() };
    let outcome = Outcome {
        what: "alpha loses power".to_owned(),
        lost: vec!["alpha".to_owned()],
        hierarchies: vec![database, queue, web],
        violation: None,
        failed: None,
        timeline: Vec::new(),
    };
    let nodes = vec!["alpha".to_owned(), "beta".to_owned()];
    let report = Report { cluster: "shop".to_owned(), nodes, seed: 1, happenings: vec![outcome], findings: Vec::new() };
    let shown = anstream::adapter::strip_str(&render::report(&report, None)).to_string();
    let expected = "\
cluster shop, simulated: alpha, beta

alpha loses power

  HIERARCHY  FROM   TO            OUT FOR    DETECT  CLAIM  START  AT MOST
  database   alpha  no node left  stays out
  web        alpha  beta          6.8 s      1.3 s   5.5 s  70 ms  8.5 s

  not affected: queue

not all is well in the end: the errors above say what
";
    assert!(shown == expected, "shown:\n{shown}\nexpected:\n{expected}");
}
