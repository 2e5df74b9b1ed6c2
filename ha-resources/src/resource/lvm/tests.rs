//! What can be seen of LVM without device-mapper in the kernel. Activation is tried in a laboratory: `tests/tests/kernel_volumes.rs`.

use super::*;
use crate::test_support::{context, read};
use std::process::Command;

fn spec(group: &str, devices: &[&str]) -> LvmSpec {
    LvmSpec {
        group: group.parse().unwrap(),
        volume: None,
        devices: devices.iter().map(|&device| device.to_owned()).collect(),
        found_on: FoundOn::Node,
    }
}

#[test]
fn a_volume_group_is_read_and_every_mistake_is_told_at_once() {
    let text = r#"Lvm(group: "shop", volume: "web", devices: ["/dev/disk/by-id/wwn-0x1"], found_on: Hierarchy)"#;
    let (found, said) = read(text, LvmSpec::read);
    assert_eq!(said, "");
    let expected = LvmSpec {
        volume: Some("web".parse().unwrap()),
        found_on: FoundOn::Hierarchy,
        ..spec("shop", &["/dev/disk/by-id/wwn-0x1"])
    };
    assert_eq!(found, Some(expected));
    for (text, expected) in [
        ("Lvm()", "lacks the field `group`"),
        (r#"Lvm(group: "shop/web")"#, "no name of LVM"),
        (r#"Lvm(group: "shop", volume: "-x")"#, "no name of LVM"),
        (r#"Lvm(group: "shop", devices: ["sda"])"#, "whole path"),
        (r#"Lvm(group: "shop", devices: ["/dev/a,/dev/b"])"#, "comma"),
        (r#"Lvm(group: "shop", devices: [])"#, "leave it out"),
        (r#"Lvm(group: "shop", vg: "x")"#, "vg"),
        (r#"Lvm(group: "shop", found_on: Elsewhere)"#, "`Elsewhere`"),
    ] {
        let (_, said) = read(text, LvmSpec::read);
        assert!(said.contains(expected), "{text}: {said}");
    }
}

/// Real lvm2 on a loop device, which is all that it looks at.
#[tokio::test]
async fn a_group_that_may_not_be_activated_is_told_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let shell = |script: &str| {
        let done = Command::new("sh").args(["-c", script]).env("LVM_SUPPRESS_FD_WARNINGS", "1").output().unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).trim().to_owned();
        if done.status.success() { Ok(said) } else { Err(said) }
    };
    if !nix::unistd::geteuid().is_root() || command::resolve("lvm").is_err() {
        eprintln!("SKIPPED: this needs root and lvm2");
        return;
    }
    let device = match shell(&format!("losetup --find --show {}", image.display())) {
        Ok(device) => device,
        Err(why) => return eprintln!("SKIPPED: no loop device here: {why}"),
    };
    let group = format!("ha-test-{}", std::process::id());
    let made =
        shell(&format!("lvm vgcreate --autobackup n --devices {device} --systemid elsewhere --yes {group} {device}"))
            .or_else(|_| shell(&format!("lvm vgcreate --autobackup n --devices {device} --yes {group} {device}")));
    let resource = Lvm::new(spec(&group, &[&device]));
    let seen = resource.group(FIELDS, &[], Instant::now() + LOOK).await;
    let stranger = Lvm::new(spec("no-such-group", &[&device]));
    let unknown = stranger.group(FIELDS, &[], Instant::now() + LOOK).await;
    let exported = shell(&format!("lvm vgexport --autobackup n --devices {device} {group}"));
    let after = resource.group(FIELDS, &[], Instant::now() + LOOK).await;
    let (stopped, monitored) = (resource.stop(&context("lvm")).await, resource.monitor(&context("lvm")).await);
    shell(&format!("losetup --detach {device}")).unwrap();

    made.unwrap();
    assert_eq!(seen.as_ref().map(|group| group.missing), Ok(0), "{seen:?}");
    assert_eq!(seen.unwrap().refusal(&group.parse().unwrap()), Ok(()));
    let Failed(why) = unknown.unwrap_err();
    assert!(why.contains("the volume group no-such-group cannot be seen") && why.contains("not found"), "{why}");
    if exported.is_ok() {
        let Failed(why) = after.unwrap().refusal(&group.parse().unwrap()).unwrap_err();
        assert!(why.contains("is exported"), "{why}");
    }
    // What was never active needs neither LVM nor a kernel that knows of it to be stopped.
    assert_eq!(stopped, Ok(()));
    assert!(matches!(monitored, Verdict::Bad(why) if why.contains("nothing of")));
}
