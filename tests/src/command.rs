//! Runs the few system programs that the laboratory needs, and says what they said when they fail.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::trouble::{Result, Trouble, While as _};

/// Runs a program to its end and returns what it wrote to its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    run_with_input(program, arguments, "")
}

/// As [`run`], with something to read on standard input.
pub(crate) fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let what = format!("run `{program} {}`", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .to(&what)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).to(&what)?;
    }
    let output = child.wait_with_output().to(&what)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Trouble::new(format!("could not {what}: {}: {}", output.status, said.trim())))
    }
}
