//! A node that was fenced: what a proof is good for, and when it is not.

use super::*;
use crate::hierarchy::OnStopFailure;
use crate::record::FencingNews;

impl Cluster {
    /// Alpha holds the claim and has lost its power; beta has lost contact with it.
    fn without_alpha() -> Self {
        let mut cluster = Cluster::serving(2);
        cluster.revocable = true;
        cluster.power_off(ALPHA);
        cluster.until("contact is lost", |c| c.engine(BETA).contact.peer(&node(ALPHA)).is_some_and(lost));
        cluster
    }

    /// Beta is told that alpha was proven to be off, by a fencing that began then.
    fn proven(&mut self, begun: Time) {
        let how = "fence_lab says off".to_owned();
        self.input(BETA, Input::Fencing { node: node(ALPHA), news: FencingNews::Proven { begun, how } });
    }

    fn belief(&self) -> Belief {
        self.engine(BETA).beliefs(&hier("web"))[&node(ALPHA)]
    }

    fn believes_off(&self) -> bool {
        matches!(self.belief(), Belief::Fenced { .. })
    }

    fn fencing_told(&self) -> Vec<String> {
        let events = self.machines[&node(BETA)].events.iter();
        events.filter(|e| matches!(e.what, Happened::Fencing { .. })).map(ToString::to_string).collect()
    }
}

fn lost(peer: &crate::contact::Peer) -> bool {
    matches!(peer.state(), crate::contact::PeerState::Lost { .. })
}

#[test]
fn what_a_fenced_node_held_is_taken_at_once() {
    let mut cluster = Cluster::without_alpha();
    // The claim alone would have beta wait for the end of the lease.
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now + secs(100);
    cluster.run(secs(5));
    assert_eq!((cluster.places("web"), cluster.belief()), (vec![], Belief::Lost));
    let began = cluster.now;
    cluster.input(
        BETA,
        Input::Fencing {
            node: node(ALPHA),
            news: FencingNews::Begun { by: "root@beta".to_owned(), reason: "it hangs".to_owned() },
        },
    );
    cluster.run(secs(3));
    assert_eq!((cluster.places("web"), cluster.belief()), (vec![], Belief::Lost), "an order proves nothing");
    cluster.proven(began);
    let proven = cluster.now;
    assert!(cluster.believes_off());
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert!(cluster.now < proven + secs(1), "{}", cluster.picture());
    let expected = ["fencing alpha, by root@beta: it hangs", "alpha is fenced, proven to be off: fence_lab says off"];
    assert_eq!(cluster.fencing_told(), expected);
}

#[test]
fn a_node_that_was_heard_after_its_fencing_began_is_not_gone() {
    let mut cluster = Cluster::serving(2);
    cluster.revocable = true;
    let began = cluster.now;
    cluster.run(secs(1));
    cluster.proven(began);
    assert_eq!(cluster.belief(), Belief::Heard, "it serves and is heard, whatever a device says");
    cluster.power_off(ALPHA);
    cluster.until("contact is lost", |c| c.engine(BETA).contact.peer(&node(ALPHA)).is_some_and(lost));
    assert_eq!(cluster.belief(), Belief::Lost);
    cluster.proven(cluster.now);
    assert!(cluster.believes_off(), "another fencing, or the devices asked once more, and it was not heard since");
}

#[test]
fn a_later_life_ends_it() {
    let mut cluster = Cluster::without_alpha();
    cluster.proven(cluster.now);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.power_on(ALPHA);
    cluster.until("alpha is heard", |c| c.engine(BETA).contact.in_contact(&node(ALPHA)));
    assert!(!cluster.believes_off());
    cluster.power_off(ALPHA);
    cluster.until("contact is lost", |c| c.engine(BETA).contact.peer(&node(ALPHA)).is_some_and(lost));
    assert_eq!(cluster.belief(), Belief::Lost, "the proof was of the life before");
}

#[test]
fn a_proof_counts_for_a_moment() {
    let mut cluster = Cluster::without_alpha();
    cluster.machines.get_mut(&node(BETA)).unwrap().storage_cut = true;
    cluster.proven(cluster.now);
    cluster.run(PROOF_COUNTS_FOR.saturating_sub(ms(1)));
    assert!(cluster.believes_off());
    cluster.run(ms(1));
    assert_eq!(cluster.belief(), Belief::Lost);
    assert!(cluster.engine(BETA).fenced.is_empty());
}

