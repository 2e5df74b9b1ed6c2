//! Random faults, and then none: every hierarchy must reach one place and stay there (L4).

use super::*;

/// One action, drawn; told so that a failing run can be read.
fn upset(cluster: &mut Cluster, names: &[&str], hierarchies: &[String]) -> String {
    let (a, b) = (cluster.draw() as usize % names.len(), cluster.draw() as usize % names.len());
    let (one, other) = (names[a], names[b]);
    let on = cluster.machines[&node(one)].engine.is_some();
    let hierarchy = hierarchies[cluster.draw() as usize % hierarchies.len()].clone();
    let part = ["disk", "vip", "server"][cluster.draw() as usize % 3];
    let which = hier(&hierarchy);
    match cluster.draw() % 17 {
        0 if on => {
            cluster.power_off(one);
            format!("power off {one}")
        }
        1 if on => {
            cluster.kill_agent(one);
            format!("kill the agent on {one}")
        }
        2 | 3 if !on => {
            cluster.power_off(one);
            cluster.power_on(one);
            format!("power on {one}")
        }
        4 if !on => {
            if cluster.machines[&node(one)].life > 0 {
                // A supervisor starts the agent again at once, or the watchdog resets the machine.
                cluster.power_off(one);
                cluster.power_on(one);
            }
            format!("start {one}")
        }
        5 if one != other => {
            cluster.cut(one, other);
            format!("cut {one} from {other}")
        }
        6 => {
            cluster.cut_all();
            "cut all".to_owned()
        }
        7 => {
            cluster.heal();
            "heal".to_owned()
        }
        8 => {
            cluster.machines.get_mut(&node(one)).unwrap().storage_cut = true;
            format!("{one} loses its storage")
        }
        9 => {
            cluster.lost_percent = 20;
            "lose a fifth of the datagrams".to_owned()
        }
        10 => {
            let operation = [Operation::Start, Operation::Monitor, Operation::Stop][cluster.draw() as usize % 3];
            cluster.fails(one, part, operation);
            format!("{part} fails on {one}: {operation:?}")
        }
        11 => {
            cluster.act(one, "*", part, Operation::Start, Act::After(secs(2), Outcome::Good));
            format!("{part} starts slowly on {one}")
        }
        12 => {
            cluster.mend();
            "mend".to_owned()
        }
        13 if on => {
            let to = Some(node(other));
            cluster.command(one, None, Ask::Move { hierarchy: which, to });
            format!("move {hierarchy} to {other}")
        }
        14 if on => {
            cluster.command(one, None, Ask::Standby);
            format!("standby {one}")
        }
        15 if on => {
            cluster.command(one, None, Ask::Online);
            format!("online {one}")
        }
        16 if on => {
            let why = "crashed".to_owned();
            let resource = ResourceName::new(part).unwrap();
            cluster.input(one, Input::WatchFired { hierarchy: which, resource, why });
            format!("{hierarchy}/{part} crashes on {one}")
        }
        _ => "nothing".to_owned(),
    }
}

/// A killed agent is started again by its supervisor, soon enough for its lease, or its machine is reset.
fn supervise(cluster: &mut Cluster, names: &[&str]) {
    for name in names {
        let machine = &cluster.machines[&node(name)];
        if machine.engine.is_none() && !machine.parts.is_empty() {
            cluster.start_agent(name);
        }
    }
}

fn run(seed: u64) {
    let names = &NAMES[..3 + (seed % 3) as usize];
    let hierarchies: Vec<String> = (0..4).map(|i| format!("h{i}")).collect();
    let mut cluster = Cluster::new(hierarchies.iter().enumerate().map(|(i, h)| {
        let mut nodes = names.to_vec();
        nodes.rotate_left(i % names.len());
        web(h, &nodes)
    }));
    cluster.random ^= seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    (0..8).for_each(|_| {
        cluster.draw();
    });
    cluster.power_on_all(names);
    cluster.run(secs(5));
    let mut told = Vec::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..40 {
            let what = upset(&mut cluster, names, &hierarchies);
            told.push(format!("{} {what}", cluster.now));
            let pause = ms(cluster.draw() % 700);
            cluster.run(pause);
            supervise(&mut cluster, names);
            let pause = ms(cluster.draw() % 3000);
            cluster.run(pause);
        }
        cluster.heal();
        cluster.mend();
        for name in names {
            if cluster.machines[&node(name)].engine.is_none() {
                cluster.power_off(name);
                cluster.power_on(name);
            }
            cluster.command(name, None, Ask::Online);
        }
        cluster.run(secs(5));
        for hierarchy in &hierarchies {
            cluster.command(names[0], None, Ask::Clear { hierarchy: hier(hierarchy) });
        }
        told.push(format!("{} all is well again", cluster.now));
        cluster.run(secs(90));
        let places: Vec<Vec<String>> =
            hierarchies.iter().map(|h| cluster.places(h).into_iter().map(str::to_owned).collect()).collect();
        assert!(places.iter().all(|p| p.len() == 1), "every hierarchy is in service at one place: {places:?}");
        cluster.forget_events();
        cluster.run(secs(100));
        for (hierarchy, before) in hierarchies.iter().zip(&places) {
            assert_eq!(cluster.places(hierarchy), *before, "{hierarchy} stays");
            let moved = names.iter().flat_map(|n| cluster.events(n, hierarchy));
            let moved: Vec<String> = moved.filter(|e| e != "eligible again").collect();
            assert_eq!(moved, [""; 0], "{hierarchy} is left alone");
        }
        if seed % 4 == 1 {
            cluster.replay_all();
        }
    }));
    if let Err(panic) = outcome {
        eprintln!("{}\n--- then:\n{}", told.join("\n"), cluster.picture());
        eprintln!("seed {seed}: HA_SEED={seed} cargo test -p ha-core engine::tests::chaos");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn whatever_happened_once_all_is_well_every_hierarchy_has_a_place_and_stays() {
    match std::env::var("HA_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => run(seed),
        None => (1..=20).for_each(run),
    }
}
