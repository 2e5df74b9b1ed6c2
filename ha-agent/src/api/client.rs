//! The other end of the API: what the command line asks with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ErrorBody, ErrorCode};
use crate::exit::{Exit, Failure};

/// Longer than anything the agent itself waits for.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A way to an agent; every request is a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// To the agent behind a socket. Nothing is opened yet.
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// Asks for something to be done.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::new(Exit::BadInput, e))?;
        self.read(self.send(Method::POST, path, body.into()).await?).await
    }

    /// Asks for lines, and hands over each as it comes, until the agent ends the answer.
    pub(crate) async fn lines(&self, path: &str, each: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        self.read_lines(response, each).await
    }

    /// Asks for something to be done, and hands over each line of the answer as it comes.
    pub(crate) async fn post_for_lines(
        &self,
        path: &str,
        body: &impl Serialize,
        each: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let response = self.send(Method::POST, path, body.into()).await?;
        self.read_lines(response, each).await
    }

    async fn read_lines(
        &self,
        mut response: Response<Incoming>,
        mut each: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if response.status() != StatusCode::OK {
            return self.read::<serde::de::IgnoredAny>(response).await.map(|_| ());
        }
        let mut pending = Vec::new();
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|e| self.broken(&e))?;
            let Some(data) = frame.data_ref() else { continue };
            pending.extend_from_slice(data);
            while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(String::from_utf8_lossy(&line).trim_end())?;
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| unreachable(&self.socket, &e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // Ends by itself when the answer is read or dropped.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "ha")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| Failure::new(Exit::BadInput, format!("{path:?} cannot be asked for: {e}")))?;
        match tokio::time::timeout(ANSWER_WITHIN, sender.send_request(request)).await {
            Ok(sent) => sent.map_err(|e| self.broken(&e)),
            Err(_) => Err(Failure::new(
                Exit::Unreachable,
                format!("the agent behind {} did not answer within 30 s", self.socket.display()),
            )
            .help("look at its log: journalctl -u ha")),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| self.broken(&e))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| self.foreign(&e));
        }
        let ErrorBody { error } = serde_json::from_slice(&body).map_err(|e| self.foreign(&e))?;
        let exit = match error.code {
            ErrorCode::Malformed
            | ErrorCode::UnknownHierarchy
            | ErrorCode::UnknownNode
            | ErrorCode::TooLarge
            | ErrorCode::BadConfiguration => Exit::BadInput,
            ErrorCode::Unavailable => Exit::Unreachable,
            ErrorCode::NoAnswer => Exit::TimedOut,
            ErrorCode::Forbidden | ErrorCode::NotNow => Exit::Refused,
            ErrorCode::UnknownRoute | ErrorCode::WrongMethod => Exit::System,
        };
        let failure = Failure::new(exit, error.message);
        Err(match error.code {
            ErrorCode::UnknownRoute | ErrorCode::WrongMethod => {
                failure.help("the agent is of another version than this program: restart the agent after an upgrade")
            }
            _ => failure,
        })
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        Failure::new(Exit::Unreachable, format!("the connection to {} broke: {error}", self.socket.display()))
            .help("the agent may have ended or been restarted: ask again, then look at its log")
    }

    fn foreign(&self, error: &serde_json::Error) -> Failure {
        Failure::new(Exit::System, format!("the answer from {} is not of this API: {error}", self.socket.display()))
            .help("is it the socket of an agent, of the same version as this program?")
    }
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let socket = socket.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Exit::Unreachable, format!("there is no agent at {socket} (no such socket)"))
                .help("is the agent running? systemctl start ha; or name its socket with --socket")
        }
        std::io::ErrorKind::ConnectionRefused => {
            Failure::new(Exit::Unreachable, format!("no agent listens at {socket} (connection refused)"))
                .help("the agent ended without removing its socket: systemctl start ha")
        }
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::Unreachable, format!("you may not use {socket} (permission denied)"))
                .help("do it as root, or become a member of the socket's group: ls -l on it shows which")
        }
        _ => Failure::new(Exit::Unreachable, format!("the agent at {socket} cannot be reached: {error}")),
    }
}
