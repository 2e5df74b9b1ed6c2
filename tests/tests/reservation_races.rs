//! Races for a dead holder's claim: the production claim of every node, real commands, a real target (tgtd), real time.
//!
//! A round: the holder dies, and two to five other nodes, which hear nothing of each other, want its claim at the same moment. Exactly one
//! gets it, under a greater epoch, and defends it; the others end unregistered. Then the winner dies, and the next round begins.
//!
//! Then the same with a target that stops for moments, so that commands are carried out late and answers come late; and challenges to a
//! holder that is alive, which must all fail.
//!
//! `HA_RACES=N` is the number of rounds (1,000); `HA_SEED=N` draws other nodes and other moments.

#![expect(clippy::unwrap_used, reason = "what cannot be had ends the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ha_core::claim::reservation::device::{Answer, Command, Failure, Key, Keys, ReservationDevice};
use ha_core::claim::reservation::{ReservationClaim, ReservationConfig, ReservationTiming, ReservationType};
use ha_core::claim::{Acquire, Belief, Beliefs, Claim, Held, Loss, Refusal};
use ha_core::name::{ClusterName, Epoch, HierarchyName, NodeName};
use ha_core::time::Time;
use ha_tests::iscsi::Initiator;
use ha_tests::target::Target;
use ha_tests::{Result, patience};
use tokio::time::Instant;

const NODES: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];

/// So many disks are raced for side by side: a round is mostly waiting.
const TRACKS: u8 = 25;

/// How long a command may take. A busy machine may exceed it; then a round takes another try, and is no less safe.
const LIMIT: Duration = Duration::from_millis(250);

/// One disk, and every node's session with it.
struct Track {
    sessions: Vec<Initiator>,
    random: Random,
    begun: Instant,
}

/// A winner, until it dies.
struct Winner {
    node: usize,
    claim: ReservationClaim,
    held: Held,
}

impl Winner {
    /// Proves that it holds the claim still. That may take another try, but it never finds it taken.
    async fn upholds(&self) {
        let until = Instant::now() + patience();
        loop {
            match self.claim.uphold(self.held.epoch).await {
                Ok(_) => return,
                Err(Loss::Unproven { .. }) if Instant::now() < until => tokio::time::sleep(LIMIT / 10).await,
                Err(loss) => panic!("{} lost what it won: {loss}", NODES[self.node]),
            }
        }
    }
}

impl Track {
    fn new(target: &Target, disk: u8, seed: u64) -> Track {
        let login = |node: &&str| target.login(node, disk, LIMIT).unwrap();
        let random = Random(seed.wrapping_mul(1_000).wrapping_add(u64::from(disk)));
        Track { sessions: NODES.iter().map(login).collect(), random, begun: Instant::now() }
    }

    fn claim(&self, node: usize) -> ReservationClaim {
        let config = ReservationConfig {
            cluster: ClusterName::new("races").unwrap(),
            node: name(node),
            nodes: (0..NODES.len()).map(name).collect(),
            hierarchy: HierarchyName::new("web").unwrap(),
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            timing: ReservationTiming::new(Duration::from_millis(50), Duration::from_secs(5)).unwrap(),
        };
        let begun = self.begun;
        let clock = Arc::new(move || Time::ZERO + begun.elapsed());
        let device: Arc<dyn ReservationDevice> = Arc::new(self.sessions[node].clone());
        ReservationClaim::new(vec![device], config, clock).unwrap()
    }

    /// Two to five nodes other than the dead one.
    fn challengers(&mut self, dead: Option<usize>) -> Vec<usize> {
        let mut left: Vec<usize> = (0..NODES.len()).filter(|node| Some(*node) != dead).collect();
        let count = 2 + self.random.below(4);
        (0..count).map(|_| left.swap_remove(self.random.below(left.len()))).collect()
    }

    async fn race(&mut self, dead: Option<usize>, known: Epoch) -> Winner {
        let challengers = self.challengers(dead);
        let until = Instant::now() + patience();
        let mut refusals = Vec::new();
        loop {
            let runs = challengers.iter().map(|&node| {
                let claim = self.claim(node);
                // Some ask together, some a little later, up to the time that a challenge lasts.
                let delay = Duration::from_micros(self.random.below(4) as u64 * self.random.below(100_000) as u64);
                async move {
                    tokio::time::sleep(delay).await;
                    let acquired = claim.acquire(Acquire { beliefs: silent(node), known, adopt: None }).await;
                    (node, claim, acquired)
                }
            });
            let mut winners = Vec::new();
            for (node, claim, acquired) in join_all(runs.collect::<Vec<_>>()).await {
                match acquired {
                    Ok(held) => winners.push(Winner { node, claim, held }),
                    Err(refusal) => refusals.push((NODES[node], refusal)),
                }
            }
            assert!(winners.len() <= 1, "{} of {challengers:?} won", winners.len());
            if let Some(winner) = winners.pop() {
                assert!(winner.held.epoch > known, "epoch {:?} is not after {known:?}", winner.held.epoch);
                self.until_alone(&winner).await;
                return winner;
            }
            // A machine so busy that commands took too long: they ask again, as the engine would.
            let excused = |(_, refusal): &(&str, Refusal)| !matches!(refusal, Refusal::Stranger(_));
            assert!(refusals.iter().all(excused) && Instant::now() < until, "nobody won: {refusals:?}");
        }
    }

