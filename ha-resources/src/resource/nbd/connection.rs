//! A connection to an NBD server, until the kernel has it.
//!
//! Decides that nothing on it is waited for beyond a deadline, and how soon the kernel finds out that the other end is gone, also when nothing
//! is asked of it. Leaves what is said on it to [`super::wire`].

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::Server;

/// So many questions a silent other end is asked before it is given up.
const QUESTIONS: u32 = 3;

/// The least that the kernel counts.
const SECOND: Duration = Duration::from_secs(1);

/// See the module's words.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    deadline: Instant,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Connects. Whatever is read or written fails from the deadline on.
    pub(super) fn open(server: &Server, deadline: Instant) -> io::Result<Connection> {
        let stream = match server {
            Server::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, left(deadline)?)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Server::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // So long connecting waits too, where many do.
                socket.set_write_timeout(Some(left(deadline)?))?;
                socket.connect(&SockAddr::unix(path)?)?;
                Stream::Unix(UnixStream::from(OwnedFd::from(socket)))
            }
        };
        Ok(Connection { stream, deadline })
    }

    /// Makes it what the kernel needs: without our deadline, and given up by itself when the other end is silent for `silence`.
    pub(super) fn for_kernel(&self, silence: Duration) -> io::Result<BorrowedFd<'_>> {
        self.limit(None)?;
        Ok(match &self.stream {
            Stream::Tcp(stream) => {
                let socket = SockRef::from(stream);
                let pause = (silence / QUESTIONS).max(SECOND);
                let alive = TcpKeepalive::new().with_time(pause).with_interval(pause).with_retries(QUESTIONS);
                socket.set_tcp_keepalive(&alive)?;
                socket.set_tcp_user_timeout(Some(silence))?;
                stream.as_fd()
            }
            // Its other end is on this machine: it cannot vanish without a word.
            Stream::Unix(stream) => stream.as_fd(),
        })
    }

    fn limit(&self, limit: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(limit).and_then(|()| stream.set_write_timeout(limit)),
            Stream::Unix(stream) => stream.set_read_timeout(limit).and_then(|()| stream.set_write_timeout(limit)),
        }
    }
}

/// An error if nothing is left.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit(Some(left(self.deadline)?))?;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.limit(Some(left(self.deadline)?))?;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
