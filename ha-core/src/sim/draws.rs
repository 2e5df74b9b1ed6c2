//! Randomness for simulations: a tree of seeds.
//!
//! Decides that one more draw in one place disturbs no other: each part of the world draws from a branch of its own. The sequence that a
//! seed gives never changes, so that a seed found once can be replayed for ever.

/// A source of numbers, and of further sources.
#[derive(Clone, Debug)]
pub struct Draws {
    seed: u64,
    state: u64,
}

impl Draws {
    /// The root of a tree.
    pub fn new(seed: u64) -> Self {
        Draws { seed, state: seed }
    }

    /// A source of its own for the part named: the same whatever was drawn here before.
    #[must_use]
    pub fn branch(&self, part: &str) -> Draws {
        // FNV-1a (Fowler, Noll, Vo), then mixed.
        let hash = part
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Draws::new(mix(self.seed ^ hash.rotate_left(17)))
    }

    /// The next number (splitmix64; Steele, Lea & Flood 2014).
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True in so many of 1,000 cases.
    pub fn in_thousand(&mut self, cases: u64) -> bool {
        cases > 0 && self.below(1_000) < cases
    }

    /// One of several; `None` if there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_does_not_depend_on_what_was_drawn_beside_it() {
        let root = Draws::new(7);
        let mut drawn = root.clone();
        drawn.number();
        assert_eq!(root.branch("network").number(), drawn.branch("network").number());
        assert_ne!(root.branch("network").number(), root.branch("disk").number());
        assert_ne!(root.branch("network").number(), Draws::new(8).branch("network").number());
    }

    #[test]
    fn seeds_give_the_same_numbers_for_ever() {
        let mut draws = Draws::new(1).branch("network");
        assert_eq!([draws.number(), draws.number()], [GOLDEN[0], GOLDEN[1]]);
    }

    const GOLDEN: [u64; 2] = [7_394_785_313_265_262_890, 14_967_707_995_443_702_024];
}
