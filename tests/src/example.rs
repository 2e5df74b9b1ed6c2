//! The examples of `hierarchies/` and of the pages about resources, with what a laboratory has in the place of addresses, devices and programs that it does not have.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::trouble::{Result, Trouble, While as _};

/// An example with other places. Each of those named must be in it, so that the examples and the tests that run them do not part.
pub fn example(name: &str, places: &[(&str, &str)]) -> Result<String> {
    elsewhere(&format!("hierarchies/{name}.ron"), places)
}

/// The hierarchies on a page of `docs/resources/`, name and text, with other places as [`example`] has them.
pub fn page(name: &str, places: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let text = elsewhere(&format!("docs/resources/{name}.md"), places)?;
    let blocks = text.split("```ron\n").skip(1).filter_map(|rest| rest.split("```").next());
    let named = blocks.filter_map(|block| {
        let name = block.split_once("name: \"")?.1.split_once('"')?.0;
        block.starts_with("Hierarchy(").then(|| (name.to_owned(), block.to_owned()))
    });
    Ok(named.collect())
}

/// A program of the reader's own, in a folder: the text is a shell's.
pub fn script(folder: &Path, name: &str, text: &str) -> Result<String> {
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).to(format!("write {}", file.display()))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).to("make a script executable")?;
    Ok(file.to_string_lossy().into_owned())
}

/// A file of the repository with other places.
fn elsewhere(file: &str, places: &[(&str, &str)]) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let mut text = std::fs::read_to_string(&path).to(format!("read {}", path.display()))?;
    for (from, to) in places {
        if !text.contains(from) {
            return Err(Trouble::new(format!("{file} has no {from}")));
        }
        text = text.replace(from, to);
    }
    Ok(text)
}
