//! A service that must not lose what it has acknowledged: the program `lab-ledger`, its client, and the judge of both.
//!
//! The service appends an entry to a file on protected storage for each number that it is sent, makes it durable, and only then answers.
//! The client remembers what was answered. The judge compares: never two writers, no acknowledged entry lost.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::node::within;
use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

/// How long the client waits for an answer before it asks for something new.
const ANSWER: Duration = Duration::from_millis(300);

/// One entry, as it stands in the file and in answers: `number node epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the client sent, each number once.
    pub number: u64,
    /// Who wrote it.
    pub node: String,
    /// Under which tenure.
    pub epoch: u64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.number, self.node, self.epoch)
    }
}

impl FromStr for Entry {
    type Err = Trouble;

    fn from_str(text: &str) -> Result<Self> {
        let [number, node, epoch] = text.trim_end().split(' ').collect::<Vec<_>>()[..] else {
            return Err(Trouble::new(format!("no entry of a ledger: {text:?}")));
        };
        Ok(Entry { number: number.parse()?, node: node.to_owned(), epoch: epoch.parse()? })
    }
}

/// The service: for ever, or until an entry cannot be made durable.
pub fn serve(file: &Path, address: &str) -> Result<()> {
    let of = |name: &str| std::env::var(name).to(format!("read {name}"));
    let (node, epoch) = (of("HA_NODE")?, of("HA_EPOCH")?.parse()?);
    let mut ledger = OpenOptions::new().create(true).append(true).open(file).to(format!("open {}", file.display()))?;
    let socket = UdpSocket::bind(address).to(format!("listen on {address}"))?;
    let mut buffer = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).to("be asked")?;
        let Ok(number) = String::from_utf8_lossy(&buffer[..length]).trim().parse() else { continue };
        let entry = Entry { number, node: node.clone(), epoch };
        ledger.write_all(format!("{entry}\n").as_bytes()).to("write an entry")?;
        ledger.sync_data().to("make an entry durable")?;
        let _ = socket.send_to(entry.to_string().as_bytes(), from);
    }
}

/// A client at work.
pub struct LedgerClient {
    acknowledged: Arc<Mutex<Vec<(Instant, Entry)>>>,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl LedgerClient {
    pub(crate) fn start(namespace: &str, address: &str) -> Result<Self> {
        let socket = within(namespace, || UdpSocket::bind("0.0.0.0:0").to("make the client's socket"))?;
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (list, ended, address) = (Arc::clone(&acknowledged), Arc::clone(&stop), address.to_owned());
        let asking = std::thread::spawn(move || {
            for number in 1.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(entry) = ask(&socket, &address, number) {
                    list.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), entry));
                }
            }
        });
        Ok(LedgerClient { acknowledged, stop, asking: Some(asking) })
    }

    /// Every entry that was acknowledged, in order.
    pub fn acknowledged(&self) -> Vec<Entry> {
        let list = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// The longest time between two answers.
    pub fn longest_outage(&self) -> Duration {
        let list = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        list.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default()
    }

    /// The longest time between two answers, from the latest before the `since`-th on.
    pub fn outage_since(&self, since: usize) -> Duration {
        let list = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let from = since.saturating_sub(1).min(list.len());
        list[from..].windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default()
    }

    /// Who answered last.
    pub fn served_by(&self) -> Option<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).last().map(|(_, entry)| entry.node.clone())
    }

    /// Waits for an answer from anybody to something not yet asked.
    pub fn until_served(&self) -> String {
        let before = self.acknowledged().len();
        eventually("somebody answers", || {
            let now = self.acknowledged();
            now.get(before + 1).map(|entry| entry.node.clone()).ok_or_else(|| now.last().cloned())
        })
    }

    /// Waits for an answer from a node to something not yet asked.
    pub fn until_served_by(&self, node: &str) {
        let before = self.acknowledged().len();
        eventually(&format!("{node} answers"), || {
            let now = self.acknowledged();
            if now.iter().skip(before + 1).any(|entry| entry.node == node) { Ok(()) } else { Err(now.last().cloned()) }
        });
    }

    /// Ends it, and returns every entry that was acknowledged.
    pub fn end(mut self) -> Vec<Entry> {
        self.stop();
        self.acknowledged()
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

impl Drop for LedgerClient {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks for one entry. Nothing if it was not acknowledged in time: then it may be in the ledger, or not.
fn ask(socket: &UdpSocket, address: &str, number: u64) -> Option<Entry> {
    let until = Instant::now() + ANSWER;
    if socket.send_to(number.to_string().as_bytes(), address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
        return None;
    }
    let mut buffer = [0; 128];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return None;
        }
        let length = socket.recv(&mut buffer).ok()?;
        let answered: Option<Entry> = String::from_utf8_lossy(&buffer[..length]).parse().ok();
        // The answer to an earlier number came too late to count.
        if let Some(entry) = answered.filter(|entry| entry.number == number) {
            return Some(entry);
        }
    }
}

/// Judges a ledger. Wrong is: an entry under an epoch after one under a greater, two nodes under one epoch, and an acknowledged entry
/// that is missing or is not as it was acknowledged. Returns the nodes that wrote, one for each tenure.
pub fn judge(text: &str, acknowledged: &[Entry]) -> Result<Vec<String>> {
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        entries.push(line.parse().to(format!("read line {} of the ledger", number + 1))?);
    }
    let mut tenures: Vec<(u64, String)> = Vec::new();
    for entry in &entries {
        match tenures.last() {
            Some((epoch, node)) if *epoch == entry.epoch && *node == entry.node => {}
            Some((epoch, node)) if entry.epoch <= *epoch => {
                return Err(Trouble::new(format!("`{entry}` was written after epoch {epoch} of {node} had begun")));
            }
            _ => tenures.push((entry.epoch, entry.node.clone())),
        }
    }
    let written: BTreeMap<u64, &Entry> = entries.iter().map(|entry| (entry.number, entry)).collect();
    for entry in acknowledged {
        if written.get(&entry.number) != Some(&entry) {
            let found = written.get(&entry.number);
            return Err(Trouble::new(format!("`{entry}` was acknowledged, and the ledger has {found:?}")));
        }
    }
    Ok(tenures.into_iter().map(|(_, node)| node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<Entry> {
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn one_tenure_after_the_other_with_all_that_was_acknowledged_is_good() {
        let ledger = "1 alpha 1\n2 alpha 1\n4 beta 2\n5 alpha 3\n";
        let tenures = judge(ledger, &entries("1 alpha 1\n4 beta 2\n5 alpha 3")).unwrap();
        assert_eq!(tenures, ["alpha", "beta", "alpha"]);
    }

    #[test]
    fn what_is_wrong_is_found() {
        for (what, ledger, acknowledged) in [
            ("a late write", "1 alpha 1\n2 beta 2\n3 alpha 1\n", ""),
            ("two under one epoch", "1 alpha 1\n2 beta 1\n", ""),
            ("a lost entry", "1 alpha 1\n", "1 alpha 1\n2 alpha 1"),
            ("another's entry", "1 beta 2\n", "1 alpha 1"),
            ("a torn line", "1 alpha 1\n2 al", ""),
        ] {
            assert!(judge(ledger, &entries(acknowledged)).is_err(), "{what}");
        }
    }
}
