//! One network: learns where addresses are, delivers frames, late ones later, and keeps what a test wants to see or say again.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::PipeWriter;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::SyncDevice;

use super::Conditions;
use crate::random::Random;
use crate::trouble::{Result, While as _};

/// The number of a port of a switch.
pub type Port = usize;

/// A network.
pub struct Switch {
    state: Arc<Mutex<State>>,
    readers: Mutex<BTreeMap<Port, Reader>>,
}

struct State {
    plugged: BTreeMap<Port, Arc<SyncDevice>>,
    conditions: HashMap<(Port, Port), Conditions>,
    learnt: HashMap<[u8; 6], Port>,
    random: Random,
    recorded: Option<Vec<Vec<u8>>>,
    late: mpsc::Sender<Late>,
}

/// The thread that reads a port's frames; it ends when its pipe is closed.
struct Reader {
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

/// A frame on its way. The earliest is the greatest.
struct Late {
    at: Instant,
    to: Port,
    frame: Vec<u8>,
}

impl Switch {
    /// A switch without ports, whose faults are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        let (late, arriving) = mpsc::channel();
        let state = Arc::new(Mutex::new(State {
            plugged: BTreeMap::new(),
            conditions: HashMap::new(),
            learnt: HashMap::new(),
            random: Random::new(seed),
            recorded: None,
            late,
        }));
        let weak = Arc::downgrade(&state);
        thread::spawn(move || {
            deliver_late(&arriving, |late| {
                if let Some(state) = weak.upgrade() {
                    hold(&state).deliver(late.to, &late.frame);
                }
            });
        });
        Switch { state, readers: Mutex::new(BTreeMap::new()) }
    }

    /// Sets how frames travel from one port to another.
    pub fn set(&self, from: Port, to: Port, conditions: Conditions) {
        hold(&self.state).conditions.insert((from, to), conditions);
    }

    /// Keeps a copy of every frame from now on, until [`Switch::recorded`].
    pub fn record(&self) {
        hold(&self.state).recorded = Some(Vec::new());
    }

    /// Ends a recording and returns it, in order.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        hold(&self.state).recorded.take().unwrap_or_default()
    }

    /// Sends an Ethernet frame to every port, from nowhere: what an intruder with a port of his own can do.
    pub fn inject(&self, frame: &[u8]) {
        let state = hold(&self.state);
        for port in state.plugged.keys() {
            state.deliver(*port, frame);
        }
    }

    /// Joins a device to a port.
    pub(crate) fn plug(&self, port: Port, device: SyncDevice) -> Result<()> {
        let device = Arc::new(device);
        let (stopped, stop) = std::io::pipe().to("make a pipe")?;
        hold(&self.state).plugged.insert(port, Arc::clone(&device));
        let state = Arc::clone(&self.state);
        let thread = thread::spawn(move || read_frames(&device, &stopped, |frame| hold(&state).forward(port, frame)));
        let reader = Reader { stop, thread };
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).insert(port, reader);
        Ok(())
    }

    /// From the moment that this returns no frame enters or leaves through the port.
    pub(crate) fn unplug(&self, port: Port) {
        let mut state = hold(&self.state);
        state.plugged.remove(&port);
        state.learnt.retain(|_, at| *at != port);
    }

    /// After [`Switch::unplug`]: gives the device back to the kernel, which removes it.
    pub(crate) fn discard(&self, port: Port) {
        let reader = self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
        if let Some(Reader { stop, thread }) = reader {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let ports: Vec<Port> = hold(&self.state).plugged.keys().copied().collect();
        for port in ports {
            self.unplug(port);
            self.discard(port);
        }
    }
}

impl State {
    /// A frame came in at a port.
    fn forward(&mut self, from: Port, frame: &[u8]) {
        let Some((to, source)) = addresses(frame) else { return };
        if !self.plugged.contains_key(&from) {
            return;
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push(frame.to_vec());
        }
        self.learnt.insert(source, from);
        let single = self.learnt.get(&to).copied();
        let ports: Vec<Port> = self.plugged.keys().copied().filter(|port| *port != from).collect();
        for port in ports.into_iter().filter(|port| single.is_none_or(|single| single == *port)) {
            let conditions = self.conditions.get(&(from, port)).copied().unwrap_or(Conditions::GOOD);
            for delay in conditions.copies(&mut self.random) {
                if delay.is_zero() {
                    self.deliver(port, frame);
                } else {
                    let _ = self.late.send(Late { at: Instant::now() + delay, to: port, frame: frame.to_vec() });
                }
            }
        }
    }

    /// Hands a frame to the node at a port. A full or vanished device loses it, as a real one would.
    fn deliver(&self, port: Port, frame: &[u8]) {
        if let Some(device) = self.plugged.get(&port) {
            let _ = device.send(frame);
        }
    }
}

fn hold(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Destination and source of an Ethernet frame; none for a multicast source, which no sound frame has.
fn addresses(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let to = frame.get(0..6)?.try_into().ok()?;
    let source: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    (source[0] & 1 == 0).then_some((to, source))
}

fn read_frames(device: &SyncDevice, stopped: &std::io::PipeReader, mut each: impl FnMut(&[u8])) {
    let mut frame = vec![0; 65_536];
    loop {
        let mut waited =
            [PollFd::new(device.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waited, PollTimeout::NONE).is_err() {
            continue;
        }
        if waited[1].any() != Some(false) {
            return;
        }
        match device.recv(&mut frame) {
            Ok(length) => each(&frame[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Delivers each frame at its time, until nobody can send one any more.
fn deliver_late(arriving: &mpsc::Receiver<Late>, mut deliver: impl FnMut(Late)) {
    let mut waiting: BinaryHeap<Late> = BinaryHeap::new();
    loop {
        let wait =
            waiting.peek().map_or(Duration::from_secs(3600), |late| late.at.saturating_duration_since(Instant::now()));
        match arriving.recv_timeout(wait) {
            Ok(late) => waiting.push(late),
            Err(RecvTimeoutError::Timeout) => waiting.pop().into_iter().for_each(&mut deliver),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}
