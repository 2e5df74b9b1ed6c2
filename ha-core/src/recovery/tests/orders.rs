//! Step by step: what is wished for, in which order.

use super::*;
use crate::hierarchy::{Failback, OnStopFailure};

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_start_runs_branches_side_by_side() {
    let mut fake = Fake::new(diamond());
    assert_eq!(fake.judged(), ["acquire"]);
    assert_eq!(fake.won(1), ["remember epoch 1"], "nothing starts before there is room");
    assert_eq!(fake.room(), ["start disk"]);
    assert_eq!(fake.good("disk"), ["watch disk", "start vip", "start db"]);
    assert_eq!(fake.good("db"), ["watch db"]);
    assert_eq!(fake.good("vip"), ["watch vip", "start server"]);
    assert_eq!(fake.good("server"), ["watch server"]);
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService);
}

/// Or else the node would be unready, once it has lost the claim, with nobody to look at the storage again.
#[test]
fn a_look_that_fails_after_the_claim_was_won_is_no_trouble_of_the_claims() {
    let mut fake = Fake::new(diamond());
    assert_eq!(fake.act(|life, _, _, out| life.inspect(out)), ["inspect"]);
    let look = fake.claim.unwrap();
    assert_eq!(fake.judged(), ["acquire"]);
    fake.won(1);
    let failed = Refusal::Unreachable("no answer in time".to_owned());
    assert_eq!(fake.act(|life, _, now, _| life.inspected(look, Err(failed), now)), none());
    assert_eq!(fake.life.claim_trouble, None);
}

#[test]
fn a_stop_runs_the_same_way_back_and_releases_last() {
    let mut fake = Fake::serving();
    fake.beta_is_able();
    fake.draining = true;
    assert_eq!(fake.judged(), ["unwatch server", "stop server", "unwatch db", "unwatch vip", "unwatch disk"]);
    assert_eq!(fake.good("server"), ["stop db", "stop vip"]);
    assert_eq!(fake.good("vip"), none());
    assert_eq!(fake.good("db"), ["stop disk"]);
    assert_eq!(fake.good("disk"), ["release epoch 1 to beta"]);
    assert_eq!(fake.released(Ok(())), ["remember nothing"]);
    assert_eq!(fake.life.heir, Some(node("beta")));
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::Out);
}

#[test]
fn where_it_does_not_start_it_is_stopped_declined_and_handed_over() {
    let mut fake = Fake::new(diamond());
    fake.beta_is_able();
    fake.judged();
    fake.won(1);
    fake.room();
    fake.good("disk");
    assert_eq!(
        fake.bad("vip"),
        ["remember decline", "cancel db", "stop db", "stop vip", "unwatch disk"],
        "what half started is stopped as well"
    );
    fake.good("vip");
    assert_eq!(fake.good("db"), ["stop disk"]);
    assert_eq!(fake.good("disk"), ["release epoch 1 to beta"]);
    assert_eq!(fake.life.declined.as_ref().unwrap().why, "vip failed (start): broken");
}

#[test]
fn with_nobody_else_it_is_tried_again_after_longer_and_longer_pauses() {
    let mut fake = Fake::new(diamond());
    fake.judged();
    fake.won(1);
    fake.room();
    assert_eq!(fake.bad("disk"), ["stop disk"]);
    assert_eq!(fake.good("disk"), none());
    assert_eq!(fake.wait(ms(999)), none());
    assert_eq!(fake.wait(ms(1)), ["start disk"]);
    // As a local recovery, three times at once; then after a pause again.
    for _ in 0..3 {
        assert_eq!(fake.bad("disk"), ["stop disk"]);
        assert_eq!(fake.good("disk"), ["start disk"]);
    }
    fake.bad("disk");
    assert_eq!(fake.good("disk"), none());
    assert_eq!(fake.wait(ms(1999)), none());
    assert_eq!(fake.wait(ms(1)), ["start disk"]);
    fake.bad("disk");
    fake.good("disk");
    fake.beta_is_able();
    assert_eq!(fake.judged(), ["remember decline", "release epoch 1 to beta"], "as soon as another node can, it may");
}

#[test]
fn only_what_failed_and_what_requires_it_is_restarted() {
    let mut fake = Fake::serving();
    assert_eq!(fake.crashed("vip"), ["unwatch vip", "unwatch server", "stop server"]);
    assert_eq!(fake.good("server"), ["stop vip"]);
    assert_eq!(fake.good("vip"), ["start vip"]);
    assert_eq!(fake.good("vip"), ["watch vip", "start server"]);
    assert_eq!(fake.good("server"), ["watch server"]);
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService);
}

