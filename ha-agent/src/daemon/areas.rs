//! Lock areas that may come late: storage that is not there when the agent starts delays nobody but the hierarchies on it.
//!
//! Opens each area in the background, again and again, and stands in for its claims until then.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ha_core::claim::lock_area::{AreaConfig, LockArea, OpenError, admin};
use ha_core::claim::{Acquire, Claim, EarlyFailures, Held, Holding, LeaseNews, Loss, Refusal, SharedLease, Tenure};
use ha_core::driver::Clock;
use ha_core::name::{BootId, Epoch, HierarchyName, Incarnation, LockAreaName, NodeName};
use ha_core::time::Span;
use ha_resources::claim::DirectDevice;
use tokio::sync::watch;

use crate::config::AreaSettings;

/// From one attempt to open an area to the next.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where it is told that this node must not run: who has its name.
pub(crate) type Refused = watch::Sender<Option<String>>;

/// Why an area cannot be used.
enum Unusable {
    /// Worth another try.
    NotYet(String),
    /// Another node uses this node's slot: who.
    Taken(String),
}

impl Unusable {
    fn not_yet(why: impl std::fmt::Display) -> Self {
        Unusable::NotYet(why.to_string())
    }
}

/// A lock area, open or not yet.
#[derive(Clone)]
pub(crate) struct Area {
    name: LockAreaName,
    state: watch::Receiver<State>,
}

#[derive(Clone)]
enum State {
    NotYet(Option<String>),
    Open(Arc<LockArea>),
}

impl Area {
    /// Begins to open an area, in the background.
    ///
    /// `margin` is how long the watchdog may take to end this node; an area that does not wait so long is not used (S7).
    pub(crate) fn begin(
        settings: &AreaSettings,
        margin: Option<Duration>,
        node: &NodeName,
        boot: BootId,
        clock: &Clock,
        refused: &Refused,
    ) -> Self {
        let (tell, state) = watch::channel(State::NotYet(None));
        let name = settings.name.clone();
        tokio::spawn(open(settings.clone(), margin, node.clone(), boot, clock.clone(), tell, refused.clone()));
        Area { name, state }
    }

    /// The claim of a hierarchy.
    pub(crate) fn claim(&self, hierarchy: HierarchyName) -> Arc<dyn Claim> {
        Arc::new(LateClaim { area: self.clone(), hierarchy, claim: OnceLock::new() })
    }

    /// Says goodbye on the storage, so that the other nodes need not wait for the lease to end.
    pub(crate) async fn leave(&self) {
        let state = self.state.borrow().clone();
        if let State::Open(area) = state
            && let Err(refused) = area.leave().await
        {
            tracing::warn!(area = %self.name, "the goodbye could not be written, others will wait for the lease to end: {refused}");
        }
    }
}

async fn open(
    settings: AreaSettings,
    margin: Option<Duration>,
    node: NodeName,
    boot: BootId,
    clock: Clock,
    tell: watch::Sender<State>,
    refused: Refused,
) {
    let mut said = String::new();
    loop {
        let config = AreaConfig {
            name: settings.name.clone(),
            node: node.clone(),
            boot,
            incarnation: incarnation(),
            timing: settings.timing,
            seed: seed(),
        };
        match try_open(&settings, margin, config, clock.clone()).await {
            Ok(area) => {
                tracing::info!(area = %settings.name, path = %settings.path.display(), "lock area open: {}", area.header().timing);
                tell.send_replace(State::Open(Arc::new(area)));
                return;
            }
            // Another agent has this node's name: one of the two is wrong, and the one that came first is serving.
            Err(Unusable::Taken(who)) => {
                refused.send_replace(Some(who));
                return;
            }
            Err(Unusable::NotYet(why)) => {
                if why != said {
                    tracing::error!(area = %settings.name, "lock area not usable, trying again and again: {why}");
                }
                tell.send_replace(State::NotYet(Some(why.clone())));
                said = why;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            () = tell.closed() => return,
        }
    }
}

async fn try_open(
    settings: &AreaSettings,
    margin: Option<Duration>,
    config: AreaConfig,
    clock: Clock,
) -> Result<LockArea, Unusable> {
    let (path, deadline) = (settings.path.clone(), settings.io_deadline());
    let device = tokio::task::spawn_blocking(move || DirectDevice::open(path, deadline))
        .await
        .map_err(Unusable::not_yet)?
        .map_err(Unusable::not_yet)?;
    // Before it is entered: a node that could outlive its lease must not have one.
    let header = admin::header(&device).await.map_err(Unusable::not_yet)?;
    if let Some(margin) = margin.filter(|margin| *margin > header.timing.watchdog()) {
        return Err(Unusable::NotYet(format!(
            "the watchdog may take {} to end this node, and the other nodes wait {} only: make the watchdog faster, or the \
             area anew with a greater `watchdog`",
            Span(margin),
            Span(header.timing.watchdog())
        )));
    }
    LockArea::open(Arc::new(device), config, clock).await.map_err(|error| match error {
        OpenError::NameInUse { .. } => Unusable::Taken(error.to_string()),
        other => Unusable::not_yet(other),
    })
}

/// Told apart from every other life by the wall clock's nanoseconds; the boot's identity goes with it.
fn incarnation() -> Incarnation {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos());
    Incarnation(u64::try_from(wall).unwrap_or(u64::MAX))
}

