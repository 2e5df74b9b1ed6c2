//! Probes as they stand in a hierarchy file.
//!
//! Decides how each is written, and that every mistake is told at its place. Leaves what they measure to their modules.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ha_core::hierarchy::Fields;
use ha_core::time::Span;

use super::{DiskSpec, ExecProbeSpec, HttpSpec, LoadSpec, PingSpec, TcpSpec, Url, http};

/// What `every` and `timeout` may be: below, the probe would cost more than it tells.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// How many attempts make sense.
const ATTEMPTS: RangeInclusive<u16> = 1..=100;

impl PingSpec {
    /// Reads the fields of `Ping(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Ping("10.0.0.254")
    /// Ping(address: "10.0.0.254", every: "1s", timeout: "500ms", attempts: 3)
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<PingSpec> {
        let address: Option<IpAddr> = fields.only_or("address", "an IP address, such as \"10.0.0.254\"");
        let default = PingSpec::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let every = time(fields, "every", default.every);
        let timeout = time(fields, "timeout", default.timeout);
        let attempts = fields.or("attempts", "a whole number from 1 to 100", default.attempts);
        if !ATTEMPTS.contains(&attempts) {
            fields.problem("attempts", &format!("{attempts} attempts: expected 1 to 100"), None);
        }
        let address = address?;
        if let Some(why) = cannot_be_pinged(address) {
            fields.problem("address", &format!("{address} cannot be pinged: {why}"), None);
            return None;
        }
        ATTEMPTS.contains(&attempts).then_some(PingSpec { address, every: every?, timeout: timeout?, attempts })
    }
}

fn cannot_be_pinged(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("link-local addresses mean nothing without an interface; expected a global or unique local one")
        }
        _ if address.is_unspecified() || address.is_multicast() => Some("expected the address of one machine"),
        _ => None,
    }
}

impl TcpSpec {
    /// Reads the fields of `Tcp(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Tcp("10.0.0.5:80")
    /// Tcp(address: "10.0.0.5:80", every: "1s", timeout: "2s")
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<TcpSpec> {
        let address: Option<SocketAddr> =
            fields.only_or("address", "an IP address and a port, such as \"10.0.0.5:80\" or \"[fd00::5]:80\"");
        let default = TcpSpec::new((std::net::Ipv4Addr::UNSPECIFIED, 0).into());
        let every = time(fields, "every", default.every);
        let timeout = time(fields, "timeout", default.timeout);
        Some(TcpSpec { address: address?, every: every?, timeout: timeout? })
    }
}

impl HttpSpec {
    /// Reads the fields of `Http(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Http("http://10.0.0.5:8080/health")
    /// Http(url: "http://10.0.0.5/", host: "shop.example", status: 200, contains: "welcome", every: "1s", timeout: "2s")
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<HttpSpec> {
        let url: Option<Url> =
            fields.only_or("url", "a URL with an IP address, such as \"http://10.0.0.5:8080/health\"");
        let host = fields.optional("host", "the name of a site, such as \"shop.example\"");
        let status = fields.optional("status", "a status of HTTP, such as 200");
        let contains = fields.optional("contains", "a text that the page has");
        let every = time(fields, "every", Duration::from_secs(1));
        let timeout = time(fields, "timeout", Duration::from_secs(2));
        if let Some(status) = status.filter(|status| !http::is_status(*status)) {
            fields.problem("status", &format!("{status} is no final status of HTTP: expected 200 to 999"), None);
            return None;
        }
        let spec = HttpSpec { host, status, contains, every: every?, timeout: timeout?, ..HttpSpec::new(url?) };
        if let Some(host) = spec.host.as_ref().filter(|host| !http::is_host(host)) {
            fields.problem("host", &format!("{host:?} cannot stand in a `Host` field"), None);
            return None;
        }
        Some(spec)
    }
}

