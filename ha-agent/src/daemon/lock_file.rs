//! One agent per run directory: a lock file, held by the kernel for as long as the agent lives, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::exit::{Exit, Failure};

/// The lock; given up when dropped, or when the process ends (flock(2)).
#[derive(Debug)]
pub(crate) struct LockFile {
    _lock: Flock<File>,
}

impl LockFile {
    /// Takes the lock in a run directory, which is made if it is not there.
    pub(crate) fn take(run_dir: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, path: &Path, e: &io::Error| {
            Failure::new(Exit::System, format!("could not {what} {}: {e}", path.display()))
                .help("run_dir in agent.ron says where it is; the agent must be able to write there")
        };
        fs::create_dir_all(run_dir).map_err(|e| failed("create the run directory", run_dir, &e))?;
        let path = run_dir.join("agent.lock");
        // Not truncated: the number of the other agent may be in it.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| failed("open", &path, &e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // Only for people; the lock itself is what counts.
                let _ = lock.set_len(0).and_then(|()| lock.rewind());
                let _ = writeln!(lock, "{}", std::process::id());
                Ok(Self { _lock: lock })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                Err(Failure::new(
                    Exit::Refused,
                    format!("another agent (pid {}) runs with run_dir {}", pid.trim(), run_dir.display()),
                )
                .help("several agents on one machine need a run_dir, a state_dir and addresses each"))
            }
            Err((_, errno)) => Err(failed("lock", &path, &io::Error::from(errno))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let first = LockFile::take(&run_dir).unwrap();
        let refused = LockFile::take(&run_dir).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.what.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        LockFile::take(&run_dir).unwrap();
    }
}
