//! Commands: who is to carry them out, what they change, and what is answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{Ask, Command, Refused, Reply, Switch};
use super::io::{CommandId, Effect, Lasting};
use super::{Engine, TimerKey};
use crate::contact::Directive;
use crate::name::{HierarchyName, NodeName};
use crate::record::{Happened, Wish};

/// How long another node may take to answer a command.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// So much of who asked and why is kept, in characters: it travels in announcements.
const BY_MAX: usize = 100;
const REASON_MAX: usize = 200;
const WAS_MAX: usize = 300;

/// What one node sends to another for an operator.
#[derive(Serialize, Deserialize)]
enum Carried {
    Request { id: u64, command: Command },
    Answer { id: u64, result: Result<Reply, Refused> },
}

enum Verdict {
    Done(Result<Reply, Refused>),
    /// For that node to do.
    Pass(NodeName),
}

impl Engine {
    pub(super) fn asked(&mut self, id: CommandId, to: Option<NodeName>, command: Command) {
        let verdict = match to {
            Some(node) if node != *self.me() => {
                if self.contact.peer(&node).is_some() {
                    Verdict::Pass(node)
                } else {
                    Verdict::Done(Err(Refused::UnknownNode { name: node, known: self.config.contact.nodes.clone() }))
                }
            }
            _ => self.execute(&command),
        };
        match verdict {
            Verdict::Done(result) => self.effects.push_back(Effect::Answer { id, result }),
            Verdict::Pass(node) => self.pass_on(id, &node, command),
        }
    }

    fn pass_on(&mut self, id: CommandId, node: &NodeName, command: Command) {
        if !self.contact.in_contact(node) {
            let result = Err(Refused::NotNow(format!("{node} is not in contact with {}; nothing was done", self.me())));
            self.effects.push_back(Effect::Answer { id, result });
            return;
        }
        self.next_request += 1;
        let request = self.next_request;
        match self.send(node, &Carried::Request { id: request, command }) {
            Ok(parcel) => {
                self.parcels.insert((node.clone(), parcel), request);
                self.requests.insert(request, (id, node.clone()));
                self.timers.set(TimerKey::Request(request), self.now + ANSWER_WITHIN);
            }
            Err(why) => self.effects.push_back(Effect::Answer { id, result: Err(Refused::NotNow(why)) }),
        }
    }

    fn send(&mut self, node: &NodeName, carried: &Carried) -> Result<u64, String> {
        let bytes = serde_json::to_vec(carried).map_err(|e| e.to_string())?;
        self.contact.send_parcel(self.now, node, bytes).map(|id| id.0).map_err(|e| e.to_string())
    }

    pub(super) fn parcel(&mut self, from: &NodeName, bytes: &[u8]) {
        match serde_json::from_slice(bytes) {
            Ok(Carried::Request { id, command }) => {
                let result = match self.execute(&command) {
                    Verdict::Done(result) => result,
                    // Passed on once already: two nodes that each take the other for the holder must not play ball.
                    Verdict::Pass(node) => {
                        Err(Refused::NotNow(format!("it is for {node} to do, as {} sees it; ask there", self.me())))
                    }
                };
                if let Err(why) = self.send(from, &Carried::Answer { id, result }) {
                    self.tell(None, Happened::Trouble { what: format!("an answer to {from} was not sent: {why}") });
                }
            }
            Ok(Carried::Answer { id, result }) => {
                if self.requests.get(&id).is_some_and(|(_, node)| node == from)
                    && let Some((command, _)) = self.requests.remove(&id)
                {
                    self.timers.cancel(&TimerKey::Request(id));
                    self.effects.push_back(Effect::Answer { id: command, result });
                }
            }
            Err(error) => {
                let what = format!("{from} sent a command that this version does not understand ({error}): ignored");
                self.tell(None, Happened::Trouble { what });
            }
        }
    }

    pub(super) fn request_failed(&mut self, request: u64, why: &str) {
        if let Some((id, node)) = self.requests.remove(&request) {
            self.timers.cancel(&TimerKey::Request(request));
            let result = Err(Refused::NoAnswer { node, why: why.to_owned() });
            self.effects.push_back(Effect::Answer { id, result });
        }
    }