impl LoadSpec {
    /// Reads the fields of `Load(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Load
    /// Load(idle: 0.5, busy: 4.0, every: "5s")
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<LoadSpec> {
        let default = LoadSpec::default();
        let expected = "a load of each processor, such as 0.5";
        let idle = fields.or("idle", expected, default.idle);
        let busy = fields.or("busy", expected, default.busy);
        let every = time(fields, "every", default.every)?;
        if !(idle >= 0.0 && busy > idle && busy <= 1_000.0) {
            let message = format!("idle {idle} and busy {busy}: expected 0 ≤ idle < busy ≤ 1000");
            fields.problem("busy", &message, None);
            return None;
        }
        Some(LoadSpec { idle, busy, every })
    }
}

impl DiskSpec {
    /// Reads the fields of `Disk(…)`. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Disk("/var/log")
    /// Disk(at: "/var/log", free: "2GiB", every: "5s", timeout: "5s")
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<DiskSpec> {
        let at: Option<std::path::PathBuf> = fields.only_or("at", "a place on a filesystem, such as \"/var/log\"");
        let default = DiskSpec::new("/");
        let free = fields.or("free", "a share or an amount of room, such as \"5%\" or \"2GiB\"", default.free);
        let every = time(fields, "every", default.every);
        let timeout = time(fields, "timeout", default.timeout);
        let at = at?;
        if !at.is_absolute() {
            fields.problem(
                "at",
                &format!("{} is no whole path: expected one such as \"/var/log\"", at.display()),
                None,
            );
            return None;
        }
        Some(DiskSpec { at, free, every: every?, timeout: timeout? })
    }
}

impl ExecProbeSpec {
    /// Reads the fields of `Exec(…)` among the probes. `None` if something is wrong, which was reported.
    ///
    /// ```ron
    /// Exec(["/usr/local/bin/probe"])
    /// Exec(command: ["/usr/local/bin/probe", "--quick"], every: "5s", timeout: "5s")
    /// ```
    pub fn read(fields: &mut Fields<'_>) -> Option<ExecProbeSpec> {
        let expected = "a list of a program and its arguments, such as [\"/usr/local/bin/probe\", \"--quick\"]";
        let command: Option<Vec<String>> = fields.only_or("command", expected);
        let default = ExecProbeSpec::new::<String>([]);
        let every = time(fields, "every", default.every);
        let timeout = time(fields, "timeout", default.timeout);
        let command = command?;
        if command.first().is_none_or(String::is_empty) {
            fields.problem("command", &format!("the command is empty: expected {expected}"), None);
            return None;
        }
        Some(ExecProbeSpec { command, every: every?, timeout: timeout? })
    }
}

