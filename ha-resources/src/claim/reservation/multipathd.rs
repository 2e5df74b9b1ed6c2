//! multipathd, the daemon that adds paths to multipath maps: telling it under which key it is to register them.
//!
//! Decides what is said to it, and what its silence means. A path that appears is used at once, and a write on it fails unless it is registered;
//! multipathd registers it first if it knows the key, and if its configuration lets it take the key from us (`reservation_key file`,
//! multipath.conf(5)). It registers nothing under a key that no other path has, so it lets no node back in that was cut off.

use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ha_core::claim::reservation::device::{Key, PowerLoss};
use tokio::sync::watch;

use super::disk::Finding;

/// The daemon's socket, in the abstract name space.
const SOCKET: &str = "/org/kernel/linux/storage/multipathd";
/// It is given as long as its own client gives it.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest of its answers that is of use is its configuration.
const LONGEST_ANSWER: usize = 1 << 20;

/// Whether multipathd will register paths that appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// If it is told the key.
    TakesKeys,
    /// Its configuration says nothing of keys, or another one.
    NotConfigured,
    /// It does not answer, so there is nobody who adds paths.
    Silent,
}

/// Asks whether multipathd takes keys.
fn readiness() -> Readiness {
    match ask("show config") {
        Ok(configuration) if takes_keys(&configuration) => Readiness::TakesKeys,
        Ok(_) => Readiness::NotConfigured,
        Err(_) => Readiness::Silent,
    }
}

/// Whom a disk's registrations are told to, for as long as multipathd looks after the disk: a disk can become a map while it is open, when
/// multipathd starts later than we do.
#[derive(Debug, Default)]
pub(super) struct Registrar(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The map's name, and who keeps multipathd told of it.
    keeper: Option<Keeper>,
    /// What is registered, as far as is known.
    latest: Option<Registration>,
    finding: Option<Finding>,
    is_asking: bool,
}

/// Tells multipathd of a map.
#[derive(Debug)]
struct Keeper {
    map: String,
    tell: mpsc::Sender<Registration>,
    /// What it was told last.
    told: watch::Receiver<Option<Registration>>,
}

/// The key, or none, and whether it survives loss of power.
type Registration = (Option<Key>, PowerLoss);

impl Registrar {
    /// The disk is a map of this name now. Asks multipathd unless it is known to take keys, and does not wait for its answer.
    pub(super) fn map_is(self: &Arc<Self>, map: &str) {
        let mut state = self.state();
        if state.is_asking || state.keeper.as_ref().is_some_and(|keeper| keeper.map == map) {
            return;
        }
        state.is_asking = true;
        let (this, map) = (self.clone(), map.to_owned());
        let ask = move || {
            this.ask(map);
            this.state().is_asking = false;
        };
        if let Err(error) = std::thread::Builder::new().name("ha-multipathd".to_owned()).spawn(ask) {
            tracing::warn!(%error, "there is no thread for asking multipathd");
            state.is_asking = false;
        }
    }

    /// Asks multipathd whether it takes keys for this map, and waits for its answer, a few seconds at most.
    pub(super) fn ask(&self, map: String) {
        let finding = match readiness() {
            Readiness::TakesKeys => match keeper(map.clone()) {
                Ok(keeper) => {
                    let mut state = self.state();
                    if let Some(latest) = state.latest {
                        // Fails only if the thread came to grief, which says so itself.
                        let _ = keeper.tell.send(latest);
                    }
                    state.keeper = Some(keeper);
                    None
                }
                Err(error) => {
                    tracing::warn!(map, %error, "there is no thread for telling multipathd of keys");
                    Some(Finding::UnregisteredPaths { map })
                }
            },
            Readiness::NotConfigured => Some(Finding::UnregisteredPaths { map }),
            Readiness::Silent => Some(Finding::NoMultipathd { map }),
        };
        let mut state = self.state();
        if let Some(new) = finding.as_ref().filter(|new| state.finding.as_ref() != Some(*new)) {
            tracing::warn!("{new}");
        }
        state.finding = finding;
    }

    /// Its paths are registered under this key from now on; none if they no longer are.
    pub(super) fn registered(&self, key: Option<Key>, power_loss: PowerLoss) {
        let mut state = self.state();
        state.latest = Some((key, power_loss));
        if let Some(keeper) = &state.keeper {
            // Fails only if the thread came to grief, which says so itself.
            let _ = keeper.tell.send((key, power_loss));
        }
    }

    /// Waits until multipathd, if it takes keys for the disk, was told of what is registered now.
    pub(super) async fn told(&self) {
        let (latest, mut told) = {
            let state = self.state();
            let Some(keeper) = &state.keeper else { return };
            (state.latest, keeper.told.clone())
        };
        // An error means that the thread came to grief, which says so itself.
        let _ = told.wait_for(|told| *told == latest).await;
    }

