//! Whatever happens in whatever order: no panic, and S2, S3 and S5 after every step.

use proptest::prelude::*;

use super::*;
use crate::mastership::Excluded;

#[derive(Clone, Debug)]
enum Happens {
    Judged(u8),
    Won,
    Refused(u8),
    Released(bool),
    Room,
    Lost,
    Ended(usize, u8),
    /// Time goes by until an operation is overdue.
    Overdue,
    /// A call that was given up.
    CameBack(usize, u8),
    /// An answer that nobody waits for any more.
    Stale(u64),
    Crashed(usize),
    Time(u32),
    Clear,
    Hurry,
    Inspect,
    Able(bool),
    Standby(bool),
    Stopped(bool),
    Maintenance(bool),
    Utility(bool),
    Unfit(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0..3u8).prop_map(Happens::Judged),
        4 => Just(Happens::Won),
        1 => (0..5u8).prop_map(Happens::Refused),
        2 => any::<bool>().prop_map(Happens::Released),
        4 => Just(Happens::Room),
        1 => Just(Happens::Lost),
        16 => (0..4usize, 0..8u8).prop_map(|(i, how)| Happens::Ended(i, how)),
        1 => Just(Happens::Overdue),
        1 => (0..4usize, 0..8u8).prop_map(|(which, how)| Happens::CameBack(which, how)),
        1 => (0..60u64).prop_map(Happens::Stale),
        1 => (0..4usize).prop_map(Happens::Crashed),
        3 => (0..40_000u32).prop_map(Happens::Time),
        1 => Just(Happens::Clear),
        1 => Just(Happens::Hurry),
        1 => Just(Happens::Inspect),
        1 => any::<bool>().prop_map(Happens::Able),
        1 => any::<bool>().prop_map(Happens::Standby),
        1 => any::<bool>().prop_map(Happens::Stopped),
        1 => any::<bool>().prop_map(Happens::Maintenance),
        1 => any::<bool>().prop_map(Happens::Utility),
        1 => any::<bool>().prop_map(Happens::Unfit),
    ]
}

/// What really runs, as the operations that ended say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Real {
    Down,
    MayRun,
    Running,
}

struct Watcher {
    fake: Fake,
    real: [Real; 4],
    /// What is asked of each resource and has not ended: what, and under which number.
    open: [Option<(OpId, String)>; 4],
    /// Calls that were given up, and have not come back.
    out: Vec<(usize, OpId, String)>,
    epoch: u64,
}

const NAMES: [&str; 4] = ["disk", "vip", "db", "server"];
const REQUIRES: [&[usize]; 4] = [&[], &[0], &[0], &[1, 2]];

impl Watcher {
    fn take(&mut self, wished: &[String]) {
        for line in wished {
            let (what, which) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            let i = NAMES.iter().position(|n| *n == which).unwrap_or(0);
            match what {
                "start" => {
                    assert!(self.fake.life.holds(), "S2: {line} without the claim");
                    let ready = REQUIRES[i].iter().all(|r| self.real[*r] == Real::Running);
                    assert!(ready, "S3: {line} while {:?}", self.real);
                    self.real[i] = Real::MayRun;
                }
                "stop" => {
                    let above = (0..4).filter(|d| REQUIRES[*d].contains(&i)).all(|d| self.real[d] == Real::Down);
                    assert!(above, "S3: {line} while {:?}", self.real);
                }
                "release" => {
                    assert!(self.real.iter().all(|r| *r == Real::Down), "S5: {line} while {:?}", self.real);
                }
                "cancel" => self.open[i] = None,
                _ => {}
            }
            if matches!(what, "start" | "stop" | "kill" | "monitor" | "adopt") {
                if let Some((op, given_up)) = self.open[i].take() {
                    let part = &self.fake.life.works.parts[i];
                    let hangs = part.out.iter().any(|(out, _)| *out == op);
                    assert!(hangs && what == "kill" && given_up != "kill", "{line} beside {given_up}");
                    self.out.push((i, op, given_up));
                }
                if what != "kill" {
                    assert!(self.out.iter().all(|(out, ..)| *out != i), "{line} beside a call that hangs");
                }
                self.open[i] = self.fake.ops[i].map(|op| (op, what.to_owned()));
            }
        }
    }

    fn ends(&mut self, i: usize, op: OpId, what: &str, how: u8) {
        let outcome = match how {
            0 => Outcome::Bad("broken".to_owned()),
            1 => Outcome::TimedOut(Duration::from_secs(60)),
            2 => Outcome::Unknown("busy".to_owned()),
            _ => Outcome::Good,
        };
        match (what, &outcome) {
            ("start" | "adopt", Outcome::Good) => self.real[i] = Real::Running,
            ("stop" | "kill", Outcome::Good) => self.real[i] = Real::Down,
            _ => {}
        }
        let wished = self.fake.act(|life, around, now, out| life.operated(op, &outcome, around, now, out));
        self.take(&wished);
    }

