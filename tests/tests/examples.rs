//! The examples of `hierarchies/`, run: as they stand, but for the addresses, devices and programs that a laboratory does not have.

#![expect(clippy::unwrap_used, reason = "what fails here is the laboratory, not what is tested")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ha_tests::{Cluster, Lab, Result, Volume};

/// A program of the examples that stands in for a real one.
fn script(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_string_lossy().into_owned()
}

/// An example with other places; each of those named must be in it, so that the examples and this test do not part.
fn example(name: &str, places: &[(&str, &str)]) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hierarchies").join(format!("{name}.ron"));
    let mut text = fs::read_to_string(file).unwrap();
    for (from, to) in places {
        assert!(text.contains(from), "{name}.ron has no {from}");
        text = text.replace(from, to);
    }
    text
}

/// A laboratory of namespaces has no SCSI disks. These are read and simulated in the tests of `ha-agent`; what they do is run by the kernel tests.
const ON_RESERVATIONS: [&str; 2] = ["accounts", "shop"];

#[test]
fn no_example_is_forgotten() {
    const RUN: [&str; 5] = ["database", "gateway", "queue", "small", "web"];
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
        "NOT RUN HERE, since namespaces have no SCSI disks (kernel_failover and kernel_database run the like): {ON_RESERVATIONS:?}"
    );
}

#[test]
fn every_example_is_served_and_taken_over() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let (web, database) = (Volume::new(dir, "web.img", 64 << 20)?, Volume::new(dir, "database.img", 64 << 20)?);
    let (web_at, database_at) = (dir.join("srv-web"), dir.join("srv-database"));
    fs::create_dir(&web_at).unwrap();
    fs::create_dir(&database_at).unwrap();
    let (web_at, database_at) = (web_at.to_string_lossy(), database_at.to_string_lossy());
    let server = |name: &str, at: &str| {
        let perl = "my $s = IO::Socket::INET->new(LocalAddr => $ARGV[0], Listen => 9, ReuseAddr => 1) or die $!; while ($s->accept) {}";
        script(dir, name, &format!("exec /usr/bin/perl -MIO::Socket::INET -e '{perl}' {at}"))
    };
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
    let examples = [
        (
            "web",
            example(
                "web",
                &[
                    ("10.0.0.254", "10.77.0.200"),
                    ("10.0.0.", "10.77.0."),
                    ("/dev/disk/by-id/wwn-0x6001405a1b2c3d4e-part1", web.device()),
                    (
                        r#"["/usr/sbin/nginx", "-g", "daemon off;", "-c", "/srv/web/etc/nginx.conf"]"#,
                        &format!(r#"["{}"]"#, server("nginx", "10.77.0.10:80")),
                    ),
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
                    ("xfs", "ext4"),
                    (
                        r#"["/usr/lib/postgresql/15/bin/postgres", "-D", "/srv/database/main"]"#,
                        &format!(r#"["{}"]"#, server("postgres", "10.77.0.11:5432")),
                    ),
                    (r#"["/usr/bin/pg_isready", "-h", "10.77.0.11"]"#, r#"["/bin/true"]"#),
                    (r#"user: "postgres","#, ""),
                    ("/srv/database", &database_at),
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
    ];
    let cluster = Cluster::new(Lab::with_nodes(&["alpha", "beta", "gamma"]), 2, &examples)?;
    cluster.start()?;
    let preferred = [
        ("web", "alpha"),
        ("gateway", "alpha"),
        ("database", "beta"),
        ("queue", "gamma"),
        ("reports", "gamma"),
        ("mailer", "gamma"),
    ];
    for (hierarchy, node) in preferred {
        cluster.until_placed(hierarchy, node);
    }
    // The last node serves all that names it.
    cluster.node("gamma").power_off()?;
    cluster.node("beta").power_off()?;
    for (hierarchy, _) in preferred {
        cluster.until_placed(hierarchy, "alpha");
    }
    Ok(())
}
