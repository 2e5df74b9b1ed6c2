//! The routes, and the way of every request through them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ha_core::engine::{Ask, Command, Refused, Reply, Snapshot};
use ha_core::name::{HierarchyName, NodeName};
use ha_core::record::{Event, Timeline};
use ha_core::time::Time;
use nix::unistd::Gid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};

use super::gather::gather;
use super::peer::Caller;
use super::{
    Agent, CommandRequest, ErrorBody, ErrorCode, EventLine, FenceLine, FenceRequest, Health, HistoryView, MeasuredView,
    OngoingView, ReloadRequest, TimelineView, WhyView,
};
use crate::view::ClusterView;

/// A command is a few hundred bytes.
const BODY_MAX: usize = 64 * 1024;
/// The engine's loop turns a thousand times in this.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Shared {
    agent: Arc<dyn Agent>,
    operators: Option<Gid>,
}

/// The whole API.
pub(super) fn router(agent: Arc<dyn Agent>, operators: Option<Gid>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/view", get(view))
        .route("/v1/command", post(command))
        .route("/v1/why/{hierarchy}", get(why))
        .route("/v1/history", get(history))
        .route("/v1/events", get(events))
        .route("/v1/measured", get(measured))
        .route("/v1/reload", post(reload))
        .route("/v1/fence", post(fence))
        .route("/v1/health", get(health))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Shared { agent, operators })
}

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        let status = match self.error.code {
            ErrorCode::Malformed => StatusCode::BAD_REQUEST,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::UnknownRoute | ErrorCode::UnknownHierarchy | ErrorCode::UnknownNode => StatusCode::NOT_FOUND,
            ErrorCode::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::NotNow => StatusCode::CONFLICT,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::BadConfiguration => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::NoAnswer => StatusCode::GATEWAY_TIMEOUT,
        };
        (status, Json(self)).into_response()
    }
}

type Answered<T> = Result<T, ErrorBody>;

async fn status(State(shared): State<Shared>) -> Answered<Json<ClusterView>> {
    Ok(Json(gather(&shared.agent).await?))
}

async fn view(State(shared): State<Shared>) -> Answered<Json<Snapshot>> {
    Ok(Json(shared.agent.snapshot().await?))
}

