//! What the disks of a claim say, taken apart for people and programs. Changes nothing.

use std::fmt::Write as _;

use ha_core::claim::reservation::device::{
    Answer, Capabilities, Command, Failure, Held, Key, PathName, Ports, PowerLoss, ReservationDevice,
};
use ha_core::claim::reservation::{Keyring, Role, SeenKey, look_at_all};
use serde::Serialize;

use super::Opened;
use super::audited::{self, AuditView};
use crate::words::{BAD, DIM, GOOD, HEAD, WARN, styled};

/// So often a command is sent again that was answered by something the disk had to tell.
const ATTENTIONS_MAX: usize = 16;

/// A disk and what is registered on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DiskReport {
    /// As it was named.
    pub(crate) path: String,
    /// Who it is: to be the same on every node.
    pub(crate) identity: String,
    /// What it says that it can do; none if it does not say.
    pub(crate) can: Option<Can>,
    /// Each path by itself.
    pub(crate) paths: Vec<PathView>,
    /// Which path is registered, and what else is; none if the disk does not tell.
    pub(crate) audit: Option<AuditView>,
    /// Why it does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit_error: Option<String>,
    /// What stands in nobody's way now, and may later.
    pub(crate) findings: Vec<String>,
}

/// What a disk says that it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Can {
    /// Whether keys and reservation can be made to survive loss of power (APTPL).
    pub(crate) survive_power_loss: bool,
    /// Whether they would survive it now.
    pub(crate) survives_power_loss_now: bool,
    /// Whether one registration can be made to apply to all its ports.
    pub(crate) all_ports: bool,
    /// The types of reservation.
    pub(crate) types: Vec<String>,
}

/// What one path shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PathView {
    /// The kernel's name of it.
    pub(crate) path: String,
    /// Why it shows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Grows with every registration and preemption.
    pub(crate) generation: u32,
    /// Every registration.
    pub(crate) keys: Vec<KeyView>,
    /// The reservation.
    pub(crate) reservation: Option<ReservationView>,
}

/// A key and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct KeyView {
    /// In hexadecimal digits.
    pub(crate) key: String,
    /// Whose; none for a stranger.
    pub(crate) node: Option<String>,
    /// "holder" or "challenger"; none for a stranger.
    pub(crate) role: Option<&'static str>,
    /// For which tenure.
    pub(crate) epoch: Option<u64>,
    /// In words.
    pub(crate) whose: String,
}

/// Who has reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ReservationView {
    /// The holder; none for the types that all registrants hold.
    pub(crate) holder: Option<KeyView>,
    /// The type.
    pub(crate) kind: String,
}

/// Sends a command, again if the disk had to tell something first.
pub(super) async fn ask(device: &dyn ReservationDevice, path: &PathName, command: Command) -> Result<Answer, Failure> {
    let mut answer = device.send(path, command).await;
    for _ in 0..ATTENTIONS_MAX {
        let Err(Failure::UnitAttention(_)) = answer else { break };
        answer = device.send(path, command).await;
    }
    answer
}