fn seed() -> u64 {
    // A seed that is not random only makes two nodes lose a race to each other more often.
    getrandom::u64().unwrap_or_else(|_| incarnation().0)
}

#[async_trait]
impl SharedLease for Area {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    async fn changed(&self, seen: &LeaseNews) -> LeaseNews {
        let mut state = self.state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Open(area) => return area.changed(seen).await,
                State::NotYet(trouble) => {
                    let news = LeaseNews { trouble, ..LeaseNews::default() };
                    if news != *seen {
                        return news;
                    }
                }
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

struct LateClaim {
    area: Area,
    hierarchy: HierarchyName,
    claim: OnceLock<Arc<dyn Claim>>,
}

impl LateClaim {
    fn ready(&self) -> Result<Arc<dyn Claim>, Refusal> {
        match &*self.area.state.borrow() {
            State::Open(area) => Ok(self.claim.get_or_init(|| area.claim(self.hierarchy.clone())).clone()),
            State::NotYet(why) => {
                let why = why.clone().unwrap_or_else(|| format!("lock area {} is being opened", self.area.name));
                Err(Refusal::Unreachable(why))
            }
        }
    }
}

#[async_trait]
impl Claim for LateClaim {
    async fn inspect(&self) -> Result<Holding, Refusal> {
        self.ready()?.inspect().await
    }

    async fn acquire(&self, request: Acquire) -> Result<Held, Refusal> {
        self.ready()?.acquire(request).await
    }

    async fn uphold(&self, epoch: Epoch) -> Result<Tenure, Loss> {
        match self.ready() {
            Ok(claim) => claim.uphold(epoch).await,
            Err(refused) => Err(Loss::unproven(refused.to_string())),
        }
    }

    async fn release(&self, epoch: Epoch, heir: Option<NodeName>, failures: EarlyFailures) -> Result<(), Refusal> {
        self.ready()?.release(epoch, heir, failures).await
    }

    async fn fence(&self, victim: &NodeName) -> Result<(), Refusal> {
        self.ready()?.fence(victim).await
    }

    fn shared_lease(&self) -> Option<Arc<dyn SharedLease>> {
        Some(Arc::new(self.area.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ha_core::claim::lock_area::admin::{AreaPlan, Existing, initialise};
    use ha_core::claim::lock_area::{AreaId, LeaseTiming};
    use ha_resources::clock;

    use super::*;

    const ENOUGH: Duration = Duration::from_secs(60);

    fn settings(dir: &tempfile::TempDir) -> AreaSettings {
        let name = LockAreaName::new("main").unwrap();
        AreaSettings { name, path: dir.path().join("area"), timing: None, io_deadline: Some(ENOUGH), channel: None }
    }

    fn begin(settings: &AreaSettings, margin: Duration) -> Area {
        let node = NodeName::new("alpha").unwrap();
        Area::begin(
            settings,
            Some(margin),
            &node,
            clock::boot_id().unwrap(),
            &clock::boot_clock(),
            &watch::channel(None).0,
        )
    }

    async fn make(settings: &AreaSettings) {
        // Ready under another name, so that it is there as a whole or not at all.
        let path = settings.path.with_extension("new");
        fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let device = DirectDevice::open(&path, ENOUGH).unwrap();
        let ms = Duration::from_millis;
        let timing = LeaseTiming::new(ms(100), ms(10_000), ms(200), ms(200)).unwrap();
        let nodes = vec![NodeName::new("alpha").unwrap()];
        initialise(&device, AreaPlan { id: AreaId([1; 16]), nodes, hierarchies: 4, timing }, Existing::Keep)
            .await
            .unwrap();
        fs::rename(path, &settings.path).unwrap();
    }

    /// Follows the lease until it is as wanted.
    async fn until(area: &Area, wanted: impl Fn(&LeaseNews) -> bool) -> LeaseNews {
        let mut news = LeaseNews::default();
        let follow = async {
            while !wanted(&news) {
                news = area.changed(&news).await;
            }
            news
        };
        tokio::time::timeout(ENOUGH, follow).await.unwrap()
    }

    #[tokio::test]
    async fn storage_that_comes_late_is_waited_for_and_then_used() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dir);
        let area = begin(&settings, Duration::from_millis(200));
        let claim = area.claim(HierarchyName::new("web").unwrap());
        let news = until(&area, |news| news.trouble.is_some()).await;
        assert!(news.trouble.unwrap().contains("does not exist"));
        assert!(matches!(claim.inspect().await, Err(Refusal::Unreachable(why)) if why.contains("does not exist")));
        make(&settings).await;
        until(&area, |news| news.until.is_some()).await;
        let request = Acquire { beliefs: Arc::default(), known: Epoch::ZERO, adopt: None };
        claim.acquire(request).await.unwrap();
        claim.release(claim.inspect().await.unwrap().epoch, None, EarlyFailures::default()).await.unwrap();
        area.leave().await;
    }

    #[tokio::test]
    async fn an_area_that_does_not_wait_for_the_watchdog_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dir);
        make(&settings).await;
        let area = begin(&settings, Duration::from_millis(201));
        let news = until(&area, |news| news.trouble.is_some()).await;
        assert!(news.trouble.unwrap().contains("the watchdog may take 201ms"));
        assert_eq!(news.until, None);
    }
}
