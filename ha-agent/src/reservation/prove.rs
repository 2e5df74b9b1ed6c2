//! Trying out what a disk does with reservations, on a disk that nobody uses; nothing is left behind.
//!
//! Decides what is tried, and what may be said afterwards. No data is
//! changed: where a write is tried, what is on the disk is written back, and only where an operator asked for that. Works with keys of this node of epoch 0, which no
//! tenure has: whatever is left after a loss of power is taken away by the next claim like any dead holder's.

use std::future::Future;
use std::time::Duration;

use ha_core::claim::reservation::device::{
    Answer, Command, Failure, Key, PathName, Ports, PowerLoss, Queued, ReservationDevice, ReservationType,
};
use ha_core::claim::reservation::{ClusterKey, Keyring, NodeNumber, Role, Standing, audit, look};
use ha_core::name::Epoch;
use serde::{Deserialize, Serialize};

use super::show::ask;
use super::{Rewrite, Unused};

/// So often a command is sent again that was answered by something the disk had to tell.
const ATTENTIONS_MAX: usize = 16;
/// Two nodes that try a disk out together wait for each other for so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// The one that was cut off says so long what became of its write.
const WORD_WITHIN: Duration = Duration::from_secs(30);
/// And look so often.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What was shown on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shown {
    /// It was tried, and is so.
    Yes,
    /// It was tried, and is not so.
    No,
    /// It could not be tried from here.
    #[default]
    NotTried,
}

impl Shown {
    fn of(is: bool) -> Shown {
        if is { Shown::Yes } else { Shown::No }
    }

    /// What two things show together.
    fn and(self, other: Shown) -> Shown {
        match (self, other) {
            (Shown::No, _) | (_, Shown::No) => Shown::No,
            (Shown::Yes, Shown::Yes) => Shown::Yes,
            _ => Shown::NotTried,
        }
    }
}

/// What a disk did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// It lets itself be registered with and reserved, and reads back as was asked for.
    pub(crate) can_be_taken: Shown,
    /// A node that is not registered is refused: shown by a reservation that it asks for.
    pub(crate) refuses_others: Shown,
    /// A holder is cut off by preemption: its key is gone, the reservation is the other's, and what it asks for is refused.
    pub(crate) cuts_off: Shown,
    /// The device refuses the writes of who is not registered and of who is cut off, and carries out those of the holder.
    #[serde(default)]
    pub(crate) refuses_writes: Shown,
    /// Commands of a holder that is cut off are aborted (PREEMPT AND ABORT).
    pub(crate) aborts: Shown,
    /// Keys and reservation were accepted as to survive loss of power (APTPL).
    pub(crate) outlasts_power_loss: Shown,
    /// It says of each path whether it is registered (READ FULL STATUS), so that one which is not can be named.
    #[serde(default)]
    pub(crate) names_paths: Shown,
    /// What a reservation takes away again.
    pub(crate) can_be_released: Shown,
    /// On how many paths it was tried.
    pub(crate) paths: usize,
}

