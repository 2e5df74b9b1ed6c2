//! `ha keys`: making the keys that heartbeats are sealed with, and rolling them.
//!
//! Decides how the file is written: never readable by others, never half. Leaves what is in it to [`KeyRing`].

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ha_core::contact::{KeyId, KeyRing};

use super::say;
use crate::exit::{Exit, Failure};

/// Of `ha keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write a new key file; copy it to every node of the cluster
    Generate {
        /// The file, as `keys` in agent.ron names it
        file: PathBuf,
    },
    /// Roll the keys, one step at a time, each on every node before the next
    ///
    /// 1. `ha keys roll FILE` adds a new key, for receiving only. Copy the file to every node, `ha reload` on each.
    ///
    /// 2. `ha keys roll FILE --activate` makes the newest key the one for sending. Copy and reload as before.
    ///
    /// 3. `ha keys roll FILE --retire` removes the keys that are not sent with any more. Copy and reload as before.
    #[command(verbatim_doc_comment)]
    Roll {
        /// The file, as `keys` in agent.ron names it
        file: PathBuf,
        /// Second step: send with the newest key
        #[arg(long, conflicts_with = "retire")]
        activate: bool,
        /// Third step: remove all keys but the one for sending
        #[arg(long)]
        retire: bool,
    },
}

/// `ha keys`.
pub(crate) fn keys(args: &KeysArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::Generate { file } => generate(file),
        What::Roll { file, activate: true, .. } => activate(file),
        What::Roll { file, retire: true, .. } => retire(file),
        What::Roll { file, .. } => add(file),
    }
}

fn generate(file: &Path) -> Result<Exit, Failure> {
    if file.exists() {
        return Err(Failure::new(Exit::Refused, format!("{} exists already: it was left as it is", file.display()))
            .help("nodes with other keys do not hear each other; to change keys, use `ha keys roll`"));
    }
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|e| failed("create the directory", dir, &e))?;
    }
    write(file, &KeyRing::generate(KeyId(1), random()?))?;
    say(format!("{} written: copy it to every node of the cluster, and keep it secret\n", file.display()))?;
    Ok(Exit::Done)
}

fn add(file: &Path) -> Result<Exit, Failure> {
    let mut ring = read(file)?;
    let used: Vec<KeyId> = ring.ids().collect();
    let newest = newest(&ring);
    if newest != ring.sending() {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "key {newest} was added before, and {} is still the one for sending: nothing was changed",
                ring.sending()
            ),
        )
        .help(format!("second step, when every node has the file: `ha keys roll {} --activate`", file.display())));
    }
    let free = (1..=u8::MAX).map(|step| KeyId(newest.0.wrapping_add(step))).find(|id| !used.contains(id));
    let id = free.ok_or_else(|| {
        Failure::new(Exit::Refused, format!("{} has 256 keys: there is no number left", file.display()))
            .help("`ha keys roll --retire` removes those that are not sent with")
    })?;
    ring.add(id, random()?).map_err(|e| Failure::new(Exit::Refused, e))?;
    write(file, &ring)?;
    say(format!(
        "key {id} added for receiving; key {} is still the one for sending\n\
         next: copy {file} to every node, `ha reload` on each, then `ha keys roll {file} --activate`\n",
        ring.sending(),
        file = file.display()
    ))?;
    Ok(Exit::Done)
}

fn activate(file: &Path) -> Result<Exit, Failure> {
    let mut ring = read(file)?;
    let id = newest(&ring);
    if ring.sending() == id {
        return Err(Failure::new(Exit::Refused, format!("key {id} is the newest, and the one for sending already"))
            .help(format!("`ha keys roll {}` adds a new one first", file.display())));
    }
    ring.send_with(id).map_err(|e| Failure::new(Exit::Refused, e))?;
    write(file, &ring)?;
    say(format!(
        "key {id} is the one for sending now\n\
         next: copy {file} to every node, `ha reload` on each, then `ha keys roll {file} --retire`\n",
        file = file.display()
    ))?;
    Ok(Exit::Done)
}

fn retire(file: &Path) -> Result<Exit, Failure> {
    let mut ring = read(file)?;
    let old: Vec<KeyId> = ring.ids().filter(|id| *id != ring.sending()).collect();
    if let Some(newer) = old.iter().find(|id| follows(**id, ring.sending())) {
        return Err(Failure::new(
            Exit::Refused,
            format!("key {newer} is newer than the one for sending, {}", ring.sending()),
        )
        .help(format!("second step first: `ha keys roll {} --activate`", file.display())));
    }
    for id in &old {
        ring.remove(*id).map_err(|e| Failure::new(Exit::Refused, e))?;
    }
    write(file, &ring)?;
    let old: Vec<String> = old.iter().map(ToString::to_string).collect();
    let what =
        if old.is_empty() { "there was nothing to remove".to_owned() } else { format!("removed: {}", old.join(", ")) };
    say(format!(
        "key {} is the only one; {what}\nnext: copy {} to every node, `ha reload` on each\n",
        ring.sending(),
        file.display()
    ))?;
    Ok(Exit::Done)
}

/// Numbers go round after 255: of two keys, the newer one is at most half a round ahead.
fn follows(id: KeyId, other: KeyId) -> bool {
    id != other && id.0.wrapping_sub(other.0) < 128
}

fn newest(ring: &KeyRing) -> KeyId {
    ring.ids().fold(ring.sending(), |newest, id| if follows(id, newest) { id } else { newest })
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(Exit::System, format!("the system gave no random bytes: {e}")))?;
    Ok(bytes)
}

fn read(file: &Path) -> Result<KeyRing, Failure> {
    let text = fs::read_to_string(file).map_err(|e| failed("read", file, &e))?;
    KeyRing::parse(&text).map_err(|e| Failure::new(Exit::BadInput, format!("{}: {e}", file.display())))
}

/// Under another name first, so that there is never half a file; readable by the owner only, from its first moment.
fn write(file: &Path, ring: &KeyRing) -> Result<(), Failure> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let _ = fs::remove_file(&new);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut out| out.write_all(ring.to_file().as_bytes()).and_then(|()| out.sync_all()));
    written.map_err(|e| failed("write", &new, &e))?;
    fs::rename(&new, file).map_err(|e| failed("replace", file, &e))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::System, format!("could not {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_roll_in_three_steps_and_never_lock_anybody_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/keys");
        generate(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let first = read(&file).unwrap();
        assert_eq!(generate(&file).unwrap_err().exit, Exit::Refused);
        assert_eq!(read(&file).unwrap(), first);

        add(&file).unwrap();
        let second = read(&file).unwrap();
        assert_eq!((second.sending(), second.ids().count()), (KeyId(1), 2));
        assert_eq!(add(&file).unwrap_err().exit, Exit::Refused, "one after the other");
        assert_eq!(retire(&file).unwrap_err().exit, Exit::Refused);

        activate(&file).unwrap();
        assert_eq!(read(&file).unwrap().sending(), KeyId(2));
        assert_eq!(activate(&file).unwrap_err().exit, Exit::Refused);

        retire(&file).unwrap();
        assert_eq!(read(&file).unwrap().ids().collect::<Vec<_>>(), [KeyId(2)]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn numbers_go_round() {
        let mut ring = KeyRing::generate(KeyId(255), random().unwrap());
        ring.add(KeyId(0), random().unwrap()).unwrap();
        assert_eq!(newest(&ring), KeyId(0));
    }
}
