//! Examples of `hierarchies/` that want disks with reservations, run on real kernels: as they stand, but for addresses and the names of disks.

use std::fs;
use std::path::Path;

use ha_tests::kernel::history::Gap;
use ha_tests::kernel::volume::{partition, prepare_lvm};
use ha_tests::kernel::{ClaimKind, DatabaseClient, Guest, KernelCluster, KernelLab, Paths, database, disk_link};
use ha_tests::{Result, Trouble, eventually, example, program};

/// Where its clients find the database of archive.ron here.
const ARCHIVE: &str = "10.77.0.17";

/// Makes a database, and says where a node finds it, to be copied.
fn contents(node: &Guest) -> Result<&'static str> {
    let folder = node.dir().join("contents");
    fs::create_dir(&folder)?;
    database::create(&folder)?;
    Ok("/run/lab/contents")
}

/// Makes what archive.ron wants to be made once, and a database in it, and lets go of it.
fn make_archive(node: &Guest) -> Result<()> {
    let disk = disk_link(0);
    let contents = contents(node)?;
    node.shell(&format!(
        "vgcreate -q --yes --setautoactivation n archive {disk} && lvcreate -q --yes -Zn -Wn -l 100%FREE -n data archive"
    ))?;
    node.shell("mkfs.xfs -q /dev/archive/data && mount /dev/archive/data /srv/archive")?;
    node.shell(&format!("cp -a {contents}/. /srv/archive/ && umount /srv/archive && vgchange -q -an archive")).map(drop)
}

/// As docs/reservations.md has it: a node holds the disk, the other one cuts it off, and both ways round.
fn arm(cluster: &KernelCluster, name: &str, nodes: [&str; 2]) -> Result<()> {
    let ha = program("ha")?.to_string_lossy().into_owned();
    for [node, other] in [nodes, [nodes[1], nodes[0]]] {
        let holds = cluster.lab().node(other).start(&ha, &["--config", "/run/lab/etc", "arm", name, "--hold"])?;
        eprintln!(
            "{node}# ha arm {name} --against {other}\n{}",
            cluster.ask(node, &["arm", name, "--against", other])?
        );
        holds.wait()?.good()?;
    }
    Ok(())
}