    /// What stands in the way.
    pub(super) fn finding(&self) -> Option<Finding> {
        self.state().finding.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps multipathd told, on a thread of its own, since it may be slow. Ends when the sender is dropped.
fn keeper(map: String) -> io::Result<Keeper> {
    let (tell, news) = mpsc::channel();
    let (known, told) = watch::channel(None);
    let of = map.clone();
    std::thread::Builder::new().name("ha-multipathd".to_owned()).spawn(move || keep_told(&of, &news, &known))?;
    Ok(Keeper { map, tell, told })
}

fn keep_told(map: &str, news: &mpsc::Receiver<Registration>, known: &watch::Sender<Option<Registration>>) {
    while let Ok(first) = news.recv() {
        // Only the latest counts; every path says the same.
        let latest = news.try_iter().last().unwrap_or(first);
        if *known.borrow() == Some(latest) {
            continue;
        }
        let (key, power_loss) = latest;
        match set_key(map, key, power_loss) {
            Ok(()) => drop(known.send_replace(Some(latest))),
            Err(error) => tracing::warn!(map, %error, "multipathd was not told under which key to register new paths"),
        }
    }
}

/// Tells multipathd under which key the paths of a map are registered from now on; none if they no longer are.
fn set_key(map: &str, key: Option<Key>, power_loss: PowerLoss) -> io::Result<()> {
    for message in messages(map, key, power_loss) {
        let answer = ask(&message)?;
        if answer.trim() != "ok" {
            return Err(io::Error::other(format!("multipathd answers {:?} to {message:?}", answer.trim())));
        }
    }
    Ok(())
}

fn messages(map: &str, key: Option<Key>, power_loss: PowerLoss) -> [String; 2] {
    match key {
        Some(key) => {
            let survives = match power_loss {
                PowerLoss::Keeps => ":aptpl",
                PowerLoss::Forgets => "",
            };
            [format!("setprkey map {map} key {:x}{survives}", key.get()), format!("setprstatus map {map}")]
        }
        None => [format!("unsetprstatus map {map}"), format!("unsetprkey map {map}")],
    }
}

fn takes_keys(configuration: &str) -> bool {
    configuration.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("reservation_key") && words.next().is_some_and(|value| value.trim_matches('"') == "file")
    })
}

/// One question, one answer: each a length in the machine's own form, and a text that ends with a zero.
fn ask(message: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(SOCKET)?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    converse(&mut stream, message)
}

fn converse(stream: &mut UnixStream, message: &str) -> io::Result<String> {
    let text = [message.as_bytes(), b"\0"].concat();
    stream.write_all(&[&text.len().to_ne_bytes()[..], &text].concat())?;
    let mut length = [0; size_of::<usize>()];
    stream.read_exact(&mut length)?;
    let length = usize::from_ne_bytes(length);
    if length > LONGEST_ANSWER {
        return Err(io::Error::other(format!("multipathd answers with {length} bytes")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let text = answer.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_the_key_and_that_it_is_to_be_used() {
        let key = Key::new(0xab);
        assert_eq!(messages("m", key, PowerLoss::Forgets), ["setprkey map m key ab", "setprstatus map m"]);
        assert_eq!(messages("m", key, PowerLoss::Keeps)[0], "setprkey map m key ab:aptpl");
        assert_eq!(messages("m", None, PowerLoss::Keeps), ["unsetprstatus map m", "unsetprkey map m"]);
    }

    #[test]
    fn its_configuration_says_whether_it_takes_keys() {
        assert!(takes_keys("defaults {\n\tverbosity 2\n\treservation_key \"file\"\n}\n"));
        assert!(takes_keys("defaults {\n\treservation_key file\n}"));
        assert!(!takes_keys("defaults {\n\treservation_key 0x123\n}"));
        assert!(!takes_keys("defaults {\n\tprkeys_file \"/etc/multipath/prkeys\"\n}"));
    }

    #[test]
    fn questions_and_answers_are_framed_as_its_own_client_does() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[&3_usize.to_ne_bytes()[..], b"ok\0"].concat()).unwrap();
        assert_eq!(converse(&mut ours, "setprstatus map m").unwrap(), "ok");
        let mut heard = vec![0; size_of::<usize>() + 18];
        theirs.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [&18_usize.to_ne_bytes()[..], b"setprstatus map m\0"].concat());
        theirs.write_all(&usize::MAX.to_ne_bytes()).unwrap();
        assert!(converse(&mut ours, "show config").is_err(), "an absurd length is no answer");
    }
}
