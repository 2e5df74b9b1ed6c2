//! Every outage has one entry in the history of every node that saw it, with its cause.

use super::*;
use crate::hierarchy::Failback;
use crate::record::{Cause, Ongoing, Timeline, Timelines};

impl Cluster {
    fn timelines(&self, at: &str) -> Timelines {
        let mut timelines = Timelines::new(node(at));
        for event in &self.machines[&node(at)].events {
            timelines.observe(event);
        }
        timelines
    }

    fn history(&self, at: &str) -> Vec<Timeline> {
        self.timelines(at).finished().cloned().collect()
    }

    fn ongoing(&self, at: &str) -> Vec<Ongoing> {
        self.timelines(at).ongoing().collect()
    }

    /// What a node has seen but for the beginning, in words, an entry a line.
    fn told(&self, at: &str) -> Vec<String> {
        let line = |timeline: &Timeline| match timeline.why() {
            Some(why) => format!("{}: {why}", timeline.what()),
            None => timeline.what(),
        };
        let all = self.history(at);
        all.iter().filter(|t| t.cause != Cause::FirstStart).map(line).collect()
    }

    fn last(&self, at: &str) -> Timeline {
        self.history(at).pop().unwrap_or_else(|| panic!("{at} tells nothing\n{}", self.picture()))
    }

    /// The outage as all of `nodes` tell it, in the same words.
    fn all_tell(&self, nodes: &[&str], lines: &[&str]) {
        for name in nodes {
            assert_eq!(self.told(name), lines, "on {name}\n{:#?}", self.machines[&node(name)].events);
        }
    }
}

#[test]
fn a_node_that_loses_power() {
    let mut cluster = Cluster::serving(3);
    let off = cluster.now;
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.run(secs(1));
    let line = "failover from alpha to beta: alpha was not heard any more";
    cluster.all_tell(&[BETA, GAMMA], &[line]);
    for name in [BETA, GAMMA] {
        let entry = cluster.last(name);
        assert!(entry.fault <= off && off.since(entry.fault) <= ms(110), "the last beat before the fault");
        assert!(entry.t_detect() >= secs(1) && entry.t_detect() <= ms(1_310), "{name}: {entry}");
        assert_eq!(entry.later(), None);
    }
    cluster.power_on(ALPHA);
    cluster.run(secs(20));
    for name in [BETA, GAMMA] {
        let later = cluster.last(name).later().expect("it is heard again");
        assert!(later.contains("booted anew: it had lost power, crashed, or was reset"), "{later}");
    }
}

/// The fault that this was written for: the first attempt of a node that waits was taken for the begin of everything that followed.
#[test]
fn a_node_that_began_unheard_and_waits_for_the_holder() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.cut(ALPHA, BETA);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.until("beta waits", |c| c.phase(BETA, "web") == AnnouncedPhase::Waiting);
    cluster.run(secs(300));
    assert_eq!(cluster.history(BETA), [], "alpha serves");
    let off = cluster.now;
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    let entry = cluster.last(BETA);
    assert_eq!(entry.what(), "failover from alpha to beta");
    assert!(off.since(entry.fault) <= secs(10), "as far back as it was known to hold its claim: {entry}");
    assert_eq!(cluster.history(BETA).len(), 1);
}

#[test]
fn a_node_that_waits_and_then_hears_the_holder() {
    let mut cluster = Cluster::new([web("web", &[ALPHA, BETA])]);
    cluster.power_on_all(&[ALPHA, BETA]);
    cluster.cut(ALPHA, BETA);
    cluster.until("beta waits", |c| c.phase(BETA, "web") == AnnouncedPhase::Waiting);
    cluster.heal();
    cluster.run(secs(60));
    assert_eq!((cluster.history(BETA), cluster.ongoing(BETA)), (vec![], vec![]), "nothing was interrupted");
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.all_tell(&[BETA], &["failover from alpha to beta: alpha was not heard any more"]);
    assert!(cluster.last(BETA).t_detect() < ms(1_200), "{}", cluster.last(BETA));
}

/// A node that could not ask when it began asks once more, to make sure that the claim is not its own.
#[test]
fn a_node_that_makes_sure_of_the_claim_interrupts_nothing() {
    let mut cluster = Cluster::serving(2);
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.forget_events();
    cluster.cut_all();
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.power_on(ALPHA);
    cluster.until("alpha asks in vain", |c| c.events(ALPHA, "web").iter().any(|e| e.contains("no path to the device")));
    cluster.cut.clear();
    cluster.run(secs(1));
    cluster.heal();
    cluster.run(secs(20));
    let asked = cluster.events(ALPHA, "web");
    assert!(asked.iter().any(|line| line.contains("held by beta")), "it asked again: {asked:#?}");
    assert_eq!((cluster.told(ALPHA), cluster.ongoing(ALPHA)), (vec![], vec![]));
    let off = cluster.now;
    cluster.power_off(BETA);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.all_tell(&[ALPHA], &["failover from beta to alpha: beta was not heard any more"]);
    assert!(off.since(cluster.last(ALPHA).fault) <= ms(110), "{}", cluster.last(ALPHA));
}

