//! The laboratory itself: that its faults are what they say. No agent is needed.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ha_tests::storage::Health;
use ha_tests::wire::Conditions;
use ha_tests::{Lab, Node, Result, Spare, Trouble, eventually, program};

/// One echo from one node to an address, within a second.
fn hears(from: &Node, address: &str) -> Result<bool> {
    let script = format!("exec 3<>/dev/udp/{address}/7000; echo hello >&3; timeout 1 head -c 1 <&3 | grep -q h");
    Ok(from.run("bash", &["-c", &script])?.status.success())
}

fn or_silence(heard: bool) -> Result<()> {
    heard.then_some(()).ok_or_else(|| Trouble::new("silence"))
}

/// Runs the laboratory's service on a node.
fn serve(node: &Node, hierarchy: &str, epoch: u64) -> Result<Child> {
    let service = program("lab-service")?;
    let epoch = epoch.to_string();
    let arguments = ["--hierarchy", hierarchy, "--node", node.name(), "--epoch", &epoch, "--listen", "0.0.0.0:7000"];
    let mut command = node.command(&service.to_string_lossy(), &arguments)?;
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// One direct read or write of a node's disk; the message of `dd` if it failed.
fn direct(node: &Node, arguments: &str) -> Result<std::result::Result<String, String>> {
    let script = format!("dd {arguments} bs=4096 count=1 status=none");
    let output = node.run("bash", &["-c", &script])?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

fn write(node: &Node, text: &str) -> Result<std::result::Result<String, String>> {
    fs_write(node, text)?;
    direct(node, "if=/run/lab/block of=/run/lab/disk oflag=direct")
}

/// Puts a block with a text into the node's folder.
fn fs_write(node: &Node, text: &str) -> Result<()> {
    let mut block = vec![b' '; 4096];
    block[..text.len()].copy_from_slice(text.as_bytes());
    Ok(std::fs::write(node.dir().join("block"), block)?)
}

fn read(node: &Node) -> Result<std::result::Result<String, String>> {
    Ok(direct(node, "if=/run/lab/disk iflag=direct")?.map(|text| text.trim().to_owned()))
}

#[test]
fn every_node_is_a_machine_of_its_own() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha", "beta"]).networks(2).build()?;
    let say = |node: &str, script: &str| -> Result<String> {
        let output = lab.node(node).run("bash", &["-c", script])?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert_eq!(say("alpha", "uname -n")?, "alpha");
    assert_eq!(say("beta", "cat /proc/sys/kernel/hostname; ls /sys/class/net | xargs")?, "beta\neth0 eth1 lo");
    assert_eq!(say("alpha", "cat /proc/1/comm; ls /run | xargs")?, "lab-init\nha lab");
    assert_ne!(
        say("alpha", "cat /proc/sys/kernel/random/boot_id")?,
        say("beta", "cat /proc/sys/kernel/random/boot_id")?
    );
    Ok(())
}

#[test]
fn power_loss_ends_everything_and_a_new_boot_is_a_new_one() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha", "beta"]).build()?;
    let alpha = lab.node("alpha");
    let mut service = serve(alpha, "web", 1)?;
    eventually("the service answers", || hears(lab.node("beta"), "10.77.0.1").and_then(or_silence));
    let boot_id = || alpha.run("cat", &["/proc/sys/kernel/random/boot_id"]).map(|output| output.stdout);
    let first = boot_id()?;
    alpha.run("ip", &["addr", "add", "10.77.0.100/24", "dev", "eth0"])?;
    alpha.run("touch", &["/run/gone", "/run/lab/state/kept"])?;

    alpha.power_off()?;

    let written = lab.witness().lines()?.len();
    service.wait()?;
    assert!(!alpha.is_on());
    assert!(!hears(lab.node("beta"), "10.77.0.1")?);
    assert_eq!(lab.witness().lines()?.len(), written, "something of the node still runs");
    alpha.power_on()?;
    assert_ne!(boot_id()?, first);
    assert!(!alpha.run("ls", &["/run/gone"])?.status.success(), "/run outlived the power loss");
    assert!(alpha.run("ls", &["/run/lab/state/kept"])?.status.success(), "the state was lost");
    let addresses = alpha.run("ip", &["addr"])?;
    assert!(!String::from_utf8_lossy(&addresses.stdout).contains("10.77.0.100"), "an address outlived the power loss");
    Ok(())
}

#[test]
fn a_node_that_asks_for_a_reset_is_reset_and_the_host_is_not() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha"]).build()?;
    lab.node("alpha").run("bash", &["-c", "echo b > /run/lab/sysrq-trigger"])?;
    eventually("the node is off", || if lab.node("alpha").is_on() { Err("on") } else { Ok(()) });
    lab.node("alpha").power_off()?;
    lab.node("alpha").power_on()?;
    assert!(lab.node("alpha").is_on());
    Ok(())
}

