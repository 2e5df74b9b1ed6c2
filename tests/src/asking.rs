//! Clients of any application, which ask one after the other, each as a new one, and remember when they were answered.
//!
//! Decides how many there are, so that an answer that is waited for in vain hides none that another client would have had.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::Lab;
use crate::kernel::history::Gap;
use crate::node::within;
use crate::wait::{eventually, patience};

/// How many ask in turns: what they see is as fine as the time limit divided by this.
const CLIENTS: u32 = 8;

/// How long a client waits for an answer, and from one question of its own to the next: 400 ms, more on slow machines.
pub fn limit() -> Duration {
    patience() / 150
}

/// Clients at work.
pub struct Asking {
    answered: Arc<Mutex<Vec<SystemTime>>>,
    stop: Arc<AtomicBool>,
    asking: Vec<JoinHandle<()>>,
}

impl Asking {
    /// Begins, where the clients of a laboratory are. `ask` asks once, as a new client would, and says whether it was answered within [`limit`].
    pub fn start(lab: &Lab, ask: fn() -> bool) -> Self {
        let answered = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |client: u32| {
            let (list, ended, namespace) = (Arc::clone(&answered), Arc::clone(&stop), lab.client_network().to_owned());
            std::thread::spawn(move || {
                std::thread::sleep(limit() * client / CLIENTS);
                let asked = within(&namespace, || {
                    while !ended.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        if ask() {
                            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                            list.push(SystemTime::now());
                        }
                        std::thread::sleep(limit().saturating_sub(begun.elapsed()));
                    }
                    Ok(())
                });
                if let Err(trouble) = asked {
                    eprintln!("laboratory: a client: {trouble}");
                }
            })
        };
        let asking = (0..CLIENTS).map(begin).collect();
        Asking { answered, stop, asking }
    }

    /// How often they were answered.
    pub fn answers(&self) -> usize {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until they are answered anew.
    pub fn until_answered(&self) {
        let before = self.answers();
        eventually("a client is answered", || {
            if self.answers() > before + CLIENTS as usize { Ok(()) } else { Err(before) }
        });
    }

    /// The longest time between two answers, of which the first is the one before the `since`-th or a later one.
    pub fn longest_gap(&self, since: usize) -> Option<Gap> {
        let list = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let from = since.saturating_sub(1).min(list.len());
        list[from..].windows(2).map(|pair| Gap { from: pair[0], to: pair[1] }).max_by_key(Gap::length)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for asking in self.asking.drain(..) {
            let _ = asking.join();
        }
    }
}