#[test]
fn all_networks_cut_and_nothing_moves() {
    let mut cluster = Cluster::serving(2);
    cluster.cut_all();
    cluster.run(secs(30));
    let ongoing = cluster.ongoing(BETA);
    assert_eq!(ongoing.len(), 1, "{ongoing:?}");
    assert!(ongoing[0].to_string().contains("NOT OVER YET: alpha was not heard any more"), "{}", ongoing[0]);
    cluster.heal();
    cluster.run(secs(30));
    let line = "nothing moved, in service on alpha all the time: alpha was not heard any more; clients may not have been answered";
    cluster.all_tell(&[BETA], &[line]);
    let later = cluster.last(BETA).later().expect("it is heard again");
    assert!(later.contains("with the same agent: it hung, or its network was cut"), "{later}");
    assert_eq!(cluster.told(ALPHA), [""; 0].map(String::from));

    // Much later it really dies, while it is not heard.
    cluster.cut_all();
    cluster.run(secs(600));
    let off = cluster.now;
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    let entry = cluster.last(BETA);
    assert_eq!(entry.what(), "failover from alpha to beta");
    assert!(off.since(entry.fault) < secs(10), "it held its claim until then: {entry}");
}

#[test]
fn the_holder_is_cut_off_the_storage() {
    let mut cluster = Cluster::serving(3);
    let cut = cluster.now;
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.run(secs(1));
    for name in [ALPHA, BETA, GAMMA] {
        let entry = cluster.last(name);
        assert_eq!(entry.what(), "failover from alpha to beta", "{name}");
        assert!(entry.why().unwrap().starts_with("alpha lost its claim"), "{name}: {entry}");
        assert!(entry.fault.since(cut) <= secs(1), "as soon as the claim could not be proven: {name}: {entry}");
        assert_eq!(cluster.told(name).len(), 1, "{name}");
    }
}

/// As where what runs cannot be stopped: the node is reset, which is not what began it.
#[test]
fn the_holder_is_cut_off_the_storage_and_reset() {
    let mut cluster = Cluster::serving(3);
    let cut = cluster.now;
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.run(secs(1));
    cluster.power_off(ALPHA);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.run(secs(1));
    cluster.all_tell(
        &[BETA, GAMMA],
        &["failover from alpha to beta: alpha could not prove its claim: no path to the device"],
    );
    let entry = cluster.last(BETA);
    assert!(entry.fault.since(cut) <= secs(1), "{entry}");
    assert!(entry.to_string().contains("contact with alpha lost"), "{entry}");
    cluster.heal();
    cluster.power_on(ALPHA);
    cluster.run(secs(20));
    assert!(cluster.last(GAMMA).later().unwrap().contains("booted anew"), "{}", cluster.last(GAMMA));
}

#[test]
fn storage_that_does_not_answer_for_a_while() {
    let mut cluster = Cluster::serving(2);
    cluster.machines.get_mut(&node(ALPHA)).unwrap().storage_cut = true;
    cluster.run(ms(900));
    cluster.heal();
    cluster.run(secs(5));
    let line = "nothing moved, in service on alpha all the time: alpha could not prove its claim: no path to the device; clients may \
                not have been answered";
    cluster.all_tell(&[ALPHA, BETA], &[line]);
    let events = cluster.events(ALPHA, "web");
    let told = |what: &str| events.iter().filter(|line| line.contains(what)).count();
    assert_eq!((told("cannot be proven"), told("is proven again, after")), (1, 1), "each once: {events:#?}");
}

#[test]
fn an_application_that_crashes_and_is_restarted_in_place() {
    let mut cluster = Cluster::serving(2);
    let resource = ResourceName::new("server").unwrap();
    let why = "exited with status 1".to_owned();
    cluster.input(ALPHA, Input::WatchFired { hierarchy: hier("web"), resource, why });
    cluster.run(secs(5));
    let line = "local recovery on alpha: on alpha: server failed (monitor): exited with status 1";
    cluster.all_tell(&[ALPHA, BETA], &[line]);
    assert_eq!(cluster.last(ALPHA).t_detect(), Duration::ZERO);
}

#[test]
fn an_application_that_fails_for_good_is_taken_over() {
    let mut cluster = Cluster::serving(3);
    cluster.fails(ALPHA, "server", Operation::Monitor);
    cluster.fails(ALPHA, "server", Operation::Start);
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.run(secs(1));
    cluster
        .all_tell(&[ALPHA, BETA, GAMMA], &["failover from alpha to beta: on alpha: server failed (monitor): broken"]);
    let steps = cluster.last(GAMMA).to_string();
    assert!(steps.contains("alpha says: restarting") && steps.contains("beta says: starting"), "{steps}");
}

