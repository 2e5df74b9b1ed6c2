mod damaged;
mod looked_at;

use super::*;
use crate::proc::{ProcessId, Stat};
use crate::test_support::{context, until, within};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A loop device with a filesystem, in a mount namespace of this test's own.
struct Storage {
    directory: tempfile::TempDir,
    device: String,
    fstype: &'static str,
}

impl Storage {
    /// With ext4. `None`, said loudly, where such a thing cannot be had.
    fn new() -> Option<Storage> {
        Storage::of("ext4", 16)
    }

    /// With a filesystem of this type, on so many MiB.
    fn of(fstype: &'static str, size: u64) -> Option<Storage> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can mount");
            return None;
        }
        // Of this thread only; threads and children that it makes share it.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(size << 20).unwrap();
        let force = if fstype == "ext4" { "-F" } else { "-f" };
        output(Command::new(format!("mkfs.{fstype}")).args(["-q", force]).arg(&image))?;
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let storage = Storage { directory, device, fstype };
        let known = std::fs::read_to_string("/proc/filesystems").unwrap();
        // A kernel may have it as a module, which the first mount loads.
        if !known.split_ascii_whitespace().any(|name| name == fstype) {
            let at = storage.directory.path().join("probe");
            std::fs::create_dir(&at).unwrap();
            output(Command::new("mount").args(["-t", fstype, &storage.device]).arg(&at))?;
            output(Command::new("umount").arg(&at)).unwrap();
        }
        Some(storage)
    }

    fn at(&self) -> PathBuf {
        self.directory.path().join("srv")
    }

    fn spec(&self) -> FilesystemSpec {
        FilesystemSpec {
            device: self.device.clone(),
            at: self.at(),
            fstype: self.fstype.to_owned(),
            options: vec!["noatime".to_owned()],
            fsck: None,
            mount_point: MountPoint::Created,
            not_empty: NotEmpty::Refuse,
            found_on: FoundOn::Node,
            check: None,
        }
    }

    /// Something that runs until it is ended, with the mounted filesystem as its directory.
    fn user(&self, script: &str) -> User {
        User::run(Command::new("sh").args(["-c", script]).current_dir(self.at()))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.at()).stderr(Stdio::null()).status();
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

struct User(Child);

