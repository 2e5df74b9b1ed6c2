//! Fence devices: whether their agents are here, and whether what is given to them fits what they say of themselves. Reaches for no device.

use ha_core::name::NodeName;
use ha_resources::fence::agents::{DeviceSpec, FenceDevice};
use ha_resources::resource::Directories;

use super::Found;
use crate::config::Config;
use crate::view::Severity;

pub(super) async fn fencing(config: &Config, directories: &Directories, found: &mut Found) {
    if config.fencing.is_empty() {
        return;
    }
    for node in config.nodes.iter().map(|node| &node.name) {
        match config.fencing.get(node) {
            Some(levels) => {
                for (place, device) in
                    levels.iter().enumerate().flat_map(|(i, level)| level.iter().map(move |d| (i, d)))
                {
                    look_at(node, place + 1, device, directories, found).await;
                }
            }
            None => {
                let what = "no fencing is configured for it, and it is for others: `ha fence` cannot switch it off";
                found.add(Severity::Note, node, what, None);
            }
        }
    }
}

async fn look_at(node: &NodeName, level: usize, spec: &DeviceSpec, directories: &Directories, found: &mut Found) {
    let device = FenceDevice::new(spec.clone(), directories.cgroups.clone());
    let findings = device.check().await;
    let about = format!("fencing of {node}");
    let said = |what: String| format!("level {level}, {}: {what}", device.label());
    for mistake in findings.mistakes {
        found.add(Severity::Error, &about, said(mistake), None);
    }
    for warning in findings.warnings {
        found.add(Severity::Warning, &about, said(warning), None);
    }
}
