//! Lock areas in use, over a device in memory and the real clock of the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{AreaPlan, Existing, initialise, show};
use super::layout::AreaId;
use super::memory::Memory;
use super::{AreaConfig, BlockDevice, LeaseTiming, LockArea, OpenError};
use crate::claim::{Acquire, Belief, Claim, EarlyFailures, Holder, LeaseNews, PeerOnStorage, Refusal, Tenure};
use crate::name::{BootId, Epoch, HierarchyName, Incarnation, LockAreaName, NodeName};
use crate::time::Time;

fn node(i: u8) -> NodeName {
    NodeName::new(format!("n{i}")).unwrap()
}

fn name(i: usize) -> HierarchyName {
    HierarchyName::new(format!("h{i}")).unwrap()
}

fn ask() -> Acquire {
    Acquire { beliefs: Arc::default(), known: Epoch::ZERO, adopt: None }
}

async fn device(hierarchies: u32) -> Arc<Memory> {
    let ms = Duration::from_millis;
    // A generous deadline: a busy machine must not end the leases of these tests.
    let timing = LeaseTiming::new(ms(20), ms(4_000), ms(0), ms(100)).unwrap();
    let device = Arc::new(Memory::new(512, 8 << 20));
    let nodes = vec![node(0), node(1), node(2)];
    let plan = AreaPlan { id: AreaId([1; 16]), nodes, hierarchies, timing };
    initialise(&*device, plan, Existing::Keep).await.unwrap();
    device
}

async fn open(device: &Arc<Memory>, i: u8, boot: u8, life: u64) -> Result<LockArea, OpenError> {
    let config = AreaConfig {
        name: LockAreaName::new("main").unwrap(),
        node: NodeName::new(format!("n{i}")).unwrap(),
        boot: BootId([boot; 16]),
        incarnation: Incarnation(life),
        timing: None,
        seed: u64::from(i),
    };
    let start = Instant::now();
    let clock = Arc::new(move || Time(1_000_000_000 + start.elapsed().as_nanos() as u64));
    LockArea::open(device.clone() as Arc<dyn BlockDevice>, config, clock).await
}

#[tokio::test]
async fn one_node_owns_a_hierarchy_and_hands_it_to_its_heir() {
    let device = device(8).await;
    let (a, b) = (open(&device, 0, 1, 1).await.unwrap(), open(&device, 1, 2, 1).await.unwrap());
    let (web_a, web_b) = (a.claim(name(0)), b.claim(name(0)));
    assert_eq!(web_a.inspect().await.unwrap().holder, None);
    let held = web_a.acquire(ask()).await.unwrap();
    assert!(matches!(held.tenure, Tenure::Until(_)));
    assert_eq!(web_b.inspect().await.unwrap().holder, Some(Holder::Node(node(0))));
    let refused = web_b.acquire(ask()).await.unwrap_err();
    assert!(matches!(refused, Refusal::Held { retry_at: Some(_), .. }), "{refused:?}");
    let beliefs = Arc::new(BTreeMap::from([(node(0), Belief::Heard)]));
    let refused = web_b.acquire(Acquire { beliefs, ..ask() }).await.unwrap_err();
    assert!(matches!(refused, Refusal::Held { retry_at: None, .. }), "{refused:?}");
    assert!(a.leave().await.is_err(), "an owner does not leave");
    let failures = EarlyFailures { count: 2, first_ms_ago: 40 };
    web_a.release(held.epoch, Some(node(1)), failures).await.unwrap();
    assert!(matches!(web_a.acquire(ask()).await, Err(Refusal::Held { .. })), "it is the heir's");
    let inherited = web_b.acquire(ask()).await.unwrap();
    assert!(inherited.epoch > held.epoch);
    assert_eq!(inherited.failures, failures);
    web_b.uphold(inherited.epoch).await.unwrap();
    assert!(web_a.uphold(held.epoch).await.is_err());
    a.leave().await.unwrap();
    let lease = web_b.shared_lease().unwrap();
    let mut news = LeaseNews::default();
    while news.peers.get(&node(0)) != Some(&PeerOnStorage::Left) {
        news = tokio::time::timeout(Duration::from_secs(30), lease.changed(&news)).await.unwrap();
    }
    let report = show(&*device).await.unwrap();
    assert_eq!(report.hierarchies[0].owner, Some(node(1)));
    assert!(report.to_string().contains("owned by n1"), "{report}");
}

