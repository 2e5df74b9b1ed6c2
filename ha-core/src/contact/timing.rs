//! How often a node speaks, and what silence means: the few figures from which all timing of contact derives.
//!
//! Decides the defaults and the relations between the figures, and refuses settings that cannot work. Leaves to the
//! rest of [`crate::contact`] to measure the silence.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{BootId, ChannelName, NodeName};
use crate::time::Span;

use super::ids::NodeIdError;

/// The timing of contact, the same on every node of a cluster. Defaults stand in [`Timing::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From one beat to the next, per peer; default 100 ms, 1 ms to 1 min.
    ///
    /// Shorter: a dead node is noticed sooner for the same number of lost datagrams tolerated. Longer: less traffic
    /// (one datagram per peer, channel and interval) and fewer wake-ups.
    pub interval: Duration,
    /// A peer silent for this long is [`Late`](super::PeerState::Late); default 300 ms, from `interval` to
    /// `dead_after`.
    ///
    /// Nothing is decided by it; it shows in the status and in the events that the network or the peer is struggling.
    pub late_after: Duration,
    /// A peer silent for this long, of which nobody else hears either, is [`Lost`](super::PeerState::Lost); default 1
    /// s, at least three intervals.
    ///
    /// The detection time: every takeover begins with it. Shorter than the longest pause of a healthy node or network,
    /// it makes false alarms: harmless (the claim is the arbiter) but for the load of needless attempts. The longest
    /// gap seen per channel ([`ChannelView::longest_gap`](super::ChannelView::longest_gap)) tells how short it can be.
    pub dead_after: Duration,
    /// A peer not heard since this node started counts as lost only after this; default 15 s, at least `dead_after`.
    ///
    /// Shorter: a node that starts alone serves sooner. Longer: machines that are switched on together find each other
    /// before the first of them takes everything. A node that hears all its peers does not wait.
    pub startup_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            late_after: Duration::from_millis(300),
            dead_after: Duration::from_secs(1),
            startup_grace: Duration::from_secs(15),
        }
    }
}

/// What silence means on one channel that differs from the others: a slow serial line, or a lock area, on which a slot
/// changes only every renewal.
///
/// A peer is in contact while any of its channels is: a channel with a greater `dead_after` than the cluster's makes
/// contact outlast the network by that much, and detection so much slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTiming {
    /// As [`Timing::late_after`], for this channel.
    pub late_after: Duration,
    /// As [`Timing::dead_after`], for this channel.
    pub dead_after: Duration,
}

/// Who takes part, and how contact is timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactConfig {
    /// This node; one of `nodes`.
    pub me: NodeName,
    /// The boot of this machine, told to the others: a new one proves that everything of the earlier one is gone.
    pub boot: BootId,
    /// Every node of the cluster, this one included.
    pub nodes: Vec<NodeName>,
    /// The cluster's timing.
    pub timing: Timing,
    /// Channels on which silence means something else.
    pub channels: BTreeMap<ChannelName, ChannelTiming>,
}

/// A configuration of contact that cannot work. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContactConfigError {
    /// Beats too close together to be worth it, or so far apart that no setting makes sense.
    #[error("interval is {}: expected 1ms to 1min", Span(*.0))]
    Interval(Duration),
    /// Not between interval and dead_after.
    #[error(
        "late_after of {who} is {}: expected at least the interval ({}) and less than dead_after ({})",
        Span(*late_after), Span(*interval), Span(*dead_after)
    )]
    LateAfter {
        /// "the cluster", or the channel.
        who: String,
        /// The value given.
        late_after: Duration,
        /// The cluster's interval.
        interval: Duration,
        /// The `dead_after` that goes with it.
        dead_after: Duration,
    },
    /// Fewer than three beats could be missed.
    #[error(
        "dead_after of {who} is {}: expected at least three intervals ({}), since single datagrams are lost on healthy networks",
        Span(*dead_after), Span(*interval * 3)
    )]
    DeadAfter {
        /// "the cluster", or the channel.
        who: String,
        /// The value given.
        dead_after: Duration,
        /// The cluster's interval.
        interval: Duration,
    },
    /// A node that starts would call peers lost before it could have heard them.
    #[error("startup_grace is {}: expected at least dead_after ({})", Span(*startup_grace), Span(*dead_after))]
    StartupGrace {
        /// The value given.
        startup_grace: Duration,
        /// The cluster's `dead_after`.
        dead_after: Duration,
    },
    /// This node is not in the list of nodes.
    #[error("node {0} is not among the nodes of the cluster: add it, or say with --node which of them this machine is")]
    NotANode(NodeName),
    /// The names cannot be told apart.
    #[error(transparent)]
    Ids(#[from] NodeIdError),
}

impl Timing {
    /// Checks the relations between the figures.
    pub fn check(&self) -> Result<(), ContactConfigError> {
        if self.interval < Duration::from_millis(1) || self.interval > Duration::from_secs(60) {
            return Err(ContactConfigError::Interval(self.interval));
        }
        let whole = ChannelTiming { late_after: self.late_after, dead_after: self.dead_after };
        whole.check("the cluster", self.interval)?;
        if self.startup_grace < self.dead_after {
            return Err(ContactConfigError::StartupGrace {
                startup_grace: self.startup_grace,
                dead_after: self.dead_after,
            });
        }
        Ok(())
    }

    /// A parcel not delivered within this is given up: ten times `dead_after`, at least 5 s.
    pub fn parcel_deadline(&self) -> Duration {
        (self.dead_after * 10).max(Duration::from_secs(5))
    }
}

impl ChannelTiming {
    fn check(&self, who: &str, interval: Duration) -> Result<(), ContactConfigError> {
        if self.dead_after < interval * 3 {
            return Err(ContactConfigError::DeadAfter { who: who.to_owned(), dead_after: self.dead_after, interval });
        }
        if self.late_after < interval || self.late_after >= self.dead_after {
            return Err(ContactConfigError::LateAfter {
                who: who.to_owned(),
                late_after: self.late_after,
                interval,
                dead_after: self.dead_after,
            });
        }
        Ok(())
    }
}

impl ContactConfig {
    /// Checks everything.
    pub fn check(&self) -> Result<(), ContactConfigError> {
        self.timing.check()?;
        for (name, timing) in &self.channels {
            timing.check(&format!("channel {name}"), self.timing.interval)?;
        }
        if !self.nodes.contains(&self.me) {
            return Err(ContactConfigError::NotANode(self.me.clone()));
        }
        Ok(())
    }

    /// What silence means on a channel.
    pub fn channel_timing(&self, channel: &ChannelName) -> ChannelTiming {
        self.channels
            .get(channel)
            .copied()
            .unwrap_or(ChannelTiming { late_after: self.timing.late_after, dead_after: self.timing.dead_after })
    }
}
