//! Nodes that die, and nodes that come back: invariants S1, S4, L1, L2 and L4.

use std::time::Duration;

use ha_tests::cluster::{Lease, served, witnessed, write};
use ha_tests::{Cluster, Lab, Result, eventually};

/// L1: the next in rank serves. S1 and S4: never both, and under a greater epoch. L4: who comes back does not move it again.
#[test]
fn the_next_in_rank_replaces_a_node_that_loses_power() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    let client = cluster.client()?;
    eventually("the client is served by alpha", || served_by(&client, "alpha"));
    client.forget();

    cluster.node("alpha").power_off()?;

    eventually("the client is served by beta", || served_by(&client, "beta"));
    eprintln!("power loss: longest outage {:?}", client.longest_outage().map(|outage| outage.length()));
    cluster.node("alpha").power_on()?;
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until_heard("alpha", "beta", "alive");
    cluster.until_served_for("web", 3_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);
    assert_eq!(verdict.of("web").iter().map(|tenure| tenure.starts).sum::<u32>(), 2, "the service was restarted");
    Ok(())
}

/// L2: the last node standing serves, although it hears nobody.
#[test]
fn the_last_node_standing_serves() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    cluster.node("alpha").power_off()?;
    cluster.node("beta").power_off()?;
    cluster.until_placed("web", "gamma");
    let witness = cluster.lab().witness();
    witness.until("web is served by gamma", |verdict| verdict.nodes_of("web").last() == Some(&"gamma"));
    Ok(())
}

/// Hierarchies of one group prefer different nodes, and do not depend on each other: the last node has them all.
#[test]
fn the_hierarchies_of_a_group_part_where_they_can() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    let spread = |name: &str| -> Result<(String, String)> {
        let text = witnessed(name, &nodes, 100)?;
        Ok((name.to_owned(), text.replace("    resources:", "    utility: [Spread(\"shops\")],\n    resources:")))
    };
    let texts = [spread("apples")?, spread("pears")?];
    let texts: Vec<(&str, String)> = texts.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let cluster = Cluster::new(Lab::with_nodes(&nodes), 1, &texts)?;
    cluster.start()?;
    cluster.until_placed("apples", "alpha");
    cluster.until_placed("pears", "beta");
    let why = cluster.ask("alpha", &["why", "pears"])?;
    assert!(why.contains("beside 1 of the group shops"), "{why}");

    cluster.node("alpha").power_off()?;
    cluster.until_placed("apples", "gamma");
    cluster.node("gamma").power_off()?;
    cluster.until_placed("apples", "beta");
    cluster.until_placed("pears", "beta");
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("pears"), ["beta"]);
    Ok(())
}

/// L2, S4: after a power cut of the whole site one node alone brings everything back, under a greater epoch.
#[test]
fn one_node_alone_starts_after_a_power_cut_of_all() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    for node in cluster.lab().nodes() {
        node.power_off()?;
    }
    cluster.node("gamma").power_on()?;
    cluster.until_placed("web", "gamma");
    cluster.lab().witness().until_served_by("web", &["alpha", "gamma"]);
    Ok(())
}

/// L2: a node that boots while the others are off cannot know whether they serve: it waits for them as long as `startup_grace` says, and then
/// serves what it can have. L4: who boots later leaves it where it is.
#[test]
fn a_node_that_boots_alone_waits_for_the_others_and_then_serves() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    let cluster = Cluster::with_leases(Lab::with_nodes(&nodes), 1, &[("web", served("web", &nodes)?)], Lease::Lasting)?;
    for node in ["alpha", "beta"] {
        cluster.node(node).power_off()?;
    }
    cluster.node("gamma").start_agent()?;
    cluster.until_placed("web", "gamma");
    let events = cluster.events("gamma")?;
    let first = |kind: &str| events.iter().find(|event| event.kind() == kind).map(|event| event.at());
    let (began, asked) = (first("began").unwrap(), first("claim-asked").unwrap());
    // The two seconds count from a moment before it could tell that it began.
    assert!(asked >= began + Duration::from_millis(1_900), "began at {began:?}, asked for the claim at {asked:?}");

    for node in ["alpha", "beta"] {
        cluster.node(node).power_on()?;
        cluster.node(node).start_agent()?;
    }
    cluster.until_heard("alpha", "gamma", "alive");
    cluster.until_heard("gamma", "alpha", "alive");
    cluster.until_served_for("web", 3_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["gamma"]);
    Ok(())
}

