//! Every example in `hierarchies/`, and on the pages about resources, is read as an operator's file would be.

use std::path::Path;

use ha_core::hierarchy::{Source, read_directory, read_sources};
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