#[test]
fn links_are_cut_both_ways_or_one_way_and_heal() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha", "beta", "gamma"]).networks(2).build()?;
    let mut services = Vec::new();
    for node in lab.nodes() {
        services.push(serve(node, node.name(), 1)?);
    }
    let heard = |from: &str, address: &str| hears(lab.node(from), address);
    for address in ["10.77.0.2", "10.78.0.2", "10.77.0.3"] {
        eventually("all is well", || heard("alpha", address).and_then(or_silence));
    }

    lab.link("beta", 0, Conditions::CUT);
    assert!(!heard("alpha", "10.77.0.2")?, "the cut network still carries");
    assert!(heard("alpha", "10.78.0.2")?, "the other network was cut as well");
    assert!(heard("alpha", "10.77.0.3")?, "another node was cut as well");

    lab.link("beta", 0, Conditions::GOOD);
    eventually("the link is healed", || heard("alpha", "10.77.0.2").and_then(or_silence));

    // A question needs both ways; what arrives at one end shows in the recording.
    lab.outgoing("beta", 0, Conditions::CUT);
    lab.network(0).record();
    assert!(!heard("alpha", "10.77.0.2")?);
    let answers = lab.network(0).recorded().into_iter().filter(|frame| frame[6..12] == [2, 0x77, 0, 0, 0, 2]).count();
    assert!(answers > 0, "the muted node heard nothing");

    for service in &mut services {
        service.kill()?;
        service.wait()?;
    }
    Ok(())
}

#[test]
fn a_bad_network_loses_delays_and_repeats_and_a_client_sees_it() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha"]).build()?;
    let mut service = serve(lab.node("alpha"), "web", 7)?;
    let client = lab.client("10.77.0.1:7000")?;
    eventually("the client is served", || client.served_by().ok_or("no answer"));
    assert_eq!(client.servers(), [("alpha".to_owned(), 7)]);

    let bad = Conditions {
        loss_percent: 30,
        duplicate_percent: 30,
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(5),
    };
    lab.all_links(bad);
    client.forget();
    eventually("the client is served all the same", || client.served_by().ok_or("no answer"));

    lab.all_links(Conditions::CUT);
    client.forget();
    eventually("the client has an outage", || client.served_by().is_none().then_some(()).ok_or("answers"));
    lab.all_links(Conditions::GOOD);
    eventually("the client is served again", || client.served_by().ok_or("no answer"));
    service.kill()?;
    service.wait()?;
    Ok(())
}

#[test]
fn the_disk_is_one_disk_and_each_path_fails_alone() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha", "beta"]).build()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    for text in ["one", "two", "three"] {
        assert_eq!(write(alpha, text)?, Ok(String::new()));
        assert_eq!(read(beta)?.as_deref(), Ok(text), "the paths are not coherent");
    }

    alpha.disk().set(Health::Errors);
    let failed = write(alpha, "lost")?.unwrap_err();
    assert!(failed.contains("Input/output error"), "{failed}");
    assert!(read(alpha)?.is_err());
    assert_eq!(read(beta)?.as_deref(), Ok("three"));

    alpha.disk().set(Health::Good);
    assert_eq!(read(alpha)?.as_deref(), Ok("three"));
    alpha.disk().set(Health::Slow(Duration::from_millis(100)));
    let before = Instant::now();
    assert_eq!(read(alpha)?.as_deref(), Ok("three"));
    assert!(before.elapsed() >= Duration::from_millis(100), "the slow path was quick");
    Ok(())
}

#[test]
fn a_path_that_hangs_keeps_its_caller_until_it_heals() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha", "beta"]).build()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    write(beta, "before")?.map_err(Trouble::new)?;
    fs_write(alpha, "late")?;
    alpha.disk().set(Health::Hangs);
    let mut writer =
        alpha.command("dd", &["if=/run/lab/block", "of=/run/lab/disk", "bs=4096", "count=1", "oflag=direct"])?;
    let mut writer = writer.stderr(Stdio::null()).spawn()?;
    eventually("the write waits", || if alpha.disk().waiting() > 0 { Ok(()) } else { Err("not asked yet") });
    assert_eq!(
        read(beta)?.as_deref(),
        Ok("before"),
        "a hanging path let a write through, or the other path hangs as well"
    );
    assert!(writer.try_wait()?.is_none(), "the writer got an answer");

    alpha.disk().set(Health::Good);
    assert!(writer.wait()?.success());
    assert_eq!(read(beta)?.as_deref(), Ok("late"));
    Ok(())
}

