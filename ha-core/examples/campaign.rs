//! A simulation campaign: random clusters in random trouble, every invariant looked at after every event.
//!
//! `cargo run --release -p ha-core --features sim --example campaign -- small|large FIRST_SEED COUNT|DURATION` runs that many seeds, or as many
//! as go into that time of this machine's processor, for example `2h`. It ends with status 1 if anything was wrong; `... -- story small|large
//! SEED [RUNS]` then tells what led to it, made smaller in so many runs; `... -- lines small|large SEED WORD` every line of the run with a word in it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ha_core::sim::campaign::{Plan, Size, Telling, Totals, minimise};

const USAGE: &str = "expected: small|large FIRST_SEED COUNT|DURATION, or: story small|large SEED [RUNS], or: lines small|large SEED WORD";
/// A figure is printed so often.
const EVERY: Duration = Duration::from_secs(60);

fn size(word: &str) -> Option<Size> {
    match word {
        "small" => Some(Size::small()),
        "large" => Some(Size::large()),
        _ => None,
    }
}

enum Until {
    Count(u64),
    Spent(Duration),
}

fn until(word: &str) -> Option<Until> {
    let seconds = |unit: char, each: u64| {
        Some(Until::Spent(Duration::from_secs(word.strip_suffix(unit)?.parse::<u64>().ok()? * each)))
    };
    word.parse()
        .ok()
        .map(Until::Count)
        .or_else(|| seconds('h', 3600))
        .or_else(|| seconds('m', 60))
        .or_else(|| seconds('s', 1))
}

/// What this process used of the processor, from field 14 and 15 of `/proc/self/stat` (proc_pid_stat(5)), in ticks of 10 ms.
fn spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}

fn campaign(size: &Size, first: u64, until: &Until) -> ExitCode {
    let (begin, mut told) = (Instant::now(), Instant::now());
    let mut totals = Totals::default();
    for seed in first.. {
        let over = match until {
            Until::Count(count) => totals.seeds >= *count,
            Until::Spent(span) => spent() >= *span,
        };
        if over {
            break;
        }
        let plan = Plan::new(seed, size);
        let outcome = plan.run(Telling::Verdict);
        totals.add(&plan, &outcome);
        if let Some(violation) = &outcome.violation {
            println!("seed {seed}: {violation}");
        }
        if told.elapsed() > EVERY {
            told = Instant::now();
            println!("up to seed {seed}, {:.0} s of processor time: {totals}", spent().as_secs_f64());
        }
    }
    let (used, hours) = (spent().as_secs_f64(), totals.cluster_time.as_secs_f64() / 3600.0);
    println!(
        "{totals}{used:.0} s of processor time, {:.0} s by the clock: {:.3} cluster-hours a second",
        begin.elapsed().as_secs_f64(),
        hours / used
    );
    if totals.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().ok();
    match words[..] {
        ["story", word, seed, ..] => {
            let runs = words.get(3).and_then(|word| number(word)).unwrap_or(300) as usize;
            if let (Some(size), Some(seed)) = (size(word), number(seed)) {
                println!("{}", minimise(&Plan::new(seed, &size), runs).story());
                return ExitCode::SUCCESS;
            }
        }
        ["lines", word, seed, with] => {
            if let (Some(size), Some(seed)) = (size(word), number(seed)) {
                let outcome = Plan::new(seed, &size).run(Telling::Story);
                let lines = outcome.story.iter().map(ToString::to_string).filter(|line| line.contains(with));
                lines.for_each(|line| println!("{line}"));
                return ExitCode::SUCCESS;
            }
        }
        [word, first, end] => {
            if let (Some(size), Some(first), Some(end)) = (size(word), number(first), until(end)) {
                return campaign(&size, first, &end);
            }
        }
        _ => {}
    }
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
