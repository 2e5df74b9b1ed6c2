//! Reading what happens: the exact inverse of how an [`Action`] prints.
//!
//! Decides the words for every action.

use super::words::{Line, Parsed};
use crate::engine::{Ask, Switch};
use crate::name::HierarchyName;
use crate::recovery::Pressure;
use crate::sim::action::{Action, Answers, Behaviour, ToDisk, Way};
use crate::sim::disk::Path;
use crate::sim::network::Weather;

/// The words that an action begins with.
pub(super) const ACTIONS: &[&str] = &[
    "power", "freeze", "thaw", "kill", "start", "pause", "resume", "hang", "free", "lag", "pressure", "cut", "join",
    "heal", "weather", "storage", "crash", "behave", "utility", "missing", "ask", "reload", "upgrade", "disk", "path",
];

/// An action, from its first word on.
pub(super) fn action(line: &mut Line<'_>) -> Parsed<Action> {
    let action = match line.word(ACTIONS)? {
        "power" => match line.word(&["on", "off"])? {
            "on" => Action::PowerOn(line.node()?),
            _ => Action::PowerOff(line.node()?),
        },
        "freeze" => Action::Freeze(line.node()?),
        "thaw" => Action::Thaw(line.node()?),
        verb @ ("kill" | "start" | "pause" | "resume") => {
            line.words(&["agent", "of"])?;
            let of: fn(_) -> Action = match verb {
                "kill" => Action::KillAgent,
                "start" => Action::StartAgent,
                "pause" => Action::PauseAgent,
                _ => Action::ResumeAgent,
            };
            of(line.node()?)
        }
        verb @ ("hang" | "free") => {
            line.words(&["operations", "of"])?;
            let of: fn(_) -> Action = if verb == "hang" { Action::HangOperations } else { Action::FreeOperations };
            of(line.node()?)
        }
        "lag" => {
            let node = line.node()?;
            line.words(&["by"])?;
            Action::Lag(node, line.span()?)
        }
        "pressure" => {
            line.words(&["of"])?;
            let node = line.node()?;
            let high = line.word(&["calm", "high"])? == "high";
            Action::Pressure(node, if high { Pressure::High } else { Pressure::Calm })
        }
        verb @ ("cut" | "join") => cut_or_join(line, verb)?,
        "heal" => match line.word(&["all", "network"])? {
            "all" => Action::HealAll,
            _ => Action::HealNetwork,
        },
        "weather" => weather(line)?,
        "disk" => {
            let (hierarchy, disk) = disk(line)?;
            Action::Disk { hierarchy, disk, what: to_disk(line)? }
        }
        "path" => {
            let port = line.number("the number of a port, from 1 on")?;
            line.words(&["of"])?;
            let node = line.node()?;
            line.words(&["to", "disk"])?;
            let (hierarchy, disk) = disk(line)?;
            let way = if line.word(&["up", "down"])? == "up" { Way::Up } else { Way::Down };
            Action::DiskPath { node, hierarchy, disk, port, way }
        }
        "storage" => {
            line.words(&["of"])?;
            Action::Storage(line.node()?, path(line)?)
        }
        "crash" => {
            let (hierarchy, resource) = line.resource()?;
            line.words(&["on"])?;
            Action::Crash { node: line.node()?, hierarchy, resource }
        }
        "behave" => {
            let (hierarchy, resource) = line.resource()?;
            let node = match line.word(&["on", "everywhere"])? {
                "on" => Some(line.node()?),
                _ => None,
            };
            Action::Behave { node, hierarchy, resource, how: behaviour(line)? }
        }
        "utility" => {
            line.words(&["of"])?;
            let hierarchy = line.hierarchy()?;
            line.words(&["on"])?;
            let node = line.node()?;
            let of = |word: &str| word.parse().ok().filter(|utility| *utility <= 100);
            Action::Utility { node, hierarchy, utility: line.read("a utility, 0 to 100", of)? }
        }
        "missing" => {
            line.words(&["for"])?;
            let hierarchy = line.hierarchy()?;
            line.words(&["on"])?;
            let node = line.node()?;
            line.mark(':')?;
            let what = if line.takes("nothing") { None } else { Some(line.text()?) };
            Action::Lacks { node, hierarchy, what }
        }
        "ask" => {
            let at = line.node()?;
            let to = if line.takes("for") { Some(line.node()?) } else { None };
            line.mark(':')?;
            Action::Ask { at, to, ask: ask(line)? }
        }
        "reload" => {
            let hierarchy = line.hierarchy()?;
            line.words(&["on"])?;
            let node = line.node()?;
            line.words(&["revision"])?;
            Action::Reload { node, hierarchy, revision: line.number("the number of a revision")? }
        }
        _ => {
            let node = line.node()?;
            line.words(&["to"])?;
            Action::Upgrade { node, version: line.text()? }
        }
    };
    Ok(action)
}

