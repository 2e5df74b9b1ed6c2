//! How two nodes that begin in the same moment come to terms.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be had ends it")]

mod pair;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ha_core::contact::AnnouncedPhase;
use ha_core::driver::{Failed, Node, Probe};
use ha_core::name::Utility;

use pair::Log;

/// Answers after so long.
struct Slow(Duration);

#[async_trait]
impl Probe for Slow {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        tokio::time::sleep(self.0).await;
        Ok((Utility::FULL, "answered".to_owned()))
    }
}

async fn serves(node: &Node) -> bool {
    let view = node.snapshot().await.unwrap();
    view.hierarchies.iter().all(|hierarchy| hierarchy.phase == AnnouncedPhase::InService)
}

/// A node whose probes had not answered yet said that its utility is 0, and so the hierarchy began on the second in rank.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preferred_node_serves_though_its_probe_answers_later_than_anothers() {
    let place = tempfile::tempdir().unwrap();
    let (disk, [alphas, betas]) = pair::between_them(&Log::default()).await;
    let probe = |ms| -> [Arc<dyn Probe>; 1] { [Arc::new(Slow(Duration::from_millis(ms)))] };
    let (slow, quick) = (probe(200), probe(0));
    let (alpha, beta) = tokio::join!(
        pair::start("alpha", 1, &slow, disk.clone(), alphas, place.path()),
        pair::start("beta", 1, &quick, disk, betas, place.path()),
    );
    let began = Instant::now();
    while !serves(&alpha).await {
        assert!(!serves(&beta).await, "beta serves, though alpha is preferred and was about to say that it can");
        assert!(began.elapsed() < Duration::from_secs(60), "nobody serves");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
