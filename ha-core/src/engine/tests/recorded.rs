//! Every cluster of these tests is recorded, node by node; what was recorded is replayed and must be the same.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::record::flight::{Agreement, Gap, Piece, Replay, Seen, Sink};

/// The recording of one machine, in memory.
#[derive(Clone, Default)]
pub(super) struct Tape(Arc<Mutex<Vec<Vec<u8>>>>);

impl Tape {
    pub(super) fn segments(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Tape {
    fn put(&mut self, piece: Piece) -> bool {
        let mut segments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        1_800_000_000_000_000_000
    }
}

/// What a replay found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lives: usize,
    pub(super) steps: usize,
    pub(super) decisions: usize,
    /// Segments whose state is the one that the replay came to.
    pub(super) same_states: usize,
}

/// Replays, and fails at the first thing that is not as it was.
pub(super) fn replay(replay: &mut Replay, segments: &[Vec<u8>]) -> Found {
    let mut found = Found::default();
    for bytes in segments {
        let flow = replay.segment(bytes, &mut |_, seen| {
            match seen {
                Seen::Begin { gap: Gap::Lost { calls }, .. } => panic!("{calls} calls lost"),
                Seen::Begin { .. } => found.lives += 1,
                Seen::Continues { same_state: true, .. } => found.same_states += 1,
                Seen::Step(step) if matches!(step.agreement, Agreement::Same | Agreement::NotRecorded) => {
                    found.steps += 1;
                    found.decisions += step.effects.iter().filter(|e| !e.is_routine()).count();
                }
                other => panic!("{other:?}"),
            }
            ControlFlow::Continue(())
        });
        assert_eq!(flow, Ok(ControlFlow::Continue(())));
    }
    found
}

impl Cluster {
    /// Replays what all machines recorded: as a whole, and from the middle.
    pub(super) fn replay_all(&mut self) -> Vec<Found> {
        let mut all = Vec::new();
        for machine in self.machines.values_mut() {
            if let Some(engine) = &mut machine.engine {
                engine.flush();
            }
            let segments = machine.tape.segments();
            let whole = replay(&mut Replay::default(), &segments);
            assert_eq!(whole.lives + whole.same_states, segments.len());
            let rest = replay(&mut Replay::default(), &segments[segments.len() / 2..]);
            assert!(rest.steps > 0 && rest.steps < whole.steps, "{rest:?} of {whole:?}");
            all.push(whole);
        }
        all
    }
}

#[test]
fn a_failover_is_decided_again_as_it_was() {
    let mut cluster = Cluster::serving(3);
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.power_on(ALPHA);
    cluster.run(secs(20));
    let found = cluster.replay_all();
    assert_eq!(found.iter().map(|f| f.lives).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(found[1].same_states > 2, "{found:?}");
}
