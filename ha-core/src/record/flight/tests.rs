//! Recordings that are cut off, damaged or made by another version: what is whole is replayed, and the rest is said.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::codec::{begin_frame, begin_segment, encode, end_frame};
use super::*;
use crate::contact::{ContactConfig, Timing};
use crate::engine::{Ask, Call, Command, CommandId, EngineConfig, Input};
use crate::hierarchy::Fingerprint;
use crate::name::{BootId, ClusterName, HierarchyName, Incarnation, NodeName};
use crate::recovery::Pressure;
use crate::time::Time;

/// A sink that takes only so many pieces until it is emptied.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<(Vec<Piece>, usize)>>);

impl Shelf {
    fn with_room_for(pieces: usize) -> Self {
        Shelf(Arc::new(Mutex::new((Vec::new(), pieces))))
    }

    fn make_room(&self, pieces: usize) {
        self.0.lock().unwrap().1 += pieces;
    }

    fn segments(&self) -> Vec<Vec<u8>> {
        let mut segments: Vec<Vec<u8>> = Vec::new();
        for piece in &self.0.lock().unwrap().0 {
            match piece {
                Piece::Segment(bytes) => segments.push(bytes.clone()),
                Piece::More { bytes, .. } => segments.last_mut().unwrap().extend(bytes),
            }
        }
        segments
    }
}

impl Sink for Shelf {
    fn put(&mut self, piece: Piece) -> bool {
        let mut inside = self.0.lock().unwrap();
        let room = inside.0.len() < inside.1;
        if room {
            inside.0.push(piece);
        }
        room
    }

    fn ready(&self) -> bool {
        let inside = self.0.lock().unwrap();
        inside.0.len() < inside.1
    }

