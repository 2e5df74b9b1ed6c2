//! The name and the folder of one laboratory, and the removal of what killed ones left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::command::run;
use crate::trouble::{Result, Trouble, While as _};

/// Where all laboratories of this machine have their folders.
pub(crate) const HOME: &str = "/run/ha-lab";
/// What the names of their network namespaces and control groups begin with.
pub(crate) const PREFIX: &str = "ha-lab-";

/// One laboratory's name and folder; the lock beside it says that it lives.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    _alive: Flock<File>,
}

impl Run {
    /// With its folder in memory of its own: what else is written on this machine does not slow what stands for hardware.
    pub(crate) fn in_memory() -> Result<Self> {
        let mut run = Run::new()?;
        run.dir.push("memory");
        fs::create_dir(&run.dir).to(format!("create {}", run.dir.display()))?;
        mount(Some("ha-lab"), &run.dir, Some("tmpfs"), MsFlags::empty(), Some("size=1g,mode=755"))
            .to("mount memory for the laboratory")?;
        Ok(run)
    }

    /// With its folder wherever `/run` is.
    pub(crate) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            return Err(Trouble::new("this test NEEDS ROOT (namespaces, loop devices): it was NOT RUN"));
        }
        sweep();
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(HOME).join(&id);
        fs::create_dir_all(&dir).to(format!("create {}", dir.display()))?;
        let file = File::create(dir.join("alive")).to("create the laboratory's lock")?;
        let alive = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| Trouble::new(format!("could not lock {}: {error}", dir.display())))?;
        Ok(Run { id, dir, _alive: alive })
    }

    /// The name of a network namespace or control group of this laboratory.
    pub(crate) fn name(&self, of: &str) -> String {
        format!("{PREFIX}{}-{of}", self.id)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        remove(&self.id);
    }
}

/// Removes what laboratories left whose process is gone. Their processes died with it.
fn sweep() {
    for entry in fs::read_dir(HOME).into_iter().flatten().flatten() {
        let Ok(file) = File::open(entry.path().join("alive")) else { continue };
        if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
            remove(&entry.file_name().to_string_lossy());
        }
    }
    // What could not be removed with its folder, such as a control group whose last process was still about to die.
    let folderless = |name: &str| {
        let id: Option<Vec<&str>> = name.strip_prefix(PREFIX).map(|rest| rest.splitn(3, '-').take(2).collect());
        id.is_some_and(|id| !Path::new(HOME).join(id.join("-")).exists())
    };
    remove_named(folderless);
}

/// Removes everything that bears a laboratory's name. What is not there any more is no error.
fn remove(id: &str) {
    let ours = format!("{PREFIX}{id}-");
    let dir = Path::new(HOME).join(id);
    for mounted in mounts_below(&dir) {
        let _ = umount2(&mounted, MntFlags::MNT_DETACH);
    }
    remove_named(|name| name.starts_with(&ours));
    let _ = fs::remove_dir_all(&dir);
}

/// Removes the network namespaces and control groups of certain names.
fn remove_named(which: impl Fn(&str) -> bool) {
    let named = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| which(name))
            .collect::<Vec<_>>()
    };
    for name in named(Path::new("/run/netns")) {
        let _ = run("ip", &["netns", "delete", &name]);
    }
    if let Some(root) = cgroup_root() {
        for name in named(&root) {
            remove_cgroup(&root.join(name));
        }
    }
}

/// Every mount point under a folder, the deepest first.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    found
}

/// Where the control groups of version 2 are, if anywhere.
pub(crate) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// Removes a control group with all below it; they must be empty of processes.
pub(crate) fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