#[tokio::test]
async fn a_restarted_agent_adopts_and_a_rebooted_node_begins_anew() {
    let device = device(8).await;
    let first = open(&device, 0, 1, 1).await.unwrap();
    let held = first.claim(name(0)).acquire(ask()).await.unwrap();
    drop(first);
    let second = open(&device, 0, 1, 2).await.unwrap();
    let adopted = second.claim(name(0)).acquire(Acquire { adopt: Some(held.epoch), ..ask() }).await.unwrap();
    assert_eq!(adopted.epoch, held.epoch);
    drop(second);
    let rebooted = open(&device, 0, 9, 3).await.unwrap();
    let anew = rebooted.claim(name(0)).acquire(Acquire { adopt: Some(held.epoch), ..ask() }).await.unwrap();
    assert!(anew.epoch > held.epoch);
}

#[tokio::test]
async fn a_node_seen_with_a_new_boot_has_lost_what_it_owned_before() {
    let device = device(8).await;
    let (a, b) = (open(&device, 0, 1, 1).await.unwrap(), open(&device, 1, 2, 1).await.unwrap());
    let held = a.claim(name(0)).acquire(ask()).await.unwrap();
    drop(a);
    let _rebooted = open(&device, 0, 7, 2).await.unwrap();
    let taken = b.claim(name(0)).acquire(ask()).await.unwrap();
    assert!(taken.epoch > held.epoch);
}

#[tokio::test]
async fn a_second_node_of_the_same_name_is_told_who_has_it() {
    let device = device(8).await;
    let _first = open(&device, 0, 1, 1).await.unwrap();
    let error = open(&device, 0, 2, 1).await.map(drop).unwrap_err();
    assert!(matches!(&error, OpenError::NameInUse { who, .. } if who.contains("01010101")), "{error}");
    assert!(matches!(open(&device, 9, 2, 1).await.map(drop), Err(OpenError::UnknownNode { .. })));
}

#[tokio::test]
async fn a_thousand_hierarchies_of_a_node_that_rebooted_are_taken_in_less_than_20_transfers() {
    let device = device(1_024).await;
    let a = open(&device, 0, 1, 1).await.unwrap();
    let b = open(&device, 1, 2, 1).await.unwrap();
    let _c = open(&device, 2, 3, 1).await.unwrap();
    let held = take_all(&a, 1_000).await;
    b.claim(name(0)).inspect().await.unwrap();
    drop(a);
    let _rebooted = open(&device, 0, 8, 2).await.unwrap();
    let before = (device.transfers(), Instant::now());
    let taken = take_all(&b, 1_000).await;
    let all = device.transfers() - before.0;
    // Three leases go on meanwhile, with one write and one read each per renewal.
    let renewals = (before.1.elapsed().as_millis() as u64 / 20 + 2) * 3 * 2;
    assert!(all < 20 + renewals, "{all} transfers, of which at most {renewals} were renewals");
    assert!(taken.iter().zip(&held).all(|(new, old)| new > old));
}

async fn take_all(area: &LockArea, n: usize) -> Vec<Epoch> {
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..n {
        let claim = area.claim(name(i));
        tasks.spawn(async move { (i, claim.acquire(ask()).await.unwrap().epoch) });
    }
    let mut epochs = tasks.join_all().await;
    epochs.sort_unstable();
    epochs.into_iter().map(|(_, epoch)| epoch).collect()
}

#[tokio::test]
async fn nodes_that_name_hierarchies_at_once_agree_on_their_numbers() {
    let device = device(16).await;
    let (a, b) = (open(&device, 0, 1, 1).await.unwrap(), open(&device, 1, 2, 1).await.unwrap());
    let claims = |area: &LockArea, from: usize| (from..from + 3).map(|i| area.claim(name(i))).collect::<Vec<_>>();
    let take = |claims: Vec<Arc<dyn Claim>>| async move {
        let mut won = Vec::new();
        for claim in claims {
            won.push(claim.acquire(ask()).await.is_ok());
        }
        won
    };
    let (won_a, won_b) = tokio::join!(take(claims(&a, 0)), take(claims(&b, 1)));
    for i in 1..3 {
        assert!(won_a[i] != won_b[i - 1], "hierarchy {i} has exactly one owner: {won_a:?} {won_b:?}");
    }
    let report = show(&*device).await.unwrap();
    let mut names: Vec<_> = report.hierarchies.iter().map(|h| h.name.clone()).collect();
    names.sort();
    assert_eq!(names, (0..4).map(name).collect::<Vec<_>>());
}
