//! When a command may stop waiting.

use ha_core::contact::AnnouncedPhase;
use ha_core::engine::Switch;

use super::{Goal, Progress};
use crate::view::samples::{cluster, node, web};

#[test]
fn a_move_is_done_when_the_target_has_it_in_service() {
    let goal = Goal::Moved { hierarchy: web(), from: Some(node("alpha")), to: Some(node("beta")) };
    let stopping = cluster(|views| {
        for view in views.values_mut() {
            view.hierarchies[0].directive.pin = Some(node("beta"));
        }
        views.get_mut("alpha").unwrap().hierarchies[0].phase = AnnouncedPhase::Stopping;
    });
    assert_eq!(goal.progress(&stopping), Progress::Pending("web is stopping on alpha".to_owned()));
    let there = cluster(|views| {
        views.get_mut("alpha").unwrap().hierarchies[0].phase = AnnouncedPhase::Out;
        views.get_mut("beta").unwrap().hierarchies[0].phase = AnnouncedPhase::InService;
    });
    assert_eq!(goal.progress(&there), Progress::Done("web is in service on beta, epoch 7".to_owned()));
}

#[test]
fn a_move_without_a_target_wants_another_node_than_before() {
    let goal = Goal::Moved { hierarchy: web(), from: Some(node("alpha")), to: None };
    assert!(matches!(goal.progress(&cluster(|_| {})), Progress::Pending(_)));
    let goal = Goal::Moved { hierarchy: web(), from: Some(node("gamma")), to: None };
    assert!(matches!(goal.progress(&cluster(|_| {})), Progress::Done(_)));
}

#[test]
fn a_move_whose_target_failed_is_not_waited_for() {
    let goal = Goal::Moved { hierarchy: web(), from: Some(node("gamma")), to: Some(node("beta")) };
    let elsewhere = cluster(|_| {});
    assert!(matches!(goal.progress(&elsewhere), Progress::Hopeless(_)));
}

#[test]
fn a_quarantined_hierarchy_will_not_start() {
    let goal = Goal::InService { hierarchy: web() };
    let view = cluster(|views| {
        for view in views.values_mut() {
            view.hierarchies[0].directive.quarantined = Some("data failed on three nodes".to_owned());
        }
    });
    assert_eq!(goal.progress(&view), Progress::Hopeless("web is in quarantine: data failed on three nodes".to_owned()));
}

#[test]
fn standby_is_done_when_nothing_is_left() {
    let goal = Goal::Idle { node: None };
    let view = cluster(|views| views.get_mut("alpha").unwrap().standby = Some("disks".to_owned()));
    assert_eq!(goal.progress(&view), Progress::Pending("alpha still has web".to_owned()));
    let goal = Goal::Idle { node: Some(node("beta")) };
    let view = cluster(|views| views.get_mut("beta").unwrap().standby = Some("disks".to_owned()));
    assert!(matches!(goal.progress(&view), Progress::Done(_)));
}

#[test]
fn maintenance_is_done_when_the_directive_is_seen() {
    let goal = Goal::Maintenance { hierarchy: web(), switch: Switch::Off };
    assert_eq!(goal.progress(&cluster(|_| {})), Progress::Done("web is not in maintenance".to_owned()));
}