#[test]
fn a_switchover_a_drain_and_a_failback() {
    let mut hierarchy = web("web", &[ALPHA, BETA]);
    hierarchy.policy.failback = Failback::Auto { after: secs(5) };
    let mut cluster = Cluster::new([hierarchy]);
    cluster.power_on_all(&[ALPHA, BETA, GAMMA]);
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(40));
    cluster.accepted(BETA, Ask::Move { hierarchy: hier("web"), to: Some(node(BETA)) });
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.accepted(BETA, Ask::Unpin { hierarchy: hier("web") });
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(2));
    cluster.accepted(ALPHA, Ask::Drain);
    cluster.until("beta serves again", |c| c.serves(BETA, "web"));
    cluster.run(secs(2));
    let lines = [
        "switchover from alpha to beta: moved by root@test",
        "switchover from beta to alpha: failback: it ranks higher and has been eligible for long enough",
        "switchover from alpha to beta: this node is being drained",
    ];
    cluster.all_tell(&[BETA], &lines);
    assert_eq!(cluster.told(ALPHA)[..2], lines[..2]);
    assert!(cluster.history(BETA).iter().skip(1).all(|entry| entry.t_detect().is_zero()), "nothing had to be detected");
    let steps = cluster.history(ALPHA).iter().map(ToString::to_string).collect::<String>();
    assert!(steps.contains("moved to beta, by root@test"), "what was asked for, and by whom: {steps}");
}

#[test]
fn stopped_and_started_by_an_operator() {
    let mut cluster = Cluster::serving(2);
    cluster.accepted(BETA, Ask::Stop { hierarchy: hier("web") });
    cluster.run(secs(300));
    let ongoing = cluster.ongoing(ALPHA);
    assert!(ongoing.len() == 1 && ongoing[0].why == "stopped by root@test", "{ongoing:?}");
    let started = cluster.now;
    cluster.accepted(BETA, Ask::Start { hierarchy: hier("web") });
    cluster.until("alpha serves", |c| c.serves(ALPHA, "web"));
    cluster.run(secs(1));
    cluster.all_tell(&[ALPHA, BETA], &["stopped and started on alpha: stopped by root@test"]);
    assert!(cluster.last(ALPHA).detected.since(started) < ms(1), "recovery begins when it is asked for");
}

#[test]
fn a_claim_that_somebody_took() {
    let mut cluster = Cluster::serving(2);
    let truth = cluster.truths.get_mut(&hier("web")).unwrap();
    (truth.holder, truth.until) = (None, Time::ZERO);
    cluster.run(secs(10));
    assert!(!cluster.places("web").is_empty());
    let told = cluster.told(ALPHA);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("alpha lost its claim: taken over by"), "{told:?}");
}

#[test]
fn an_agent_that_is_restarted_in_time_and_one_that_is_not() {
    let mut cluster = Cluster::serving(2);
    cluster.kill_agent(ALPHA);
    cluster.run(ms(300));
    cluster.forget_events();
    cluster.start_agent(ALPHA);
    cluster.run(secs(20));
    assert_eq!(cluster.told(ALPHA), ["adoption on alpha: the agent was restarted; the service was not interrupted"]);
    assert_eq!((cluster.told(BETA), cluster.ongoing(BETA)), (vec![], vec![]), "nothing to tell");

    let mut cluster = Cluster::serving(2);
    cluster.kill_agent(ALPHA);
    // What the watchdog does.
    cluster.run(ms(1_900));
    cluster.machines.get_mut(&node(ALPHA)).unwrap().parts.clear();
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.all_tell(&[BETA], &["failover from alpha to beta: alpha was not heard any more"]);
    cluster.start_agent(ALPHA);
    cluster.run(secs(20));
    let later = cluster.last(BETA).later().unwrap();
    assert!(later.contains("with a new agent: its agent had ended, the machine ran on"), "{later}");
}

/// The whole node stands still, another one takes over, and it goes on.
#[test]
fn a_node_that_hangs_and_goes_on() {
    let mut cluster = Cluster::serving(2);
    // Only its agent: what runs under it would be refused by the storage, which is not simulated here.
    let engine = cluster.machines.get_mut(&node(ALPHA)).unwrap().engine.take();
    let asleep = cluster.now;
    cluster.machines.get_mut(&node(ALPHA)).unwrap().parts.clear();
    cluster.until("beta serves", |c| c.serves(BETA, "web"));
    cluster.machines.get_mut(&node(ALPHA)).unwrap().engine = engine;
    let gap = cluster.now.since(asleep);
    cluster.input(ALPHA, Input::Pressure(crate::recovery::Pressure::Calm));
    cluster.run(secs(20));
    cluster.all_tell(&[BETA], &["failover from alpha to beta: alpha was not heard any more"]);
    let later = cluster.last(BETA).later().unwrap();
    assert!(later.contains("with the same agent: it hung, or its network was cut"), "{later}");
    let entry = cluster.last(ALPHA);
    assert_eq!(entry.what(), "failover from alpha to beta");
    assert!(entry.why().unwrap().starts_with("alpha did not run for"), "{entry}");
    assert!(entry.in_service.since(entry.fault) + ms(200) >= gap, "{entry}");
    assert_eq!(cluster.told(ALPHA).len(), 1);
}
