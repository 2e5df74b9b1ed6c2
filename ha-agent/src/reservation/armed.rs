//! Whether a claim is proven on this node's disks: what `ha arm` showed, kept where a restart does not lose it.
//!
//! Decides what counts as proven. A record holds for the disks and the type of reservation that it was made with, and for no others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ha_core::name::HierarchyName;
use ha_resources::claim::reservation::{Identity, ReservationSpec};
use serde::{Deserialize, Serialize};

use super::prove::{Proof, Shown};

/// What was shown for a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Armed {
    /// Seconds since 1970, by the machine's clock.
    pub(crate) at: u64,
    /// The type of reservation.
    pub(crate) kind: String,
    /// Every disk of the claim.
    pub(crate) disks: Vec<ProvenDisk>,
}

/// What was shown of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProvenDisk {
    /// As it was named.
    pub(crate) path: PathBuf,
    /// Who it was.
    pub(crate) identity: String,
    /// What it did.
    pub(crate) proof: Proof,
}

impl Armed {
    /// A record of now.
    pub(crate) fn now(spec: &ReservationSpec, disks: Vec<ProvenDisk>) -> Armed {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Armed { at, kind: format!("{:?}", spec.kind), disks }
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, state_dir: &Path, hierarchy: &HierarchyName) -> io::Result<()> {
        let file = file(state_dir, hierarchy);
        let directory = file.parent().unwrap_or(state_dir);
        fs::create_dir_all(directory)?;
        let new = directory.join(format!(".{hierarchy}.new"));
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(new, file)
    }

    /// Says so if it was made with other disks.
    fn other_than(&self, disks: &[Identity]) -> Option<String> {
        let mut before: Vec<String> = self.disks.iter().map(|disk| disk.identity.clone()).collect();
        let mut now: Vec<String> = disks.iter().map(ToString::to_string).collect();
        before.sort_unstable();
        now.sort_unstable();
        (before != now).then(|| {
            format!("it was tried with other disks: with {}, and has {} now", before.join(", "), now.join(", "))
        })
    }

    /// Whether every disk of the claim aborts what a holder that is cut off left under way.
    pub(crate) fn aborts(&self) -> bool {
        self.disks.iter().all(|disk| disk.proof.aborts == Shown::Yes)
    }
}

fn file(state_dir: &Path, hierarchy: &HierarchyName) -> PathBuf {
    state_dir.join("armed").join(format!("{hierarchy}.json"))
}

/// The record for a claim as it is defined now, on the disks that it has now, as far as these are known; the error says in words why there is
/// none, or what it does not show. What a disk is called proves nothing, and need not stay the same.
pub(crate) fn read(
    state_dir: &Path,
    hierarchy: &HierarchyName,
    spec: &ReservationSpec,
    disks: Option<&[Identity]>,
) -> Result<Armed, String> {
    let file = file(state_dir, hierarchy);
    let text = fs::read(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "nobody has tried on this node that its disks can be taken, and a holder cut off".to_owned()
        }
        _ => format!("{} cannot be read: {error}", file.display()),
    })?;
    let armed: Armed =
        serde_json::from_slice(&text).map_err(|error| format!("{} cannot be understood: {error}", file.display()))?;
    let named = || armed.disks.iter().map(|disk| &disk.path).eq(spec.devices.iter());
    if let Some(other) = disks.and_then(|disks| armed.other_than(disks)) {
        return Err(other);
    }
    if (disks.is_none() && !named()) || armed.kind != format!("{:?}", spec.kind) {
        return Err("its claim was changed since it was tried out".to_owned());
    }
    let lacking = armed.disks.iter().find_map(|disk| Some((disk, disk.proof.lacking()?)));
    match lacking {
        Some((disk, lacking)) => Err(format!("of {} it is {lacking}", disk.path.display())),
        None => Ok(armed),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ha_core::claim::reservation::{ReservationTiming, ReservationType};

    use ha_resources::claim::reservation::scsi::Designator;

    use super::*;

    #[test]
    fn a_proof_holds_for_the_disks_it_was_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let web = HierarchyName::new("web").unwrap();
        let mut spec = ReservationSpec {
            devices: vec!["/dev/one".into()],
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            timing: ReservationTiming::default(),
            time_limit: Duration::from_secs(3),
        };
        assert!(read(dir.path(), &web, &spec, None).unwrap_err().contains("nobody has tried"));
        let proof = Proof {
            can_be_taken: Shown::Yes,
            refuses_others: Shown::Yes,
            cuts_off: Shown::Yes,
            refuses_writes: Shown::Yes,
            aborts: Shown::Yes,
            outlasts_power_loss: Shown::No,
            names_paths: Shown::Yes,
            can_be_released: Shown::Yes,
            paths: 2,
        };
        let disk = |proof| ProvenDisk { path: "/dev/one".into(), identity: "naa.1 of 4096 bytes".to_owned(), proof };
        let armed = Armed::now(&spec, vec![disk(proof.clone())]);
        armed.write(dir.path(), &web).unwrap();
        assert_eq!(read(dir.path(), &web, &spec, None), Ok(armed.clone()));
        let identity = |name, size| Identity { designator: Designator::of_kernel(name).unwrap(), size };
        let elsewhere = ReservationSpec { devices: vec!["/dev/other-name".into()], ..spec.clone() };
        assert_eq!(
            read(dir.path(), &web, &elsewhere, Some(&[identity("naa.1", 4096)])),
            Ok(armed),
            "the disk is the same"
        );
        let other = read(dir.path(), &web, &spec, Some(&[identity("naa.1", 8192)])).unwrap_err();
        assert!(other.contains("with naa.1 of 4096 bytes, and has naa.1 of 8192 bytes now"), "{other}");
        let one_path = Proof { refuses_others: Shown::NotTried, cuts_off: Shown::NotTried, paths: 1, ..proof };
        Armed::now(&spec, vec![disk(one_path)]).write(dir.path(), &web).unwrap();
        let lacking = read(dir.path(), &web, &spec, None).unwrap_err();
        assert!(
            lacking.contains("of /dev/one it is not shown that others are refused and that a dead holder"),
            "{lacking}"
        );
        spec.devices.push("/dev/two".into());
        assert!(read(dir.path(), &web, &spec, None).unwrap_err().contains("was changed"));
    }
}
