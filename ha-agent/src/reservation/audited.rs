//! Which paths of a disk are registered, and what else is: an [`Audit`], taken apart for people and programs. Changes nothing.

use std::fmt::Write as _;

use ha_core::claim::reservation::device::{Failure, Registration, ReservationDevice};
use ha_core::claim::reservation::{Audit, Keyring, PathStanding, SeenKey, Standing, audit};
use serde::Serialize;

use super::show::{KeyView, key_view};
use crate::words::{BAD, DIM, GOOD, WARN, clean, styled};

/// What is registered with a disk, nexus by nexus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AuditView {
    /// This node's paths.
    pub(crate) paths: Vec<PathAuditView>,
    /// What is registered and is none of these.
    pub(crate) elsewhere: Vec<ElsewhereView>,
    /// The paths that are not registered although others of this node are: writes on them are refused.
    pub(crate) unregistered: Vec<String>,
}

/// A path of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PathAuditView {
    /// The kernel's name of it.
    pub(crate) path: String,
    /// Whether it is registered; none where that cannot be told.
    pub(crate) registered: Option<bool>,
    /// As what.
    pub(crate) registration: Option<RegistrationView>,
    /// Why it cannot be told.
    pub(crate) untold: Option<String>,
}

/// A registration that is none of this node's paths'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ElsewhereView {
    /// Which.
    pub(crate) registration: RegistrationView,
    /// This node made it on a path that it has no more.
    pub(crate) left_behind: bool,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RegistrationView {
    /// The key, and whose it is.
    pub(crate) key: KeyView,
    /// The port of the initiator, as its transport names it.
    pub(crate) initiator: String,
    /// The target's port; none for all of them.
    pub(crate) port: Option<u16>,
    /// It holds the reservation.
    pub(crate) holds: bool,
}

impl RegistrationView {
    fn of(keyring: &Keyring, one: &Registration) -> RegistrationView {
        let seen = SeenKey { key: one.key, known: keyring.decode(one.key) };
        let initiator = clean(&one.initiator.to_string());
        RegistrationView { key: key_view(keyring, seen), initiator, port: one.port, holds: one.holds }
    }

    fn place(&self) -> String {
        let port = self.port.map_or_else(|| "every port".to_owned(), |port| format!("port {port}"));
        format!("as {} at {port}", self.initiator)
    }

    fn whose(&self) -> String {
        let holds = if self.holds { ", holds the reservation" } else { "" };
        let style = if self.key.node.is_some() { GOOD } else { BAD };
        format!("{}{holds}", styled(style, &self.key.whose))
    }
}

/// Asks a disk over each path. The error says why it does not tell.
pub(crate) async fn view(keyring: &Keyring, device: &dyn ReservationDevice) -> Result<AuditView, Failure> {
    let audit: Audit = audit(device).await?;
    let unregistered = audit.unregistered().iter().map(ToString::to_string).collect();
    let paths = audit.paths.iter().map(|path| path_view(keyring, path)).collect();
    let elsewhere = audit.elsewhere.iter().map(|one| ElsewhereView {
        registration: RegistrationView::of(keyring, &one.registration),
        left_behind: one.left_behind,
    });
    Ok(AuditView { paths, elsewhere: elsewhere.collect(), unregistered })
}

fn path_view(keyring: &Keyring, path: &PathStanding) -> PathAuditView {
    let (registered, registration, untold) = match &path.standing {
        Standing::Registered(one) => (Some(true), Some(RegistrationView::of(keyring, one)), None),
        Standing::NotRegistered => (Some(false), None, None),
        Standing::OneOf { registered, paths } => (
            None,
            None,
            Some(format!("{registered} of {paths} paths to this port is registered, and it does not say which")),
        ),
        Standing::Nameless => (None, None, Some("by which name the disk knows this path is not known here".to_owned())),
        Standing::Failed(failure) => (None, None, Some(failure.to_string())),
    };
    PathAuditView { path: path.path.to_string(), registered, registration, untold }
}

