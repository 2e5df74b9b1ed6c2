//! Many hierarchies at once: invariants L1 and L3.

use ha_tests::cluster::witnessed;
use ha_tests::{Cluster, Lab, Result, eventually};

/// L1, S1, S4: a thousand hierarchies of one dead node are served by the other.
#[test]
fn a_thousand_hierarchies_of_a_dead_node_are_taken_over() -> Result<()> {
    let names: Vec<String> = (0..1_000).map(|number| format!("h{number:04}")).collect();
    let hierarchies: Result<Vec<(&str, String)>> =
        names.iter().map(|name| Ok((name.as_str(), witnessed(name, &["alpha", "beta"], 5_000)?))).collect();
    let cluster = Cluster::new(Lab::with_nodes(&["alpha", "beta"]).state_bytes(64 << 20), 1, &hierarchies?)?;
    cluster.start()?;
    let served_by = |node: &str| {
        let verdict = cluster.lab().witness().check().map_err(|trouble| trouble.to_string())?;
        let count = names.iter().filter(|name| verdict.nodes_of(name).last() == Some(&node)).count();
        if count == names.len() { Ok(()) } else { Err(format!("{count} of {} on {node}", names.len())) }
    };
    eventually("alpha serves all", || served_by("alpha"));
    let before = std::time::Instant::now();
    cluster.node("alpha").power_off()?;
    eventually("beta serves all", || served_by("beta"));
    eprintln!("1,000 hierarchies served again after {:?}", before.elapsed());
    cluster.lab().witness().check().map(drop)
}