#[test]
fn the_fourth_failure_within_ten_minutes_fails_over() {
    let mut fake = Fake::serving();
    fake.beta_is_able();
    let repaired = |fake: &mut Fake| {
        fake.good("server");
        fake.good("server");
    };
    for _ in 0..3 {
        assert_eq!(fake.crashed("server"), ["unwatch server", "stop server"]);
        repaired(&mut fake);
    }
    fake.now = fake.now + Duration::from_secs(601);
    fake.crashed("server");
    repaired(&mut fake);
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService, "the earlier ones are forgotten by then");
    for _ in 0..2 {
        fake.crashed("server");
        repaired(&mut fake);
    }
    let wished = fake.crashed("server");
    assert!(wished.contains(&"remember decline".to_owned()), "{wished:?}");
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::Stopping);
}

#[test]
fn monitors_tolerate_two_unknowns_in_a_row() {
    let mut fake = Fake::serving();
    let every = Monitor::default().every;
    let unknown = Outcome::TimedOut(Duration::from_secs(20));
    let all = ["monitor disk", "monitor vip", "monitor db", "monitor server"];
    assert_eq!(fake.wait(every), all);
    for name in ["disk", "vip", "db"] {
        assert_eq!(fake.good(name), none());
    }
    assert_eq!(fake.ended("server", &unknown), none());
    let again = |fake: &mut Fake| {
        fake.wait(every);
        for name in ["disk", "vip", "db"] {
            assert_eq!(fake.good(name), none());
        }
    };
    again(&mut fake);
    assert_eq!(fake.ended("server", &unknown), none());
    again(&mut fake);
    assert_eq!(fake.good("server"), none());
    for _ in 0..2 {
        again(&mut fake);
        assert_eq!(fake.ended("server", &unknown), none());
    }
    again(&mut fake);
    let wished = fake.ended("server", &unknown);
    assert_eq!(wished, ["unwatch server", "stop server"]);
}

#[test]
fn a_monitor_never_runs_beside_another_operation() {
    let mut fake = Fake::serving();
    fake.wait(Monitor::default().every);
    for name in ["disk", "db", "server"] {
        fake.good(name);
    }
    // The one of vip still runs when the address has to stop.
    assert_eq!(
        fake.crashed("disk"),
        ["unwatch disk", "unwatch server", "stop server", "unwatch db", "cancel vip", "unwatch vip"]
    );
    assert_eq!(fake.good("server"), ["stop db", "stop vip"]);
    assert_eq!(fake.wait(Duration::from_secs(30)), none(), "and no other begins");
}

#[test]
fn what_does_not_stop_is_killed_and_what_cannot_be_killed_is_held() {
    let mut fake = Fake::serving();
    fake.directive.stopped = true;
    fake.judged();
    assert_eq!(fake.ended("server", &Outcome::TimedOut(Duration::from_secs(60))), ["kill server"]);
    assert_eq!(fake.bad("server"), ["remember decline"]);
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::StopFailed);
    assert!(fake.life.holds());
    assert_eq!(fake.wait(Duration::from_secs(30)), ["stop server"]);
    assert_eq!(fake.good("server"), ["stop db", "stop vip"]);
}

#[test]
fn the_node_is_reset_where_that_is_the_policy_or_possible() {
    let stuck = |can_reset, policy| {
        let mut fake = Fake::serving();
        let mut hierarchy = diamond();
        hierarchy.policy.on_stop_failure = policy;
        fake.life.redefine(Arc::new(hierarchy), fake.now);
        fake.can_reset = can_reset;
        fake.directive.stopped = true;
        fake.judged();
        fake.bad("server");
        fake.bad("server")
    };
    assert_eq!(stuck(true, None), ["remember decline", "reset"]);
    assert_eq!(stuck(true, Some(OnStopFailure::Hold)), ["remember decline"]);
    assert_eq!(stuck(false, None), ["remember decline"]);
}

#[test]
fn a_lost_claim_kills_in_order_and_releases_nothing() {
    let mut fake = Fake::serving();
    assert_eq!(fake.lost(), ["unwatch disk", "unwatch vip", "unwatch db", "unwatch server", "kill server"]);
    assert_eq!(fake.good("server"), ["kill db", "kill vip"]);
    fake.good("db");
    assert_eq!(fake.good("vip"), ["kill disk"]);
    assert_eq!(fake.good("disk"), ["remember nothing"]);
    assert!(!fake.life.holds());
    fake.judgement.standing = Standing::Behind(node("beta"));
    assert_eq!(fake.judged(), ["acquire"], "it may be this node's still on the storage");
    let held = Refusal::Held { holder: node("beta"), epoch: Epoch(2), why: "it lives".to_owned(), retry_at: None };
    assert_eq!(fake.answer(Err(held)), none());
    fake.wait(ms(300));
    assert_eq!(fake.judged(), none(), "it is not: so it does not ask again");
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::Out);
}

