//! Many hierarchies on few nodes.

use super::*;

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
