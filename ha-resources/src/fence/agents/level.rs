//! Fencing a node: its levels in order, all devices of a level, until one level proves it.
//!
//! Decides what is proof: after every device of a level was told to switch off, every one of them answers that it is off. What an agent says of its
//! own success is no proof. Leaves running agents to [`super::device`].

use std::time::Duration;

use ha_core::driver::Failed;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::device::{FenceDevice, PowerState};

/// A device that was told to switch off, and still says on, is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// So often at most.
const ASKS: u32 = 6;

/// What is to be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// It is switched off, and stays so.
    Off,
    /// It is switched off and, once that is proven, on again.
    Reboot,
}

/// What is known after fencing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The node was off: every device of one level said so.
    Off,
    /// The node was cut off from what the devices of one level guard, as they said; it may be running.
    CutOff,
    /// Neither was shown.
    None,
}

/// One action of one device, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The level, from 1.
    pub level: usize,
    /// Which device.
    pub device: String,
    /// "off", "on", "reboot", "status" or "monitor".
    pub action: String,
    /// How long it took.
    pub took_ms: u64,
    /// What it came to, for people.
    pub outcome: Result<String, String>,
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Which device.
    pub device: String,
    /// What it answered last when it was asked; `None` if it was not asked, or gave no answer that can be used.
    pub answered: Option<PowerState>,
    /// What was wrong, the first thing first.
    pub troubles: Vec<String>,
}

/// What became of one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelReport {
    /// Its number, from 1.
    pub level: usize,
    /// Its devices.
    pub devices: Vec<DeviceReport>,
    /// What it has proven.
    pub proof: Proof,
}

/// What became of it all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceReport {
    /// The levels that were tried, in order.
    pub levels: Vec<LevelReport>,
    /// What is proven.
    pub proof: Proof,
}

/// Where each step is told of as it ends.
pub type Progress = mpsc::UnboundedSender<Step>;

impl FenceReport {
    /// In one line.
    pub fn describe(&self) -> String {
        let level = |report: &LevelReport| format!("level {}: {}", report.level, report.describe());
        match (&self.proof, self.levels.last()) {
            (Proof::None, _) | (_, None) => self.levels.iter().map(level).collect::<Vec<_>>().join("; "),
            (_, Some(last)) => level(last),
        }
    }
}

impl LevelReport {
    fn describe(&self) -> String {
        let device = |report: &DeviceReport| {
            let says = match report.answered {
                Some(PowerState::Off) => "says off",
                Some(PowerState::On) => "says on",
                None => "does not say",
            };
            match report.troubles.first() {
                Some(trouble) if report.answered != Some(PowerState::Off) => {
                    format!("{} {says} ({trouble})", report.device)
                }
                _ => format!("{} {says}", report.device),
            }
        };
        self.devices.iter().map(device).collect::<Vec<_>>().join(", ")
    }
}

/// Switches a node off: level by level, until one proves it.
pub async fn fence(levels: &[Vec<FenceDevice>], progress: &Progress) -> FenceReport {
    let mut report = FenceReport { levels: Vec::new(), proof: Proof::None };
    for (place, devices) in levels.iter().enumerate() {
        let level = try_level(place + 1, devices, progress).await;
        report.proof = level.proof.clone();
        report.levels.push(level);
        if report.proof != Proof::None {
            break;
        }
    }
    report
}

/// Switches a node on again, by the devices of the level that had switched it off. The error is for people.
pub async fn switch_on(level: usize, devices: &[FenceDevice], progress: &Progress) -> Result<(), String> {
    let mut troubles = Vec::new();
    for device in devices {
        let done =
            told(level, device, "on", progress, async { device.run("on").await.map(|()| "done".to_owned()) }).await;
        troubles.extend(done.err().map(|why| format!("{}: {why}", device.label())));
    }
    if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
}

/// Asks every device of the level that switched a node off whether it is off still. Touches nothing.
pub async fn still_off(level: usize, devices: &[FenceDevice], progress: &Progress) -> bool {
    for device in devices {
        let answer = device.status().await;
        let off = answer == Ok(PowerState::Off);
        let shown = async { answer.map(|state| says(state).to_owned()) };
        let _ = told(level, device, "status", progress, shown).await;
        if !off {
            return false;
        }
    }
    true
}

