//! `agent.ron`: its fields, their defaults and their limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ha_core::claim::lock_area::LeaseTiming;
use ha_core::contact::{ChannelTiming, Timing};
use ha_core::hierarchy::{Diagnostics, Fields, Source, Value, read_value};
use ha_core::name::{LockAreaName, NodeName};
use ha_core::time::Span;
use ha_resources::fence::agents::{DeviceSpec, levels};

use super::{
    AreaSettings, Config, FencingBy, FencingSettings, FlightSettings, LogFormat, LogSettings, NodeSettings,
    OnKernelFault, WardenAct, WatchdogSettings,
};
use crate::api::SocketOptions;

/// Where nothing else is configured.
const RUN_DIR: &str = "/run/ha";
const STATE_DIR: &str = "/var/lib/ha";
const LOG_DIR: &str = "/var/log/ha";
/// The shortest that common hardware watchdogs keep reliably.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(2);
/// All files of the flight recorder together.
const FLIGHT_MEBIBYTES: u64 = 64;
/// Management boards are slow, and some keep a log of every login.
const FENCING_CHECK_EVERY: Duration = Duration::from_secs(600);
const WARDEN_MARGIN: Duration = Duration::from_millis(500);

const A_TIME: &str = "a length of time such as \"500ms\"";
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Reads the file. `None` only together with an error among the diagnostics.
pub(super) fn read(source: &Source) -> (Option<Config>, Diagnostics) {
    read_value(source, |value| {
        let mut fields = value.fields("agent.ron")?;
        // All of them, before any that is wrong ends it.
        let cluster = fields.required("cluster", "the name of the cluster");
        let nodes =
            fields.required_value("nodes", "the nodes, such as `{ \"alpha\": (addresses: [\"10.1.0.1:7946\"]) }`");
        let nodes = nodes.and_then(read_nodes);
        let fencing_by = fields.value("fencing_by").map_or(Some(FencingBy::Operator), read_fencing_by);
        let check_every = time(&mut fields, "fencing_check_every", FENCING_CHECK_EVERY);
        if check_every.is_zero() {
            fields.problem("fencing_check_every", &format!("fencing_check_every is 0: expected {A_TIME}"), None);
        }
        let timing = read_timing(&mut fields);
        let keys: Option<PathBuf> = fields.optional("keys", "the path of a key file");
        if keys.is_none() && nodes.as_ref().is_some_and(|(n, _)| n.len() > 1) {
            let help = "make one with `ha keys generate /etc/ha/keys`, and copy it to every node".to_owned();
            fields.problem(
                "keys",
                "agent.ron lacks the field `keys`: nodes seal what they say to each other",
                Some(help),
            );
        }
        let lock_areas = fields.value("lock_areas").map_or(Some(Vec::new()), read_areas);
        let watchdog = fields.value("watchdog").map_or(Some(WatchdogSettings::None), read_watchdog);
        let on_kernel_fault = fields.value("on_kernel_fault").map_or(Some(OnKernelFault::Report), read_on_kernel_fault);
        if on_kernel_fault == Some(OnKernelFault::Reset) && watchdog == Some(WatchdogSettings::None) {
            let help = "set `watchdog`, or `on_kernel_fault: Drain`".to_owned();
            fields.problem("on_kernel_fault", "there is no watchdog that could reset this machine", Some(help));
        }
        let run_dir: PathBuf = absolute(&mut fields, "run_dir", RUN_DIR);
        let state_dir = absolute(&mut fields, "state_dir", STATE_DIR);
        let log_dir = absolute(&mut fields, "log_dir", LOG_DIR);
        let socket = read_socket(&mut fields, &run_dir);
        let log = read_log(&mut fields);
        let max_recoveries: Option<usize> = fields.optional("max_recoveries", "a whole number, at least 1");
        if max_recoveries == Some(0) {
            fields.problem("max_recoveries", "max_recoveries is 0: expected at least 1", None);
        }
        let ring = FlightSettings::Ring { mebibytes: FLIGHT_MEBIBYTES };
        let flight_recorder = fields.value("flight_recorder").map_or(Some(ring), read_flight_recorder);
        fields.finish();
        let (nodes, fencing) = nodes?;
        if fencing_by == Some(FencingBy::Nodes) && fencing.is_empty() {
            let help = "give the nodes `fencing`, or leave `fencing_by` out".to_owned();
            value.problem("`fencing_by: Nodes`, and no node has `fencing`: nobody could be fenced", Some(help));
        }
        Some(Config {
            cluster: cluster?,
            nodes,
            fencing,
            fencing_by: fencing_by?,
            fencing_check_every: check_every,
            timing: timing?,
            keys,
            lock_areas: lock_areas?,
            watchdog: watchdog?,
            on_kernel_fault: on_kernel_fault?,
            run_dir,
            state_dir,
            log_dir,
            socket: socket?,
            log: log?,
            max_recoveries,
            flight_recorder: flight_recorder?,
        })
    })
}

