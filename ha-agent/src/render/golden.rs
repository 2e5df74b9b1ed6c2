//! What operators see, letter by letter, for made-up clusters.

use ha_core::contact::AnnouncedPhase;
use ha_core::hierarchy::Fingerprint;
use ha_core::name::{Epoch, Utility};

use super::{status::status, why::why};
use crate::view::samples::{cluster, node, snapshot};
use crate::view::{ClusterView, Problem, Severity};

/// Without colours, as a file or a pipe gets it.
fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[track_caller]
fn shows(view: &ClusterView, expected: &str) {
    let shown = plain(&status(view, None));
    assert!(shown == expected, "shown:\n{shown}\nexpected:\n{expected}");
}

#[test]
fn a_healthy_cluster_is_calm() {
    shows(
        &cluster(|_| {}),
        "\
cluster shop, seen from alpha

  NODE   CONTACT  HEARD      VERSION  LEASES
  alpha  here                0.1.0    main good for 9.2 s
  beta   alive    23 ms ago  0.1.0    main good for 9.2 s
  gamma  alive    23 ms ago  0.1.0    main good for 9.2 s

  HIERARCHY  STATE       ON     EPOCH  FOR      NODES
  web        in service  alpha  7      2 d 3 h  beta ready, gamma ready
",
    );
}

#[test]
fn a_dead_node_and_what_it_had_come_first() {
    let view = cluster(|views| {
        views.remove("gamma");
        for view in views.values_mut() {
            let gamma = view.peers.iter_mut().find(|p| p.node == node("gamma")).unwrap();
            gamma.state = "lost".to_owned();
            gamma.heard_ms_ago = Some(125_000);
            let opinion = view.hierarchies[0].nodes.iter_mut().find(|n| n.node == node("gamma")).unwrap();
            opinion.in_contact = false;
            opinion.phase = Some(AnnouncedPhase::InService);
            view.hierarchies[0].phase = AnnouncedPhase::Out;
            view.hierarchies[0].nodes[0].phase = Some(AnnouncedPhase::Out);
        }
        let beta = &mut views.get_mut("beta").unwrap().hierarchies[0];
        beta.unready = Some("there is no device /dev/vdb".to_owned());
    });
    shows(
        &view,
        "\
cluster shop, seen from alpha

  error   gamma: contact with gamma is lost: last heard 2 min ago
  error   web: out of service as far as can be seen; gamma had it when it was last heard
          `ha why web` tells the reasons
  warning web: beta could not serve it: not ready: there is no device /dev/vdb

  NODE   CONTACT  HEARD      VERSION  LEASES
  alpha  here                0.1.0    main good for 9.2 s
  beta   alive    23 ms ago  0.1.0    main good for 9.2 s
  gamma  lost     2 min ago  0.1.0

  HIERARCHY  STATE           ON  EPOCH  FOR  NODES
  web        out of service      7           alpha ready, beta not ready, gamma lost
",
    );
}

#[test]
fn disagreements_are_told() {
    let view = cluster(|views| {
        let beta = views.get_mut("beta").unwrap();
        beta.hierarchies[0].phase = AnnouncedPhase::InService;
        beta.hierarchies[0].epoch = Epoch(8);
        beta.hierarchies[0].definition = Fingerprint(2);
        beta.peers.iter_mut().find(|p| p.node == node("gamma")).unwrap().state = "lost".to_owned();
        views.remove("gamma");
    });
    shows(
        &view,
        "\
cluster shop, seen from alpha

  error   web: defined differently on beta
          copy hierarchies/web.ron to every node, then `ha reload` there
  error   web: more than one node says that it holds the claim: alpha (epoch 7), beta (epoch 8)
          the node with the greater epoch has it; the other one must stop or be reset: look at its log
  warning gamma: gamma did not give its view (no answer within 1 s): shown is what others heard of it
  warning gamma: views of contact differ: alpha hears gamma, beta does not

  NODE   CONTACT           HEARD      VERSION  LEASES
  alpha  here                         0.1.0    main good for 9.2 s
  beta   alive             23 ms ago  0.1.0    main good for 9.2 s
  gamma  alive, no answer  23 ms ago  0.1.0

  HIERARCHY  STATE     ON          EPOCH  FOR  NODES
  web        DISPUTED  alpha+beta  8           gamma ready
",
    );
}