#[test]
fn nothing_follows_from_what_is_not_proven_or_of_no_other_node() {
    let mut cluster = Cluster::without_alpha();
    let news = FencingNews::NotProven { why: "fence_lab says on".to_owned() };
    cluster.input(BETA, Input::Fencing { node: node(ALPHA), news });
    assert_eq!(cluster.belief(), Belief::Lost);
    assert_eq!(cluster.fencing_told(), ["fencing alpha is NOT proven, it may be running: fence_lab says on"]);
    for stranger in [BETA, "omega"] {
        let news = FencingNews::Proven { begun: cluster.now, how: String::new() };
        cluster.input(BETA, Input::Fencing { node: node(stranger), news });
    }
    assert!(cluster.engine(BETA).fenced.is_empty());
    assert_eq!(cluster.fencing_told().len(), 1);
}

/// Alpha serves, and every node may have every other one fenced by itself.
fn fencing_by_nodes(on_stop_failure: Option<OnStopFailure>) -> Cluster {
    let nodes = [ALPHA, BETA, GAMMA];
    let mut hierarchy = web("web", &nodes);
    hierarchy.policy.on_stop_failure = on_stop_failure;
    let mut cluster = Cluster::new([hierarchy]);
    cluster.fences = nodes.into_iter().map(node).collect();
    cluster.revocable = true;
    cluster.power_on_all(&nodes);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster
}

/// Alpha can neither stop nor kill a disk.
fn stop_fails(cluster: &mut Cluster) {
    cluster.fails(ALPHA, "disk", Operation::Stop);
    cluster.fails(ALPHA, "disk", Operation::Kill);
    cluster.accepted(ALPHA, Ask::Standby);
    cluster.until("the stop has failed", |c| c.phase(ALPHA, "web") == AnnouncedPhase::StopFailed);
}

#[test]
fn a_silent_holder_is_fenced_by_the_node_that_waits_for_its_lease() {
    let mut cluster = fencing_by_nodes(None);
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now + secs(100);
    cluster.power_off(ALPHA);
    cluster.until("somebody has it fenced", |c| !c.fencings.is_empty());
    let why = "it is silent, and web waits for the end of its lease";
    assert_eq!(cluster.fencings, [(node(BETA), node(ALPHA), why.to_owned())]);
    cluster.run(secs(30));
    assert_eq!(cluster.fencings.len(), 1, "not again and again");
    cluster.proven(cluster.now);
    let proven = cluster.now;
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert!(cluster.now < proven + secs(1), "{}", cluster.picture());
}

#[test]
fn an_agent_that_is_only_restarted_is_not_fenced() {
    let mut cluster = fencing_by_nodes(None);
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now + secs(100);
    cluster.kill_agent(ALPHA);
    cluster.until("beta waits", |c| c.phase(BETA, "web") == AnnouncedPhase::Waiting);
    cluster.start_agent(ALPHA);
    cluster.run(secs(60));
    assert_eq!((cluster.fencings.len(), cluster.places("web")), (0, vec![ALPHA]));
}

#[test]
fn where_nothing_is_proven_the_lease_is_waited_for() {
    let mut cluster = fencing_by_nodes(None);
    cluster.power_off(ALPHA);
    let end = cluster.now + secs(20);
    cluster.truths.get_mut(&hier("web")).unwrap().until = end;
    cluster.until("somebody has it fenced", |c| !c.fencings.is_empty());
    let news = FencingNews::NotProven { why: "the device does not answer".to_owned() };
    cluster.input(BETA, Input::Fencing { node: node(ALPHA), news });
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert!(cluster.now >= end);
    assert_eq!(cluster.fencings.len(), 1);
}

#[test]
fn nobody_fences_whom_nobody_may_fence_or_who_is_heard_or_whose_lease_ends_soon() {
    let mut cluster = Cluster::serving(3);
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert_eq!(cluster.fencings, [], "an operator's business");

    let mut cluster = fencing_by_nodes(None);
    cluster.run(secs(60));
    assert_eq!(cluster.fencings, []);
    cluster.power_off(ALPHA);
    cluster.truths.get_mut(&hier("web")).unwrap().until = cluster.now + ms(3_900);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    assert_eq!(cluster.fencings, [], "the rest of the lease is waited for");
}

#[test]
fn a_node_that_could_not_stop_something_is_fenced_by_the_next_one_after_it_had_time_to_help_itself() {
    let mut cluster = fencing_by_nodes(None);
    stop_fails(&mut cluster);
    let failed = cluster.now;
    cluster.until("somebody has it fenced", |c| !c.fencings.is_empty());
    assert!(cluster.now >= failed + secs(5));
    assert_eq!(cluster.fencings, [(node(BETA), node(ALPHA), "it could not stop web".to_owned())]);
}

#[test]
fn a_node_that_is_to_hold_what_it_cannot_stop_is_left_alone() {
    let mut cluster = fencing_by_nodes(Some(OnStopFailure::Hold));
    stop_fails(&mut cluster);
    cluster.run(secs(30));
    assert_eq!(cluster.fencings, []);
}