fn read_fencing_by(value: Value<'_>) -> Option<FencingBy> {
    let (word, fields) = value.variant("`Operator` or `Nodes`")?;
    let by = match word {
        "Operator" => FencingBy::Operator,
        "Nodes" => FencingBy::Nodes,
        other => {
            value.unknown_name("one to have nodes fenced", other, &["Operator", "Nodes"]);
            return None;
        }
    };
    fields.finish();
    Some(by)
}

fn read_nodes(value: Value<'_>) -> Option<(Vec<NodeSettings>, FencingSettings)> {
    let entries = value.entries("nodes and their addresses")?;
    if entries.is_empty() {
        value.problem("there are no nodes: expected at least this one", None);
        return None;
    }
    let mut nodes = Vec::new();
    let mut fencing = FencingSettings::new();
    let mut taken: Vec<(SocketAddr, String)> = Vec::new();
    for (key, settings) in &entries {
        let name: Option<NodeName> = key.read("the name of a node");
        let read = read_node(*settings, key.text(), &mut taken);
        if let (Some(name), Some((addresses, levels))) = (name, read) {
            if !levels.is_empty() {
                fencing.insert(name.clone(), levels);
            }
            nodes.push(NodeSettings { name, addresses });
        }
    }
    if let Some(first) = nodes.first()
        && let Some(other) = nodes.iter().find(|n| n.addresses.len() != first.addresses.len())
    {
        value.warning(
            &format!(
                "{} has {} addresses and {} has {}: only networks that both have connect them",
                first.name,
                first.addresses.len(),
                other.name,
                other.addresses.len()
            ),
            Some("list one address for each network, the networks in the same order on all nodes".to_owned()),
        );
    }
    (nodes.len() == entries.len()).then_some((nodes, fencing))
}

/// The addresses of a node, and the levels of its fencing.
fn read_node(
    value: Value<'_>,
    node: &str,
    taken: &mut Vec<(SocketAddr, String)>,
) -> Option<(Vec<SocketAddr>, Vec<Vec<DeviceSpec>>)> {
    let mut fields = value.fields("node")?;
    let values = fields.required_value("addresses", "a list such as `[\"10.1.0.1:7946\"]`");
    let mut addresses = Vec::new();
    let mut whole = values.is_some();
    for value in values.and_then(|v| v.list("addresses such as `\"10.1.0.1:7946\"`")).unwrap_or_default() {
        let Some(address) = value.read::<SocketAddr>("an address and a port, such as \"10.1.0.1:7946\"") else {
            whole = false;
            continue;
        };
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            value.problem(
                &format!("{address} cannot be sent to: expected the address of one machine, and a port"),
                None,
            );
            whole = false;
        } else if let Some((_, other)) = taken.iter().find(|(a, _)| *a == address) {
            value.problem(&format!("{address} is the address of {other} already"), None);
            whole = false;
        }
        taken.push((address, node.to_owned()));
        addresses.push(address);
    }
    let fencing = fields.value("fencing").map_or(Some(Vec::new()), levels);
    fields.finish();
    whole.then_some((addresses, fencing?))
}

fn time(fields: &mut Fields<'_>, key: &'static str, default: Duration) -> Duration {
    fields.or(key, A_TIME, Span(default)).0
}