#[test]
fn what_operators_asked_for_is_a_note_with_its_end() {
    let view = cluster(|views| {
        for view in views.values_mut() {
            let directive = &mut view.hierarchies[0].directive;
            directive.serial = 3;
            directive.pin = Some(node("alpha"));
            directive.by = "root@beta".to_owned();
            directive.reason = "new disks in beta\u{1b}[31m".to_owned();
        }
        views.get_mut("beta").unwrap().standby = Some("new disks".to_owned());
        views.get_mut("gamma").unwrap().hierarchies[0].utility = Utility::new(40).unwrap();
    });
    shows(
        &view,
        "\
cluster shop, seen from alpha

  note    beta: in standby: new disks
          `ha online beta` ends that
  note    web: pinned to alpha, by root@beta: new disks in beta [31m
          `ha unpin web` ends that

  NODE   CONTACT         HEARD      VERSION  LEASES
  alpha  here                       0.1.0    main good for 9.2 s
  beta   alive, standby  23 ms ago  0.1.0    main good for 9.2 s
  gamma  alive           23 ms ago  0.1.0    main good for 9.2 s

  HIERARCHY  STATE               ON     EPOCH  FOR      NODES
  web        in service, pinned  alpha  7      2 d 3 h  beta standby, gamma ready (40)
",
    );
}

#[test]
fn a_lease_in_danger_is_an_error() {
    let view = cluster(|views| {
        let lease = &mut views.get_mut("beta").unwrap().leases[0];
        lease.good_for_ms = Some(2_000);
        lease.trouble = Some("/dev/vdb: input/output error".to_owned());
    });
    assert!(
        plain(&status(&view, None)).contains(
            "error   beta: lease of lock area main cannot be renewed (good for 2.0 s more): /dev/vdb: input/output error"
        ),
        "{}",
        plain(&status(&view, None))
    );
}

#[test]
fn why_gives_the_facts_in_order() {
    let unprotected = Problem {
        severity: Severity::Warning,
        about: "web".to_owned(),
        what: "UNPROTECTED on this node: nobody has tried".to_owned(),
        help: Some("`ha arm web`, while it is out of service".to_owned()),
    };
    let shown = plain(&why(&node("beta"), &snapshot("beta").hierarchies[0], &[unprotected], None));
    let expected = "\
web on beta: out of service for 2 d 3 h, epoch 7
  UNPROTECTED on this node: nobody has tried
    `ha arm web`, while it is out of service

beta is behind alpha, because
  1. nodes in order of rank: alpha, beta, gamma

  RESOURCE  KIND        STATE  LAST TROUBLE
  data      Filesystem  down
  vip       Address     down
";
    assert!(shown == expected, "shown:\n{shown}\nexpected:\n{expected}");
}

/// A node that is heard through the storage only, and one whose standby is all that is known of it.
#[test]
fn what_nothing_is_known_of_is_not_called_ready() {
    let view = cluster(|views| {
        views.remove("beta");
        views.remove("gamma");
        let alpha = &mut views.get_mut("alpha").unwrap().hierarchies[0];
        alpha.phase = AnnouncedPhase::Out;
        for opinion in &mut alpha.nodes {
            opinion.phase = None;
            opinion.utility = Utility::NONE;
        }
        alpha.nodes.iter_mut().find(|n| n.node == node("gamma")).unwrap().ineligible =
            Some("it is in standby (being drained by root@gamma)".to_owned());
    });
    let shown = plain(&status(&view, None));
    assert!(shown.contains("alpha ready, beta not heard, gamma in standby\n"), "{shown}");
    let said = "  error   web: out of service as far as can be seen; nothing that beta says of it has arrived\n";
    assert!(shown.contains(said), "{shown}");
}

#[test]
fn what_does_not_fit_is_broken_between_words_below_where_it_began() {
    let view = cluster(|views| {
        let beta = &mut views.get_mut("beta").unwrap().hierarchies[0];
        beta.unready = Some("there is no device /dev/vdb".to_owned());
    });
    let shown = plain(&status(&view, Some(64)));
    assert!(
        shown.contains("  warning web: beta could not serve it: not ready: there is no\n          device /dev/vdb\n"),
        "{shown}"
    );
    assert!(shown.lines().all(|line| line.chars().count() <= 64), "{shown}");
}