impl User {
    /// In a process group of its own, and without our output, which whoever waits for its end would wait for.
    fn run(command: &mut Command) -> User {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        User(quiet.process_group(0).spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        Stat::of(i32::try_from(self.0.id()).unwrap()).unwrap().id()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(-i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn output(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(done) if done.status.success() => Some(String::from_utf8(done.stdout).unwrap().trim().to_owned()),
        other => {
            eprintln!("SKIPPED: {command:?} does not work here: {other:?}");
            None
        }
    }
}

#[tokio::test]
async fn a_filesystem_that_is_unmounted_by_somebody_else_is_noticed_at_once() {
    let Some(storage) = Storage::new() else { return };
    let resource = Filesystem::new(storage.spec());
    let x = context("unmounted");
    resource.start(&x).await.unwrap();
    let watching = resource.watch(&x);
    tokio::pin!(watching);
    // A mount of something else is none of its business.
    let other = storage.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    mount(Some("none"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let early = tokio::time::timeout(Duration::from_millis(20), &mut watching).await;
    assert!(early.is_err(), "{early:?}");
    nix::mount::umount(&storage.at()).unwrap();
    let why = tokio::time::timeout(Duration::from_secs(30), watching).await.unwrap();
    assert!(why.starts_with("nothing is mounted at "), "{why}");
    nix::mount::umount(&other).unwrap();
}

#[tokio::test]
async fn a_filesystem_is_mounted_seen_and_unmounted() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    assert_eq!(filesystem.ready().await, Ok(()));
    assert!(matches!(filesystem.monitor(&data).await, Verdict::Bad(_)));
    filesystem.stop(&data).await.unwrap();
    filesystem.start(&data).await.unwrap();
    filesystem.start(&data).await.unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    let found = mounts::at(&storage.at()).unwrap().unwrap();
    assert!(found.options.contains(&"noatime".to_owned()));
    std::fs::write(storage.at().join("page"), "hello").unwrap();
    filesystem.stop(&data).await.unwrap();
    assert_eq!(mounts::at(&storage.at()).unwrap(), None);
    filesystem.stop(&data).await.unwrap();
}

#[tokio::test]
async fn a_place_that_is_taken_is_left_alone() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    std::fs::create_dir(storage.at()).unwrap();
    mount(Some("other"), &storage.at(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let filesystem = Filesystem::new(storage.spec());
    let Failed(why) = filesystem.start(&data).await.unwrap_err();
    assert!(why.contains("other (tmpfs) is mounted there"), "{why}");
    assert!(matches!(filesystem.monitor(&data).await, Verdict::Bad(_)));
    filesystem.stop(&data).await.unwrap();
    assert!(mounts::at(&storage.at()).unwrap().is_some());
}

#[tokio::test]
async fn a_filesystem_that_went_read_only_is_bad() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    output(Command::new("mount").args(["-o", "remount,ro"]).arg(storage.at())).unwrap();
    assert!(matches!(filesystem.monitor(&data).await, Verdict::Bad(why) if why.contains("read-only")));
    filesystem.stop(&data).await.unwrap();
}

#[tokio::test]
async fn users_are_asked_to_leave_and_strangers_are_not() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    let user = storage.user("exec sleep 1000");
    let mapped = storage.user("exec 3<> file; cd /; exec sleep 1000");
    let stranger = User::run(Command::new("sleep").arg("1000").current_dir(storage.directory.path()));
    until("the file is open", || storage.at().join("file").exists().then_some(())).await;
    filesystem.stop(&data).await.unwrap();
    assert!(!user.id().is_alive());
    assert!(!mapped.id().is_alive());
    assert!(stranger.id().is_alive());
}

#[tokio::test]
async fn a_user_that_does_not_leave_is_named_and_then_killed() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    let stubborn = storage.user("trap '' TERM; touch trapped; while :; do sleep 0.05; done");
    until("it ignores the signal", || storage.at().join("trapped").exists().then_some(())).await;
    let Failed(why) = filesystem.stop(&within(&data, Duration::from_secs(1))).await.unwrap_err();
    assert!(why.contains("busy") && why.contains("sh (pid"), "{why}");
    assert!(stubborn.id().is_alive());
    filesystem.kill(&data).await.unwrap();
    assert!(!stubborn.id().is_alive());
}

#[tokio::test]
async fn who_comes_back_again_and_again_does_not_keep_it_mounted() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    // Outside itself, it starts users one after the other for as long as it can.
    let script = format!("cd /; while :; do (cd {} && exec sleep 1000); sleep 0.02; done", storage.at().display());
    let respawner = storage.user(&script);
    filesystem.kill(&data).await.unwrap();
    assert!(respawner.id().stat().is_some());
    assert_eq!(mounts::at(&storage.at()).unwrap(), None);
}

#[tokio::test]
async fn a_lazy_unmount_does_not_count() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    let user = storage.user("trap '' TERM; touch trapped; while :; do sleep 0.05; done");
    until("it ignores the signal", || storage.at().join("trapped").exists().then_some(())).await;
    output(Command::new("umount").arg("--lazy").arg(storage.at())).unwrap();
    let Failed(why) = filesystem.stop(&within(&data, Duration::from_secs(1))).await.unwrap_err();
    assert!(why.contains("the kernel still holds it") && why.contains("sh (pid"), "{why}");
    filesystem.kill(&data).await.unwrap();
    assert!(!user.id().is_alive());
}

#[tokio::test]
async fn a_mount_in_another_namespace_is_found() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    filesystem.start(&data).await.unwrap();
    let there = storage.directory.path().join("there");
    let script = format!("touch {}; exec sleep 1000", there.display());
    let mut container = Command::new("unshare");
    container.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir("/");
    let container = User::run(&mut container);
    until("the namespace is there", || there.exists().then_some(())).await;
    let Failed(why) = filesystem.stop(&within(&data, Duration::from_secs(1))).await.unwrap_err();
    assert!(why.contains("has it at"), "{why}");
    drop(container);
    filesystem.stop(&data).await.unwrap();
}

#[tokio::test]
async fn what_this_node_lacks_is_said_before_it_matters() {
    let spec = FilesystemSpec {
        device: "/dev/no-such-device".to_owned(),
        at: PathBuf::from("/no/such/place"),
        fstype: "ext4".to_owned(),
        options: Vec::new(),
        fsck: None,
        mount_point: MountPoint::Existing,
        not_empty: NotEmpty::Allow,
        found_on: FoundOn::Node,
        check: None,
    };
    let Failed(why) = Filesystem::new(spec.clone()).ready().await.unwrap_err();
    assert!(why.contains("no-such-device") && why.contains("`found_on: Hierarchy`"), "{why}");
    let brought = FilesystemSpec { found_on: FoundOn::Hierarchy, mount_point: MountPoint::Created, ..spec.clone() };
    assert_eq!(Filesystem::new(brought).ready().await, Ok(()));
    let spec = FilesystemSpec { device: "server:/export".to_owned(), fstype: "nfs".to_owned(), ..spec };
    let Failed(why) = Filesystem::new(spec.clone()).ready().await.unwrap_err();
    assert!(why.contains("/no/such/place"), "{why}");
    let at = tempfile::tempdir().unwrap();
    let spec = FilesystemSpec { at: at.path().to_owned(), fsck: Some(Fsck::Force), ..spec };
    let Failed(why) = Filesystem::new(spec).ready().await.unwrap_err();
    assert!(why.contains("fsck.nfs"), "{why}");
}

