//! Removing everything that is registered on a disk, whoever registered it: by an operator's word only, never by the agent's own.
//!
//! Decides how; whether, and what was asked before, is left to the command.

use ha_core::claim::reservation::device::{Command, Failure, Key, Ports, PowerLoss, ReservationDevice};
use ha_core::claim::reservation::{ClusterKey, Keyring, NodeNumber, Role, look};
use ha_core::name::Epoch;

use super::show::ask;

/// Takes the reservation and every key away, over the first path that works. The error says what is left.
#[expect(clippy::expect_used, reason = "epoch 0 fits into every key")]
pub(crate) async fn break_all(keyring: &Keyring, me: NodeNumber, device: &dyn ReservationDevice) -> Result<(), String> {
    let key = ClusterKey { role: Role::Challenger, node: me, epoch: Epoch::ZERO };
    let key: Key = keyring.encode(key).expect("epoch 0 fits");
    let mut why = "it has no path that works".to_owned();
    for path in device.paths() {
        let register = |new| Command::RegisterIgnoring { new, ports: Ports::This, power_loss: PowerLoss::Forgets };
        // To be let in, one must be registered; clearing takes this registration away with the others.
        let cleared = match ask(device, &path, register(Some(key))).await {
            Ok(_) => ask(device, &path, Command::Clear { key }).await,
            Err(failure) => Err(failure),
        };
        match cleared {
            Ok(_) => {}
            Err(failure @ (Failure::NoAnswer | Failure::Transport)) => {
                why = format!("on {path}: {failure}");
                continue;
            }
            Err(failure) => {
                let _ = ask(device, &path, register(None)).await;
                return Err(format!("{}: on {path}: {failure}", device.name()));
            }
        }
        let shown = look(keyring, device, &path).await.map_err(|f| format!("{}: reading back: {f}", device.name()))?;
        return match shown.keys.first() {
            None if shown.held.is_none() => Ok(()),
            Some(left) => Err(format!(
                "{}: everything was removed, and {} registered at once again: stop whoever does that first",
                device.name(),
                keyring.describe(left.key)
            )),
            None => Err(format!("{}: it says that everything is removed, and is reserved still", device.name())),
        };
    }
    Err(format!("{}: {why}", device.name()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ha_core::sim::scsi::{Nexus, Request};

    use super::super::testing::{Shelf, common};
    use super::*;

    #[tokio::test]
    async fn whatever_is_there_is_removed() {
        let shelf = Shelf::with(&[("/dev/one", "one")]);
        let stranger = Nexus { initiator: 77, port: 1 };
        let disk = shelf.disk("one");
        let key = Key::new(0xabcd);
        for command in [
            Command::RegisterIgnoring { new: key, ports: Ports::This, power_loss: PowerLoss::Forgets },
            Command::Reserve {
                key: key.unwrap(),
                kind: ha_core::claim::reservation::ReservationType::WriteExclusiveAllRegistrants,
            },
        ] {
            let mut disk = disk.lock().unwrap();
            disk.connect(stranger);
            while disk.run(stranger, Request::Reservation(command)).unwrap().is_err() {}
        }
        let common = common("alpha");
        let keyring = Keyring::new(&common.cluster, common.nodes).unwrap();
        let me = keyring.number_of(&common.node).unwrap();
        let opened = shelf.reached_by("alpha").open(Path::new("/dev/one"), Duration::from_secs(3)).unwrap();
        break_all(&keyring, me, &*opened.device).await.unwrap();
        let disk = disk.lock().unwrap();
        assert!(disk.registrations().is_empty() && disk.reservation().held.is_none());
    }
}
