//! The disks of claims by reservation: whether they can be used, whose they are now, and whether anybody has seen it work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ha_core::claim::reservation::Keyring;
use ha_core::name::HierarchyName;
use ha_resources::claim::reservation::{Identity, ReservationSpec};

use super::Found;
use crate::config::Config;
use crate::reservation::show::report;
use crate::reservation::{Opened, Opener, same_disk};
use crate::view::Severity;
use crate::view::problems::of_a_stranger;

/// What was seen so far.
pub(super) struct Disks {
    opener: Arc<dyn Opener>,
    keyring: Option<Keyring>,
    /// Whose each disk is.
    seen: BTreeMap<Identity, (HierarchyName, PathBuf)>,
}

impl Disks {
    pub(super) fn new(config: &Config, opener: Arc<dyn Opener>, found: &mut Found) -> Disks {
        let keyring = Keyring::new(&config.cluster, config.nodes.iter().map(|node| node.name.clone()));
        if let Err(wrong) = &keyring {
            found.add(Severity::Error, "reservations", wrong.to_string(), None);
        }
        Disks { opener, keyring: keyring.ok(), seen: BTreeMap::new() }
    }

    /// Looks at the disks of a hierarchy, which keep the first error each from being looked at further. Who they are, if all are there.
    pub(super) async fn look(
        &mut self,
        hierarchy: &HierarchyName,
        spec: &ReservationSpec,
        found: &mut Found,
    ) -> Option<Vec<Identity>> {
        let mut identities = Vec::new();
        for path in &spec.devices {
            let (opener, named, limit) = (self.opener.clone(), path.clone(), spec.time_limit);
            let disk = tokio::task::spawn_blocking(move || opener.open(&named, limit)).await;
            match disk {
                Ok(Ok(disk)) => {
                    self.look_at(hierarchy, spec, &disk, found).await;
                    identities.push(disk.identity);
                }
                Ok(Err(wrong)) => found.add(Severity::Error, hierarchy, wrong.to_string(), None),
                Err(wrong) => found.add(Severity::Error, hierarchy, wrong.to_string(), None),
            }
        }
        (identities.len() == spec.devices.len()).then_some(identities)
    }

