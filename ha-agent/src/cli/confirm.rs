//! Asking an operator who is about to do something that cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use super::say;
use crate::exit::{Exit, Failure};

/// Has the operator type `word` to go on. Where nobody can be asked, nothing is done.
pub(super) async fn confirm(warning: &str, word: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let what = "nobody can be asked here, and --yes was not given: nothing was changed";
        return Err(Failure::new(Exit::Refused, what));
    }
    say(format!("{warning}\nType {word} to go on: "))?;
    let read = tokio::task::spawn_blocking(|| {
        let _ = std::io::stdout().flush();
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    match read.await {
        Ok(Ok(line)) if line.trim() == word => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not confirmed: nothing was changed")),
    }
}