#[test]
fn a_forced_stop_that_takes_too_long_resets_the_node() {
    let mut fake = Fake::serving();
    fake.can_reset = true;
    fake.lost();
    assert_eq!(fake.wait(ms(1999)), none());
    assert_eq!(fake.wait(ms(1)), ["reset"]);
}

#[test]
fn a_claim_lost_during_an_orderly_stop_turns_it_into_a_forced_one() {
    let mut fake = Fake::serving();
    fake.directive.stopped = true;
    fake.judged();
    assert_eq!(fake.lost(), ["cancel server", "kill server"]);
}

#[test]
fn a_stuck_resource_does_not_save_what_is_below_it_from_a_forced_stop() {
    let mut fake = Fake::serving();
    fake.lost();
    assert_eq!(fake.bad("server"), ["kill db", "kill vip"]);
}

#[test]
fn what_runs_is_adopted_under_its_old_epoch() {
    let mut fake = Fake::new(diamond());
    assert_eq!(fake.recall(5), ["confirm epoch 5"]);
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::Restarting, "others are to see it as this node's");
    assert_eq!(fake.won(5), ["remember epoch 5", "adopt disk", "adopt vip", "adopt db", "adopt server"]);
    assert_eq!(fake.good("disk"), ["watch disk"]);
    assert_eq!(fake.good("vip"), ["watch vip"]);
    assert_eq!(fake.good("db"), ["watch db"]);
    assert_eq!(fake.good("server"), ["watch server"]);
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService);
}

#[test]
fn what_does_not_run_any_more_is_restarted_when_the_rest_is_adopted() {
    let mut fake = Fake::new(diamond());
    fake.recall(5);
    fake.won(5);
    fake.good("disk");
    assert_eq!(fake.bad("vip"), ["cancel server", "stop server"], "what half runs is stopped before it is started");
    fake.good("db");
    assert_eq!(fake.good("server"), ["stop vip"]);
    assert_eq!(fake.good("vip"), ["start vip"]);
}

#[test]
fn leftovers_of_an_old_epoch_are_stopped_before_anything_starts() {
    let mut fake = Fake::new(diamond());
    fake.recall(5);
    assert_eq!(fake.won(7), ["remember epoch 7", "stop server"]);
    assert_eq!(fake.good("server"), ["stop db", "stop vip"]);
    fake.good("db");
    assert_eq!(fake.good("vip"), ["stop disk"]);
    assert_eq!(fake.good("disk"), none(), "no room yet");
    assert_eq!(fake.room(), ["start disk"]);
}

#[test]
fn leftovers_of_a_claim_that_another_has_are_killed() {
    let mut fake = Fake::new(diamond());
    fake.recall(5);
    let held = Refusal::Held { holder: node("beta"), epoch: Epoch(6), why: "it lives".to_owned(), retry_at: None };
    assert_eq!(fake.answer(Err(held)), ["kill server"]);
}

#[test]
fn leftovers_of_a_claim_that_cannot_be_reached_are_killed_in_time() {
    let mut fake = Fake::new(diamond());
    fake.recall(5);
    let gone = || Err(Refusal::Unreachable("no path".to_owned()));
    for _ in 0..39 {
        assert_eq!(fake.answer(gone()), none());
        assert_eq!(fake.wait(ms(50)), ["confirm epoch 5"]);
    }
    assert_eq!(fake.answer(gone()), none());
    assert_eq!(fake.wait(ms(50)), ["confirm epoch 5"]);
    assert_eq!(fake.answer(gone()), ["kill server"], "2 s are over");
}

#[test]
fn a_late_win_is_given_back() {
    let mut fake = Fake::new(diamond());
    fake.judged();
    let first = fake.claim;
    fake.answer(Err(Refusal::Unreachable("no answer".to_owned())));
    fake.claim = first;
    assert_eq!(fake.won(3), ["release epoch 3"]);
    assert_eq!(fake.released(Ok(())), ["remember nothing"]);
}

#[test]
fn a_win_that_is_not_wanted_any_more_is_given_back_before_anything_starts() {
    let mut fake = Fake::new(diamond());
    fake.judged();
    fake.directive.stopped = true;
    fake.won(1);
    assert_eq!(fake.judged(), ["release epoch 1"]);
    let mut fake = Fake::new(diamond());
    fake.judged();
    fake.won(1);
    fake.judgement.unfit = Some(crate::mastership::Excluded::Standby);
    assert_eq!(fake.judged(), ["release epoch 1"]);
}

