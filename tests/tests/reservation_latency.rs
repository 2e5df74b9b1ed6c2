//! How long a reservation takes: to be taken, to be looked at, and to be taken over from a dead holder, until a write is accepted. The production
//! claim, real commands, a real target (tgtd); `kernel_latency` has that of Linux. Prints the figures, which are in docs/reservations.md; asserts
//! none of them, only that who was cut off writes no more.
//!
//! `HA_ROUNDS=N` is the number of rounds (20).

use std::sync::Arc;

use async_trait::async_trait;
use ha_core::claim::reservation::device::{Failure, ReservationDevice};
use ha_tests::iscsi::Initiator;
use ha_tests::latency::{LIMIT, Way, measure};
use ha_tests::target::Target;
use ha_tests::{Result, Trouble};

struct Session(Initiator);

#[async_trait]
impl Way for Session {
    fn device(&self) -> Arc<dyn ReservationDevice> {
        Arc::new(self.0.clone())
    }

    async fn rewrite(&self) -> std::result::Result<(), Failure> {
        self.0.rewrite()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_looking_and_taking_over() -> Result<()> {
    if !Target::is_installed() {
        return Ok(());
    }
    let rounds = std::env::var("HA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let target = Target::start(1)?;
    let login = |node| target.login(node, 1, LIMIT).map(Session).map_err(|error| Trouble::new(error.to_string()));
    let (alpha, beta) = (login("alpha")?, login("beta")?);
    println!("{}", measure([&alpha, &beta], rounds).await?);
    Ok(())
}