/// As `ha claim show` prints it.
pub(crate) fn lines(view: &AuditView) -> String {
    let mut out = "  registered, as the disk tells it of each path:\n".to_owned();
    for path in &view.paths {
        let said = match (&path.registration, &path.untold) {
            (Some(one), _) => format!("{}, {}", one.whose(), styled(DIM, one.place())),
            (None, Some(untold)) => styled(WARN, untold),
            (None, None) if view.unregistered.contains(&path.path) => {
                styled(BAD, "NOT REGISTERED: what is written on it is refused")
            }
            (None, None) => styled(DIM, "not registered"),
        };
        let _ = writeln!(out, "    path {:<7} {said}", path.path);
    }
    for one in &view.elsewhere {
        let (place, whose) = (styled(DIM, one.registration.place()), one.registration.whose());
        let what = if one.left_behind { styled(WARN, "no path here") } else { "elsewhere   ".to_owned() };
        let _ = writeln!(out, "    {what} {whose}, {place}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use ha_core::claim::reservation::device::{Command, Key, Ports, PowerLoss};
    use ha_core::claim::reservation::{ClusterKey, Role};
    use ha_core::name::Epoch;
    use ha_core::sim::scsi::{Nexus, Request, Target};

    use super::super::show::{render, report};
    use super::super::testing::{Shelf, common};
    use super::*;

    fn keyring() -> Keyring {
        let common = common("alpha");
        Keyring::new(&common.cluster, common.nodes).unwrap()
    }

    fn key(node: &str) -> Key {
        let node = keyring().number_of(&common(node).node).unwrap();
        keyring().encode(ClusterKey { role: Role::Holder, node, epoch: Epoch(3) }).unwrap()
    }

    fn register(shelf: &Shelf, initiator: u16, port: u16, key: Key) {
        let (disk, nexus) = (shelf.disk("one"), Nexus { initiator, port });
        let mut disk = disk.lock().unwrap();
        disk.connect(nexus);
        let command = Command::RegisterIgnoring { new: Some(key), ports: Ports::This, power_loss: PowerLoss::Forgets };
        while disk.run(nexus, Request::Reservation(command)).unwrap().is_err() {}
    }

    async fn shown(shelf: &Arc<Shelf>) -> String {
        let disk = shelf.reached_by("alpha").open(Path::new("/dev/one"), Duration::from_secs(3)).unwrap();
        anstream::adapter::strip_str(&render(&report(&keyring(), &disk).await)).to_string()
    }

    #[tokio::test]
    async fn a_path_that_is_not_registered_is_named_and_so_are_those_of_others() {
        // One port more than this node sees.
        let shelf = Shelf::default();
        shelf.put_target("/dev/one", "one", Target::standard(NonZeroU16::new(3).unwrap()));
        let shelf = Arc::new(shelf);
        let text = shown(&shelf).await;
        assert!(text.contains("    path 1       not registered\n    path 2       not registered\n"), "{text}");

        register(&shelf, 1, 2, key("alpha"));
        register(&shelf, 2, 1, key("beta"));
        register(&shelf, 77, 1, Key::new(0xabcd).unwrap());
        let text = shown(&shelf).await;
        for line in [
            "    path 1       NOT REGISTERED: what is written on it is refused\n",
            "    path 2       alpha (epoch 3), as sim.1 at port 2\n",
            "    elsewhere    beta (epoch 3), as sim.2 at port 1\n",
            "    elsewhere    key 0x000000000000abcd, which is none of this cluster's, as sim.77 at port 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }

        // Registered through a port that this node does not see.
        register(&shelf, 1, 1, key("alpha"));
        register(&shelf, 1, 3, key("alpha"));
        let text = shown(&shelf).await;
        assert!(text.contains("    no path here alpha (epoch 3), as sim.1 at port 3\n"), "{text}");
        assert!(!text.contains("NOT REGISTERED"), "{text}");
    }

    #[tokio::test]
    async fn of_a_disk_that_does_not_tell_it_is_said_so() {
        let shelf = Shelf::default();
        shelf.put_target("/dev/one", "one", Target::tgt(NonZeroU16::new(2).unwrap()));
        let text = shown(&Arc::new(shelf)).await;
        assert!(text.contains("which path is registered it does not tell: not supported by the device"), "{text}");
    }
}
