//! What follows from what the kernel says of itself: `on_kernel_fault`.
//!
//! Decides which faults concern this node: all but those of disks that no claim lives on. A kernel that oopsed may answer heartbeats while what
//! it should serve is dead, so the node can be made to give everything away, or to be reset. Leaves it to [`ha_resources::kernel_log`] what
//! is a fault.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ha_core::engine::{Ask, Command};
use ha_resources::kernel_log::{KernelFault, KernelLog};
use ha_resources::kinds::ClaimDefinition;
use tokio::time::Instant;

use super::agent::Running;
use crate::config::OnKernelFault;

/// So long a fault is shown after the kernel spoke of it last.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// Listens as long as the agent lives.
pub(super) async fn listen(running: Arc<Running>) {
    let node = &running.node;
    let mut log = match KernelLog::open() {
        Ok(log) => log,
        Err(e) => {
            let why = format!("faults of the kernel are not noticed: /dev/kmsg cannot be read: {e}; give CAP_SYSLOG");
            let _ = node.complain("kernel log", Some(why)).await;
            return;
        }
    };
    // A broken disk is spoken of many times: each kind of fault is told, and followed, once.
    let mut told = Vec::new();
    let mut until = Instant::now();
    loop {
        if told.is_empty() {
            until = Instant::now() + SHOWN_FOR;
        }
        let fault = match tokio::time::timeout_at(until, log.next()).await {
            Ok(Ok(fault)) => fault,
            Ok(Err(e)) => {
                let why = format!("faults of the kernel are not noticed any more: reading /dev/kmsg: {e}");
                let _ = node.complain("kernel log", Some(why)).await;
                return;
            }
            Err(_) => {
                if !std::mem::take(&mut told).is_empty() {
                    let _ = node.complain("kernel", None).await;
                }
                continue;
            }
        };
        if !concerns(&fault, &claimed(&running)) {
            continue;
        }
        until = Instant::now() + SHOWN_FOR;
        let kind = std::mem::discriminant(&fault);
        if !told.contains(&kind) {
            told.push(kind);
            let _ = node.complain("kernel", Some(fault.to_string())).await;
            follow(&running, &fault).await;
        }
    }
}

async fn follow(running: &Running, fault: &KernelFault) {
    match running.config.on_kernel_fault {
        OnKernelFault::Report => {}
        OnKernelFault::Drain => {
            let by = format!("ha@{}", running.me);
            let command = Command { what: Ask::Standby, by, reason: fault.to_string() };
            if let Err(refused) = running.node.command(None, command).await {
                tracing::error!("the node cannot go into standby although {fault}: {refused}");
            }
        }
        OnKernelFault::Reset => {
            let _ = running.node.reset(fault.to_string()).await;
        }
    }
}

fn concerns(fault: &KernelFault, claimed: &BTreeSet<String>) -> bool {
    match fault {
        KernelFault::Disk { name, .. } => claimed.contains(name),
        KernelFault::Oops(_) | KernelFault::Lockup(_) | KernelFault::HungTask(_) => true,
    }
}

/// The kernel's names of the disks that claims live on: of the whole disk of a partition, and of the paths below a map, too.
fn claimed(running: &Running) -> BTreeSet<String> {
    let claims = running.claims.lock().unwrap_or_else(PoisonError::into_inner);
    let reserved = claims.iter().flat_map(|(_, claim)| match claim {
        ClaimDefinition::Reservation(spec) => spec.devices.clone(),
        ClaimDefinition::LockArea(_) => Vec::new(),
    });
    let areas = running.config.lock_areas.iter().map(|area| area.path.clone());
    reserved.chain(areas).flat_map(|path| names_of(&path)).collect()
}

fn names_of(path: &Path) -> Vec<String> {
    // Anything else may be on storage that hangs, and has no disk of this machine's.
    let Some(Ok(device)) = path.starts_with("/dev").then(|| path.canonicalize()) else { return Vec::new() };
    let Some(name) = device.strip_prefix("/dev").ok().and_then(Path::to_str).map(str::to_owned) else {
        return Vec::new();
    };
    let class = format!("/sys/class/block/{name}");
    let whole = Path::new(&class).join("partition").exists().then(|| Path::new(&class).canonicalize().ok()).flatten();
    let whole = whole.and_then(|place| Some(place.parent()?.file_name()?.to_str()?.to_owned()));
    let below = std::fs::read_dir(format!("{class}/slaves")).into_iter().flatten().flatten();
    let below: Vec<String> = below.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    [vec![name], whole.into_iter().collect(), below].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_other_disks_are_none_of_a_claims() {
        let claimed = BTreeSet::from(["sdb".to_owned()]);
        let disk = |name: &str| KernelFault::Disk { name: name.into(), line: "I/O error".into() };
        assert!(concerns(&disk("sdb"), &claimed) && !concerns(&disk("sda"), &claimed));
        assert!(concerns(&KernelFault::Oops("Oops: 0002".into()), &claimed));
        assert_eq!(names_of(Path::new("/dev/null")), ["null"]);
        assert_eq!(names_of(Path::new("/nonexistent")), Vec::<String>::new());
        assert_eq!(names_of(Path::new("/proc/self/exe")), Vec::<String>::new(), "what is no device is not looked at");
    }
}
