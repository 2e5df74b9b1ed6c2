//! What each check before mounting does about filesystems that are really damaged.

use super::*;

/// A filesystem with a file `page`, unmounted and clean.
fn with_a_page() -> Option<Storage> {
    let storage = Storage::new()?;
    let image = storage.directory.path().join("page");
    std::fs::write(&image, "hello").unwrap();
    change(&storage, &format!("write {} page", image.display()));
    Some(storage)
}

/// Writes into the filesystem's own tables, past all of its care (debugfs(8)).
fn change(storage: &Storage, how: &str) {
    let done = Command::new("debugfs").args(["-w", "-R", how, &storage.device]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    // It exits with 0 whatever happened, and says its version in any case.
    assert!(done.status.success() && said.lines().count() == 1, "{how}: {said}");
}

/// As the kernel does when it finds an error: the next check goes through all of it.
fn mark_as_wrong(storage: &Storage) {
    change(storage, "set_super_value state 2");
}

/// A second file, whose data lie where those of `page` do: whose they are is for somebody to decide.
fn let_two_files_have_one_block(storage: &Storage) {
    let image = storage.directory.path().join("page");
    change(storage, &format!("write {} other", image.display()));
    let block = output(Command::new("debugfs").args(["-R", "blocks page", &storage.device])).unwrap();
    // The fields of an inode's block map are, with extents, their tree: this one is where the first extent begins.
    change(storage, &format!("set_inode_field other block[5] {block}"));
}

/// What a check that changes nothing says of it.
fn is_damaged(storage: &Storage) -> bool {
    let found = Command::new("fsck.ext4").args(["-n", "-f", &storage.device]).output().unwrap();
    !found.status.success()
}

fn checked(storage: &Storage, fsck: Fsck) -> Filesystem {
    Filesystem::new(FilesystemSpec { fsck: Some(fsck), ..storage.spec() })
}

fn links(storage: &Storage) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(storage.at().join("page")).unwrap().nlink()
}

async fn is_refused(storage: &Storage, fsck: Fsck) {
    let Failed(why) = checked(storage, fsck).start(&context("data")).await.unwrap_err();
    assert!(why.contains("fsck.ext4") && why.contains(&storage.device), "{why}");
    assert!(why.contains("repair it by hand, on one node only"), "{why}");
    assert_eq!(mounts::at(&storage.at()).unwrap(), None, "{fsck:?}");
    assert!(is_damaged(storage), "{fsck:?} changed what it could not repair");
}

#[tokio::test]
async fn preen_corrects_what_is_safe_to_correct_and_it_is_served() {
    let Some(storage) = with_a_page() else { return };
    change(&storage, "set_super_value free_blocks_count 1");
    change(&storage, "set_inode_field page links_count 5");
    mark_as_wrong(&storage);
    assert!(is_damaged(&storage));
    let data = context("data");
    // It is what ext4 gets unasked.
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    assert_eq!(links(&storage), 1);
    assert_eq!(std::fs::read_to_string(storage.at().join("page")).unwrap(), "hello");
    filesystem.stop(&data).await.unwrap();
    assert!(!is_damaged(&storage));
}

#[tokio::test]
async fn force_finds_what_the_quick_look_of_preen_passes() {
    let Some(storage) = with_a_page() else { return };
    // Nothing tells that anything is wrong.
    change(&storage, "set_inode_field page links_count 5");
    let data = context("data");
    let quick = checked(&storage, Fsck::Preen);
    quick.start(&data).await.unwrap();
    assert_eq!(links(&storage), 5);
    quick.stop(&data).await.unwrap();
    let whole = checked(&storage, Fsck::Force);
    whole.start(&data).await.unwrap();
    assert_eq!(links(&storage), 1);
    whole.stop(&data).await.unwrap();
}

#[tokio::test]
async fn what_needs_decisions_is_refused_and_stays_unmounted() {
    let Some(storage) = with_a_page() else { return };
    let_two_files_have_one_block(&storage);
    is_refused(&storage, Fsck::Force).await;
    mark_as_wrong(&storage);
    is_refused(&storage, Fsck::Preen).await;
    // Repaired by hand it is served.
    let repaired = Command::new("fsck.ext4").args(["-y", &storage.device]).output().unwrap();
    assert_eq!(repaired.status.code(), Some(1), "{repaired:?}");
    let (filesystem, data) = (checked(&storage, Fsck::Preen), context("data"));
    filesystem.start(&data).await.unwrap();
    filesystem.stop(&data).await.unwrap();
}

#[tokio::test]
async fn a_device_on_which_there_is_no_such_filesystem_is_refused() {
    let Some(storage) = Storage::new() else { return };
    // All of its superblocks.
    std::fs::write(&storage.device, vec![0_u8; 16 << 20]).unwrap();
    is_refused(&storage, Fsck::Preen).await;
}

#[tokio::test]
async fn never_mounts_what_it_has_not_looked_at() {
    let Some(storage) = with_a_page() else { return };
    let_two_files_have_one_block(&storage);
    mark_as_wrong(&storage);
    let (filesystem, data) = (checked(&storage, Fsck::Never), context("data"));
    filesystem.start(&data).await.unwrap();
    assert_eq!(mounts::at(&storage.at()).unwrap().unwrap().source, Path::new(&storage.device));
    filesystem.stop(&data).await.unwrap();
    assert!(is_damaged(&storage));
}
