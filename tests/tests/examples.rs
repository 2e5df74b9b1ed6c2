//! The examples of `hierarchies/`, run: as they stand, but for the addresses, devices and places that a laboratory does not have. nginx, PostgreSQL and
//! MariaDB are the real ones; programs that are the reader's own are scripts.

#![expect(clippy::unwrap_used, reason = "what fails here is the laboratory, not what is tested")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ha_tests::asking::limit;
use ha_tests::cluster::Lease;
use ha_tests::kernel::database;
use ha_tests::{Asking, Cluster, Interruption, Lab, Result, Volume, eventually, mariadb, need};
use tempfile::TempDir;

/// A laboratory of namespaces has no SCSI disks. These are read and simulated in the tests of `ha-agent`, and run by `kernel_examples` and `kernel_nfs`.
const ON_RESERVATIONS: [&str; 5] = ["accounts", "archive", "files", "homes", "shop"];

/// Those that are served here.
const RUN: [&str; 8] = ["catalogue", "database", "gateway", "orders", "queue", "search", "small", "web"];

#[test]
fn no_example_is_forgotten() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hierarchies");
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut known: Vec<&str> = RUN.into_iter().chain(ON_RESERVATIONS).collect();
    known.sort_unstable();
    assert_eq!(found, known);
    eprintln!(
        "NOT RUN HERE, since namespaces have no SCSI disks (kernel_examples and kernel_nfs run them): {ON_RESERVATIONS:?}"
    );
}

/// What nginx needs to serve one page.
fn nginx(name: &str, address: &str, root: &Path) -> String {
    format!(
        "pid /run/{name}.pid;\nerror_log /run/{name}.log;\nevents {{}}\n\
         http {{ access_log off; server {{ listen {address}:80; root {}; }} }}\n",
        root.display()
    )
}

/// How long a client waits for an answer that counts its rows.
const PATIENT: Duration = Duration::from_secs(2);