    /// Waits until only the winner is registered, and holds the reservation with that key.
    async fn until_alone(&self, winner: &Winner) {
        let until = Instant::now() + patience();
        loop {
            let keys = self.read(winner.node, Command::ReadKeys).await;
            let reservation = self.read(winner.node, Command::ReadReservation).await;
            if let (Answer::Keys(Keys { keys, .. }), Answer::Reservation(reservation)) = (&keys, &reservation)
                && let [key] = keys[..]
                && reservation.held.and_then(|held| held.key) == Some(key)
            {
                assert_eq!(Track::owner_of(&winner.claim, key), Some(NODES[winner.node]));
                return;
            }
            assert!(Instant::now() < until, "{} is not alone: {keys:?}, {reservation:?}", NODES[winner.node]);
        }
    }

    fn owner_of(claim: &ReservationClaim, key: Key) -> Option<&'static str> {
        let known = claim.keyring().decode(key)?;
        let name = claim.keyring().node(known.node)?;
        NODES.into_iter().find(|node| *node == name.as_str())
    }

    async fn read(&self, node: usize, command: Command) -> Answer {
        let until = Instant::now() + patience();
        loop {
            let session = &self.sessions[node];
            match session.send(&session.paths()[0], command).await {
                Ok(answer) => return answer,
                Err(Failure::NoAnswer | Failure::UnitAttention(_)) if Instant::now() < until => {}
                Err(failure) => panic!("{command:?}: {failure}"),
            }
        }
    }

    /// Races, one after the other; gives the number of challengers that there were.
    async fn run(mut self, rounds: usize) -> usize {
        let mut dead = None;
        let mut known = Epoch(0);
        let mut wins: BTreeMap<usize, usize> = BTreeMap::new();
        for _ in 0..rounds {
            let winner = self.race(dead, known).await;
            winner.upholds().await;
            *wins.entry(winner.node).or_default() += 1;
            (dead, known) = (Some(winner.node), winner.held.epoch);
            // It dies: nothing is given back, and nobody defends it any more.
            drop(winner);
        }
        wins.values().sum()
    }
}

/// What a node believes that hears nothing of anybody.
fn silent(me: usize) -> Beliefs {
    let others = (0..NODES.len()).filter(|node| *node != me);
    Arc::new(others.map(|node| (name(node), Belief::Lost)).collect())
}

fn name(node: usize) -> NodeName {
    NodeName::new(NODES[node]).unwrap()
}

/// A small generator of pseudo-random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// So many rounds, side by side on all disks of a target.
async fn races(target: &Target, rounds: u64) {
    let seed = setting("HA_SEED", 1);
    let tracks: Vec<_> = (1..=TRACKS)
        .map(|disk| {
            let share = rounds / u64::from(TRACKS) + u64::from(u64::from(disk) <= rounds % u64::from(TRACKS));
            tokio::spawn(Track::new(target, disk, seed).run(share as usize))
        })
        .collect();
    let mut won = 0;
    for track in tracks {
        won += track.await.unwrap_or_else(|error| panic!("with HA_SEED={seed}: {error}"));
    }
    assert_eq!(won as u64, rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_want_a_dead_holders_claim_exactly_one_gets_it() -> Result<()> {
    if !Target::is_installed() {
        return Ok(());
    }
    races(&Target::start(TRACKS)?, setting("HA_RACES", 1_000)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_target_that_stops_for_moments_still_only_one_gets_it() -> Result<()> {
    if !Target::is_installed() {
        return Ok(());
    }
    let target = Target::start(TRACKS)?;
    let stopping = async {
        let mut random = Random(setting("HA_SEED", 1));
        loop {
            tokio::time::sleep(Duration::from_millis(random.below(1_500) as u64)).await;
            target.freeze().unwrap();
            // Up to twice as long as a command may take.
            tokio::time::sleep(Duration::from_millis(random.below(500) as u64)).await;
            target.thaw().unwrap();
        }
    };
    tokio::select! {
        () = races(&target, setting("HA_RACES", 1_000) / 5) => {}
        () = stopping => {}
    }
    Ok(())
}

/// S6: whatever the others believe, a holder that reaches the device keeps what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_alive_is_never_preempted() -> Result<()> {
    if !Target::is_installed() {
        return Ok(());
    }
    let target = Target::start(1)?;
    let track = Track::new(&target, 1, setting("HA_SEED", 1));
    let wanted = |node, known| Acquire { beliefs: silent(node), known, adopt: None };
    let claim = track.claim(0);
    let held = claim.acquire(wanted(0, Epoch(0))).await.unwrap();
    let holder = Winner { node: 0, claim, held };
    for _ in 0..20 {
        let holder = &holder;
        let challenges = (1..NODES.len()).map(|node| {
            let claim = track.claim(node);
            async move { claim.acquire(wanted(node, holder.held.epoch)).await.map(drop) }
        });
        for refused in join_all(challenges).await {
            assert!(matches!(refused, Err(Refusal::Held { .. } | Refusal::Unreachable(_))), "{refused:?}");
        }
        holder.upholds().await;
    }
    track.until_alone(&holder).await;
    Ok(())
}
