//! Fence devices as they stand in a configuration file.
//!
//! Decides how they are written, and that every mistake is told at its place. Leaves to `ha check` what only an agent's meta-data tell: files are read
//! where no agent is installed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ha_core::hierarchy::Value;
use ha_core::time::Span;

use super::{DeviceSpec, TIMEOUT, secrets};
use crate::resource::ocf::read::params;

const AGENT: &str = "the name of a fence agent, such as \"fence_ipmilan\", or its whole path";
const LEVELS: &str = "a list of levels, each a list of devices, such as `[[(agent: \"fence_ipmilan\", params: {…})]]`";

/// Reads the levels of fencing of one node: tried in order, and of each level all devices. `None` if something is wrong, which was reported.
///
/// ```ron
/// [
///     [(
///         agent: "fence_ipmilan",
///         params: {"ip": "10.9.0.1", "username": "ha", "lanplus": true},
///         secrets: {"password": "/etc/ha/secrets/alpha"},
///         timeout: "60s",
///     )],
///     [(agent: "fence_apc", params: {…}), (agent: "fence_apc", params: {…})],
/// ]
/// ```
pub fn levels(value: Value<'_>) -> Option<Vec<Vec<DeviceSpec>>> {
    let levels = value.list(LEVELS)?;
    let read: Vec<Option<Vec<DeviceSpec>>> = levels.into_iter().map(level).collect();
    read.into_iter().collect()
}

fn level(value: Value<'_>) -> Option<Vec<DeviceSpec>> {
    let devices = value.list("a list of devices, such as `[(agent: \"fence_ipmilan\", params: {…})]`")?;
    if devices.is_empty() {
        value.problem("a level without devices proves nothing: expected at least one", None);
        return None;
    }
    let read: Vec<Option<DeviceSpec>> = devices.into_iter().map(device).collect();
    read.into_iter().collect()
}

fn device(value: Value<'_>) -> Option<DeviceSpec> {
    let mut fields = value.fields("device")?;
    let agent = fields.required_value("agent", AGENT).and_then(agent);
    let params = fields.value("params").map_or(Some(BTreeMap::new()), plain_params);
    let secrets = fields.value("secrets").map_or(Some(BTreeMap::new()), secret_files);
    let Span(timeout) = fields.or("timeout", "a length of time such as \"60s\"", Span(TIMEOUT));
    if timeout.is_zero() {
        fields.problem("timeout", "timeout is 0: expected a length of time such as \"60s\"", None);
    }
    fields.finish();
    let (params, secrets) = (params?, secrets?);
    if let Some(twice) = secrets.keys().find(|name| params.contains_key(*name)) {
        value.problem(&format!("`{twice}` stands in `params` and in `secrets`: expected it once"), None);
        return None;
    }
    (!timeout.is_zero()).then_some(())?;
    Some(DeviceSpec { agent: agent?, params, secrets, timeout })
}

fn agent(value: Value<'_>) -> Option<String> {
    let name: String = value.read(AGENT)?;
    let is_path = name.starts_with('/');
    let is_name = name.starts_with("fence_") && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_path || is_name {
        return Some(name);
    }
    value.problem(&format!("{name:?} names no fence agent: expected {AGENT}"), None);
    None
}

/// Parameters that anybody may see, and that the agent's API does not take for something else.
fn plain_params(value: Value<'_>) -> Option<BTreeMap<String, String>> {
    let read = params(value)?;
    let mut whole = true;
    for (name, text) in &read {
        if secrets::is_secret(name) {
            let help =
                format!("write it into a file of mode 600, and that into `secrets: {{{name:?}: \"/etc/ha/…\"}}`");
            value.problem(&format!("`{name}` is a password: it must not stand in this file"), Some(help));
            whole = false;
        }
        if matches!(name.as_str(), "action" | "option") {
            value.problem(&format!("`{name}` cannot be set: it is what an agent is told to do"), None);
            whole = false;
        }
        if text.contains(['\n', '\r']) {
            value.problem(&format!("`{name}` has several lines: an agent reads one line for each parameter"), None);
            whole = false;
        }
    }
    whole.then_some(read)
}

fn secret_files(value: Value<'_>) -> Option<BTreeMap<String, PathBuf>> {
    let mut whole = true;
    let mut files = BTreeMap::new();
    for (name, file) in params(value)? {
        if !file.starts_with('/') {
            value.problem(
                &format!("`{name}`: expected the whole path of a file that holds the secret, from / on"),
                None,
            );
            whole = false;
        }
        files.insert(name, PathBuf::from(file));
    }
    whole.then_some(files)
}