/// Asks every device whether it can be reached, and whether the node is on. Touches nothing. What is wrong, each a sentence.
pub async fn look_at(levels: &[Vec<FenceDevice>], progress: &Progress) -> Vec<String> {
    let mut troubles = Vec::new();
    for (place, devices) in levels.iter().enumerate() {
        for device in devices {
            let level = place + 1;
            let mut note = |done: Result<String, String>| {
                troubles.extend(done.err().map(|why| format!("level {level}, {}: {why}", device.label())));
            };
            let monitor = async { device.monitor().await.map(|()| "it answers".to_owned()) };
            note(told(level, device, "monitor", progress, monitor).await);
            // One that cannot say is found by `ha check`; fencing by it is never proven.
            if device.abilities().await.is_ok_and(|able| able.status) {
                note(told(level, device, "status", progress, status(device)).await);
            }
        }
    }
    troubles
}

async fn status(device: &FenceDevice) -> Result<String, Failed> {
    device.status().await.map(|state| says(state).to_owned())
}

fn says(state: PowerState) -> &'static str {
    match state {
        PowerState::On => "it says that the node is on",
        PowerState::Off => "it says that the node is off",
    }
}

/// Does one thing, and tells of it.
async fn told(
    level: usize,
    device: &FenceDevice,
    action: &str,
    progress: &Progress,
    doing: impl Future<Output = Result<String, Failed>>,
) -> Result<String, String> {
    let begun = Instant::now();
    let outcome = doing.await.map_err(|Failed(why)| why);
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let step = Step { level, device: device.label(), action: action.to_owned(), took_ms, outcome: outcome.clone() };
    // Whoever asked may have gone away: the work goes on.
    let _ = progress.send(step);
    outcome
}

async fn try_level(level: usize, devices: &[FenceDevice], progress: &Progress) -> LevelReport {
    let mut reports = Vec::new();
    let mut cuts_only = false;
    let mut able = Vec::new();
    // All are switched off before any is asked: a machine with two supplies is off when both are at the same time.
    for device in devices {
        let mut report = DeviceReport { device: device.label(), answered: None, troubles: Vec::new() };
        let abilities = device.abilities().await;
        match &abilities {
            Ok(abilities) => {
                cuts_only |= abilities.is_fabric;
                let action = if abilities.off { "off" } else { "reboot" };
                let doing = async { device.run(action).await.map(|()| "done, as it says".to_owned()) };
                report.troubles.extend(told(level, device, action, progress, doing).await.err());
            }
            Err(Failed(why)) => {
                let why = why.clone();
                report.troubles.extend(told(level, device, "off", progress, async { Err(Failed(why)) }).await.err());
            }
        }
        able.push(abilities.is_ok_and(|able| able.status));
        reports.push(report);
    }
    for ((device, report), able) in devices.iter().zip(&mut reports).zip(able) {
        if able {
            prove(level, device, report, progress).await;
        } else {
            report.troubles.push("it has no status that could prove anything".to_owned());
        }
    }
    let all_off = reports.iter().all(|report| report.answered == Some(PowerState::Off));
    let proof = match (all_off, cuts_only) {
        (false, _) => Proof::None,
        (true, true) => Proof::CutOff,
        (true, false) => Proof::Off,
    };
    LevelReport { level, devices: reports, proof }
}

/// Asks a device until it says off, for a while: some need a moment until what they did shows.
async fn prove(level: usize, device: &FenceDevice, report: &mut DeviceReport, progress: &Progress) {
    let until = Instant::now() + device.timeout();
    for asked in 1..=ASKS {
        let mut state = None;
        let asking = async {
            let answer = device.status().await?;
            state = Some(answer);
            Ok(says(answer).to_owned())
        };
        let outcome = told(level, device, "status", progress, asking).await;
        report.answered = state;
        report.troubles.extend(outcome.err());
        if state == Some(PowerState::Off) || asked == ASKS || Instant::now() >= until {
            return;
        }
        sleep(ASK_AGAIN).await;
    }
}
