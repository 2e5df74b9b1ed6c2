//! What is looked at all the time, whatever happens: probes, readiness, shared leases.
//!
//! Decides how often, and that only changes are told. Leaves what they mean to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};

use super::plugin::{Probe, Resource};
use super::reload::Member;
use crate::claim::{Claim, LeaseNews, SharedLease};
use crate::engine::Input;
use crate::name::{HierarchyName, Utility};

/// Readiness is looked at this often.
const READY_EVERY: Duration = Duration::from_secs(5);
/// And may take this long.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// A node that begins waits so long for its probes before it says anything.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// The hierarchies that run here now: their readiness is not looked at.
#[derive(Clone, Default)]
pub(super) struct RunningHere(Arc<Mutex<BTreeSet<HierarchyName>>>);

impl RunningHere {
    pub(super) fn set(&self, name: &HierarchyName, runs: bool) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if runs {
            set.insert(name.clone());
        } else {
            set.remove(name);
        }
    }

    fn has(&self, name: &HierarchyName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

/// What the probes say before the node says anything: others would act on a utility that is zero only because nobody has looked yet.
pub(super) async fn first(members: &[Member]) -> Vec<Input> {
    let mut looks = JoinSet::new();
    for member in members {
        for (i, probe) in member.probes.iter().enumerate() {
            let (name, probe) = (member.hierarchy.name.clone(), probe.clone());
            looks.spawn(async move { (name, i, measure_once(&*probe).await) });
        }
    }
    let mut seen: BTreeMap<HierarchyName, BTreeMap<usize, (Utility, String)>> = BTreeMap::new();
    let all = async {
        while let Some(look) = looks.join_next().await {
            if let Ok((name, i, measured)) = look {
                seen.entry(name).or_default().insert(i, measured);
            }
        }
    };
    let _ = tokio::time::timeout(FIRST_WITHIN, all).await;
    let complete =
        |name: &HierarchyName, of: usize| members.iter().any(|m| m.hierarchy.name == *name && m.probes.len() == of);
    seen.retain(|name, looks| complete(name, looks.len()));
    let input = |(name, looks): (HierarchyName, BTreeMap<usize, (Utility, String)>)| {
        let looks: Vec<(Utility, String)> = looks.into_values().collect();
        let (utility, facts) = least(&looks)?;
        Some(Input::Measured { hierarchy: name, utility, facts })
    };
    seen.into_iter().filter_map(input).collect()
}

/// Measures the probes of a hierarchy; its utility is the smallest of them.
pub(super) fn measure(
    name: HierarchyName,
    probes: &[Arc<dyn Probe>],
    inputs: UnboundedSender<Input>,
) -> Vec<AbortHandle> {
    let latest = Arc::new(Mutex::new(vec![None; probes.len()]));
    let each = |(i, probe): (usize, &Arc<dyn Probe>)| {
        let (name, probe, inputs, latest) = (name.clone(), probe.clone(), inputs.clone(), latest.clone());
        tokio::spawn(async move {
            loop {
                let measured = measure_once(&*probe).await;
                if let Some((utility, facts)) = combine(&latest, i, measured) {
                    let _ = inputs.send(Input::Measured { hierarchy: name.clone(), utility, facts });
                }
                tokio::time::sleep(probe.every()).await;
            }
        })
        .abort_handle()
    };
    probes.iter().enumerate().map(each).collect()
}

async fn measure_once(probe: &dyn Probe) -> (Utility, String) {
    match tokio::time::timeout(probe.timeout(), probe.measure()).await {
        Ok(Ok(measured)) => measured,
        Ok(Err(failed)) => (Utility::NONE, failed.0),
        Err(_) => (Utility::NONE, format!("no answer within {}", humantime::format_duration(probe.timeout()))),
    }
}

/// The combined utility, once every probe has said something, if this measurement changed what it said.
fn combine(
    latest: &Mutex<Vec<Option<(Utility, String)>>>,
    i: usize,
    measured: (Utility, String),
) -> Option<(Utility, String)> {
    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = latest[i].as_ref().is_none_or(|(utility, _)| *utility != measured.0);
    latest[i] = Some(measured);
    let all: Vec<(Utility, String)> = latest.iter().flatten().cloned().collect();
    if !changed || all.len() < latest.len() {
        return None;
    }
    least(&all)
}

fn least(all: &[(Utility, String)]) -> Option<(Utility, String)> {
    let utility = all.iter().map(|(utility, _)| *utility).min()?;
    let facts = all.iter().map(|(_, facts)| facts.as_str()).collect::<Vec<_>>().join("; ");
    Some((utility, facts))
}

/// Looks all the time what this node lacks to serve a hierarchy.
pub(super) fn readiness(
    name: HierarchyName,
    resources: Vec<(String, Arc<dyn Resource>)>,
    running: RunningHere,
    inputs: UnboundedSender<Input>,
) -> AbortHandle {
    tokio::spawn(async move {
        let mut told = None;
        loop {
            if !running.has(&name) {
                let lacking = lacking(&resources).await;
                if told.as_ref() != Some(&lacking) {
                    let _ = inputs.send(Input::Readiness { hierarchy: name.clone(), lacking: lacking.clone() });
                    told = Some(lacking);
                }
            }
            tokio::time::sleep(READY_EVERY).await;
        }
    })
    .abort_handle()
}

async fn lacking(resources: &[(String, Arc<dyn Resource>)]) -> Option<String> {
    for (name, resource) in resources {
        match tokio::time::timeout(READY_WITHIN, resource.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => return Some(format!("{name}: {failed}")),
            Err(_) => return Some(format!("{name}: could not be looked at in time")),
        }
    }
    None
}

/// Looks all the time what storage a claim lives on.
pub(super) fn storage(name: HierarchyName, claim: Arc<dyn Claim>, inputs: UnboundedSender<Input>) -> AbortHandle {
    tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            let storage = claim.stands_on();
            if told != storage {
                let _ = inputs.send(Input::StandsOn { hierarchy: name.clone(), storage: storage.clone() });
                told = storage;
            }
            // Not known yet: a node that begins is about to be asked for it.
            let pause = if told.is_empty() { READY_EVERY / 20 } else { READY_EVERY };
            tokio::time::sleep(pause).await;
        }
    })
    .abort_handle()
}

/// Tells everything that is new on a shared lease.
pub(super) fn follow(lease: Arc<dyn SharedLease>, inputs: UnboundedSender<Input>) -> AbortHandle {
    tokio::spawn(async move {
        let mut seen = LeaseNews::default();
        loop {
            let news = lease.changed(&seen).await;
            seen = news.clone();
            if inputs.send(Input::Lease { lease: lease.name().to_owned(), news }).is_err() {
                return;
            }
        }
    })
    .abort_handle()
}
