//! The format: that what prints can be read, that what is wrong is said, and that a scenario fails when it should.

use std::time::Duration;

use proptest::prelude::*;

use super::actions::action;
use super::words::{Line, Names};
use super::*;
use crate::engine::{Ask, Switch};
use crate::hierarchy::Source;
use crate::name::{HierarchyName, NodeName, ResourceName};
use crate::recovery::Pressure;
use crate::sim::{Action, Answers, Behaviour, Path, ToDisk, Way, Weather};

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        any::<u32>().prop_map(|ms| Duration::from_millis(ms.into())),
        (any::<u32>(), 0..1_000_000_000u32).prop_map(|(s, ns)| Duration::new(s.into(), ns)),
    ]
}

/// Also names that are words of the format.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}",
        Just("all".to_owned()),
        Just("on".to_owned()),
        Just("to".to_owned()),
        Just("for".to_owned()),
        Just("nothing".to_owned()),
        Just("everywhere".to_owned()),
    ]
}

fn node() -> impl Strategy<Value = NodeName> {
    name().prop_map(|name| NodeName::new(name).unwrap())
}

fn hierarchy() -> impl Strategy<Value = HierarchyName> {
    name().prop_map(|name| HierarchyName::new(name).unwrap())
}

fn resource() -> impl Strategy<Value = ResourceName> {
    name().prop_map(|name| ResourceName::new(name).unwrap())
}

fn path() -> impl Strategy<Value = Path> {
    prop_oneof![Just(Path::Good), span().prop_map(Path::Slow), Just(Path::Errors), Just(Path::Hangs), Just(Path::Lost)]
}

fn behaviour() -> BoxedStrategy<Behaviour> {
    use Behaviour as B;
    let plain = [
        B::Well,
        B::StartFails,
        B::StartHangs,
        B::StopFails,
        B::StopHangs,
        B::Unkillable,
        B::MonitorBad,
        B::MonitorHangs,
        B::MonitorLies,
    ];
    prop_oneof![prop::sample::select(plain.to_vec()), span().prop_map(B::Crashes)].boxed()
}

fn ask() -> BoxedStrategy<Ask> {
    let of_hierarchy = (hierarchy(), prop::option::of(node()), 0..7).prop_map(|(hierarchy, to, which)| match which {
        0 => Ask::Start { hierarchy },
        1 => Ask::Stop { hierarchy },
        2 => Ask::Move { hierarchy, to },
        3 => Ask::Unpin { hierarchy },
        4 => Ask::Maintenance { hierarchy, switch: Switch::On },
        5 => Ask::Maintenance { hierarchy, switch: Switch::Off },
        _ => Ask::Clear { hierarchy },
    });
    prop_oneof![of_hierarchy, prop::sample::select(vec![Ask::Standby, Ask::Online, Ask::Drain, Ask::View])].boxed()
}

fn of_machine() -> BoxedStrategy<Action> {
    let verbs: Vec<fn(NodeName) -> Action> = vec![
        Action::PowerOff,
        Action::PowerOn,
        Action::Freeze,
        Action::Thaw,
        Action::KillAgent,
        Action::StartAgent,
        Action::PauseAgent,
        Action::ResumeAgent,
        Action::HangOperations,
        Action::FreeOperations,
    ];
    let pressure = prop::sample::select(vec![Pressure::Calm, Pressure::High]);
    prop_oneof![
        (prop::sample::select(verbs), node()).prop_map(|(verb, node)| verb(node)),
        (node(), span()).prop_map(|(node, by)| Action::Lag(node, by)),
        (node(), pressure).prop_map(|(node, pressure)| Action::Pressure(node, pressure)),
        (node(), path()).prop_map(|(node, path)| Action::Storage(node, path)),
        (node(), ".*").prop_map(|(node, version)| Action::Upgrade { node, version }),
    ]
    .boxed()
}

fn of_network() -> BoxedStrategy<Action> {
    let channel = || prop::option::of(0..4usize);
    prop_oneof![
        (node(), node(), channel()).prop_map(|(from, to, channel)| Action::Cut { from, to, channel }),
        (node(), node(), channel()).prop_map(|(from, to, channel)| Action::Join { from, to, channel }),
        prop::sample::select(vec![Action::CutAll, Action::HealNetwork, Action::HealAll]),
        (0..=1_000u16, 0..=1_000u16, span()).prop_map(|(lost, doubled, delay)| Action::Weather(Weather {
            lost,
            doubled,
            delay
        })),
    ]
    .boxed()
}

fn of_disk() -> BoxedStrategy<Action> {
    let share = || 0..=1_000u16;
    let answers = prop_oneof![
        prop::sample::select(vec![Answers::Good, Answers::Full]),
        share().prop_map(Answers::Lost),
        share().prop_map(Answers::Busy),
        span().prop_map(Answers::Late),
    ];
    let plain = prop::sample::select(vec![ToDisk::Off, ToDisk::On, ToDisk::Reset]);
    let what = prop_oneof![plain, answers.prop_map(ToDisk::Answers)];
    let way = prop::sample::select(vec![Way::Up, Way::Down]);
    prop_oneof![
        (hierarchy(), 0..4usize, what).prop_map(|(hierarchy, disk, what)| Action::Disk { hierarchy, disk, what }),
        (node(), hierarchy(), 0..4usize, 1..4u16, way)
            .prop_map(|(node, hierarchy, disk, port, way)| Action::DiskPath { node, hierarchy, disk, port, way }),
    ]
    .boxed()
}

