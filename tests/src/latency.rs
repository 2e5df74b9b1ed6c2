//! How long a reservation takes: to be taken, to be looked at, and to be taken over from a dead holder, until a write is accepted. The production
//! claim over any two ways to a disk, of which each is an initiator of its own.
//!
//! Decides what is measured. Asserts no figure, only that who was cut off writes no more.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Answer, Command, Failure, Ports, PowerLoss, ReservationDevice};
use ha_core::claim::reservation::{
    ClusterKey, ReservationClaim, ReservationConfig, ReservationTiming, ReservationType, Role,
};
use ha_core::claim::{Acquire, Belief, Claim, EarlyFailures, Held};
use ha_core::name::{ClusterName, Epoch, HierarchyName, NodeName};
use ha_core::time::Time;
use tokio::time::Instant;

use crate::trouble::{Result, Trouble};
use crate::wait::patience;

const NODES: [&str; 2] = ["alpha", "beta"];
const DEFEND: Duration = Duration::from_millis(50);

/// How long a command may take in this measurement.
pub const LIMIT: Duration = Duration::from_millis(250);

/// A way to the disk.
#[async_trait]
pub trait Way {
    /// What commands are sent to.
    fn device(&self) -> Arc<dyn ReservationDevice>;

    /// Writes what is there.
    async fn rewrite(&self) -> std::result::Result<(), Failure>;
}

/// What was measured, each round in its place.
#[derive(Debug, Default)]
pub struct Measured {
    /// A free disk is taken.
    pub taking: Vec<Duration>,
    /// One look at keys and reservation.
    pub looking: Vec<Duration>,
    /// A challenger is struck out by a holder that is alive.
    pub striking: Vec<Duration>,
    /// From contact lost with a dead holder to a write that is accepted.
    pub over: Vec<Duration>,
}

/// Measures so many rounds, on a disk that nobody uses and whose first block may be written.
pub async fn measure(ways: [&dyn Way; 2], rounds: usize) -> Result<Measured> {
    let begun = Instant::now();
    let mut measured = Measured::default();
    let mut known = Epoch::ZERO;
    for _ in 0..rounds {
        let alpha = claim(0, ways, begun)?;
        let (held, took) = taken(&alpha, Belief::Gone, known).await?;
        measured.taking.push(took);
        written(ways[0]).await.map_err(trouble)?;
        let asked = Instant::now();
        alpha.inspect().await.map_err(trouble)?;
        measured.looking.push(asked.elapsed());
        measured.striking.push(struck_out(&alpha, ways[1], held.epoch).await?);

        // It is dead from here on: nobody defends any more.
        drop(alpha);
        let beta = claim(1, ways, begun)?;
        let asked = Instant::now();
        let (held, _) = taken(&beta, Belief::Lost, held.epoch).await?;
        written(ways[1]).await.map_err(trouble)?;
        measured.over.push(asked.elapsed());
        if written(ways[0]).await != Err(Failure::Conflict) {
            return Err(Trouble::new("who was cut off can still write"));
        }
        beta.release(held.epoch, None, EarlyFailures::default()).await.map_err(trouble)?;
        known = held.epoch;
    }
    Ok(measured)
}

/// How long the key of a challenger stays, from the moment at which it is registered.
async fn struck_out(holder: &ReservationClaim, challenger: &dyn Way, epoch: Epoch) -> Result<Duration> {
    let node = NodeName::new(NODES[1]).map_err(trouble)?;
    let node = holder.keyring().number_of(&node).map_err(trouble)?;
    let key = ClusterKey { role: Role::Challenger, node, epoch: epoch.next() };
    let key = holder.keyring().encode(key).map_err(trouble)?;
    let registered = Command::RegisterIgnoring { new: Some(key), ports: Ports::This, power_loss: PowerLoss::Forgets };
    told_of(challenger, registered).await?;
    let since = Instant::now();
    loop {
        match told_of(challenger, Command::ReadKeys).await? {
            Answer::Keys(keys) if !keys.keys.contains(&key) => return Ok(since.elapsed()),
            _ if since.elapsed() > patience() => return Err(Trouble::new("the holder does not defend itself")),
            _ => {}
        }
    }
}

/// An answer, after whatever the disk has to tell first, or could not answer in time.
async fn told_of(way: &dyn Way, command: Command) -> Result<Answer> {
    let device = way.device();
    let path = device.paths().into_iter().next().ok_or_else(|| Trouble::new("there is no path"))?;
    let since = Instant::now();
    loop {
        match device.send(&path, command).await {
            Ok(answer) => return Ok(answer),
            Err(failure) if since.elapsed() > patience() => return Err(trouble(failure)),
            Err(_) => {}
        }
    }
}

/// Asks again where a command took too long on a busy machine, as an agent does. How long the attempt took that was granted, and all before it.
async fn taken(claim: &ReservationClaim, belief: Belief, known: Epoch) -> Result<(Held, Duration)> {
    let asked = Instant::now();
    loop {
        match claim.acquire(believing(belief, known)?).await {
            Ok(held) => return Ok((held, asked.elapsed())),
            Err(refusal) if asked.elapsed() > patience() => return Err(trouble(refusal)),
            Err(_) => {}
        }
    }
}

fn claim(node: usize, ways: [&dyn Way; 2], begun: Instant) -> Result<ReservationClaim> {
    let nodes = NODES.into_iter().map(NodeName::new).collect::<std::result::Result<Vec<_>, _>>().map_err(trouble)?;
    let config = ReservationConfig {
        cluster: ClusterName::new("latency").map_err(trouble)?,
        node: nodes[node].clone(),
        nodes,
        hierarchy: HierarchyName::new("web").map_err(trouble)?,
        kind: ReservationType::WriteExclusiveRegistrantsOnly,
        timing: ReservationTiming::new(DEFEND, Duration::from_secs(5)).map_err(trouble)?,
    };
    let clock = Arc::new(move || Time::ZERO + begun.elapsed());
    ReservationClaim::new(vec![ways[node].device()], config, clock).map_err(trouble)
}

fn believing(belief: Belief, known: Epoch) -> Result<Acquire> {
    let beliefs = NODES.into_iter().map(|node| Ok((NodeName::new(node).map_err(trouble)?, belief)));
    Ok(Acquire { beliefs: Arc::new(beliefs.collect::<Result<BTreeMap<_, _>>>()?), known, adopt: None })
}

/// A write, again if the disk has something to tell first.
async fn written(way: &dyn Way) -> std::result::Result<(), Failure> {
    let mut answer = way.rewrite().await;
    while let Err(Failure::UnitAttention(_)) = answer {
        answer = way.rewrite().await;
    }
    answer
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        told(f, "a free disk is taken", &self.taking)?;
        told(f, "one look of the holder", &self.looking)?;
        told(f, &format!("a challenger is struck out by a holder that looks every {DEFEND:?}"), &self.striking)?;
        let challenge = 2 * DEFEND + LIMIT;
        told(f, &format!("from contact lost to a write, of which {challenge:?} are the challenge"), &self.over)
    }
}

fn told(f: &mut fmt::Formatter<'_>, what: &str, times: &[Duration]) -> fmt::Result {
    let mut times = times.to_vec();
    times.sort_unstable();
    let Some(longest) = times.last() else { return writeln!(f, "{what}: never") };
    writeln!(f, "{what}: median {:.2?}, longest {longest:.1?}, of {}", times[times.len() / 2], times.len())
}

fn trouble(error: impl fmt::Display) -> Trouble {
    Trouble::new(error.to_string())
}
