//! An embedded node with a resource, a claim and a channel of its own. Start it twice, on one machine, with
//! `cargo run --example embed -- alpha` and `cargo run --example embed -- beta`. alpha serves; kill it, and beta takes over.

use std::fs::{File, OpenOptions};
use std::sync::Arc;

use async_trait::async_trait;
use ha_core::claim::{Acquire, Claim, EarlyFailures, Held, Holding, Loss, Refusal, Tenure};
use ha_core::contact::{KeyId, KeyRing};
use ha_core::driver::{Context, Failed, Member, Node, Verdict};
use ha_core::hierarchy::{Hierarchy, ResourceBuilder};
use ha_core::name::{ChannelName, ClusterName, Epoch, NodeName};
use ha_core::{Channel, Resource};
use tokio::net::UdpSocket;

/// A resource that says so when it starts and stops.
struct Greeter;

#[async_trait]
impl Resource for Greeter {
    async fn start(&self, context: &Context) -> Result<(), Failed> {
        println!("{} serves {} in epoch {}", context.node, context.hierarchy, context.epoch);
        Ok(())
    }
    async fn stop(&self, context: &Context) -> Result<(), Failed> {
        println!("{} has stopped {}", context.node, context.hierarchy);
        Ok(())
    }
    async fn monitor(&self, _: &Context) -> Verdict {
        Verdict::Good
    }
}

/// A claim held by a lock on a file: the kernel gives it back when the process dies. The file remembers the epoch.
struct FileLock(File);

const LOCK: &str = "/tmp/ha-embed.lock";

#[async_trait]
impl Claim for FileLock {
    async fn inspect(&self) -> Result<Holding, Refusal> {
        Ok(Holding { holder: None, epoch: Epoch::ZERO, failures: EarlyFailures::default() })
    }
    async fn acquire(&self, request: Acquire) -> Result<Held, Refusal> {
        self.0.try_lock().map_err(|_| Refusal::Raced)?;
        let last = std::fs::read_to_string(LOCK).ok().and_then(|text| text.parse().ok()).map_or(Epoch::ZERO, Epoch);
        let epoch = last.max(request.known).next();
        std::fs::write(LOCK, epoch.to_string()).map_err(|e| Refusal::Unreachable(e.to_string()))?;
        Ok(Held { epoch, tenure: Tenure::UntilRevoked, failures: EarlyFailures::default() })
    }
    async fn uphold(&self, _: Epoch) -> Result<Tenure, Loss> {
        Ok(Tenure::UntilRevoked)
    }
    async fn release(&self, _: Epoch, _: Option<NodeName>, _: EarlyFailures) -> Result<(), Refusal> {
        self.0.unlock().map_err(|e| Refusal::Unreachable(e.to_string()))
    }
}

/// A channel to the other process.
struct Loopback(ChannelName, UdpSocket, &'static str);

#[async_trait]
impl Channel for Loopback {
    fn name(&self) -> &ChannelName {
        &self.0
    }
    async fn send(&self, _: &NodeName, datagram: &[u8]) -> Result<(), Failed> {
        self.1.send_to(datagram, self.2).await.map(drop).map_err(Failed::new)
    }
    async fn receive(&self) -> Result<Vec<u8>, Failed> {
        let mut buffer = vec![0; 2048];
        let length = self.1.recv(&mut buffer).await.map_err(Failed::new)?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let me = std::env::args().nth(1).ok_or("say which node this is: alpha or beta")?;
    let ports = ["127.0.0.1:17946", "127.0.0.1:17947"];
    let (mine, other) = if me == "alpha" { (ports[0], ports[1]) } else { (ports[1], ports[0]) };
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(LOCK)?;
    let hierarchy =
        Hierarchy::builder("hello").nodes(["alpha", "beta"]).resource(ResourceBuilder::new("greeter")).build()?;
    let member =
        Member { hierarchy, claim: Arc::new(FileLock(lock)), resources: vec![Arc::new(Greeter)], probes: vec![] };
    let channel = Loopback(ChannelName::new("loopback")?, UdpSocket::bind(mine).await?, other);
    let node = Node::builder(ClusterName::new("embedded")?, NodeName::new(me)?)
        .nodes([NodeName::new("alpha")?, NodeName::new("beta")?])
        .keys(KeyRing::generate(KeyId(1), *b"an example: use 32 random bytes."))
        .channel(Arc::new(channel))
        .member(member)
        .start()
        .await?;
    node.finished().await;
    Ok(())
}
