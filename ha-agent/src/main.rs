//! ha
fn main() {}