    fn wall_ns(&self) -> u64 {
        7
    }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn config() -> EngineConfig {
    EngineConfig {
        cluster: ClusterName::new("shop").unwrap(),
        contact: ContactConfig {
            me: node("alpha"),
            boot: BootId([1; 16]),
            nodes: vec![node("alpha"), node("beta")],
            timing: Timing::default(),
            channels: std::collections::BTreeMap::new(),
        },
        incarnation: Incarnation(5),
        version: "1".to_owned(),
        definition: Fingerprint(1),
        max_recoveries: 4,
        can_reset: false,
        standby: None,
        fences: std::collections::BTreeSet::new(),
    }
}

fn standby(id: u64) -> Call {
    let what = if id.is_multiple_of(2) { Ask::Standby } else { Ask::Online };
    let command = Command { what, by: "root@test".to_owned(), reason: String::new() };
    Call::Handle(Input::Command { id: CommandId(id), to: None, command })
}

/// A flight of so many calls, each handed over by itself.
fn flight(shelf: &Shelf, calls: u64, limits: Limits) -> Flight {
    let mut now = Time(1_000_000_000);
    let mut flight = Flight::new(config(), now, Some((Box::new(shelf.clone()), limits))).unwrap();
    flight.flush();
    for id in 0..calls {
        now = now + Duration::from_millis(30);
        flight.call(now, if id % 3 == 0 { standby(id) } else { Call::Timeout });
        while flight.poll_effect().is_some() {}
        flight.flush();
    }
    flight
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    steps: u64,
    differing: u64,
    unknown: u64,
    damage: Option<Damage>,
    lost: u64,
    ended: bool,
    error: Option<CannotReplay>,
}

fn replay(segments: &[Vec<u8>]) -> Report {
    let mut replay = Replay::default();
    let mut report = Report::default();
    for bytes in segments {
        let flow = replay.segment(bytes, &mut |_, seen| {
            match seen {
                Seen::Begin { gap: Gap::Lost { calls }, .. } => report.lost += calls,
                Seen::Begin { .. } | Seen::Continues { same_state: true, .. } => {}
                Seen::Continues { .. } => report.differing += 1,
                Seen::Step(step) => {
                    report.steps += 1;
                    report.unknown += u64::from(step.agreement == Agreement::NotRecorded);
                    report.differing +=
                        u64::from(matches!(step.agreement, Agreement::Differs { .. } | Agreement::Details { .. }));
                }
                Seen::End => report.ended = true,
                Seen::Damaged(damage) => report.damage = Some(damage),
            }
            ControlFlow::Continue(())
        });
        report.error = flow.err();
    }
    report
}

#[test]
fn a_recording_that_ended_in_order_is_replayed_to_its_end() {
    let shelf = Shelf::with_room_for(1000);
    flight(&shelf, 60, Limits::default()).end();
    let report = replay(&shelf.segments());
    assert_eq!(report, Report { steps: 60, ended: true, ..Report::default() });
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
    let shelf = Shelf::with_room_for(1000);
    flight(&shelf, 12, Limits::default()).end();
    let whole = shelf.segments().remove(0);
    let mut steps_before = 0;
    for end in 0..whole.len() {
        let report = replay(&[whole[..end].to_vec()]);
        assert_eq!(report.differing, 0, "torn at {end}: {report:?}");
        assert!(report.steps >= steps_before, "torn at {end}: {report:?}");
        assert!(report.error.is_some() || !report.ended, "torn at {end}: {report:?}");
        steps_before = report.steps;
    }
    assert_eq!(steps_before, 12);
}

#[test]
fn what_the_sink_could_not_take_is_counted_and_the_next_segment_goes_on() {
    let shelf = Shelf::with_room_for(10);
    let mut flight = flight(&shelf, 40, Limits::default());
    shelf.make_room(1000);
    flight.flush();
    for step in 0..5u64 {
        flight.call(Time(9_000_000_000 + step), Call::Timeout);
        flight.flush();
    }
    drop(flight);
    let report = replay(&shelf.segments());
    // The header, and nine calls; then it was full.
    assert_eq!(report, Report { steps: 9 + 5, lost: 31, ..Report::default() });
}

#[test]
fn a_full_segment_is_followed_by_one_with_the_state() {
    let shelf = Shelf::with_room_for(1000);
    flight(&shelf, 200, Limits { segment_bytes: 1000 }).end();
    let segments = shelf.segments();
    assert!(segments.len() > 3, "{}", segments.len());
    assert_eq!(replay(&segments), Report { steps: 200, ended: true, ..Report::default() });
    let last = replay(&segments[segments.len() - 1..]);
    assert!(last.steps > 0 && last.steps < 200 && last.differing == 0 && last.ended, "{last:?}");
}

#[test]
fn an_engine_that_is_stopped_in_the_middle_of_a_call_leaves_that_call() {
    let shelf = Shelf::with_room_for(1000);
    let mut flight = flight(&shelf, 6, Limits::default());
    flight.call(Time(5_000_000_000), standby(0));
    drop(flight);
    let report = replay(&shelf.segments());
    assert_eq!((report.steps, report.ended), (7, false));
}

/// A segment by another version, whose engine decides otherwise, or cannot be read.
fn by_another_version(start: &[u8], led_to: LedTo) -> Vec<u8> {
    let header = Header {
        software: "0.0.1".to_owned(),
        cluster: ClusterName::new("shop").unwrap(),
        node: node("alpha"),
        life: Incarnation(5),
        calls_before: 0,
        at: Time(1_000_000_000),
        wall_ns: 7,
    };
    let mut bytes = Vec::new();
    begin_segment(&mut bytes);
    let frame = begin_frame(&mut bytes);
    encode(&Record::Header(header), &mut bytes);
    end_frame(frame, &mut bytes);
    let frame = begin_frame(&mut bytes);
    bytes.extend_from_slice(start);
    end_frame(frame, &mut bytes);
    let frame = begin_frame(&mut bytes);
    encode(&Record::Call { after_ns: 1, call: std::borrow::Cow::Owned(standby(0)) }, &mut bytes);
    encode(&Record::LedTo(led_to), &mut bytes);
    end_frame(frame, &mut bytes);
    bytes
}

#[test]
fn what_another_version_decided_otherwise_is_said() {
    let mut start = Vec::new();
    encode(&Record::Start(Start::New(Box::new(std::borrow::Cow::Owned(config())))), &mut start);
    let led_to = LedTo { digest: 1, decisions: vec!["reset the node: it was in standby".to_owned()] };
    let bytes = by_another_version(&start, led_to.clone());
    let mut differences = Vec::new();
    let flow = Replay::default().segment(&bytes, &mut |_, seen| {
        match seen {
            Seen::Begin { header, .. } => assert_eq!(header.software, "0.0.1"),
            Seen::Step(step) => differences.push(step.agreement),
            other => panic!("{other:?}"),
        }
        ControlFlow::Continue(())
    });
    assert_eq!(flow, Ok(ControlFlow::Continue(())));
    assert_eq!(differences, [Agreement::Differs { recorded: led_to.decisions }]);
}

#[test]
fn a_state_that_only_another_version_understands_is_refused_with_that_version() {
    let mut longer = Vec::new();
    encode(&Record::Start(Start::New(Box::new(std::borrow::Cow::Owned(config())))), &mut longer);
    longer.push(0);
    for start in [&[1, 1, 9, 9, 9], &*longer] {
        let error = replay(&[by_another_version(start, LedTo::default())]).error.unwrap().to_string();
        assert!(error.contains("made by version 0.0.1, and its state cannot be read by this one"), "{error}");
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    assert_eq!(replay(&[b"{}".to_vec()]).error, Some(Unreadable::NotARecording.into()));
    let error = replay(&[b"HAFLIGHT\x09\0\0\0".to_vec()]).error.unwrap();
    assert_eq!(error, Unreadable::Format(9).into());
}

proptest! {
    #[test]
    fn whatever_bytes_are_read_nothing_breaks(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut whole = Vec::new();
        begin_segment(&mut whole);
        let frame = begin_frame(&mut whole);
        whole.extend(bytes);
        end_frame(frame, &mut whole);
        replay(&[whole]);
    }

    #[test]
    fn one_wrong_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let shelf = Shelf::with_room_for(1000);
        flight(&shelf, 12, Limits::default()).end();
        let mut bytes = shelf.segments().remove(0);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let report = replay(&[bytes]);
        prop_assert_eq!(report.differing, 0);
        prop_assert!(report.error.is_some() || report.damage.is_some(), "byte {}, bit {}: {:?}", at, bit, report);
    }

    #[test]
    fn small_inputs_come_back_as_they_were(name in "[a-z][a-z0-9.-]{0,62}", text in ".{0,80}", high in any::<bool>()) {
        let hierarchy = HierarchyName::new(&name).unwrap();
        let inputs = [
            Input::Readiness { hierarchy, lacking: Some(text.clone()) },
            Input::Trouble { part: text, trouble: None },
            Input::Pressure(if high { Pressure::High } else { Pressure::Calm }),
        ];
        for input in inputs {
            let mut bytes = Vec::new();
            encode(&Call::Handle(input.clone()), &mut bytes);
            prop_assert_eq!(postcard::from_bytes::<Call>(&bytes), Ok(Call::Handle(input)));
        }
    }
}
