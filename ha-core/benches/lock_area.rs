//! How long it takes, and how many transfers, to own 1, 100 and 1,000 hierarchies of a lock area (on a device in memory, so
//! what is measured is the protocol's own work).

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
use ha_core::claim::lock_area::memory::Memory;
use ha_core::claim::lock_area::{AreaConfig, AreaId, BlockDevice, LeaseTiming, LockArea};
use ha_core::claim::{Acquire, Claim};
use ha_core::name::{BootId, Epoch, HierarchyName, Incarnation, LockAreaName, NodeName};
use ha_core::time::Time;

async fn area(device: Arc<Memory>) -> LockArea {
    // Renewals are rare, so that they hardly count as transfers of the acquisition.
    let s = Duration::from_secs;
    let timing = LeaseTiming::new(s(30), s(300), s(0), s(10)).expect("valid times");
    let nodes = ["a", "b", "c"].map(|n| NodeName::new(n).expect("a valid name")).to_vec();
    let plan = AreaPlan { id: AreaId([1; 16]), nodes, hierarchies: 1_024, timing };
    initialise(&*device, plan, Existing::Keep).await.expect("an empty device");
    let config = AreaConfig {
        name: LockAreaName::new("main").expect("a valid name"),
        node: NodeName::new("a").expect("a valid name"),
        boot: BootId([1; 16]),
        incarnation: Incarnation(1),
        timing: None,
        seed: 1,
    };
    let start = std::time::Instant::now();
    let clock = Arc::new(move || Time(1 + start.elapsed().as_nanos() as u64));
    LockArea::open(device as Arc<dyn BlockDevice>, config, clock).await.expect("an area to enter")
}

async fn acquire(claims: &[Arc<dyn Claim>]) {
    let mut tasks = tokio::task::JoinSet::new();
    for claim in claims {
        let claim = claim.clone();
        tasks.spawn(async move {
            claim.acquire(Acquire { beliefs: Arc::default(), known: Epoch::ZERO, adopt: None }).await
        });
    }
    for held in tasks.join_all().await {
        black_box(held.expect("nobody else wants it"));
    }
}

fn bench(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let device = Arc::new(Memory::new(512, 8 << 20));
    let area = runtime.block_on(area(device.clone()));
    let mut group = c.benchmark_group("lock_area/acquire");
    for n in [1, 100, 1_000] {
        let name = |i| HierarchyName::new(format!("h{i}")).expect("a valid name");
        let claims: Vec<_> = (0..n).map(|i| area.claim(name(i))).collect();
        runtime.block_on(acquire(&claims));
        let before = device.transfers();
        runtime.block_on(acquire(&claims));
        println!("{n} hierarchies: {} transfers", device.transfers() - before);
        group.bench_with_input(BenchmarkId::from_parameter(n), &claims, |b, claims| {
            b.iter(|| runtime.block_on(acquire(claims)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
