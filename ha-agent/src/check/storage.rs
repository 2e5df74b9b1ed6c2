//! The lock areas: whether they can be read, were made for this node, and go with the configured watchdog.

use ha_core::claim::lock_area::LeaseTiming;
use ha_core::claim::lock_area::admin;
use ha_core::name::{LockAreaName, NodeName};
use ha_core::time::Span;
use ha_resources::claim::{Caching, DirectDevice};

use super::Found;
use crate::config::{AreaSettings, Config};
use crate::view::Severity;

/// An area that could be read.
pub(crate) struct SeenArea {
    /// Its name.
    pub(crate) name: LockAreaName,
    /// The times in its header.
    pub(crate) timing: LeaseTiming,
}

/// Looks at every area of agent.ron.
pub(super) async fn look_at_areas(config: &Config, me: &NodeName, found: &mut Found) -> Vec<SeenArea> {
    let mut seen = Vec::new();
    for area in &config.lock_areas {
        if let Some(timing) = look(config, area, me, found).await {
            seen.push(SeenArea { name: area.name.clone(), timing });
        }
    }
    seen
}

async fn look(config: &Config, area: &AreaSettings, me: &NodeName, found: &mut Found) -> Option<LeaseTiming> {
    let about = format!("lock area {}", area.name);
    let device = match DirectDevice::open(&area.path, area.io_deadline()) {
        Ok(device) => device,
        Err(e) => {
            found.add(Severity::Error, &about, e.to_string(), None);
            return None;
        }
    };
    if let Caching::PageCache { reason } = device.caching() {
        let what =
            format!("{} has no direct I/O ({reason}): other machines' writes may not be seen", area.path.display());
        found.add(Severity::Error, &about, what, "use a block device, or a filesystem with O_DIRECT".to_owned());
    }
    let header = match admin::show(&device).await {
        Ok(report) => report.header,
        Err(e) => {
            let help = format!("make it with `ha lock-area init {}`, on one node only", area.name);
            found.add(Severity::Error, &about, format!("{}: {e}", area.path.display()), help);
            return None;
        }
    };
    // One that agent.ron does not name is told of already.
    if !header.nodes.contains(me) && config.nodes.iter().any(|node| node.name == *me) {
        let nodes: Vec<&str> = header.nodes.iter().map(NodeName::as_str).collect();
        let what = format!("it has no slot for {me}: it was made for {}", nodes.join(", "));
        let help = format!(
            "make it anew for all nodes, with every agent stopped: `ha lock-area init {} --overwrite`",
            area.name
        );
        found.add(Severity::Error, &about, what, help);
    }
    if let Some(written) = area.timing.filter(|written| *written != header.timing) {
        let what = format!("it runs on: {}; agent.ron says: {written}", header.timing);
        found.add(
            Severity::Error,
            &about,
            what,
            "write the times of the area into agent.ron, or leave them out".to_owned(),
        );
    }
    if let Some(margin) = config.watchdog.margin()
        && margin > header.timing.watchdog()
    {
        let what = format!(
            "the watchdog may take {} to end this node, and the others wait {} only: two nodes could write at once",
            Span(margin),
            Span(header.timing.watchdog())
        );
        let help = "make the watchdog faster, or the area with a greater `watchdog`".to_owned();
        found.add(Severity::Error, &about, what, help);
    }
    Some(header.timing)
}
