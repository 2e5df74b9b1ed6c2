//! A table of situations, each with the standing and the facts that led to it.

use super::*;
use crate::claim::EarlyFailures;
use crate::contact::Declined;
use crate::hierarchy::Policy;
use crate::name::{Epoch, HierarchyName};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn told(phase: AnnouncedPhase) -> Announcement {
    Announcement {
        phase,
        epoch: Epoch(1),
        utility: Utility::FULL,
        declined: None,
        unready: None,
        failures: EarlyFailures::default(),
        directive: Directive::default(),
        definition: Fingerprint(7),
        heir: None,
        disturbance: None,
        storage: None,
    }
}

struct Peer {
    name: NodeName,
    hearing: Hearing,
    announced: Option<Announcement>,
    synced: bool,
    standby: Option<&'static str>,
}

/// Seen from beta, the second of alpha, beta, gamma; all in contact, nobody serves.
struct Situation {
    hierarchy: Hierarchy,
    directive: Directive,
    me: NodeName,
    holds: bool,
    utility: u8,
    declined: Option<&'static str>,
    unready: Option<&'static str>,
    standby: Option<&'static str>,
    peers: [Peer; 2],
}

fn at_beta() -> Situation {
    let peer = |name| Peer {
        name: node(name),
        hearing: Hearing::InContact,
        announced: Some(told(AnnouncedPhase::Out)),
        synced: true,
        standby: None,
    };
    Situation {
        hierarchy: Hierarchy {
            name: HierarchyName::new("web").unwrap(),
            nodes: ["alpha", "beta", "gamma"].map(node).to_vec(),
            resources: Vec::new(),
            policy: Policy::default(),
            claim: Fingerprint(1),
            fingerprint: Fingerprint(7),
        },
        directive: Directive::default(),
        me: node("beta"),
        holds: false,
        utility: 100,
        declined: None,
        unready: None,
        standby: None,
        peers: [peer("alpha"), peer("gamma")],
    }
}