#[test]
fn a_release_that_fails_is_tried_again() {
    let mut fake = Fake::serving();
    fake.directive.stopped = true;
    fake.judged();
    for name in ["server", "db", "vip", "disk"] {
        fake.good(name);
    }
    assert_eq!(fake.released(Err(Refusal::Unreachable("no path".to_owned()))), none());
    assert!(fake.life.holds(), "it is this node's until it is known to be given up");
    assert_eq!(fake.wait(Duration::from_secs(1)), ["release epoch 1"]);
    assert_eq!(fake.released(Ok(())), ["remember nothing"]);
}

#[test]
fn a_decline_ends_by_itself_or_with_a_clear() {
    for cleared in [false, true] {
        let mut fake = Fake::new(diamond());
        fake.beta_is_able();
        fake.judged();
        fake.won(1);
        fake.room();
        fake.bad("disk");
        assert!(fake.life.declined.is_some());
        let told = if cleared { fake.clear() } else { fake.wait(Duration::from_secs(600)) };
        assert_eq!(told, ["remember decline"]);
        assert_eq!(fake.life.declined, None);
    }
}

#[test]
fn the_third_tenure_in_a_row_that_fails_early_ends_in_quarantine() {
    let mut fake = Fake::new(diamond());
    fake.beta_is_able();
    for tenure in 1..=3 {
        fake.judgement.standing = Standing::Candidate;
        fake.life.timers.cancel(&LifeTimer::Retry);
        assert_eq!(fake.judged(), ["acquire"]);
        fake.won(tenure);
        fake.room();
        let wished = fake.bad("disk");
        let expected = if tenure == 3 { "quarantine" } else { "remember decline" };
        assert_eq!(wished, [expected, "stop disk"]);
        fake.good("disk");
        fake.released(Ok(()));
    }
}

#[test]
fn a_tenure_that_settles_forgets_the_earlier_failures() {
    let mut fake = Fake::serving();
    fake.life.early = 2;
    fake.wait(Duration::from_secs(30));
    assert_eq!(fake.life.early, 0);
}

#[test]
fn maintenance_keeps_its_hands_off_and_its_end_goes_on() {
    let mut fake = Fake::new(diamond());
    fake.judged();
    fake.won(1);
    fake.room();
    fake.directive.maintenance = true;
    assert_eq!(fake.good("disk"), ["watch disk"]);
    assert_eq!(fake.wait(Duration::from_secs(60)), none());
    assert_eq!(fake.crashed("disk"), none());
    fake.directive.maintenance = false;
    assert_eq!(fake.judged(), ["start vip", "start db"]);
}

#[test]
fn a_start_that_fails_in_maintenance_is_tried_again_at_its_end() {
    let mut fake = Fake::new(diamond());
    fake.judged();
    fake.won(1);
    fake.room();
    fake.directive.maintenance = true;
    assert_eq!(fake.bad("disk"), none());
    fake.directive.maintenance = false;
    assert_eq!(fake.judged(), ["stop disk"]);
    assert_eq!(fake.good("disk"), ["start disk"]);
}

#[test]
fn a_claim_lost_in_maintenance_stops_all_the_same() {
    let mut fake = Fake::serving();
    fake.directive.maintenance = true;
    assert!(fake.lost().contains(&"kill server".to_owned()));
    assert_eq!(fake.good("server"), ["kill db", "kill vip"]);
}

#[test]
fn failback_waits_for_a_better_node_to_stay() {
    let mut fake = Fake::serving();
    let mut hierarchy = diamond();
    hierarchy.policy.failback = Failback::Auto { after: Duration::from_secs(5) };
    fake.life.redefine(Arc::new(hierarchy), fake.now);
    fake.beta_is_able();
    fake.judgement.better = Some(node("beta"));
    assert_eq!(fake.judged(), none());
    fake.now = fake.now + Duration::from_secs(4);
    fake.judgement.better = None;
    fake.judged();
    fake.judgement.better = Some(node("beta"));
    assert_eq!(fake.judged(), none(), "it went away in between: the wait begins anew");
    fake.now = fake.now + Duration::from_secs(4);
    assert_eq!(fake.judged(), none());
    fake.now = fake.now + Duration::from_secs(1);
    assert_eq!(fake.judged(), ["unwatch server", "stop server", "unwatch db", "unwatch vip", "unwatch disk"]);
}

#[test]
fn trouble_with_the_storage_is_looked_at_again_whatever_is_heard_meanwhile() {
    let mut fake = Fake::new(diamond());
    fake.judged();
    fake.answer(Err(Refusal::Unreachable("no path".to_owned())));
    fake.judgement.standing = Standing::Excluded(crate::mastership::Excluded::NotReady);
    fake.life.hurry();
    fake.judged();
    assert_eq!(fake.wait(ms(250)), ["inspect"]);
}
