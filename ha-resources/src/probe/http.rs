//! Utility by an HTTP request: 100 if the answer is as expected, else 0.
//!
//! Decides what counts as expected: a status from 200 to 399 or the one named, and a text in the body if one is named. Each measurement
//! makes a connection of its own (HTTP/1.1, RFC 9112) and follows no redirection. The server is named by its address, so that no name
//! service can make a node look useless.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Probe};
use ha_core::name::Utility;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::MARGIN;

/// So much of a body is looked at, in bytes.
const BODY_MAX: usize = 1 << 20;

/// The address of a page: `http://`, an IP address, a port if it is not 80, and a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    uri: Uri,
    server: SocketAddr,
}

/// Something that is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}: expected a URL with an IP address, such as \"http://10.0.0.5:8080/health\"")]
pub struct UrlError {
    text: String,
    problem: &'static str,
}

impl TryFrom<String> for Url {
    type Error = UrlError;
    fn try_from(text: String) -> Result<Url, UrlError> {
        let problem = |problem| UrlError { text: text.clone(), problem };
        let uri: Uri = text.parse().map_err(|_| problem("is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(problem("is encrypted, which is not measured (Exec with curl can)")),
            _ => return Err(problem("does not begin with http://")),
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let host: IpAddr =
            host.parse().map_err(|_| problem("names its server by no address (set `host` for a name)"))?;
        let server = SocketAddr::new(host, uri.port_u16().unwrap_or(80));
        Ok(Url { uri, server })
    }
}

/// What the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSpec {
    /// The page.
    pub url: Url,
    /// The name of the site that is asked for, if it is not the address: the `Host` field.
    pub host: Option<String>,
    /// The only status that counts; `None` for any from 200 to 399.
    pub status: Option<u16>,
    /// A text that has to be in the first MiB of the body.
    pub contains: Option<String>,
    /// From the end of one measurement to the begin of the next.
    pub every: Duration,
    /// How long it may take until the whole answer is there.
    pub timeout: Duration,
}

impl HttpSpec {
    /// With the defaults: any good status, every second, within 2 seconds.
    pub fn new(url: Url) -> HttpSpec {
        let (every, timeout) = (Duration::from_secs(1), Duration::from_secs(2));
        HttpSpec { url, host: None, status: None, contains: None, every, timeout }
    }
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Http {
    spec: HttpSpec,
}

impl Http {
    /// A probe.
    pub fn new(spec: HttpSpec) -> Http {
        Http { spec }
    }

    async fn ask(&self) -> Result<String, String> {
        let HttpSpec { url: Url { uri, server }, host, status, contains, .. } = &self.spec;
        let stream = TcpStream::connect(server).await.map_err(|e| format!("cannot be connected to: {e}"))?;
        let broken = |e: hyper::Error| format!("breaks the connection: {e}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Polled beside the request, so that a measurement that is dropped leaves nothing behind.
        let request = async move {
            let host = host.clone().unwrap_or_else(|| uri.authority().map(ToString::to_string).unwrap_or_default());
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let request = Request::get(path).header(header::HOST, host).header(header::CONNECTION, "close");
            let request = request.body(Empty::<Bytes>::new()).map_err(|e| format!("cannot be asked: {e}"))?;
            let answer = sender.send_request(request).await.map_err(broken)?;
            let found = answer.status();
            if !status.map_or(found.is_success() || found.is_redirection(), |wanted| found.as_u16() == wanted) {
                return Err(format!("answers {found}"));
            }
            let Some(text) = contains else { return Ok(format!("answers {found}")) };
            let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
            let body = body.map_err(|e| format!("answers {found}, and then not all of its body: {e}"))?.to_bytes();
            if String::from_utf8_lossy(&body).contains(text.as_str()) {
                return Ok(format!("answers {found} with {text:?}"));
            }
            Err(format!("answers {found}, but {text:?} is not in it"))
        };
        tokio::pin!(connection, request);
        tokio::select! {
            answer = &mut request => answer,
            ended = &mut connection => match ended {
                // What came before it ended may still have to be read.
                Ok(()) => request.await,
                Err(e) => Err(broken(e)),
            },
        }
    }
}

#[async_trait]
impl Probe for Http {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        let (page, timeout) = (&self.spec.url.uri, self.spec.timeout);
        Ok(match tokio::time::timeout(timeout, self.ask()).await {
            Ok(Ok(what)) => (Utility::FULL, format!("{page} {what}")),
            Ok(Err(why)) => (Utility::NONE, format!("{page} {why}")),
            Err(_) => (Utility::NONE, format!("{page} did not answer within {timeout:?}")),
        })
    }

    fn every(&self) -> Duration {
        self.spec.every
    }

    fn timeout(&self) -> Duration {
        self.spec.timeout + MARGIN
    }
}

/// Whether a status can be expected of a server (RFC 9110, 15).
pub(super) fn is_status(code: u16) -> bool {
    StatusCode::from_u16(code).is_ok_and(|status| !status.is_informational())
}

/// Whether a text can stand in a `Host` field.
pub(super) fn is_host(host: &str) -> bool {
    !host.is_empty() && hyper::http::uri::Authority::try_from(host).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that answers every request in this way, and tells what it was asked.
    async fn server(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = Vec::new();
                while !question.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    question.push(byte[0]);
                }
                let _ = asked.send(String::from_utf8(question).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, questions)
    }

    fn page(server: SocketAddr) -> HttpSpec {
        let url = format!("http://{server}/health?deep=1").try_into().unwrap();
        HttpSpec { timeout: Duration::from_secs(30), ..HttpSpec::new(url) }
    }

    async fn measure(spec: HttpSpec) -> (u8, String) {
        let (utility, why) = Http::new(spec).measure().await.unwrap();
        (utility.get(), why)
    }

    #[tokio::test]
    async fn a_page_is_useful_while_it_is_answered_as_expected() {
        let (good, mut asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nall well").await;
        assert_eq!(measure(page(good)).await.0, 100);
        let asked = asked.recv().await.unwrap();
        assert!(
            asked.starts_with("GET /health?deep=1 HTTP/1.1\r\n") && asked.contains(&format!("host: {good}")),
            "{asked}"
        );
        let (utility, why) = measure(HttpSpec { contains: Some("well".into()), ..page(good) }).await;
        assert_eq!((utility, why.ends_with("answers 200 OK with \"well\"")), (100, true), "{why}");
        let (utility, why) = measure(HttpSpec { contains: Some("ill".into()), ..page(good) }).await;
        assert_eq!((utility, why.ends_with("but \"ill\" is not in it")), (0, true), "{why}");
        assert_eq!(measure(HttpSpec { status: Some(204), ..page(good) }).await.0, 0);

        let (busy, _asked) = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let (utility, why) = measure(page(busy)).await;
        assert_eq!((utility, why.ends_with("answers 503 Service Unavailable")), (0, true), "{why}");
        assert_eq!(measure(HttpSpec { status: Some(503), ..page(busy) }).await.0, 100);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told() {
        let (noise, _asked) = server("220 this is not HTTP\r\n").await;
        let (utility, why) = measure(page(noise)).await;
        assert!(utility == 0 && why.contains("breaks the connection"), "{why}");
        let (silent, _asked) = server("").await;
        let (utility, why) = measure(HttpSpec { timeout: Duration::from_millis(50), ..page(silent) }).await;
        assert!(utility == 0 && !why.is_empty(), "{why}");
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (utility, why) = measure(page(nobody)).await;
        assert!(utility == 0 && why.contains("refused"), "{why}");
    }
}
