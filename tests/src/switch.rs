//! The power switch of a laboratory, and the fence agent by which nodes ask it.
//!
//! Decides how a node asks (by files in its own folder, so that no network is needed) and is answered. Leaves to each laboratory how its nodes lose
//! their power.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::trouble::{Result, Trouble};

/// Where a node finds the agent that [`install`] gave it.
pub const AGENT: &str = "/run/lab/etc/fence_lab";

const META_DATA: &str = r#"<?xml version="1.0"?><resource-agent name="fence_lab"><parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="plug" required="1"><content type="string"/></parameter>
<parameter name="mode"><content type="select" default="honest"><option value="honest"/><option value="lies"/><option value="hangs"/></content></parameter>
</parameters><actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions></resource-agent>"#;

/// Where `cut` is there, the switch cannot be reached; where `broken` is, what is off stays off.
const SCRIPT: &str = r#"#!/bin/bash
here=/run/lab/etc
while IFS='=' read -r name value; do declare "o_$name=$value"; done
[ "$o_action" != metadata ] || exec cat $here/fence_lab.xml
case $o_mode in
    lies) exit 0;;
    hangs) trap '' TERM INT; setsid sleep 100001 & sleep 100002; sleep 100003;;
esac
[ ! -e $here/cut ] || { echo 'the switch does not answer'; exit 1; }
[ "$o_action" != monitor ] || exit 0
[ "$o_action" != on ] || [ ! -e $here/broken ] || { echo 'its power supply is broken'; exit 1; }
id=$$.$RANDOM
echo "$o_action $o_plug" > $here/switch/new.$id
mv $here/switch/new.$id $here/switch/ask.$id
until [ -e $here/switch/answer.$id ]; do sleep 0.02; done
said=$(cat $here/switch/answer.$id)
case $o_action:$said in off:done|on:done|status:on) exit 0;; status:off) exit 2;; *) echo "$said"; exit 1;; esac
"#;

/// What an agent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Power for the node.
    On,
    /// No power.
    Off,
    /// Whether it has any: "on" or "off" is the answer.
    Status,
}

/// Gives a node the agent, as [`AGENT`]; `etc` is its folder of configuration.
pub fn install(etc: &Path) -> Result<()> {
    fs::create_dir(etc.join("switch"))?;
    fs::write(etc.join("fence_lab.xml"), META_DATA)?;
    let script = etc.join("fence_lab");
    fs::write(&script, SCRIPT)?;
    Ok(fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?)
}

/// Does `what` while a switch does as the agents of the nodes with these folders ask: `turn` is told what and of which node, and gives the answer.
pub fn attended<T>(
    folders: &[PathBuf],
    turn: impl Fn(Turn, &str) -> Result<&'static str> + Sync,
    what: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let switch = scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                folders.iter().try_for_each(|etc| answer(&etc.join("switch"), &turn))?;
                thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, Trouble>(())
        });
        // A test that fails must not leave the switch waiting for ever.
        let done = catch_unwind(AssertUnwindSafe(what));
        end.store(true, Ordering::Relaxed);
        switch.join().map_err(|_| Trouble::new("the switch failed"))??;
        done.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn answer(folder: &Path, turn: impl Fn(Turn, &str) -> Result<&'static str>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix("ask.") else { continue };
        let text = fs::read_to_string(&path)?;
        fs::remove_file(&path)?;
        let (action, plug) = text.trim().split_once(' ').unwrap_or_default();
        let said = match action {
            "off" => turn(Turn::Off, plug),
            "on" => turn(Turn::On, plug),
            _ => turn(Turn::Status, plug),
        };
        let new = path.with_file_name(format!("said.{id}"));
        fs::write(&new, said.map_or_else(|trouble| trouble.to_string(), str::to_owned))?;
        fs::rename(&new, path.with_file_name(format!("answer.{id}")))?;
    }
    Ok(())
}
