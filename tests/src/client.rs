//! A client that asks a service again and again, and knows afterwards when it had no answer.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::service::now;
use crate::trouble::{Result, While as _};

/// How often it asks.
pub const INTERVAL: Duration = Duration::from_millis(2);

/// What has no answer after this has none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// In nanoseconds since the machine booted.
    at: u64,
    /// The node that answered, and the epoch it named.
    answered: Option<(String, u64)>,
}

/// A time without answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Outage {
    /// When the last question before it that had an answer was asked, in nanoseconds since the machine booted.
    pub from: u64,
    /// When the first question after it that had an answer was asked; or the last of all.
    pub to: u64,
}

impl Outage {
    /// How long it took; at least the interval of the questions.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.to.saturating_sub(self.from))
    }
}

/// What came of a client's questions, from the first that had an answer on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many there were.
    pub asked: usize,
    /// How many never had an answer: what a user calls an error.
    pub errors: usize,
    /// The longest time without answers.
    pub longest: Outage,
}

/// A client at work.
pub struct Client {
    asked: Arc<Mutex<Vec<Asked>>>,
    enough: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Client {
    pub(crate) fn start(network: &str, address: &str) -> Result<Self> {
        let socket = socket(network)?;
        let answers = socket.try_clone().to("share the client's socket")?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (enough, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (list, ended, address) = (Arc::clone(&asked), Arc::clone(&enough), address.to_owned());
        let asking = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                ask(&socket, &address, &list);
                std::thread::sleep(INTERVAL);
            }
        });
        let (list, ended) = (Arc::clone(&asked), Arc::clone(&stop));
        let listening = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                listen(&answers, &list);
            }
        });
        Ok(Client { asked, enough, stop, threads: vec![asking, listening] })
    }

    /// Who answered last, if it was one of the last few questions: the node and the epoch.
    pub fn served_by(&self) -> Option<(String, u64)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().rev().take(50).find_map(|asked| asked.answered.clone())
    }

    /// Every node and epoch that ever answered, each time that it changed.
    pub fn servers(&self) -> Vec<(String, u64)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut servers: Vec<_> = asked.iter().filter_map(|asked| asked.answered.clone()).collect();
        servers.dedup();
        servers
    }

    /// The longest time without answers since the first one. None if there never was one.
    pub fn longest_outage(&self) -> Option<Outage> {
        longest_outage(&self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks no more, waits for the answers that are on their way, and counts. None if nothing was ever answered.
    pub fn finish(self) -> Option<Tally> {
        self.enough.store(true, Ordering::Relaxed);
        let answered = || {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.iter().filter(|asked| asked.answered.is_some()).count()
        };
        // As long as answers come, more may.
        let mut before = answered();
        loop {
            std::thread::sleep(ANSWERS_WITHIN);
            let now = answered();
            if now == before {
                break;
            }
            before = now;
        }
        tally(&self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets everything so far.
    pub fn forget(&self) {
        // Numbers of questions are their places in the list: the answers to those that go are lost with them.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn socket(network: &str) -> Result<UdpSocket> {
    crate::node::within(network, || {
        let socket = UdpSocket::bind("0.0.0.0:0").to("make the client's socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).to("bound the client's waiting")?;
        Ok(socket)
    })
}

fn ask(socket: &UdpSocket, address: &str, list: &Mutex<Vec<Asked>>) {
    let Ok(at) = now() else { return };
    let mut asked = list.lock().unwrap_or_else(PoisonError::into_inner);
    asked.push(Asked { at, answered: None });
    let question = format!("{} {at}", asked.len() - 1);
    drop(asked);
    let _ = socket.send_to(question.as_bytes(), address);
}

fn listen(socket: &UdpSocket, list: &Mutex<Vec<Asked>>) {
    let mut buffer = [0; 256];
    let Ok(length) = socket.recv(&mut buffer) else { return };
    let Ok(text) = std::str::from_utf8(&buffer[..length]) else { return };
    let [number, at, node, epoch] = text.split(' ').collect::<Vec<_>>()[..] else { return };
    let (Ok(number), Ok(at), Ok(epoch)) = (number.parse::<usize>(), at.parse::<u64>(), epoch.parse()) else { return };
    let mut asked = list.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(question) = asked.get_mut(number).filter(|question| question.at == at) {
        question.answered = Some((node.to_owned(), epoch));
    }
}

fn longest_outage(asked: &[Asked]) -> Option<Outage> {
    let first = asked.iter().position(|asked| asked.answered.is_some())?;
    let mut last = asked[first].at;
    let mut longest = Outage { from: last, to: last };
    let end = asked.len() - 1;
    for (number, question) in asked.iter().enumerate().skip(first) {
        // The end of the list counts too, for an outage that has not ended.
        if question.answered.is_some() || number == end {
            let outage = Outage { from: last, to: question.at };
            longest = std::cmp::max_by_key(longest, outage, Outage::length);
            last = question.at;
        }
    }
    Some(longest)
}

fn tally(asked: &[Asked]) -> Option<Tally> {
    let longest = longest_outage(asked)?;
    let counted = || asked.iter().skip_while(|asked| asked.answered.is_none());
    let errors = counted().filter(|asked| asked.answered.is_none()).count();
    Some(Tally { asked: counted().count(), errors, longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> Vec<Asked> {
        let answer = |sign| (sign != '.').then(|| ("alpha".to_owned(), 1));
        text.chars().enumerate().map(|(at, sign)| Asked { at: at as u64, answered: answer(sign) }).collect()
    }

    #[test]
    fn the_longest_outage_lies_between_two_answers() {
        assert_eq!(longest_outage(&history("..++.+...++..+")), Some(Outage { from: 5, to: 9 }));
    }

    #[test]
    fn an_outage_that_has_not_ended_counts() {
        assert_eq!(longest_outage(&history("+.+.....")), Some(Outage { from: 2, to: 7 }));
    }

    #[test]
    fn every_question_without_an_answer_is_an_error_but_those_before_the_service_began() {
        let counted = tally(&history("..++..+.+")).unwrap();
        assert_eq!((counted.asked, counted.errors, counted.longest), (7, 3, Outage { from: 3, to: 6 }));
        assert_eq!(tally(&history("..")), None);
    }

    #[test]
    fn a_service_that_never_answered_has_no_outage_to_measure() {
        assert_eq!(longest_outage(&history("....")), None);
    }
}
