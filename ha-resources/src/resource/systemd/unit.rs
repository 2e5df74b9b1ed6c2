//! A unit as systemd shows it: whether it runs, how it ended, and what stands in the way of serving it.
//!
//! Changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use zbus::OwnedVariant;

use super::drop_in::AGENT;
use crate::systemd::{Link, NotSaid, SERVICE_INTERFACE, UNIT_INTERFACE, UnitName, object_of, slice_path};

/// A unit, and the connection by which it is looked at.
pub(super) struct Unit<'a> {
    link: &'a Link,
    name: &'a UnitName,
    object: String,
}

/// Whether a unit runs (its `ActiveState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActiveState {
    /// It runs, or is what it is after it has run (`RemainAfterExit=`).
    Active,
    /// It runs, and reads its configuration again.
    Reloading,
    /// It does not run.
    Inactive,
    /// It does not run, after a failure.
    Failed,
    /// On its way to run.
    Activating,
    /// On its way not to run.
    Deactivating,
    /// A word that this version does not know.
    Unknown,
}

impl ActiveState {
    pub(super) fn parse(word: &str) -> ActiveState {
        match word {
            "active" => ActiveState::Active,
            // `refreshing` is of systemd 258.
            "reloading" | "refreshing" => ActiveState::Reloading,
            "inactive" => ActiveState::Inactive,
            "failed" => ActiveState::Failed,
            "activating" => ActiveState::Activating,
            "deactivating" => ActiveState::Deactivating,
            _ => ActiveState::Unknown,
        }
    }

    pub(super) fn runs(self) -> bool {
        matches!(self, ActiveState::Active | ActiveState::Reloading)
    }

    pub(super) fn is_down(self) -> bool {
        matches!(self, ActiveState::Inactive | ActiveState::Failed)
    }
}

/// How a unit stands, in systemd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) active: ActiveState,
    state: String,
    sub: String,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.state, self.sub)
    }
}

impl<'a> Unit<'a> {
    pub(super) fn new(link: &'a Link, name: &'a UnitName) -> Self {
        Unit { link, name, object: object_of(name.as_str()) }
    }

