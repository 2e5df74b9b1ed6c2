use super::*;
use crate::test_support::until;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Stdio};

const PATIENT: Duration = Duration::from_secs(30);
const HASTY: Duration = Duration::from_millis(200);

fn file(path: &Path, size: u64) -> PathBuf {
    std::fs::File::create(path).unwrap().set_len(size).unwrap();
    path.to_owned()
}

/// `None`, said loudly, if it does not work here.
fn output(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(done) if done.status.success() => Some(String::from_utf8(done.stdout).unwrap().trim().to_owned()),
        other => {
            eprintln!("SKIPPED: {command:?} does not work here: {other:?}");
            None
        }
    }
}

/// A loop device over a file of 4 MiB.
struct Loop {
    directory: tempfile::TempDir,
    device: PathBuf,
}

impl Loop {
    fn new(options: &[&str]) -> Option<Loop> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make loop devices");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = file(&directory.path().join("image"), 4 << 20);
        let device = output(Command::new("losetup").args(["--find", "--show"]).args(options).arg(image))?;
        Some(Loop { directory, device: device.into() })
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// From now on this thread, and threads and children that it makes, mount for themselves.
fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

/// An ext4 filesystem on a loop device, in a mount namespace of the calling thread's own.
struct Ext4 {
    below: Loop,
}

impl Ext4 {
    fn new() -> Option<Ext4> {
        let below = Loop::new(&[])?;
        private_mounts();
        output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&below.device))?;
        let ext4 = Ext4 { below };
        std::fs::create_dir(ext4.at()).unwrap();
        output(Command::new("mount").args(["-t", "ext4"]).arg(&ext4.below.device).arg(ext4.at()))?;
        Some(ext4)
    }

    fn at(&self) -> PathBuf {
        self.below.directory.path().join("mounted")
    }

    fn freeze(&self) {
        output(Command::new("fsfreeze").arg("--freeze").arg(self.at())).expect("freezing works");
    }

    fn thaw(&self) {
        output(Command::new("fsfreeze").arg("--unfreeze").arg(self.at())).expect("thawing works");
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        // Harmless when it is not frozen; a thread that hangs in it would keep this process for ever.
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(self.at()).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg("--lazy").arg(self.at()).stderr(Stdio::null()).status();
    }
}

async fn what_is_written_is_read(device: &DirectDevice) {
    let block = device.block_size() as usize;
    let data: Vec<u8> = (0..3 * block).map(|i| (i % 251) as u8).collect();
    device.write(block as u64, data.clone()).await.unwrap();
    assert_eq!(device.read(block as u64, data.len()).await.unwrap(), data);
    let last = device.size() - block as u64;
    device.write(last, vec![9; block]).await.unwrap();
    assert_eq!(device.read(last, block).await.unwrap(), vec![9; block]);
    assert_eq!(device.read(0, block).await.unwrap(), vec![0; block]);
}

#[tokio::test]
async fn a_block_device_has_its_own_blocks_and_is_written_past_every_cache() {
    let Some(storage) = Loop::new(&[]) else { return };
    let device = DirectDevice::open(&storage.device, PATIENT).unwrap();
    assert_eq!((device.block_size(), device.size(), device.caching()), (512, 4 << 20, &Caching::None));
    what_is_written_is_read(&device).await;
    let mut below = [0; 512];
    std::fs::File::open(storage.image()).unwrap().read_exact_at(&mut below, (4 << 20) - 512).unwrap();
    assert_eq!(below, [9; 512]);
}

#[tokio::test]
async fn a_block_device_with_large_blocks_is_used_in_them() {
    let Some(storage) = Loop::new(&["--sector-size", "4096"]) else { return };
    let device = DirectDevice::open(&storage.device, PATIENT).unwrap();
    assert_eq!(device.block_size(), 4096);
    what_is_written_is_read(&device).await;
}

