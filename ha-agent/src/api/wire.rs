//! The bodies of requests and answers. What they contain of the node is the engine's own types, unchanged.

use ha_core::driver::Measured;
use ha_core::engine::{Command, HierarchyView, Refused};
use ha_core::name::{HierarchyName, NodeName, ResourceName};
use ha_core::record::{Event, Ongoing, Timeline};
use ha_core::recovery::Operation;
use ha_resources::fence::agents::{FenceReport, Step};
use serde::{Deserialize, Serialize};

use crate::view::Problem;

/// `POST /v1/command`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandRequest {
    /// The node that is to carry it out; the one asked if left out.
    #[serde(default)]
    pub(crate) to: Option<NodeName>,
    /// What. Its author is filled in by the agent from the caller's credentials.
    pub(crate) command: Command,
}

/// `GET /v1/why/{hierarchy}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WhyView {
    /// Whose conclusion it is.
    pub(crate) node: NodeName,
    /// The hierarchy as that node sees it.
    pub(crate) hierarchy: HierarchyView,
    /// What the agent that was asked knows to be wrong with how it is set up on its own node; of another node it cannot say.
    #[serde(default)]
    pub(crate) problems: Vec<Problem>,
}

/// `GET /v1/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryView {
    /// Whose history it is.
    pub(crate) node: NodeName,
    /// The oldest first.
    pub(crate) timelines: Vec<TimelineView>,
    /// What is not over yet.
    #[serde(default)]
    pub(crate) ongoing: Vec<OngoingView>,
}

/// An interruption that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OngoingView {
    /// Since when, by the wall clock (RFC 3339).
    pub(crate) since: String,
    /// For how long by now, in milliseconds.
    pub(crate) for_ms: u64,
    /// What is known of it.
    pub(crate) ongoing: Ongoing,
}

/// One timeline, with the figures worked out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TimelineView {
    /// When the fault was, by the wall clock (RFC 3339); right as far as the clock was not set since.
    pub(crate) fault_at: String,
    /// When the hierarchy was in service, by the wall clock.
    pub(crate) in_service_at: String,
    /// From the fault to the begin of action, in microseconds.
    pub(crate) t_detect_us: u64,
    /// From the begin of action to service, in microseconds.
    pub(crate) t_recover_us: u64,
    /// Every step, on the node's boot-time clock.
    pub(crate) timeline: Timeline,
}

/// One of `GET /v1/measured`: how long an operation of a resource took on this node at most, since its agent began: done well, or given up at
/// its time-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MeasuredView {
    /// The hierarchy.
    pub(crate) hierarchy: HierarchyName,
    /// The resource in it.
    pub(crate) resource: ResourceName,
    /// What was done.
    pub(crate) operation: Operation,
    /// The longest time, in milliseconds.
    pub(crate) longest_ms: u64,
}

impl From<Measured> for MeasuredView {
    fn from(measured: Measured) -> Self {
        let Measured { hierarchy, resource, operation, longest } = measured;
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        MeasuredView { hierarchy, resource, operation, longest_ms }
    }
}

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventLine {
    /// When, by the wall clock (RFC 3339).
    pub(crate) time: String,
    /// On which node.
    pub(crate) node: NodeName,
    /// In words.
    pub(crate) line: String,
    /// The event itself.
    pub(crate) event: Event,
}

/// Whether a reload only shows what it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReloadMode {
    /// Shows.
    Plan,
    /// Does.
    Apply,
}

/// `POST /v1/reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadRequest {
    /// Show or do.
    pub(crate) apply: ReloadMode,
}

/// What a reload does, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReloadView {
    /// It was done.
    pub(crate) applied: bool,
    /// One line per hierarchy that changes; empty when nothing does.
    pub(crate) changes: Vec<String>,
    /// What changed in the files but takes effect only when the agent is restarted.
    pub(crate) needs_restart: Vec<String>,
}

/// `POST /v1/fence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FenceRequest {
    /// Another node.
    pub(crate) node: NodeName,
    /// What is done with it.
    pub(crate) what: FenceWhat,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}

/// What fence devices are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FenceWhat {
    /// The node is switched off.
    Off,
    /// It is switched off and, once that is proven, on again.
    Reboot,
    /// Every device is asked whether it can be reached, and for the node's power. Nothing is touched.
    Test,
}

/// One line of the answer to `POST /v1/fence`; the last one is not a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FenceLine {
    /// An action of a device has ended.
    Step(Step),
    /// The node was fenced, or that was tried.
    Fenced {
        /// Level by level.
        report: FenceReport,
        /// In one line.
        summary: String,
        /// Whether it was switched on again afterwards; the error is for people.
        switched_on: Option<Result<(), String>>,
    },
    /// Every device was looked at.
    Tested {
        /// What is wrong, each a sentence.
        troubles: Vec<String>,
    },
}

/// `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The node.
    pub(crate) node: NodeName,
    /// The version of the agent.
    pub(crate) version: String,
    /// The engine's loop answers.
    pub(crate) turning: bool,
}

/// What every refused request is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    /// The error.
    pub(crate) error: ErrorDetail,
}

/// An error, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorDetail {
    /// For programs.
    pub(crate) code: ErrorCode,
    /// For people: what, which value, what was expected.
    pub(crate) message: String,
    /// The node's refusal, when it was the node that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refused>,
}

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ErrorCode {
    /// 400: the body or the query cannot be understood.
    Malformed,
    /// 403: the caller may look, but not change anything.
    Forbidden,
    /// 404: no such route.
    UnknownRoute,
    /// 404: no such hierarchy.
    UnknownHierarchy,
    /// 404: no such node.
    UnknownNode,
    /// 405: the route exists, but not with this method.
    WrongMethod,
    /// 409: cannot be done now.
    NotNow,
    /// 413: the body is larger than 64 KiB.
    TooLarge,
    /// 422: the configuration files have errors.
    BadConfiguration,
    /// 503: the agent is stopping, or its loop does not turn.
    Unavailable,
    /// 504: the node that would have to do it did not answer.
    NoAnswer,
}

impl ErrorBody {
    /// An error of the API itself.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { error: ErrorDetail { code, message: message.into(), refused: None } }
    }
}

impl From<super::Stopped> for ErrorBody {
    fn from(_: super::Stopped) -> Self {
        Self::new(ErrorCode::Unavailable, "the agent is stopping: ask again when it runs")
    }
}

impl From<Refused> for ErrorBody {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::UnknownHierarchy { .. } => ErrorCode::UnknownHierarchy,
            Refused::UnknownNode { .. } => ErrorCode::UnknownNode,
            Refused::NotNow(_) => ErrorCode::NotNow,
            Refused::NoAnswer { .. } => ErrorCode::NoAnswer,
        };
        Self { error: ErrorDetail { code, message: refused.to_string(), refused: Some(refused) } }
    }
}
