//! Breadth-first search through every state of a [`Model`].
//!
//! Decides the order, what was seen before, and how a violation is told: as the shortest story that leads to it. Leaves to the
//! model what a state is, what can happen next, and what must hold.
//!
//! States are known by 128-bit fingerprints. Whole states are kept only while they wait for their turn; a story is found again by
//! stepping from the beginning along the steps that were noted. That takes about 32 bytes for each state seen.

use std::collections::VecDeque;
use std::fmt;

/// What is to be searched.
pub trait Model {
    /// Everything that the future depends on.
    type State: Clone;

    /// Where all begins.
    fn start(&mut self) -> Self::State;

    /// What `state` is known by: states with the same future may share it, others must not.
    fn fingerprint(&mut self, state: &Self::State) -> u128;

    /// Everything that can happen next, always in the same order: what follows, or what must not be.
    fn next(&mut self, state: &Self::State, found: &mut Vec<Result<Self::State, String>>);

    /// What must hold in a state by itself, whatever led to it. Called once for each state.
    ///
    /// # Errors
    /// What does not hold, for people.
    fn check(&mut self, _state: &Self::State) -> Result<(), String> {
        Ok(())
    }

    /// The step with this place among those of [`Model::next`], for people.
    fn tell(&mut self, state: &Self::State, step: usize) -> String;
}

/// How far the search went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// States seen, each counted once.
    pub states: usize,
    /// Steps taken between them.
    pub steps: u64,
    /// The greatest number of steps needed to reach a state.
    pub depth: usize,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps, depth {}", self.states, self.steps, self.depth)
    }
}

/// Something that must not be, and the shortest way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub what: String,
    /// The steps that lead to it, in order, for people.
    pub story: Vec<String>,
    /// How many states were seen before it was found.
    pub states: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({} states seen)", self.what, self.states)?;
        for (i, step) in self.story.iter().enumerate() {
            writeln!(f, "{:3}. {step}", i + 1)?;
        }
        Ok(())
    }
}

/// Why a search ended before everything was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Something must not be.
    Violation(Violation),
    /// More states than were allowed.
    TooMany(usize),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Violation(violation) => violation.fmt(f),
            Ended::TooMany(most) => write!(f, "not finished after {most} states, the most that were allowed"),
        }
    }
}

/// Goes through every state that `model` can reach, `most` at most.
///
/// # Errors
/// The first violation in breadth-first order, so with the fewest steps; or that there are more states than `most`.
pub fn explore<M: Model>(model: &mut M, most: usize) -> Result<Explored, Ended> {
    let first = model.start();
    let mut seen = Seen::default();
    seen.insert(model.fingerprint(&first), 0, 0);
    let mut waiting = VecDeque::from([(0, 0, first)]);
    let mut found = Vec::new();
    let mut explored = Explored { states: 1, steps: 0, depth: 0 };
    while let Some((number, depth, state)) = waiting.pop_front() {
        explored.depth = depth;
        if let Err(what) = model.check(&state) {
            return Err(Ended::Violation(seen.violation(model, what, number, None)));
        }
        model.next(&state, &mut found);
        for (step, next) in found.drain(..).enumerate() {
            explored.steps += 1;
            let next = match next {
                Ok(next) => next,
                Err(what) => return Err(Ended::Violation(seen.violation(model, what, number, Some(step)))),
            };
            if let Some(new) = seen.insert(model.fingerprint(&next), number, step as u16) {
                if seen.prints.len() > most {
                    return Err(Ended::TooMany(most));
                }
                waiting.push_back((new, depth + 1, next));
            }
        }
    }
    explored.states = seen.prints.len();
    Ok(explored)
}

/// The fingerprints seen, each with the step that first led to it. An open-addressing table of numbers into lists, since a map with
/// its entries would take twice the memory.
#[derive(Default)]
struct Seen {
    prints: Vec<u128>,
    from: Vec<(u32, u16)>,
    table: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Seen {
    /// The number of a fingerprint that is new.
    fn insert(&mut self, print: u128, parent: u32, step: u16) -> Option<u32> {
        if self.prints.len() * 4 >= self.table.len() * 3 {
            self.grow();
        }
        let mut at = self.place(print);
        while self.table[at] != EMPTY {
            if self.prints[self.table[at] as usize] == print {
                return None;
            }
            at = (at + 1) % self.table.len();
        }
        let number = self.prints.len() as u32;
        self.table[at] = number;
        self.prints.push(print);
        self.from.push((parent, step));
        Some(number)
    }

    fn place(&self, print: u128) -> usize {
        print as usize & (self.table.len() - 1)
    }

    fn grow(&mut self) {
        self.table = vec![EMPTY; (self.table.len() * 2).max(1024)];
        for number in 0..self.prints.len() {
            let mut at = self.place(self.prints[number]);
            while self.table[at] != EMPTY {
                at = (at + 1) % self.table.len();
            }
            self.table[at] = number as u32;
        }
    }

    /// Steps from the start to `number`, and along `last`, telling each.
    fn violation<M: Model>(&self, model: &mut M, what: String, number: u32, last: Option<usize>) -> Violation {
        let mut steps: Vec<usize> = last.into_iter().collect();
        let mut at = number;
        while at != 0 {
            let (parent, step) = self.from[at as usize];
            steps.push(step.into());
            at = parent;
        }
        let mut state = model.start();
        let mut story = Vec::new();
        for step in steps.into_iter().rev() {
            story.push(model.tell(&state, step));
            let mut found = Vec::new();
            model.next(&state, &mut found);
            match found.swap_remove(step) {
                Ok(next) => state = next,
                Err(_) => break,
            }
        }
        Violation { what, story, states: self.prints.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jugs of five and three litres, and a tap.
    struct Jugs {
        forbidden: u8,
    }

    impl Model for Jugs {
        type State = (u8, u8);

        fn start(&mut self) -> (u8, u8) {
            (0, 0)
        }

        fn fingerprint(&mut self, (a, b): &(u8, u8)) -> u128 {
            u128::from(*a) << 8 | u128::from(*b)
        }

        fn next(&mut self, (a, b): &(u8, u8), found: &mut Vec<Result<(u8, u8), String>>) {
            let to_b = (*a).min(3 - b);
            let to_a = (*b).min(5 - a);
            found.extend([(5, *b), (*a, 3), (0, *b), (*a, 0), (a - to_b, b + to_b), (a + to_a, b - to_a)].map(Ok));
        }

        fn check(&mut self, (a, _): &(u8, u8)) -> Result<(), String> {
            if *a == self.forbidden { Err(format!("{a} litres")) } else { Ok(()) }
        }

        fn tell(&mut self, (a, b): &(u8, u8), step: usize) -> String {
            let what =
                ["fill the first", "fill the second", "empty the first", "empty the second", "pour over", "pour back"];
            format!("{a} and {b}: {}", what[step])
        }
    }

    #[test]
    fn every_state_is_counted_once() {
        let explored = explore(&mut Jugs { forbidden: 9 }, 1_000).unwrap();
        assert_eq!(explored, Explored { states: 16, steps: 96, depth: 7 });
        assert_eq!(explore(&mut Jugs { forbidden: 9 }, 10), Err(Ended::TooMany(10)));
    }

    #[test]
    fn a_violation_is_told_as_the_shortest_story() {
        let Err(Ended::Violation(violation)) = explore(&mut Jugs { forbidden: 4 }, 1_000) else { panic!() };
        assert_eq!(violation.story.len(), 6);
        assert_eq!(violation.story[0], "0 and 0: fill the first");
        assert!(violation.to_string().starts_with("4 litres"));
    }
}
