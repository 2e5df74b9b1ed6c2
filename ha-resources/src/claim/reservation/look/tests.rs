use super::*;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::os::unix::fs::symlink;

/// `/sys` and `/dev` as they would be, with nodes of devices that are not there: nothing may open them.
struct Made {
    directory: tempfile::TempDir,
}

impl Made {
    /// `None`, said loudly, if device files cannot be made here.
    fn new() -> Option<Made> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make device files");
            return None;
        }
        let made = Made { directory: tempfile::tempdir().unwrap() };
        for folder in ["sys/block", "sys/dev/block", "sys/subsystems", "dev/disk/by-id", "dev/mapper"] {
            fs::create_dir_all(made.at(folder)).unwrap();
        }
        Some(made)
    }

    fn at(&self, path: &str) -> PathBuf {
        // As sysfs, it has no symbolic links above.
        fs::canonicalize(self.directory.path()).unwrap().join(path)
    }

    fn system(&self) -> System {
        System { sys: self.at("sys"), dev: self.at("dev") }
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        symlink(self.at(target), self.at(path)).unwrap();
    }

    /// A block device with a folder in sysfs, and a node.
    fn device(&self, folder: &str, number: (u64, u64)) -> PathBuf {
        let (major, minor) = number;
        let name = folder.rsplit('/').next().unwrap();
        self.write(&format!("{folder}/dev"), &format!("{major}:{minor}\n"));
        self.write(&format!("{folder}/ro"), "0\n");
        self.write(&format!("{folder}/size"), "2048\n");
        self.link(&format!("sys/dev/block/{major}:{minor}"), folder);
        let node = self.at(&format!("dev/{name}"));
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR, makedev(major, minor)).unwrap();
        node
    }

    /// A disk of the bus `scsi` or `nvme`.
    fn disk(&self, name: &str, number: (u64, u64), bus: &str) -> PathBuf {
        let subsystem = format!("sys/subsystems/{bus}");
        fs::create_dir_all(self.at(&subsystem)).unwrap();
        let node = self.device(&format!("sys/block/{name}"), number);
        self.link(&format!("sys/block/{name}/device/subsystem"), &subsystem);
        node
    }

    /// A map of device-mapper over others.
    fn map(&self, name: &str, minor: u64, uuid: &str, below: &[&str]) -> PathBuf {
        let node = self.device(&format!("sys/block/{name}"), (254, minor));
        self.write(&format!("sys/block/{name}/dm/uuid"), uuid);
        self.write(&format!("sys/block/{name}/dm/name"), "data");
        for other in below {
            self.link(&format!("sys/block/{name}/slaves/{other}"), &format!("sys/block/{other}"));
            self.link(&format!("sys/block/{other}/holders/{name}"), &format!("sys/block/{name}"));
        }
        node
    }

    fn refusal(&self, path: &Path) -> String {
        let error = self.system().look_critically(path).unwrap_err().to_string();
        error.replace(&self.at("dev").display().to_string(), "/dev")
    }
}

#[test]
fn a_scsi_disk_is_one_path() {
    let Some(made) = Made::new() else { return };
    let node = made.disk("sda", (8, 0), "scsi");
    made.link("dev/disk/by-id/scsi-1SOMETHING", "dev/sda");
    made.link("dev/disk/by-id/wwn-0x60", "dev/sda");
    let (system, wwn) = (made.system(), made.at("dev/disk/by-id/wwn-0x60"));
    let disk = system.look(&wwn).unwrap();
    assert_eq!((disk.kind, disk.size, &disk.map), (Kind::Single(Driver::Scsi), 1 << 20, &None));
    let paths = system.paths(&wwn, &disk);
    assert_eq!((paths.len(), &paths[0].node.name, &paths[0].file), (1, &"sda".to_owned(), &wwn));
    assert_eq!(system.stable_name(&wwn, &disk), None);
    assert_eq!(system.stable_name(&node, &disk), Some(wwn), "the kernel's name is warned of");
}

#[test]
fn a_scsi_disk_is_commanded_through_its_character_device_if_there_is_one() {
    let Some(made) = Made::new() else { return };
    let node = made.disk("sda", (8, 0), "scsi");
    let generic = |made: &Made| {
        let system = made.system();
        system.paths(&node, &system.look(&node).unwrap())[0].generic.clone()
    };
    assert_eq!(generic(&made), None, "no module sg");
    made.write("sys/block/sda/device/scsi_generic/sg3/dev", "21:3\n");
    assert_eq!(generic(&made), Some(Generic { file: made.at("dev/sg3"), number: (21, 3) }));
}

