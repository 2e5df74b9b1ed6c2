//! What the guest has for a root: an archive in memory with this project's programs, busybox, and the modules of its kernel.
//!
//! Programs bring the libraries that they are linked with, and leave what is there for debuggers behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::program;
use crate::trouble::{Result, Trouble, While as _};

/// The archive, in the laboratory's folder.
pub(super) const FILE: &str = "initrd";
/// Process number 1.
pub(super) const INIT: &str = "/bin/lab-guest";
/// In the guest: the names of the modules, in the order in which they are loaded, beside the modules.
pub(super) const MODULES: &str = "/modules/order";

/// Of this project.
const PROGRAMS: [&str; 5] = ["lab-guest", "lab-device", "lab-holder", "lab-stamp", "ha"];

/// Which modules the guest needs; each brings those that it needs itself.
const WANTED: [&str; 3] = ["virtio_net", "null_blk", "nvme_loop"];

/// Makes the archive in `dir`.
pub(super) fn build(kernel: &Path, files: &[(&str, String)], dir: &Path) -> Result<()> {
    let root = dir.join("root");
    for folder in ["bin", "dev", "proc", "sys", "run", "tmp", "etc", "modules"] {
        fs::create_dir_all(root.join(folder)).to("make the guest's root")?;
    }
    busybox(&root)?;
    for name in PROGRAMS {
        add_program(&root, &program(name)?)?;
    }
    modules(kernel, &root)?;
    for (path, text) in files {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&root)).and_then(|()| fs::write(&path, text)).to("write a file")?;
    }
    let archive = fs::File::create(dir.join(FILE)).to("create the archive")?;
    let names = fs::File::create(dir.join("names")).to("list the guest's files")?;
    tool(Command::new("find").arg(".").current_dir(&root).stdout(names), "findutils")?;
    let names = fs::File::open(dir.join("names")).to("list the guest's files")?;
    let mut pack = Command::new("cpio");
    tool(pack.args(["-o", "-H", "newc", "--quiet"]).current_dir(&root).stdin(names).stdout(archive), "cpio")?;
    fs::remove_dir_all(&root).to("remove the guest's root")
}

/// The usual tools, as one program.
fn busybox(root: &Path) -> Result<()> {
    let from = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let from = from.ok_or_else(|| Trouble::new("there is no busybox (package busybox-static)"))?;
    fs::copy(from, root.join("bin/busybox")).to("copy busybox")?;
    libraries(root, Path::new(from))?;
    let listed = crate::command::run(from, &["--list"])?;
    for name in listed.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).to(format!("link {name}"))?;
    }
    Ok(())
}

/// A program, without what is there for debuggers, and its libraries.
fn add_program(root: &Path, from: &Path) -> Result<()> {
    let name = from.file_name().unwrap_or_default();
    tool(Command::new("strip").arg("-o").arg(root.join("bin").join(name)).arg(from), "binutils")?;
    libraries(root, from)
}

/// The libraries that a program is linked with, if it is with any: of one that is not, `ldd` says so and fails.
fn libraries(root: &Path, program: &Path) -> Result<()> {
    let linked = crate::command::run("ldd", &[&program.to_string_lossy()]).unwrap_or_default();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap_or(root)).to("make a folder of libraries")?;
            fs::copy(library, &to).to(format!("copy {library}"))?;
        }
    }
    Ok(())
}

/// The modules, unpacked: the kernel need not be able to do that itself.
fn modules(kernel: &Path, root: &Path) -> Result<()> {
    let version = fs::read_to_string(kernel.join("version")).to("read the kernel's version")?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for module in WANTED {
        let (base, version) = (kernel.to_string_lossy(), version.trim());
        let lines = crate::command::run("modprobe", &["-d", &base, "-S", version, "--show-depends", module])?;
        let paths = lines.lines().filter_map(|line| line.strip_prefix("insmod ")).map(|path| path.trim().to_owned());
        order.extend(paths.filter(|path| seen.insert(path.clone())).map(PathBuf::from));
    }
    let mut names = Vec::new();
    for path in order {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = file.split(".ko").next().unwrap_or_default();
        let to = root.join("modules").join(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => fs::copy(&path, &to).map(drop).to(format!("copy {file}"))?,
            Some("xz") => unpack(Command::new("xz").arg("-dc"), "xz-utils", &path, &to)?,
            Some("zst") => unpack(Command::new("zstd").arg("-qdc"), "zstd", &path, &to)?,
            _ => return Err(Trouble::new(format!("{file} is packed in a way that is not known here"))),
        }
        names.push(name.to_owned());
    }
    fs::write(root.join(MODULES.trim_start_matches('/')), names.join("\n")).to("list the modules")
}

fn unpack(with: &mut Command, package: &str, from: &Path, to: &Path) -> Result<()> {
    let to = fs::File::create(to).to("create a module")?;
    tool(with.arg(from).stdout(to), package)
}

/// Runs a program of a package to its end.
fn tool(command: &mut Command, package: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stderr(Stdio::inherit()).status().to(format!("run {name} (package {package})"))?;
    if status.success() { Ok(()) } else { Err(Trouble::new(format!("{name}: {status}"))) }
}
