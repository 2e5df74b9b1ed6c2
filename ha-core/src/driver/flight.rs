//! The flight recorder's files: a ring of segments in a directory.
//!
//! Decides their names, how much is kept, and when they are brought to the disk. Leaves what is in them to [`crate::record::flight`].
//!
//! A thread of its own writes, fed through a queue with an end: a full or hung disk delays nothing, it only makes a gap in the recording.
//! What was handed to the kernel survives a crash of the agent. For a crash of the machine, a file is synced when it is full, and
//! within a second after something was decided; beats alone wait for the kernel's own writeback, so that an idle node does not
//! keep its disk awake.
//!
//! A segment is packed (gzip, RFC 1952) when the next one begins: four of them then take the room of one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::engine::Input;
use crate::record::flight::{Limits, Piece, Sink};

/// So much waits for the disk at most; more is lost.
const QUEUE_BYTES: usize = 16 << 20;
const QUEUE_PIECES: usize = 4096;
/// How a packed file begins (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What is larger than this when unpacked is none of ours.
const UNPACKED_MAX: u64 = 1 << 30;
/// What was decided is on the disk within this.
const SYNC_WITHIN: Duration = Duration::from_secs(1);
/// After an error of the disk it is left alone for so long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long the end of the node waits for the disk.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Where a node's flight recorder keeps its files, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightFiles {
    /// The directory, made if it is not there. Of one node alone.
    pub directory: PathBuf,
    /// All files together, in bytes; the oldest go when it would be more, or when the disk is full. Default 64 MiB.
    pub total_bytes: u64,
    /// One file, in bytes, unless the state that it begins with makes it larger. Default 1 MiB.
    pub segment_bytes: u64,
}

impl FlightFiles {
    /// The defaults, in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        FlightFiles { directory: directory.into(), total_bytes: 64 << 20, segment_bytes: 1 << 20 }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { segment_bytes: usize::try_from(self.segment_bytes).unwrap_or(usize::MAX) }
    }

    /// The recordings in a directory, the oldest first.
    pub fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files: BTreeMap<u64, PathBuf> = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            // A machine that stopped between packing and removing left both.
            if let Some(number) = number(&path)
                && (is_packed(&path) || !files.contains_key(&number))
            {
                files.insert(number, path);
            }
        }
        Ok(files.into_values().collect())
    }

    /// The bytes of a segment, unpacked.
    pub fn read(file: &Path) -> io::Result<Vec<u8>> {
        let bytes = fs::read(file)?;
        if !bytes.starts_with(&GZIP) {
            return Ok(bytes);
        }
        let mut unpacked = Vec::new();
        GzDecoder::new(&*bytes).take(UNPACKED_MAX).read_to_end(&mut unpacked)?;
        Ok(unpacked)
    }
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".rec")?.parse().ok()
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "gz")
}

/// Packs every segment that is not. One that cannot be packed, for want of room, stays as it is.
fn pack_all(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if number(&path).is_some() && !is_packed(&path) {
            let packed = path.with_extension("rec.gz");
            let fresh = path.with_extension("new");
            let done = if packed.exists() { Ok(()) } else { pack(&path, &fresh, &packed) };
            let _ = fs::remove_file(if done.is_ok() { &path } else { &fresh });
        }
    }
    Ok(())
}

