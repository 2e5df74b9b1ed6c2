//! Every scenario in `scenarios/` happens in the simulator as it is written there; each row of the tables that lead to them names one.

#![expect(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ha_core::hierarchy::Source;
use ha_core::sim::World;
use ha_core::sim::scenario::Scenario;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(here().join("scenarios")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn story(world: &World) -> String {
    world.lines().iter().map(|line| format!("{line}\n")).collect()
}

/// Lets one happen; what went wrong, if anything did.
fn play(file: &Path) -> Option<String> {
    let name = file.file_name().unwrap().to_string_lossy();
    if !name.ends_with(".scenario") {
        return Some(format!("{name} is not a scenario: expected NAME.scenario"));
    }
    match Scenario::parse(&Source::read(file).unwrap()) {
        Err(wrong) => Some(wrong.to_string()),
        Ok(scenario) => {
            let (failure, world) = *scenario.play().err()?;
            Some(format!("{}{name}: {}\n{failure}", story(&world), scenario.title))
        }
    }
}

/// With `SCENARIO=word` only those with the word in their names.
#[test]
fn every_scenario_happens_as_it_is_written() {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let files: Vec<PathBuf> = files().into_iter().filter(|file| file.to_string_lossy().contains(&only)).collect();
    assert!(!files.is_empty(), "no scenario has {only:?} in its name");
    let next = AtomicUsize::new(0);
    let work = || {
        let mine = std::iter::from_fn(|| files.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.filter_map(|file| play(file)).collect::<Vec<String>>()
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{}\n{} failed", failed.join("\n\n"), failed.len());
}

/// The files that rows of the tables in a document name.
fn named() -> Vec<String> {
    let text = fs::read_to_string(here().join("../docs/scenarios.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---"));
    let cells = rows.flat_map(|row| row.split('`').map(str::to_owned).collect::<Vec<_>>());
    cells.filter(|cell| cell.ends_with(".scenario")).collect()
}

#[test]
fn every_row_of_the_tables_names_a_scenario_that_is_there_and_none_is_forgotten() {
    let there: BTreeSet<String> =
        files().iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let named: BTreeSet<String> = named().into_iter().collect();
    assert_eq!(named, there);
}