#[tokio::test]
async fn a_file_on_a_disk_filesystem_is_read_and_written_directly() {
    let Some(ext4) = Ext4::new() else { return };
    // Its end belongs to no whole block and is left alone.
    let device = DirectDevice::open(file(&ext4.at().join("area"), (1 << 20) + 100), PATIENT).unwrap();
    assert_eq!((device.block_size(), device.size(), device.caching()), (4096, 1 << 20, &Caching::None));
    what_is_written_is_read(&device).await;
}

#[tokio::test]
async fn a_file_in_memory_serves_for_trials() {
    // tmpfs refuses direct I/O before Linux 6.6.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = DirectDevice::open(file(&directory.path().join("area"), 1 << 20), PATIENT).unwrap();
    what_is_written_is_read(&device).await;
}

#[tokio::test]
async fn without_direct_io_a_file_is_used_with_the_reason_told() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    private_mounts();
    // It has none in any version.
    output(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(directory.path())).unwrap();
    let device = DirectDevice::open(file(&directory.path().join("area"), 1 << 20), PATIENT).unwrap();
    let Caching::PageCache { reason } = device.caching() else { panic!("direct I/O on ramfs") };
    assert!(reason.contains("direct I/O is refused"), "{reason}");
    what_is_written_is_read(&device).await;
    output(Command::new("umount").arg("--lazy").arg(directory.path())).unwrap();
}

#[tokio::test]
async fn transfers_outside_of_the_device_or_its_blocks_are_errors_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let device = DirectDevice::open(file(&directory.path().join("area"), 16384), PATIENT).unwrap();
    for (offset, len) in
        [(0, 0), (1, 4096), (0, 100), (16384, 4096), (8192, 12288), (u64::MAX - 4095, 4096), (0, 1 << 40)]
    {
        let IoFailure::Error(why) = device.read(offset, len).await.unwrap_err() else { panic!("not an error") };
        assert!(why.contains("area: reading") && why.contains("is not possible"), "{why}");
    }
    assert!(matches!(device.write(16384, vec![1; 4096]).await, Err(IoFailure::Error(_))));
    assert!(matches!(device.write(0, vec![1; 4095]).await, Err(IoFailure::Error(_))));
    assert_eq!(device.read(0, 16384).await.unwrap(), vec![0; 16384]);
}

#[tokio::test]
async fn what_cannot_be_a_lock_area_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let open = |path: PathBuf| DirectDevice::open(path, PATIENT).unwrap_err();
    assert!(matches!(open(at("missing")), OpenError::NotFound(_)));
    assert!(matches!(open(directory.path().to_owned()), OpenError::Directory(_)));
    assert!(matches!(open("/dev/null".into()), OpenError::NotStorage(_)));
    let small = open(file(&at("small"), 4095));
    assert!(matches!(small, OpenError::TooSmall { size: 4095, block_size: 4096, .. }), "{small}");
    assert!(matches!(open(at("small").join("below")), OpenError::System { .. }));
}

#[tokio::test]
async fn what_is_read_only_is_refused_as_such() {
    if let Some(storage) = Loop::new(&["--read-only"]) {
        let error = DirectDevice::open(&storage.device, PATIENT).unwrap_err();
        assert!(matches!(error, OpenError::ReadOnly(_) | OpenError::NotPermitted(_)), "{error}");
    }
    let Some(ext4) = Ext4::new() else { return };
    let path = file(&ext4.at().join("area"), 1 << 20);
    output(Command::new("mount").args(["-o", "remount,ro"]).arg(ext4.at())).unwrap();
    assert!(matches!(DirectDevice::open(path, PATIENT), Err(OpenError::ReadOnly(_))));
}

#[test]
fn what_the_user_may_not_write_is_refused_as_such() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = file(&directory.path().join("area"), 1 << 20);
    // Of one thread, and of those that it makes; this one tidies up.
    let as_nobody = || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        DirectDevice::open(path, PATIENT)
    };
    let opened = std::thread::spawn(as_nobody).join().unwrap();
    assert!(matches!(opened, Err(OpenError::NotPermitted(_))), "{opened:?}");
}