/// Nodes that boot together and hear each other do not wait: a grace longer than any test is patient changes nothing.
#[test]
fn nodes_that_hear_all_others_do_not_wait_for_anybody() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    let cluster = Cluster::new(Lab::with_nodes(&nodes), 1, &[("web", served("web", &nodes)?)])?;
    for node in cluster.lab().nodes() {
        let text = std::fs::read_to_string(node.dir().join("etc/agent.ron"))?;
        assert!(text.contains(r#"startup_grace: "2s""#), "{text}");
        write(node, "agent.ron", &text.replace(r#"startup_grace: "2s""#, r#"startup_grace: "2h""#))?;
    }
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    Ok(())
}

/// S1, S4, L1 again and again: each of ten power losses hits whoever serves.
#[test]
fn whoever_serves_loses_power_ten_times_in_a_row() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    let mut holder = "alpha".to_owned();
    for _ in 0..10 {
        cluster.node(&holder).power_off()?;
        let next = eventually("another node serves", || {
            let last = cluster.lab().witness().last("web").unwrap_or(None);
            last.clone().map(|line| line.node).filter(|node| *node != holder).ok_or(last)
        });
        cluster.until_placed("web", &next);
        cluster.node(&holder).power_on()?;
        cluster.until_heard(&next, &holder, "alive");
        holder = next;
    }
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.of("web").len(), 11);
    Ok(())
}

/// S1, S5: an operator moves it, and the outage is a moment.
#[test]
fn a_switchover_moves_it_in_order() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    let client = cluster.client()?;
    eventually("the client is served by alpha", || served_by(&client, "alpha"));
    client.forget();
    cluster.ha(cluster.node("alpha"), &["move", "web", "gamma"])?;
    eventually("the client is served by gamma", || served_by(&client, "gamma"));
    eprintln!("switchover: longest outage {:?}", client.longest_outage().map(|outage| outage.length()));
    cluster.until_served_for("web", 2_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha", "gamma"]);
    Ok(())
}

/// L1, S1, S5: a node that is drained hands over all it serves, and nobody waits: every claim is the heir's at the first ask.
#[test]
fn what_a_drained_node_served_is_taken_at_the_first_ask() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    let mut hierarchies = vec![("web".to_owned(), served("web", &nodes)?)];
    for number in 0..20 {
        let name = format!("h{number:02}");
        hierarchies.push((name.clone(), witnessed(&name, &nodes, 50)?));
    }
    let hierarchies: Vec<(&str, String)> =
        hierarchies.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let cluster = Cluster::with_leases(Lab::with_nodes(&nodes), 1, &hierarchies, Lease::Long)?;
    cluster.start()?;
    hierarchies.iter().for_each(|(name, _)| cluster.until_placed(name, "alpha"));
    hierarchies.iter().for_each(|(name, _)| cluster.lab().witness().until_served_by(name, &["alpha"]));

    cluster.node("alpha").abandon_agent()?;
    cluster.ha(cluster.node("alpha"), &["stop", "--drain"])?;

    for (name, _) in &hierarchies {
        cluster.until_placed(name, "beta");
        assert_eq!(about_the_claim(&cluster, "beta", name)?, ["claim-asked", "claim-won"], "{name}");
    }
    cluster.until_heard("beta", "alpha", "left");
    hierarchies.iter().for_each(|(name, _)| cluster.lab().witness().until_served_by(name, &["alpha", "beta"]));
    Ok(())
}