/// A disk that is reserved, a volume group on it, a volume of that, xfs, an address, PostgreSQL: after a loss of power another node has all of it,
/// no committed row is lost, and it goes back when it is asked to.
#[test]
fn an_archive_of_a_reserved_disk_with_a_volume_group_and_xfs_goes_on_after_a_loss_of_power() -> Result<()> {
    let postgres = database::programs()?;
    let archive = example(
        "archive",
        &[
            ("10.0.0.", "10.77.0."),
            ("/dev/disk/by-id/wwn-0x6001405d4c3b2a19", &disk_link(0)),
            ("/usr/lib/postgresql/15/bin", &postgres),
        ],
    )?;
    let builder = KernelLab::with_nodes(&["gamma", "beta"]).disks(&[384]);
    let cluster = KernelCluster::with_hierarchies(builder, ClaimKind::Reservation, &[("archive", archive)])?;
    let (gamma, beta) = (cluster.lab().node("gamma"), cluster.lab().node("beta"));
    let prepare = |node: &Guest| prepare_lvm(node).and_then(|()| node.shell("mkdir -p /srv/archive").map(drop));
    cluster.lab().nodes().iter().try_for_each(prepare)?;
    make_archive(gamma)?;
    arm(&cluster, "archive", ["gamma", "beta"])?;
    for node in ["gamma", "beta"] {
        let checked = cluster.ask(node, &["check"])?;
        eprintln!("{node}# ha check\n{checked}");
        assert!(!checked.contains("UNPROTECTED"), "{checked}");
    }
    cluster.start()?;
    cluster.until_placed("archive", "gamma");
    let client = DatabaseClient::start(cluster.lab().namespace(), ARCHIVE);
    client.until_served();

    let rows = client.committed();
    gamma.power_off()?;
    cluster.until_placed("archive", "beta");
    client.until_served();
    let tell = |what: &str, rows: usize| -> Result<()> {
        let longest = client.gaps(rows).iter().map(Gap::length).max().unwrap_or_default();
        eprintln!("archive, {what}: longest time without a commit {longest:.1?}");
        eprintln!("{}", cluster.ask("beta", &["history", "archive", "--last", "1"])?.trim_end());
        Ok(())
    };
    tell("its holder loses power", rows)?;
    assert_eq!(beta.shell("vgs --noheadings -o systemid archive")?.trim(), "beta");

    // Its settings are on no disk here.
    gamma.power_on()?;
    cluster.lab().until_up();
    prepare(gamma)?;
    cluster.until_heard("beta", "gamma", "alive");
    let rows = client.committed();
    eventually("it can be moved", || cluster.ask("beta", &["move", "archive", "gamma", "--no-wait"]));
    cluster.until_placed("archive", "gamma");
    client.until_served();
    tell("moved", rows)?;

    let committed = client.committed();
    client.judge()?;
    eprintln!("{committed} rows committed, none lost");
    cluster.ask("gamma", &["stop", "archive"])?;
    if gamma.shell("dmsetup info --noheadings -c -o name archive-data").is_ok() {
        return Err(Trouble::new("it is stopped, and its volume is still active"));
    }
    gamma
        .shell("vgchange -q -ay archive && xfs_repair -n /dev/archive/data && mount /dev/archive/data /srv/archive")?;
    gamma.shell(&format!("runuser -u postgres -- {postgres}/pg_checksums --check -D /srv/archive/main")).map(drop)
}

/// A partition of a reserved disk, and nginx with its pages and settings on it: whoever is left serves it, down to the last.
#[test]
fn a_shop_on_a_partition_of_a_reserved_disk_is_served_down_to_the_last_node() -> Result<()> {
    if !Path::new("/usr/sbin/nginx").exists() {
        return Err(Trouble::new("this test NEEDS nginx: it was NOT RUN; install this package, or use tests/run"));
    }
    // The gateway that it pings is where the laboratory's clients are.
    let shop = example("shop", &[("10.0.0.", "10.77.0."), ("/dev/disk/by-id/wwn-0x6001405f0e1d2c3b", &disk_link(0))])?;
    let nodes = ["alpha", "beta", "gamma"];
    let builder = KernelLab::with_nodes(&nodes).disks(&[64]);
    let cluster = KernelCluster::with_hierarchies(builder, ClaimKind::Reservation, &[("shop", shop)])?;
    let alpha = cluster.lab().node("alpha");
    let disk = disk_link(0);
    partition(alpha, &disk, 126_976)?;
    for node in cluster.lab().nodes() {
        node.shell(&format!(
            "mkdir -p /srv/shop && blockdev --rereadpt {disk} && udevadm settle && test -e {disk}-part1"
        ))?;
    }
    let settings = "pid /run/shop.pid; error_log /run/shop.log; events {} \
                    http { access_log off; server { listen 10.77.0.12:80; root /srv/shop; } }";
    alpha.shell(&format!(
        "mkfs.ext4 -q {disk}-part1 && mount {disk}-part1 /srv/shop && mkdir /srv/shop/etc && echo '{settings}' >/srv/shop/etc/nginx.conf \
         && echo 'from the reserved disk' >/srv/shop/index.html && umount /srv/shop"
    ))?;
    cluster.start()?;
    let served = |by: &str| -> Result<()> {
        cluster.until_placed("shop", by);
        let ask = "exec 3<>/dev/tcp/10.77.0.12/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3";
        let page = eventually("the shop is served", || {
            let asked = cluster.lab().outside("timeout", &["2", "bash", "-c", ask]).map_err(|said| said.to_string())?;
            let page = String::from_utf8_lossy(&asked.stdout).into_owned();
            if asked.status.success() && !page.is_empty() { Ok(page) } else { Err(page) }
        });
        assert!(page.contains("200 OK") && page.contains("from the reserved disk"), "{page}");
        eprintln!("{}", cluster.ask(by, &["history", "shop", "--last", "1"])?.trim_end());
        cluster.lab().node(by).shell("grep /srv/shop /proc/mounts").map(drop)
    };
    served("alpha")?;
    for (lost, left) in [("alpha", "beta"), ("beta", "gamma")] {
        cluster.lab().node(lost).power_off()?;
        served(left)?;
    }
    cluster.ask("gamma", &["stop", "shop"])?;
    cluster.lab().node("gamma").shell(&format!("e2fsck -fn {disk}-part1")).map(drop)
}

