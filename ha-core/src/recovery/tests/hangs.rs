//! Calls that never come back.

use super::*;

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_monitor_that_hangs_makes_the_node_unfit_and_the_next_one_takes_over() {
    let mut fake = Fake::serving();
    fake.beta_is_able();
    fake.wait(Monitor::default().every);
    for name in ["disk", "vip", "db"] {
        fake.good(name);
    }
    let hangs = fake.ops[3];
    // The driver would have ended it after 20 s. At 40 s nobody waits for it any more.
    fake.now = fake.now + Duration::from_secs(39);
    let wished = fake.wait(Duration::from_secs(1));
    let place = |what: &str| wished.iter().position(|wish| wish == what);
    assert!(place("remember decline").is_some() && place("remember decline") < place("kill server"), "{wished:?}");
    assert_eq!(fake.good("server"), ["stop db", "stop vip"]);
    fake.good("db");
    fake.good("vip");
    // A monitor brings nothing into service: what is stopped is stopped.
    assert_eq!(fake.good("disk"), ["release epoch 1 to beta"]);
    assert_eq!(fake.released(Ok(())), ["remember nothing"]);
    assert_eq!(fake.life.hangs().as_deref(), Some("server: a call that never came back (monitor)"));
    let wished = fake.act(|life, around, now, out| life.operated(hangs.unwrap(), &Outcome::Good, around, now, out));
    assert_eq!((wished, fake.life.hangs()), (none(), None));
}

#[test]
fn nothing_counts_as_stopped_that_a_start_still_out_could_bring_up() {
    let mut fake = Fake::new(diamond());
    fake.beta_is_able();
    fake.judged();
    fake.won(1);
    assert_eq!(fake.room(), ["start disk"]);
    let hangs = fake.ops[0].unwrap();
    assert_eq!(fake.wait(Duration::from_secs(119)), none());
    assert_eq!(fake.wait(Duration::from_secs(1)), ["remember decline", "kill disk"]);
    assert_eq!(fake.good("disk"), none());
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::StopFailed);
    assert_eq!(fake.wait(Duration::from_secs(30)), ["kill disk"], "the claim is held, and it is tried again");
    assert_eq!(fake.good("disk"), none());

    fake.act(|life, around, now, out| life.operated(hangs, &Outcome::Good, around, now, out));
    assert_eq!(fake.due(), ["stop disk"], "it came back, and had brought the disk up");
    assert_eq!(fake.good("disk"), ["release epoch 1 to beta"]);
}

#[test]
fn a_kill_that_hangs_is_a_stop_that_failed() {
    let mut fake = Fake::serving();
    fake.can_reset = true;
    fake.directive.stopped = true;
    fake.judged();
    assert_eq!(fake.bad("server"), ["kill server"]);
    assert_eq!(fake.wait(Duration::from_secs(20)), ["remember decline", "reset"]);
    assert_eq!(fake.wait(Duration::from_secs(30)), none(), "there is no second kill beside it");
    fake.good("server");
    assert_eq!(fake.due(), ["stop server"]);
}

/// After a pause of the node the ends of operations wait to be taken in: that they are late says nothing of them.
#[test]
fn what_is_noticed_late_is_waited_for_again() {
    let mut fake = Fake::serving();
    fake.wait(Monitor::default().every);
    assert_eq!(fake.wait(Duration::from_secs(3600)), none());
    for name in ["disk", "vip", "db", "server"] {
        assert_eq!(fake.good(name), none());
    }
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService);
}

#[test]
fn in_maintenance_hands_stay_off_what_hangs() {
    let mut fake = Fake::serving();
    fake.wait(Monitor::default().every);
    fake.directive.maintenance = true;
    for name in ["disk", "vip", "db"] {
        fake.good(name);
    }
    fake.now = fake.now + Duration::from_secs(39);
    fake.due();
    assert!(!fake.wait(Duration::from_secs(1)).iter().any(|wished| wished.contains("kill")));
    assert_eq!(fake.life.announced_phase(), AnnouncedPhase::InService);
}
