//! What a monitor finds out about filesystems that are mounted and do not work.

use super::*;
use std::os::unix::fs::symlink;

fn checked(storage: &Storage, check: Option<Check>) -> Filesystem {
    Filesystem::new(FilesystemSpec { check, ..storage.spec() })
}

/// What the filesystem holds, but for what every ext4 holds.
fn files(storage: &Storage) -> Vec<String> {
    let names = std::fs::read_dir(storage.at()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lost+found").collect()
}

fn own_file() -> String {
    format!(".ha-check.web.data.{}", context("data").node)
}

fn run(command: &str, place: &Path) {
    let done = Command::new("sh").args(["-c", command]).current_dir(place).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Nothing is written to it until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(storage: &Storage) -> Frozen {
        run(&format!("fsfreeze --freeze {}", storage.at().display()), Path::new("/"));
        Frozen(storage.at())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
    }
}

/// How many looks are under way: each has the root open.
fn open_roots(storage: &Storage) -> usize {
    let opened = std::fs::read_dir("/proc/self/fd").unwrap();
    opened.filter(|file| std::fs::read_link(file.as_ref().unwrap().path()).is_ok_and(|to| to == storage.at())).count()
}

async fn works_and_holds_nothing_of_it(storage: Storage) {
    let data = context("data");
    for check in [None, Some(Check::Read), Some(Check::Write)] {
        let filesystem = checked(&storage, check);
        filesystem.start(&data).await.unwrap();
        let before = files(&storage);
        for _ in 0..3 {
            assert_eq!(filesystem.monitor(&data).await, Verdict::Good, "{check:?}");
        }
        assert_eq!(files(&storage), before);
        filesystem.stop(&data).await.unwrap();
    }
}

#[tokio::test]
async fn an_ext4_that_works_is_good_and_nothing_stays_in_it() {
    let Some(storage) = Storage::new() else { return };
    works_and_holds_nothing_of_it(storage).await;
}

#[tokio::test]
async fn an_xfs_that_works_is_good_and_nothing_stays_in_it() {
    let Some(storage) = Storage::of("xfs", 512) else { return };
    works_and_holds_nothing_of_it(storage).await;
}

#[tokio::test]
async fn a_btrfs_that_works_is_good_and_nothing_stays_in_it() {
    let Some(storage) = Storage::of("btrfs", 512) else { return };
    works_and_holds_nothing_of_it(storage).await;
}

/// As when an array or a target loses its disk: the kernel still answers for it, out of its memory.
#[tokio::test]
async fn a_device_that_has_nothing_any_more_is_found_by_either_check_only() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    checked(&storage, None).start(&data).await.unwrap();
    run(&format!("truncate -s 0 image && losetup --set-capacity {}", storage.device), storage.directory.path());
    assert_eq!(checked(&storage, None).monitor(&data).await, Verdict::Good);
    let found = checked(&storage, Some(Check::Read)).monitor(&data).await;
    assert!(matches!(&found, Verdict::Bad(why) if why.contains(&storage.device)), "{found:?}");
    let found = checked(&storage, Some(Check::Write)).monitor(&data).await;
    assert!(matches!(&found, Verdict::Bad(why) if why.contains("cannot be written")), "{found:?}");
}

/// ext4 with `errors=remount-ro`, told by its own means that it met an error.
#[tokio::test]
async fn a_filesystem_that_the_kernel_has_turned_read_only_is_bad_and_it_is_said_why() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let options = vec!["errors=remount-ro".to_owned()];
    let filesystem = Filesystem::new(FilesystemSpec { options, check: Some(Check::Write), ..storage.spec() });
    filesystem.start(&data).await.unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    let name = storage.device.trim_start_matches("/dev/");
    std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "an error of a test").unwrap();
    let found = filesystem.monitor(&data).await;
    assert!(matches!(&found, Verdict::Bad(why) if why.contains("has become read-only")), "{found:?}");
    filesystem.stop(&data).await.unwrap();
    // What the kernel found wrong is looked for before it is served again.
    filesystem.start(&data).await.unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    filesystem.stop(&data).await.unwrap();
}

/// XFS gives up as a whole, and its mount shows nothing of it.
#[tokio::test]
async fn a_filesystem_that_has_given_up_is_bad() {
    let Some(storage) = Storage::of("xfs", 512) else { return };
    let data = context("data");
    let filesystem = checked(&storage, Some(Check::Write));
    filesystem.start(&data).await.unwrap();
    run(&format!("xfs_io -x -c shutdown {}", storage.at().display()), Path::new("/"));
    let found = filesystem.monitor(&data).await;
    assert!(matches!(&found, Verdict::Bad(why) if why.contains("cannot be written")), "{found:?}");
    filesystem.stop(&data).await.unwrap();
}

#[tokio::test]
async fn a_frozen_filesystem_is_not_known_to_be_bad_and_is_looked_at_once() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = checked(&storage, Some(Check::Write));
    filesystem.start(&data).await.unwrap();
    let short = within(&data, Duration::from_millis(300));
    let frozen = Frozen::new(&storage);
    assert_eq!(checked(&storage, Some(Check::Read)).monitor(&data).await, Verdict::Good);
    let found = filesystem.monitor(&short).await;
    assert!(matches!(&found, Verdict::Unknown(why) if why.contains("does not answer")), "{found:?}");
    for _ in 0..3 {
        let found = filesystem.monitor(&short).await;
        assert!(matches!(&found, Verdict::Unknown(why) if why.contains("an earlier look")), "{found:?}");
    }
    assert_eq!(open_roots(&storage), 1);
    let Failed(why) = filesystem.stop(&within(&data, Duration::from_secs(1))).await.unwrap_err();
    assert!(why.contains("a look of its monitor that has not come back"), "{why}");
    drop(frozen);
    until("the look has come back", || filesystem.looking.enter().map(drop)).await;
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    assert_eq!(files(&storage), Vec::<String>::new());
    filesystem.stop(&data).await.unwrap();
}

/// A full filesystem is as full on every other node.
#[tokio::test]
async fn a_full_filesystem_is_no_reason_to_go_elsewhere() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = checked(&storage, Some(Check::Write));
    filesystem.start(&data).await.unwrap();
    let filled = Command::new("dd").args(["if=/dev/zero", "of=filler", "bs=1k"]).current_dir(storage.at()).output();
    assert!(!filled.unwrap().status.success());
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    assert!(filesystem.full.load(std::sync::atomic::Ordering::Relaxed), "it was not full");
    assert_eq!(files(&storage), ["filler"]);
    filesystem.stop(&data).await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_look_left_is_taken_away_and_a_link_is_not_followed() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = checked(&storage, Some(Check::Write));
    filesystem.start(&data).await.unwrap();
    std::fs::write(storage.at().join(own_file()), "of a node that lost power in the middle of a look, and longer")
        .unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    assert_eq!(files(&storage), Vec::<String>::new());
    let precious = storage.directory.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    symlink(&precious, storage.at().join(own_file())).unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    // Nobody's file is taken away for it.
    std::fs::create_dir(storage.at().join(own_file())).unwrap();
    assert!(matches!(filesystem.monitor(&data).await, Verdict::Bad(why) if why.contains(&own_file())));
    filesystem.stop(&data).await.unwrap();
}
