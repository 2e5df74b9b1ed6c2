//! Processes, commands and filesystems as they stand in a hierarchy file.
//!
//! Decides how each is written, and that every mistake is told at its place. Leaves `name`, `requires`, time-outs and the
//! monitor's times to the hierarchy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, PathBuf};

use ha_core::hierarchy::{Fields, Value};
use ha_core::time::Span;
use nix::sys::signal::Signal;

use super::check::Check;
use super::exec::ExecSpec;
use super::filesystem::{self, FilesystemSpec, Fsck, MountPoint, NotEmpty, look, nfs};
use super::process::{FoundOn, ProcessSpec, Ready};
use super::systemd::SystemdSpec;
use crate::systemd::UnitName;

pub(super) const COMMAND: &str =
    "a list of a program and its arguments, such as [\"/usr/bin/app\", \"--port\", \"80\"]";
pub(super) const ADDRESS: &str = "an IP address and a port, such as \"127.0.0.1:80\"";

impl ProcessSpec {
    /// Reads the fields of `Process(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Process(
    ///     name: "app",
    ///     command: ["/usr/bin/app", "--port", "80"],
    ///     env: {"COLOUR": "green"},
    ///     directory: "/srv",
    ///     user: "www-data",
    ///     stop_signal: "TERM",
    ///     ready: Tcp("127.0.0.1:80"),      // or Executed, or After("2s"), or Command(["/usr/bin/app", "ready"])
    ///     check: Tcp("127.0.0.1:80"),      // or Command(["/usr/bin/app", "--check"])
    ///     found_on: Node,                  // or Hierarchy: on a filesystem of the hierarchy
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<ProcessSpec> {
        let command = command(fields, "command", Presence::Required);
        let env = fields.value("env").map_or(Some(BTreeMap::new()), environment);
        let directory = fields.or("directory", "a directory", PathBuf::from("/"));
        let user = fields.optional("user", "the name of a user");
        let stop_signal = fields.value("stop_signal").map_or(Some(Signal::SIGTERM), signal);
        let ready = fields.value("ready").map_or(Some(Ready::Executed), ready);
        let check = Check::read(fields);
        let found_on = found_on(fields);
        Some(ProcessSpec {
            command: command?,
            env: env?,
            directory,
            user,
            stop_signal: stop_signal?,
            ready: ready?,
            check: check?,
            found_on: found_on?,
        })
    }
}

impl ExecSpec {
    /// Reads the fields of `Exec(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Exec(name: "x", start: ["x-up"], stop: ["x-down"], monitor: ["x-look"], kill: ["x-kill"])
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<ExecSpec> {
        let start = command(fields, "start", Presence::Required);
        let stop = command(fields, "stop", Presence::Required);
        let monitor = command(fields, "monitor", Presence::Required);
        let kill = command(fields, "kill", Presence::Optional);
        Some(ExecSpec { start: start?, stop: stop?, monitor: monitor?, kill })
    }
}

