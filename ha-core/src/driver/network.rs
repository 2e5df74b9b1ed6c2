//! The channels: sealing what goes out, opening what comes in.
//!
//! Decides that a slow channel loses datagrams rather than hold anything up. Leaves what is sent to the engine.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedSender};
use tokio::task::AbortHandle;

use super::plugin::Channel;
use crate::contact::{KeyRing, Opener, RefusedCounts, Sealer, Transmit};
use crate::engine::Input;
use crate::name::{ChannelName, Incarnation, NodeName};

/// So many datagrams wait for a slow channel, in each direction; more are dropped, as a network would.
const QUEUE: usize = 4096;

/// A datagram as it came in.
pub(super) struct Arrived {
    channel: ChannelName,
    datagram: Vec<u8>,
}

pub(super) struct Network {
    outgoing: Vec<Sender<(NodeName, Vec<u8>)>>,
    pub(super) incoming: Receiver<Arrived>,
    sealer: Sealer,
    opener: Opener,
    tasks: Vec<AbortHandle>,
}

impl Network {
    pub(super) fn start(
        channels: Vec<Arc<dyn Channel>>,
        sealer: Sealer,
        opener: Opener,
        inputs: &UnboundedSender<Input>,
    ) -> Self {
        let (arrived, incoming) = mpsc::channel(QUEUE);
        let mut network = Network { outgoing: Vec::new(), incoming, sealer, opener, tasks: Vec::new() };
        for channel in channels {
            let (queue, waiting) = mpsc::channel(QUEUE);
            network.outgoing.push(queue);
            network.tasks.push(tokio::spawn(send_all(channel.clone(), waiting, inputs.clone())).abort_handle());
            network.tasks.push(tokio::spawn(receive_all(channel, arrived.clone(), inputs.clone())).abort_handle());
        }
        network
    }

    /// Sends on every channel; returns false if the message could not be sealed.
    pub(super) fn send(&mut self, transmit: &Transmit) -> bool {
        for queue in &self.outgoing {
            match self.sealer.seal(&transmit.to, &transmit.message) {
                Ok(datagram) => {
                    let _ = queue.try_send((transmit.to.clone(), datagram));
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// What a datagram says, if its seal is good; else it is counted and dropped.
    pub(super) fn open(&mut self, arrived: &Arrived) -> Option<Input> {
        let opened = self.opener.open(&arrived.datagram).ok()?;
        Some(Input::Received {
            channel: arrived.channel.clone(),
            from: opened.from,
            incarnation: opened.incarnation,
            message: opened.message,
        })
    }

    pub(super) fn refused(&self) -> &RefusedCounts {
        self.opener.refused()
    }

    pub(super) fn reincarnate(&mut self, incarnation: Incarnation) {
        self.sealer.reincarnate(incarnation);
    }

    pub(super) fn set_keys(&mut self, keys: &KeyRing) {
        self.sealer.set_keys(keys);
        self.opener.set_keys(keys);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn send_all(
    channel: Arc<dyn Channel>,
    mut waiting: Receiver<(NodeName, Vec<u8>)>,
    inputs: UnboundedSender<Input>,
) {
    let mut trouble = Trouble::new(format!("sending on {}", channel.name()), inputs);
    while let Some((to, datagram)) = waiting.recv().await {
        match channel.send(&to, &datagram).await {
            Ok(()) => trouble.over(),
            Err(failed) => trouble.is(failed.0),
        }
    }
}

async fn receive_all(channel: Arc<dyn Channel>, arrived: Sender<Arrived>, inputs: UnboundedSender<Input>) {
    let mut trouble = Trouble::new(format!("receiving on {}", channel.name()), inputs);
    loop {
        match channel.receive().await {
            Ok(datagram) => {
                trouble.over();
                if arrived.send(Arrived { channel: channel.name().clone(), datagram }).await.is_err() {
                    return;
                }
            }
            Err(failed) => {
                trouble.is(failed.0);
                // A channel that fails at once, always, must not take the processor.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tells of a trouble when it begins, changes and ends.
struct Trouble {
    part: String,
    now: Option<String>,
    inputs: UnboundedSender<Input>,
}

impl Trouble {
    fn new(part: String, inputs: UnboundedSender<Input>) -> Self {
        Trouble { part, now: None, inputs }
    }

    fn is(&mut self, what: String) {
        if self.now.as_ref() != Some(&what) {
            let _ = self.inputs.send(Input::Trouble { part: self.part.clone(), trouble: Some(what.clone()) });
            self.now = Some(what);
        }
    }

    fn over(&mut self) {
        if self.now.take().is_some() {
            let _ = self.inputs.send(Input::Trouble { part: self.part.clone(), trouble: None });
        }
    }
}
