//! The network between the nodes: several channels, each with two directions between any two nodes.
//!
//! Decides the fate of each datagram: when it arrives, how often, or not at all. Leaves its bytes alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draws::Draws;

/// How the network treats datagrams that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// So many of 1,000 are lost.
    pub lost: u16,
    /// So many of 1,000 arrive twice.
    pub doubled: u16,
    /// The longest that one is under way; drawn for each, so that they overtake each other.
    pub delay: Duration,
}

impl Weather {
    /// A quiet local network.
    pub const FAIR: Weather = Weather { lost: 0, doubled: 0, delay: Duration::from_micros(300) };
}

/// From one node to another, on one channel: each by its position in the setup.
pub(super) type Direction = (usize, usize, usize);

pub(super) struct Network {
    pub(super) weather: Weather,
    cut: BTreeSet<Direction>,
    draws: Draws,
}

/// The shortest that a datagram is under way.
const LEAST_DELAY: u64 = 50_000;

impl Network {
    pub(super) fn new(draws: Draws) -> Self {
        Network { weather: Weather::FAIR, cut: BTreeSet::new(), draws }
    }

    pub(super) fn cut(&mut self, direction: Direction) {
        self.cut.insert(direction);
    }

    pub(super) fn join(&mut self, direction: Direction) {
        self.cut.remove(&direction);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.weather = Weather::FAIR;
    }

    /// When a datagram sent now arrives: not at all, once, or twice.
    pub(super) fn fate(&mut self, direction: Direction) -> [Option<Duration>; 2] {
        if self.cut.contains(&direction) || self.draws.in_thousand(self.weather.lost.into()) {
            return [None, None];
        }
        let most = u64::try_from(self.weather.delay.as_nanos()).unwrap_or(u64::MAX).max(LEAST_DELAY);
        let first = Duration::from_nanos(self.draws.between(LEAST_DELAY, most));
        let again = self.draws.in_thousand(self.weather.doubled.into());
        [Some(first), again.then(|| first + Duration::from_nanos(self.draws.between(LEAST_DELAY, most)))]
    }
}