    fn step(&mut self, happens: &Happens) {
        let fake = &mut self.fake;
        let wished = match happens {
            Happens::Judged(standing) => {
                if !fake.life.holds() {
                    fake.judgement.standing = match standing {
                        0 => Standing::Behind(node("beta")),
                        1 => Standing::Excluded(Excluded::Standby),
                        _ => Standing::Candidate,
                    };
                }
                fake.judged()
            }
            Happens::Won if fake.claim.is_some() => {
                self.epoch += 1;
                fake.won(self.epoch)
            }
            Happens::Refused(why) if fake.claim.is_some() => fake.answer(Err(match why {
                0 => Refusal::Raced,
                1 => Refusal::Unreachable("no path".to_owned()),
                2 => Refusal::Unfit("no lease".to_owned()),
                3 => Refusal::Stranger("somebody".to_owned()),
                _ => Refusal::Held {
                    holder: node("beta"),
                    epoch: Epoch(self.epoch),
                    why: "it lives".to_owned(),
                    retry_at: None,
                },
            })),
            Happens::Released(well) if fake.claim.is_some() => {
                fake.released(if *well { Ok(()) } else { Err(Refusal::Unreachable("no path".to_owned())) })
            }
            Happens::Room if fake.life.recovering() && !fake.directive.maintenance => fake.room(),
            Happens::Lost => fake.lost(),
            Happens::Ended(i, how) => {
                let Some((op, what)) = self.open[*i].take() else { return };
                return self.ends(*i, op, &what, *how);
            }
            Happens::CameBack(which, how) => {
                if self.out.is_empty() {
                    return;
                }
                let (i, op, what) = self.out.remove(which % self.out.len());
                return self.ends(i, op, &what, *how);
            }
            Happens::Stale(op) => {
                let op = OpId(*op);
                if self.open.iter().flatten().any(|(open, _)| *open == op)
                    || self.out.iter().any(|(_, out, _)| *out == op)
                {
                    return;
                }
                fake.act(|life, around, now, out| life.operated(op, &Outcome::Good, around, now, out))
            }
            Happens::Crashed(i) => fake.crashed(NAMES[*i]),
            Happens::Overdue => match fake.life.works.next_overdue() {
                Some(at) => fake.wait(fake.now.until(at)),
                None => return,
            },
            Happens::Time(length) => fake.wait(ms(u64::from(*length))),
            Happens::Clear => fake.clear(),
            Happens::Hurry => fake.act(|life, _, _, _| life.hurry()),
            // Its answer is never given: the driver's time for it is not over yet.
            Happens::Inspect => {
                let claim = fake.claim;
                let wished = fake.act(|life, _, _, out| life.inspect(out));
                fake.claim = claim;
                wished
            }
            Happens::Able(able) => {
                fake.judgement.able = if *able { vec![node("beta")] } else { Vec::new() };
                fake.judgement.best_other = fake.judgement.able.first().cloned();
                return;
            }
            Happens::Standby(on) => {
                fake.standby = on.then_some("updates");
                return;
            }
            Happens::Stopped(on) => {
                fake.directive.stopped = *on;
                return;
            }
            Happens::Maintenance(on) => {
                fake.directive.maintenance = *on;
                return;
            }
            Happens::Utility(some) => {
                fake.utility = if *some { Utility::FULL } else { Utility::NONE };
                return;
            }
            Happens::Unfit(on) => {
                fake.judgement.unfit = on.then_some(Excluded::Standby);
                return;
            }
            Happens::Won | Happens::Refused(_) | Happens::Released(_) | Happens::Room => return,
        };
        self.take(&wished);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_whatever_happens(recalled in any::<bool>(), steps in prop::collection::vec(happens(), 1..250)) {
        let mut watcher =
            Watcher { fake: Fake::new(diamond()), real: [Real::Down; 4], open: [None, None, None, None], out: Vec::new(), epoch: 5 };
        if recalled {
            watcher.real = [Real::Running; 4];
            let wished = watcher.fake.recall(6);
            watcher.take(&wished);
        }
        for step in &steps {
            watcher.step(step);
        }
        // Whatever state it is in: when everything works again and it is to be out of service, it gets there.
        watcher.fake.directive.maintenance = false;
        watcher.fake.directive.stopped = true;
        for _ in 0..400 {
            if !watcher.fake.life.holds() && !watcher.fake.life.runs() && !watcher.fake.life.is_claiming() {
                break;
            }
            watcher.step(&Happens::Judged(1));
            if matches!(watcher.fake.life.phase, super::super::life::Phase::Claiming { .. }) {
                watcher.step(&Happens::Won);
            }
            for i in 0..4 {
                watcher.step(&Happens::Ended(i, 7));
                watcher.step(&Happens::CameBack(0, 7));
            }
            watcher.step(&Happens::Released(true));
            watcher.step(&Happens::Time(1000));
        }
        prop_assert!(!watcher.fake.life.runs(), "{:?}", watcher.fake.life);
        prop_assert!(!watcher.fake.life.holds(), "{:?}", watcher.fake.life);
    }
}
