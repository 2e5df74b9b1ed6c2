//! Nodes that stand still and wake up later: invariants S1 and S7.

use ha_tests::{Cluster, Result, Spare};

/// S7: the warden ends what runs under a lease that is not renewed. S1: when the node wakes it does not write again.
#[test]
fn a_holder_that_hangs_is_replaced_and_finds_its_claim_gone() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    let alpha = cluster.node("alpha");

    alpha.hang(Spare::Warden)?;
    cluster.until_placed("web", "beta");
    alpha.wake()?;

    if !alpha.is_on() {
        // The warden may have reset the machine instead: that ends the tenure as well.
        alpha.power_off()?;
        alpha.power_on()?;
    }
    cluster.until_heard("beta", "alpha", "alive");
    cluster.until("alpha", "alpha knows that beta serves", |status| status.place("web") == Some("beta"));
    cluster.until_served_for("web", 2_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha", "beta"]);
    Ok(())
}

/// S6: a short hang, well within the lease, moves nothing and interrupts nothing but itself.
#[test]
fn a_short_hang_moves_nothing() -> Result<()> {
    let cluster = Cluster::serving(&["alpha", "beta", "gamma"], 2, "web")?;
    for _ in 0..10 {
        cluster.node("alpha").hang(Spare::Nothing)?;
        cluster.node("alpha").wake()?;
    }
    cluster.until_served_for("web", 3_000)?;
    assert_eq!(cluster.lab().witness().check()?.nodes_of("web"), ["alpha"]);
    Ok(())
}
