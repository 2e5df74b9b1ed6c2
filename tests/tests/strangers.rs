//! Impostors, strangers and noise: invariants S6 and L4. None of it may move or interrupt anything.

use ha_tests::cluster::{Lease, agent_file, served, write};
use ha_tests::{Cluster, Lab, Result, eventually};

fn nothing_moved(cluster: &Cluster) -> Result<()> {
    cluster.until_served_for("web", 3_000)?;
    let verdict = cluster.lab().witness().check()?;
    assert_eq!(verdict.nodes_of("web"), ["alpha"]);
    assert_eq!(verdict.of("web")[0].starts, 1, "the service was restarted");
    Ok(())
}

/// Two nodes with one name: the second refuses to start, says who has the name, and the first is not disturbed.
#[test]
fn a_second_node_of_the_same_name_refuses_to_start() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    let gamma = cluster.node("gamma");
    gamma.abandon_agent()?;
    assert!(gamma.kill_agent()?);
    cluster.until_heard("alpha", "gamma", "lost");
    let refused = cluster.ha(gamma, &["run", "--node", "alpha"]);
    let said = refused.map_or_else(|trouble| trouble.to_string(), |output| format!("it ran: {output}"));
    assert!(said.contains("alpha"), "{said}");
    nothing_moved(&cluster)
}

/// A node with other keys is a stranger: it is not heard, and changes nothing.
#[test]
fn a_node_with_other_keys_is_not_heard() -> Result<()> {
    let nodes = ["alpha", "beta", "gamma"];
    let cluster = Cluster::new(Lab::with_nodes(&nodes), 1, &[("web", served("web", &nodes)?)])?;
    cluster.ha(cluster.node("gamma"), &["keys", "generate", "/run/lab/etc/other"])?;
    std::fs::rename(cluster.node("gamma").dir().join("etc/other"), cluster.node("gamma").dir().join("etc/keys"))?;
    for node in cluster.lab().nodes() {
        node.start_agent()?;
    }
    cluster.until_heard("alpha", "beta", "alive");
    cluster.until_placed("web", "alpha");
    nothing_moved(&cluster)?;
    // Its slot on the shared disk beats, so it is known to live; what it says is refused, and the operator is told.
    cluster.until("alpha", "alpha tells of refused datagrams", |status| {
        status.problems.iter().any(|problem| problem.to_string().contains("refused since the start"))
    });
    Ok(())
}

/// Datagrams of the cluster said again later, broken in every way, or made up, are counted and dropped.
#[test]
fn replayed_broken_and_invented_datagrams_change_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 1, "web")?;
    let network = cluster.lab().network(0);
    network.record();
    cluster.until_served_for("web", 1_000)?;
    let frames: Vec<Vec<u8>> = network.recorded().into_iter().filter(|frame| is_datagram(frame)).collect();
    assert!(frames.len() > 10, "only {} datagrams of the cluster were recorded", frames.len());
    // One node leaves: what it said before must not bring it back.
    cluster.node("gamma").power_off()?;
    cluster.until_heard("alpha", "gamma", "lost");
    for (number, frame) in frames.iter().cycle().take(2_000).enumerate() {
        let mut frame = frame.clone();
        if number % 2 == 1 {
            // Behind the headers of Ethernet, IPv4 and UDP; a UDP checksum of zero is not looked at (RFC 768).
            frame[40..42].fill(0);
            let at = 42 + (number * 7) % (frame.len() - 42);
            frame[at] ^= u8::try_from(number % 255 + 1)?;
        }
        network.inject(&frame);
    }
    assert_eq!(cluster.status("alpha")?.heard("gamma"), "lost");
    let before = cluster.node("alpha").agent()?;
    cluster.lab().as_client(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        for length in 0..1_400 {
            let noise: Vec<u8> =
                (0..length).map(|at| u8::try_from((at * 31 + length * 17) % 256).unwrap_or(0)).collect();
            socket.send_to(&noise, "10.77.0.1:7946")?;
            socket.send_to(&noise, "10.77.0.2:7946")?;
        }
        Ok(())
    })?;
    nothing_moved(&cluster)?;
    assert_eq!(cluster.node("alpha").agent()?, before, "the agent did not survive the noise");
    assert_eq!(cluster.status("alpha")?.heard("beta"), "alive");
    Ok(())
}

/// Whether an Ethernet frame carries IPv4 and UDP to the cluster's port.
fn is_datagram(frame: &[u8]) -> bool {
    frame.len() > 42
        && frame[12..14] == [8, 0]
        && frame[14] == 0x45
        && frame[23] == 17
        && frame[36..38] == 7946_u16.to_be_bytes()
}

/// Files that differ between the nodes: shown; a hierarchy on whose definition its nodes agree works.
#[test]
fn files_that_differ_are_shown_and_what_is_agreed_on_works() -> Result<()> {
    let nodes = ["alpha", "beta"];
    let cluster = Cluster::new(Lab::with_nodes(&nodes), 1, &[("web", served("web", &nodes)?)])?;
    let more = agent_file(&["alpha", "beta", "delta"], 1, Lease::Short);
    write(cluster.node("beta"), "agent.ron", &more)?;
    cluster.start()?;
    cluster.until_placed("web", "alpha");
    eventually("the difference is shown", || {
        let problems = cluster.status("alpha").map_err(|trouble| trouble.to_string())?.problems;
        let text = serde_json::to_string(&problems).unwrap_or_default();
        if text.contains("beta") { Ok(()) } else { Err(text) }
    });
    nothing_moved(&cluster)
}
