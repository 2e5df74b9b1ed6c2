//! An NBD export as it stands in a hierarchy file.
//!
//! Decides how it is written, and that every mistake is told at its place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ha_core::hierarchy::{Fields, Value};
use ha_core::time::Span;

use super::{Access, Device, NbdSpec, Server};
use crate::probe::bytes_of;
use crate::resource::read::choice;

/// Names that servers take may be longer (4096 bytes); the kernel shows what it is attached to in one page.
const LONGEST_NAME: usize = 255;

/// A request that a server leaves without an answer for so long is taken to have none.
const TIMEOUT: Duration = Duration::from_secs(10);

const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

impl NbdSpec {
    /// Reads the fields of `Nbd(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Nbd(
    ///     name: "disk",
    ///     device: "/dev/nbd0",
    ///     server: Tcp("10.0.0.9:10809"),   // or Unix("/run/nbd.sock")
    ///     export: "shop",
    ///     access: ReadWrite,               // or ReadOnly
    ///     size: "10GiB",
    ///     timeout: "10s",
    /// )
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<NbdSpec> {
        let device =
            fields.required_value("device", "the name of an nbd device, such as \"/dev/nbd0\"").and_then(device);
        let server = fields.required_value("server", "Tcp(…) or Unix(…)").and_then(server);
        let export = fields.value("export").map_or(Some(String::new()), export);
        let access = fields.value("access").map_or(Some(Access::ReadWrite), |value| {
            choice(value, "access", &[("ReadWrite", Access::ReadWrite), ("ReadOnly", Access::ReadOnly)])
        });
        let size = fields.value("size").map_or(Some(None), |value| size(value).map(Some));
        let timeout = fields.value("timeout").map_or(Some(TIMEOUT), timeout);
        Some(NbdSpec {
            device: device?,
            server: server?,
            export: export?,
            access: access?,
            size: size?,
            timeout: timeout?,
        })
    }
}

fn device(value: Value<'_>) -> Option<Device> {
    let text: String = value.read("the name of an nbd device, such as \"/dev/nbd0\"")?;
    text.parse().map_err(|wrong: String| value.problem(&wrong, None)).ok()
}

fn server(value: Value<'_>) -> Option<Server> {
    let (name, mut inner) = value.variant("Tcp(…) or Unix(…)")?;
    let server = match name {
        "Tcp" => inner
            .only_or::<SocketAddr>("address", "an IP address and a port, such as \"10.0.0.9:10809\"")
            .map(Server::Tcp),
        "Unix" => {
            inner.only_or::<PathBuf>("path", "the path of a socket, such as \"/run/nbd.sock\"").and_then(|path| {
                if path.is_absolute() && !path.to_string_lossy().contains(char::is_control) {
                    return Some(Server::Unix(path));
                }
                value.problem("the path of a socket is a whole path, from / on", None);
                None
            })
        }
        _ => {
            value.unknown_name("way to a server", name, &["Tcp", "Unix"]);
            return None;
        }
    };
    inner.finish();
    server
}

fn export(value: Value<'_>) -> Option<String> {
    let name: String = value.read("the name of an export")?;
    if name.len() > LONGEST_NAME || name.contains(char::is_control) || name.trim() != name {
        let wrong = format!(
            "{name:?} cannot be used as the name of an export: it has {LONGEST_NAME} bytes at most, no control characters, and no \
             blanks at its begin or end"
        );
        value.problem(&wrong, None);
        return None;
    }
    Some(name)
}

fn size(value: Value<'_>) -> Option<u64> {
    let expected = "a size, such as \"10GiB\", or \"1000204886016\" in bytes";
    let text: String = value.read(expected)?;
    let size = text.parse().ok().filter(|bytes| *bytes > 0).or_else(|| bytes_of(&text));
    if size.is_none() {
        value.problem(&format!("{text:?} is no size: expected {expected}"), None);
    }
    size
}

fn timeout(value: Value<'_>) -> Option<Duration> {
    let Span(time) = value.read("a length of time, such as \"10s\"")?;
    if time.is_zero() || time > LONGEST_TIMEOUT || time.subsec_nanos() != 0 {
        value.problem("the kernel counts whole seconds here: expected \"1s\" to \"300s\"", None);
        return None;
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::read;
    use proptest::prelude::*;

    #[test]
    fn an_export_is_read_and_every_mistake_is_told() {
        let text = r#"Nbd(device: "/dev/nbd3", server: Tcp("10.0.0.9:10809"), export: "shop", access: ReadOnly, size: "64MiB", timeout: "5s")"#;
        let (found, said) = read(text, NbdSpec::read);
        assert_eq!(said, "");
        let expected = NbdSpec {
            device: "/dev/nbd3".parse().unwrap(),
            server: Server::Tcp("10.0.0.9:10809".parse().unwrap()),
            export: "shop".to_owned(),
            access: Access::ReadOnly,
            size: Some(64 << 20),
            timeout: Duration::from_secs(5),
        };
        assert_eq!(found.as_ref(), Some(&expected));
        assert_eq!(expected.target(), "shop of 10.0.0.9:10809, read-only");
        let (found, said) =
            read(r#"Nbd(device: "/dev/nbd0", server: Unix("/run/nbd.sock"), size: "513")"#, NbdSpec::read);
        assert_eq!(said, "");
        let found = found.unwrap();
        assert_eq!((found.size, found.access, found.timeout), (Some(513), Access::ReadWrite, TIMEOUT));
        assert_eq!(found.target(), "the default export of /run/nbd.sock");
        for (text, expected) in [
            ("Nbd()", "lacks the field `device`"),
            (r#"Nbd(device: "/dev/nbd0")"#, "lacks the field `server`"),
            (r#"Nbd(device: "nbd0", server: Tcp("10.0.0.9:10809"))"#, "no name of an nbd device"),
            (r#"Nbd(device: "/dev/nbd03", server: Tcp("10.0.0.9:10809"))"#, "no name of an nbd device"),
            (r#"Nbd(device: "/dev/nbd0p1", server: Tcp("10.0.0.9:10809"))"#, "no name of an nbd device"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("store:10809"))"#, "an IP address and a port"),
            (r#"Nbd(device: "/dev/nbd0", server: Unix("nbd.sock"))"#, "whole path"),
            (r#"Nbd(device: "/dev/nbd0", server: Udp("10.0.0.9:10809"))"#, "`Udp`"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("10.0.0.9:1"), export: " x")"#, "cannot be used as the name"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("10.0.0.9:1"), size: "0")"#, "is no size"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("10.0.0.9:1"), size: "5%")"#, "is no size"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("10.0.0.9:1"), timeout: "500ms")"#, "whole seconds"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("10.0.0.9:1"), timeout: "0s")"#, "whole seconds"),
            (r#"Nbd(device: "/dev/nbd0", server: Tcp("10.0.0.9:1"), acess: ReadOnly)"#, "did you mean `access`?"),
        ] {
            let (_, said) = read(text, NbdSpec::read);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_a_device_without_panic(text in ".{0,20}", index in 0_u32..100_000) {
            let _ = text.parse::<Device>();
            let device: Device = format!("/dev/nbd{index}").parse().unwrap();
            prop_assert_eq!(device.to_string(), format!("/dev/nbd{index}"));
        }
    }
}
