//! The examples of the pages about resources that no other test runs: as they stand, but for addresses, places and times. Programs that are the reader's
//! own are scripts.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use ha_tests::cluster::Lease;
use ha_tests::{Cluster, Lab, Node, Result, Trouble, page, script};

/// Does something on a node as its administrator would.
fn on(node: &Node, line: &str) -> Result<String> {
    let output = node.run("/bin/sh", &["-c", line])?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Trouble::new(format!("`{line}` on {}: {}", node.name(), String::from_utf8_lossy(&output.stderr))))
}

fn cluster(hierarchies: &[(String, String)]) -> Result<Cluster> {
    let hierarchies: Vec<(&str, String)> =
        hierarchies.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    Cluster::with_leases(Lab::with_nodes(&["alpha", "beta"]), 2, &hierarchies, Lease::Lasting)
}

/// exec.md: what is opened on one node is closed there before it is opened on another, and closed by somebody else it is opened again.
#[test]
fn commands_of_ones_own_open_and_close_a_gate() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let gate = script(
        folder.path(),
        "gate",
        "case $1 in open) echo $HA_HIERARCHY $HA_EPOCH >/run/gate ;; close) rm -f /run/gate ;; look) test -e /run/gate ;; esac",
    )?;
    let cluster = cluster(&page("exec", &[("/usr/local/sbin/gate", &gate)])?)?;
    cluster.start()?;
    cluster.until_placed("gate", "alpha");
    let (alpha, beta) = (cluster.node("alpha"), cluster.node("beta"));
    let first = on(alpha, "cat /run/gate")?;
    assert!(first.starts_with("gate "), "{first}");
    on(beta, "! test -e /run/gate")?;

    on(alpha, "rm /run/gate")?;
    cluster.until_said("alpha", &["history"], &["gate: local recovery on alpha", "rules failed (monitor)"]);
    on(alpha, "test -e /run/gate")?;

    cluster.ask("alpha", &["move", "gate", "beta"])?;
    cluster.until_placed("gate", "beta");
    on(alpha, "! test -e /run/gate")?;
    let second = on(beta, "cat /run/gate")?;
    let epoch = |text: &str| text.trim().rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(epoch(&second) > epoch(&first), "{first} {second}");
    Ok(())
}

/// route.md: what the node with the service sends to the branch leaves by the right way, from the service's address; and no other node's does.
#[test]
fn a_route_goes_with_its_address() -> Result<()> {
    let places = [("10.0.0.12", "10.77.0.112"), ("\"10.0.0.1\"", "\"10.77.0.200\"")];
    let cluster = cluster(&page("route", &places)?)?;
    cluster.start()?;
    let is_only_on = |node: &str, other: &str| -> Result<()> {
        cluster.until_placed("office", node);
        let shown = on(cluster.node(node), "ip -4 route show to exact 10.20.0.0/16")?;
        assert_eq!(
            shown.trim(),
            "10.20.0.0/16 via 10.77.0.200 dev eth0 proto static src 10.77.0.112 metric 100",
            "on {node}"
        );
        let way = on(cluster.node(node), "ip -4 route get 10.20.3.4")?;
        assert!(way.contains("via 10.77.0.200 dev eth0 src 10.77.0.112"), "on {node}: {way}");
        assert_eq!(on(cluster.node(other), "ip -4 route show to exact 10.20.0.0/16")?, "", "on {other}");
        Ok(())
    };
    is_only_on("alpha", "beta")?;

    on(cluster.node("alpha"), "ip route del 10.20.0.0/16")?;
    let why = "branch failed (monitor): there is no route to 10.20.0.0/16";
    cluster.until_said("alpha", &["history"], &["office: local recovery on alpha", why]);
    is_only_on("alpha", "beta")?;

    cluster.ask("alpha", &["move", "office", "beta"])?;
    is_only_on("beta", "alpha")?;
    cluster.node("beta").power_off()?;
    cluster.until_placed("office", "alpha");
    on(cluster.node("alpha"), "ip -4 route show to exact 10.20.0.0/16 | grep -q 10.77.0.112")?;
    Ok(())
}

/// Something that is useful to both nodes, in the clients' network: a port, and a page on another address.
fn neighbours(cluster: &Cluster) -> Result<()> {
    cluster.lab().as_client(|| {
        for address in ["10.77.0.201/24", "10.77.0.202/24"] {
            let added = Command::new("ip").args(["addr", "add", address, "dev", "eth0"]).status()?;
            assert!(added.success(), "{address} could not be added: {added}");
        }
        let (port, site) = (TcpListener::bind("10.77.0.201:25")?, TcpListener::bind("10.77.0.202:8080")?);
        std::thread::spawn(move || port.incoming().for_each(drop));
        std::thread::spawn(move || {
            for mut stream in site.incoming().flatten() {
                let mut asked = [0; 1024];
                let length = stream.read(&mut asked).unwrap_or_default();
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                let good = asked.starts_with("GET /health ") && asked.to_lowercase().contains("host: pay.example");
                let (status, body) = if good { ("200 OK", "ready\n") } else { ("404 Not Found", "") };
                let length = body.len();
                let _ =
                    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            }
        });
        Ok(())
    })
}