impl FilesystemSpec {
    /// Reads the fields of `Filesystem(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Filesystem(
    ///     name: "data",
    ///     device: "/dev/disk/by-id/…-part1",
    ///     at: "/srv/web",
    ///     fstype: "ext4",
    ///     options: ["noatime"],
    ///     fsck: Preen,                     // or Never, or Force
    ///     mount_point: Existing,           // or Created
    ///     not_empty: Refuse,               // or Allow
    ///     found_on: Node,                  // or Hierarchy: another resource of the hierarchy brings the device
    ///     check: Write,                    // or Read; nothing without it
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<FilesystemSpec> {
        let device: Option<String> = fields.required("device", "a block device, or what else mount(8) takes as source");
        let at: Option<PathBuf> = fields.required("at", "the mount point");
        let fstype: Option<String> = fields.required("fstype", "the filesystem's type, such as \"ext4\"");
        let options: Vec<String> = fields.or("options", "a list of mount options, such as [\"noatime\"]", Vec::new());
        let fsck = fields.value("fsck").map_or(Some(None), |value| {
            choice(value, "check", &[("Never", Fsck::Never), ("Preen", Fsck::Preen), ("Force", Fsck::Force)]).map(Some)
        });
        let mount_point = fields.value("mount_point").map_or(Some(MountPoint::Existing), |value| {
            choice(value, "mount point", &[("Existing", MountPoint::Existing), ("Created", MountPoint::Created)])
        });
        let not_empty = fields.value("not_empty").map_or(Some(NotEmpty::Refuse), |value| {
            choice(value, "treatment", &[("Refuse", NotEmpty::Refuse), ("Allow", NotEmpty::Allow)])
        });
        let found_on = found_on(fields);
        let check = fields.value("check").map_or(Some(None), |value| {
            let choices = [("Read", filesystem::Check::Read), ("Write", filesystem::Check::Write)];
            choice(value, "check", &choices).map(Some)
        });
        // The kernel shows mount points in one way of writing only, and they are found again by it.
        let at: Option<PathBuf> = at.map(|at| at.components().collect());
        let is_whole = |at: &PathBuf| at.is_absolute() && at.components().all(|part| part != Component::ParentDir);
        let mut wrong = Vec::new();
        if !at.as_ref().is_none_or(is_whole) {
            wrong.push(("at", "a mount point is a whole path, from / on, without `..`"));
        }
        if let (Some(device), Some(true), Some(fsck)) = (&device, fstype.as_deref().map(nfs::is_nfs), fsck) {
            wrong.extend(nfs::mistake(device, &options, fsck));
        }
        if let (Some(device), Some(Some(check))) = (&device, check) {
            wrong.extend(look::mistake(check, device, &options).map(|mistake| ("check", mistake)));
        }
        for (field, mistake) in &wrong {
            fields.problem(field, mistake, None);
        }
        if !wrong.is_empty() {
            return None;
        }
        let (device, fstype, fsck) = (device?, fstype?, fsck?);
        Some(FilesystemSpec {
            device,
            at: at?,
            fstype,
            options,
            fsck,
            mount_point: mount_point?,
            not_empty: not_empty?,
            found_on: found_on?,
            check: check?,
        })
    }
}

