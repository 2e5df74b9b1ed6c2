//! Every example in `hierarchies/` is read as an operator's file would be.

use std::path::Path;

use ha_core::hierarchy::read_directory;
use ha_resources::kinds::Builtin;

#[test]
fn every_example_is_read_without_a_complaint() {
    let reading = read_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../hierarchies"), &Builtin);
    assert_eq!(reading.diagnostics.to_string(), "");
    let names: Vec<&str> = reading.loaded.iter().map(|l| l.hierarchy.name.as_str()).collect();
    assert_eq!(names, ["accounts", "database", "gateway", "queue", "shop", "reports", "mailer", "web"]);
}