/// Why nothing could be tried, or not all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unproven {
    /// Somebody uses the disk.
    #[error(
        "{device} is in use: {by}; nothing was changed. Take the hierarchy out of service first (`ha stop`), or see `ha claim show`"
    )]
    InUse {
        /// Which.
        device: String,
        /// By whom.
        by: String,
    },
    /// Somebody who is not of this cluster uses the disk, or did.
    #[error(
        "{device} is in use: {by}; nothing was changed. Find out who uses it; if nobody does any more: `ha claim break`"
    )]
    Stranger {
        /// Which.
        device: String,
        /// By whom.
        by: String,
    },
    /// Somebody on this machine uses it, or may.
    #[error("{0}; nothing was changed")]
    UsedHere(String),
    /// No path.
    #[error("{0} has no path that works")]
    NoPath(String),
    /// The disk does not do what was asked for.
    #[error("{device}: {what}: {failure}")]
    Failed {
        /// Which.
        device: String,
        /// What was tried.
        what: &'static str,
        /// What it said.
        failure: Failure,
    },
    /// The disk says it has done something, and has not.
    #[error("{device}: {what}, but it reads back as: {seen}")]
    ReadBack {
        /// Which.
        device: String,
        /// What was tried.
        what: &'static str,
        /// What is there.
        seen: String,
    },
    /// The disk takes the other node for this one.
    #[error(
        "{device}: registering here changed the key of {other}, so both nodes are one host to the disk, and it keeps neither from writing: give \
         each node an identifier of its own (NVMe: /etc/nvme/hostid and hostnqn; iSCSI: /etc/iscsi/initiatorname.iscsi), and connect anew"
    )]
    OneHost {
        /// Which.
        device: String,
        /// The other node.
        other: String,
    },
    /// Nobody came.
    #[error("{device}: waited {} s for {awaited}; nothing is left behind", PATIENCE.as_secs())]
    NobodyCame {
        /// Which.
        device: String,
        /// For what.
        awaited: String,
    },
    /// It was told to stop.
    #[error("interrupted; nothing is left behind on {0}")]
    Interrupted(String),
    /// What was registered could not be taken away again.
    #[error(
        "{device}: the test's own keys could not be taken away: {failure}; they are {keys}: see `ha claim show`, `ha claim break`"
    )]
    LeftBehind {
        /// Which.
        device: String,
        /// Why.
        failure: String,
        /// Which.
        keys: String,
    },
}

/// Tries a disk out.
pub(crate) struct Trial<'a> {
    keyring: &'a Keyring,
    device: &'a dyn ReservationDevice,
    kind: ReservationType,
    rewrite: Option<&'a dyn Rewrite>,
    holder: Key,
    other: Key,
}

