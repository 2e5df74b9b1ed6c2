//! Real OCF agents (Debian's `resource-agents`) and a real init script, on real agents: started, watched, adopted and taken over.

#![expect(clippy::unwrap_used, reason = "what fails here is the laboratory, not what is tested")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ha_core::Resource as _;
use ha_resources::resource::Directories;
use ha_resources::resource::ocf::{AgentName, Ocf, OcfSpec, ROOT};
use ha_tests::cluster::{Lease, write};
use ha_tests::kernel::database;
use ha_tests::{Cluster, Lab, Result, Trouble, Volume, eventually, mariadb, need};

const RESOURCE_AGENTS: (&str, &str) = ("/usr/lib/ocf/resource.d/heartbeat/IPaddr2", "resource-agents");

/// What all agents of the package say of themselves is understood.
#[test]
fn the_meta_data_of_every_installed_agent_are_read() -> Result<()> {
    need(&[RESOURCE_AGENTS])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directories = Directories { run: PathBuf::from("/nowhere"), logs: PathBuf::from("/nowhere"), cgroups: None };
    let mut read = 0;
    for entry in fs::read_dir(Path::new(ROOT).join("resource.d/heartbeat"))? {
        let entry = entry?;
        let agent = entry.file_name().to_string_lossy().into_owned();
        // Names with a dot before them are those of what agents share.
        if agent.starts_with('.') || fs::metadata(entry.path())?.permissions().mode() & 0o111 == 0 {
            continue;
        }
        let ocf = Ocf::new(
            OcfSpec::new(AgentName { provider: "heartbeat".to_owned(), agent: agent.clone() }),
            directories.clone(),
        );
        // Without its required parameters, and so not ready, but understood.
        let said = runtime.block_on(ocf.ready()).err().map(|failed| failed.0).unwrap_or_default();
        assert!(said.is_empty() || said.contains("is required"), "{agent}: {said}");
        read += 1;
    }
    eprintln!("{read} agents were read");
    assert!(read > 50, "{read}");
    Ok(())
}

/// What an administrator writes wrongly for real agents is told beforehand, with what was meant.
fn mistakes_are_told(cluster: &Cluster) -> Result<()> {
    let wrong = r#"Hierarchy(name: "wrong", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [
        Ocf(name: "vip", agent: "IPaddr2", params: {"ipp": "10.77.0.119", "arp_count": "often"}),
        Ocf(name: "server", agent: "nginx", params: {"httpd": "/usr/sbin/nginx", "port": "http"}),
    ])"#;
    let alpha = cluster.node("alpha");
    write(alpha, "hierarchies/wrong.ron", wrong)?;
    let said = cluster.said("alpha", &["check", "--node", "alpha"])?;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "it has no parameter `ipp`; did you mean `ip`?",
        "`ip` is required",
        "`arp_count` is \"often\": expected a whole number",
        "`port` is \"http\": expected a whole number",
    ] {
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
    fs::remove_file(alpha.dir().join("etc/hierarchies/wrong.ron"))?;
    let said = cluster.said("alpha", &["check", "--node", "alpha"])?;
    assert!(!said.contains("expected a whole number") && !said.contains("it has no parameter"), "{said}");
    Ok(())
}

