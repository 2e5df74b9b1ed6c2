//! The service manager systemd, spoken to over D-Bus: which connection, how things are asked, what its answers mean.
//!
//! Spoken to by its own socket, one to one, where that can be opened (as root): that needs no bus daemon, and goes on working while the
//! machine starts and stops. Otherwise by the system bus. Each operation opens a connection of its own: they cost a millisecond, and none
//! has to be told apart from one that systemd closed when it executed itself anew. Source: org.freedesktop.systemd1(5).
//!
//! Decides nothing about units: what is done with them stands in [`crate::resource::systemd`].

mod direct;
mod unit_name;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_core::driver::Failed;
use serde::Serialize;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{Connection, DynamicType, MatchRule, Message, MessageStream, OwnedVariant};

use crate::mounts;

pub use self::unit_name::{InvalidUnitName, UnitName};
pub(crate) use self::unit_name::{object_of, slice_path};

const MANAGER: &str = "/org/freedesktop/systemd1";
pub(crate) const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
pub(crate) const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
pub(crate) const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES_INTERFACE: &str = "org.freedesktop.DBus.Properties";
const BUS_NAME: &str = "org.freedesktop.systemd1";

/// While systemd executes itself anew nobody listens: after so long it is tried again, and so often.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
const TRIES: usize = 50;

/// Signals wait here until they are looked at; more than can be sent while one message is handled.
const SIGNALS_KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A running systemd, and where its files and control groups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceManager {
    socket: PathBuf,
    otherwise: Otherwise,
    unit_files: PathBuf,
    cgroups: Option<PathBuf>,
}

/// What is tried when the socket cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    SystemBus,
    Nothing,
}

/// How far the whole manager is (the property `SystemState`, systemctl(1) "is-system-running").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemState {
    /// Everything is being stopped: the machine goes down.
    Stopping,
    /// Any other state, in systemd's words.
    Other(String),
}

impl ServiceManager {
    /// That of this machine.
    pub fn of_machine() -> Self {
        let cgroups = mounts::all().ok().and_then(|all| all.into_iter().find(|mount| mount.fstype == "cgroup2"));
        Self {
            socket: PathBuf::from("/run/systemd/private"),
            otherwise: Otherwise::SystemBus,
            unit_files: PathBuf::from("/run/systemd/system"),
            cgroups: cgroups.map(|mount| mount.at),
        }
    }

