//! The demonstration as a newcomer runs it: everything must be as it must be, and nothing is left behind (S1, S4, S7, L1 to L5).

use std::process::Command;

#[test]
fn the_demonstration_ends_well_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap_or_else(|e| panic!("a directory: {e}"));
    let output = Command::new(env!("CARGO_BIN_EXE_ha")).arg("demo").env("TMPDIR", place.path()).output();
    let output = output.unwrap_or_else(|e| panic!("`ha demo` starts: {e}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("everything was as it must be"), "{text}");
    assert_eq!(std::fs::read_dir(place.path()).map(Iterator::count).ok(), Some(0), "files are left");
    let left = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*place.path().to_string_lossy())
    });
    assert_eq!(left.count(), 0, "processes are left");
}
