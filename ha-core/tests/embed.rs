//! The example as its reader would use it: two processes, one killed (L1, S4).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Generous: the example waits 15 s for a node that it has never heard.
const PATIENCE: Duration = Duration::from_secs(60);

struct Started {
    child: Child,
    lines: Receiver<String>,
}

impl Started {
    fn node(name: &str) -> Started {
        // With the workspace's features, as the test itself is built with all others: nothing is built for it alone.
        let built = Command::new(env!("CARGO")).args(["build", "-q", "--workspace", "--example", "embed"]).status();
        assert!(built.is_ok_and(|status| status.success()), "the example builds");
        let mut program = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        program.pop();
        let program = program.join("debug/examples/embed");
        let mut child = Command::new(&program)
            .arg(name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let Some(output) = child.stdout.take() else { panic!("the output was asked for") };
        let output = BufReader::new(output);
        let (line, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|l| drop(line.send(l))));
        Started { child, lines }
    }

    fn epoch_it_serves_in(&self) -> u64 {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no node begins to serve: {e}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("unexpected line: {line}"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn beta_takes_over_when_alpha_is_killed() {
    let alpha = Started::node("alpha");
    let beta = Started::node("beta");
    let first = alpha.epoch_it_serves_in();
    assert!(beta.lines.try_recv().is_err(), "only alpha serves");
    drop(alpha);
    assert!(beta.epoch_it_serves_in() > first);
}