    async fn get<T>(&self, property: &str) -> Result<T, NotSaid>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        self.link.property(&self.object, UNIT_INTERFACE, property).await
    }

    async fn service<T>(&self, property: &str) -> Result<T, NotSaid>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        self.link.property(&self.object, SERVICE_INTERFACE, property).await
    }

    pub(super) async fn standing(&self) -> Result<Standing, NotSaid> {
        let state: String = self.get("ActiveState").await?;
        let sub = self.get("SubState").await?;
        Ok(Standing { active: ActiveState::parse(&state), state, sub })
    }

    /// How its last run ended, for people; nothing if there is nothing to tell.
    pub(super) async fn ending(&self) -> Result<Option<String>, NotSaid> {
        let result: String = self.service("Result").await?;
        let code: i32 = self.service("ExecMainCode").await?;
        let status: i32 = self.service("ExecMainStatus").await?;
        // The codes are those of waitid(2).
        let main = match code {
            1 => Some(format!("its main process exited with code {status}")),
            2 | 3 => Some(match nix::sys::signal::Signal::try_from(status) {
                Ok(signal) => format!("its main process was killed by {signal}"),
                Err(_) => format!("its main process was killed by signal {status}"),
            }),
            _ => None,
        };
        Ok(match (result.as_str(), main) {
            ("success", None) => None,
            ("success", Some(main)) => Some(main),
            (result, None) => Some(format!("Result={result}")),
            (result, Some(main)) => Some(format!("Result={result}, {main}")),
        })
    }

    /// What it needs to be started, and has not; or why systemd may start it by itself. With what is to be done.
    pub(super) async fn obstacle(&self) -> Result<Option<String>, NotSaid> {
        let name = self.name;
        // Makes systemd read its files if it has not.
        self.link.manager("LoadUnit", &name.as_str()).await?;
        let load: String = self.get("LoadState").await?;
        match load.as_str() {
            "loaded" => {}
            "not-found" => {
                return Ok(Some(format!(
                    "there is no {name} on this node: install what brings it, or correct the name"
                )));
            }
            "masked" => return Ok(Some(format!("{name} is masked: `systemctl unmask {name}`"))),
            other => {
                return Ok(Some(format!("systemd cannot use {name} ({other}): see `systemd-analyze verify {name}`")));
            }
        }
        let file: String = self.get("UnitFileState").await?;
        if matches!(file.as_str(), "enabled" | "enabled-runtime") {
            return Ok(Some(format!(
                "{name} is {file}: systemd would start it at boot, on every node: `systemctl disable {name}`"
            )));
        }
        self.starters().await
    }

    /// Who else starts it, and who would make a circle of its order.
    async fn starters(&self) -> Result<Option<String>, NotSaid> {
        let name = self.name;
        for (property, how) in [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")] {
            let by: Vec<String> = match self.get(property).await {
                // `UpheldBy` is of systemd 249.
                Err(NotSaid::Refused { .. }) => continue,
                by => by?,
            };
            if let Some(target) = by.iter().find(|by| by.ends_with(".target") || property == "UpheldBy") {
                return Ok(Some(format!(
                    "{target} {how} {name}, so systemd would start it by itself: `systemctl disable {name}`, or `systemctl \
                     revert {target}`"
                )));
            }
        }
        let triggers: Vec<String> = self.get("TriggeredBy").await?;
        for trigger in triggers {
            let object = object_of(&trigger);
            let state: String = self.link.property(&object, UNIT_INTERFACE, "ActiveState").await?;
            if ActiveState::parse(&state).runs() {
                return Ok(Some(format!(
                    "{trigger} is {state} and would start {name} by itself: `systemctl disable --now {trigger}`"
                )));
            }
        }
        let after: Vec<String> = self.get("After").await?;
        let circle =
            after.iter().find(|after| [AGENT, "multi-user.target", "graphical.target"].contains(&after.as_str()));
        Ok(circle.map(|other| {
            format!(
                "{name} is ordered After={other}, but at shutdown it has to be stopped after {AGENT}: take that out with `systemctl edit \
                 --full {name}`"
            )
        }))
    }

    /// The control group that it has, or would have.
    pub(super) async fn group(&self, root: &Path) -> Result<PathBuf, NotSaid> {
        if let Some(group) = self.present_group(root).await? {
            return Ok(group);
        }
        let slice: String = self.service("Slice").await?;
        let slice = if slice.is_empty() { self.name.usual_slice() } else { slice };
        Ok(root.join(slice_path(&slice)).join(self.name.control_group()))
    }

    /// The control group that it has, if it has one.
    pub(super) async fn present_group(&self, root: &Path) -> Result<Option<PathBuf>, NotSaid> {
        let group: String = self.service("ControlGroup").await?;
        let below = group.trim_start_matches('/');
        Ok((!below.is_empty()).then(|| root.join(below)))
    }

    /// Whether systemd has read this file as part of it, and does nothing by itself when it ends.
    pub(super) async fn is_left_alone(&self, drop_in: &Path) -> Result<Alone, NotSaid> {
        let files: Vec<String> = self.get("DropInPaths").await?;
        if !files.iter().any(|file| Path::new(file).file_name() == drop_in.file_name()) {
            return Ok(Alone::NotRead);
        }
        let restart: String = self.service("Restart").await?;
        Ok(if restart == "no" { Alone::Yes } else { Alone::Overruled { restart, files } })
    }

    /// Its `Type=`.
    pub(super) async fn kind(&self) -> Result<String, NotSaid> {
        self.service("Type").await
    }
}

/// Whether only the agent starts a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    Yes,
    /// Systemd has not read the file yet.
    NotRead,
    /// Another file says otherwise: what it says, and all files there are.
    Overruled {
        restart: String,
        files: Vec<String>,
    },
}
