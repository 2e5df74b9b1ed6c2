//! Which paths of this node are registered, and what else is: for reports, from what a device says of each nexus (READ FULL STATUS).
//!
//! Changes nothing. Decides which registration is which path's, and says so where that cannot be told. A claim does not rest on this, since not
//! every device tells: its holder [counts](super::machine) its key.

use super::device::{Failure, Nexus, PathName, Registration, Registrations, ReservationDevice};

/// So often a device is asked again that had to tell something first.
const ATTENTIONS_MAX: usize = 16;

/// What a path of this node is to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Registered, as this.
    Registered(Registration),
    /// Not registered: with a reservation for registrants only, what is written on it is refused.
    NotRegistered,
    /// The device tells some nexuses apart no further than by the name of the initiator and the port of the target: of `paths` like this one so
    /// many are registered, and which is not told.
    OneOf {
        /// How many are.
        registered: usize,
        /// Of so many.
        paths: usize,
    },
    /// By which name the device knows this path cannot be found out here.
    Nameless,
    /// The path does not answer.
    Failed(Failure),
}

/// A path, and what it is to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStanding {
    /// Which.
    pub path: PathName,
    /// What it is.
    pub standing: Standing,
}

/// A registration that is none of this node's paths'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which.
    pub registration: Registration,
    /// It was made by this node all the same, on a path that it has no more: its initiator, or its key, is one of this node's paths'.
    pub left_behind: bool,
}

/// Everything that is registered with a device, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// As in [`super::device::Keys::generation`].
    pub generation: u32,
    /// This node's paths.
    pub paths: Vec<PathStanding>,
    /// All registrations but those.
    pub elsewhere: Vec<Elsewhere>,
}

impl Audit {
    /// The paths that are not registered although others of this node are; none where this node is not registered at all, as a node should be
    /// that holds nothing.
    pub fn unregistered(&self) -> Vec<&PathName> {
        if !self.paths.iter().any(|path| matches!(path.standing, Standing::Registered(_))) {
            return Vec::new();
        }
        let lacking = self.paths.iter().filter(|path| path.standing == Standing::NotRegistered);
        lacking.map(|path| &path.path).collect()
    }

    fn new(asked: &[(PathName, Result<Nexus, Failure>)], seen: Registrations) -> Audit {
        let Registrations { generation, registrations, .. } = seen;
        // To NVMe, a registration is a host's, and there are no ports to tell apart.
        let tells_ports = registrations.iter().any(|one| one.port.is_some());
        let nexuses = || asked.iter().filter_map(|(_, asked)| asked.as_ref().ok());
        // Those that can be told from all others come first; what is left is for the paths that are left.
        let exactly = |nexus: &Nexus| registrations.iter().position(|one| one.is_exactly(nexus));
        let mut explained: Vec<bool> =
            registrations.iter().map(|one| nexuses().any(|nexus| one.is_exactly(nexus))).collect();
        let free: Vec<(usize, &Registration)> =
            registrations.iter().enumerate().filter(|(place, _)| !explained[*place]).collect();
        let open: Vec<&Nexus> = nexuses().filter(|nexus| exactly(nexus).is_none()).collect();
        let mut paths = Vec::new();
        for (path, nexus) in asked {
            let standing = match nexus {
                Err(failure) => Standing::Failed(*failure),
                Ok(nexus) => match exactly(nexus) {
                    Some(place) => Standing::Registered(registrations[place].clone()),
                    None if nexus.initiator.is_none() || nexus.port.is_none() && tells_ports => Standing::Nameless,
                    None => {
                        let fitting: Vec<_> = free.iter().filter(|(_, one)| one.may_be(nexus)).collect();
                        fitting.iter().for_each(|(place, _)| explained[*place] = true);
                        among(&fitting, &open)
                    }
                },
            };
            paths.push(PathStanding { path: path.clone(), standing });
        }
        let by_name = |one: &Registration| {
            nexuses().filter_map(|own| own.initiator.as_ref()).any(|own| own.name == one.initiator.name)
        };
        let by_key = |one: &Registration| {
            paths.iter().any(|path| matches!(&path.standing, Standing::Registered(own) if own.key == one.key))
        };
        let left = registrations.iter().zip(explained).filter_map(|(one, explained)| (!explained).then_some(one));
        let elsewhere =
            left.map(|one| Elsewhere { registration: one.clone(), left_behind: by_name(one) || by_key(one) }).collect();
        Audit { generation, paths, elsewhere }
    }
}

/// What a path is among those that the device does not tell from it: as many are registered as there are registrations that fit.
fn among(fitting: &[&(usize, &Registration)], open: &[&Nexus]) -> Standing {
    let paths = open.iter().filter(|nexus| fitting.iter().any(|(_, one)| one.may_be(nexus))).count();
    match fitting.first() {
        None => Standing::NotRegistered,
        Some((_, one)) if fitting.len() >= paths => Standing::Registered((*one).clone()),
        Some(_) => Standing::OneOf { registered: fitting.len(), paths },
    }
}

/// Asks a device over each of this node's paths. Fails if none answers, with [`Failure::NotSupported`] if the device does not tell.
pub async fn audit(device: &dyn ReservationDevice) -> Result<Audit, Failure> {
    let (mut asked, mut latest, mut failure) = (Vec::new(), None, Failure::Transport);
    for path in device.paths() {
        let mut answer = device.registrations(&path).await;
        for _ in 0..ATTENTIONS_MAX {
            let Err(Failure::UnitAttention(_)) = answer else { break };
            answer = device.registrations(&path).await;
        }
        let nexus = match answer {
            Ok(seen) => {
                let nexus = seen.asked_by.clone();
                latest = Some(seen);
                Ok(nexus)
            }
            Err(why) => {
                failure = why;
                Err(why)
            }
        };
        asked.push((path, nexus));
    }
    latest.map(|seen| Audit::new(&asked, seen)).ok_or(failure)
}

