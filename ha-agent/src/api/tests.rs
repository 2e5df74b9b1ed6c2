//! The API over a real Unix socket: right requests, wrong ones, and arbitrary bytes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::Measured;
use ha_core::engine::{Ask, Command, Refused, Reply, Snapshot};
use ha_core::name::{Epoch, HierarchyName, NodeName, ResourceName};
use ha_core::record::{Cause, Event, Fault, Happened, Mark, Ongoing, Timeline};
use ha_core::recovery::Operation;
use ha_core::time::Time;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::client::Client;
use super::{
    Agent, CommandRequest, ErrorBody, ErrorCode, EventLine, FenceLine, FenceRequest, FenceWhat, HistoryView,
    ReloadMode, ReloadView, SocketOptions, Stopped, WhyView, serve,
};
use crate::exit::Exit;
use crate::view::samples::{node, snapshot, web};
use crate::view::{ClusterView, Place, Problem, Source};

/// Alpha of the made-up cluster; beta answers for itself, gamma never.
struct Alpha {
    events: broadcast::Sender<Event>,
    asked: Mutex<Vec<(Option<NodeName>, Command)>>,
}

fn event(at: u64, what: &str) -> Event {
    Event { at: Time(at), hierarchy: Some(web()), what: Happened::Trouble { what: what.to_owned() } }
}

