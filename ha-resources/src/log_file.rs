//! The file into which a program writes what it says.
//!
//! The program writes to it directly, so that it goes on when the agent ends. Decides how large it may become; leaves what is
//! in it to the program.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Above this size, in bytes, the file becomes the old one (`.1`). Looked at when a program is started and monitored.
pub(crate) const LIMIT: u64 = 4 << 20;

/// A log file and its predecessor.
#[derive(Clone, Debug)]
pub(crate) struct LogFile(PathBuf);

impl LogFile {
    /// At this path; nothing is made yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        LogFile(path)
    }

    /// Opens it for a new program. What an earlier one wrote becomes the old file.
    pub(crate) fn open(&self) -> io::Result<File> {
        match std::fs::rename(&self.0, self.old()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        OpenOptions::new().create(true).append(true).open(&self.0)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn old(&self) -> PathBuf {
        self.0.with_extension("log.1")
    }

    /// Keeps it within [`LIMIT`] while a program writes to it: its end is copied to the old file, and it begins anew. What is
    /// written in between may be lost. The program appends, so it goes on at the new beginning.
    pub(crate) fn keep_bounded(&self) -> io::Result<()> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        if file.metadata()?.len() <= LIMIT {
            return Ok(());
        }
        let mut end = Vec::new();
        file.seek(SeekFrom::End(-LIMIT.cast_signed()))?;
        (&file).take(LIMIT).read_to_end(&mut end)?;
        File::create(self.old())?.write_all(&end)?;
        file.set_len(0)
    }

    /// The last bytes of it, as text, at most `limit`; empty if there are none.
    pub(crate) fn end(&self, limit: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.0)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
            let mut end = Vec::new();
            file.take(limit).read_to_end(&mut end)?;
            Ok(end)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_writes_without_end_does_not_fill_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile::new(directory.path().join("web:app.log"));
        let mut program = log.open().unwrap();
        let half = vec![b'x'; LIMIT as usize / 2 + 1];
        for _ in 0..4 {
            program.write_all(&half).unwrap();
        }
        log.keep_bounded().unwrap();
        program.write_all(b"the last words\n").unwrap();
        assert_eq!(log.end(100), "the last words\n");
        assert_eq!(std::fs::metadata(log.old()).unwrap().len(), LIMIT);
    }

    #[test]
    fn what_an_earlier_program_wrote_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile::new(directory.path().join("web:app.log"));
        log.open().unwrap().write_all(b"first").unwrap();
        log.open().unwrap().write_all(b"second").unwrap();
        assert_eq!(log.end(100), "second");
        assert_eq!(std::fs::read(log.old()).unwrap(), b"first");
    }
}