#[cfg(test)]
mod tests {
    use super::super::device::{InitiatorPort, Key};
    use super::*;

    fn port(name: &str, session: Option<&str>) -> InitiatorPort {
        InitiatorPort { name: name.to_owned(), session: session.map(ToOwned::to_owned) }
    }

    fn registered(key: u64, initiator: InitiatorPort, port: Option<u16>) -> Registration {
        Registration { key: Key::new(key).unwrap(), initiator, port, holds: false }
    }

    fn audited(paths: &[(&str, Nexus)], registrations: &[Registration]) -> Audit {
        let asked: Vec<_> = paths.iter().map(|(path, nexus)| (PathName::new(*path), Ok(nexus.clone()))).collect();
        let asked_by = paths[0].1.clone();
        Audit::new(&asked, Registrations { generation: 7, registrations: registrations.to_vec(), asked_by })
    }

    fn nexus(initiator: InitiatorPort, port: u16) -> Nexus {
        Nexus { initiator: Some(initiator), port: Some(port) }
    }

    fn standings(audit: &Audit) -> Vec<Standing> {
        audit.paths.iter().map(|path| path.standing.clone()).collect()
    }

    #[test]
    fn the_path_that_is_not_registered_is_named_and_so_is_what_no_path_explains() {
        let (one, two) = (port("alpha", Some("00023d010000")), port("alpha", Some("00023d020000")));
        let paths = [("sda", nexus(one.clone(), 1)), ("sdb", nexus(two, 2))];
        let mine = registered(0xa, one, Some(1));
        let orphan = registered(0xa, port("alpha", Some("00023d770000")), Some(2));
        let other = registered(0xb, port("beta", Some("00023d010000")), Some(2));
        let audit = audited(&paths, &[orphan.clone(), other.clone(), mine.clone()]);
        assert_eq!(standings(&audit), [Standing::Registered(mine), Standing::NotRegistered]);
        assert_eq!(audit.unregistered(), [&PathName::new("sdb")]);
        let elsewhere = [(orphan, true), (other, false)];
        let elsewhere = elsewhere.map(|(registration, left_behind)| Elsewhere { registration, left_behind });
        assert_eq!(audit.elsewhere, elsewhere);
    }

    #[test]
    fn a_node_that_holds_nothing_lacks_nothing() {
        let paths = [("sda", nexus(port("alpha", None), 1))];
        let other = registered(0xb, port("beta", None), Some(1));
        let audit = audited(&paths, std::slice::from_ref(&other));
        assert_eq!((standings(&audit), audit.unregistered()), (vec![Standing::NotRegistered], Vec::new()));
        assert_eq!(audit.elsewhere, [Elsewhere { registration: other, left_behind: false }]);
    }

    /// As LIO does, which gives no session whole.
    #[test]
    fn sessions_that_are_not_told_are_told_apart_by_port_and_else_counted() {
        let mine = |session: &str, port_of_target| nexus(port("alpha", Some(session)), port_of_target);
        let at = |target| registered(0xa, port("alpha", None), Some(target));
        let apart = [("sda", mine("00023d010000", 1)), ("sdb", mine("00023d020000", 2))];
        let audit = audited(&apart, &[at(2)]);
        assert_eq!(standings(&audit), [Standing::NotRegistered, Standing::Registered(at(2))]);

        let together = [("sda", mine("00023d010000", 1)), ("sdb", mine("00023d020000", 1))];
        let one_of = Standing::OneOf { registered: 1, paths: 2 };
        assert_eq!(standings(&audited(&together, &[at(1)])), [one_of.clone(), one_of]);
        let both = Standing::Registered(at(1));
        assert_eq!(standings(&audited(&together, &[at(1), at(1)])), [both.clone(), both]);
        let audit = audited(&together, &[at(1), at(1), at(3)]);
        assert_eq!(audit.elsewhere, [Elsewhere { registration: at(3), left_behind: true }]);
    }

    #[test]
    fn a_host_without_ports_is_told_by_its_name() {
        let host = |name| Nexus { initiator: Some(port(name, None)), port: None };
        let registrations = [registered(7, port("nvme.a", None), None)];
        let audit = audited(&[("nvme0n1", host("nvme.a"))], &registrations);
        assert_eq!(standings(&audit), [Standing::Registered(registrations[0].clone())]);
        let audit = audited(&[("nvme0n1", host("nvme.b"))], &registrations);
        assert_eq!(standings(&audit), [Standing::NotRegistered]);
        assert_eq!(audit.elsewhere.len(), 1);
    }

    #[test]
    fn a_registration_for_every_port_is_every_paths() {
        let host = port("nvme.1", None);
        let nexus = Nexus { initiator: Some(host.clone()), port: None };
        let all = registered(0xa, host, None);
        let audit = audited(&[("a", nexus.clone()), ("b", nexus)], std::slice::from_ref(&all));
        assert_eq!(standings(&audit), [Standing::Registered(all.clone()), Standing::Registered(all)]);
        assert_eq!(audit.elsewhere, []);
    }

    #[test]
    fn of_a_path_whose_name_is_not_known_nothing_is_said() {
        let mine = registered(0xa, port("fcp.5001", None), Some(1));
        let audit = audited(&[("sda", Nexus { initiator: None, port: Some(1) })], std::slice::from_ref(&mine));
        assert_eq!(standings(&audit), [Standing::Nameless]);
        assert_eq!(audit.elsewhere, [Elsewhere { registration: mine, left_behind: false }]);
    }
}