fn pack(path: &Path, fresh: &Path, packed: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    let mut encoder = GzEncoder::new(BufWriter::new(file), Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.into_inner()?.sync_data()?;
    fs::rename(fresh, packed)
}

/// What the engine's side and the writer both look at.
#[derive(Default)]
struct Shared {
    queued: AtomicUsize,
    /// The disk refused something, and is left alone now.
    failing: AtomicBool,
}

/// The end of the queue that the engine's side holds.
struct Queue {
    pieces: SyncSender<Piece>,
    shared: Arc<Shared>,
}

/// Waits for the writer.
pub(super) struct Writing(oneshot::Receiver<()>);

impl Writing {
    /// Waits, not for long, until everything is on the disk. The sink must be gone.
    pub(super) async fn finish(self) {
        let _ = tokio::time::timeout(FINISH_WITHIN, self.0).await;
    }
}

/// Starts the writer.
pub(super) fn start(files: FlightFiles, inputs: UnboundedSender<Input>) -> io::Result<(Box<dyn Sink>, Writing)> {
    let (pieces, waiting) = sync_channel(QUEUE_PIECES);
    let (done, finished) = oneshot::channel();
    let shared = Arc::new(Shared::default());
    let mut writer = Writer { files, shared: shared.clone(), file: None, unsynced: None, inputs, failed: None };
    std::thread::Builder::new().name("flight-recorder".to_owned()).spawn(move || {
        writer.run(&waiting);
        let _ = done.send(());
    })?;
    Ok((Box::new(Queue { pieces, shared }), Writing(finished)))
}

impl Sink for Queue {
    fn put(&mut self, piece: Piece) -> bool {
        let bytes = size(&piece);
        if self.shared.failing.load(Ordering::Relaxed) {
            return false;
        }
        if self.shared.queued.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES || self.pieces.try_send(piece).is_err()
        {
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn ready(&self) -> bool {
        !self.shared.failing.load(Ordering::Relaxed) && self.shared.queued.load(Ordering::Relaxed) < QUEUE_BYTES / 2
    }

    fn wall_ns(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        u64::try_from(wall).unwrap_or(u64::MAX)
    }
}

fn size(piece: &Piece) -> usize {
    match piece {
        Piece::Segment(bytes) | Piece::More { bytes, .. } => bytes.len(),
    }
}

struct Writer {
    files: FlightFiles,
    shared: Arc<Shared>,
    /// The present segment; none before the first, and after an error.
    file: Option<File>,
    /// Since when something that was decided is not on the disk.
    unsynced: Option<Instant>,
    inputs: UnboundedSender<Input>,
    failed: Option<Instant>,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Piece>) {
        loop {
            let received = waiting.recv_timeout(SYNC_WITHIN);
            let result = match received {
                Ok(piece) => {
                    self.shared.queued.fetch_sub(size(&piece), Ordering::Relaxed);
                    self.write(piece)
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.sync();
                    return;
                }
            };
            let due = self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_WITHIN);
            if let Err(error) = result.and_then(|()| if due { self.sync() } else { Ok(()) }) {
                self.fail(&error);
            }
            if self.failed.is_some_and(|at| at.elapsed() >= AGAIN_AFTER) {
                // A segment comes next, and shows whether it works again.
                self.shared.failing.store(false, Ordering::Relaxed);
            }
        }
    }

    fn write(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Segment(bytes) => {
                self.sync()?;
                self.file = None;
                let mut file = self.create(bytes.len())?;
                file.write_all(&bytes)?;
                self.file = Some(file);
                if self.failed.take().is_some() {
                    self.tell(None);
                }
            }
            Piece::More { bytes, decided } => {
                // Without a file, it belongs to a segment that could not be written.
                let Some(file) = &mut self.file else { return Ok(()) };
                file.write_all(&bytes)?;
                if decided {
                    self.unsynced.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = None;
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Makes room, and the next file.
    fn create(&self, bytes: usize) -> io::Result<File> {
        let directory = &self.files.directory;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        pack_all(directory)?;
        let files = FlightFiles::list(directory)?;
        let sizes: Vec<u64> = files.iter().map(|f| fs::metadata(f).map_or(0, |m| m.len())).collect();
        let mut total: u64 = sizes.iter().sum::<u64>() + self.files.limits().segment_after(bytes) as u64;
        for (file, size) in files.iter().zip(sizes).take(files.len().saturating_sub(1)) {
            if total <= self.files.total_bytes {
                break;
            }
            fs::remove_file(file)?;
            total -= size;
        }
        let next = files.last().and_then(|f| number(f)).map_or(1, |n| n + 1);
        let path = directory.join(format!("{next:08}.rec"));
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        self.unsynced = None;
        self.shared.failing.store(true, Ordering::Relaxed);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.give_way();
        }
        let first = self.failed.is_none();
        self.failed = Some(Instant::now());
        if first {
            let directory = self.files.directory.display();
            self.tell(Some(format!(
                "{directory}: {error}; what happens now cannot be replayed; tried again all the time"
            )));
        }
    }

    /// On a full disk what must be written goes before what was: the oldest recordings are removed, two segments' worth each time, but
    /// for the latest.
    fn give_way(&self) {
        let files = FlightFiles::list(&self.files.directory).unwrap_or_default();
        let mut freed = 0;
        for file in files.iter().take(files.len().saturating_sub(1)) {
            if freed >= 2 * self.files.segment_bytes {
                break;
            }
            freed += fs::metadata(file).map_or(0, |m| m.len());
            let _ = fs::remove_file(file);
        }
    }

    fn tell(&self, trouble: Option<String>) {
        let _ = self.inputs.send(Input::Trouble { part: "flight recorder".to_owned(), trouble });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// Bytes that cannot be packed any smaller (xorshift64, Marsaglia 2003).
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |()| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        };
        std::iter::repeat_n((), length).map(next).collect()
    }

    fn segment(seed: u64) -> Piece {
        Piece::Segment(noise(seed, 200))
    }

    fn more(seed: u64) -> Piece {
        Piece::More { bytes: noise(seed + 1000, 800), decided: true }
    }

    fn names(files: &FlightFiles) -> Vec<String> {
        let list = FlightFiles::list(&files.directory).unwrap();
        list.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn the_oldest_files_go_when_there_is_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let files =
            FlightFiles { total_bytes: 5000, segment_bytes: 1000, ..FlightFiles::new(directory.path().join("flight")) };
        let (inputs, _inbox) = unbounded_channel();
        let (mut sink, writing) = start(files.clone(), inputs).unwrap();
        for seed in 1..=20 {
            assert!(sink.put(segment(seed)) && sink.put(more(seed)));
        }
        drop(sink);
        writing.finish().await;
        assert_eq!(names(&files), ["00000017.rec.gz", "00000018.rec.gz", "00000019.rec.gz", "00000020.rec"]);
        let whole = |seed| [noise(seed, 200), noise(seed + 1000, 800)].concat();
        let list = FlightFiles::list(&files.directory).unwrap();
        for (file, seed) in list.iter().zip(17..) {
            assert_eq!(FlightFiles::read(file).unwrap(), whole(seed), "{}", file.display());
        }
        // A later life goes on in the same ring.
        let (inputs, _inbox) = unbounded_channel();
        let (mut sink, writing) = start(files.clone(), inputs).unwrap();
        assert!(sink.put(segment(21)));
        drop(sink);
        writing.finish().await;
        assert_eq!(names(&files)[2..], ["00000020.rec.gz", "00000021.rec"]);
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_told_once_and_nothing_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let blocked = directory.path().join("flight");
        fs::write(&blocked, "a file where the directory should be").unwrap();
        let (inputs, mut inbox) = unbounded_channel();
        let (mut sink, writing) = start(FlightFiles::new(&blocked), inputs).unwrap();
        sink.put(segment(1));
        let Some(Input::Trouble { part, trouble: Some(what) }) = inbox.recv().await else { panic!("no trouble told") };
        assert_eq!(part, "flight recorder");
        assert!(what.contains(blocked.to_str().unwrap()), "{what}");
        assert!(!sink.ready() && !sink.put(segment(2)), "not before the disk is tried again");
        drop(sink);
        writing.finish().await;
        assert!(inbox.try_recv().is_err(), "told once");
    }
}