/// Data and write-ahead log of PostgreSQL on a disk each, both behind multipath and both reserved: another node has both of them.
#[test]
fn accounts_on_two_reserved_disks_behind_multipath_go_on_after_a_loss_of_power() -> Result<()> {
    let postgres = database::programs()?;
    let [data, log] = [0, 1].map(|unit| disk_link(unit).replace("/wwn-0x", "/dm-uuid-mpath-3"));
    let accounts = example(
        "accounts",
        &[
            ("10.0.0.", "10.77.0."),
            ("/dev/disk/by-id/dm-uuid-mpath-36001405aaaaaaaaaaaaaaaaaaaaaaaa1", &data),
            ("/dev/disk/by-id/dm-uuid-mpath-36001405aaaaaaaaaaaaaaaaaaaaaaaa2", &log),
            ("/usr/lib/postgresql/15/bin", &postgres),
        ],
    )?;
    let builder = KernelLab::with_nodes(&["beta", "alpha"]).disks(&[320, 320]).paths(Paths::Two);
    let cluster = KernelCluster::with_hierarchies(builder, ClaimKind::Reservation, &[("accounts", accounts)])?;
    let beta = cluster.lab().node("beta");
    for node in cluster.lab().nodes() {
        node.shell("mkdir -p /srv/accounts/data /srv/accounts/wal")?;
    }
    let contents = contents(beta)?;
    beta.shell(&format!("mkfs.xfs -q {data} && mkfs.xfs -q {log}"))?;
    beta.shell(&format!("mount {data} /srv/accounts/data && mount {log} /srv/accounts/wal"))?;
    beta.shell(&format!(
        "cd /srv/accounts && cp -a {contents}/. data/ && mv data/main/pg_wal wal/ && ln -s /srv/accounts/wal/pg_wal data/main/pg_wal"
    ))?;
    beta.shell("umount /srv/accounts/data /srv/accounts/wal")?;
    cluster.start()?;
    cluster.until_placed("accounts", "beta");
    let client = DatabaseClient::start(cluster.lab().namespace(), "10.77.0.13");
    client.until_served();

    let rows = client.committed();
    beta.power_off()?;
    cluster.until_placed("accounts", "alpha");
    client.until_served();
    let longest = client.gaps(rows).iter().map(Gap::length).max().unwrap_or_default();
    eprintln!("accounts, its holder loses power: longest time without a commit {longest:.1?}");
    eprintln!("{}", cluster.ask("alpha", &["history", "accounts", "--last", "1"])?.trim_end());
    let committed = client.committed();
    client.judge()?;
    eprintln!("{committed} rows committed, none lost");
    cluster.ask("alpha", &["stop", "accounts"])?;
    let alpha = cluster.lab().node("alpha");
    alpha.shell(&format!("xfs_repair -n {data} && xfs_repair -n {log} && mount {data} /srv/accounts/data"))?;
    alpha.shell(&format!("runuser -u postgres -- {postgres}/pg_checksums --check -D /srv/accounts/data/main")).map(drop)
}
