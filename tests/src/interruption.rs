//! What an interruption cost the clients of an application: all of it, as one of them saw it, and its parts, as `ha history` tells them.
//!
//! Decides which parts there are. Asserts no figure.

use std::fmt;
use std::time::Duration;

use ha_core::record::{Mark, Timeline};

use crate::asking::Asking;
use crate::cluster::{Cluster, Machines};
use crate::kernel::history::told_by;
use crate::trouble::{Result, Trouble};
use crate::wait::eventually;

/// One interruption, or the medians of several like it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interruption {
    /// The longest time without an answer.
    pub without_answer: Duration,
    /// Its parts; resources that start at the same time are parts side by side.
    pub parts: Vec<(String, Duration)>,
}

impl Interruption {
    /// The longest of a client since its `since`-th answer, and the latest of a hierarchy in the words of the nodes that it went from, if that is
    /// there to tell, and to.
    pub fn latest<L: Machines>(
        cluster: &Cluster<L>,
        name: &str,
        (client, since): (&Asking, usize),
        (from, to): (Option<&str>, &str),
    ) -> Result<Self> {
        let gap = client.longest_gap(since).ok_or_else(|| Trouble::new("a client had no answers"))?;
        let latest = |node: &str| -> Result<Timeline> {
            let mut told = told_by(cluster, node)?.into_iter().map(|entry| entry.timeline);
            let latest = told.rfind(|timeline| timeline.hierarchy.as_str() == name);
            latest.ok_or_else(|| Trouble::new(format!("{node} tells nothing of {name}")))
        };
        let entered = latest(to)?;
        let mut parts = entering(&entered, from.is_some());
        if let Some(from) = from {
            let left = eventually(&format!("{from} tells of the same tenure"), || match latest(from) {
                Ok(left) if left.epoch == entered.epoch => Ok(left),
                Ok(left) => Err(left.to_string()),
                Err(trouble) => Err(trouble.to_string()),
            });
            parts.extend(stops(&left));
        }
        Ok(Interruption { without_answer: gap.length(), parts })
    }

    /// Of several like it.
    pub fn medians(all: &[Interruption]) -> Self {
        let Some(first) = all.first() else { return Interruption::default() };
        let median = |of: &dyn Fn(&Interruption) -> Option<Duration>| {
            let mut times: Vec<Duration> = all.iter().filter_map(of).collect();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        let part = |name: &String| {
            let find = |one: &Interruption| one.parts.iter().find(|(other, _)| other == name).map(|(_, took)| *took);
            (name.clone(), median(&find))
        };
        Interruption {
            without_answer: median(&|one| Some(one.without_answer)),
            parts: first.parts.iter().map(|(name, _)| part(name)).collect(),
        }
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2?} without an answer", self.without_answer)?;
        self.parts.iter().try_for_each(|(name, took)| write!(f, ", {name} {took:.1?}"))
    }
}

/// What the node did that it went from.
fn stops(leaving: &Timeline) -> Vec<(String, Duration)> {
    leaving.marks.iter().filter_map(|mark| took(mark, "stopped")).collect()
}

/// What the node did that it went to. What it waited for while another one stopped is none of its own.
fn entering(timeline: &Timeline, handed_over: bool) -> Vec<(String, Duration)> {
    let held = timeline.marks.iter().find(|mark| mark.what.starts_with("claim held"));
    let held = held.map_or(timeline.detected, |mark| mark.at);
    let mut parts = vec![("T_detect".to_owned(), timeline.t_detect()), ("T_recover".to_owned(), timeline.t_recover())];
    if !handed_over {
        parts.push(("claim".to_owned(), held.since(timeline.detected)));
    }
    parts.extend(timeline.marks.iter().filter_map(|mark| took(mark, "started")));
    parts
}

/// Of a mark such as "data started in 71.9ms": "data started", and how long that took.
fn took(mark: &Mark, how: &str) -> Option<(String, Duration)> {
    let (name, time) = mark.what.split_once(&format!(" {how} in "))?;
    let (number, unit) = time.split_at(time.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    let took = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
    Some((format!("{name} {how}"), took))
}

#[cfg(test)]
mod tests {
    use ha_core::time::Time;

    use super::*;

    fn of(whole: u64, part: u64) -> Interruption {
        let parts = vec![("data started".to_owned(), Duration::from_millis(part))];
        Interruption { without_answer: Duration::from_secs(whole), parts }
    }

    #[test]
    fn the_median_of_each_part_is_its_own() {
        assert_eq!(Interruption::medians(&[of(9, 10), of(7, 30), of(8, 20)]), of(8, 20));
        assert_eq!(Interruption::medians(&[of(9, 10), of(7, 30), of(8, 5)]), of(8, 10));
        assert_eq!(Interruption::medians(&[]), Interruption::default());
    }

    #[test]
    fn how_long_a_resource_took_is_read_from_its_mark() {
        let mark = |what: &str| Mark { at: Time::ZERO, what: what.to_owned(), again: 0 };
        let started = |nanos| Some(("data started".to_owned(), Duration::from_nanos(nanos)));
        assert_eq!(took(&mark("data started in 71.9ms"), "started"), started(71_900_000));
        assert_eq!(took(&mark("data started in 5.5µs"), "started"), started(5_500));
        assert_eq!(took(&mark("data started in 1.2s"), "started"), started(1_200_000_000));
        assert_eq!(took(&mark("data stopped in 1.2s"), "started"), None);
        assert_eq!(took(&mark("now starting: the claim is held"), "started"), None);
    }
}
