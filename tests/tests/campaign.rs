//! A small campaign of the simulator: random clusters in random trouble, every invariant watched at every event.
//!
//! `HA_SEED=5` runs that seed alone and tells its story; `HA_SEEDS=1000` runs more of them. A large campaign, over up to 32 nodes and 500
//! hierarchies, is `cargo run --release -p ha-core --features sim --example campaign -- large 1 30m`.

use std::time::Instant;

use ha_core::sim::campaign::{Plan, Size, Telling, minimise};

/// So many seeds are run by default: about a minute.
const SEEDS: u64 = 60;
/// So many runs may be spent on making a failing plan smaller.
const RUNS: usize = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_clusters_in_random_trouble_stay_safe_and_recover() {
    let seeds = match number("HA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("HA_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let (begin, mut hours, mut takeovers) = (Instant::now(), 0.0, 0);
    for seed in seeds.clone() {
        let plan = Plan::new(seed, &Size::small());
        let outcome = plan.run(Telling::Verdict);
        hours += outcome.lasted.as_secs_f64() / 3600.0;
        takeovers += outcome.stats.takeovers;
        if let Some(violation) = outcome.violation {
            let story = minimise(&plan, RUNS).story();
            panic!(
                "seed {seed}: {violation}\n\n{story}\nto see it again: HA_SEED={seed} cargo test -p ha-tests --test campaign -- --nocapture"
            );
        }
        if number("HA_SEED").is_some() {
            println!("{}", plan.story());
        }
    }
    let count = seeds.end - seeds.start;
    println!(
        "{count} seeds, {hours:.1} simulated hours, {takeovers} takeovers, in {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    assert!(count == 1 || takeovers > 0, "a campaign in which nothing is taken over proves nothing");
}