impl Situation {
    fn with<R>(&self, look: impl FnOnce(&View<'_>) -> R) -> R {
        let others = self.peers.iter().map(|p| Other {
            name: &p.name,
            hearing: p.hearing,
            announced: p.announced.as_ref(),
            synced: p.synced,
            standby: p.standby,
        });
        look(&View {
            hierarchy: &self.hierarchy,
            directive: &self.directive,
            own: Own {
                name: &self.me,
                holds: self.holds,
                utility: Utility::new(self.utility).unwrap(),
                declined: self.declined,
                unready: self.unready,
                standby: self.standby,
            },
            others: others.collect(),
        })
    }

    fn judge(&self) -> Judgement {
        self.with(standing)
    }

    fn alpha(&mut self) -> &mut Peer {
        &mut self.peers[0]
    }

    fn gamma(&mut self) -> &mut Peer {
        &mut self.peers[1]
    }
}

/// The standing and, but for the first line, which lists the ranks, the facts.
fn found(change: impl FnOnce(&mut Situation)) -> (String, String) {
    let mut situation = at_beta();
    change(&mut situation);
    let judgement = situation.judge();
    let facts: Vec<String> = judgement.facts.iter().skip(1).map(ToString::to_string).collect();
    (judgement.standing.to_string(), facts.join("; "))
}

#[track_caller]
fn expect(change: impl FnOnce(&mut Situation), standing: &str, facts: &str) {
    assert_eq!(found(change), (standing.to_owned(), facts.to_owned()));
}

const NONE_LEFT: &str = "no node that ranks higher than beta is left, and none in contact serves the hierarchy";

#[test]
fn a_higher_node() {
    expect(|_| {}, "behind alpha", "alpha ranks higher, is in contact and eligible");
    let lost = format!("alpha ranks higher, but contact with it is lost; {NONE_LEFT}");
    expect(|s| s.alpha().hearing = Hearing::Lost, "candidate", &lost);
    let left = format!("alpha ranks higher, but it said goodbye; {NONE_LEFT}");
    expect(|s| s.alpha().hearing = Hearing::Left, "candidate", &left);
    expect(
        |s| {
            s.alpha().hearing = Hearing::Awaited;
            s.alpha().announced = None;
        },
        "behind alpha",
        "alpha ranks higher and has not been heard since this agent began: waiting for it",
    );
    let no_word = |s: &mut Situation, synced| {
        s.alpha().announced = None;
        s.alpha().synced = synced;
    };
    let unknown = format!("alpha ranks higher, but it does not know the hierarchy; {NONE_LEFT}");
    expect(|s| no_word(s, true), "candidate", &unknown);
    expect(|s| no_word(s, false), "behind alpha", "alpha ranks higher, is in contact and eligible");
}

#[test]
fn a_higher_node_that_cannot_serve() {
    type Change = fn(&mut Announcement);
    let reasons: [(&str, Change); 4] = [
        ("its utility is 0", |a| a.utility = Utility::NONE),
        ("it is not ready: no disk", |a| a.unready = Some("no disk".to_owned())),
        ("it declined: broken", |a| a.declined = Some(Declined { why: "broken".to_owned(), for_ms: None })),
        ("it defines the hierarchy differently", |a| a.definition = Fingerprint(8)),
    ];
    for (why, change) in reasons {
        let facts = format!("alpha ranks higher, but {why}; {NONE_LEFT}");
        expect(|s| change(s.alpha().announced.as_mut().unwrap()), "candidate", &facts);
    }
    let facts = format!("alpha ranks higher, but it is in standby (updates); {NONE_LEFT}");
    expect(|s| s.alpha().standby = Some("updates"), "candidate", &facts);
}

#[test]
fn a_node_that_serves_is_left_alone_whatever_its_rank() {
    for phase in [
        AnnouncedPhase::Starting,
        AnnouncedPhase::InService,
        AnnouncedPhase::Restarting,
        AnnouncedPhase::Stopping,
        AnnouncedPhase::StopFailed,
    ] {
        let facts = format!("gamma holds the claim ({phase}) and is in contact");
        expect(|s| s.gamma().announced = Some(told(phase)), "behind gamma", &facts);
    }
    // What a lost one said last counts for nothing.
    expect(
        |s| {
            s.gamma().announced = Some(told(AnnouncedPhase::InService));
            s.gamma().hearing = Hearing::Lost;
        },
        "behind alpha",
        "alpha ranks higher, is in contact and eligible",
    );
    expect(
        |s| s.gamma().announced = Some(Announcement { definition: Fingerprint(8), ..told(AnnouncedPhase::InService) }),
        "excluded: defined differently on gamma",
        "gamma serves it, and defines it differently: compare the files of both nodes",
    );
}

#[test]
fn this_node_may_not() {
    expect(|s| s.me = node("delta"), "excluded: not one of its nodes", "delta is not one of its nodes");
    expect(|s| s.standby = Some("updates"), "excluded: the node is in standby", "beta is in standby: updates");
    expect(|s| s.utility = 0, "excluded: utility 0 here", "the utility of beta is 0: it could not serve");
    expect(|s| s.unready = Some("no disk"), "excluded: not ready here", "beta is not ready: no disk");
    expect(|s| s.directive.maintenance = true, "excluded: in maintenance", "in maintenance, by an operator");
    expect(
        |s| s.directive.stopped = true,
        "excluded: stopped by an operator",
        "stopped, by an operator; `ha start web` ends that",
    );
    expect(
        |s| s.directive.quarantined = Some("toxic".to_owned()),
        "excluded: in quarantine",
        "in quarantine: toxic; `ha clear web` ends that",
    );
}

#[test]
fn a_decline_counts_only_while_another_can_serve() {
    expect(
        |s| s.declined = Some("broken"),
        "excluded: declined here",
        "beta declined (broken), and alpha can serve it",
    );
    let last = format!(
        "beta declined (broken), but no other node in contact can serve it; alpha ranks higher, but contact with it is \
         lost; {NONE_LEFT}"
    );
    expect(
        |s| {
            s.declined = Some("broken");
            s.alpha().hearing = Hearing::Lost;
            s.gamma().hearing = Hearing::Lost;
        },
        "candidate",
        &last,
    );
}

#[test]
fn an_heir_takes_it_first() {
    let heir = |name: &str| Some(Announcement { heir: Some(node(name)), ..told(AnnouncedPhase::Out) });
    expect(|s| s.gamma().announced = heir("beta"), "candidate", "gamma handed the claim to beta");
    expect(
        |s| s.alpha().announced = heir("gamma"),
        "behind gamma",
        "alpha handed the claim to gamma, which is in contact",
    );
    let dead = "alpha ranks higher, is in contact and eligible";
    expect(
        |s| {
            s.alpha().announced = heir("gamma");
            s.gamma().hearing = Hearing::Lost;
        },
        "behind alpha",
        dead,
    );
}

#[test]
fn the_pin_ranks_first_then_the_utility_in_steps_then_the_list() {
    let ranks = |change: &dyn Fn(&mut Situation)| {
        let mut situation = at_beta();
        change(&mut situation);
        situation.judge().facts[0].to_string()
    };
    assert_eq!(ranks(&|_| {}), "nodes in order of rank: alpha, beta, gamma");
    assert_eq!(ranks(&|s| s.directive.pin = Some(node("gamma"))), "nodes in order of rank: gamma, alpha, beta");
    let by_utility = |s: &mut Situation, alpha: u8, beta: u8, gamma: u8| {
        s.hierarchy.policy.rank = Rank::Utility { margin: 20, spread: None };
        s.alpha().announced.as_mut().unwrap().utility = Utility::new(alpha).unwrap();
        s.utility = beta;
        s.gamma().announced.as_mut().unwrap().utility = Utility::new(gamma).unwrap();
    };
    assert_eq!(ranks(&|s| by_utility(s, 40, 90, 60)), "nodes in order of rank: beta, gamma, alpha");
    assert_eq!(ranks(&|s| by_utility(s, 90, 99, 95)), "nodes in order of rank: alpha, beta, gamma");
}

#[test]
fn an_owner_knows_who_is_better_and_who_could_take_over() {
    let mut situation = at_beta();
    situation.holds = true;
    let judgement = situation.judge();
    assert_eq!(judgement.standing, Standing::Owner);
    assert_eq!(judgement.better, Some(node("alpha")));
    assert_eq!(judgement.able, ["alpha", "gamma"].map(node));
    assert_eq!(judgement.unfit, None);

    situation.hierarchy.policy.rank = Rank::Utility { margin: 20, spread: None };
    situation.utility = 85;
    assert_eq!(situation.judge().better, None, "less than the margin moves nothing");
    situation.utility = 75;
    assert_eq!(situation.judge().better, Some(node("alpha")));

    situation.standby = Some("updates");
    assert_eq!(situation.judge().unfit, Some(Excluded::Standby));
    situation.directive.pin = Some(node("gamma"));
    assert_eq!(situation.judge().best_other, Some(node("gamma")));
}

#[test]
fn what_is_believed_of_the_others() {
    let believed = |change: &dyn Fn(&mut Situation)| {
        let mut situation = at_beta();
        change(&mut situation);
        situation.with(beliefs)[&node("alpha")]
    };
    assert_eq!(believed(&|s| s.alpha().announced = Some(told(AnnouncedPhase::InService))), Belief::Heard);
    assert_eq!(believed(&|s| s.alpha().announced = Some(told(AnnouncedPhase::Claiming))), Belief::Heard);
    assert_eq!(believed(&|_| {}), Belief::Lost, "it may have won since it spoke");
    assert_eq!(believed(&|s| s.alpha().hearing = Hearing::Left), Belief::Gone);
    assert_eq!(believed(&|s| s.alpha().hearing = Hearing::Lost), Belief::Lost);
    let silent = |synced| {
        move |s: &mut Situation| {
            s.alpha().announced = None;
            s.alpha().synced = synced;
        }
    };
    assert_eq!(believed(&silent(false)), Belief::Heard, "it may be about to say that it serves");
    assert_eq!(believed(&silent(true)), Belief::Lost);
}
