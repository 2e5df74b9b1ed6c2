//! A claim by reservation whose disks may come late: storage that is not there when the agent starts delays nobody but its hierarchy.
//!
//! Opens the disks in the background from the first question on, again and again, and says until then what is in the way. Leaves the
//! reservation itself to [`ReservationClaim`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::claim::reservation::ReservationClaim;
use ha_core::claim::{Acquire, Claim, EarlyFailures, Held, Holding, Loss, Refusal, Storage, Tenure};
use ha_core::driver::Clock;
use ha_core::name::{Epoch, HierarchyName, NodeName};
use ha_resources::claim::reservation::ReservationSpec;
use tokio::sync::{Notify, watch};

use super::{Common, Named, Opened, Opener, Owned, Owners, open_all};

/// From one attempt to open the disks to the next.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The claim of a hierarchy, whether or not its disks could be opened yet.
pub(crate) struct LateReservation {
    begin: Begin,
    state: OnceLock<watch::Receiver<State>>,
    _named: Named,
}

/// What opening needs.
#[derive(Clone)]
struct Begin {
    hierarchy: HierarchyName,
    spec: ReservationSpec,
    common: Common,
    clock: Clock,
    owners: Owners,
    opener: Arc<dyn Opener>,
    /// It is this node's already, and only to be proven.
    adopts: Arc<Adopts>,
}

#[derive(Default)]
struct Adopts {
    so: AtomicBool,
    told: Notify,
}

#[derive(Clone)]
enum State {
    /// The first attempt has not ended.
    Opening,
    NotYet(String),
    Open(Arc<Open>),
}

struct Open {
    claim: ReservationClaim,
    storage: Vec<Storage>,
    _owned: Owned,
}

impl LateReservation {
    /// Touches nothing before it is asked for something.
    pub(crate) fn new(
        hierarchy: HierarchyName,
        spec: ReservationSpec,
        common: Common,
        clock: Clock,
        owners: Owners,
        opener: Arc<dyn Opener>,
    ) -> LateReservation {
        let named = owners.name(&hierarchy, &spec.devices);
        let begin = Begin { hierarchy, spec, common, clock, owners, opener, adopts: Arc::default() };
        LateReservation { begin, state: OnceLock::new(), _named: named }
    }

    fn state(&self) -> &watch::Receiver<State> {
        self.state.get_or_init(|| {
            let (tell, state) = watch::channel(State::Opening);
            tokio::spawn(open(self.begin.clone(), tell));
            state
        })
    }

    async fn ready(&self) -> Result<Arc<Open>, Refusal> {
        let mut state = self.state().clone();
        // Whoever comes first waits for the first attempt, instead of being told that there is nothing to tell yet.
        let known = match state.wait_for(|state| !matches!(state, State::Opening)).await {
            Ok(known) => known.clone(),
            Err(_) => State::NotYet("the task that opens the disks has ended".to_owned()),
        };
        match known {
            State::Open(open) => Ok(open),
            State::NotYet(why) => Err(Refusal::Unreachable(why)),
            State::Opening => Err(Refusal::Unreachable("the disks are being opened".to_owned())),
        }
    }
}