/// probes.md: each example is served where it is preferred until its probe finds nothing there, and only that one moves.
#[test]
fn what_a_probe_finds_to_be_of_no_use_is_served_elsewhere() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let forever = script(folder.path(), "forever", "exec /bin/sleep 1000000")?;
    let licence = script(folder.path(), "has-licence", "test -e /run/licence")?;
    let places = [
        ("10.0.0.254", "10.77.0.200"),
        ("10.0.0.25:25", "10.77.0.201:25"),
        ("10.0.0.5:8080", "10.77.0.202:8080"),
        ("/var/log", "/run/log"),
        ("1min", "1s"),
        ("/usr/local/bin/has-licence", licence.as_str()),
        ("/usr/local/bin/portal", forever.as_str()),
        ("/usr/local/bin/mailer", forever.as_str()),
        ("/usr/local/bin/till", forever.as_str()),
        ("/usr/local/bin/collector", forever.as_str()),
        ("/usr/local/bin/render", forever.as_str()),
        ("/usr/local/bin/licensed", forever.as_str()),
    ];
    let mut hierarchies = page("probes", &places)?;
    hierarchies.retain(|(name, _)| !OF_A_GROUP.contains(&name.as_str()));
    let cluster = cluster(&hierarchies)?;
    neighbours(&cluster)?;
    for node in cluster.lab().nodes() {
        on(node, "mkdir /run/log && mount -t tmpfs -o size=1M log /run/log && touch /run/licence")?;
        // All nodes of a laboratory have one kernel and its load.
        on(node, "echo '0.00 0.00 0.00 1/100 100' >/run/load && mount --bind /run/load /proc/loadavg")?;
    }
    cluster.start()?;
    for (name, _) in &hierarchies {
        cluster.until_placed(name, "alpha");
    }
    let faults = [
        ("portal", "ip route add unreachable 10.77.0.200/32"),
        ("mailer", "ip route add unreachable 10.77.0.201/32"),
        ("till", "ip route add unreachable 10.77.0.202/32"),
        ("collector", "dd if=/dev/zero of=/run/log/full bs=4k count=255 2>/dev/null"),
        ("render", "echo '900.00 0.00 0.00 1/100 100' >/run/load"),
        ("licensed", "rm /run/licence"),
    ];
    let mut known: Vec<&str> = faults.iter().map(|(name, _)| *name).collect();
    let mut named: Vec<&str> = hierarchies.iter().map(|(name, _)| name.as_str()).collect();
    known.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, known, "an example of the page is not tried");
    for (place, (name, fault)) in faults.iter().enumerate() {
        on(cluster.node("alpha"), fault)?;
        cluster.until_placed(name, "beta");
        let why = cluster.said("alpha", &["why", name])?;
        let told = why.lines().find(|line| line.starts_with("utility ")).unwrap_or("it does not tell the utility");
        eprintln!("{name}, after `{fault}`: {told}");
        assert!(told.contains(" here: "), "{why}");
        let status = cluster.status("alpha")?;
        for (other, _) in &faults[place + 1..] {
            assert_eq!(status.place(other), Some("alpha"), "{other} moved, after {fault}");
        }
    }
    Ok(())
}

/// The examples of `Spread` on probes.md.
const OF_A_GROUP: [&str; 2] = ["north", "south"];

/// probes.md: the two of a group are on two nodes, on the one that is left, and on two again.
#[test]
fn hierarchies_of_a_group_are_on_different_nodes_as_long_as_there_are_some() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let forever = script(folder.path(), "forever", "exec /bin/sleep 1000000")?;
    let mut group = page("probes", &[("1min", "1s"), ("/usr/local/bin/site", &forever)])?;
    group.retain(|(name, _)| OF_A_GROUP.contains(&name.as_str()));
    let cluster = cluster(&group)?;
    cluster.start()?;
    let apart = || {
        cluster.until_placed("north", "alpha");
        cluster.until_placed("south", "beta");
    };
    apart();
    cluster.node("beta").power_off()?;
    cluster.until_placed("south", "alpha");
    cluster.until_placed("north", "alpha");
    cluster.node("beta").power_on()?;
    apart();
    Ok(())
}