/// L1: what a node had stopped when it left, because nobody could take it, is free for the first that can.
#[test]
fn what_a_node_gave_up_when_it_left_is_taken_at_the_first_ask() -> Result<()> {
    let cluster = serving_with_long_leases(&["alpha", "beta"])?;
    cluster.ha(cluster.node("beta"), &["standby"])?;
    cluster.node("alpha").abandon_agent()?;
    cluster.ha(cluster.node("alpha"), &["stop", "--drain"])?;
    cluster.until_heard("beta", "alpha", "left");

    cluster.ha(cluster.node("beta"), &["online"])?;

    cluster.until_placed("web", "beta");
    assert_eq!(about_the_claim(&cluster, "beta", "web")?, ["claim-asked", "claim-won"]);
    cluster.lab().witness().until_served_by("web", &["alpha", "beta"]);
    Ok(())
}

/// L1, S1, S4: power is lost and back before the lease is over. Its slot shows a new boot: nobody waits for the lease any more.
#[test]
fn what_a_node_held_before_a_new_boot_is_taken_as_soon_as_that_is_seen() -> Result<()> {
    let cluster = serving_with_long_leases(&["alpha", "beta"])?;
    cluster.node("alpha").power_off()?;
    // So that it comes back without taking its own again.
    std::fs::remove_file(cluster.node("alpha").dir().join("etc/hierarchies/web.ron"))?;
    eventually("beta is refused: the lease is good still", || {
        let kinds = about_the_claim(&cluster, "beta", "web").map_err(|trouble| trouble.to_string())?;
        if kinds.last().is_some_and(|kind| kind == "claim-refused") { Ok(()) } else { Err(format!("{kinds:?}")) }
    });
    cluster.node("alpha").power_on()?;

    cluster.until_placed("web", "beta");
    let events = cluster.events("beta")?;
    let seen = events.iter().position(|event| event.line.contains("shows a new boot"));
    let won = events.iter().rposition(|event| event.kind() == "claim-won" && event.hierarchy() == Some("web"));
    assert!(seen.is_some() && seen < won, "{events:?}");
    cluster.lab().witness().until_served_by("web", &["alpha", "beta"]);
    Ok(())
}

/// L1, S4: a node that comes back before anybody else could have it takes its own at the first ask, under a greater epoch.
#[test]
fn a_node_takes_what_it_held_before_a_new_boot_at_the_first_ask() -> Result<()> {
    // Nobody else may have it, or who sees the new boot first would.
    let web = [("web", served("web", &["alpha"])?)];
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha", "beta"]), 1, &web, Lease::Long)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    cluster.lab().witness().until_served_by("web", &["alpha"]);
    cluster.node("alpha").power_off()?;
    cluster.node("alpha").power_on()?;
    cluster.until_placed("web", "alpha");
    assert_eq!(about_the_claim(&cluster, "alpha", "web")?, ["claim-asked", "claim-won"]);
    cluster.lab().witness().until_served_by("web", &["alpha", "alpha"]);
    Ok(())
}

/// `web`, in service on the first of the nodes, under leases that no test can wait for.
fn serving_with_long_leases(nodes: &[&str]) -> Result<Cluster> {
    let cluster = Cluster::with_leases(Lab::with_nodes(nodes), 1, &[("web", served("web", nodes)?)], Lease::Long)?;
    cluster.start()?;
    cluster.until_placed("web", nodes[0]);
    cluster.lab().witness().until_served_by("web", &nodes[..1]);
    Ok(cluster)
}

/// What a node asked of the claim of a hierarchy, and what was answered, in order.
fn about_the_claim(cluster: &Cluster, node: &str, hierarchy: &str) -> Result<Vec<String>> {
    let events = cluster.events(node)?.into_iter().filter(|event| event.hierarchy() == Some(hierarchy));
    Ok(events.map(|event| event.kind().to_owned()).filter(|kind| kind.starts_with("claim-")).collect())
}

fn served_by(client: &ha_tests::Client, node: &str) -> std::result::Result<(), Option<(String, u64)>> {
    let served = client.served_by();
    if served.as_ref().is_some_and(|(by, _)| by == node) { Ok(()) } else { Err(served) }
}