    fn execute(&mut self, command: &Command) -> Verdict {
        if let Some(name) = command.what.hierarchy()
            && !self.entries.contains_key(name)
        {
            let known = self.entries.keys().cloned().collect();
            return Verdict::Done(Err(Refused::UnknownHierarchy {
                name: name.clone(),
                node: self.me().clone(),
                known,
            }));
        }
        let done = |text: String| Verdict::Done(Ok(Reply::Accepted(text)));
        let (by, reason) = (command.by.as_str(), command.reason.as_str());
        match &command.what {
            Ask::Start { hierarchy } => {
                self.direct(hierarchy, by, reason, Some("started"), |d| d.stopped = false);
                done(format!("{hierarchy} may be in service again"))
            }
            Ask::Stop { hierarchy } => {
                self.direct(hierarchy, by, reason, Some("stopped"), |d| d.stopped = true);
                done(format!("{hierarchy} is taken out of service on every node, until `ha start {hierarchy}`"))
            }
            Ask::Unpin { hierarchy } => {
                self.direct(hierarchy, by, reason, Some("unpinned"), |d| d.pin = None);
                done(format!("{hierarchy} is not pinned any more; nothing moves by that alone"))
            }
            Ask::Maintenance { hierarchy, switch } => {
                let on = *switch == Switch::On;
                let what = if on { "maintenance begun" } else { "maintenance ended" };
                self.direct(hierarchy, by, reason, Some(what), |d| d.maintenance = on);
                if !on {
                    self.with_life(hierarchy, |life, _, now, out| life.monitor_all(now, out));
                }
                done(format!("{what} for {hierarchy}"))
            }
            Ask::Clear { hierarchy } => {
                self.clear(hierarchy, command);
                done(format!("{hierarchy}: declines, failure counts and quarantine are forgotten on every node"))
            }
            Ask::Broken { hierarchy, was } => {
                let (by, why) = (shortened(by, BY_MAX), shortened(reason, REASON_MAX));
                self.tell(Some(hierarchy), Happened::ClaimBroken { was: shortened(was, WAS_MAX), by, why });
                self.clear(hierarchy, command);
                done(format!("{hierarchy}: it is kept in the events that its reservation was broken, by whom and why"))
            }
            Ask::Move { hierarchy, to } => self.switchover(hierarchy, to.as_ref(), by, reason),
            Ask::Standby => {
                let (by, reason) = (shortened(by, BY_MAX), shortened(reason, REASON_MAX));
                let why = if reason.is_empty() { format!("asked by {by}") } else { format!("{reason} ({by})") };
                self.set_standby(Some(why), &by, &reason);
                done(format!("{0} hands over what it serves, and takes nothing until `ha online {0}`", self.me()))
            }
            Ask::Online => {
                self.set_standby(None, by, reason);
                done(format!("{} takes part again", self.me()))
            }
            Ask::Drain => {
                self.draining = true;
                self.standby = Some(format!("being drained by {}", shortened(by, BY_MAX)));
                self.announce_node();
                self.dirty.extend(self.entries.keys().cloned());
                done(format!("{} hands over what it serves; then its agent ends", self.me()))
            }
            Ask::View => Verdict::Done(Ok(Reply::View(Box::new(self.snapshot(self.now))))),
        }
    }

    fn clear(&mut self, hierarchy: &HierarchyName, command: &Command) {
        self.direct(hierarchy, &command.by, &command.reason, Some("cleared"), |d| {
            d.cleared += 1;
            d.quarantined = None;
        });
        self.with_life(hierarchy, |life, _, now, out| life.clear(now, out));
    }

    fn set_standby(&mut self, standby: Option<String>, by: &str, reason: &str) {
        if self.draining || self.standby == standby {
            return;
        }
        let what = if standby.is_some() { "standby" } else { "online" }.to_owned();
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.tell(None, Happened::Directive { what, by, reason, wish: Wish::Other });
        self.standby.clone_from(&standby);
        self.announce_node();
        self.effects.push_back(Effect::RememberStandby(standby));
        self.dirty.extend(self.entries.keys().cloned());
    }

    /// Checks all that can be checked before anything stops, then pins: the holder hands over to a pinned node that can serve.
    fn switchover(&mut self, name: &HierarchyName, to: Option<&NodeName>, by: &str, reason: &str) -> Verdict {
        let not_now = |why: String| Verdict::Done(Err(Refused::NotNow(why)));
        let Some(entry) = self.entries.get(name) else { return not_now(format!("{name} is gone")) };
        let nodes = &entry.life.hierarchy.nodes;
        if let Some(to) = to.filter(|to| !self.config.contact.nodes.contains(to)) {
            let known = self.config.contact.nodes.clone();
            return Verdict::Done(Err(Refused::UnknownNode { name: to.clone(), known }));
        }
        if let Some(to) = to.filter(|to| !nodes.contains(to)) {
            let list = nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
            return not_now(format!("{to} is not one of the nodes of {name}: expected one of {list}"));
        }
        let obstacle = [
            (entry.directive.maintenance, "in maintenance: end that first"),
            (entry.directive.stopped, "stopped by an operator: start it first"),
            (entry.directive.quarantined.is_some(), "in quarantine: clear it first"),
        ];
        if let Some((_, why)) = obstacle.iter().find(|(is, _)| *is) {
            return not_now(format!("{name} is {why}"));
        }
        if !entry.life.holds() {
            let serving = nodes.iter().find(|n| {
                self.contact.in_contact(n) && self.contact.announcement(n, name).is_some_and(|a| a.phase.holds_claim())
            });
            if let Some(holder) = serving {
                return Verdict::Pass(holder.clone());
            }
        }
        let target = match to {
            Some(to) => to.clone(),
            None => match entry.judgement.best_other.clone() {
                Some(best) => best,
                None => return not_now(format!("no other node in contact can serve {name}; nothing was done")),
            },
        };
        if let Err(why) = self.can_receive(name, &target) {
            return not_now(format!("{target} cannot take {name}: {why}; nothing was done"));
        }
        let stays = self.entries.get(name).is_some_and(|e| e.life.holds()) && target == *self.me();
        let pin = target.clone();
        self.direct(name, by, reason, Some(&format!("moved to {target}")), |d| d.pin = Some(pin));
        let text = if stays { "is in service there already; it is pinned" } else { "moves, and is pinned" };
        Verdict::Done(Ok(Reply::Accepted(format!(
            "{name} {text} to {target} until that node fails or `ha unpin {name}`"
        ))))
    }