impl SystemdSpec {
    /// Reads the fields of `Systemd(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Systemd(
    ///     name: "nginx",
    ///     unit: "nginx.service",
    ///     check: Tcp("10.0.0.10:80"),      // or Command([…]); else only whether it is active
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<SystemdSpec> {
        let expected = "the name of a service unit, such as \"nginx.service\"";
        let check = Check::read(fields);
        let value = fields.required_value("unit", expected)?;
        let name: String = value.read(expected)?;
        match UnitName::new(&name) {
            Ok(unit) => Some(SystemdSpec { unit, check: check? }),
            Err(wrong) => {
                value.problem(&wrong.to_string(), None);
                None
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Presence {
    Required,
    Optional,
}

fn command(fields: &mut Fields<'_>, key: &'static str, presence: Presence) -> Option<Vec<String>> {
    let value = match presence {
        Presence::Required => fields.required_value(key, COMMAND),
        Presence::Optional => fields.value(key),
    };
    words(value?)
}

pub(super) fn words(value: Value<'_>) -> Option<Vec<String>> {
    let words: Vec<String> = value.read(COMMAND)?;
    if words.first().is_none_or(String::is_empty) {
        value.problem(&format!("there is no program: expected {COMMAND}"), None);
        return None;
    }
    Some(words)
}

fn environment(value: Value<'_>) -> Option<BTreeMap<String, String>> {
    let expected = "a map of names and texts, such as {\"COLOUR\": \"green\"}";
    let entries = value.entries(expected)?;
    let read = entries.into_iter().map(|(key, value)| {
        let name: Option<String> = key.read("a name");
        let text: Option<String> = value.read("a text");
        let name = name?;
        if name.is_empty() || name.contains(['=', '\0']) || name.starts_with("HA_") {
            key.problem(
                &format!("{name:?} cannot be set: a name has no `=` in it, and `HA_…` is what the agent tells"),
                None,
            );
            return None;
        }
        Some((name, text?))
    });
    // All of them are read before one that is wrong ends it: every mistake is told.
    read.collect::<Vec<_>>().into_iter().collect()
}

fn signal(value: Value<'_>) -> Option<Signal> {
    let expected = "the name of a signal, such as \"TERM\" or \"QUIT\"";
    let name: String = value.read(expected)?;
    let whole = if name.starts_with("SIG") { name.clone() } else { format!("SIG{name}") };
    let signal = whole.parse().ok();
    if signal.is_none() {
        value.problem(&format!("there is no signal {name:?}: expected {expected}"), None);
    }
    signal
}

fn ready(value: Value<'_>) -> Option<Ready> {
    let (name, mut inner) = value.variant("Executed, After(…), Tcp(…) or Command(…)")?;
    let ready = match name {
        "Executed" => Some(Ready::Executed),
        "After" => inner.only_or("time", "a length of time, such as \"2s\"").map(|Span(time)| Ready::After(time)),
        "Tcp" => inner.only_or::<SocketAddr>("address", ADDRESS).map(Ready::Tcp),
        "Command" => match inner.only() {
            Some(value) => words(value).map(Ready::Command),
            None => command(&mut inner, "command", Presence::Required).map(Ready::Command),
        },
        _ => {
            value.unknown_name("way to be ready", name, &["Executed", "After", "Tcp", "Command"]);
            return None;
        }
    };
    inner.finish();
    ready
}

/// Whole paths of block devices, as options that take lists want them: one at least, and no comma in one.
pub(super) fn devices(value: Value<'_>) -> Option<Vec<String>> {
    let expected = "a list of block devices, such as [\"/dev/disk/by-id/wwn-0x6001405…\"]";
    let devices: Vec<String> = value.read(expected)?;
    let wrong = if devices.is_empty() {
        Some(format!("there is no device: expected {expected}, or leave it out"))
    } else {
        let is_wrong = |device: &&String| !device.starts_with('/') || device.contains([',', '\0', '\n']);
        devices
            .iter()
            .find(is_wrong)
            .map(|device| format!("{device:?} is no whole path without a comma: expected {expected}"))
    };
    if let Some(wrong) = wrong {
        value.problem(&wrong, None);
        return None;
    }
    Some(devices)
}

/// `found_on: Node`, which is the default, or `found_on: Hierarchy`.
pub(super) fn found_on(fields: &mut Fields<'_>) -> Option<FoundOn> {
    fields.value("found_on").map_or(Some(FoundOn::Node), |value| {
        choice(value, "place", &[("Node", FoundOn::Node), ("Hierarchy", FoundOn::Hierarchy)])
    })
}

/// One of several names without anything behind them.
pub(super) fn choice<T: Copy>(value: Value<'_>, what: &str, choices: &[(&str, T)]) -> Option<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let (name, inner) = value.variant(&names.join(", "))?;
    inner.finish();
    let chosen = choices.iter().find(|(known, _)| *known == name).map(|(_, choice)| *choice);
    if chosen.is_none() {
        value.unknown_name(what, name, &names);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::read;
    use std::time::Duration;

    #[test]
    fn a_process_is_read_with_all_it_may_have() {
        let text = r#"Process(
            command: ["/usr/bin/app", "--port", "80"], env: {"COLOUR": "green"}, directory: "/srv", user: "www-data",
            stop_signal: "QUIT", ready: Tcp("127.0.0.1:80"), check: Command(["/usr/bin/app", "check"]), found_on: Hierarchy,
        )"#;
        let (found, said) = read(text, ProcessSpec::read);
        assert_eq!(said, "");
        let expected = ProcessSpec {
            env: [("COLOUR".to_owned(), "green".to_owned())].into(),
            directory: PathBuf::from("/srv"),
            user: Some("www-data".to_owned()),
            stop_signal: Signal::SIGQUIT,
            ready: Ready::Tcp("127.0.0.1:80".parse().unwrap()),
            check: Some(Check::Command(vec!["/usr/bin/app".to_owned(), "check".to_owned()])),
            found_on: FoundOn::Hierarchy,
            ..ProcessSpec::new(["/usr/bin/app", "--port", "80"])
        };
        assert_eq!(found, Some(expected));
        let ready = read(r#"Process(command: ["app"], ready: Command(["ask", "it"]))"#, ProcessSpec::read);
        let ask = vec!["ask".to_owned(), "it".to_owned()];
        let expected = ProcessSpec { ready: Ready::Command(ask), ..ProcessSpec::new(["app"]) };
        assert_eq!(ready, (Some(expected), String::new()));
        let (found, said) = read(r#"Process(command: ["app"], ready: After("2s"))"#, ProcessSpec::read);
        assert_eq!(said, "");
        let expected = ProcessSpec { ready: Ready::After(Duration::from_secs(2)), ..ProcessSpec::new(["app"]) };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn every_mistake_in_a_process_is_told_at_once() {
        let text = r#"Process(command: [], env: {"HA_NODE": "x", "A": "1", "A": "2"}, stop_signal: "TREM",
            ready: Tcp("localhost"), check: Tpc("127.0.0.1:80"), usr: "nobody")"#;
        let (found, said) = read(text, ProcessSpec::read);
        assert_eq!(found, None);
        for expected in ["no program", "HA_NODE", "here twice", "TREM", "localhost", "`Tpc`", "did you mean `user`?"] {
            assert!(said.contains(expected), "{expected} is missing in {said}");
        }
    }

    #[test]
    fn commands_are_read() {
        let (found, said) = read(r#"Exec(start: ["up"], stop: ["down"], monitor: ["look", "-q"])"#, ExecSpec::read);
        assert_eq!(said, "");
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let expected =
            ExecSpec { start: list(&["up"]), stop: list(&["down"]), monitor: list(&["look", "-q"]), kill: None };
        assert_eq!(found, Some(expected));
        let (found, said) = read(r#"Exec(start: ["up"], monitor: [""])"#, ExecSpec::read);
        assert_eq!(found, None);
        assert!(said.contains("lacks the field `stop`") && said.contains("no program"), "{said}");
    }

    #[test]
    fn a_unit_is_read_and_a_wrong_name_is_told_at_its_place() {
        let (found, said) = read(r#"Systemd(unit: "nginx.service")"#, SystemdSpec::read);
        assert_eq!(said, "");
        assert_eq!(found.unwrap().unit.as_str(), "nginx.service");
        for (text, expected) in [
            ("Systemd()", "lacks the field `unit`"),
            (r#"Systemd(unit: "nginx")"#, "\"nginx.service\""),
            (r"Systemd(unit: 7)", "the name of a service unit"),
            (r#"Systemd(unit: "nginx.service", uint: "x")"#, "did you mean `unit`?"),
        ] {
            let (_, said) = read(text, SystemdSpec::read);
            assert!(said.contains(expected), "{expected} is missing in {said}");
        }
    }

    #[test]
    fn a_filesystem_is_read_and_its_place_is_a_whole_path() {
        let text =
            r#"Filesystem(device: "/dev/vdb1", at: "/srv/web/", fstype: "ext4", options: ["noatime"], fsck: Force)"#;
        let (found, said) = read(text, FilesystemSpec::read);
        assert_eq!(said, "");
        let found = found.unwrap();
        assert_eq!((found.at.to_str(), found.fsck), (Some("/srv/web"), Some(Fsck::Force)));
        let text = r#"Filesystem(device: "/dev/vdb1", at: "srv/../web", fstype: "ext4", fsck: Always)"#;
        let (found, said) = read(text, FilesystemSpec::read);
        assert_eq!(found, None);
        assert!(said.contains("whole path") && said.contains("`Always`"), "{said}");
        let text = r#"Filesystem(device: "files:/srv", at: "/srv/files", fstype: "nfs", options: ["hard", "bg"])"#;
        let (found, said) = read(text, FilesystemSpec::read);
        assert_eq!(found, None);
        assert!(said.contains("at some later time"), "{said}");
    }

    #[test]
    fn what_a_monitor_of_a_filesystem_looks_at_is_read_and_every_mistake_is_told_at_its_place() {
        let text = r#"Filesystem(device: "/dev/vdb1", at: "/srv", fstype: "ext4", check: Write)"#;
        let (found, said) = read(text, FilesystemSpec::read);
        assert_eq!((said.as_str(), found.unwrap().check), ("", Some(filesystem::Check::Write)));
        let text = r#"Filesystem(device: "/dev/vdb1", at: "/srv", fstype: "ext4", options: ["ro"], check: Read)"#;
        let (found, said) = read(text, FilesystemSpec::read);
        assert_eq!((said.as_str(), found.unwrap().check), ("", Some(filesystem::Check::Read)));
        for (text, expected) in [
            (r#"Filesystem(device: "/dev/vdb1", at: "/srv", fstype: "ext4", check: Wirte)"#, "did you mean `Write`?"),
            (r#"Filesystem(device: "/dev/vdb1", at: "/srv", fstype: "ext4", check: "Write")"#, "Read, Write"),
            (r#"Filesystem(device: "files:/srv", at: "/srv", fstype: "nfs", check: Read)"#, "none below /dev"),
            (r#"Filesystem(device: "/dev/x", at: "/s", fstype: "xfs", options: ["a,ro"], check: Write)"#, "say `ro`"),
        ] {
            let (found, said) = read(text, FilesystemSpec::read);
            assert_eq!(found, None);
            let place = format!("web.ron:1:{}", text.find("check: ").unwrap() + "check: ".len() + 1);
            assert!(said.contains(&place) && said.contains(expected), "{text}: {said}");
        }
        // None hides another.
        let text = r#"Filesystem(device: "files", at: "srv", fstype: "nfs", check: Read)"#;
        let (_, said) = read(text, FilesystemSpec::read);
        for expected in ["whole path", "server:/place", "none below /dev"] {
            assert!(said.contains(expected), "{expected} is missing in {said}");
        }
    }
}
