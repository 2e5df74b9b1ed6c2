//! What `ha history` says of the time in which a client was not served.
//!
//! Decides whether an outage that a client saw is explained: by entries that cover it, of which one names a cause that fits the fault that
//! was brought about. Clocks of guests are those of the host.

use std::time::{Duration, SystemTime};

use ha_core::record::{Cause, Fault as Found, Timeline};
use serde::Deserialize;

use super::cluster::KernelCluster;
use super::fault::Fault;
use super::guest::Guest;
use crate::cluster::{Cluster, Machines};
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

/// So much of an outage may be without an explanation: what a client needs to find out that its connection is of no use any more, and to
/// make another one.
pub const UNEXPLAINED: Duration = Duration::from_secs(5);

/// A time in which a client was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When it was last served.
    pub from: SystemTime,
    /// When it was served again.
    pub to: SystemTime,
}

impl Gap {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.to.duration_since(self.from).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct View {
    timelines: Vec<Entry>,
}

/// An entry of the history of some node.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    fault_at: String,
    in_service_at: String,
    /// The entry itself.
    pub timeline: Timeline,
}

impl Entry {
    /// From the fault until it was in service again, on the clock of the node that tells it.
    pub fn span(&self) -> Result<(SystemTime, SystemTime)> {
        let time = |text: &str| humantime::parse_rfc3339(text).to(format!("read the time {text}"));
        Ok((time(&self.fault_at)?, time(&self.in_service_at)?))
    }

    /// Whether its cause is one that this fault has.
    fn fits(&self, fault: Fault) -> bool {
        let storage = |found: &Found| matches!(found, Found::Unproven { .. } | Found::ClaimLost { .. });
        match (fault, &self.timeline.cause) {
            (Fault::PowerLoss, Cause::Failover { fault, .. }) => matches!(fault, Found::Silent | Found::Rebooted),
            (Fault::Hang, Cause::Failover { fault, .. }) => matches!(fault, Found::Silent | Found::Frozen { .. }),
            (Fault::NetworkCut, Cause::Stayed { fault }) => *fault == Found::Silent,
            (Fault::StorageCut, Cause::Failover { fault, .. })
            | (Fault::TargetPowerLoss, Cause::Stayed { fault } | Cause::LocalRecovery { fault }) => storage(fault),
            (Fault::ServiceKilled, Cause::LocalRecovery { fault }) => matches!(fault, Found::Failed { .. }),
            (Fault::AgentKilled, Cause::Adoption) | (Fault::Move, Cause::Switchover { .. }) => true,
            _ => false,
        }
    }
}

/// All that a node tells of what it saw since its agent began, the oldest first.
pub fn told_by<L: Machines>(cluster: &Cluster<L>, node: &str) -> Result<Vec<Entry>> {
    let text = cluster.ask(node, &["history", "--last", "1000", "--json"])?;
    let view: View = serde_json::from_str(&text).to(format!("read the history of {node}"))?;
    Ok(view.timelines)
}

/// All that the nodes tell, each of what it saw since its agent began.
pub fn entries(cluster: &KernelCluster) -> Vec<Entry> {
    let nodes = cluster.lab().nodes().iter().map(Guest::name);
    nodes.flat_map(|node| eventually("a node tells its history", || told_by(cluster, node))).collect()
}

/// Whether every gap is explained by what the nodes tell, and the longest one by a cause that fits; an error says what was seen.
pub fn explained(cluster: &KernelCluster, fault: Fault, gaps: &[Gap]) -> Result<()> {
    let Some(longest) = gaps.iter().max_by_key(|gap| gap.length()) else { return Ok(()) };
    let entries = entries(cluster);
    for gap in gaps {
        let mut told = Vec::new();
        let mut spans = Vec::new();
        let mut fits = false;
        for entry in &entries {
            let (from, to) = entry.span()?;
            if to >= gap.from && from <= gap.to {
                told.push(entry.timeline.to_string());
                spans.push((from.max(gap.from), to.min(gap.to)));
                fits |= entry.fits(fault);
            }
        }
        let left = gap.length().saturating_sub(covered(spans));
        let told = told.join("\n");
        let trouble = |what: &str| {
            let (from, to) = (humantime::format_rfc3339_millis(gap.from), humantime::format_rfc3339_millis(gap.to));
            Err(Trouble::new(format!(
                "{fault:?}: {what}: no row was committed from {from} to {to} ({:.1?}), of which {left:.1?} are not explained; told of \
                 that time:\n{told}",
                gap.length()
            )))
        };
        if left > UNEXPLAINED {
            return trouble("an outage without an explanation");
        }
        if gap == longest && !fits {
            return trouble("the cause that is told is not what happened");
        }
    }
    Ok(())
}

/// How much time is in at least one of some spans.
fn covered(mut spans: Vec<(SystemTime, SystemTime)>) -> Duration {
    spans.sort();
    let mut end = SystemTime::UNIX_EPOCH;
    let mut sum = Duration::ZERO;
    for (from, to) in spans {
        sum += to.duration_since(from.max(end)).unwrap_or_default();
        end = end.max(to);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_several_entries_explain_counts_once() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(
            covered(vec![(at(5), at(9)), (at(1), at(4)), (at(3), at(6)), (at(7), at(8))]),
            Duration::from_secs(8)
        );
        assert_eq!(covered(Vec::new()), Duration::ZERO);
    }
}