/// What a web server on a node answers.
fn page(cluster: &Cluster, node: &str, address: &str, port: u16) -> std::result::Result<String, String> {
    let ask = format!("exec 3<>/dev/tcp/{address}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
    let output = cluster.node(node).run("bash", &["-c", &ask]).map_err(|trouble| trouble.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    if text.contains("200 OK") { Ok(text) } else { Err(format!("{text} {said}")) }
}

/// How many rows a database on a node has.
fn rows(cluster: &Cluster, node: &str) -> std::result::Result<String, String> {
    let query = [
        "-h",
        "10.77.0.111",
        "-U",
        "postgres",
        "-qAt",
        "-c",
        "INSERT INTO rows SELECT count(*) FROM rows RETURNING number",
    ];
    let output = cluster.node(node).run("psql", &query).map_err(|trouble| trouble.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(said.into_owned())
    }
}

/// The pid of the web server of a node, which its agent did not start anew if it stays the same.
fn web_server(cluster: &Cluster, node: &str) -> String {
    let output = cluster.node(node).run("cat", &["/run/web.pid"]).unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn real_agents_and_a_real_init_script_serve_are_adopted_and_taken_over() -> Result<()> {
    need(&[RESOURCE_AGENTS, ("/usr/sbin/nginx", "nginx"), ("/etc/init.d/nginx", "nginx")])?;
    let postgres = database::programs()?;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let (web, data) = (Volume::new(dir, "web.img", 256 << 20)?, Volume::new(dir, "data.img", 256 << 20)?);
    let (web_at, data_at) = (dir.join("web"), dir.join("data"));
    fs::create_dir(&web_at).unwrap();
    fs::create_dir(&data_at).unwrap();
    web.mounted(&web_at, || Ok(fs::write(web_at.join("index.html"), "from the volume\n")?))?;
    data.mounted(&data_at, || database::create(&data_at).map(drop))?;
    let (web_at, data_at) = (web_at.to_string_lossy(), data_at.to_string_lossy());
    let configuration = dir.join("nginx.conf");
    let text = format!(
        "pid /run/web.pid;\nerror_log /run/web.log;\nevents {{}}\n\
         http {{ access_log off; server {{ listen 10.77.0.110:8080; root {web_at}; }} }}\n"
    );
    fs::write(&configuration, text).unwrap();
    let configuration = configuration.to_string_lossy();
    let hierarchies = [
        (
            "web",
            format!(
                r#"Hierarchy(name: "web", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [
                    Ocf(name: "files", agent: "Filesystem", params: {{"device": "{}", "directory": "{web_at}", "fstype": "ext4"}}),
                    Ocf(name: "vip", agent: "ocf:heartbeat:IPaddr2", params: {{"ip": "10.77.0.110", "cidr_netmask": 24, "nic": "eth0"}},
                        monitoring: (every: "1s")),
                    Ocf(name: "server", agent: "nginx", params: {{"httpd": "/usr/sbin/nginx", "configfile": "{configuration}"}},
                        monitoring: (every: "1s")),
                    Ocf(name: "last", agent: "Dummy"),
                ])"#,
                web.device()
            ),
        ),
        (
            "database",
            format!(
                r#"Hierarchy(name: "database", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [
                    Ocf(name: "files", agent: "Filesystem", params: {{"device": "{}", "directory": "{data_at}", "fstype": "ext4"}}),
                    Ocf(name: "vip", agent: "IPaddr2", params: {{"ip": "10.77.0.111", "cidr_netmask": 24, "nic": "eth0"}}),
                    Ocf(name: "postgres", agent: "pgsql", params: {{"pgctl": "{postgres}/pg_ctl", "psql": "{postgres}/psql",
                        "pgdata": "{data_at}/main", "socketdir": "/tmp"}}, monitoring: (every: "1h")),
                ])"#,
                data.device()
            ),
        ),
        (
            "old",
            r#"Hierarchy(name: "old", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [
                Lsb(name: "nginx", script: "nginx", monitoring: (every: "1h")),
            ])"#
            .to_owned(),
        ),
    ];
    let cluster = Cluster::new(Lab::with_nodes(&["alpha", "beta"]), 1, &hierarchies)?;
    mistakes_are_told(&cluster)?;
    cluster.start()?;
    let serves = |node: &str| {
        ["web", "database", "old"].iter().for_each(|name| cluster.until_placed(name, node));
        let text = eventually("the web server answers", || page(&cluster, node, "10.77.0.110", 8080));
        assert!(text.contains("from the volume"), "{text}");
        eventually("the old web server answers", || page(&cluster, node, "127.0.0.1", 80));
        eventually("the database answers", || rows(&cluster, node))
    };
    assert_eq!(serves("alpha"), "0");

    // L5: the agent is killed, and what it started runs on.
    let before = web_server(&cluster, "alpha");
    assert!(cluster.node("alpha").kill_agent()?);
    cluster.until_heard("beta", "alpha", "alive");
    assert_eq!(serves("alpha"), "1");
    assert_eq!(web_server(&cluster, "alpha"), before, "the web server was restarted");

    // A program that dies is restarted in place.
    cluster.node("alpha").run("kill", &["-9", &before])?;
    eventually("the web server is a new one", || {
        let now = web_server(&cluster, "alpha");
        if !now.is_empty() && now != before { Ok(()) } else { Err(now) }
    });
    cluster.until_placed("web", "alpha");

    // So is one whose monitor is not due for an hour, when nothing of it runs any more: PostgreSQL ends with its first process.
    let programs = [
        (
            "database",
            format!("kill -9 $(head -n 1 {data_at}/main/postmaster.pid)"),
            "postgres failed (monitor): nothing runs any more of what its start left",
        ),
        ("old", "echo 1 >/sys/fs/cgroup/ha/alpha:old:nginx/cgroup.kill".to_owned(), "nginx failed (monitor)"),
    ];
    for (name, kill, failed) in &programs {
        assert!(cluster.node("alpha").run("sh", &["-c", kill])?.status.success(), "{kill}");
        cluster.until_said("alpha", &["history"], &[&format!("{name}: local recovery on alpha"), failed]);
    }
    assert_eq!(serves("alpha"), "2");

    // Handed over in order, and taken over after a loss of power.
    for name in ["web", "database", "old"] {
        cluster.ha(cluster.node("alpha"), &["move", name, "beta"])?;
    }
    assert_eq!(serves("beta"), "3");
    let addresses = cluster.node("alpha").run("ip", &["-4", "addr", "show", "eth0"])?;
    let addresses = String::from_utf8_lossy(&addresses.stdout).into_owned();
    assert!(!addresses.contains("10.77.0.11"), "{addresses}");
    cluster.node("beta").power_off()?;
    assert_eq!(serves("alpha"), "4");
    Ok(())
}

