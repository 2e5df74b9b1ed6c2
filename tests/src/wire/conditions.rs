//! How well frames travel from one port to another, and what becomes of each.

use std::time::Duration;

use crate::random::Random;

/// How frames travel in one direction between two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Of a hundred frames so many are lost.
    pub loss_percent: u8,
    /// Of a hundred frames so many arrive twice.
    pub duplicate_percent: u8,
    /// How late every frame arrives at least.
    pub delay: Duration,
    /// Up to so much is added to the delay of each frame, by chance: what reorders them.
    pub jitter: Duration,
}

impl Conditions {
    /// Nothing is lost, and nothing is late.
    pub const GOOD: Conditions =
        Conditions { loss_percent: 0, duplicate_percent: 0, delay: Duration::ZERO, jitter: Duration::ZERO };

    /// Nothing arrives. The port's carrier stays on, as with a switch that failed.
    pub const CUT: Conditions = Conditions { loss_percent: 100, ..Conditions::GOOD };

    /// How late each copy of the next frame arrives: none, one or two.
    pub(crate) fn copies(&self, random: &mut Random) -> Vec<Duration> {
        if random.happens(self.loss_percent) {
            return Vec::new();
        }
        let copies = if random.happens(self.duplicate_percent) { 2 } else { 1 };
        let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        (0..copies).map(|_| self.delay + Duration::from_nanos(random.up_to(jitter))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_conditions_deliver_each_frame_once_at_once() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| Conditions::GOOD.copies(&mut random) == [Duration::ZERO]));
    }

    #[test]
    fn a_cut_delivers_nothing() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| Conditions::CUT.copies(&mut random).is_empty()));
    }

    #[test]
    fn loss_and_duplicates_come_about_as_often_as_asked() {
        let conditions = Conditions { loss_percent: 30, duplicate_percent: 50, ..Conditions::GOOD };
        let mut random = Random::new(7);
        let copies: Vec<usize> = (0..10_000).map(|_| conditions.copies(&mut random).len()).collect();
        let count = |wanted| copies.iter().filter(|copies| **copies == wanted).count();
        assert!((2700..3300).contains(&count(0)), "{} lost", count(0));
        assert!((3200..3800).contains(&count(2)), "{} twice", count(2));
    }

    #[test]
    fn jitter_stays_within_its_bound_and_reorders() {
        let (delay, jitter) = (Duration::from_millis(5), Duration::from_millis(10));
        let conditions = Conditions { delay, jitter, ..Conditions::GOOD };
        let mut random = Random::new(3);
        let late: Vec<Duration> = (0..100).flat_map(|_| conditions.copies(&mut random)).collect();
        assert!(late.iter().all(|late| (delay..=delay + jitter).contains(late)));
        assert!(late.windows(2).any(|pair| pair[1] < pair[0]), "no frame would overtake another");
    }
}
