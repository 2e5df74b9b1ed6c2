//! A real NBD server on the laboratory's networks: nbd-server(1), a program of the host's, outside of the guests.
//!
//! Decides what it exports, and how it hangs, dies and comes back. What is written stays in files of the laboratory's.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::lab::{KernelLab, pause};
use crate::command::run;
use crate::node::within;
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

/// Where it listens: the laboratory's own address on the network of the nodes.
pub const NBD_SERVER: &str = "10.77.0.254:10809";

/// Something that is exported.
#[derive(Clone, Copy, Debug)]
pub struct Exported<'a> {
    /// Its name.
    pub name: &'a str,
    /// In bytes.
    pub size: u64,
    /// More lines of its section in the configuration.
    pub settings: &'a str,
}

/// A server with its clients' processes; dropping it ends them all.
pub struct NbdServer {
    namespace: String,
    configuration: PathBuf,
    running: Option<Pid>,
}

impl NbdServer {
    /// Makes what is exported, and starts the server.
    pub fn start(lab: &KernelLab, exports: &[Exported<'_>]) -> Result<NbdServer> {
        if !Path::new("/usr/bin/nbd-server").exists() && !Path::new("/bin/nbd-server").exists() {
            return Err(Trouble::new("this test NEEDS nbd-server: it was NOT RUN; install it, or use tests/run"));
        }
        // The target's folder goes with the laboratory.
        let directory = lab.target().dir().join("nbd");
        fs::create_dir(&directory).to("make a folder for the server")?;
        let mut text = "[generic]\n  allowlist = true\n".to_owned();
        for Exported { name, size, settings } in exports {
            let file = directory.join(name);
            fs::File::create(&file).and_then(|file| file.set_len(*size)).to(format!("make the export {name}"))?;
            let _ = writeln!(text, "[{name}]\n  exportname = {}\n  {settings}", file.display());
        }
        let configuration = directory.join("configuration");
        fs::write(&configuration, text).to("configure the server")?;
        let mut server = NbdServer { namespace: lab.namespace().to_owned(), configuration, running: None };
        server.go_on()?;
        Ok(server)
    }

    /// Starts it again after [`NbdServer::die`].
    pub fn go_on(&mut self) -> Result<()> {
        let noted = self.configuration.with_file_name("pid");
        let _ = fs::remove_file(&noted);
        let arguments =
            ["-C", &self.configuration.to_string_lossy(), "-p", &noted.to_string_lossy()].map(str::to_owned);
        let inside = ["netns", "exec", &self.namespace, "nbd-server"].map(str::to_owned);
        let arguments: Vec<String> = inside.into_iter().chain(arguments).collect();
        run("ip", &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        // It goes to the background before it notes its number, which is that of its group too.
        let read = || fs::read_to_string(&noted).map_err(Trouble::from)?.trim().parse().map_err(Trouble::from);
        self.running = Some(Pid::from_raw(eventually("nbd-server has noted its number", read)));
        let namespace = self.namespace.clone();
        eventually("the NBD server listens", || {
            within(&namespace, || TcpStream::connect(NBD_SERVER).to("connect")).inspect_err(|_| pause())
        });
        Ok(())
    }

    /// It is killed with all its connections, and its machine says so to the clients.
    pub fn die(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |running| signal(running, Signal::SIGKILL))
    }

    /// It answers nothing any more, and keeps its connections.
    pub fn hang(&self) -> Result<()> {
        self.running.map_or(Ok(()), |running| signal(running, Signal::SIGSTOP))
    }

    /// It goes on after [`NbdServer::hang`].
    pub fn wake(&self) -> Result<()> {
        self.running.map_or(Ok(()), |running| signal(running, Signal::SIGCONT))
    }

    /// The file behind an export.
    pub fn file(&self, name: &str) -> PathBuf {
        self.configuration.with_file_name(name)
    }
}

/// With the processes that it has made for its clients.
fn signal(running: Pid, signal: Signal) -> Result<()> {
    killpg(running, signal).to(format!("send {signal} to nbd-server"))
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        if let Err(trouble) = self.die() {
            eprintln!("laboratory: {trouble}");
        }
    }
}