/// A filesystem that cannot be written any more is mounted all the same: only a deep monitor sees it.
#[test]
fn what_only_a_deep_monitor_sees_is_recovered() -> Result<()> {
    need(&[RESOURCE_AGENTS])?;
    let folder = tempfile::tempdir().unwrap();
    let mut volumes = Vec::new();
    let mut hierarchies = Vec::new();
    for (name, deep) in [("deep", "deep_monitor: (level: 20, every: \"1s\"),"), ("plain", "")] {
        let volume = Volume::new(folder.path(), &format!("{name}.img"), 64 << 20)?;
        let at = folder.path().join(name);
        fs::create_dir(&at).unwrap();
        let text = format!(
            r#"Hierarchy(name: "{name}", nodes: ["alpha"], claim: LockArea("main"), resources: [
                Ocf(name: "files", agent: "Filesystem", params: {{"device": "{}", "directory": "{}", "fstype": "ext4"}},
                    {deep} monitoring: (every: "1s")),
            ])"#,
            volume.device(),
            at.display()
        );
        volumes.push((at.to_string_lossy().into_owned(), volume));
        hierarchies.push((name, text));
    }
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha"]), 1, &hierarchies, Lease::Lasting)?;
    cluster.start()?;
    let alpha = cluster.node("alpha");
    for ((name, _), (at, _)) in hierarchies.iter().zip(&volumes) {
        cluster.until_placed(name, "alpha");
        assert!(alpha.run("mount", &["-o", "remount,ro", at])?.status.success());
    }
    let recovered = ["deep: local recovery on alpha", "files failed (monitor)", "Failed to write status file"];
    cluster.until_said("alpha", &["history"], &recovered);
    cluster.until_placed("deep", "alpha");
    let can_write = |at: &str| Ok::<_, Trouble>(alpha.run("touch", &[&format!("{at}/written")])?.status.success());
    assert!(can_write(&volumes[0].0)?);

    // The ordinary monitor finds nothing.
    let (at, volume) = &volumes[1];
    assert!(!can_write(at)?);
    let ordinary = format!(
        "OCF_ROOT={ROOT} OCF_RESKEY_device={} OCF_RESKEY_directory={at} OCF_RESKEY_fstype=ext4 OCF_CHECK_LEVEL=0 \
         {ROOT}/resource.d/heartbeat/Filesystem monitor",
        volume.device()
    );
    assert!(alpha.run("sh", &["-c", &ordinary])?.status.success());
    assert!(!cluster.said("alpha", &["history"])?.contains("plain: local recovery"));
    Ok(())
}

