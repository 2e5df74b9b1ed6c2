//! An engine whose every call is written down.
//!
//! Decides when a new segment begins, and that recording never holds the engine up: what cannot be handed over is lost, and the next
//! segment says how much. Leaves where the bytes go to a [`Sink`].

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Deref;

use super::codec::{Header, LedTo, Record, Start, begin_frame, begin_segment, encode, end_frame};
use crate::contact::ContactConfigError;
use crate::engine::{Call, Called, Effect, Engine, EngineConfig};
use crate::name::Incarnation;
use crate::time::Time;

/// How large the parts of a recording become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A segment that has so many bytes is the last but for a larger one's start. Default 1 MiB. Smaller: less is lost when the
    /// oldest is dropped. Larger: the state of the engine is written less often.
    pub segment_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { segment_bytes: 1 << 20 }
    }
}

impl Limits {
    /// How large a segment becomes that begins with so many bytes.
    pub fn segment_after(self, start_bytes: usize) -> usize {
        self.segment_bytes.max(start_bytes.saturating_mul(STATE_SHARE))
    }
}

/// A segment is at least so many times as large as the state that it begins with.
const STATE_SHARE: usize = 4;
/// So much is gathered at most before it is handed over, whatever the owner does.
const GATHERED_MAX: usize = 256 << 10;

/// Where a recording goes. Nothing here may wait for anything.
pub trait Sink: Send {
    /// Takes a piece, or refuses it at once: then it is lost, and a [`Piece::Segment`] comes next.
    fn put(&mut self, piece: Piece) -> bool;

    /// Whether a segment would be taken now. Asked after something was lost.
    fn ready(&self) -> bool;

    /// Nanoseconds since 1970 UTC, for people.
    fn wall_ns(&self) -> u64;
}

/// Bytes of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A segment begins: its first bytes.
    Segment(Vec<u8>),
    /// The present segment goes on.
    More {
        /// Its next bytes.
        bytes: Vec<u8>,
        /// Something was decided in them: worth being brought to the disk soon.
        decided: bool,
    },
}

struct Tape {
    sink: Box<dyn Sink>,
    limits: Limits,
    life: Incarnation,
    /// Frames that are not handed over yet, the last of them open.
    gathered: Vec<u8>,
    decided: bool,
    /// Bytes of the present segment, and of the state that it begins with.
    written: usize,
    state_bytes: usize,
    /// The moment of the last call.
    at: Time,
    calls: u64,
    /// Something could not be handed over.
    broken: bool,
    scratch: Vec<u8>,
}

/// An engine, and the tape on which everything is written that it is told.
///
/// For reading it is an [`Engine`]. Its owner calls [`Flight::flush`] after emptying [`Flight::poll_effect`], before it carries the effects
/// out: so what led to them is written first.
pub struct Flight {
    engine: Engine,
    effects: VecDeque<Effect>,
    tape: Option<Tape>,
}

impl Deref for Flight {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Flight {
    /// A new engine; recorded if there is somewhere to record it.
    pub fn new(
        config: EngineConfig,
        now: Time,
        recorded: Option<(Box<dyn Sink>, Limits)>,
    ) -> Result<Self, ContactConfigError> {
        let kept = recorded.is_some().then(|| config.clone());
        let life = config.incarnation;
        let engine = Engine::new(config, now)?;
        let tape = recorded.zip(kept).map(|((sink, limits), config)| {
            let mut tape = Tape {
                sink,
                limits,
                life,
                gathered: Vec::new(),
                decided: false,
                written: 0,
                state_bytes: 0,
                at: now,
                calls: 0,
                broken: false,
                scratch: Vec::new(),
            };
            tape.begin(&engine, Start::New(Box::new(Cow::Owned(config))));
            tape
        });
        Ok(Flight { engine, effects: VecDeque::new(), tape })
    }

    /// Makes a call.
    pub fn call(&mut self, now: Time, call: Call) -> Called {
        let Some(tape) = &mut self.tape else { return self.engine.call(now, call) };
        tape.call(now, &call);
        let called = self.engine.call(now, call);
        let before = self.effects.len();
        while let Some(effect) = self.engine.poll_effect() {
            self.effects.push_back(effect);
        }
        tape.led_to(self.effects.range(before..));
        if tape.gathered.len() >= GATHERED_MAX {
            tape.flush(&self.engine);
        }
        called
    }

    /// The next thing to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front().or_else(|| self.engine.poll_effect())
    }

    /// Hands over what was gathered.
    pub fn flush(&mut self) {
        if let Some(tape) = &mut self.tape {
            tape.flush(&self.engine);
        }
    }

    /// Ends the recording in order.
    pub fn end(&mut self) {
        if let Some(mut tape) = self.tape.take()
            && !tape.broken
        {
            tape.record(&Record::End);
            tape.decided = true;
            tape.hand_over();
        }
    }
}

impl Drop for Flight {
    /// What was gathered is kept, above all the call that an engine was stopped in the middle of.
    fn drop(&mut self) {
        if let Some(tape) = self.tape.as_mut().filter(|tape| !tape.broken) {
            tape.decided = true;
            tape.hand_over();
        }
    }
}

impl Tape {
    /// Begins a segment; false if it was not taken.
    fn begin(&mut self, engine: &Engine, start: Start<'_>) -> bool {
        let header = Header {
            software: super::SOFTWARE.to_owned(),
            cluster: engine.cluster().clone(),
            node: engine.me().clone(),
            life: self.life,
            calls_before: self.calls,
            at: self.at,
            wall_ns: self.sink.wall_ns(),
        };
        let mut bytes = Vec::with_capacity(self.state_bytes + 1024);
        begin_segment(&mut bytes);
        for record in [Record::Header(header), Record::Start(start)] {
            let frame = begin_frame(&mut bytes);
            encode(&record, &mut bytes);
            end_frame(frame, &mut bytes);
        }
        self.state_bytes = bytes.len();
        self.written = bytes.len();
        self.broken = !self.sink.put(Piece::Segment(bytes));
        !self.broken
    }

    fn record(&mut self, record: &Record<'_>) {
        if self.gathered.is_empty() {
            begin_frame(&mut self.gathered);
        }
        encode(record, &mut self.gathered);
    }

    fn call(&mut self, now: Time, call: &Call) {
        self.calls += 1;
        if !self.broken {
            let after_ns = now.0.wrapping_sub(self.at.0);
            self.record(&Record::Call { after_ns, call: Cow::Borrowed(call) });
        }
        self.at = now;
    }

    fn led_to<'a>(&mut self, effects: impl IntoIterator<Item = &'a Effect>) {
        if self.broken {
            return;
        }
        if let Some(led_to) = LedTo::of(effects, &mut self.scratch) {
            self.decided |= !led_to.decisions.is_empty();
            self.record(&Record::LedTo(led_to));
        }
    }

    fn hand_over(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.gathered);
        end_frame(0, &mut bytes);
        self.gathered.reserve(bytes.len());
        self.written += bytes.len();
        let decided = std::mem::take(&mut self.decided);
        self.broken = !self.sink.put(Piece::More { bytes, decided });
    }

    fn flush(&mut self, engine: &Engine) {
        if !self.broken {
            self.hand_over();
        }
        let full = self.written >= self.limits.segment_after(self.state_bytes);
        if (self.broken || full) && self.sink.ready() {
            self.begin(engine, Start::State(Box::new(Cow::Borrowed(engine))));
        }
    }
}
