//! Arbitrary commands and faults, in arbitrary order, on every kind of target.

use proptest::prelude::*;

use super::*;

const NEXUSES: [Nexus; 4] = [ALPHA, ALPHA_2, BETA, GAMMA];

#[derive(Clone, Copy, Debug)]
enum Event {
    Submit(Nexus, Request),
    Begin(usize),
    Execute(usize),
    Abort(usize),
    Disconnect(Nexus),
    Connect(Nexus),
    Reset,
    PowerCycle,
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![Just(A), Just(B), Just(C)]
}

fn command() -> impl Strategy<Value = Command> {
    let maybe = || prop::option::of(key());
    let kind = || prop::sample::select(&ReservationType::ALL[..]);
    let ports = || prop_oneof![4 => Just(Ports::This), 1 => Just(Ports::All)];
    let power_loss = || prop_oneof![Just(PowerLoss::Forgets), Just(PowerLoss::Keeps)];
    let queued = prop_oneof![Just(Queued::Stay), Just(Queued::Aborted)];
    prop_oneof![
        1 => Just(Command::ReadKeys),
        4 => (maybe(), maybe(), ports(), power_loss())
            .prop_map(|(old, new, ports, power_loss)| Command::Register { old, new, ports, power_loss }),
        4 => (maybe(), ports(), power_loss())
            .prop_map(|(new, ports, power_loss)| Command::RegisterIgnoring { new, ports, power_loss }),
        6 => (key(), kind()).prop_map(|(key, kind)| Command::Reserve { key, kind }),
        2 => (key(), kind()).prop_map(|(key, kind)| Command::Release { key, kind }),
        1 => key().prop_map(|key| Command::Clear { key }),
        6 => (key(), maybe(), kind(), queued)
            .prop_map(|(key, victim, kind, queued)| Command::Preempt { key, victim, kind, queued }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let nexus = || prop::sample::select(&NEXUSES[..]);
    let request = prop_oneof![
        4 => command().prop_map(Request::Reservation),
        1 => Just(Request::Read(Lba(0))),
        1 => any::<u64>().prop_map(|stamp| Request::Write(Lba(0), Stamp(stamp))),
    ];
    prop_oneof![
        16 => (nexus(), request).prop_map(|(nexus, request)| Event::Submit(nexus, request)),
        4 => any::<usize>().prop_map(Event::Begin),
        16 => any::<usize>().prop_map(Event::Execute),
        1 => any::<usize>().prop_map(Event::Abort),
        1 => nexus().prop_map(Event::Disconnect),
        2 => nexus().prop_map(Event::Connect),
        1 => Just(Event::Reset),
        1 => Just(Event::PowerCycle),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::standard(two_ports())),
        Just(Target::lio(two_ports())),
        Just(Target { store: Store::Fails, first: First::Conflict, ..Target::lio(two_ports()) }),
        Just(Target::tgt(two_ports())),
        Just(Target { login: Login::New, ..Target::standard(two_ports()) }),
    ]
}

/// What is reserved and registered and written, without what is pending.
fn state(disk: &Device) -> impl PartialEq + std::fmt::Debug + use<> {
    (disk.registrations(), disk.reservation(), disk.block(Lba(0)))
}

fn check(disk: &Device) {
    let registrations = disk.registrations();
    let holders: Vec<&Registered> = registrations.iter().filter(|each| each.holds.is_some()).collect();
    match held(disk) {
        None => assert_eq!(holders, Vec::<&Registered>::new()),
        Some(Held { key: None, kind }) => {
            assert!(kind.is_held_by_all_registrants());
            assert!(!registrations.is_empty());
            assert_eq!(holders.len(), registrations.len());
        }
        Some(Held { key: Some(key), kind }) => {
            assert!(!kind.is_held_by_all_registrants());
            assert_eq!(holders.iter().map(|each| each.key).collect::<Vec<_>>(), [key], "one holder, registered");
        }
    }
    let writers = NEXUSES.iter().filter(|&&nexus| disk.may_write(nexus));
    match held(disk).map(|held| held.kind) {
        Some(WriteExclusive | ExclusiveAccess) => assert!(writers.count() <= 1),
        Some(_) => writers.for_each(|&nexus| assert!(registrations.iter().any(|each| each.nexus == nexus))),
        None => assert_eq!(writers.count(), NEXUSES.len()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold(target in target(), events in prop::collection::vec(event(), 0..120)) {
        let mut disk = disk_of(target);
        for event in events {
            let waiting: Vec<_> = disk.tasks().collect();
            let pick = |n: usize| waiting.get(n % waiting.len().max(1)).copied();
            let before = disk.clone();
            match event {
                Event::Submit(nexus, request) => drop(disk.submit(nexus, request)),
                Event::Begin(n) => {
                    if let Some((id, ..)) = pick(n) {
                        let _ = disk.begin(id);
                        prop_assert_eq!(state(&disk), state(&before), "beginning changes nothing");
                    }
                }
                Event::Execute(n) => {
                    if let Some((id, _, request)) = pick(n) {
                        let answer = disk.execute(id).expect("it was waiting");
                        prop_assert_eq!(disk.execute(id), None, "nothing is answered twice");
                        prop_assert!(disk.reservation().generation >= before.reservation().generation);
                        let looks = matches!(request, Request::Read(_) | Request::Reservation(Command::ReadKeys));
                        let sense = matches!(answer, Err(Failure::Rejected(_)));
                        if looks || answer.is_err() && !sense {
                            prop_assert_eq!(state(&disk), state(&before), "{:?} changed something", answer);
                        }
                    }
                }
                Event::Abort(n) => pick(n).into_iter().for_each(|(id, ..)| disk.abort(id)),
                Event::Disconnect(nexus) => disk.disconnect(nexus),
                Event::Connect(nexus) => drop(disk.connect(nexus)),
                Event::Reset => {
                    disk.reset();
                    prop_assert_eq!(state(&disk), state(&before));
                }
                Event::PowerCycle => {
                    disk.lose_power();
                    check(&disk);
                    disk.restore_power();
                    prop_assert_eq!(disk.reservation().generation, 0);
                }
            }
            check(&disk);
        }
    }

    // What makes simulation and replay one and the same.
    #[test]
    fn the_same_events_make_the_same_device(events in prop::collection::vec((0..4_usize, command()), 0..60)) {
        let mut disk = disk();
        let mut twin = disk.clone();
        for (nexus, command) in events {
            prop_assert_eq!(ask(&mut disk, NEXUSES[nexus], command), ask(&mut twin, NEXUSES[nexus], command));
        }
        prop_assert_eq!(disk, twin);
    }
}
