//! The examples of `hierarchies/`, with what a laboratory has in the place of addresses, devices and programs that it does not have.

use std::path::PathBuf;

use crate::trouble::{Result, Trouble, While as _};

/// An example with other places. Each of those named must be in it, so that the examples and the tests that run them do not part.
pub fn example(name: &str, places: &[(&str, &str)]) -> Result<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hierarchies").join(format!("{name}.ron"));
    let mut text = std::fs::read_to_string(&file).to(format!("read {}", file.display()))?;
    for (from, to) in places {
        if !text.contains(from) {
            return Err(Trouble::new(format!("{name}.ron has no {from}")));
        }
        text = text.replace(from, to);
    }
    Ok(text)
}
