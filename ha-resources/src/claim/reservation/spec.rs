//! A claim by reservation as it stands in a hierarchy file.
//!
//! Decides how it is written, and that every mistake is told at its place. Leaves to [`super::Disk::open`] what the paths lead to, and the times
//! that go together to [`ReservationTiming`].

use std::path::{Component, PathBuf};
use std::time::Duration;

use ha_core::claim::reservation::{ReservationTiming, ReservationType};
use ha_core::hierarchy::{Fields, Value};
use ha_core::time::Span;

const DEVICES: &str = "a list of whole disks, such as [\"/dev/disk/by-id/wwn-0x6001405a1b2c3d4e\"]";
const A_TIME: &str = "a length of time such as \"500ms\"";
/// What a command gets where nothing else is written: long for any storage that works, and short beside the usual `uphold_bound`.
const TIME_LIMIT: Duration = Duration::from_secs(3);
/// A claim that is being taken is waited for during 30 s; the commands around a challenge need a part of them.
const CHALLENGE_MAX: Duration = Duration::from_secs(20);

/// What is reserved, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationSpec {
    /// The disks, none twice; the first is the arbiter.
    pub devices: Vec<PathBuf>,
    /// What others are kept from.
    pub kind: ReservationType,
    /// The times.
    pub timing: ReservationTiming,
    /// How long a command may take; less than half of the time without proof.
    pub time_limit: Duration,
}

impl ReservationSpec {
    /// Reads the fields of `Reservation(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Reservation(
    ///     devices: ["/dev/disk/by-id/wwn-0x6001405a1b2c3d4e"],
    ///     type: WriteExclusiveRegistrantsOnly,       // or ExclusiveAccessRegistrantsOnly
    ///     defend_interval: "1s",
    ///     uphold_bound: "10s",
    ///     time_limit: "3s",
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<ReservationSpec> {
        let devices = fields.required_value("devices", DEVICES).and_then(devices);
        let kind = fields.value("type").map_or(Some(ReservationType::WriteExclusiveRegistrantsOnly), kind);
        let timing = timing(fields);
        let time_limit = timing.map(|timing| TIME_LIMIT.min(timing.uphold_bound() * 3 / 10));
        let time_limit = match fields.value("time_limit") {
            Some(value) => value.read::<Span>(A_TIME).map(|span| span.0),
            None => time_limit,
        };
        let (timing, time_limit) = (timing?, time_limit?);
        if time_limit < Duration::from_millis(10) {
            let message = format!("time_limit is {}: expected at least 10ms", Span(time_limit));
            fields.problem("time_limit", &message, None);
            return None;
        }
        if time_limit * 2 >= timing.uphold_bound() {
            let message = format!(
                "time_limit is {}: expected less than half of uphold_bound ({}), so that a command that hangs on one path leaves time for another",
                Span(time_limit),
                Span(timing.uphold_bound())
            );
            fields.problem("time_limit", &message, Some("shorten it, or lengthen uphold_bound".to_owned()));
            return None;
        }
        let challenge = timing.challenge(time_limit);
        if challenge > CHALLENGE_MAX {
            let message = format!(
                "a holder that is silent would be challenged for {} (twice defend_interval, and time_limit): expected at most {}",
                Span(challenge),
                Span(CHALLENGE_MAX)
            );
            fields.problem("defend_interval", &message, Some("shorten defend_interval or time_limit".to_owned()));
            return None;
        }
        Some(ReservationSpec { devices: devices?, kind: kind?, timing, time_limit })
    }
}

fn devices(value: Value<'_>) -> Option<Vec<PathBuf>> {
    let values = value.list(DEVICES)?;
    if values.is_empty() {
        value.problem("there are no devices: expected at least one", None);
        return None;
    }
    let mut read: Vec<(PathBuf, String)> = Vec::new();
    for value in &values {
        let Some(path) = value.read::<PathBuf>("the path of a whole disk") else { continue };
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            let message = format!("{} is not a whole path: expected one from / on, without `..`", path.display());
            value.problem(&message, Some("name disks by their names in /dev/disk/by-id".to_owned()));
            continue;
        }
        // However it is written: `/dev//sda` is `/dev/sda`.
        let path: PathBuf = path.components().collect();
        match read.iter().find(|(other, _)| *other == path) {
            Some((_, first)) => {
                let message = format!("{} is named twice: first in {first}", path.display());
                value.problem(&message, Some("name every disk once".to_owned()));
            }
            None => read.push((path, value.place())),
        }
    }
    (read.len() == values.len()).then(|| read.into_iter().map(|(path, _)| path).collect())
}

fn kind(value: Value<'_>) -> Option<ReservationType> {
    const KINDS: [(&str, ReservationType); 2] = [
        ("WriteExclusiveRegistrantsOnly", ReservationType::WriteExclusiveRegistrantsOnly),
        ("ExclusiveAccessRegistrantsOnly", ReservationType::ExclusiveAccessRegistrantsOnly),
    ];
    let name = value.text();
    let found = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    if found.is_some() {
        return found;
    }
    if ReservationType::ALL.iter().any(|kind| format!("{kind:?}") == name) {
        let message = format!("reservations of type {name} do not fit here: expected {} or {}", KINDS[0].0, KINDS[1].0);
        value.problem(&message, Some("of the six types these are the ones that work on every path".to_owned()));
    } else {
        value.unknown_name("type of reservation", name, &KINDS.map(|(known, _)| known));
    }
    None
}