fn time(fields: &mut Fields<'_>, key: &'static str, default: Duration) -> Option<Duration> {
    let time = fields.or(key, "a length of time, such as \"1s\"", Span(default)).0;
    if !TIMES.contains(&time) {
        fields.problem(key, &format!("{} is out of range: expected 10ms to 1h", Span(time)), None);
        return None;
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_core::hierarchy::{Source, read_value};

    fn read<T>(text: &str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> (Option<T>, String) {
        let source = Source::new("web.ron", text);
        let (found, diagnostics) = read_value(&source, |value| {
            let (_, mut fields) = value.variant("a probe")?;
            let found = read(&mut fields);
            fields.finish();
            found
        });
        (found, diagnostics.to_string())
    }

    #[test]
    fn each_probe_has_a_short_and_a_long_form() {
        let gateway = PingSpec::new("10.0.0.254".parse().unwrap());
        let clean = String::new();
        assert_eq!(read(r#"Ping("10.0.0.254")"#, PingSpec::read), (Some(gateway.clone()), clean.clone()));
        let text = r#"Ping(address: "10.0.0.254", every: "2s", timeout: "1s", attempts: 5)"#;
        let long = PingSpec { every: Duration::from_secs(2), timeout: Duration::from_secs(1), attempts: 5, ..gateway };
        assert_eq!(read(text, PingSpec::read), (Some(long), clean.clone()));

        let web = TcpSpec::new("[fd00::5]:80".parse().unwrap());
        assert_eq!(read(r#"Tcp("[fd00::5]:80")"#, TcpSpec::read), (Some(web.clone()), clean.clone()));
        let text = r#"Tcp(address: "[fd00::5]:80", timeout: "30s")"#;
        let long = TcpSpec { timeout: Duration::from_secs(30), ..web };
        assert_eq!(read(text, TcpSpec::read), (Some(long), clean.clone()));

        let program = ExecProbeSpec::new(["/bin/probe", "-q"]);
        assert_eq!(read(r#"Exec(["/bin/probe", "-q"])"#, ExecProbeSpec::read), (Some(program.clone()), clean.clone()));
        let text = r#"Exec(command: ["/bin/probe", "-q"], every: "1min")"#;
        let long = ExecProbeSpec { every: Duration::from_secs(60), ..program };
        assert_eq!(read(text, ExecProbeSpec::read), (Some(long), clean));
    }

    #[test]
    fn pages_loads_and_disks_are_read() {
        let clean = String::new();
        let page = HttpSpec::new("http://[fd00::5]:8080/health".to_owned().try_into().unwrap());
        assert_eq!(
            read(r#"Http("http://[fd00::5]:8080/health")"#, HttpSpec::read),
            (Some(page.clone()), clean.clone())
        );
        let text = r#"Http(url: "http://[fd00::5]:8080/health", host: "shop.example", status: 204, timeout: "9s")"#;
        let long =
            HttpSpec { host: Some("shop.example".into()), status: Some(204), timeout: Duration::from_secs(9), ..page };
        assert_eq!(read(text, HttpSpec::read), (Some(long), clean.clone()));
        assert_eq!(read("Load", LoadSpec::read), (Some(LoadSpec::default()), clean.clone()));
        let busy = LoadSpec { busy: 8.0, ..LoadSpec::default() };
        assert_eq!(read("Load(busy: 8)", LoadSpec::read), (Some(busy), clean.clone()));
        let logs = DiskSpec { free: "2GiB".to_owned().try_into().unwrap(), ..DiskSpec::new("/var/log") };
        assert_eq!(read(r#"Disk(at: "/var/log", free: "2GiB")"#, DiskSpec::read), (Some(logs), clean));

        for (wrong, expected) in [
            (r#"Http("https://10.0.0.5/")"#, "is encrypted"),
            (r#"Http("http://shop.example/")"#, "by no address"),
            (r#"Http("10.0.0.5")"#, "http://"),
            (r#"Http(url: "http://10.0.0.5/", status: 100)"#, "100 is no final status"),
            (r#"Http(url: "http://10.0.0.5/", host: "a\nb")"#, "cannot stand"),
        ] {
            let (found, said) = read(wrong, HttpSpec::read);
            assert!(found.is_none() && said.contains(expected), "{wrong}: {said}");
        }
        let (found, said) = read("Load(idle: 4, busy: 2)", LoadSpec::read);
        assert!(found.is_none() && said.contains("idle 4 and busy 2"), "{said}");
        let (found, said) = read(r#"Disk(at: "var", free: "5GB")"#, DiskSpec::read);
        assert!(found.is_none() && said.contains("no whole path") && said.contains("no amount of room"), "{said}");
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let (found, said) =
            read(r#"Ping(address: "fe80::1", every: "1ms", timeout: "2h", attempts: 0, atempts: 2)"#, PingSpec::read);
        assert_eq!(found, None);
        for part in ["fe80::1", "1ms is out of range", "2h is out of range", "0 attempts", "did you mean `attempts`"] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        for wrong in [r#"Ping("gateway")"#, r#"Ping("0.0.0.0")"#, r#"Ping("224.0.0.1")"#, "Ping()", "Ping"] {
            let (found, said) = read(wrong, PingSpec::read);
            assert!(found.is_none() && !said.is_empty(), "{wrong}");
        }
        let (found, said) = read(r#"Tcp("10.0.0.5")"#, TcpSpec::read);
        assert!(found.is_none() && said.contains("10.0.0.5:80"), "{said}");
        let (found, said) = read("Exec([])", ExecProbeSpec::read);
        assert!(found.is_none() && said.contains("the command is empty"), "{said}");
    }
}
