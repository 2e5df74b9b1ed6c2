//! Programs of other people's that a test runs.
//!
//! Decides that a test whose programs are missing fails, and says that it was not run. Leaves installing them to `tests/run`.

use std::path::Path;

use crate::trouble::{Result, Trouble};

/// An error that says so, loudly, if one of these is not here: each a path, and the package that it comes from.
pub fn need(programs: &[(&str, &str)]) -> Result<()> {
    for (path, package) in programs {
        if !Path::new(path).exists() {
            return Err(Trouble::new(format!(
                "this test NEEDS {package} ({path}): it was NOT RUN; install this package, or use tests/run"
            )));
        }
    }
    Ok(())
}
