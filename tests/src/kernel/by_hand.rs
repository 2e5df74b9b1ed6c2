//! Reservations by hand, in a guest: the example program of `ha-resources`, run on the shared disk, and what is done to the disk beside it.

use super::{Guest, disk_link};
use crate::kernel::remote::Ended;
use crate::program;
use crate::trouble::Result;

/// Runs the program on the first shared disk, or on one path to it only: a verb, and its numbers.
pub fn reservation(node: &Guest, path: Option<&str>, words: &[&str]) -> Result<Ended> {
    let link = disk_link(0) + &path.map_or_else(String::new, |path| format!("@{path}"));
    let words: Vec<&str> = words[..1].iter().chain([&link.as_str()]).chain(&words[1..]).copied().collect();
    node.run(&program("examples/reservation")?.to_string_lossy(), &words)
}

/// The key, as the program prints it, that holds the disk and is the only one, registered twice, as each of both paths tells it; else what they tell.
pub fn key_of_both_paths(node: &Guest) -> std::result::Result<String, String> {
    let shown = reservation(node, None, &["show"]).map_err(|error| error.to_string())?.output;
    let key = shown.split("reserved by ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let (keys, held) = (format!("keys [{key}, {key}]"), format!("reserved by {key}, WriteExclusiveRegistrantsOnly"));
    if [shown.matches(&keys).count(), shown.matches(&held).count()] == [2, 2] { Ok(key.to_owned()) } else { Err(shown) }
}

/// Has a node read the first shared disk from now on, several times at once, and past the memory of its kernel.
pub fn read_without_a_pause(node: &Guest) -> Result<()> {
    let reads = format!("dd if={} of=/dev/null bs=64k count=1000 iflag=direct", disk_link(0));
    let reader = format!("(while {reads} 2>/dev/null; do :; done) </dev/null >/dev/null 2>&1 &");
    node.shell(&[reader.as_str(); 4].join("\n")).map(drop)
}