fn timing(fields: &mut Fields<'_>) -> Option<ReservationTiming> {
    let default = ReservationTiming::default();
    let read = |fields: &mut Fields<'_>, key, default| match fields.value(key) {
        Some(value) => value.read::<Span>(A_TIME).map(|span| span.0),
        None => Some(default),
    };
    let defend = read(fields, "defend_interval", default.defend_interval());
    // By default in the same proportion, where that is longer.
    let bound = default.uphold_bound().max(defend.unwrap_or_default() * 3);
    let bound = read(fields, "uphold_bound", bound);
    match ReservationTiming::new(defend?, bound?) {
        Ok(timing) => Some(timing),
        Err(wrong) => {
            let message = wrong.to_string();
            let key = message.split(' ').next().unwrap_or_default().to_owned();
            fields.problem(&key, &message, Some(format!("times that are left out: {default}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use ha_core::hierarchy::{Source, read_value};

    use super::*;

    fn read(text: &str) -> Result<ReservationSpec, Vec<String>> {
        let (read, diagnostics) = read_value(&Source::new("web.ron", text), |value| {
            let (_, mut fields) = value.variant("`Reservation(…)`")?;
            let spec = ReservationSpec::read(&mut fields);
            fields.finish();
            spec
        });
        let told = diagnostics.problems().iter();
        let help = |help: &Option<String>| help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
        let told: Vec<String> =
            told.map(|p| format!("{}:{}: {}{}", p.line, p.column, p.message, help(&p.help))).collect();
        if told.is_empty() { Ok(read.unwrap()) } else { Err(told) }
    }

    #[test]
    fn devices_suffice() {
        let spec = read(r#"Reservation(devices: ["/dev/disk/by-id/wwn-0x1", "/dev//disk/by-id/wwn-0x2"])"#).unwrap();
        assert_eq!(spec.devices, [PathBuf::from("/dev/disk/by-id/wwn-0x1"), "/dev/disk/by-id/wwn-0x2".into()]);
        assert_eq!(spec.kind, ReservationType::WriteExclusiveRegistrantsOnly);
        assert_eq!((spec.timing, spec.time_limit), (ReservationTiming::default(), Duration::from_secs(3)));
    }

    #[test]
    fn everything_can_be_said() {
        let spec = read(
            r#"Reservation(devices: ["/dev/a"], type: ExclusiveAccessRegistrantsOnly, defend_interval: "200ms", uphold_bound: "2s")"#,
        );
        let spec = spec.unwrap();
        assert_eq!(spec.kind, ReservationType::ExclusiveAccessRegistrantsOnly);
        assert_eq!(spec.timing.defend_interval(), Duration::from_millis(200));
        assert_eq!(spec.time_limit, Duration::from_millis(600));
        let slow = read(r#"Reservation(devices: ["/dev/a"], defend_interval: "5s", time_limit: "5s")"#).unwrap();
        assert_eq!(slow.timing.uphold_bound(), Duration::from_secs(15));
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let cases: [(&str, &[&str]); 9] = [
            ("Reservation()", &["1:1: Reservation lacks the field `devices`: expected a list of whole disks, such as"]),
            ("Reservation(devices: [])", &["1:22: there are no devices: expected at least one"]),
            (
                r#"Reservation(devices: ["/dev/a", "/dev/./a"])"#,
                &["1:33: /dev/a is named twice: first in line 1, column 23 (name every disk once)"],
            ),
            (
                r#"Reservation(devices: ["sda", 5], device: "x")"#,
                &[
                    "1:23: sda is not a whole path: expected one from / on, without `..`",
                    "1:30: `5` does not fit here: expected the path of a whole disk",
                    "1:34: Reservation has no field `device`: expected one of devices, type, defend_interval, uphold_bound, time_limit (did you mean `devices`?)",
                ],
            ),
            (
                r#"Reservation(devices: ["/dev/a"], type: WriteExclusive)"#,
                &[
                    "1:40: reservations of type WriteExclusive do not fit here: expected WriteExclusiveRegistrantsOnly or",
                ],
            ),
            (
                r#"Reservation(devices: ["/dev/a"], type: WriteExclusiveRegistrantOnly)"#,
                &["1:40: there is no type of reservation `WriteExclusiveRegistrantOnly`: expected one of"],
            ),
            (
                r#"Reservation(devices: ["/dev/a"], defend_interval: "1s", uphold_bound: "2s")"#,
                &["1:71: uphold_bound is 2s: expected at least 3 times defend_interval"],
            ),
            (
                r#"Reservation(devices: ["/dev/a"], time_limit: "6s")"#,
                &["1:46: time_limit is 6s: expected less than half of uphold_bound (10s)"],
            ),
            (
                r#"Reservation(devices: ["/dev/a"], defend_interval: "10s")"#,
                &["1:51: a holder that is silent would be challenged for 23s"],
            ),
        ];
        for (text, expected) in cases {
            let told = read(text).unwrap_err();
            assert_eq!(told.len(), expected.len(), "{text}: {told:#?}");
            for (told, expected) in told.iter().zip(expected) {
                assert!(told.starts_with(expected), "{text}: {told}");
            }
        }
    }
}
