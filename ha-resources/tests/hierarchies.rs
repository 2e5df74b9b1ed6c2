//! Every example in `hierarchies/`, and on the pages about resources, is read as an operator's file would be.

use std::path::Path;

use ha_core::hierarchy::{Kinds as _, Source, read_directory, read_sources};
use ha_resources::kinds::Builtin;

#[test]
fn every_example_is_read_without_a_complaint() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hierarchies");
    let together = read_directory(&examples, &Builtin);
    assert_eq!(together.diagnostics.to_string(), "");
    for file in std::fs::read_dir(examples).unwrap() {
        let path = file.unwrap().path();
        let alone = read_sources(&[Source::read(&path).unwrap()], &Builtin);
        assert!(!alone.loaded.is_empty(), "{} holds no hierarchy", path.display());
    }
}

#[test]
fn every_example_of_a_page_about_a_resource_is_read_without_a_complaint() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/resources");
    let mut read = 0;
    for page in std::fs::read_dir(pages).unwrap() {
        let path = page.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```ron\n").skip(1) {
            let example = block.split("```").next().unwrap();
            let source = Source::new(path.file_name().unwrap().to_string_lossy(), example);
            let reading = read_sources(&[source], &Builtin);
            assert_eq!(reading.diagnostics.to_string(), "", "{}", path.display());
            read += reading.loaded.len();
        }
    }
    assert!(read >= 2, "{read}");
}

/// What `ron` blocks of a page hold.
fn examples_on(page: &str) -> String {
    page.split("```ron\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_kind_has_a_page_whose_example_is_tried_by_a_test_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = |name: &str| std::fs::read_to_string(root.join("docs/resources").join(name)).unwrap_or_default();
    let named = |text: &str| {
        let words = text.split('`').map(Path::new);
        let tests: Vec<&Path> = words.filter(|word| word.extension().is_some_and(|ending| ending == "rs")).collect();
        for test in &tests {
            assert!(root.join(test).is_file(), "a page names {}, which is not there", test.display());
        }
        !tests.is_empty()
    };
    let table = page("README.md");
    for kind in Builtin.resource_kinds() {
        let file = format!("{}.md", kind.to_lowercase());
        let text = page(&file);
        assert!(examples_on(&text).contains(&format!("{kind}(")), "{file} has no example of {kind}");
        assert!(named(&text), "{file} names no test that tries it");
        assert!(table.contains(&format!("({file})")), "README.md does not lead to {file}");
    }
    let probes = page("probes.md");
    // The engine itself counts for `Spread`.
    for kind in Builtin.probe_kinds().iter().chain(&["Spread"]) {
        let examples = examples_on(&probes);
        assert!(probes.contains(&format!("\n## `{kind}`\n")), "probes.md has no section about {kind}");
        assert!(examples.contains(&format!("utility: [{kind}(")), "probes.md has no example of {kind}");
    }
    assert!(
        named(&probes) && table.contains("(probes.md)"),
        "probes.md names no test, or README.md does not lead to it"
    );
}
