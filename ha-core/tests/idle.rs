//! What an idle node costs on the network and on the storage: the same whatever number of hierarchies it serves.
//!
//! The tests look at *what* is sent and transferred from one renewal of a lease to a later one, never at how long that takes.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be had ends it")]

mod pair;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ha_core::contact::AnnouncedPhase;
use ha_core::driver::Node;

use pair::{Log, NODES, Passed};

const PATIENCE: Duration = Duration::from_secs(60);
/// A stretch of time, in renewals of one lease.
const RENEWALS: usize = 100;

async fn serves(node: &Node) -> usize {
    let view = node.snapshot().await.unwrap();
    view.hierarchies.iter().filter(|hierarchy| hierarchy.phase == AnnouncedPhase::InService).count()
}

/// What passes between two nodes that serve a half of so many hierarchies each, while nothing happens: each kind of transfer and how often
/// there was one in a stretch of time, and the sizes of the datagrams.
async fn idle(hierarchies: usize) -> (BTreeMap<(bool, u64, usize), usize>, Vec<usize>) {
    let place = tempfile::tempdir().unwrap();
    let log = Log::default();
    let (disk, [alphas, betas]) = pair::between_them(&log).await;
    let alpha = pair::start("alpha", hierarchies, &[], disk.clone(), alphas, place.path()).await;
    let beta = pair::start("beta", hierarchies, &[], disk, betas, place.path()).await;
    let began = Instant::now();
    while serves(&alpha).await + serves(&beta).await < hierarchies {
        assert!(began.elapsed() < PATIENCE, "not all of {hierarchies} are served");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Until the last word of that has been said, the two nodes are not idle.
    loop {
        let (transfers, mut datagrams) = stretch(&log, &began).await;
        datagrams.sort_unstable();
        datagrams.dedup();
        // Each node's two copies of its slot, and the reading of all slots. Beats alone: ages and counters in them take a byte more or less.
        let beats_alone = datagrams.last().zip(datagrams.first()).is_some_and(|(most, least)| most - least <= 4);
        if transfers.len() == 5 && beats_alone {
            return (transfers, datagrams);
        }
        assert!(began.elapsed() < PATIENCE, "never idle with {hierarchies}: {transfers:?} {datagrams:?}");
    }
}

/// What passes while a lease is renewed [`RENEWALS`] times.
async fn stretch(log: &Log, began: &Instant) -> (BTreeMap<(bool, u64, usize), usize>, Vec<usize>) {
    *log.lock().unwrap() = Passed::default();
    loop {
        {
            let mut passed = log.lock().unwrap();
            let writes = passed.transfers.iter().filter(|(write, ..)| *write).count();
            if writes >= 2 * RENEWALS {
                let passed = std::mem::take(&mut *passed);
                let mut transfers = BTreeMap::new();
                for transfer in passed.transfers {
                    *transfers.entry(transfer).or_default() += 1;
                }
                return (transfers, passed.datagrams);
            }
        }
        assert!(began.elapsed() < PATIENCE, "the leases are not renewed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_reads_writes_and_sends_the_same_whatever_it_serves() {
    let (ten, beats_of_ten) = idle(10).await;
    let (thousand, beats_of_thousand) = idle(1_000).await;

    let kinds = |transfers: &BTreeMap<(bool, u64, usize), usize>| transfers.keys().copied().collect::<Vec<_>>();
    assert_eq!(kinds(&thousand), kinds(&ten), "the same places, the same lengths");
    for transfers in [&ten, &thousand] {
        let count = |writes: bool| transfers.iter().filter(|((w, ..), _)| *w == writes).map(|(_, n)| n).sum::<usize>();
        let (reads, writes) = (count(false), count(true));
        assert!(reads.abs_diff(writes) <= NODES.len(), "one write and one read for each renewal: {transfers:?}");
    }
    // A beat names two versions, which take a byte more each where a hundred times as much was announced.
    let (ten, thousand) = (beats_of_ten.iter().max().unwrap(), beats_of_thousand.iter().max().unwrap());
    assert!(*thousand <= ten + 4 && *thousand < 200, "{beats_of_ten:?} {beats_of_thousand:?}");
}