/// What a program answers a client, in the clients' network.
fn answer(limit: Duration, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
    let limit = limit.as_secs_f64().to_string();
    let output = Command::new("timeout").args([limit.as_str(), program]).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The page of a web server.
fn page(address: &str) -> std::result::Result<String, String> {
    let limit = limit();
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&format!("{address}:80").parse().unwrap(), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let text = ask().map_err(|error: std::io::Error| error.to_string())?;
    if text.contains("200 OK") { Ok(text) } else { Err(text) }
}

/// Adds a row to PostgreSQL; answers with its number, or nothing where another client was first.
fn row(limit: Duration) -> std::result::Result<String, String> {
    let row = "INSERT INTO rows SELECT count(*) FROM rows ON CONFLICT DO NOTHING RETURNING number";
    answer(limit, "psql", &["-h", "10.77.0.11", "-U", "postgres", "-qAt", "-c", row])
}

/// Adds a row to MariaDB; answers with how many there are.
fn order(limit: Duration) -> std::result::Result<String, String> {
    let row = "INSERT IGNORE INTO orders SELECT COUNT(*) FROM orders; SELECT COUNT(*) FROM orders";
    answer(limit, "mariadb", &["--no-defaults", "-h", "10.77.0.14", "-u", "client", "shop", "-Ne", row])
}

/// Waits until a client has an answer, and tells how long that took.
fn out(cluster: &Cluster, what: &str, ask: impl Fn() -> std::result::Result<String, String> + Sync) -> String {
    let from = Instant::now();
    let answer = eventually(what, || cluster.lab().as_client(|| Ok(ask())).unwrap());
    eprintln!("{what} after {:.1} s", from.elapsed().as_secs_f64());
    answer
}

const PROGRAMS: [(&str, &str); 5] = [
    ("/usr/sbin/nginx", "nginx"),
    ("/usr/bin/psql", "postgresql-client"),
    ("/usr/sbin/mariadbd", "mariadb-server"),
    ("/usr/bin/mariadb", "mariadb-client"),
    ("/usr/sbin/mkfs.xfs", "xfsprogs"),
];

/// The examples with the laboratory's places, and what they are served from.
struct Prepared {
    examples: Vec<(String, String)>,
    _volumes: [Volume; 3],
    _folder: TempDir,
}

impl Prepared {
    /// Those of these names.
    fn of(&self, names: &[&str]) -> Vec<(&str, String)> {
        let all = self.examples.iter().map(|(name, text)| (name.as_str(), text.clone()));
        all.filter(|(name, _)| names.contains(name)).collect()
    }
}

fn prepared() -> Result<Prepared> {
    need(&PROGRAMS)?;
    let postgres = database::programs()?;
    // In memory, where there is some: what is flushed to the machine's disk is not what is looked at.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let dir = folder.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let place = |name: &str| {
        let at = dir.join(name);
        fs::create_dir(&at).unwrap();
        at
    };
    let (web_at, database_at, orders_at) = (place("srv-web"), place("srv-database"), place("srv-orders"));
    let web = Volume::new(dir, "web.img", 64 << 20)?;
    let database = Volume::formatted(dir, "database.img", 320 << 20, "xfs")?;
    let orders = Volume::new(dir, "orders.img", 320 << 20)?;
    web.mounted(&web_at, || {
        fs::create_dir(web_at.join("etc"))?;
        fs::write(web_at.join("etc/nginx.conf"), nginx("web", "10.77.0.10", &web_at))?;
        Ok(fs::write(web_at.join("index.html"), "from the shared disk\n")?)
    })?;
    database.mounted(&database_at, || database::create(&database_at).map(drop))?;
    orders.mounted(&orders_at, || mariadb::create(&orders_at))?;
    for (name, address) in [("catalogue", "10.77.0.15"), ("search", "10.77.0.16")] {
        let at = place(name);
        fs::write(at.join("nginx.conf"), nginx(name, address, &at))?;
        fs::write(at.join("index.html"), format!("this is {name}\n"))?;
    }
    let (web_at, database_at, orders_at) =
        (web_at.to_string_lossy(), database_at.to_string_lossy(), orders_at.to_string_lossy());
    let example = |name: &str, places: &[(&str, &str)]| ha_tests::example(name, places).unwrap();
    let script = |name: &str, text: &str| ha_tests::script(dir, name, text).unwrap();
    let forever = |name: &str| script(name, "exec /bin/sleep 1000000");
    let broker = script(
        "broker-ctl",
        "pid=/run/broker.pid\n\
         case $1 in\n\
         start) kill -0 \"$(cat $pid)\" 2>/dev/null || { /usr/bin/setsid /bin/sleep 1000000 >/dev/null 2>&1 & echo $! >$pid; } ;;\n\
         stop|kill) [ ! -e $pid ] || kill -9 \"$(cat $pid)\" 2>/dev/null; rm -f $pid ;;\n\
         status) kill -0 \"$(cat $pid)\" ;;\n\
         esac",
    );
    let own = |name: &str| {
        let at = format!("/srv/{name}");
        let here = dir.join(name).to_string_lossy().into_owned();
        (name.to_owned(), example(name, &[("10.0.0.", "10.77.0."), (&at, &here)]))
    };
    let mut examples: Vec<(String, String)> = [
        (
            "web",
            example(
                "web",
                &[
                    ("10.0.0.254", "10.77.0.200"),
                    ("10.0.0.", "10.77.0."),
                    ("/dev/disk/by-id/wwn-0x6001405a1b2c3d4e-part1", web.device()),
                    ("/srv/web", &web_at),
                ],
            ),
        ),
        (
            "database",
            example(
                "database",
                &[
                    ("10.0.0.", "10.77.0."),
                    ("/dev/disk/by-id/wwn-0x6001405a1b2c3d4e-part2", database.device()),
                    ("/usr/lib/postgresql/15/bin", &postgres),
                    ("/srv/database", &database_at),
                ],
            ),
        ),
        (
            "orders",
            example(
                "orders",
                &[
                    ("10.0.0.", "10.77.0."),
                    ("/dev/disk/by-id/wwn-0x6001405a1b2c3d4e-part3", orders.device()),
                    ("/srv/orders", &orders_at),
                ],
            ),
        ),
        (
            "gateway",
            example(
                "gateway",
                &[("192.0.2.10/24", "10.78.0.110/24"), ("192.0.2.1", "10.77.0.200"), ("10.0.0.1/24", "10.77.0.101/24")],
            ),
        ),
        (
            "queue",
            example("queue", &[("/usr/local/bin/broker-ctl", &broker), ("/usr/local/bin/worker", &forever("worker"))]),
        ),
        (
            "small",
            example(
                "small",
                &[
                    (r#"after: "30s""#, r#"after: "1s""#),
                    ("/usr/local/bin/reports", &forever("reports")),
                    (r#"Tcp("10.0.0.25:25")"#, r#"Ping("10.77.0.200")"#),
                    ("/usr/local/bin/mail-quota-left", &script("mail-quota-left", "echo 80")),
                    ("/usr/local/bin/mailer", &forever("mailer")),
                ],
            ),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into();
    examples.extend(["catalogue", "search"].map(own));
    Ok(Prepared { examples, _volumes: [web, database, orders], _folder: folder })
}

#[test]
fn every_example_is_served_and_taken_over() -> Result<()> {
    let prepared = prepared()?;
    // Three databases and a busy machine write to one disk: leases of a second would be lost to it.
    let cluster =
        Cluster::with_leases(Lab::with_nodes(&["alpha", "beta", "gamma"]), 2, &prepared.of(&RUN), Lease::Lasting)?;
    cluster.start()?;
    let preferred = [
        ("web", "alpha"),
        ("gateway", "alpha"),
        ("catalogue", "alpha"),
        ("database", "beta"),
        ("search", "beta"),
        ("orders", "gamma"),
        ("queue", "gamma"),
        ("reports", "beta"),
        ("mailer", "gamma"),
    ];
    // `reports` may begin beside `mailer`, whose probe hides from gamma that it will be there too; then it goes to beta by itself.
    for (hierarchy, node) in preferred {
        cluster.until_placed(hierarchy, node);
    }
    let out = |what: &str, ask: fn() -> std::result::Result<String, String>| out(&cluster, what, ask);
    let page = |address: &str, has: &str| {
        let text = self::out(&cluster, &format!("nginx at {address} answers"), || self::page(address));
        assert!(text.contains(has), "{text}");
    };
    page("10.77.0.10", "from the shared disk");
    page("10.77.0.15", "this is catalogue");
    page("10.77.0.16", "this is search");
    assert_eq!(out("PostgreSQL answers", || row(PATIENT)), "0");
    assert_eq!(out("MariaDB answers", || order(PATIENT)), "1");

    // Each of a pair is taken over by the other; and a database is where it was.
    cluster.node("beta").power_off()?;
    assert_eq!(out("beta lost, PostgreSQL answers", || row(PATIENT)), "1");
    page("10.77.0.16", "this is search");
    cluster.until_placed("database", "alpha");
    cluster.ha(cluster.node("gamma"), &["move", "orders", "alpha"])?;
    assert_eq!(out("moved, MariaDB answers", || order(PATIENT)), "2");
    cluster.until_placed("orders", "alpha");

    // The pair parts again by itself; the database stays until somebody decides.
    cluster.node("beta").power_on()?;
    cluster.node("beta").start_agent()?;
    cluster.until_placed("search", "beta");
    cluster.until_placed("database", "alpha");

    // Beta has data and programs of all that alpha serves.
    cluster.node("alpha").power_off()?;
    page("10.77.0.10", "from the shared disk");
    page("10.77.0.15", "this is catalogue");
    assert_eq!(out("alpha lost, PostgreSQL answers", || row(PATIENT)), "2");
    assert_eq!(out("alpha lost, MariaDB answers", || order(PATIENT)), "3");

    // The last node serves all that names it.
    cluster.node("beta").power_off()?;
    for (hierarchy, _) in
        preferred.into_iter().filter(|(name, _)| !["gateway", "catalogue", "database", "search"].contains(name))
    {
        cluster.until_placed(hierarchy, "gamma");
    }
    page("10.77.0.10", "from the shared disk");
    Ok(())
}

/// A real application, the nodes that it goes between, and how a client asks it.
struct Application {
    name: &'static str,
    own: &'static str,
    other: &'static str,
    ask: fn() -> bool,
}

const APPLICATIONS: [Application; 3] = [
    Application { name: "web", own: "alpha", other: "beta", ask: || page("10.77.0.10").is_ok() },
    Application { name: "database", own: "beta", other: "alpha", ask: || row(limit()).is_ok() },
    Application { name: "orders", own: "gamma", other: "alpha", ask: || order(limit()).is_ok() },
];

/// nginx, PostgreSQL and MariaDB, each from its node to another by a loss of power, and back by a move. How long it took is printed, and no figure is
/// asserted. `HA_ROUNDS=N` is the number of rounds (1), of which medians are printed.
#[test]
fn how_long_clients_of_real_applications_wait() -> Result<()> {
    let prepared = prepared()?;
    let names = APPLICATIONS.map(|application| application.name);
    let nodes = ["alpha", "beta", "gamma"];
    let cluster = Cluster::with_leases(Lab::with_nodes(&nodes), 2, &prepared.of(&names), Lease::Lasting)?;
    cluster.start()?;
    for Application { name, own, .. } in APPLICATIONS {
        cluster.until_placed(name, own);
    }
    let rounds = std::env::var("HA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1_u32);
    for Application { name, own, other, ask } in APPLICATIONS {
        let client = Asking::start(cluster.lab(), ask);
        let interruption = |(from, to): (Option<&str>, &str), bring_about: &dyn Fn() -> Result<()>| {
            client.until_answered();
            let since = client.answers();
            bring_about()?;
            cluster.until_placed(name, to);
            client.until_answered();
            Interruption::latest(&cluster, name, (&client, since), (from, to))
        };
        let (mut lost, mut moved) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            lost.push(interruption((None, other), &|| cluster.node(own).power_off())?);
            cluster.node(own).power_on()?;
            for node in nodes {
                nodes
                    .iter()
                    .filter(|other| **other != node)
                    .for_each(|other| cluster.until_heard(node, other, "alive"));
            }
            moved.push(interruption((Some(other), own), &|| {
                eventually("it is moved", || cluster.ask(other, &["move", name, own]));
                Ok(())
            })?);
            cluster.ask(own, &["unpin", name])?;
        }
        eprintln!("{name}, {own} lost, medians of {rounds}: {}", Interruption::medians(&lost));
        eprintln!("{name}, moved, medians of {rounds}: {}", Interruption::medians(&moved));
    }
    Ok(())
}
