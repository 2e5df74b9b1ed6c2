//! The socket itself: its file, its permissions, its connections and their limits.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Gid, Group, chown};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::peer::Caller;
use super::{Agent, server};

/// More connections wait until one ends.
const CONNECTIONS_MAX: usize = 64;
/// A caller that has not sent the head of its request by then is cut off.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// After a failure to accept (out of file descriptors): time for others to end.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Where the socket is and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Permission bits of its file.
    pub(crate) mode: u32,
    /// The group of its file; the agent's own if not given.
    pub(crate) group: Option<String>,
    /// Members of this group may change things.
    pub(crate) operators: Option<String>,
}

/// Opens the socket and serves the API on it, until the future returned is dropped.
pub(crate) fn serve(
    options: &SocketOptions,
    agent: Arc<dyn Agent>,
) -> io::Result<impl Future<Output = ()> + Send + 'static + use<>> {
    let operators = options.operators.as_deref().map(gid_of).transpose()?;
    let listener = bind(options)?;
    let router = server::router(agent, operators);
    let file = SocketFile(options.path.clone());
    Ok(async move {
        let _file = file;
        accept(listener, router).await;
    })
}

/// Removes the socket's file at the end, so that a later client is told that no agent runs.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn bind(options: &SocketOptions) -> io::Result<UnixListener> {
    let path = &options.path;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Left by an agent that was killed; a second living one is kept out by the lock file, before this.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Bound under another name and moved into place only with its permissions set: nobody can connect before.
    let hidden = hidden_name(path);
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    if let Some(group) = &options.group {
        chown(&hidden, None, Some(gid_of(group)?))?;
    }
    fs::set_permissions(&hidden, fs::Permissions::from_mode(options.mode))?;
    fs::rename(&hidden, path)?;
    Ok(listener)
}

fn hidden_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn gid_of(group: &str) -> io::Result<Gid> {
    match Group::from_name(group)? {
        Some(group) => Ok(group.gid),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group {group:?} on this machine: create it (groupadd {group}), or name another one"),
        )),
    }
}

async fn accept(listener: UnixListener, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API socket could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, router: Router) {
    let caller = match stream.peer_cred() {
        Ok(cred) => Caller { uid: cred.uid(), gid: cred.gid() },
        Err(error) => {
            tracing::warn!(%error, "a caller of the API has no credentials: refused");
            return;
        }
    };
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