fn read_timing(fields: &mut Fields<'_>) -> Option<Timing> {
    let Some(value) = fields.value("heartbeat") else { return Some(Timing::default()) };
    let mut inner = value.fields("heartbeat")?;
    let default = Timing::default();
    let interval = time(&mut inner, "interval", default.interval);
    let dead_after = time(&mut inner, "dead_after", default.dead_after);
    // Between the two by default, whatever they are.
    let late_after = default.late_after.max(interval).min(dead_after * 2 / 3).max(interval);
    let timing = Timing {
        interval,
        late_after: time(&mut inner, "late_after", late_after),
        dead_after,
        startup_grace: time(&mut inner, "startup_grace", default.startup_grace.max(dead_after)),
    };
    inner.finish();
    match timing.check() {
        Ok(()) => Some(timing),
        Err(wrong) => {
            value.problem(&wrong.to_string(), None);
            None
        }
    }
}

fn read_areas(value: Value<'_>) -> Option<Vec<AreaSettings>> {
    let entries = value.entries("lock areas, such as `{ \"main\": (path: \"/dev/disk/by-id/…\") }`")?;
    let read: Vec<AreaSettings> = entries.iter().filter_map(|(key, settings)| read_area(*key, *settings)).collect();
    (read.len() == entries.len()).then_some(read)
}

fn read_area(key: Value<'_>, value: Value<'_>) -> Option<AreaSettings> {
    let name: Option<LockAreaName> = key.read("the name of a lock area");
    let mut fields = value.fields("lock area")?;
    let path = fields.required("path", "the path of a block device, or of a file on a shared filesystem");
    let times: Vec<Option<Span>> =
        ["renew", "deadline", "watchdog", "margin"].map(|key| fields.optional(key, A_TIME)).to_vec();
    let timing = read_lease_timing(&fields, &times);
    let io_deadline = fields.optional::<Span>("io_deadline", A_TIME).map(|s| s.0);
    let channel = fields.value("channel").map_or(Some(None), |v| read_channel(v).map(Some));
    fields.finish();
    Some(AreaSettings { name: name?, path: path?, timing: timing.ok()?, io_deadline, channel: channel? })
}

/// Something wrong that was reported.
struct Reported;

/// `None` when no time is written.
fn read_lease_timing(fields: &Fields<'_>, times: &[Option<Span>]) -> Result<Option<LeaseTiming>, Reported> {
    if times.iter().all(Option::is_none) {
        return Ok(None);
    }
    let default = LeaseTiming::default();
    let defaults = [default.renew(), default.deadline(), default.watchdog(), default.margin()];
    let mut all = defaults.iter().zip(times).map(|(default, given)| given.map_or(*default, |s| s.0));
    let mut next = || all.next().unwrap_or_default();
    match LeaseTiming::new(next(), next(), next(), next()) {
        Ok(timing) => Ok(Some(timing)),
        Err(wrong) => {
            let message = wrong.to_string();
            let key = message.split(' ').next().unwrap_or_default().to_owned();
            fields.problem(&key, &message, Some(format!("times that are left out: {default}")));
            Err(Reported)
        }
    }
}

fn read_channel(value: Value<'_>) -> Option<ChannelTiming> {
    let mut fields = value.fields("channel")?;
    let late_after = fields.required::<Span>("late_after", A_TIME);
    let dead_after = fields.required::<Span>("dead_after", A_TIME);
    fields.finish();
    Some(ChannelTiming { late_after: late_after?.0, dead_after: dead_after?.0 })
}

fn read_watchdog(value: Value<'_>) -> Option<WatchdogSettings> {
    let known = ["Device", "Warden", "None"];
    let (kind, mut fields) = value.variant("`Device(\"/dev/watchdog\")`, `Warden` or `None`")?;
    let read = match kind {
        "Device" => {
            let path = fields.only_or("path", "the path of a watchdog device");
            let timeout = time(&mut fields, "timeout", DEVICE_TIMEOUT);
            if timeout.subsec_nanos() != 0 || timeout.is_zero() {
                let message = format!("timeout is {}: watchdog devices count whole seconds, at least 1", Span(timeout));
                fields.problem("timeout", &message, None);
                return None;
            }
            path.map(|path| WatchdogSettings::Device { path, timeout })
        }
        "Warden" => {
            let on_expiry = fields.value("on_expiry").map_or(Some(WardenAct::Kill), read_act);
            let margin = time(&mut fields, "margin", WARDEN_MARGIN);
            on_expiry.map(|on_expiry| WatchdogSettings::Warden { on_expiry, margin })
        }
        "None" => Some(WatchdogSettings::None),
        other => {
            value.unknown_name("kind of watchdog", other, &known);
            return None;
        }
    };
    fields.finish();
    read
}