async fn command(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Json<Reply>> {
    let CommandRequest { to, mut command } = read_body(body)?;
    // Looking is not changing.
    let author = if command.what == Ask::View {
        off_loop(move || caller.user_name()).await?
    } else {
        authorise(&shared, caller).await?
    };
    let here = shared.agent.snapshot().await?.node;
    command.by = format!("{author}@{here}");
    let to = to.filter(|to| *to != here);
    Ok(Json(shared.agent.command(to, command).await?))
}

async fn measured(State(shared): State<Shared>) -> Answered<Json<Vec<MeasuredView>>> {
    Ok(Json(shared.agent.measured().await?.into_iter().map(MeasuredView::from).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    #[serde(default)]
    on: Option<NodeName>,
}

async fn why(
    State(shared): State<Shared>,
    Path(hierarchy): Path<String>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Answered<Json<WhyView>> {
    let Query(WhyQuery { on }) = query.map_err(|e| bad_query(&e, "on=NODE"))?;
    let name = HierarchyName::new(&hierarchy).map_err(|e| ErrorBody::new(ErrorCode::Malformed, e.to_string()))?;
    let local = shared.agent.snapshot().await?;
    let mut problems = Vec::new();
    if on.as_ref().is_none_or(|on| *on == local.node) {
        problems = shared.agent.warnings();
        problems.retain(|problem| problem.about == name.as_str());
    }
    let view = match on.filter(|on| *on != local.node) {
        None => local,
        Some(node) => {
            let ask = Command { what: Ask::View, by: String::new(), reason: String::new() };
            match shared.agent.command(Some(node.clone()), ask).await? {
                Reply::View(view) => *view,
                Reply::Accepted(_) => {
                    let why = "it answered with something that is not a view".to_owned();
                    return Err(Refused::NoAnswer { node, why }.into());
                }
            }
        }
    };
    let node = view.node;
    let known = view.hierarchies.iter().map(|h| h.name.clone()).collect();
    match view.hierarchies.into_iter().find(|h| h.name == name) {
        Some(hierarchy) => Ok(Json(WhyView { node, hierarchy, problems })),
        None => Err(Refused::UnknownHierarchy { name, node, known }.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    #[serde(default)]
    hierarchy: Option<HierarchyName>,
    #[serde(default)]
    last: Option<usize>,
}

async fn history(
    State(shared): State<Shared>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Answered<Json<HistoryView>> {
    let Query(query) = query.map_err(|e| bad_query(&e, "hierarchy=NAME and last=NUMBER"))?;
    let local = shared.agent.snapshot().await?;
    if let Some(name) = &query.hierarchy
        && !local.hierarchies.iter().any(|h| h.name == *name)
    {
        let known = local.hierarchies.iter().map(|h| h.name.clone()).collect();
        return Err(Refused::UnknownHierarchy { name: name.clone(), node: local.node, known }.into());
    }
    let mut timelines = shared.agent.timelines().await?;
    timelines.retain(|t| query.hierarchy.as_ref().is_none_or(|name| t.hierarchy == *name));
    if let Some(last) = query.last {
        timelines.drain(..timelines.len().saturating_sub(last));
    }
    let clock = WallClock::at(local.now);
    let timelines = timelines.into_iter().map(|t| timeline_view(t, clock)).collect();
    let mut ongoing = shared.agent.ongoing().await?;
    ongoing.retain(|o| query.hierarchy.as_ref().is_none_or(|name| o.hierarchy == *name));
    let ongoing = ongoing.into_iter().map(|ongoing| OngoingView {
        since: clock.show(ongoing.fault),
        for_ms: u64::try_from(local.now.since(ongoing.fault).as_millis()).unwrap_or(u64::MAX),
        ongoing,
    });
    Ok(Json(HistoryView { node: local.node, timelines, ongoing: ongoing.collect() }))
}

fn timeline_view(timeline: Timeline, clock: WallClock) -> TimelineView {
    let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    TimelineView {
        fault_at: clock.show(timeline.fault),
        in_service_at: clock.show(timeline.in_service),
        t_detect_us: micros(timeline.t_detect()),
        t_recover_us: micros(timeline.t_recover()),
        timeline,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    follow: bool,
}

async fn events(State(shared): State<Shared>, query: Result<Query<EventsQuery>, QueryRejection>) -> Answered<Response> {
    let Query(EventsQuery { follow }) = query.map_err(|e| bad_query(&e, "follow=true or follow=false"))?;
    // Subscribed before the past is read, so that nothing falls between.
    let live = shared.agent.subscribe();
    let past = shared.agent.recent_events().await?;
    let Snapshot { node, now, .. } = shared.agent.snapshot().await?;
    let clock = WallClock::at(now);
    let told: Vec<String> = past.iter().map(|event| line(event, &node, clock)).collect();
    let body = if follow {
        Body::from_stream(tokio_stream::iter(told.into_iter().map(Ok)).chain(follow_on(past, live, node, clock)))
    } else {
        Body::from(told.concat())
    };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(([kind], body).into_response())
}

fn follow_on(
    past: Vec<Event>,
    live: tokio::sync::broadcast::Receiver<Event>,
    node: NodeName,
    clock: WallClock,
) -> impl Stream<Item = Result<String, Infallible>> {
    let last_told = past.last().map(|event| event.at);
    BroadcastStream::new(live).filter_map(move |next| match next {
        // In the subscription and in the past as well.
        Ok(event) if last_told.is_some_and(|at| event.at <= at) && past.contains(&event) => None,
        Ok(event) => Some(Ok(line(&event, &node, clock))),
        Err(BroadcastStreamRecvError::Lagged(missed)) => Some(Ok(format!("{{\"missed\":{missed}}}\n"))),
    })
}

fn line(event: &Event, node: &NodeName, clock: WallClock) -> String {
    let line =
        EventLine { time: clock.show(event.at), node: node.clone(), line: event.to_string(), event: event.clone() };
    // Only a map with keys that are not text could fail, and there is none in it.
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.push('\n');
    text
}

async fn reload(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Response> {
    let ReloadRequest { apply } = read_body(body)?;
    authorise(&shared, caller).await?;
    match shared.agent.reload(apply).await {
        Ok(view) => Ok(Json(view).into_response()),
        Err(wrong) => Err(ErrorBody::new(ErrorCode::BadConfiguration, wrong)),
    }
}

/// The lines of a fencing as they come.
async fn fence(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Response> {
    let request: FenceRequest = read_body(body)?;
    let author = authorise(&shared, caller).await?;
    let here = shared.agent.snapshot().await?.node;
    let lines = shared.agent.fence(request, format!("{author}@{here}"))?;
    let text = |line: FenceLine| {
        // As with events: nothing in it could fail.
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Ok::<_, Infallible>(text)
    };
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(([kind], Body::from_stream(UnboundedReceiverStream::new(lines).map(text))).into_response())
}

async fn health(State(shared): State<Shared>) -> Answered<Json<Health>> {
    match tokio::time::timeout(HEALTHY_WITHIN, shared.agent.snapshot()).await {
        Ok(snapshot) => {
            let Snapshot { node, version, .. } = snapshot?;
            Ok(Json(Health { node, version, turning: true }))
        }
        Err(_) => {
            Err(ErrorBody::new(ErrorCode::Unavailable, "the engine's loop did not turn within 2 s: look at the log"))
        }
    }
}

async fn unknown_route(uri: Uri) -> ErrorBody {
    let path: String = uri.path().chars().take(100).collect();
    let message = format!(
        "there is no {path:?}: expected /v1/status, /v1/view, /v1/command, /v1/why/HIERARCHY, /v1/history, /v1/events, /v1/measured, \
         /v1/reload, /v1/fence or /v1/health"
    );
    ErrorBody::new(ErrorCode::UnknownRoute, message)
}

async fn wrong_method(method: Method, uri: Uri) -> ErrorBody {
    let expected = if matches!(uri.path(), "/v1/command" | "/v1/reload" | "/v1/fence") { "POST" } else { "GET" };
    let message = format!("{} does not answer to {method}: expected {expected}", uri.path());
    ErrorBody::new(ErrorCode::WrongMethod, message)
}

/// Reads JSON whatever the content type says, so that `curl --data` works as people expect.
fn read_body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Answered<T> {
    let body = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ErrorBody::new(ErrorCode::TooLarge, format!("the body is too large: expected at most {BODY_MAX} bytes"))
        }
        _ => ErrorBody::new(ErrorCode::Malformed, format!("the body could not be read: {}", e.body_text())),
    })?;
    serde_json::from_slice(&body)
        .map_err(|e| ErrorBody::new(ErrorCode::Malformed, format!("the body is not what was expected: {e}")))
}

fn bad_query(rejection: &QueryRejection, expected: &str) -> ErrorBody {
    let message = format!("the query is not what was expected ({expected}): {}", rejection.body_text());
    ErrorBody::new(ErrorCode::Malformed, message)
}

/// The caller's name, if it may change things.
async fn authorise(shared: &Shared, caller: Caller) -> Answered<String> {
    let operators = shared.operators;
    let (may, name) = off_loop(move || (caller.may_change(operators), caller.user_name())).await?;
    if may {
        return Ok(name);
    }
    Err(ErrorBody::new(
        ErrorCode::Forbidden,
        format!(
            "user {name} may look, but not change anything: do it as root, or as a member of the group in `socket: \
             (operators: …)` of agent.ron"
        ),
    ))
}

/// The system's user database may be slow.
async fn off_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Answered<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ErrorBody::new(ErrorCode::Unavailable, "the agent is stopping"))
}

/// From the node's boot-time clock to the wall clock, as it is set now.
#[derive(Clone, Copy)]
struct WallClock {
    now: Time,
    wall: SystemTime,
}

impl WallClock {
    fn at(now: Time) -> Self {
        Self { now, wall: SystemTime::now() }
    }

    fn show(self, at: Time) -> String {
        let moment = if at > self.now {
            self.wall.checked_add(self.now.until(at))
        } else {
            self.wall.checked_sub(self.now.since(at))
        };
        // Years past 9999 cannot be written.
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let moment = moment.unwrap_or(self.wall).clamp(SystemTime::UNIX_EPOCH, end);
        humantime::format_rfc3339_millis(moment).to_string()
    }
}
