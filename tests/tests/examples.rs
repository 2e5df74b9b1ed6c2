//! The examples of `hierarchies/`, run: as they stand, but for the addresses, devices and places that a laboratory does not have. nginx, PostgreSQL and
//! MariaDB are the real ones; programs that are the reader's own are scripts.

#![expect(clippy::unwrap_used, reason = "what fails here is the laboratory, not what is tested")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ha_tests::cluster::Lease;
use ha_tests::kernel::database;
use ha_tests::{Cluster, Lab, Result, Trouble, Volume, eventually, mariadb};

/// A program of the reader's own.
fn script(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_string_lossy().into_owned()
}

/// A laboratory of namespaces has no SCSI disks. These are read and simulated in the tests of `ha-agent`; what they do is run by the kernel tests.
const ON_RESERVATIONS: [&str; 3] = ["accounts", "archive", "shop"];

#[test]
fn no_example_is_forgotten() {
    const RUN: [&str; 8] = ["catalogue", "database", "gateway", "orders", "queue", "search", "small", "web"];
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
        "NOT RUN HERE, since namespaces have no SCSI disks (kernel_examples runs archive, kernel_failover and kernel_database run the like of the others): {ON_RESERVATIONS:?}"
    );
}

/// An error that says so, loudly, if something that is to be tried is not here.
fn need(programs: &[(&str, &str)]) -> Result<()> {
    for (path, package) in programs {
        if !Path::new(path).exists() {
            return Err(Trouble::new(format!(
                "this test NEEDS {package} ({path}): it was NOT RUN; install this package, or use tests/run"
            )));
        }
    }
    Ok(())
}

/// What nginx needs to serve one page.
fn nginx(name: &str, address: &str, root: &Path) -> String {
    format!(
        "pid /run/{name}.pid;\nerror_log /run/{name}.log;\nevents {{}}\n\
         http {{ access_log off; server {{ listen {address}:80; root {}; }} }}\n",
        root.display()
    )
}

/// The cluster, and where its clients are: on gamma, which is there from beginning to end.
struct Clients<'a>(&'a Cluster);

impl Clients<'_> {
    fn ask(&self, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
        let output = self.0.node("gamma").run(program, arguments).map_err(|trouble| trouble.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// The page of a web server.
    fn page(&self, address: &str) -> std::result::Result<String, String> {
        let ask = format!("exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
        let text = self.ask("timeout", &["1", "bash", "-c", &ask])?;
        if text.contains("200 OK") { Ok(text) } else { Err(text) }
    }

    /// Adds a row to PostgreSQL; answers with its number.
    fn row(&self) -> std::result::Result<String, String> {
        let row = "INSERT INTO rows SELECT count(*) FROM rows RETURNING number";
        self.ask("timeout", &["2", "psql", "-h", "10.77.0.11", "-U", "postgres", "-qAt", "-c", row])
    }

    /// Adds a row to MariaDB; answers with how many there are.
    fn order(&self) -> std::result::Result<String, String> {
        let row = "INSERT INTO orders SELECT COUNT(*) FROM orders; SELECT COUNT(*) FROM orders";
        self.ask("timeout", &["2", "mariadb", "--no-defaults", "-h", "10.77.0.14", "-u", "client", "shop", "-Ne", row])
    }
}

/// Waits for an answer, and tells how long it took.
fn out<T>(what: &str, ask: impl Fn() -> std::result::Result<T, String>) -> T {
    let from = Instant::now();
    let answer = eventually(what, ask);
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

#[test]
fn every_example_is_served_and_taken_over() -> Result<()> {
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
    let forever = |name| script(dir, name, "exec /bin/sleep 1000000");
    let broker = script(
        dir,
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
                    ("/usr/local/bin/reports", &forever("reports")),
                    (r#"Tcp("10.0.0.25:25")"#, r#"Ping("10.77.0.200")"#),
                    ("/usr/local/bin/mail-quota-left", &script(dir, "mail-quota-left", "echo 80")),
                    ("/usr/local/bin/mailer", &forever("mailer")),
                ],
            ),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into();
    examples.extend(["catalogue", "search"].map(own));
    let examples: Vec<(&str, String)> = examples.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    // Three databases and a busy machine write to one disk: leases of a second would be lost to it.
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha", "beta", "gamma"]), 2, &examples, Lease::Lasting)?;
    cluster.start()?;
    let preferred = [
        ("web", "alpha"),
        ("gateway", "alpha"),
        ("catalogue", "alpha"),
        ("database", "beta"),
        ("search", "beta"),
        ("orders", "gamma"),
        ("queue", "gamma"),
        ("reports", "gamma"),
        ("mailer", "gamma"),
    ];
    for (hierarchy, node) in preferred {
        cluster.until_placed(hierarchy, node);
    }
    let clients = Clients(&cluster);
    let page = |address: &str, has: &str| {
        let text = out(&format!("nginx at {address} answers"), || clients.page(address));
        assert!(text.contains(has), "{text}");
    };
    page("10.77.0.10", "from the shared disk");
    page("10.77.0.15", "this is catalogue");
    page("10.77.0.16", "this is search");
    assert_eq!(eventually("PostgreSQL answers", || clients.row()), "0");
    assert_eq!(eventually("MariaDB answers", || clients.order()), "1");

    // Each of a pair is taken over by the other; and a database is where it was.
    cluster.node("beta").power_off()?;
    assert_eq!(out("beta lost, PostgreSQL answers", || clients.row()), "1");
    page("10.77.0.16", "this is search");
    cluster.until_placed("database", "alpha");
    cluster.ha(cluster.node("gamma"), &["move", "orders", "alpha"])?;
    assert_eq!(out("moved, MariaDB answers", || clients.order()), "2");
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
    assert_eq!(out("alpha lost, PostgreSQL answers", || clients.row()), "2");
    assert_eq!(out("alpha lost, MariaDB answers", || clients.order()), "3");

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
