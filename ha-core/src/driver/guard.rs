//! Keeps the watchdog told of what runs under leases.
//!
//! Decides when it is fed, and that no start begins before it was told of it: an agent may die at any moment, and what it started must
//! end with the tenure all the same. Leaves to the engine what may run until when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::plugin::{Guarded, Watchdog};
use crate::engine::Input;
use crate::name::HierarchyName;
use crate::time::Time;

/// It is fed at least this often.
pub(super) const FEED_EVERY: Duration = Duration::from_millis(500);

/// What happens in so short a time is told together: of a thousand starts at once, not a thousand times.
const FEED_SOON: Duration = Duration::from_millis(10);

/// What an operation waits for before it begins.
pub(super) enum After {
    Nothing,
    /// The watchdog was fed so many times.
    Fed(u64, watch::Receiver<u64>),
}

impl After {
    pub(super) async fn has_come(self) {
        if let After::Fed(number, mut fed) = self {
            // An error means that the agent ends.
            let _ = fed.wait_for(|fed| *fed >= number).await;
        }
    }
}

struct Feed {
    number: u64,
    leases: Vec<Guarded>,
}

/// The watchdog, and what it was told.
pub(super) struct Guard {
    watchdog: Arc<dyn Watchdog>,
    feeds: UnboundedSender<Feed>,
    sent: u64,
    fed: watch::Receiver<u64>,
    /// The first of the feeds that told of a hierarchy without a gap since.
    told: BTreeMap<HierarchyName, u64>,
    now: bool,
    soon: bool,
    at: Time,
}

impl Guard {
    pub(super) fn new(watchdog: Arc<dyn Watchdog>, inputs: UnboundedSender<Input>) -> Self {
        let (feeds, queue) = unbounded_channel();
        let (done, fed) = watch::channel(0);
        tokio::spawn(feed(watchdog.clone(), queue, done, inputs));
        Guard { watchdog, feeds, sent: 0, fed, told: BTreeMap::new(), now: false, soon: false, at: Time::ZERO }
    }

    pub(super) fn watchdog(&self) -> &Arc<dyn Watchdog> {
        &self.watchdog
    }

    /// It is fed in this turn.
    pub(super) fn hurry(&mut self) {
        self.now = true;
    }

    /// Something began or ended.
    pub(super) fn changed(&mut self) {
        self.soon = true;
    }

    /// What a start of something of a hierarchy that runs under a lease has to wait for.
    pub(super) fn before_start(&mut self, hierarchy: &HierarchyName) -> After {
        let number = self.told.get(hierarchy).copied().unwrap_or_else(|| {
            self.soon = true;
            self.sent + 1
        });
        After::Fed(number, self.fed.clone())
    }

    /// A hierarchy has another resource in place of one that it had: what was told of it is not all that it may bring about.
    pub(super) fn forget(&mut self, hierarchy: &HierarchyName) {
        self.told.remove(hierarchy);
    }

    /// How long at most until something is to be told.
    pub(super) fn patience(&self) -> Duration {
        if self.soon { FEED_SOON } else { FEED_EVERY }
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.now || (self.soon && now.since(self.at) >= FEED_SOON)
    }

    /// `leases`: all that runs under one.
    pub(super) fn feed(&mut self, now: Time, leases: Vec<Guarded>) {
        (self.now, self.soon, self.at) = (false, false, now);
        self.sent += 1;
        let mut before = std::mem::take(&mut self.told);
        let since = |l: &Guarded| (l.hierarchy.clone(), before.remove(&l.hierarchy).unwrap_or(self.sent));
        self.told = leases.iter().map(since).collect();
        let _ = self.feeds.send(Feed { number: self.sent, leases });
    }
}

/// Feeds the watchdog with the latest; a feed that hangs holds up nothing but starts, and is what the watchdog is for.
async fn feed(
    watchdog: Arc<dyn Watchdog>,
    mut feeds: UnboundedReceiver<Feed>,
    done: watch::Sender<u64>,
    inputs: UnboundedSender<Input>,
) {
    let mut was_bad = false;
    while let Some(mut feed) = feeds.recv().await {
        while let Ok(next) = feeds.try_recv() {
            feed = next;
        }
        let trouble = watchdog.feed(&feed.leases).await.err().map(|failed| failed.0);
        done.send_replace(feed.number);
        let is_bad = trouble.is_some();
        if is_bad || was_bad {
            let _ = inputs.send(Input::Trouble { part: "watchdog".to_owned(), trouble });
        }
        was_bad = is_bad;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::driver::Failed;

    /// Is told of something as often as it is allowed to.
    struct Slow {
        allowed: Semaphore,
        told: mpsc::UnboundedSender<usize>,
    }

    #[async_trait]
    impl Watchdog for Slow {
        async fn feed(&self, leases: &[Guarded]) -> Result<(), Failed> {
            self.allowed.acquire().await.map_err(Failed::new)?.forget();
            let _ = self.told.send(leases.len());
            Ok(())
        }

        fn margin(&self) -> Duration {
            Duration::from_secs(1)
        }

        async fn reset(&self, _why: &str) -> Failed {
            Failed::new("it cannot")
        }

        async fn disarm(&self) -> Result<(), Failed> {
            Ok(())
        }
    }

    fn guarded(name: &str) -> Guarded {
        let hierarchy = HierarchyName::new(name).expect("a name");
        Guarded { hierarchy, until: Time::ZERO + Duration::from_secs(9), handles: Vec::new() }
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// Whether it has not come after everything else had its turn.
    async fn waits(after: After) -> bool {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut come = Box::pin(after.has_come());
        std::future::poll_fn(|context| std::task::Poll::Ready(come.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn a_start_waits_until_the_watchdog_was_told_of_its_hierarchy() {
        let (told, mut tellings) = mpsc::unbounded_channel();
        let watchdog = Arc::new(Slow { allowed: Semaphore::new(0), told });
        let (inputs, _inbox) = unbounded_channel();
        let mut guard = Guard::new(watchdog.clone(), inputs);
        let web = guarded("web").hierarchy;
        guard.feed(at(0), Vec::new());
        let start = guard.before_start(&web);
        assert!(guard.is_due(at(20)), "it is told soon");
        guard.feed(at(20), vec![guarded("web")]);
        assert!(waits(guard.before_start(&web)).await, "a telling under way is none");
        watchdog.allowed.add_permits(2);
        while tellings.recv().await != Some(1) {}
        start.has_come().await;
        guard.before_start(&web).has_come().await;

        watchdog.allowed.forget_permits(2);
        guard.forget(&web);
        let changed = guard.before_start(&web);
        guard.feed(at(25), vec![guarded("web")]);
        assert!(waits(guard.before_start(&web)).await, "it was told of another resource");
        watchdog.allowed.add_permits(1);
        changed.has_come().await;

        guard.feed(at(30), Vec::new());
        watchdog.allowed.add_permits(1);
        assert!(waits(guard.before_start(&web)).await, "it was told that nothing runs any more");
    }
}