async fn open(begin: Begin, tell: watch::Sender<State>) {
    let mut said = String::new();
    loop {
        match try_open(&begin).await {
            Ok(open) => {
                let disks: Vec<&str> = open.claim.devices().iter().map(|device| device.name()).collect();
                tracing::info!(hierarchy = %begin.hierarchy, disks = disks.join(", "), "claimed by reservation, disks open");
                tell.send_replace(State::Open(Arc::new(open)));
                return;
            }
            Err(why) => {
                if why != said {
                    tracing::error!(hierarchy = %begin.hierarchy, "disks not usable, trying again and again: {why}");
                }
                tell.send_replace(State::NotYet(why.clone()));
                said = why;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            () = begin.adopts.told.notified() => {}
            () = tell.closed() => return,
        }
    }
}

async fn try_open(begin: &Begin) -> Result<Open, String> {
    let disks = open_all(begin.opener.clone(), begin.spec.clone()).await?;
    for finding in disks.iter().flat_map(|disk| &disk.findings) {
        tracing::warn!(hierarchy = %begin.hierarchy, "{finding}");
    }
    // What is in service stays so, whatever else was written into other files since.
    if !begin.adopts.so.load(Ordering::Relaxed) {
        begin.owners.claimed_twice(&begin.hierarchy, &disks, &*begin.opener)?;
    }
    let owned = begin.owners.own(&begin.hierarchy, &disks)?;
    let named = |disk: &Opened| Storage { name: disk.path.display().to_string(), identity: disk.identity.to_string() };
    let storage = disks.iter().map(named).collect();
    let devices = disks.into_iter().map(|disk| disk.device).collect();
    let config = begin.common.config(begin.hierarchy.clone(), &begin.spec);
    let claim = ReservationClaim::new(devices, config, begin.clock.clone()).map_err(|e| e.to_string())?;
    Ok(Open { claim, storage, _owned: owned })
}

#[async_trait]
impl Claim for LateReservation {
    async fn inspect(&self) -> Result<Holding, Refusal> {
        self.ready().await?.claim.inspect().await
    }

    async fn acquire(&self, request: Acquire) -> Result<Held, Refusal> {
        if request.adopt.is_some() && !self.begin.adopts.so.swap(true, Ordering::Relaxed) {
            self.begin.adopts.told.notify_one();
        }
        self.ready().await?.claim.acquire(request).await
    }

    async fn uphold(&self, epoch: Epoch) -> Result<Tenure, Loss> {
        match self.ready().await {
            Ok(open) => open.claim.uphold(epoch).await,
            Err(refused) => Err(Loss::unproven(refused.to_string())),
        }
    }

    fn stands_on(&self) -> Vec<Storage> {
        match &*self.state().borrow() {
            State::Open(open) => open.storage.clone(),
            State::Opening | State::NotYet(_) => Vec::new(),
        }
    }

    async fn lost(&self, epoch: Epoch) -> Loss {
        match self.ready().await {
            Ok(open) => open.claim.lost(epoch).await,
            // What was never opened was never held.
            Err(_) => std::future::pending().await,
        }
    }

    async fn release(&self, epoch: Epoch, heir: Option<NodeName>, failures: EarlyFailures) -> Result<(), Refusal> {
        self.ready().await?.claim.release(epoch, heir, failures).await
    }

    async fn fence(&self, victim: &NodeName) -> Result<(), Refusal> {
        self.ready().await?.claim.fence(victim).await
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ha_core::claim::reservation::{ReservationTiming, ReservationType};
    use ha_core::claim::{Belief, Holder};
    use ha_core::time::Time;

    use super::super::testing::{Shelf, common};
    use super::*;

    fn spec(devices: &[&str]) -> ReservationSpec {
        ReservationSpec {
            devices: devices.iter().map(PathBuf::from).collect(),
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            timing: ReservationTiming::new(Duration::from_millis(50), Duration::from_secs(60)).unwrap(),
            time_limit: Duration::from_secs(20),
        }
    }

    fn claim(shelf: &Arc<Shelf>, node: &str, hierarchy: &str, owners: &Owners, devices: &[&str]) -> LateReservation {
        let begun = tokio::time::Instant::now();
        let clock: Clock = Arc::new(move || Time::ZERO + Duration::from_secs(1_000) + begun.elapsed());
        let hierarchy = HierarchyName::new(hierarchy).unwrap();
        let opener = shelf.reached_by(node);
        LateReservation::new(hierarchy, spec(devices), common(node), clock, owners.clone(), opener)
    }

    fn request(belief: Belief) -> Acquire {
        let beliefs = ["alpha", "beta"].iter().map(|node| (NodeName::new(node).unwrap(), belief)).collect();
        Acquire { beliefs: Arc::new(beliefs), known: Epoch::ZERO, adopt: None }
    }

    #[tokio::test(start_paused = true)]
    async fn disks_that_come_late_are_waited_for_and_then_used() {
        let shelf = Shelf::with(&[]);
        let claim = claim(&shelf, "alpha", "web", &Owners::default(), &["/dev/one"]);
        let refused = claim.inspect().await.unwrap_err();
        assert!(matches!(&refused, Refusal::Unreachable(why) if why.contains("/dev/one does not exist")), "{refused}");
        shelf.put("/dev/one", "one");
        let held = loop {
            match claim.acquire(request(Belief::Gone)).await {
                Ok(held) => break held,
                Err(Refusal::Unreachable(_)) => tokio::time::sleep(AGAIN_AFTER).await,
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(claim.inspect().await.unwrap().holder, Some(Holder::Me));
        assert_eq!(claim.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));
        claim.release(held.epoch, None, EarlyFailures::default()).await.unwrap();
        assert_eq!(claim.inspect().await.unwrap().holder, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_two_hierarchies_name_stays_with_the_one_that_has_it() {
        let shelf = Shelf::with(&[("/dev/one", "one"), ("/dev/also-one", "one")]);
        let owners = Owners::default();
        let web = claim(&shelf, "alpha", "web", &owners, &["/dev/one"]);
        let held = web.acquire(request(Belief::Gone)).await.unwrap();
        let mail = claim(&shelf, "alpha", "mail", &owners, &["/dev/also-one"]);
        let refused = mail.inspect().await.unwrap_err().to_string();
        assert!(refused.contains("/dev/also-one is a disk of hierarchy web too, as /dev/one ("), "{refused}");
        assert_eq!(web.uphold(held.epoch).await, Ok(Tenure::UntilRevoked));

        let twice = claim(&shelf, "alpha", "twice", &Owners::default(), &["/dev/one", "/dev/also-one"]);
        let refused = twice.inspect().await.unwrap_err().to_string();
        assert!(refused.contains("/dev/one and /dev/also-one are the same disk"), "{refused}");
    }

    /// Agents that start with such files: had each of two nodes opened the disk for another hierarchy, one would take it from the other,
    /// which it finds not to serve what it asks for.
    #[tokio::test(start_paused = true)]
    async fn of_two_hierarchies_that_name_one_disk_only_what_is_in_service_begins() {
        let shelf = Shelf::with(&[("/dev/one", "one"), ("/dev/also-one", "one")]);
        let (of_alpha, of_beta) = (Owners::default(), Owners::default());
        let held =
            claim(&shelf, "alpha", "web", &Owners::default(), &["/dev/one"]).acquire(request(Belief::Gone)).await;
        let epoch = held.unwrap().epoch;
        let both = |node, owners| {
            let hierarchy = |name, device| claim(&shelf, node, name, owners, &[device]);
            (hierarchy("web", "/dev/one"), hierarchy("mail", "/dev/also-one"))
        };
        let (web, mail) = both("alpha", &of_alpha);
        let (web_of_beta, mail_of_beta) = both("beta", &of_beta);
        let generation = || shelf.disk("one").lock().unwrap().reservation().generation;
        let before = generation();
        for (claim, other) in [(&mail_of_beta, "web"), (&web_of_beta, "mail"), (&mail, "web"), (&web, "mail")] {
            let refused = claim.acquire(request(Belief::Gone)).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("is a disk of hierarchy {other} too")), "{refused}");
        }
        assert_eq!(generation(), before, "nothing was touched");

        let adopting = Acquire { adopt: Some(epoch), ..request(Belief::Gone) };
        let held = loop {
            match web.acquire(adopting.clone()).await {
                Ok(held) => break held,
                Err(Refusal::Unreachable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(held.epoch, epoch);
        drop((mail_of_beta, web));
        while web_of_beta.inspect().await.is_err() {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
