//! Every scenario in `scenarios/` happens in the simulator as it is written there; each row of the tables that lead to them names one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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

#[test]
fn every_scenario_happens_as_it_is_written() {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut failed = Vec::new();
    let files: Vec<PathBuf> = files().into_iter().filter(|file| file.to_string_lossy().contains(&only)).collect();
    assert!(!files.is_empty(), "no scenario has {only:?} in its name");
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with(".scenario"), "{name} is not a scenario: expected NAME.scenario");
        match Scenario::parse(&Source::read(&file).unwrap()) {
            Err(wrong) => failed.push(format!("{wrong}")),
            Ok(scenario) => {
                if let Err(failure) = scenario.play() {
                    failed.push(format!("{}{name}: {}\n{}", story(&failure.1), scenario.title, failure.0));
                }
            }
        }
    }
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
