//! What is laid over a unit's own file while a hierarchy serves it: `UNIT.d/50-ha.conf` in the unit files of this run (systemd.unit(5)).
//!
//! Decides what stands in it. Leaves to others when systemd reads it.
//!
//! # Why `Before=ha.service`
//!
//! When the machine goes down, systemd stops everything at once, in the reverse of the order in which it would be started. A service
//! without an order to the agent would be stopped under the agent's hands, beside its storage, which the agent would take for a failure.
//! `Before=` here means: stopped after. So the agent is told to end first, while all services still run, and drains: each hierarchy is
//! stopped from the top to the bottom and handed over. `ha.service` itself is ordered after the network and all storage, so these are
//! there until it has ended:
//!
//! ```text
//! started:  network, storage  →  (nginx.service)  →  ha.service
//! stopped:  ha.service, which stops nginx.service, its filesystem and its claim  →  network, storage
//! ```
//!
//! The other side of it: the stop of the unit that systemd has planned waits for the agent, and an ordinary stop that the agent asks for
//! would join it and wait as well, for itself. While the machine goes down the agent therefore stops units in the mode
//! `ignore-dependencies`, which waits for nothing; joined to the planned stop, it lets that go ahead.
//!
//! At boot none of this matters: the unit is not started then, and a start by the agent does not wait for the agent's own start.

use std::io;
use std::path::{Path, PathBuf};

use crate::systemd::UnitName;

/// The agent's own unit.
pub(super) const AGENT: &str = "ha.service";

const CONTENT: &str = "\
# Written by ha while a hierarchy serves this unit, and removed when it was stopped. Changes are lost.
[Unit]
# Shutdown goes in reverse: the agent first, which stops this unit while its storage is there.
Before=ha.service
# How often it is started again is for the hierarchy to say.
StartLimitIntervalSec=0

[Service]
# Nobody but the agent starts it.
Restart=no
RestartForceExitStatus=
";

/// Where it is.
pub(super) fn path(unit_files: &Path, unit: &UnitName) -> PathBuf {
    unit_files.join(format!("{unit}.d")).join("50-ha.conf")
}

/// Puts it there. Whether anything changed by it.
pub(super) fn write(path: &Path) -> io::Result<Changed> {
    if std::fs::read(path).is_ok_and(|there| there == CONTENT.as_bytes()) {
        return Ok(Changed::No);
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Under another name first, which systemd does not read, so that it never sees half of it.
    let half = path.with_extension("half");
    std::fs::write(&half, CONTENT)?;
    std::fs::rename(&half, path)?;
    Ok(Changed::Yes)
}

/// Takes it away, and its directory if nothing else is in it. Whether anything changed by it.
pub(super) fn remove(path: &Path) -> io::Result<Changed> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            if let Some(directory) = path.parent() {
                let _ = std::fs::remove_dir(directory);
            }
            Ok(Changed::Yes)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Changed::No),
        Err(e) => Err(e),
    }
}

/// Whether there is something new for systemd to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    No,
}
