//! A simulation campaign: `cargo run --release -p ha-core --features sim --example campaign -- FIRST_SEED COUNT [large]`.

use std::time::Instant;

use ha_core::sim::campaign::{Plan, Size, Telling, minimise};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: u64| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let size = if arguments.get(3).is_some_and(|a| a == "large") { Size::large() } else { Size::small() };
    let (first, count) = (number(1, 1), number(2, 100));
    let (begin, mut simulated, mut events) = (Instant::now(), 0.0, 0);
    let mut bad = 0;
    for seed in first..first + count {
        let plan = Plan::new(seed, &size);
        let outcome = plan.run(Telling::Verdict);
        simulated += outcome.lasted.as_secs_f64();
        events += outcome.stats.events;
        if let Some(violation) = outcome.violation {
            bad += 1;
            println!("seed {seed}: {violation}");
            if count == 1 {
                println!("{}", minimise(&plan, number(4, 300) as usize).story());
            }
        }
    }
    let took = begin.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {bad} bad; {:.1} simulated hours, {events} events in {took:.1} s: {:.2} hours a second",
        simulated / 3600.0,
        simulated / 3600.0 / took
    );
}