/// What Apache needs to serve one page, and its own status, by which its agent knows it.
fn apache(address: &str, root: &str) -> String {
    let modules: String = ["mpm_event", "authz_core", "status", "dir"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    format!(
        "ServerRoot /etc/apache2\nServerName pages\nPidFile /run/pages.pid\nErrorLog /run/pages.log\nUser www-data\nGroup www-data\n\
         {modules}Listen {address}:8081\nListen 127.0.0.1:8081\nDirectoryIndex index.html\nDocumentRoot {root}\n<Directory {root}>\nRequire all granted\n</Directory>\n\
         <Location /server-status>\nSetHandler server-status\nRequire all granted\n</Location>\n"
    )
}

/// Adds a row to MariaDB; answers with how many there are.
fn orders(cluster: &Cluster, node: &str) -> std::result::Result<String, String> {
    let row = "INSERT INTO orders SELECT COUNT(*) FROM orders; SELECT COUNT(*) FROM orders";
    let ask = ["2", "mariadb", "--no-defaults", "-h", "10.77.0.113", "-u", "client", "shop", "-Ne", row];
    let output = cluster.node(node).run("timeout", &ask).map_err(|trouble| trouble.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn apache_and_mariadb_by_their_agents_are_moved_and_taken_over() -> Result<()> {
    need(&[
        RESOURCE_AGENTS,
        ("/usr/sbin/apache2", "apache2"),
        ("/usr/bin/curl", "curl"),
        ("/usr/sbin/mariadbd", "mariadb-server"),
    ])?;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("index.html"), "by its agent\n")?;
    fs::write(dir.join("pages.conf"), apache("10.77.0.112", &dir.to_string_lossy()))?;
    let data = Volume::new(dir, "orders.img", 320 << 20)?;
    let at = dir.join("orders");
    fs::create_dir(&at).unwrap();
    data.mounted(&at, || mariadb::create(&at))?;
    let (dir, at) = (dir.to_string_lossy(), at.to_string_lossy());
    let hierarchies = [
        (
            "pages",
            format!(
                r#"Hierarchy(name: "pages", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [
                    Ocf(name: "vip", agent: "IPaddr2", params: {{"ip": "10.77.0.112", "cidr_netmask": 24, "nic": "eth0"}}),
                    Ocf(name: "apache", agent: "apache", params: {{"configfile": "{dir}/pages.conf", "httpd": "/usr/sbin/apache2",
                        "statusurl": "http://127.0.0.1:8081/server-status", "client": "curl"}}),
                ])"#
            ),
        ),
        (
            "orders",
            format!(
                r#"Hierarchy(name: "orders", nodes: ["alpha", "beta"], claim: LockArea("main"), resources: [
                    Ocf(name: "files", agent: "Filesystem", params: {{"device": "{}", "directory": "{at}", "fstype": "ext4"}}),
                    Ocf(name: "vip", agent: "IPaddr2", params: {{"ip": "10.77.0.113", "cidr_netmask": 24, "nic": "eth0"}}),
                    Ocf(name: "mariadb", agent: "mysql", params: {{"binary": "/usr/sbin/mariadbd", "config": "{at}/my.cnf",
                        "datadir": "{at}/data", "socket": "{at}/data/mariadb.sock", "pid": "/run/orders/mariadb.pid",
                        "log": "{at}/mariadb.log", "additional_parameters": "--bind-address=10.77.0.113"}}),
                ])"#,
                data.device()
            ),
        ),
    ];
    let cluster = Cluster::with_leases(Lab::with_nodes(&["alpha", "beta"]), 1, &hierarchies, Lease::Lasting)?;
    cluster.start()?;
    let serves = |node: &str| {
        ["pages", "orders"].iter().for_each(|name| cluster.until_placed(name, node));
        let text = eventually("Apache answers", || page(&cluster, "beta", "10.77.0.112", 8081));
        assert!(text.contains("by its agent"), "{text}");
        eventually("MariaDB answers", || orders(&cluster, "beta"))
    };
    assert_eq!(serves("alpha"), "1");
    for name in ["pages", "orders"] {
        cluster.ha(cluster.node("alpha"), &["move", name, "beta"])?;
    }
    assert_eq!(serves("beta"), "2");
    for name in ["pages", "orders"] {
        cluster.ha(cluster.node("alpha"), &["move", name, "alpha"])?;
    }
    assert_eq!(serves("alpha"), "3");
    cluster.node("alpha").power_off()?;
    assert_eq!(serves("beta"), "4");
    Ok(())
}
