//! What a namespace sends back: the report of its registrants, and what it can do.
//!
//! Decides whether the bytes make sense (NVM Express Base Specification 2.0, 7.4; NVM Command Set Specification, Identify Namespace).
//! Nothing is read past their end, and what cannot be is an error, never a guess.

use ha_core::claim::reservation::device::{
    Capabilities, Held, InitiatorPort, Key, Keys, Ports, PowerLoss, Registration, Reservation, ReservationType,
};

use super::number;

/// How the registrants are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// With host identifiers of 64 bits.
    Short,
    /// With host identifiers of 128 bits.
    Extended,
}

/// What is wrong with the data of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReportError {
    /// It ends too early.
    #[error("a report of {needed} bytes was expected, and only {got} came")]
    TooShort {
        /// In bytes.
        needed: usize,
        /// In bytes.
        got: usize,
    },
    /// Not a type that the specification knows.
    #[error("reservation type {0} is not one of NVMe's")]
    Type(u8),
}

/// The registrants and the reservation of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    generation: u32,
    kind: Option<ReservationType>,
    pub(super) power_loss: PowerLoss,
    registrants: Vec<Registrant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registrant {
    key: Key,
    /// The same for every controller of one host.
    host: Vec<u8>,
    holds: bool,
}

impl Format {
    fn header(self) -> usize {
        match self {
            Format::Short => 24,
            Format::Extended => 64,
        }
    }

    fn entry(self) -> usize {
        match self {
            Format::Short => 24,
            Format::Extended => 64,
        }
    }

    /// How long the whole report is, of which this is the beginning.
    pub(super) fn length(self, data: &[u8]) -> usize {
        let count = data.get(5..7).map_or(0, |bytes| usize::from(bytes[0]) | usize::from(bytes[1]) << 8);
        self.header() + count * self.entry()
    }
}

impl Report {
    pub(super) fn decode(format: Format, data: &[u8]) -> Result<Report, ReportError> {
        let (needed, got) = (format.length(data), data.len());
        let too_short = ReportError::TooShort { needed, got };
        let whole = data.get(..needed).ok_or_else(|| too_short.clone())?;
        let (header, list) = whole.split_at(format.header());
        let generation = header.first_chunk().copied().map(u32::from_le_bytes).ok_or(too_short)?;
        let kind = match header[4] {
            0 => None,
            other => Some(
                ReservationType::ALL.into_iter().find(|kind| number(*kind) == other).ok_or(ReportError::Type(other))?,
            ),
        };
        let power_loss = if header[9] & 1 == 0 { PowerLoss::Forgets } else { PowerLoss::Keeps };
        let registrants = list.chunks_exact(format.entry()).filter_map(|entry| Registrant::decode(format, entry));
        Ok(Report { generation, kind, power_loss, registrants: registrants.collect() })
    }

    /// One key for each host.
    pub(super) fn keys(&self) -> Keys {
        Keys { generation: self.generation, keys: self.hosts().iter().map(|registrant| registrant.key).collect() }
    }

    /// One registration for each host, for all controllers.
    pub(super) fn registrations(&self) -> (u32, Vec<Registration>) {
        let of = |host: &&Registrant| Registration {
            key: host.key,
            initiator: port_of(&host.host),
            port: None,
            holds: self.registrants.iter().any(|other| other.host == host.host && other.holds),
        };
        (self.generation, self.hosts().iter().map(of).collect())
    }

    /// A host is one nexus, though each of its controllers is listed.
    fn hosts(&self) -> Vec<&Registrant> {
        let mut hosts: Vec<&Registrant> = Vec::new();
        for registrant in &self.registrants {
            if !hosts.iter().any(|seen| seen.host == registrant.host) {
                hosts.push(registrant);
            }
        }
        hosts
    }

    pub(super) fn kind(&self) -> Option<ReservationType> {
        self.kind
    }

    pub(super) fn reservation(&self) -> Reservation {
        let held = self.kind.map(|kind| {
            let holder = self.registrants.iter().find(|registrant| registrant.holds);
            let key = holder.map(|holder| holder.key).filter(|_| !kind.is_held_by_all_registrants());
            Held { key, kind }
        });
        Reservation { generation: self.generation, held }
    }
}

impl Registrant {
    /// None for an entry without a key, which stands for no registration.
    fn decode(format: Format, entry: &[u8]) -> Option<Registrant> {
        let (key, host) = match format {
            Format::Short => (16, 8..16),
            Format::Extended => (8, 16..32),
        };
        let value = u64::from_le_bytes(*entry.get(key..)?.first_chunk()?);
        Some(Registrant { key: Key::new(value)?, host: entry.get(host)?.to_vec(), holds: entry.get(2)? & 1 != 0 })
    }
}

/// A host by its identifier, as it is written in `/etc/nvme/hostid` but for the hyphens.
pub(super) fn port_of(host: &[u8]) -> InitiatorPort {
    let digits: String = host.iter().map(|byte| format!("{byte:02x}")).collect();
    InitiatorPort { name: format!("nvme.{digits}"), session: None }
}

/// From the data of Identify Namespace: RESCAP, byte 31.
pub(super) fn capabilities(identity: &[u8], power_loss_now: PowerLoss) -> Capabilities {
    let can = identity.get(31).copied().unwrap_or(0);
    let knows = |kind| can & (1 << number(kind)) != 0;
    Capabilities {
        power_loss: if can & 1 == 0 { PowerLoss::Forgets } else { PowerLoss::Keeps },
        power_loss_now,
        // A registration is the host's, not a controller's.
        ports: Ports::All,
        types: ReservationType::ALL.into_iter().filter(|kind| knows(*kind)).collect(),
    }
}