#[test]
fn a_disk_that_comes_back_under_its_old_name_is_another_one() {
    let Some(made) = Made::new() else { return };
    let node = made.disk("sda", (8, 0), "scsi");
    let before = made.system().look(&node).unwrap();
    fs::rename(made.at("sys/block/sda"), made.at("sys/block/old")).unwrap();
    assert!(made.refusal(&node).starts_with("/dev/sda is there in name only"));
    for file in ["dev", "ro", "size"] {
        let text = fs::read_to_string(made.at("sys/block/old").join(file)).unwrap();
        made.write(&format!("sys/block/sda/{file}"), &text);
    }
    made.link("sys/block/sda/device/subsystem", "sys/subsystems/scsi");
    assert_ne!(made.system().look(&node).unwrap().node, before.node);
}

#[test]
fn an_nvme_namespace_is_named_by_the_kernel() {
    let Some(made) = Made::new() else { return };
    let node = made.disk("nvme0n1", (259, 0), "nvme-subsystem");
    made.write("sys/block/nvme0n1/wwid", "uuid.7a0c\n");
    let disk = made.system().look(&node).unwrap();
    assert_eq!(disk.kind, Kind::Single(Driver::Nvme));
    assert_eq!(made.system().paths(&node, &disk)[0].kernels_designator.as_deref(), Some("uuid.7a0c"));
}

#[test]
fn each_path_of_a_multipath_map_is_one() {
    let Some(made) = Made::new() else { return };
    made.disk("sdc", (8, 32), "scsi");
    let sdb = made.disk("sdb", (8, 16), "scsi");
    let node = made.map("dm-0", 0, "mpath-360\n", &["sdc", "sdb"]);
    made.link("dev/disk/by-id/dm-uuid-mpath-360", "dev/dm-0");
    let disk = made.system().look(&node).unwrap();
    assert_eq!((disk.kind, disk.map.as_deref()), (Kind::Multipath, Some("data")));
    let paths = made.system().paths(&node, &disk);
    let names: Vec<&str> = paths.iter().map(|path| path.node.name.as_str()).collect();
    assert_eq!((names, &paths[0].file), (vec!["sdb", "sdc"], &sdb));
    assert!(made.refusal(&sdb).ends_with("name /dev/disk/by-id/dm-uuid-mpath-360"), "{}", made.refusal(&sdb));

    // In a container that has the map only.
    fs::remove_file(sdb).unwrap();
    fs::remove_file(made.at("dev/sdc")).unwrap();
    let paths = made.system().paths(&node, &disk);
    assert_eq!((paths.len(), paths[0].driver, &paths[0].file), (1, Driver::Kernel, &node));
}

#[test]
fn what_is_no_whole_disk_is_refused_with_what_to_name() {
    let Some(made) = Made::new() else { return };
    made.disk("sda", (8, 0), "scsi");
    made.link("dev/disk/by-id/wwn-0x60", "dev/sda");
    let partition = made.device("sys/block/sda/sda1", (8, 1));
    made.write("sys/block/sda/sda1/partition", "1\n");
    let expected = "/dev/sda1 is a partition, and reservations are of whole disks: name /dev/disk/by-id/wwn-0x60";
    assert_eq!(made.refusal(&partition), expected);

    made.disk("sdb", (8, 16), "scsi");
    let volume = made.device("sys/block/dm-3", (254, 3));
    made.write("sys/block/dm-3/dm/uuid", "LVM-abc\n");
    made.link("sys/block/dm-3/slaves/sda1", "sys/block/sda/sda1");
    made.link("sys/block/dm-3/slaves/sdb", "sys/block/sdb");
    let refusal = made.refusal(&volume);
    assert!(refusal.contains("a logical volume"), "{refusal}");
    assert!(refusal.ends_with("name those underneath: /dev/disk/by-id/wwn-0x60, /dev/sdb"), "{refusal}");

    let raid = made.device("sys/block/md0", (9, 0));
    fs::create_dir(made.at("sys/block/md0/md")).unwrap();
    made.link("sys/block/md0/slaves/sdb", "sys/block/sdb");
    assert!(made.refusal(&raid).contains("a software RAID"));

    let looped = made.device("sys/block/loop0", (7, 0));
    assert!(made.refusal(&looped).contains("is a loop device"));
    assert!(made.refusal(&made.at("dev")).contains("is not a block device"));
    assert!(made.refusal(&made.at("dev/disk/by-id/wwn-0x61")).contains("does not exist"));
    made.write("sys/block/sdb/ro", "1\n");
    assert!(made.refusal(&made.at("dev/sdb")).contains("is read-only"));
}
