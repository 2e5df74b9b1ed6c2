//! Recordings as they lie in a directory: what is shown of them, and what exit code follows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ha_core::contact::{ContactConfig, Timing};
use ha_core::engine::{Ask, Command, CommandId, EngineConfig, Joining, Lasting};
use ha_core::hierarchy::{Fingerprint, Hierarchy, Policy};
use ha_core::name::{BootId, ClusterName, Incarnation, NodeName};
use ha_core::record::flight::{Flight, Limits, Piece, Sink};

use super::*;

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Vec<u8>>>>);

impl Sink for Shelf {
    fn put(&mut self, piece: Piece) -> bool {
        let mut segments = self.0.lock().unwrap();
        match piece {
            Piece::Segment(bytes) => segments.push(bytes),
            Piece::More { bytes, .. } => segments.last_mut().unwrap().extend(bytes),
        }
        true
    }

    fn ready(&self) -> bool {
        true
    }

    fn wall_ns(&self) -> u64 {
        1_795_256_945_000_000_000
    }
}

/// A node alone, with one hierarchy, asked for something every second by somebody: the segments of its recording.
fn recording(by: &str) -> Vec<Vec<u8>> {
    let alpha = NodeName::new("alpha").unwrap();
    let config = EngineConfig {
        cluster: ClusterName::new("shop").unwrap(),
        contact: ContactConfig {
            me: alpha.clone(),
            boot: BootId([1; 16]),
            nodes: vec![alpha.clone()],
            timing: Timing::default(),
            channels: BTreeMap::new(),
        },
        incarnation: Incarnation(5),
        version: "1".to_owned(),
        definition: Fingerprint(1),
        max_recoveries: 4,
        can_reset: false,
        standby: None,
        fences: std::collections::BTreeSet::new(),
    };
    let hierarchy = Hierarchy {
        name: HierarchyName::new("web").unwrap(),
        nodes: vec![alpha],
        resources: Vec::new(),
        policy: Policy::default(),
        claim: Fingerprint(1),
        fingerprint: Fingerprint(1),
    };
    let shelf = Shelf::default();
    let tape: Box<dyn Sink> = Box::new(shelf.clone());
    let mut flight = Flight::new(config, Time(1_000_000_000), Some((tape, Limits { segment_bytes: 1 }))).unwrap();
    let joining = Joining {
        hierarchy: Arc::new(hierarchy),
        lease: None,
        lasting: Lasting::default(),
        running: None,
        proven_until: None,
        probed: false,
    };
    flight.call(Time(1_000_000_000), Call::Join(joining));
    for second in 2..40_u64 {
        let what = if second.is_multiple_of(2) { Ask::Standby } else { Ask::Online };
        let command = Command { what, by: by.to_owned(), reason: String::new() };
        let input = Input::Command { id: CommandId(second), to: None, command };
        flight.call(Time(second * 1_000_000_000), Call::Handle(input));
        flight.flush();
    }
    flight.end();
    let segments = shelf.0.lock().unwrap().clone();
    assert!(segments.len() > 2);
    segments
}

fn run(segments: &[Vec<u8>], options: &[&str]) -> Result<Exit, Failure> {
    use clap::Parser as _;
    let directory = tempfile::tempdir().unwrap();
    for (i, bytes) in segments.iter().enumerate() {
        fs::write(directory.path().join(format!("{:08}.rec", i + 1)), bytes).unwrap();
    }
    let path = directory.path().to_str().unwrap();
    let cli = crate::cli::Cli::parse_from(["ha", "replay", path].iter().chain(options));
    let crate::cli::Cmd::Replay(args) = cli.command else { panic!("ha replay") };
    replay(Path::new("/nowhere"), &args)
}

#[test]
fn what_is_decided_again_as_it_was_ends_well() {
    let segments = recording("root@test");
    assert_eq!(run(&segments, &["--verify"]), Ok(Exit::Done));
    assert_eq!(run(&segments[1..], &["--verify"]), Ok(Exit::Done));
    assert_eq!(run(&segments, &["--json", "--all", "--around", "3", "--window", "1s"]), Ok(Exit::Done));
}

#[test]
fn a_segment_that_does_not_follow_on_the_one_before_is_noticed() {
    let mut segments = recording("root@test");
    segments[1] = recording("root@tost")[1].clone();
    assert_eq!(run(&segments, &["--verify"]), Ok(Exit::Refused));
    assert_eq!(run(&segments, &[]), Ok(Exit::Done), "only --verify says it with the exit code");
}

#[test]
fn a_damaged_segment_is_left_out_and_a_torn_one_is_no_failure() {
    let mut segments = recording("root@test");
    let half = segments.last().unwrap().len() - 20;
    segments.last_mut().unwrap().truncate(half);
    assert_eq!(run(&segments, &["--verify"]), Ok(Exit::Done));
    segments[1][40] ^= 1;
    assert_eq!(run(&segments, &["--verify"]), Ok(Exit::Refused));
}

#[test]
fn nothing_to_replay_is_said() {
    let failure = run(&[], &[]).unwrap_err();
    assert_eq!(failure.exit, Exit::BadInput);
    assert!(failure.what.contains("has no recordings"), "{failure}");
}

#[test]
fn a_step_is_shown_with_its_reasons() {
    let mut shown = String::new();
    let mut replay = Replay::default();
    let _ = replay.segment(&recording("root@test")[0], &mut |engine, seen| {
        match seen {
            Seen::Step(step) => shown += &render::step(engine, &step, &step.call.to_string()),
            Seen::Begin { header, gap } => shown += &render::begin(header, &gap),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let plain = anstream::adapter::strip_str(&shown).to_string();
    let expected = "alpha of cluster shop, life 5, recorded by version 0.1.0, from its begin: 2026-11-21T10:29:05.000Z (clock 1.000000)

2026-11-21T10:29:05.000Z #1  web is defined
    alpha is candidate for web, because
      1. nodes in order of rank: alpha
      2. no node that ranks higher than alpha is left, and none in contact serves the hierarchy
";
    assert!(plain.starts_with(expected), "{plain}");
    let standby = "2026-11-21T10:29:06.000Z #2  root@test asks: standby
    alpha is excluded: the node is in standby for web (was: candidate), because
";
    assert!(plain.contains(standby), "{plain}");
}

#[test]
fn moments_are_read_as_they_are_shown() {
    let wall = moment("2026-11-21T08:28:43.085Z").unwrap();
    assert_eq!(wall, Moment::Wall(1_795_249_723_085_000_000));
    assert_eq!(moment("2026-11-21 08:28:43.085").unwrap(), wall);
    assert_eq!(moment("15010.056966").unwrap(), Moment::Clock(Time(15_010_056_966_000)));
    for wrong in ["yesterday", "-1", "1e40", ""] {
        assert!(moment(wrong).unwrap_err().contains("is not a moment"), "{wrong}");
    }
}