#[tokio::test]
async fn an_error_of_the_device_reaches_the_caller_and_passes() {
    let Some(storage) = Loop::new(&[]) else { return };
    let device = DirectDevice::open(&storage.device, PATIENT).unwrap();
    let image = std::fs::OpenOptions::new().write(true).open(storage.image()).unwrap();
    image.set_len(1 << 20).unwrap();
    let IoFailure::Error(why) = device.read(2 << 20, 512).await.unwrap_err() else { panic!("not an error") };
    assert!(why.contains("reading 512 bytes at 2097152") && why.contains("Input/output error"), "{why}");
    assert_eq!(device.read(0, 512).await.unwrap(), [0; 512]);
    image.set_len(4 << 20).unwrap();
    assert_eq!(device.read(2 << 20, 512).await.unwrap(), [0; 512]);
}

#[tokio::test]
async fn storage_that_hangs_is_told_in_time_and_works_again_when_it_does() {
    let Some(ext4) = Ext4::new() else { return };
    // A hole: filling it needs the filesystem itself.
    let path = file(&ext4.at().join("area"), 1 << 20);
    let device = DirectDevice::open(&path, HASTY).unwrap();
    ext4.freeze();
    assert_eq!(device.write(0, vec![1; 4096]).await, Err(IoFailure::NoAnswer));
    // The thread hangs in that one, and these never begin, however many.
    let behind = (0..200).map(|_| device.write(4096, vec![2; 4096]));
    let answers = futures::future::join_all(behind).await;
    assert!(answers.iter().all(|answer| *answer == Err(IoFailure::NoAnswer)), "{answers:?}");
    assert_eq!(device.read(0, 4096).await, Err(IoFailure::NoAnswer));

    ext4.thaw();
    // That it was given up does not mean that it was not carried out.
    let mut first = Vec::new();
    for _ in 0..150 {
        match device.read(0, 4096).await {
            Ok(bytes) => {
                first = bytes;
                break;
            }
            Err(failure) => assert_eq!(failure, IoFailure::NoAnswer),
        }
    }
    assert_eq!(first, [1; 4096]);
    assert_eq!(DirectDevice::open(&path, PATIENT).unwrap().read(4096, 4096).await.unwrap(), [0; 4096]);
}

#[tokio::test]
async fn dropping_a_device_that_hangs_waits_for_nothing() {
    let Some(ext4) = Ext4::new() else { return };
    let path = file(&ext4.at().join("area"), 1 << 20);
    let device = DirectDevice::open(&path, HASTY).unwrap();
    ext4.freeze();
    assert_eq!(device.write(0, vec![1; 4096]).await, Err(IoFailure::NoAnswer));
    drop(device);
    ext4.thaw();
    // Only the storage had kept the thread.
    until("the thread has let go of the file", || {
        let held = Command::new("umount").arg(ext4.at()).stderr(Stdio::null()).status().unwrap();
        held.success().then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_thread_that_may_hang_holds_no_file_but_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory.path().join("area"), 16384);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let device = DirectDevice::open(&path, PATIENT).unwrap();
    let mut holders = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // Threads of other tests come and go.
        let Ok(files) = std::fs::read_dir(task.unwrap().path().join("fd")) else { continue };
        let link = |file: std::io::Result<std::fs::DirEntry>| {
            let file = file.ok()?;
            let number: u32 = file.file_name().to_str()?.parse().ok()?;
            // The standard streams may be anything.
            if number > 2 { std::fs::read_link(file.path()).ok() } else { None }
        };
        let open: Vec<PathBuf> = files.filter_map(link).collect();
        if open.contains(&path) {
            holders += 1;
            assert_eq!(open, [path.as_path()]);
        }
    }
    assert_eq!(holders, 1, "only one thread has the device");
    assert_eq!(device.read(0, 4096).await.unwrap(), [0; 4096]);
    drop(listener);
}
