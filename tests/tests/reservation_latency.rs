//! How long a reservation takes: to be taken, to be looked at, and to be taken over from a dead holder, until a write is accepted. The production
//! claim, real commands, a real target (tgtd). Prints the figures, which are in docs/reservations.md; asserts none of them, only that who was
//! cut off writes no more.
//!
//! `HA_ROUNDS=N` is the number of rounds (100).

#![expect(clippy::unwrap_used, reason = "what cannot be had ends the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ha_core::claim::reservation::device::{Failure, ReservationDevice};
use ha_core::claim::reservation::{ReservationClaim, ReservationConfig, ReservationTiming, ReservationType};
use ha_core::claim::{Acquire, Belief, Claim, EarlyFailures};
use ha_core::name::{ClusterName, Epoch, HierarchyName, NodeName};
use ha_core::time::Time;
use ha_tests::iscsi::Initiator;
use ha_tests::target::Target;
use ha_tests::{Result, patience};
use tokio::time::Instant;

const NODES: [&str; 2] = ["alpha", "beta"];
const DEFEND: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_millis(250);

fn claim(node: usize, sessions: &[Initiator], begun: Instant) -> ReservationClaim {
    let name = |node: &str| NodeName::new(node).unwrap();
    let config = ReservationConfig {
        cluster: ClusterName::new("latency").unwrap(),
        node: name(NODES[node]),
        nodes: NODES.map(name).to_vec(),
        hierarchy: HierarchyName::new("web").unwrap(),
        kind: ReservationType::WriteExclusiveRegistrantsOnly,
        timing: ReservationTiming::new(DEFEND, Duration::from_secs(5)).unwrap(),
    };
    let device: Arc<dyn ReservationDevice> = Arc::new(sessions[node].clone());
    ReservationClaim::new(vec![device], config, Arc::new(move || Time::ZERO + begun.elapsed())).unwrap()
}

fn believing(belief: Belief, known: Epoch) -> Acquire {
    let beliefs: BTreeMap<_, _> = NODES.iter().map(|node| (NodeName::new(*node).unwrap(), belief)).collect();
    Acquire { beliefs: Arc::new(beliefs), known, adopt: None }
}

/// A write, again if the unit has something to tell first.
fn write(session: &Initiator) -> std::result::Result<(), Failure> {
    let mut answer = session.rewrite();
    while let Err(Failure::UnitAttention(_)) = answer {
        answer = session.rewrite();
    }
    answer
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: median {median:.1?}, longest {longest:.1?}, of {}", times.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_looking_and_taking_over() -> Result<()> {
    if !Target::is_installed() {
        return Ok(());
    }
    let rounds: usize = std::env::var("HA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(100);
    let target = Target::start(1)?;
    let sessions: Vec<Initiator> = NODES.iter().map(|node| target.login(node, 1, LIMIT).unwrap()).collect();
    let begun = Instant::now();
    let (mut taking, mut looking, mut over) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = Epoch::ZERO;
    for _ in 0..rounds {
        let alpha = claim(0, &sessions, begun);
        let asked = Instant::now();
        let held = alpha.acquire(believing(Belief::Gone, known)).await.unwrap();
        taking.push(asked.elapsed());
        assert_eq!(write(&sessions[0]), Ok(()));

        let asked = Instant::now();
        alpha.inspect().await.unwrap();
        looking.push(asked.elapsed());
        // It is dead from here on: nobody defends any more.
        drop(alpha);
        let beta = claim(1, &sessions, begun);
        let asked = Instant::now();
        let until = asked + patience();
        let took = loop {
            // A command that took too long on a busy machine: asked again, as an agent does.
            match beta.acquire(believing(Belief::Lost, held.epoch)).await {
                Ok(took) => break took,
                Err(refusal) => assert!(Instant::now() < until, "{refusal}"),
            }
        };
        assert_eq!(write(&sessions[1]), Ok(()));
        over.push(asked.elapsed());
        assert_eq!(write(&sessions[0]), Err(Failure::Conflict), "who was cut off writes no more");
        beta.release(took.epoch, None, EarlyFailures::default()).await.unwrap();
        known = took.epoch;
    }
    let challenge = 2 * DEFEND + LIMIT;
    told("a free disk is taken", taking);
    told("one look of the holder", looking);
    told(&format!("from contact lost to a write, of which {challenge:?} are the challenge"), over);
    Ok(())
}