impl<'a> Trial<'a> {
    /// On a device, as a node. Touches nothing.
    #[expect(clippy::expect_used, reason = "epoch 0 fits into every key")]
    pub(crate) fn new(
        keyring: &'a Keyring,
        me: NodeNumber,
        device: &'a dyn ReservationDevice,
        kind: ReservationType,
    ) -> Trial<'a> {
        let key = |role| keyring.encode(ClusterKey { role, node: me, epoch: Epoch::ZERO }).expect("epoch 0 fits");
        Trial { keyring, device, kind, rewrite: None, holder: key(Role::Holder), other: key(Role::Challenger) }
    }

    /// Tries writes, too.
    pub(crate) fn with_writes(self, rewrite: &'a dyn Rewrite) -> Trial<'a> {
        Trial { rewrite: Some(rewrite), ..self }
    }

    fn unused(&self) -> Result<Option<Unused>, Unproven> {
        self.rewrite.map(Rewrite::keep_unused).transpose().map_err(|used| Unproven::UsedHere(used.to_string()))
    }

    /// Tries everything, and takes away what it registered: at the end, after an error, and when `interrupted` is over.
    pub(crate) async fn run(&self, interrupted: impl Future<Output = ()>) -> Result<Proof, Unproven> {
        let _unused = self.unused()?;
        let paths = self.free().await?;
        self.carefully(&paths, self.steps(&paths), interrupted).await
    }

    /// As [`Trial::run`], against another node that [holds](Trial::hold) the disk meanwhile: waits for that, and cuts it off.
    pub(crate) async fn run_against(
        &self,
        rival: NodeNumber,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Proof, Unproven> {
        let _unused = self.unused()?;
        let paths = self.device.paths();
        self.carefully(&paths, self.steps_against(&paths, rival), interrupted).await
    }

    /// Takes the disk, and waits until another node has cut this one off.
    pub(crate) async fn hold(&self, interrupted: impl Future<Output = ()>) -> Result<Proof, Unproven> {
        let _unused = self.unused()?;
        let paths = self.free().await?;
        self.carefully(&paths, self.be_cut_off(&paths), interrupted).await
    }

    async fn carefully(
        &self,
        paths: &[PathName],
        steps: impl Future<Output = Result<Proof, Unproven>>,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Proof, Unproven> {
        let done = tokio::select! {
            done = steps => done,
            () = interrupted => Err(Unproven::Interrupted(self.name())),
        };
        let cleared = self.clear_away(paths).await;
        let mut proof = done?;
        cleared?;
        proof.can_be_released = Shown::Yes;
        Ok(proof)
    }

    async fn steps_against(&self, paths: &[PathName], rival: NodeNumber) -> Result<Proof, Unproven> {
        let Some(path) = paths.first() else { return Err(Unproven::NoPath(self.name())) };
        let key = |role| self.keyring.encode(ClusterKey { role, node: rival, epoch: Epoch::ZERO });
        let (Ok(victim), Ok(word)) = (key(Role::Holder), key(Role::Challenger)) else {
            return Err(Unproven::NoPath(self.name()));
        };
        let awaited = format!("{} to hold it (`ha arm HIERARCHY --hold`)", self.keyring.describe(victim));
        self.until(path, awaited, |holder, keys| holder == Some(victim) && keys.contains(&victim) && keys.len() == 1)
            .await?;
        let refused = ask(self.device, path, Command::Reserve { key: self.holder, kind: self.kind }).await;
        let stranger = self.write_is_refused(path).await;
        let keeps = self.register(path, self.holder).await?;
        self.expect_two_hosts(path, victim).await?;
        let aborts = self.aborts(path).await;
        let queued = if aborts == Shown::Yes { Queued::Aborted } else { Queued::Stay };
        let command = Command::Preempt { key: self.holder, victim: Some(victim), kind: self.kind, queued };
        self.change(path, "preempting", command).await?;
        // The one that was cut off may have said its word already.
        self.expect_but(path, "it says that the holder was preempted", self.holder, &[self.holder], Some(word)).await?;
        let names_paths = self.names(path).await;
        // Where writes cannot be tried, as on NVMe, the other node has no word to say.
        let refuses_writes = match stranger {
            Shown::NotTried => Shown::NotTried,
            tried => tried.and(self.own_write(path).await).and(self.word(path, (victim, word)).await),
        };
        Ok(Proof {
            refuses_writes,
            can_be_taken: Shown::Yes,
            refuses_others: refused_to(&refused),
            cuts_off: Shown::Yes,
            aborts,
            outlasts_power_loss: Shown::of(keeps == PowerLoss::Keeps),
            names_paths,
            can_be_released: Shown::NotTried,
            paths: paths.len(),
        })
    }

    /// A reservation that was the other node's, and is this one's by nothing but a registration, has one host for both.
    async fn expect_two_hosts(&self, path: &PathName, other: Key) -> Result<(), Unproven> {
        let shown = look(self.keyring, self.device, path).await.map_err(|f| self.failed("reading back", f))?;
        if shown.held.is_some_and(|held| held.key == Some(self.holder)) {
            return Err(Unproven::OneHost { device: self.name(), other: self.keyring.describe(other) });
        }
        Ok(())
    }

    async fn be_cut_off(&self, paths: &[PathName]) -> Result<Proof, Unproven> {
        let Some(path) = paths.first() else { return Err(Unproven::NoPath(self.name())) };
        let (keeps, kind) = (self.register(path, self.holder).await?, self.kind);
        self.change(path, "reserving", Command::Reserve { key: self.holder, kind }).await?;
        // Not read back: the other node may have cut this one off already, and has read it.
        let awaited = "another node to cut this one off (`ha arm HIERARCHY --against NODE`)".to_owned();
        self.until(path, awaited, |holder, keys| holder != Some(self.holder) && !keys.contains(&self.holder)).await?;
        let again = ask(self.device, path, Command::Reserve { key: self.holder, kind }).await;
        let refuses_writes = self.write_is_refused(path).await;
        self.say(path, refuses_writes).await?;
        Ok(Proof {
            refuses_writes,
            can_be_taken: Shown::Yes,
            refuses_others: Shown::NotTried,
            cuts_off: refused_to(&again),
            aborts: Shown::NotTried,
            names_paths: Shown::NotTried,
            outlasts_power_loss: Shown::of(keeps == PowerLoss::Keeps),
            can_be_released: Shown::NotTried,
            paths: paths.len(),
        })
    }

    /// Waits until the disk is as wanted.
    async fn until(
        &self,
        path: &PathName,
        awaited: String,
        wanted: impl Fn(Option<Key>, &[Key]) -> bool,
    ) -> Result<(), Unproven> {
        let seen = async {
            loop {
                let shown = look(self.keyring, self.device, path).await.map_err(|f| self.failed("reading", f))?;
                let keys: Vec<Key> = shown.keys.iter().map(|seen| seen.key).collect();
                if wanted(shown.held.and_then(|held| held.key), &keys) {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let nobody = || Err(Unproven::NobodyCame { device: self.name(), awaited });
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| nobody())
    }

    fn name(&self) -> String {
        self.device.name().to_owned()
    }

    /// The paths that work, if nobody uses the disk.
    async fn free(&self) -> Result<Vec<PathName>, Unproven> {
        let mut paths = Vec::new();
        for path in self.device.paths() {
            let Ok(shown) = look(self.keyring, self.device, &path).await else { continue };
            let holder = shown.held.map(|held| {
                let whose = held.key.map_or("all that are registered".to_owned(), |key| self.keyring.describe(key));
                format!("reserved by {whose}")
            });
            let key = shown.keys.first().map(|key| format!("registered is {}", self.keyring.describe(key.key)));
            let mut there = shown.keys.iter().map(|seen| seen.key).chain(shown.held.and_then(|held| held.key));
            let everybody_holds = shown.held.is_some_and(|held| held.key.is_none());
            let is_strange = everybody_holds || there.any(|key| self.keyring.decode(key).is_none());
            let device = self.name();
            match holder.or(key) {
                Some(by) if is_strange => return Err(Unproven::Stranger { device, by }),
                Some(by) => return Err(Unproven::InUse { device, by }),
                None => {}
            }
            paths.push(path);
        }
        if paths.is_empty() { Err(Unproven::NoPath(self.name())) } else { Ok(paths) }
    }

    async fn steps(&self, paths: &[PathName]) -> Result<Proof, Unproven> {
        let [first, others @ ..] = paths else { return Err(Unproven::NoPath(self.name())) };
        let keeps = self.register(first, self.holder).await?;
        let kind = self.kind;
        self.change(first, "reserving", Command::Reserve { key: self.holder, kind }).await?;
        self.expect(first, "it says that it is reserved", self.holder, &[self.holder]).await?;
        let mut proof = Proof {
            can_be_taken: Shown::Yes,
            refuses_others: Shown::NotTried,
            cuts_off: Shown::NotTried,
            refuses_writes: Shown::NotTried,
            aborts: self.aborts(first).await,
            names_paths: self.names(first).await,
            outlasts_power_loss: Shown::of(keeps == PowerLoss::Keeps),
            can_be_released: Shown::NotTried,
            paths: paths.len(),
        };
        if let Some(second) = others.first() {
            let refused = ask(self.device, second, Command::Reserve { key: self.other, kind }).await;
            proof.refuses_others = refused_to(&refused);
            let stranger = self.write_is_refused(second).await;
            proof.cuts_off = self.cut_off(first, second, proof.aborts).await?;
            let fenced = self.write_is_refused(first).await;
            proof.refuses_writes = stranger.and(self.own_write(second).await).and(fenced);
        }
        Ok(proof)
    }

    /// A key that nobody has: a disk that knows the command finds that there is nothing to do.
    async fn aborts(&self, path: &PathName) -> Shown {
        let (victim, queued) = (Some(self.other), Queued::Aborted);
        let command = Command::Preempt { key: self.holder, victim, kind: self.kind, queued };
        match ask(self.device, path, command).await {
            Ok(_) | Err(Failure::Conflict) => Shown::Yes,
            Err(Failure::NotSupported) => Shown::No,
            Err(_) => Shown::NotTried,
        }
    }

    /// Whether the disk tells that this path is registered as the test's holder, and that no other is.
    async fn names(&self, path: &PathName) -> Shown {
        let Ok(audit) = audit(self.device).await else { return Shown::No };
        let mut shown = Shown::Yes;
        for one in &audit.paths {
            shown = shown.and(match &one.standing {
                Standing::Registered(registration) => {
                    Shown::of((one.path == *path) == (registration.key == self.holder))
                }
                Standing::NotRegistered => Shown::of(one.path != *path),
                Standing::OneOf { .. } => Shown::No,
                Standing::Nameless | Standing::Failed(_) => Shown::NotTried,
            });
        }
        shown
    }

    /// Over the second path this node is somebody else to the disk.
    async fn cut_off(&self, first: &PathName, second: &PathName, aborts: Shown) -> Result<Shown, Unproven> {
        self.register(second, self.other).await?;
        let queued = if aborts == Shown::Yes { Queued::Aborted } else { Queued::Stay };
        let (key, victim, kind) = (self.other, Some(self.holder), self.kind);
        self.change(second, "preempting", Command::Preempt { key, victim, kind, queued }).await?;
        self.expect(second, "it says that the holder was preempted", self.other, &[self.other]).await?;
        let again = ask(self.device, first, Command::Reserve { key: self.holder, kind }).await;
        Ok(refused_to(&again))
    }

    /// Whether a write on a path that has no right to it is refused.
    async fn write_is_refused(&self, path: &PathName) -> Shown {
        match self.write(path).await {
            Some(Ok(())) => Shown::No,
            Some(Err(Failure::Conflict)) => Shown::Yes,
            _ => Shown::NotTried,
        }
    }

    /// A refusal shows nothing on a disk that refuses every write.
    async fn own_write(&self, path: &PathName) -> Shown {
        match self.write(path).await {
            Some(Ok(())) => Shown::Yes,
            _ => Shown::NotTried,
        }
    }

    async fn write(&self, path: &PathName) -> Option<Result<(), Failure>> {
        let rewrite = self.rewrite?;
        let mut answer = rewrite.rewrite(path).await;
        for _ in 0..ATTENTIONS_MAX {
            let Err(Failure::UnitAttention(_)) = answer else { break };
            answer = rewrite.rewrite(path).await;
        }
        Some(answer)
    }

    /// The node that was cut off has no other way to tell the one that did it: it registers again, under one key if its write was refused, under
    /// the other one if it was not; and waits until that was read.
    async fn say(&self, path: &PathName, refused: Shown) -> Result<(), Unproven> {
        let word = match refused {
            Shown::Yes => self.other,
            Shown::No => self.holder,
            Shown::NotTried => return Ok(()),
        };
        self.register(path, word).await?;
        let awaited = "the other node to end".to_owned();
        self.until(path, awaited, |holder, keys| holder.is_none() || !keys.contains(&word)).await
    }

    /// What the node that was cut off says.
    async fn word(&self, path: &PathName, (written, refused): (Key, Key)) -> Shown {
        if self.rewrite.is_none() {
            return Shown::NotTried;
        }
        let said = self.until(path, String::new(), |_, keys| keys.contains(&refused) || keys.contains(&written));
        let Ok(Ok(())) = tokio::time::timeout(WORD_WITHIN, said).await else { return Shown::NotTried };
        match look(self.keyring, self.device, path).await {
            Ok(shown) => Shown::of(shown.keys.iter().any(|seen| seen.key == refused)),
            Err(_) => Shown::NotTried,
        }
    }

    /// Says what the disk agreed to as to loss of power.
    async fn register(&self, path: &PathName, key: Key) -> Result<PowerLoss, Unproven> {
        let command = |power_loss| Command::RegisterIgnoring { new: Some(key), ports: Ports::This, power_loss };
        match ask(self.device, path, command(PowerLoss::Keeps)).await {
            Ok(_) => Ok(PowerLoss::Keeps),
            Err(Failure::NotSupported | Failure::Rejected(_)) => {
                self.change(path, "registering", command(PowerLoss::Forgets)).await?;
                Ok(PowerLoss::Forgets)
            }
            Err(failure) => Err(self.failed("registering", failure)),
        }
    }

    async fn change(&self, path: &PathName, what: &'static str, command: Command) -> Result<Answer, Unproven> {
        ask(self.device, path, command).await.map_err(|failure| self.failed(what, failure))
    }

    fn failed(&self, what: &'static str, failure: Failure) -> Unproven {
        Unproven::Failed { device: self.name(), what, failure }
    }

    async fn expect(&self, path: &PathName, what: &'static str, holder: Key, keys: &[Key]) -> Result<(), Unproven> {
        self.expect_but(path, what, holder, keys, None).await
    }

    async fn expect_but(
        &self,
        path: &PathName,
        what: &'static str,
        holder: Key,
        keys: &[Key],
        besides: Option<Key>,
    ) -> Result<(), Unproven> {
        let shown = look(self.keyring, self.device, path).await.map_err(|f| self.failed("reading back", f))?;
        let held = shown.held.is_some_and(|held| held.key == Some(holder) && held.kind == self.kind);
        let registered = shown.keys.iter().map(|seen| seen.key).filter(|key| Some(*key) != besides);
        let registered: Vec<Key> = registered.collect();
        if held && registered == keys {
            return Ok(());
        }
        let seen = format!("reserved {:?}, registered {registered:?}", shown.held);
        Err(Unproven::ReadBack { device: self.name(), what, seen })
    }

    /// Takes away the test's own keys, and with them its reservation; nobody else's, who may have come meanwhile.
    async fn clear_away(&self, paths: &[PathName]) -> Result<(), Unproven> {
        let mine = [self.holder, self.other];
        let mut failure = None;
        for path in paths {
            for key in mine {
                // Refused where it is not held under this key; what counts is what is there in the end.
                let _ = ask(self.device, path, Command::Release { key, kind: self.kind }).await;
                let command =
                    Command::Register { old: Some(key), new: None, ports: Ports::This, power_loss: PowerLoss::Forgets };
                // A conflict: it was another one, or none.
                if let Err(other) = ask(self.device, path, command).await
                    && other != Failure::Conflict
                {
                    failure = Some(other.to_string());
                }
            }
        }
        for path in paths {
            let Ok(shown) = look(self.keyring, self.device, path).await else { continue };
            let left: Vec<String> =
                shown.keys.iter().filter(|seen| mine.contains(&seen.key)).map(|seen| seen.key.to_string()).collect();
            if left.is_empty() {
                return Ok(());
            }
            let failure = failure.unwrap_or_else(|| "it says that they were".to_owned());
            return Err(Unproven::LeftBehind { device: self.name(), failure, keys: left.join(", ") });
        }
        let failure = failure.unwrap_or_else(|| "no path answers".to_owned());
        Err(Unproven::LeftBehind { device: self.name(), failure, keys: mine.map(|key| key.to_string()).join(", ") })
    }
}

/// Whether somebody without a registration was refused. The target of Linux answers with an error of its own where nothing is reserved.
fn refused_to(answer: &Result<Answer, Failure>) -> Shown {
    match answer {
        Ok(_) => Shown::No,
        Err(Failure::Conflict | Failure::Rejected(_)) => Shown::Yes,
        Err(_) => Shown::NotTried,
    }
}

impl Proof {
    /// What is not shown that a claim relies on, in words; none when all is.
    pub(crate) fn lacking(&self) -> Option<String> {
        let all = [
            (self.can_be_taken, "that it can be taken"),
            (self.refuses_others, "that others are refused"),
            (self.cuts_off, "that a dead holder can be cut off"),
        ];
        if self.refuses_writes == Shown::No {
            return Some(
                "it was tried and is NOT so that the writes of a node that was cut off are refused".to_owned(),
            );
        }
        let wrong: Vec<&str> = all.iter().filter(|(shown, _)| *shown == Shown::No).map(|(_, what)| *what).collect();
        if !wrong.is_empty() {
            return Some(format!("it was tried and is NOT so {}", wrong.join(" and ")));
        }
        let open: Vec<&str> =
            all.iter().filter(|(shown, _)| *shown == Shown::NotTried).map(|(_, what)| *what).collect();
        let why = match self.paths {
            1 => {
                " (one node with one path cannot be two initiators: `ha arm HIERARCHY --hold` there, `--against NODE` here)"
            }
            _ => "",
        };
        (!open.is_empty()).then(|| format!("not shown {}{why}", open.join(" and ")))
    }

    /// One line for each thing.
    pub(crate) fn lines(&self) -> Vec<(Shown, &'static str)> {
        vec![
            (self.can_be_taken, "it can be registered with and reserved, and reads back as asked"),
            (self.refuses_others, "who is not registered is refused the reservation"),
            (self.cuts_off, "a holder is cut off by preemption, and refused from then on"),
            (self.aborts, "PREEMPT AND ABORT: what a holder left under way is aborted"),
            (self.outlasts_power_loss, "APTPL: keys and reservation outlast loss of power (as it says)"),
            (self.names_paths, "READ FULL STATUS: a path that is not registered is named by `ha claim show`"),
            (self.can_be_released, "everything was taken away again"),
            (self.refuses_writes, "who is not registered, and who was cut off, is refused every write"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use ha_core::claim::reservation::device::Ports;
    use ha_core::sim::scsi::{Nexus, Request, Target};

    use super::super::testing::{Shelf, common};
    use super::super::{Opened, show};
    use super::*;

    const KIND: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

    fn keyring() -> Keyring {
        let common = common("alpha");
        Keyring::new(&common.cluster, common.nodes).unwrap()
    }

    fn open(shelf: &Arc<Shelf>) -> Opened {
        shelf.reached_by("alpha").open(Path::new("/dev/one"), Duration::from_secs(3)).unwrap()
    }

    async fn try_out(shelf: &Arc<Shelf>, interrupted: impl Future<Output = ()>) -> Result<Proof, Unproven> {
        let (keyring, disk) = (keyring(), open(shelf));
        let me = keyring.number_of(&common("alpha").node).unwrap();
        Trial::new(&keyring, me, &*disk.device, KIND).with_writes(&*disk.rewrite).run(interrupted).await
    }

    /// A key as some other cluster would have, registered over a third initiator.
    fn stranger(shelf: &Shelf) {
        let nexus = Nexus { initiator: 77, port: 1 };
        let disk = shelf.disk("one");
        let mut disk = disk.lock().unwrap();
        disk.connect(nexus);
        let new = Key::new(0xabcd);
        let command = Command::RegisterIgnoring { new, ports: Ports::This, power_loss: PowerLoss::Forgets };
        while disk.run(nexus, Request::Reservation(command)).unwrap().is_err() {}
    }

    fn is_free(shelf: &Shelf) -> bool {
        let disk = shelf.disk("one");
        let disk = disk.lock().unwrap();
        disk.registrations().is_empty() && disk.reservation().held.is_none()
    }

    #[tokio::test]
    async fn every_kind_of_disk_is_tried_out_and_left_as_it_was() {
        let ports = NonZeroU16::new(2).unwrap();
        for (target, tells) in
            [(Target::standard(ports), true), (Target::lio(ports), true), (Target::tgt(ports), false)]
        {
            let shelf = Shelf::default();
            shelf.put_target("/dev/one", "one", target);
            let shelf = Arc::new(shelf);
            let proof = try_out(&shelf, std::future::pending()).await.unwrap();
            assert_eq!(proof.lacking(), None, "{proof:?}");
            assert_eq!((proof.can_be_released, proof.refuses_writes, proof.paths), (Shown::Yes, Shown::Yes, 2));
            assert_eq!(proof.names_paths, Shown::of(tells));
            assert!(is_free(&shelf));
        }
    }

    #[tokio::test]
    async fn a_disk_that_somebody_uses_is_not_touched() {
        let shelf = Shelf::with(&[("/dev/one", "one")]);
        stranger(&shelf);
        let before = shelf.disk("one").lock().unwrap().reservation().generation;
        let refused = try_out(&shelf, std::future::pending()).await.unwrap_err();
        assert!(
            matches!(&refused, Unproven::Stranger { by, .. } if by.contains("none of this cluster's")),
            "{refused}"
        );
        assert_eq!(shelf.disk("one").lock().unwrap().reservation().generation, before);
        let report = show::report(&keyring(), &open(&shelf)).await;
        assert!(report.stranger().unwrap().contains("0x000000000000abcd"), "{report:?}");
        let text = anstream::adapter::strip_str(&show::render(&report)).to_string();
        assert!(text.contains("reservation  none") && text.contains("which is none of this cluster's"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn two_nodes_show_each_other_that_a_holder_is_cut_off() {
        let shelf = Shelf::with(&[("/dev/one", "one")]);
        let keyring = keyring();
        let reached = |node: &str| shelf.reached_by(node).open(Path::new("/dev/one"), Duration::from_secs(3)).unwrap();
        let (alpha, beta) = (reached("alpha"), reached("beta"));
        let number = |node: &str| keyring.number_of(&common(node).node).unwrap();
        let winner = Trial::new(&keyring, number("alpha"), &*alpha.device, KIND).with_writes(&*alpha.rewrite);
        let holder = Trial::new(&keyring, number("beta"), &*beta.device, KIND).with_writes(&*beta.rewrite);
        let (won, lost) = tokio::join!(
            winner.run_against(number("beta"), std::future::pending()),
            holder.hold(std::future::pending())
        );
        let (won, lost) = (won.unwrap(), lost.unwrap());
        assert_eq!((won.lacking(), won.refuses_writes), (None, Shown::Yes));
        assert_eq!((lost.cuts_off, lost.refuses_writes), (Shown::Yes, Shown::Yes));
        assert!(is_free(&shelf));
        let alone = winner.run_against(number("beta"), std::future::pending()).await.unwrap_err();
        assert!(alone.to_string().contains("waited 120 s for beta (epoch 0) to hold it"), "{alone}");
        assert!(is_free(&shelf));
    }

    #[tokio::test(start_paused = true)]
    async fn two_nodes_that_are_one_host_to_the_disk_are_found_out() {
        let shelf = Shelf::with(&[("/dev/one", "one")]);
        let (keyring, disk) = (keyring(), open(&shelf));
        let number = |node: &str| keyring.number_of(&common(node).node).unwrap();
        let alpha = Trial::new(&keyring, number("alpha"), &*disk.device, KIND);
        let beta = Trial::new(&keyring, number("beta"), &*disk.device, KIND);
        let against = alpha.run_against(number("beta"), std::future::pending());
        let (tried, _) = tokio::join!(against, beta.hold(std::future::pending()));
        let told = tried.unwrap_err();
        assert!(matches!(&told, Unproven::OneHost { other, .. } if other == "beta (epoch 0)"), "{told}");
        assert!(is_free(&shelf));
    }

    /// After any number of commands: those in the way of every step.
    #[tokio::test]
    async fn an_interruption_at_any_moment_leaves_nothing_behind() {
        let mut interrupted = 0;
        for turns in 0..100 {
            let shelf = Shelf::with(&[("/dev/one", "one")]);
            let later = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            match try_out(&shelf, later).await {
                Err(Unproven::Interrupted(_)) => interrupted += 1,
                Ok(_) => {}
                Err(other) => panic!("after {turns} turns: {other}"),
            }
            assert!(is_free(&shelf), "after {turns} turns");
        }
        assert!((5..100).contains(&interrupted), "{interrupted}");
    }
}