fn of_hierarchy() -> BoxedStrategy<Action> {
    prop_oneof![
        (node(), hierarchy(), resource()).prop_map(|(node, hierarchy, resource)| Action::Crash {
            node,
            hierarchy,
            resource
        }),
        (prop::option::of(node()), hierarchy(), resource(), behaviour())
            .prop_map(|(node, hierarchy, resource, how)| Action::Behave { node, hierarchy, resource, how }),
        (node(), hierarchy(), 0..=100u8).prop_map(|(node, hierarchy, utility)| Action::Utility {
            node,
            hierarchy,
            utility
        }),
        (node(), hierarchy(), prop::option::of(".*")).prop_map(|(node, hierarchy, what)| Action::Lacks {
            node,
            hierarchy,
            what
        }),
        (node(), prop::option::of(node()), ask()).prop_map(|(at, to, ask)| Action::Ask { at, to, ask }),
        (node(), hierarchy(), any::<u32>()).prop_map(|(node, hierarchy, revision)| Action::Reload {
            node,
            hierarchy,
            revision
        }),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn every_action_is_read_as_it_was_printed(action_given in prop_oneof![of_machine(), of_network(), of_disk(), of_hierarchy()]) {
        let names = Names { channels: 4, incomplete: true, ..Names::default() };
        let text = action_given.to_string();
        let mut line = Line::new(&text, 0, &names).unwrap();
        let read = action(&mut line);
        prop_assert_eq!(read.map_err(|bad| bad.message), Ok(action_given), "{}", text);
        prop_assert!(line.is_over(), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(#.*\n)?((nodes|hierarchy|expect|until|cut|ask|[a-z:,()\"/0-9é -])*\n?)*") {
        let _ = Scenario::parse(&Source::new("any", text));
    }
}

const CLUSTER: &str = "\
# Two nodes.
nodes alpha beta
hierarchy web on alpha beta: disk, server
";

fn parse(steps: &str) -> Scenario {
    let text = format!("{CLUSTER}{steps}");
    Scenario::parse(&Source::new("test.scenario", text)).unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let text = "\
nodes alpha beta
hierarchy web on alpha beta: disk, server

power of alpha
until web in service on bta within 5s
expct web out of service
crash web/servr on alpha
wait 3 s
cut alpha -> beta on net7
networks 3
";
    let wrong = Scenario::parse(&Source::new("bad.scenario", text)).unwrap_err();
    let seen: Vec<_> =
        wrong.problems().iter().map(|p| (p.line, p.column, p.message.as_str(), p.help.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (
                1,
                1,
                "the first line must say what the scenario shows, in a comment",
                Some("for example: `# A node loses power: the next in rank serves what it had.`")
            ),
            (4, 7, "`of` is not expected here: expected `on` or `off`", Some("did you mean `on`?")),
            (5, 25, "there is no node `bta`: expected `alpha` or `beta`", Some("did you mean `beta`?")),
            (
                6,
                1,
                "`expct` is not expected here: expected an action, `wait`, `until`, `expect` or `at`",
                Some("did you mean `expect`?")
            ),
            (
                7,
                7,
                "there is no resource `web/servr`: expected `web/disk` or `web/server`",
                Some("did you mean `web/server`?")
            ),
            (8, 6, "`3` is not expected here: expected a length of time, such as `100ms`, `2s` or `1min30s`", None),
            (9, 22, "`net7` is not expected here: expected `net0`", None),
        ]
    );
}

#[test]
fn what_belongs_to_the_cluster_is_refused_among_the_steps() {
    let text = format!("{CLUSTER}wait 1s\nnetworks 3\n");
    let wrong = Scenario::parse(&Source::new("late.scenario", text)).unwrap_err();
    assert_eq!(
        wrong.problems()[0].message,
        "`networks` describes the cluster, which is to stand before the first step"
    );
    let scenario = parse("wait 1s\n");
    let wrong = parse_steps(&Source::new("mine.scenario", "nodes alpha\nwait 1s\n"), &scenario.setup).unwrap_err();
    assert_eq!((wrong.problems().len(), wrong.problems()[0].line), (1, 1));
}

#[test]
fn a_cluster_that_cannot_work_is_refused_with_the_reason() {
    let text = "# x\nnodes alpha\nhierarchy web on alpha: disk, server(dsk)\npolicy web: restarts 3 within 0s\n";
    let wrong = Scenario::parse(&Source::new("bad.scenario", text)).unwrap_err();
    assert!(wrong.problems().iter().any(|p| p.line == 3 && p.message.contains("dsk")), "{wrong}");
    let text = "# x\nnodes alpha\nlock_area renew 1ms\nheartbeat interval 2h\nhierarchy web on alpha: disk\n";
    let wrong = Scenario::parse(&Source::new("bad.scenario", text)).unwrap_err();
    let lines: Vec<usize> = wrong.problems().iter().map(|p| p.line).collect();
    assert_eq!(lines, [3, 4], "{wrong}");
}

#[test]
fn a_step_that_does_not_go_as_expected_fails_with_what_was_seen() {
    let failure = |steps: &str| parse(steps).play().map(drop).map_err(|failed| failed.0).unwrap_err();
    let wrong = failure("expect web in service on alpha\nexpect web in service on beta\n");
    assert_eq!((wrong.line, wrong.step.as_str()), (5, "expect web in service on beta"));
    assert!(wrong.why.contains("web is in service on alpha"), "{wrong}");
    assert_eq!(failure("expect not web in service\n").line, 4);
    assert_eq!(failure("until alpha off within 3s\n").line, 4);
    assert_eq!(failure("at +2s power off alpha\nexpect web in service on alpha for 3s\n").line, 5);
    assert_eq!(failure("at +2s power off alpha\nexpect never alpha off for 3s\n").line, 5);
    let wrong = failure("power off alpha\nwait 20s\nexpect beta told of web:\n  - asking for the claim\n");
    assert!(wrong.why.contains("\n  - now in service: all resources run\n  - in service, epoch "), "{wrong}");
}