fn read_flight_recorder(value: Value<'_>) -> Option<FlightSettings> {
    let (kind, mut fields) = value.variant("`Ring(mebibytes: 64)` or `Off`")?;
    let read = match kind {
        "Ring" => {
            let mebibytes = fields.or("mebibytes", "a whole number, 4 to 65536", FLIGHT_MEBIBYTES);
            if !(4..=65536).contains(&mebibytes) {
                let message = format!("mebibytes is {mebibytes}: expected 4 to 65536");
                fields.problem("mebibytes", &message, Some("`flight_recorder: Off` records nothing".to_owned()));
                return None;
            }
            FlightSettings::Ring { mebibytes }
        }
        "Off" => FlightSettings::Off,
        other => {
            value.unknown_name("flight recorder", other, &["Ring", "Off"]);
            return None;
        }
    };
    fields.finish();
    Some(read)
}

fn read_on_kernel_fault(value: Value<'_>) -> Option<OnKernelFault> {
    match value.text() {
        "Report" => Some(OnKernelFault::Report),
        "Drain" => Some(OnKernelFault::Drain),
        "Reset" => Some(OnKernelFault::Reset),
        other => {
            value.unknown_name("consequence", other, &["Report", "Drain", "Reset"]);
            None
        }
    }
}

fn read_act(value: Value<'_>) -> Option<WardenAct> {
    match value.text() {
        "Kill" => Some(WardenAct::Kill),
        "KillElseReset" => Some(WardenAct::KillElseReset),
        "Reset" => Some(WardenAct::Reset),
        other => {
            value.unknown_name("way to end a lease", other, &["Kill", "KillElseReset", "Reset"]);
            None
        }
    }
}

fn absolute(fields: &mut Fields<'_>, key: &'static str, default: &str) -> PathBuf {
    let path: PathBuf = fields.or(key, "the absolute path of a directory", default.into());
    if !path.is_absolute() {
        fields.problem(key, &format!("{} is not absolute: expected a path such as {default:?}", path.display()), None);
    }
    path
}

fn read_socket(fields: &mut Fields<'_>, run_dir: &std::path::Path) -> Option<SocketOptions> {
    let default = SocketOptions { path: run_dir.join("ha.sock"), mode: 0o660, group: None, operators: None };
    let Some(value) = fields.value("socket") else { return Some(default) };
    let mut inner = value.fields("socket")?;
    let path = inner.or("path", "the path of the socket", default.path);
    let group = inner.optional("group", "the name of a group");
    let operators = inner.optional("operators", "the name of a group");
    let mode: String = inner.or("mode", "permissions such as \"0660\"", "0660".to_owned());
    let bits = u32::from_str_radix(&mode, 8).ok().filter(|bits| *bits <= 0o777);
    if bits.is_none() {
        inner.problem("mode", &format!("mode is {mode:?}: expected octal permissions such as \"0660\""), None);
    }
    inner.finish();
    Some(SocketOptions { path, mode: bits?, group, operators })
}

fn read_log(fields: &mut Fields<'_>) -> Option<LogSettings> {
    let default = LogSettings { level: "info".to_owned(), format: LogFormat::Text };
    let Some(value) = fields.value("log") else { return Some(default) };
    let mut inner = value.fields("log")?;
    let level = inner.or("level", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"", default.level);
    if !LEVELS.contains(&level.as_str()) {
        inner.problem("level", &format!("there is no level {level:?}: expected one of {}", LEVELS.join(", ")), None);
        return None;
    }
    let format = match inner.value("format") {
        None => default.format,
        Some(value) => match value.text() {
            "Text" => LogFormat::Text,
            "Json" => LogFormat::Json,
            other => {
                value.unknown_name("format", other, &["Text", "Json"]);
                return None;
            }
        },
    };
    inner.finish();
    Some(LogSettings { level, format })
}