    /// One that listens at `socket`, reads the unit files of this run in `unit_files`, and whose control groups (version 2) begin at
    /// `cgroups`.
    pub fn at(socket: impl Into<PathBuf>, unit_files: impl Into<PathBuf>, cgroups: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            otherwise: Otherwise::Nothing,
            unit_files: unit_files.into(),
            cgroups: Some(cgroups.into()),
        }
    }

    /// How far it is. Fails where no systemd runs, or it does not answer within a second.
    pub async fn state(&self) -> Result<SystemState, Failed> {
        let limit = Duration::from_secs(1);
        let asked = async { Ok(self.connect().await?.state().await?) };
        match tokio::time::timeout(limit, asked).await {
            Ok(state) => state,
            Err(_) => Err(Failed(format!("systemd did not say within {limit:?} how far it is"))),
        }
    }

    /// Where unit files are that do not outlive this boot.
    pub(crate) fn unit_files(&self) -> &Path {
        &self.unit_files
    }

    /// The root of its control groups.
    pub(crate) fn cgroups(&self) -> Option<&Path> {
        self.cgroups.as_deref()
    }

    /// A new connection; tried again for a second if nobody listens.
    pub(crate) async fn connect(&self) -> Result<Link, NotSaid> {
        let mut tries = 0;
        loop {
            let error = match self.connect_once().await {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            tries += 1;
            if tries == TRIES || !self.socket.exists() {
                return Err(NotSaid::Lost(format!(
                    "systemd cannot be reached at {}: {error}; units can be served only on a machine that systemd runs",
                    self.socket.display()
                )));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn connect_once(&self) -> zbus::Result<Link> {
        match direct::connect(&self.socket).await {
            Ok(stream) => {
                let connection = Builder::unix_stream(stream).p2p().build().await?;
                Ok(Link { connection, peer: None })
            }
            Err(error) if self.otherwise == Otherwise::Nothing => Err(error.into()),
            Err(_) => {
                let link = Link { connection: Builder::system().build().await?, peer: Some(BUS_NAME) };
                // On the bus, only those who ask for them are sent signals.
                link.connection.call_method(link.peer, MANAGER, Some(MANAGER_INTERFACE), "Subscribe", &()).await?;
                Ok(link)
            }
        }
    }
}

/// Why systemd gave no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSaid {
    /// It said no: the error's name on the bus, and its text.
    #[error("systemd refuses: {text} ({name})")]
    Refused { name: String, text: String },
    /// There is no connection, or there is none any more.
    #[error("{0}")]
    Lost(String),
}

impl From<NotSaid> for Failed {
    fn from(error: NotSaid) -> Failed {
        Failed::new(error)
    }
}

impl From<zbus::Error> for NotSaid {
    fn from(error: zbus::Error) -> NotSaid {
        match error {
            zbus::Error::MethodError(name, text, _) => {
                NotSaid::Refused { name: name.to_string(), text: text.unwrap_or_default() }
            }
            zbus::Error::FDO(error) => NotSaid::Refused { name: "D-Bus".to_owned(), text: error.to_string() },
            other => NotSaid::Lost(format!("the connection to systemd failed: {other}")),
        }
    }
}

impl NotSaid {
    /// Whether it was refused because the unit is not loaded, or has no process: there is nothing to be done to it.
    pub(crate) fn is_nothing_there(&self) -> bool {
        let end = |name: &str| name.ends_with(".NoSuchUnit") || name.ends_with(".NoSuchProcess");
        matches!(self, NotSaid::Refused { name, .. } if end(name))
    }
}

/// A connection to systemd.
pub(crate) struct Link {
    connection: Connection,
    /// Whom to speak to on a bus; nobody else listens on a socket of systemd's own.
    peer: Option<&'static str>,
}

impl Link {
    /// Calls a method of the manager.
    pub(crate) async fn manager<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<Message, NotSaid> {
        Ok(self.connection.call_method(self.peer, MANAGER, Some(MANAGER_INTERFACE), method, body).await?)
    }

    /// Reads a property of an object.
    pub(crate) async fn property<T>(&self, object: &str, interface: &str, name: &str) -> Result<T, NotSaid>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        let which = (interface, name);
        let get = self.connection.call_method(self.peer, object, Some(PROPERTIES_INTERFACE), "Get", &which);
        let value: OwnedVariant = get.await?.body().deserialize()?;
        Ok(T::try_from(value)?)
    }

    /// How far the whole manager is.
    pub(crate) async fn state(&self) -> Result<SystemState, NotSaid> {
        let state: String = self.property(MANAGER, MANAGER_INTERFACE, "SystemState").await?;
        Ok(if state == "stopping" { SystemState::Stopping } else { SystemState::Other(state) })
    }

    /// From now on, every job that ends.
    pub(crate) async fn ends_of_jobs(&self) -> Result<MessageStream, NotSaid> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path(MANAGER)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .build()?;
        Ok(MessageStream::for_match_rule(rule, &self.connection, Some(SIGNALS_KEPT)).await?)
    }

    /// From now on, every change of an object's properties.
    pub(crate) async fn changes(&self, object: &str) -> Result<MessageStream, NotSaid> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path(object)
            .interface(PROPERTIES_INTERFACE)
            .member("PropertiesChanged")
            .build()?;
        Ok(MessageStream::for_match_rule(rule, &self.connection, Some(SIGNALS_KEPT)).await?)
    }
}