    async fn look_at(&mut self, hierarchy: &HierarchyName, spec: &ReservationSpec, disk: &Opened, found: &mut Found) {
        let path = disk.path.display();
        match self.seen.get(&disk.identity) {
            Some((owner, other)) if owner == hierarchy => {
                let what = format!("{} and {path} are the same disk, {}", other.display(), disk.identity);
                let help = "name it once, by its multipath map if it has several paths".to_owned();
                found.add(Severity::Error, hierarchy, what, help);
            }
            Some((owner, other)) => {
                found.add(Severity::Error, hierarchy, same_disk(&disk.path, &disk.identity, owner, other), None);
            }
            None => {
                self.seen.insert(disk.identity.clone(), (hierarchy.clone(), disk.path.clone()));
            }
        }
        for finding in &disk.findings {
            found.add(Severity::Warning, hierarchy, finding.clone(), None);
        }
        let Some(keyring) = &self.keyring else { return };
        let report = report(keyring, disk).await;
        let same = "it must be the same in this line of `ha check` on every node".to_owned();
        found.add(Severity::Note, hierarchy, format!("{path} is {}", disk.identity), same);
        for broken in report.paths.iter().filter_map(|one| Some((&one.path, one.error.as_ref()?))) {
            let what = format!("{path}: path {} does not answer as it should: {}", broken.0, broken.1);
            let help = "check the way to the storage (see `multipath -ll`)".to_owned();
            found.add(Severity::Warning, hierarchy, what, help);
        }
        for unregistered in report.audit.iter().flat_map(|audit| &audit.unregistered) {
            let what = format!(
                "{path}: path {unregistered} is not registered although others are: what is written on it is refused"
            );
            let help = "the agent registers it at its next look; if this stays, see `ha claim show`".to_owned();
            found.add(Severity::Warning, hierarchy, what, help);
        }
        if let Some(stranger) = report.stranger() {
            found.add(Severity::Error, hierarchy, format!("{path}: {stranger}"), of_a_stranger(hierarchy));
        }
        let Some(can) = &report.can else { return };
        let kind = format!("{:?}", spec.kind);
        if !can.types.is_empty() && !can.types.contains(&kind) {
            let what = format!("{path} has no reservations of type {kind}: it has {}", can.types.join(", "));
            found.add(Severity::Error, hierarchy, what, "use another `type`, or another disk".to_owned());
        }
        if !can.survive_power_loss {
            let what = format!(
                "{path} forgets keys and reservation when it loses power (no APTPL): its holder reserves it anew, and until then nobody \
                 is kept from writing"
            );
            found.add(Severity::Warning, hierarchy, what, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use ha_core::claim::reservation::device::{Command, Key, Ports, PowerLoss};
    use ha_core::sim::scsi::{Nexus, Request, Target};

    use super::*;
    use crate::reservation::testing::Shelf;

    fn config() -> Config {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"(cluster: "shop", nodes: { "alpha": (addresses: ["127.0.8.1:17946"]), "beta": (addresses: ["127.0.8.2:17946"]) }, keys: "/k")"#;
        std::fs::write(dir.path().join("agent.ron"), text).unwrap();
        std::fs::create_dir(dir.path().join("hierarchies")).unwrap();
        let read = crate::config::read(dir.path());
        read.config.unwrap_or_else(|| panic!("{}", read.diagnostics))
    }

    fn spec(devices: &[&str]) -> ReservationSpec {
        ReservationSpec {
            devices: devices.iter().map(PathBuf::from).collect(),
            kind: ha_core::claim::reservation::ReservationType::WriteExclusiveRegistrantsOnly,
            timing: ha_core::claim::reservation::ReservationTiming::default(),
            time_limit: std::time::Duration::from_secs(3),
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_disks_is_told_before_anything_is_touched() {
        let shelf = Shelf::with(&[("/dev/one", "one"), ("/dev/also-one", "one"), ("/dev/taken", "taken")]);
        shelf.put_target("/dev/forgetful", "forgetful", Target::tgt(NonZeroU16::new(2).unwrap()));
        let stranger = Nexus { initiator: 77, port: 1 };
        let taken = shelf.disk("taken");
        let (new, power_loss) = (Key::new(0xabcd), PowerLoss::Forgets);
        let command = Command::RegisterIgnoring { new, ports: Ports::This, power_loss };
        taken.lock().unwrap().connect(stranger);
        while taken.lock().unwrap().run(stranger, Request::Reservation(command)).unwrap().is_err() {}
        let generation = taken.lock().unwrap().reservation().generation;

        let (web, mail) = (HierarchyName::new("web").unwrap(), HierarchyName::new("mail").unwrap());
        let mut found = Found::default();
        let mut disks = Disks::new(&config(), shelf.reached_by("alpha"), &mut found);
        let of_web = disks.look(&web, &spec(&["/dev/one", "/dev/missing", "/dev/taken"]), &mut found).await;
        let of_mail = disks.look(&mail, &spec(&["/dev/also-one", "/dev/forgetful"]), &mut found).await;
        assert_eq!((of_web, of_mail.map(|disks| disks.len())), (None, Some(2)));
        let told: Vec<String> = found.0.iter().map(|p| format!("{:?} {}: {}", p.severity, p.about, p.what)).collect();
        for expected in [
            "Note web: /dev/one is naa.one of 1073741824 bytes",
            "Error web: /dev/missing does not exist",
            "Error web: /dev/taken: key 0x000000000000abcd, which is none of this cluster's, is registered on it",
            "Error mail: /dev/also-one is a disk of hierarchy web too, as /dev/one (",
            "Warning mail: /dev/forgetful forgets keys",
        ] {
            assert!(told.iter().any(|line| line.starts_with(expected)), "{expected}: {told:#?}");
        }
        assert_eq!(taken.lock().unwrap().reservation().generation, generation);
    }
}