    fn can_receive(&self, name: &HierarchyName, target: &NodeName) -> Result<(), String> {
        if target == self.me() {
            return match self.entries.get(name).and_then(|e| self.unready(e)) {
                Some(lacking) => Err(lacking),
                None => self.standby.as_ref().map_or(Ok(()), |why| Err(format!("it is in standby ({why})"))),
            };
        }
        if !self.contact.in_contact(target) {
            return Err(format!("it is not in contact with {}", self.me()));
        }
        let node = self.contact.node_announcement(target);
        if let Some(why) = node.and_then(|a| a.standby.as_ref()) {
            return Err(format!("it is in standby ({why})"));
        }
        let Some(told) = self.contact.announcement(target, name) else {
            return Err("it has not said anything of the hierarchy".to_owned());
        };
        if told.utility.get() == 0 {
            return Err("its utility is 0".to_owned());
        }
        if let Some(lacking) = &told.unready {
            return Err(format!("it is not ready: {lacking}"));
        }
        if let Some(declined) = &told.declined {
            return Err(format!("it declined ({}); `ha clear {name}` ends that", declined.why));
        }
        if self.entries.get(name).is_some_and(|e| e.life.hierarchy.fingerprint != told.definition) {
            return Err("it defines the hierarchy differently".to_owned());
        }
        Ok(())
    }

    /// Changes what is wanted of a hierarchy, for all nodes.
    pub(super) fn direct(
        &mut self,
        name: &HierarchyName,
        by: &str,
        reason: &str,
        what: Option<&str>,
        edit: impl FnOnce(&mut Directive),
    ) {
        let me = self.me().clone();
        let Some(entry) = self.entries.get_mut(name) else { return };
        let mut directive = entry.directive.clone();
        edit(&mut directive);
        if directive == entry.directive {
            return;
        }
        directive.serial += 1;
        directive.author = Some(me);
        directive.by = shortened(by, BY_MAX);
        directive.reason = shortened(reason, REASON_MAX);
        let wish = Wish::between(&entry.directive, &directive);
        entry.directive = directive;
        if let Some(what) = what {
            let (what, by, reason) = (what.to_owned(), by.to_owned(), reason.to_owned());
            self.tell(Some(name), Happened::Directive { what, by, reason, wish });
        }
        self.remember(name);
        self.announce(name);
        self.dirty.insert(name.clone());
    }

    /// Has what must outlive a boot written down.
    pub(super) fn remember(&mut self, name: &HierarchyName) {
        let Some(entry) = self.entries.get(name) else { return };
        let declined = entry.life.declined.as_ref().map(|d| {
            let left = self.now.until(d.until).as_millis();
            (d.why.clone(), u64::try_from(left).unwrap_or(u64::MAX))
        });
        let lasting = Lasting { epoch: entry.life.known, declined, directive: entry.directive.clone() };
        self.effects.push_back(Effect::RememberLasting { hierarchy: name.clone(), lasting });
    }
}

fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// What changed from one directive to a later one, in words.
pub(super) fn describe(before: &Directive, after: &Directive) -> String {
    let mut changes = Vec::new();
    if before.stopped != after.stopped {
        changes.push(if after.stopped { "stopped".to_owned() } else { "started".to_owned() });
    }
    if before.maintenance != after.maintenance {
        changes.push(if after.maintenance { "maintenance begun" } else { "maintenance ended" }.to_owned());
    }
    if before.pin != after.pin {
        changes.push(match &after.pin {
            Some(node) => format!("pinned to {node}"),
            None => "unpinned".to_owned(),
        });
    }
    if before.quarantined != after.quarantined {
        changes.push(match &after.quarantined {
            Some(why) => format!("quarantined: {why}"),
            None => "out of quarantine".to_owned(),
        });
    }
    if before.cleared != after.cleared {
        changes.push("cleared".to_owned());
    }
    if changes.is_empty() { "nothing but the author changed".to_owned() } else { changes.join(", ") }
}
