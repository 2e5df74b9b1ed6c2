//! Model checking: every state that a small cluster can reach, whatever is delayed, lost, crashed or asked, in whatever order.
//!
//! Decides nothing about nodes: the transitions are those of the production machines, of which whole copies are kept, and stepped.
//! What a model supposes instead of computing it is said at the top of its module. [`explore`] is the search; [`lock_area`] checks the
//! lock area's machine, [`reservation`] that of reservations, [`engine`] two engines. The figures, and the commands for larger bounds, are in `docs/verification.md`.

pub mod engine;
pub mod explore;
mod intern;
pub mod lock_area;
pub mod reservation;

/// What a request to a machine came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answered {
    Acquired(u8),
    Done,
    Refused(String),
}

/// What came of a stimulus: the machine as it is then, by its number, and its answer.
#[derive(Clone, Debug)]
struct Output {
    local: u32,
    answer: Option<Answered>,
}
