//! Whole machines over simulated disks of several kinds: commands that are delayed, lost, carried out without an answer or after nobody waits
//! any more; nodes that are reset, paused, or lose their agent; paths that go and come; targets that are reset or lose power.
//!
//! After every event: whoever was told that it has the claim is the only one of those who believe so that can write. See [`World::check`].

mod mutations;
mod world;

use world::{Plan, Stats, run};

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (read("RESERVATION_SEED"), read("RESERVATION_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => default.start..default.start + count,
        (None, None) => default,
    }
}

#[test]
fn whoever_has_the_claim_is_the_only_one_that_writes() {
    let mut sum = Stats::default();
    for seed in seeds(1..501) {
        match run(&Plan::of(seed)) {
            Ok(stats) => sum.add(&stats),
            Err(what) => panic!(
                "{what}\nreplay: RESERVATION_SEED={seed} cargo test -p ha-core --features sim --lib reservation::sim_tests -- \
                 --nocapture"
            ),
        }
    }
    println!("{sum:?}");
    let Stats { acquired, takeovers, defended, raced, adopted, lost, writes } = sum;
    let few = std::env::var("RESERVATION_SEED").is_ok();
    let enough = acquired > 200 && takeovers > 50 && defended > 50 && raced > 5 && adopted > 5 && lost > 5;
    assert!(few || enough && writes > 1_000, "too little happened: {sum:?}");
}