/// Looks at a disk over every path.
pub(crate) async fn report(keyring: &Keyring, disk: &Opened) -> DiskReport {
    let device = &*disk.device;
    let seen = look_at_all(keyring, device).await;
    let mut can = None;
    for path in device.paths() {
        if let Ok(Answer::Capabilities(capabilities)) = ask(device, &path, Command::ReportCapabilities).await {
            can = Some(self::can(&capabilities));
            break;
        }
    }
    let paths = seen.into_iter().map(|report| {
        let path = report.path.to_string();
        match report.shows {
            Ok(shown) => PathView {
                path,
                error: None,
                generation: shown.generation,
                keys: shown.keys.iter().map(|key| key_view(keyring, *key)).collect(),
                reservation: shown.held.map(|held| reservation_view(keyring, held)),
            },
            Err(failure) => {
                PathView { path, error: Some(failure.to_string()), generation: 0, keys: Vec::new(), reservation: None }
            }
        }
    });
    let (audit, audit_error) = match audited::view(keyring, device).await {
        Ok(audit) => (Some(audit), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    DiskReport {
        audit,
        audit_error,
        path: disk.path.display().to_string(),
        identity: disk.identity.to_string(),
        can,
        paths: paths.collect(),
        findings: disk.findings.clone(),
    }
}

fn can(capabilities: &Capabilities) -> Can {
    Can {
        survive_power_loss: capabilities.power_loss == PowerLoss::Keeps,
        survives_power_loss_now: capabilities.power_loss_now == PowerLoss::Keeps,
        all_ports: capabilities.ports == Ports::All,
        types: capabilities.types.iter().map(|kind| format!("{kind:?}")).collect(),
    }
}

/// A key, for people and programs.
pub(crate) fn key_view(keyring: &Keyring, seen: SeenKey) -> KeyView {
    KeyView {
        key: seen.key.to_string(),
        node: seen.known.and_then(|known| keyring.node(known.node)).map(ToString::to_string),
        role: seen.known.map(|known| match known.role {
            Role::Holder => "holder",
            Role::Challenger => "challenger",
        }),
        epoch: seen.known.map(|known| known.epoch.0),
        whose: keyring.describe(seen.key),
    }
}

fn reservation_view(keyring: &Keyring, held: Held) -> ReservationView {
    let seen = |key: Key| SeenKey { key, known: keyring.decode(key) };
    ReservationView { holder: held.key.map(|key| key_view(keyring, seen(key))), kind: format!("{:?}", held.kind) }
}

impl DiskReport {
    /// The first path that shows anything; all show the same.
    pub(crate) fn shown(&self) -> Option<&PathView> {
        self.paths.iter().find(|path| path.error.is_none())
    }

    /// The reservation's holder and the keys that are none of this cluster's, in words; none if all is this cluster's own.
    pub(crate) fn stranger(&self) -> Option<String> {
        let shown = self.shown()?;
        if let Some(reservation) = &shown.reservation {
            match &reservation.holder {
                Some(holder) if holder.node.is_none() => return Some(format!("{}, has reserved it", holder.whose)),
                None => return Some(format!("all that are registered hold it ({})", reservation.kind)),
                Some(_) => {}
            }
        }
        let key = shown.keys.iter().find(|key| key.node.is_none())?;
        Some(format!("{}, is registered on it", key.whose))
    }
}

/// As `ha claim show` prints it.
pub(crate) fn render(report: &DiskReport) -> String {
    let mut out = format!("{} {}\n", styled(HEAD, &report.path), styled(DIM, &report.identity));
    let _ = match &report.can {
        None => writeln!(out, "  can: {}", styled(DIM, "it does not say")),
        Some(can) => writeln!(
            out,
            "  can: {} loss of power (APTPL{}), {}, {}",
            if can.survive_power_loss { "outlast" } else { "not outlast" },
            if can.survives_power_loss_now { ", on" } else { "" },
            if can.all_ports { "register on all ports at once" } else { "register on one port at a time" },
            if can.types.is_empty() { "types not told".to_owned() } else { can.types.join(" ") },
        ),
    };
    let mut before: Option<&PathView> = None;
    for path in &report.paths {
        if let Some(error) = &path.error {
            let _ = writeln!(out, "  path {}: {}", path.path, styled(BAD, error));
            continue;
        }
        let same = before.is_some_and(|b| (&b.keys, &b.reservation) == (&path.keys, &path.reservation));
        if same {
            let _ = writeln!(out, "  path {}: {}", path.path, styled(DIM, "shows the same"));
        } else {
            out.push_str(&path_lines(path));
        }
        before = Some(path);
    }
    if report.paths.is_empty() {
        let _ = writeln!(out, "  {}", styled(BAD, "it has no path"));
    }
    match (&report.audit, &report.audit_error) {
        (Some(audit), _) => out.push_str(&audited::lines(audit)),
        (None, Some(why)) if report.shown().is_some() => {
            let _ = writeln!(out, "  {}", styled(DIM, format!("which path is registered it does not tell: {why}")));
        }
        (None, _) => {}
    }
    for finding in &report.findings {
        let _ = writeln!(out, "  {}", styled(WARN, finding));
    }
    out
}

fn path_lines(path: &PathView) -> String {
    let mut out = format!("  path {}, generation {}:\n", path.path, path.generation);
    let _ = match &path.reservation {
        None => writeln!(out, "    reservation  {}", styled(GOOD, "none")),
        Some(reservation) => {
            let holder = reservation.holder.as_ref();
            let (style, whose) = match holder {
                Some(holder) if holder.node.is_some() => (GOOD, holder.whose.clone()),
                Some(holder) => (BAD, holder.whose.clone()),
                None => (BAD, "all that are registered".to_owned()),
            };
            writeln!(out, "    reservation  {} {}", styled(style, whose), styled(DIM, &reservation.kind))
        }
    };
    if path.keys.is_empty() {
        let _ = writeln!(out, "    keys         none");
    }
    let mut told: Vec<&KeyView> = Vec::new();
    for key in &path.keys {
        if told.contains(&key) {
            continue;
        }
        let times = path.keys.iter().filter(|other| *other == key).count();
        let nexuses = if times == 1 { String::new() } else { format!(" (on {times} paths)") };
        let text = match key.node {
            Some(_) => format!("{} {}", key.key, styled(GOOD, &key.whose)),
            None => styled(BAD, &key.whose),
        };
        let _ = writeln!(out, "    key          {text}{nexuses}");
        told.push(key);
    }
    out
}
