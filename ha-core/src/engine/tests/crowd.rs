//! Many hierarchies on few nodes.

use super::*;
use crate::claim::{LeaseNews, PeerOnStorage};

fn many(count: usize, nodes: &[&str]) -> Vec<Hierarchy> {
    (0..count)
        .map(|i| {
            let mut hierarchy = web(&format!("h{i:04}"), nodes);
            hierarchy.resources.truncate(1);
            hierarchy.policy.importance = i32::try_from(i % 7).unwrap();
            hierarchy
        })
        .collect()
}

fn all_served(cluster: &Cluster) -> bool {
    cluster.hierarchies.keys().all(|h| !cluster.places(h.as_str()).is_empty())
}

#[test]
fn a_thousand_are_recovered_a_few_at_a_time_and_the_important_ones_first() {
    let mut cluster = Cluster::new(many(1000, &[ALPHA]));
    cluster.max_recoveries = 8;
    cluster.power_on_all(&[ALPHA]);
    cluster.run(secs(20));
    assert!(all_served(&cluster));
    assert_eq!(cluster.starts_at_once, 8);
    let importance: Vec<i32> =
        cluster.started_order.iter().map(|(_, h)| cluster.hierarchies[h].policy.importance).collect();
    assert_eq!(importance.len(), 1000);
    // The claims are answered in one order; those that found room at once are a few.
    assert!(importance[8..].is_sorted_by(|a, b| a >= b), "{importance:?}");
}

#[test]
fn a_start_that_never_ends_delays_no_other() {
    let mut cluster = Cluster::new(many(50, &[ALPHA, BETA]));
    cluster.max_recoveries = 8;
    cluster.act("*", "h0006", "disk", Operation::Start, Act::Never);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.until("all others are in service", |c| {
        c.hierarchies.keys().filter(|h| h.as_str() != "h0006").all(|h| c.serves(ALPHA, h.as_str()))
    });
    assert!(cluster.now < Time::ZERO + secs(3), "{}", cluster.now);
}

#[test]
fn an_idle_node_does_no_work_per_hierarchy() {
    let mut cluster = Cluster::new(many(1000, &[ALPHA, BETA]));
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.run(secs(30));
    assert!(all_served(&cluster));
    cluster.forget_events();
    let beta = node(BETA);
    let now = cluster.now;
    let mut beats = 0;
    cluster.run(secs(1));
    for (_, (to, _, news)) in std::mem::take(&mut cluster.wire) {
        let News::Net { from, incarnation, message } = news else { continue };
        if to == beta && matches!(message, Message::Beat(_)) {
            let engine = cluster.machines.get_mut(&beta).unwrap().engine.as_mut().unwrap();
            let channel = ChannelName::new("net").unwrap();
            engine.call(cluster.now, Call::Handle(Input::Received { channel, from, incarnation, message }));
            beats += 1;
            while let Some(effect) = engine.poll_effect() {
                assert!(matches!(effect, Effect::Send(_)), "{effect}");
            }
        }
    }
    assert!(cluster.machines.values().all(|m| m.events.is_empty()));
    assert!(cluster.now > now && beats <= 2);
}

/// What two nodes do within an idle minute that serve so many hierarchies on one lease, of which each has a half. Their operators ask for
/// monitors once a day.
fn idle_minute(count: usize) -> Work {
    let mut hierarchies = many(count, &[ALPHA, BETA]);
    for (i, hierarchy) in hierarchies.iter_mut().enumerate() {
        hierarchy.resources[0].monitor.every = secs(86_400);
        hierarchy.nodes.rotate_left(i % 2);
    }
    let mut cluster = Cluster::new(hierarchies);
    cluster.lease = Some("main".to_owned());
    cluster.power_on_all(&[ALPHA, BETA]);
    renew_for(&mut cluster, 120);
    assert!(all_served(&cluster) && cluster.serves(ALPHA, "h0000") && cluster.serves(BETA, "h0001"));
    cluster.work = Work::default();
    cluster.forget_events();
    renew_for(&mut cluster, 60);
    assert!(cluster.machines.values().all(|machine| machine.events.is_empty()));
    cluster.work
}

/// Time passes, and every half second each node's lease is renewed and shows the other's slot beating.
fn renew_for(cluster: &mut Cluster, seconds: u64) {
    for _ in 0..2 * seconds {
        for (me, other) in [(ALPHA, BETA), (BETA, ALPHA)] {
            let (since, boot) = (cluster.now, BootId([1; 16]));
            let peers = BTreeMap::from([(node(other), PeerOnStorage::Beating { since, boot })]);
            let news = LeaseNews { until: Some(cluster.now + secs(4)), lapsed: 0, peers, trouble: None };
            cluster.input(me, Input::Lease { lease: "main".to_owned(), news });
        }
        cluster.run(ms(500));
    }
}

/// As often woken, as many effects and messages, of the same size.
#[test]
fn an_idle_node_costs_the_same_whatever_it_serves() {
    let ten = idle_minute(10);
    // A beat every 100 ms to the other node, and for each renewal its end remembered; nothing else.
    let renewals = 2 * 2 * 60;
    assert!((1_200..1_300).contains(&ten.messages) && ten.effects == ten.messages + renewals, "{ten:?}");
    assert!(ten.message_bytes as u64 / ten.messages < 200, "{ten:?}");
    let thousand = idle_minute(1_000);
    assert_eq!(Work { message_bytes: ten.message_bytes, ..thousand }, ten);
    // A beat names two versions, and a number that is a hundred times as great takes a byte more.
    let more = thousand.message_bytes - ten.message_bytes;
    assert!(more as u64 <= 2 * ten.messages, "{thousand:?}");
}