#[async_trait]
impl Agent for Alpha {
    async fn command(&self, to: Option<NodeName>, command: Command) -> Result<Reply, Refused> {
        if command.what != Ask::View {
            self.asked.lock().unwrap().push((to.clone(), command.clone()));
        }
        match (to.as_ref().map_or("alpha", NodeName::as_str), &command.what) {
            (asked @ ("alpha" | "beta"), Ask::View) => Ok(Reply::View(Box::new(snapshot(asked)))),
            (_, Ask::View) => Err(Refused::NoAnswer { node: node("gamma"), why: "silent".to_owned() }),
            (_, Ask::Stop { .. }) => Err(Refused::NotNow("web is in quarantine".to_owned())),
            (_, what) => Ok(Reply::Accepted(what.to_string())),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        Ok(snapshot("alpha"))
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn timelines(&self) -> Result<Vec<Timeline>, Stopped> {
        let at = |ms: u64| Time(80_000_000_000 + ms * 1_000_000);
        Ok(vec![Timeline {
            hierarchy: web(),
            cause: Cause::Failover { from: node("gamma"), fault: Fault::Silent },
            on: node("alpha"),
            epoch: Epoch(7),
            fault: at(0),
            detected: at(1_000),
            in_service: at(1_040),
            marks: Vec::new(),
            afterwards: None,
        }])
    }

    async fn ongoing(&self) -> Result<Vec<Ongoing>, Stopped> {
        let mark = |what: &str| Mark { at: Time(1), what: what.to_owned(), again: 0 };
        let of = |name: &str| Ongoing {
            hierarchy: HierarchyName::new(name).unwrap(),
            fault: Time(1),
            why: "stopped by root@alpha".to_owned(),
            marks: vec![mark("stopped, by root@alpha")],
        };
        Ok(vec![of("shop"), of("web")])
    }

    async fn recent_events(&self) -> Result<Vec<Event>, Stopped> {
        Ok(vec![event(1, "one"), event(2, "two")])
    }

    async fn measured(&self) -> Result<Vec<Measured>, Stopped> {
        let (hierarchy, resource) = (HierarchyName::new("web").unwrap(), ResourceName::new("data").unwrap());
        Ok(vec![Measured { hierarchy, resource, operation: Operation::Start, longest: Duration::from_millis(1_500) }])
    }

    async fn reload(&self, mode: ReloadMode) -> Result<ReloadView, String> {
        match mode {
            ReloadMode::Plan => Err("web.ron:3:5: nodes: expected a list".to_owned()),
            ReloadMode::Apply => Ok(ReloadView { applied: true, changes: Vec::new(), needs_restart: Vec::new() }),
        }
    }

    fn fence(&self, request: FenceRequest, by: String) -> Result<UnboundedReceiver<FenceLine>, ErrorBody> {
        if request.node == node("alpha") {
            return Err(ErrorBody::new(ErrorCode::NotNow, "alpha is this node"));
        }
        let (lines, listening) = unbounded_channel();
        let _ = lines.send(FenceLine::Tested { troubles: vec![by, request.reason] });
        Ok(listening)
    }

    fn warnings(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// Whether the caller ends its half of the connection.
#[derive(PartialEq, Eq)]
enum End {
    Sent,
    LeftToServer,
}

struct Served {
    dir: tempfile::TempDir,
    alpha: Arc<Alpha>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let alpha = Arc::new(Alpha { events: broadcast::channel(16).0, asked: Mutex::new(Vec::new()) });
        let options = SocketOptions { path: dir.path().join("run/ha.sock"), mode: 0o660, group: None, operators: None };
        let server = tokio::spawn(serve(&options, alpha.clone()).unwrap());
        Served { dir, alpha, server }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/ha.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Sends bytes as they are and reads all that comes back; a request that is not whole needs an end.
    async fn raw(&self, request: &[u8], end: End) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The server may hang up on nonsense before all of it is written.
        let _ = stream.write_all(request).await;
        if end == End::Sent {
            let _ = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the server ends every connection");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn refused(&self, method: &str, path: &str, body: &str) -> (String, ErrorBody) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: ha\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw(request.as_bytes(), End::LeftToServer).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }
}

#[tokio::test]
async fn every_malformed_request_gets_a_status_a_code_and_words() {
    let served = Served::new();
    let cases = [
        ("POST", "/v1/command", "", "400", ErrorCode::Malformed, "EOF"),
        ("POST", "/v1/command", "{", "400", ErrorCode::Malformed, "EOF"),
        ("POST", "/v1/command", "[]", "400", ErrorCode::Malformed, "body is not what was expected"),
        (
            "POST",
            "/v1/command",
            r#"{"command":{"what":"explode"}}"#,
            "400",
            ErrorCode::Malformed,
            "unknown variant `explode`",
        ),
        (
            "POST",
            "/v1/command",
            r#"{"command":{"what":"drain","who":1}}"#,
            "400",
            ErrorCode::Malformed,
            "unknown field `who`",
        ),
        (
            "POST",
            "/v1/command",
            r#"{"command":{"what":{"start":{"hierarchy":"a b"}}}}"#,
            "400",
            ErrorCode::Malformed,
            "hierarchy name \\\"a b\\\" is not valid",
        ),
        (
            "POST",
            "/v1/command",
            r#"{"command":{"what":{"stop":{"hierarchy":"web"}}}}"#,
            "409",
            ErrorCode::NotNow,
            "quarantine",
        ),
        ("POST", "/v1/reload", r#"{"apply":"maybe"}"#, "400", ErrorCode::Malformed, "expected `plan` or `apply`"),
        ("POST", "/v1/reload", r#"{"apply":"plan"}"#, "422", ErrorCode::BadConfiguration, "web.ron:3:5"),
        ("POST", "/v1/fence", r#"{"node":"beta","what":"on"}"#, "400", ErrorCode::Malformed, "`off`, `reboot`, `test`"),
        ("POST", "/v1/fence", r#"{"node":"alpha","what":"off"}"#, "409", ErrorCode::NotNow, "alpha is this node"),
        ("GET", "/v1/fence", "", "405", ErrorCode::WrongMethod, "expected POST"),
        ("GET", "/v1/command", "", "405", ErrorCode::WrongMethod, "expected POST"),
        ("DELETE", "/v1/status", "", "405", ErrorCode::WrongMethod, "expected GET"),
        ("GET", "/", "", "404", ErrorCode::UnknownRoute, "expected /v1/status"),
        ("GET", "/v2/status", "", "404", ErrorCode::UnknownRoute, "/v2/status"),
        ("GET", "/v1/why/mail", "", "404", ErrorCode::UnknownHierarchy, "expected one of web"),
        ("GET", "/v1/why/web?on=gamma", "", "504", ErrorCode::NoAnswer, "gamma did not answer"),
        ("GET", "/v1/why/web?on=", "", "400", ErrorCode::Malformed, "node name"),
        ("GET", "/v1/why/web?from=beta", "", "400", ErrorCode::Malformed, "unknown field `from`"),
        ("GET", "/v1/why/%20", "", "400", ErrorCode::Malformed, "hierarchy name"),
        ("GET", "/v1/history?last=-1", "", "400", ErrorCode::Malformed, "invalid digit"),
        ("GET", "/v1/history?hierarchy=mail", "", "404", ErrorCode::UnknownHierarchy, "expected one of web"),
        ("GET", "/v1/events?follow=perhaps", "", "400", ErrorCode::Malformed, "follow=true or follow=false"),
    ];
    for (method, path, body, status, code, words) in cases {
        let (got_status, got) = served.refused(method, path, body).await;
        let message = serde_json::to_string(&got.error.message).unwrap();
        assert_eq!((got_status.as_str(), got.error.code), (status, code), "{method} {path} {body}: {message}");
        assert!(message.contains(words), "{method} {path} {body}: {message}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let served = Served::new();
    let (status, got) = served.refused("POST", "/v1/command", &"x".repeat(100_000)).await;
    assert_eq!((status.as_str(), got.error.code), ("413", ErrorCode::TooLarge));
}

#[tokio::test]
async fn a_command_carries_the_author_that_the_kernel_vouches_for() {
    let served = Served::new();
    let command = Command { what: Ask::Standby, by: "somebody else".to_owned(), reason: "disks".to_owned() };
    let request = CommandRequest { to: Some(node("beta")), command };
    let reply: Reply = served.client().post("/v1/command", &request).await.unwrap();
    assert_eq!(reply, Reply::Accepted("standby".to_owned()));
    let asked = served.alpha.asked.lock().unwrap().clone();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().map(|u| u.name).unwrap_or_default();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, Some(node("beta")));
    assert_eq!((asked[0].1.by.clone(), asked[0].1.reason.as_str()), (format!("{me}@alpha"), "disks"));
}

#[tokio::test]
async fn fencing_is_told_line_by_line_with_the_author_that_the_kernel_vouches_for() {
    let served = Served::new();
    let request = FenceRequest { node: node("beta"), what: FenceWhat::Test, reason: "drill".to_owned() };
    let mut lines = Vec::new();
    let each = |line: &str| {
        lines.push(serde_json::from_str::<FenceLine>(line).unwrap());
        Ok(())
    };
    served.client().post_for_lines("/v1/fence", &request, each).await.unwrap();
    let [FenceLine::Tested { troubles }] = &lines[..] else { panic!("{lines:?}") };
    assert!(troubles[0].ends_with("@alpha") && troubles[1] == "drill", "{troubles:?}");
    let itself = FenceRequest { node: node("alpha"), ..request };
    let refused = served.client().post_for_lines("/v1/fence", &itself, |_| Ok(())).await.unwrap_err();
    assert_eq!((refused.exit, refused.what.as_str()), (Exit::Refused, "alpha is this node"));
}

#[tokio::test]
async fn the_status_is_made_of_every_answer() {
    let served = Served::new();
    let view: ClusterView = served.client().get("/v1/status").await.unwrap();
    let web = view.hierarchy(&web()).unwrap();
    assert_eq!(web.place, Place::InService(node("alpha")));
    let sources: Vec<&Source> = web.nodes.iter().map(|n| &n.source).collect();
    assert_eq!(sources, [&Source::Itself, &Source::Itself, &Source::HeardBy(node("alpha"))]);
    assert!(view.problems.iter().any(|p| p.what.contains("gamma did not give its view")), "{:?}", view.problems);
}

#[tokio::test]
async fn what_was_measured_is_told_in_milliseconds() {
    let served = Served::new();
    let told: serde_json::Value = served.client().get("/v1/measured").await.unwrap();
    let expected =
        serde_json::json!([{"hierarchy": "web", "resource": "data", "operation": "start", "longest_ms": 1500}]);
    assert_eq!(told, expected);
}

#[tokio::test]
async fn why_asks_the_node_named() {
    let served = Served::new();
    let view: WhyView = served.client().get("/v1/why/web?on=beta").await.unwrap();
    assert_eq!(view.node, node("beta"));
    let failure = served.client().get::<WhyView>("/v1/why/web?on=gamma").await.unwrap_err();
    assert_eq!(failure.exit, Exit::TimedOut);
}

#[tokio::test]
async fn the_history_has_its_figures_worked_out() {
    let served = Served::new();
    let view: HistoryView = served.client().get("/v1/history?hierarchy=web&last=5").await.unwrap();
    assert_eq!((view.timelines[0].t_detect_us, view.timelines[0].t_recover_us), (1_000_000, 40_000));
    assert!(view.timelines[0].fault_at < view.timelines[0].in_service_at);
    let ongoing: Vec<&str> = view.ongoing.iter().map(|o| o.ongoing.hierarchy.as_str()).collect();
    assert_eq!(ongoing, ["web"]);
}

#[tokio::test]
async fn events_go_on_where_the_past_ends() {
    let served = Served::new();
    let alpha = Arc::clone(&served.alpha);
    let mut seen = Vec::new();
    let client = served.client();
    let following = client.lines("/v1/events?follow=true", |line| {
        let line: EventLine = serde_json::from_str(line).unwrap();
        seen.push(line.line);
        match seen.len() {
            // The last of the past again, as it can come over the subscription, and then news.
            2 => {
                alpha.events.send(event(2, "two")).unwrap();
                alpha.events.send(event(2, "two, too")).unwrap();
                alpha.events.send(event(3, "three")).unwrap();
                Ok(())
            }
            4 => Err(crate::exit::Failure::new(Exit::Done, "enough")),
            _ => Ok(()),
        }
    });
    let ended = tokio::time::timeout(Duration::from_secs(30), following).await.unwrap();
    assert_eq!(ended.unwrap_err().what, "enough");
    assert_eq!(seen, ["web: one", "web: two", "web: two, too", "web: three"]);
}

#[tokio::test]
async fn the_socket_has_its_mode_and_goes_with_the_agent() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut served = Served::new();
    let mode = std::fs::metadata(served.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    served.server.abort();
    let _ = (&mut served.server).await;
    let failure = served.client().get::<ClusterView>("/v1/status").await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.help.unwrap().contains("is the agent running?"));
}

#[test]
fn arbitrary_bodies_are_answered_and_never_end_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = runtime.block_on(async { Served::new() });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        r#"\{"to":"?[a-z]{0,9}"?,"command":\{"what":\{?"[a-z]{0,9}":\{"hierarchy":"[ -~]{0,9}"\}\}\}\}"#
            .prop_map(String::into_bytes),
    ];
    runner
        .run(&body, |body| {
            let mut request = format!(
                "POST /v1/command HTTP/1.1\r\nhost: ha\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            let answer = runtime.block_on(served.raw(&request, End::LeftToServer));
            prop_assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            Ok(())
        })
        .unwrap();
    // And bytes that are not even HTTP.
    runner
        .run(&proptest::collection::vec(any::<u8>(), 1..300), |bytes| {
            runtime.block_on(served.raw(&bytes, End::Sent));
            prop_assert!(!served.server.is_finished());
            Ok(())
        })
        .unwrap();
}
