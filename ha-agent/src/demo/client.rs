//! The client of the demonstration: asks a service every few milliseconds, and keeps what it got.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From one question to the next.
const ASK_EVERY: Duration = Duration::from_millis(3);
/// A question without an answer by then is taken as lost.
const PATIENCE: Duration = Duration::from_millis(40);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) node: String,
    pub(super) epoch: u64,
    pub(super) pid: i32,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<(Answer, Instant)>,
    longest_gap: Duration,
    lost: u64,
    /// Epochs that went back, or one epoch served by two nodes.
    wrong: Vec<String>,
}

/// One client of one hierarchy.
#[derive(Clone)]
pub(super) struct Client {
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    /// Asks from now on, on a thread that ends with the process.
    pub(super) fn start(service: SocketAddr) -> std::io::Result<Client> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(service)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let client = Client { seen: Arc::default() };
        let asking = client.clone();
        std::thread::spawn(move || {
            loop {
                let answer = ask(&socket);
                asking.take(answer);
                std::thread::sleep(ASK_EVERY);
            }
        });
        Ok(client)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, answer: Option<Answer>) {
        let mut seen = self.lock();
        let Some(answer) = answer else {
            seen.lost += 1;
            return;
        };
        let now = Instant::now();
        if let Some((before, at)) = &seen.last {
            let gap = now - *at;
            let went_back = answer.epoch < before.epoch;
            let two_nodes = answer.epoch == before.epoch && answer.node != before.node;
            let complaint = (went_back || two_nodes).then(|| {
                format!(
                    "after {} in epoch {} came {} in epoch {}",
                    before.node, before.epoch, answer.node, answer.epoch
                )
            });
            seen.longest_gap = seen.longest_gap.max(gap);
            seen.wrong.extend(complaint);
        }
        seen.last = Some((answer, now));
    }

    /// The latest answer.
    pub(super) fn last(&self) -> Option<Answer> {
        self.lock().last.as_ref().map(|(answer, _)| answer.clone())
    }

    /// Begins to measure anew.
    pub(super) fn mark(&self) {
        let mut seen = self.lock();
        seen.longest_gap = Duration::ZERO;
        seen.lost = 0;
        if let Some((_, at)) = &mut seen.last {
            *at = Instant::now();
        }
    }

    /// The longest time without an answer since the mark, and how many questions were lost.
    pub(super) fn measured(&self) -> (Duration, u64) {
        let seen = self.lock();
        let open = seen.last.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        (seen.longest_gap.max(open), seen.lost)
    }

    /// What must never be seen.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }
}

fn ask(socket: &UdpSocket) -> Option<Answer> {
    // A service that is gone shows as an error of one of the two, at once: ask again a little later.
    socket.send(b"who are you?").ok()?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    let mut words = text.split(' ');
    Some(Answer {
        node: words.next()?.to_owned(),
        epoch: words.next()?.parse().ok()?,
        pid: words.next()?.parse().ok()?,
    })
}
