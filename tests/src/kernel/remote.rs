//! Commands in a guest: what travels between the laboratory and the command server inside, one JSON line each way.
//!
//! Decides nothing about who runs what; leaves time-outs to the side that asks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::thread;

use nix::unistd::gethostname;
use serde::{Deserialize, Serialize};

use super::initiator;
use super::spec::{COMMANDS, Network, Role, Spec};
use crate::trouble::{Result, Trouble, While as _};

/// A program to be run to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Its path, or its name.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// How it ended, and what it wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// What was run, and on which node.
    pub what: String,
    /// Its exit status; 128 and the number of the signal that ended it; 127 if it could not be started.
    pub status: i32,
    /// What it wrote to its standard output.
    pub output: String,
    /// What it wrote to its standard error.
    pub errors: String,
}

impl Ended {
    /// Its output if it ended well, else an error that says how it did end.
    pub fn good(self) -> Result<String> {
        if self.status == 0 {
            return Ok(self.output);
        }
        let Ended { what, status, output, errors } = self;
        Err(Trouble::new(format!("{what}: status {status}: {} {}", errors.trim(), output.trim())))
    }
}

/// Inside: takes commands, and brings a node's disks.
pub fn serve(spec: &Spec) -> Result<()> {
    if let Role::Node(paths) = spec.role {
        initiator::log_in(paths);
    }
    listen(&format!("{}:{COMMANDS}", spec.address(Network::Control)))
}

/// Inside: runs what it is asked for at this address, each on its own thread, for ever.
pub fn listen(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).to(format!("listen on {address}"))?;
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // Who asked may be gone: nobody is there to be told.
            let _ = answer(stream);
        });
    }
    Ok(())
}

fn answer(stream: TcpStream) -> Result<()> {
    let asked: Asked = receive(&stream)?;
    let done = Command::new(&asked.program).args(&asked.arguments).stdin(Stdio::null()).output();
    let node = gethostname().to("ask for the host's name")?;
    let what = format!("{} {} on {}", asked.program, asked.arguments.join(" "), node.to_string_lossy());
    let ended = match done {
        Ok(output) => Ended {
            what,
            status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => Ended { what, status: 127, output: String::new(), errors: format!("could not be run: {error}") },
    };
    send(&stream, &ended)
}

/// Sends one line.
pub(crate) fn send(mut stream: &TcpStream, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).to("send a line")
}

/// Receives one line.
pub(crate) fn receive<T: for<'a> Deserialize<'a>>(stream: &TcpStream) -> Result<T> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).to("receive a line")?;
    if line.is_empty() {
        return Err(Trouble::new("the connection ended without an answer"));
    }
    serde_json::from_str(&line).map_err(Trouble::from)
}