#[tokio::test]
async fn a_place_that_would_hide_files_or_leads_elsewhere_is_refused_before_anything_is_touched() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    std::fs::create_dir(storage.at()).unwrap();
    std::fs::write(storage.at().join("forgotten"), "x").unwrap();
    let filesystem = Filesystem::new(storage.spec());
    for Failed(why) in [filesystem.ready().await.unwrap_err(), filesystem.start(&data).await.unwrap_err()] {
        assert!(why.contains("not empty") && why.contains("\"forgotten\""), "{why}");
    }
    assert_eq!(mounts::at(&storage.at()).unwrap(), None);
    let hiding = Filesystem::new(FilesystemSpec { not_empty: NotEmpty::Allow, ..storage.spec() });
    assert_eq!(hiding.ready().await, Ok(()));
    hiding.start(&data).await.unwrap();
    // What is in the filesystem itself is no reason to refuse it where it is mounted.
    assert_eq!(filesystem.ready().await, Ok(()));
    filesystem.start(&data).await.unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    filesystem.stop(&data).await.unwrap();
    assert!(storage.at().join("forgotten").exists());

    let link = storage.directory.path().join("link");
    std::os::unix::fs::symlink(storage.at(), &link).unwrap();
    let linked = Filesystem::new(FilesystemSpec { at: link, ..storage.spec() });
    for Failed(why) in [linked.ready().await.unwrap_err(), linked.start(&data).await.unwrap_err()] {
        assert!(why.contains("symbolic link"), "{why}");
    }
    assert!(mounts::all().unwrap().iter().all(|mount| mount.source != Path::new(&storage.device)));
}

#[tokio::test]
async fn a_device_that_is_mounted_elsewhere_and_a_place_that_is_taken_are_refused() {
    let Some(storage) = Storage::new() else { return };
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    let elsewhere = storage.directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    output(Command::new("mount").arg(&storage.device).arg(&elsewhere)).unwrap();
    let Failed(why) = filesystem.start(&data).await.unwrap_err();
    assert!(why.contains(&format!("is mounted at {} too", elsewhere.display())), "{why}");
    assert!(!storage.at().exists(), "nothing was touched");
    output(Command::new("umount").arg(&elsewhere)).unwrap();
    std::fs::create_dir(storage.at()).unwrap();
    mount(Some("other"), &storage.at(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let Failed(why) = filesystem.ready().await.unwrap_err();
    assert!(why.contains("is taken: other (tmpfs)"), "{why}");
}

/// What must be so with every filesystem that keeps what it has on a device: its users are found, and the kernel lets go of the device.
async fn lives_here(storage: Storage) {
    let data = context("data");
    let filesystem = Filesystem::new(storage.spec());
    assert_eq!(filesystem.ready().await, Ok(()));
    filesystem.stop(&data).await.unwrap();
    filesystem.start(&data).await.unwrap();
    filesystem.start(&data).await.unwrap();
    assert_eq!(filesystem.monitor(&data).await, Verdict::Good);
    std::fs::write(storage.at().join("page"), "hello").unwrap();
    let stubborn = storage.user("exec 3<> page; trap '' TERM; touch trapped; while :; do sleep 0.05; done");
    until("it ignores the signal", || storage.at().join("trapped").exists().then_some(())).await;
    let Failed(why) = filesystem.stop(&within(&data, Duration::from_secs(1))).await.unwrap_err();
    assert!(why.contains("sh (pid"), "{why}");
    output(Command::new("umount").arg("--lazy").arg(storage.at())).unwrap();
    let Failed(why) = filesystem.stop(&within(&data, Duration::from_secs(1))).await.unwrap_err();
    assert!(why.contains("the kernel still holds it"), "{why}");
    filesystem.kill(&data).await.unwrap();
    assert!(!stubborn.id().is_alive());

    filesystem.start(&data).await.unwrap();
    assert_eq!(std::fs::read_to_string(storage.at().join("page")).unwrap(), "hello");
    output(Command::new("mount").args(["-o", "remount,ro"]).arg(storage.at())).unwrap();
    assert!(matches!(filesystem.monitor(&data).await, Verdict::Bad(why) if why.contains("read-only")));
    filesystem.kill(&data).await.unwrap();
    assert_eq!(mounts::at(&storage.at()).unwrap(), None);
}

#[tokio::test]
async fn xfs_lives_here_too() {
    let Some(storage) = Storage::of("xfs", 512) else { return };
    lives_here(storage).await;
}

#[tokio::test]
async fn btrfs_lives_here_too() {
    let Some(storage) = Storage::of("btrfs", 512) else { return };
    lives_here(storage).await;
}