#[test]
fn a_write_that_hangs_when_the_power_goes_is_never_done() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha", "beta"]).build()?;
    let (alpha, beta) = (lab.node("alpha"), lab.node("beta"));
    write(beta, "before")?.map_err(Trouble::new)?;
    fs_write(alpha, "late")?;
    alpha.disk().set(Health::Hangs);
    let mut writer =
        alpha.command("dd", &["if=/run/lab/block", "of=/run/lab/disk", "bs=4096", "count=1", "oflag=direct"])?;
    let mut writer = writer.stderr(Stdio::null()).spawn()?;
    eventually("the write waits", || if alpha.disk().waiting() > 0 { Ok(()) } else { Err("not asked yet") });

    alpha.power_off()?;
    assert!(!writer.wait()?.success());
    alpha.power_on()?;
    assert_eq!(read(beta)?.as_deref(), Ok("before"));
    assert_eq!(read(alpha)?.as_deref(), Ok("before"));
    Ok(())
}

#[test]
fn a_hung_node_stands_still_and_goes_on_where_it_was() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha"]).build()?;
    let alpha = lab.node("alpha");
    let mut service = serve(alpha, "web", 1)?;
    eventually("the service runs", || lab.witness().last("web").unwrap_or(None).ok_or("nothing"));
    alpha.hang(Spare::Nothing)?;
    let stopped = lab.witness().lines()?.len();
    // A client would get its answer within microseconds; the same answer long after shows a service at a standstill.
    let client = lab.client("10.77.0.1:7000")?;
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(client.served_by(), None);
    assert_eq!(lab.witness().lines()?.len(), stopped);
    alpha.wake()?;
    eventually("the service goes on", || {
        if lab.witness().lines().map_or(0, |lines| lines.len()) > stopped { Ok(()) } else { Err("still") }
    });
    eventually("the client is served", || client.served_by().ok_or("no answer"));
    service.kill()?;
    service.wait()?;
    Ok(())
}

#[test]
fn the_first_process_keeps_the_agent_running() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha"]).agent(&["sleep", "86400"]).build()?;
    let alpha = lab.node("alpha");
    assert_eq!(alpha.agent()?, None);
    alpha.start_agent()?;
    let runs = || eventually("the agent runs", || alpha.agent().unwrap_or(None).ok_or("no agent"));
    let first = runs();
    assert!(alpha.kill_agent()?);
    let second =
        eventually("another agent runs", || alpha.agent().unwrap_or(None).filter(|pid| *pid != first).ok_or("none"));
    alpha.abandon_agent()?;
    assert!(alpha.kill_agent()?);
    eventually("the agent is gone", || match alpha.agent() {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_ne!(first, second);
    Ok(())
}

#[test]
fn a_full_state_folder_takes_nothing_more_until_it_is_emptied() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha"]).state_bytes(64 << 10).build()?;
    let alpha = lab.node("alpha");
    let store =
        || alpha.run("bash", &["-c", "echo something > /run/lab/state/file"]).map(|output| output.status.success());
    alpha.fill_state()?;
    assert!(!store()?);
    alpha.empty_state()?;
    assert!(store()?);
    Ok(())
}

#[test]
fn what_a_laboratory_made_is_gone_with_it() -> Result<()> {
    let lab = Lab::with_nodes(&["alpha"]).build()?;
    let (dir, device) = (lab.node("alpha").dir().to_owned(), lab.node("alpha").disk().device().to_owned());
    let mark = dir.strip_prefix("/run/ha-lab").ok().and_then(|below| below.iter().next());
    let mark = mark.map(|name| name.to_string_lossy().into_owned()).expect("its files are there");
    drop(lab);
    assert!(!dir.exists());
    let left = |list: &str| std::fs::read_to_string(list).unwrap_or_default().contains(&mark);
    assert!(!left("/proc/mounts"), "a mount was left");
    eventually("the loop device is free", || {
        let name = device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let backing = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).unwrap_or_default();
        if backing.contains(&mark) { Err(backing) } else { Ok(()) }
    });
    let namespaces =
        std::fs::read_dir("/run/netns")?.flatten().any(|entry| entry.file_name().to_string_lossy().contains(&mark));
    assert!(!namespaces, "a network namespace was left");
    Ok(())
}