fn cut_or_join(line: &mut Line<'_>, verb: &str) -> Parsed<Action> {
    // A node may have the name "all".
    let mut whole = line.clone();
    if verb == "cut" && whole.takes("all") && whole.is_over() {
        *line = whole;
        return Ok(Action::CutAll);
    }
    let from = line.node()?;
    line.words(&["->"])?;
    let to = line.node()?;
    let channel = if line.takes("on") {
        let count = line.names().channels;
        let networks: Vec<String> = (0..count).map(|n| format!("`net{n}`")).collect();
        let of = |word: &str| word.strip_prefix("net")?.parse().ok().filter(|n: &usize| *n < count);
        Some(line.read(&networks.join(" or "), of)?)
    } else {
        None
    };
    Ok(match verb {
        "cut" => Action::Cut { from, to, channel },
        _ => Action::Join { from, to, channel },
    })
}

/// `0 of web`.
fn disk(line: &mut Line<'_>) -> Parsed<(HierarchyName, usize)> {
    let disk = line.number("the number of a disk, from 0 on")?;
    line.words(&["of"])?;
    Ok((line.hierarchy()?, disk))
}

fn to_disk(line: &mut Line<'_>) -> Parsed<ToDisk> {
    let percent = "a share, such as `10%` or `0.5%`";
    Ok(match line.word(&["off", "on", "reset", "answers"])? {
        "off" => ToDisk::Off,
        "on" => ToDisk::On,
        "reset" => ToDisk::Reset,
        _ => ToDisk::Answers(match line.word(&["well", "lost", "late", "busy", "full"])? {
            "well" => Answers::Good,
            "lost" => Answers::Lost(line.read(percent, share)?),
            "busy" => Answers::Busy(line.read(percent, share)?),
            "full" => Answers::Full,
            _ => {
                line.words(&["by"])?;
                Answers::Late(line.span()?)
            }
        }),
    })
}

/// Of 1,000, from a percentage with at most one decimal.
fn share(word: &str) -> Option<u16> {
    let percent = word.strip_suffix('%')?;
    let (whole, tenths) = percent.split_once('.').unwrap_or((percent, "0"));
    let tenths = Some(tenths).filter(|tenths| tenths.len() == 1)?;
    let share = whole.parse::<u16>().ok()?.checked_mul(10)?.checked_add(tenths.parse().ok()?)?;
    Some(share).filter(|share| *share <= 1_000)
}

fn weather(line: &mut Line<'_>) -> Parsed<Action> {
    let percent = "a share, such as `10%` or `0.5%`";
    line.words(&["lost"])?;
    let lost = line.read(percent, share)?;
    line.words(&["doubled"])?;
    let doubled = line.read(percent, share)?;
    line.words(&["delay"])?;
    Ok(Action::Weather(Weather { lost, doubled, delay: line.span()? }))
}

fn path(line: &mut Line<'_>) -> Parsed<Path> {
    Ok(match line.word(&["good", "slow", "errors", "hangs", "lost"])? {
        "good" => Path::Good,
        "slow" => {
            line.words(&["by"])?;
            Path::Slow(line.span()?)
        }
        "errors" => Path::Errors,
        "hangs" => Path::Hangs,
        _ => Path::Lost,
    })
}

fn behaviour(line: &mut Line<'_>) -> Parsed<Behaviour> {
    let words = &[
        "well",
        "start-fails",
        "start-hangs",
        "stop-fails",
        "stop-hangs",
        "unkillable",
        "monitor-bad",
        "monitor-hangs",
        "monitor-lies",
        "crashes-after",
    ];
    Ok(match line.word(words)? {
        "well" => Behaviour::Well,
        "start-fails" => Behaviour::StartFails,
        "start-hangs" => Behaviour::StartHangs,
        "stop-fails" => Behaviour::StopFails,
        "stop-hangs" => Behaviour::StopHangs,
        "unkillable" => Behaviour::Unkillable,
        "monitor-bad" => Behaviour::MonitorBad,
        "monitor-hangs" => Behaviour::MonitorHangs,
        "monitor-lies" => Behaviour::MonitorLies,
        _ => Behaviour::Crashes(line.span()?),
    })
}

fn ask(line: &mut Line<'_>) -> Parsed<Ask> {
    let words = &["start", "stop", "move", "unpin", "clear", "begin", "end", "standby", "online", "drain", "view"];
    Ok(match line.word(words)? {
        "start" => Ask::Start { hierarchy: line.hierarchy()? },
        "stop" => Ask::Stop { hierarchy: line.hierarchy()? },
        "move" => {
            let hierarchy = line.hierarchy()?;
            let to = if line.takes("to") { Some(line.node()?) } else { None };
            Ask::Move { hierarchy, to }
        }
        "unpin" => Ask::Unpin { hierarchy: line.hierarchy()? },
        "clear" => Ask::Clear { hierarchy: line.hierarchy()? },
        verb @ ("begin" | "end") => {
            line.words(&["maintenance", "of"])?;
            let switch = if verb == "begin" { Switch::On } else { Switch::Off };
            Ask::Maintenance { hierarchy: line.hierarchy()?, switch }
        }
        "standby" => Ask::Standby,
        "online" => Ask::Online,
        "drain" => Ask::Drain,
        _ => Ask::View,
    })
}
