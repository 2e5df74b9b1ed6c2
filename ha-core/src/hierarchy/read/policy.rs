//! How a hierarchy and its resources are to be treated: policy, time-outs, monitoring.
//!
//! Decides the fields and their ranges. Leaves the defaults to the model.

use std::time::Duration;

use crate::hierarchy::fields::Fields;
use crate::hierarchy::model::{Failback, Limit, Monitor, OnStopFailure, Policy, Rank, SPREAD_STEP, Timeouts};
use crate::hierarchy::value::Value;
use crate::name::GroupName;
use crate::time::Span;

const COUNT: &str = "a whole number";

/// A length of time that must not be zero.
fn span(fields: &mut Fields<'_>, key: &'static str, default: Duration) -> Option<Duration> {
    let Some(value) = fields.value(key) else { return Some(default) };
    let span = value.read::<Span>("a length of time such as \"10s\"")?.0;
    if span.is_zero() {
        value.problem(&format!("`{key}` is zero: expected a length of time such as \"10s\""), None);
        return None;
    }
    Some(span)
}

/// The margin where a group is given and no rank: one more hierarchy of the group on a node counts.
const SPREAD_MARGIN: u8 = SPREAD_STEP;

/// `spread` is what the probes say of it, with its place.
pub(super) fn read_policy(fields: &mut Fields<'_>, spread: Option<(GroupName, Value<'_>)>) -> Option<Policy> {
    let default = Policy::default();
    let importance = fields.or("importance", "a whole number, more is more important", default.importance);
    let rank = match fields.value("rank") {
        Some(value) => read_rank(value, spread),
        None => Some(match spread {
            Some((group, _)) => Rank::Utility { margin: SPREAD_MARGIN, spread: Some(group) },
            None => default.rank,
        }),
    };
    let failback = fields.value("failback").map_or(Some(default.failback), read_failback);
    let restarts = read_limit(fields, "restarts", "count", default.restarts, 0);
    let quarantine = read_limit(fields, "quarantine", "after", default.quarantine, 1);
    let decline_for = span(fields, "decline_for", default.decline_for);
    let settle = span(fields, "settle", default.settle);
    let forced_stop_within = span(fields, "forced_stop_within", default.forced_stop_within);
    let on_stop_failure = fields.value("on_stop_failure").map_or(Some(None), |v| read_on_stop_failure(v).map(Some));
    Some(Policy {
        importance,
        rank: rank?,
        failback: failback?,
        restarts: restarts?,
        decline_for: decline_for?,
        settle: settle?,
        quarantine: quarantine?,
        on_stop_failure: on_stop_failure?,
        forced_stop_within: forced_stop_within?,
    })
}

fn read_rank(value: Value<'_>, spread: Option<(GroupName, Value<'_>)>) -> Option<Rank> {
    let (word, mut fields) = value.variant("`Priority` or `Utility(margin: 10)`")?;
    let rank = match word {
        "Priority" => {
            if let Some((_, place)) = spread {
                let help = "leave `rank` out, or write `rank: Utility(margin: 10)`".to_owned();
                place.problem("`Spread` lowers the utility, and this hierarchy does not rank by utility", Some(help));
            }
            Some(Rank::Priority)
        }
        "Utility" => {
            let spread = spread.map(|(group, _)| group);
            read_margin(&mut fields).map(|margin| Rank::Utility { margin, spread })
        }
        other => {
            value.unknown_name("way to rank nodes", other, &["Priority", "Utility"]);
            return None;
        }
    };
    fields.finish();
    rank
}

fn read_margin(fields: &mut Fields<'_>) -> Option<u8> {
    let expected = "1 to 100 points of utility";
    let margin: u8 = fields.required("margin", expected)?;
    if !(1..=100).contains(&margin) {
        fields.problem("margin", &format!("margin is {margin}: expected {expected}"), None);
        return None;
    }
    Some(margin)
}

fn read_failback(value: Value<'_>) -> Option<Failback> {
    let (word, mut fields) = value.variant("`Manual` or `Auto(after: \"30s\")`")?;
    let failback = match word {
        "Manual" => Some(Failback::Manual),
        "Auto" => fields
            .required::<Span>("after", "how long the better node must have been well, such as \"30s\"")
            .map(|after| Failback::Auto { after: after.0 }),
        other => {
            value.unknown_name("kind of failback", other, &["Manual", "Auto"]);
            return None;
        }
    };
    fields.finish();
    failback
}

fn read_on_stop_failure(value: Value<'_>) -> Option<OnStopFailure> {
    let (word, fields) = value.variant("`Reset` or `Hold`")?;
    let found = match word {
        "Reset" => OnStopFailure::Reset,
        "Hold" => OnStopFailure::Hold,
        other => {
            value.unknown_name("way to treat a failed stop", other, &["Reset", "Hold"]);
            return None;
        }
    };
    fields.finish();
    Some(found)
}

fn read_limit(
    fields: &mut Fields<'_>,
    key: &'static str,
    count_key: &'static str,
    default: Limit,
    least: u32,
) -> Option<Limit> {
    let Some(value) = fields.value(key) else { return Some(default) };
    let mut inner = value.fields(key)?;
    let count = inner.or(count_key, COUNT, default.count);
    if count < least {
        inner.problem(count_key, &format!("`{count_key}` is {count}: expected at least {least}"), None);
    }
    let within = span(&mut inner, "within", default.within);
    inner.finish();
    Some(Limit { count, within: within? })
}

pub(super) fn read_timeouts(fields: &mut Fields<'_>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let Some(value) = fields.value("timeouts") else { return Some(default) };
    let mut inner = value.fields("timeouts")?;
    let (start, stop) = (span(&mut inner, "start", default.start), span(&mut inner, "stop", default.stop));
    let (monitor, kill) = (span(&mut inner, "monitor", default.monitor), span(&mut inner, "kill", default.kill));
    inner.finish();
    Some(Timeouts { start: start?, stop: stop?, monitor: monitor?, kill: kill? })
}

pub(super) fn read_monitoring(fields: &mut Fields<'_>) -> Option<Monitor> {
    let default = Monitor::default();
    let Some(value) = fields.value("monitoring") else { return Some(default) };
    let mut inner = value.fields("monitoring")?;
    let every = span(&mut inner, "every", default.every);
    let unknowns_tolerated = inner.or("unknowns_tolerated", COUNT, default.unknowns_tolerated);
    inner.finish();
    Some(Monitor { every: every?, unknowns_tolerated })
}
