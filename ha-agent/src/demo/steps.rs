//! The steps of the demonstration, and what must hold after each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ha_core::contact::AnnouncedPhase;
use ha_core::engine::{Ask, Snapshot};
use ha_core::name::{HierarchyName, NodeName};
use ha_core::record::Cause;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Answer;
use super::relay::Link;
use super::report::{self, Played};
use super::say;
use super::stage::{After, HIERARCHIES, NODES, Stage, To, Wrong};

/// What must happen is waited for this long, also on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);

type Served = BTreeMap<&'static str, Answer>;

/// Plays everything; returns what was played and, if it could not go on, why.
pub(super) async fn play(stage: &mut Stage) -> (Vec<Played>, Option<Wrong>) {
    let mut play = Play { stage, played: Vec::new() };
    let stopped = play.all().await.err();
    (play.played, stopped)
}

struct Play<'a> {
    stage: &'a mut Stage,
    played: Vec<Played>,
}

impl Play<'_> {
    async fn all(&mut self) -> Result<(), Wrong> {
        self.first_start().await?;
        self.power_loss().await?;
        self.hang().await?;
        self.crash().await?;
        self.switchover().await?;
        self.agent_killed().await?;
        self.heartbeats_cut().await?;
        self.last_man_standing().await
    }

    async fn first_start(&mut self) -> Result<(), Wrong> {
        self.begin("First start", "Three machines are switched on. Every hierarchy goes to the node that it prefers.");
        for node in NODES {
            self.stage.start(node, After::Boot)?;
        }
        let preferred = |served: &Served| HIERARCHIES.iter().all(|(h, nodes)| on(served, h) == Some(nodes[0]));
        let served = self.served("every hierarchy on its preferred node", preferred).await?;
        self.wait_in_contact(&NODES).await?;
        let mut wrong = Vec::new();
        for (hierarchy, nodes) in HIERARCHIES {
            if on(&served, hierarchy) != Some(nodes[0]) {
                wrong.push(format!("{hierarchy} should be on {}", nodes[0]));
            }
        }
        self.end("first start", "each on its preferred node", None, wrong).await
    }

    async fn power_loss(&mut self) -> Result<(), Wrong> {
        self.begin(
            "Power loss of a master",
            "Everything of alpha is killed at once: agent, warden, services. The node next in web's list has lost contact with \
             every node preferred over it, waits until alpha's lease is proven to have ended, and takes over.",
        );
        let before = self.now_served();
        self.stage.signal("alpha", To::Everything, Signal::SIGKILL);
        let served = self.served("web on beta", |s| on(s, "web") == Some("beta")).await?;
        let mut wrong = grew(&before, &served, "web");
        wrong.extend(untouched(&before, &served, &["mail", "db"]));
        self.end("power loss of the master", "web: alpha → beta", Some("web"), wrong).await?;

        say("   alpha is switched on again. Nothing moves by that: failing back would be a second interruption.\n");
        self.stage.start("alpha", After::Boot)?;
        self.wait_in_contact(&NODES).await?;
        let after = self.now_served();
        self.must(untouched(&served, &after, &["web", "mail", "db"]));
        Ok(())
    }

    async fn hang(&mut self) -> Result<(), Wrong> {
        self.begin(
            "A node hangs, and wakes up again",
            "beta's agent and services are frozen. Its warden, which stands for the watchdog hardware that even a hung machine has, \
             ends what runs there when the lease does; only then can another node have it. Then beta wakes up.",
        );
        let before = self.now_served();
        self.stage.signal("beta", To::AgentAndServices, Signal::SIGSTOP);
        let elsewhere = |s: &Served| ["web", "mail"].iter().all(|h| on(s, h).is_some_and(|n| n != "beta"));
        let served = self.served("web and mail on other nodes", elsewhere).await?;
        let mut wrong = grew(&before, &served, "web");
        wrong.extend(grew(&before, &served, "mail"));
        wrong.extend(untouched(&before, &served, &["db"]));
        self.stage.signal("beta", To::AgentAndServices, Signal::SIGCONT);
        self.wait_view("beta", "beta to find that it serves nothing", |view| {
            view.hierarchies.iter().all(|h| matches!(h.phase, AnnouncedPhase::Out | AnnouncedPhase::Waiting))
        })
        .await?;
        self.wait_in_contact(&NODES).await?;
        let after = self.now_served();
        wrong.extend(untouched(&served, &after, &["web", "mail", "db"]));
        let to = on(&served, "mail").unwrap_or("?");
        self.end("a hung node that wakes up", &format!("mail: beta → {to}; beta stays out"), Some("mail"), wrong).await
    }

    async fn crash(&mut self) -> Result<(), Wrong> {
        self.begin(
            "An application crashes",
            "The program of db is killed. The agent sees it at once and restarts it in place: same node, same epoch.",
        );
        let before = self.now_served();
        let old = before.get("db").ok_or("db is not in service")?.clone();
        let _ = kill(Pid::from_raw(old.pid), Signal::SIGKILL);
        let served = self.served("a new program of db", |s| s.get("db").is_some_and(|a| a.pid != old.pid)).await?;
        let mut wrong = untouched(&before, &served, &["web", "mail"]);
        let new = &served["db"];
        if (new.node.as_str(), new.epoch) != (old.node.as_str(), old.epoch) {
            wrong.push(format!("db moved from {} to {}", old.node, new.node));
        }
        self.end("application crash", &format!("db restarted on {}", old.node), Some("db"), wrong).await
    }

    async fn switchover(&mut self) -> Result<(), Wrong> {
        self.begin(
            "A switchover",
            "`ha move web beta`: everything is checked first, then web is stopped where it runs, its claim is handed to beta, and beta \
             starts it. It is pinned there until beta fails or `ha unpin web`.",
        );
        let web = HierarchyName::new("web").map_err(|e| e.to_string())?;
        let beta = NodeName::new("beta").map_err(|e| e.to_string())?;
        let before = self.now_served();
        self.stage.ask("gamma", Ask::Move { hierarchy: web.clone(), to: Some(beta) }).await?;
        let served = self.served("web on beta", |s| on(s, "web") == Some("beta")).await?;
        let mut wrong = grew(&before, &served, "web");
        wrong.extend(untouched(&before, &served, &["mail", "db"]));
        let from = on(&before, "web").unwrap_or("?").to_owned();
        self.end("switchover", &format!("web: {from} → beta"), Some("web"), wrong).await?;
        self.stage.ask("gamma", Ask::Unpin { hierarchy: web }).await?;
        Ok(())
    }

    async fn agent_killed(&mut self) -> Result<(), Wrong> {
        self.begin(
            "An agent is killed and restarted",
            "beta's agent is killed, and started again as systemd would. Services are not its children in any way that matters: it \
             proves its claims anew, finds what runs, and carries on.",
        );
        let before = self.now_served();
        self.stage.signal("beta", To::Agent, Signal::SIGKILL);
        self.stage.start("beta", After::AgentDeath)?;
        self.wait_view("beta", "beta to have adopted web", |view| {
            view.hierarchies.iter().any(|h| h.name.as_str() == "web" && h.phase == AnnouncedPhase::InService)
        })
        .await?;
        self.wait_in_contact(&NODES).await?;
        let after = self.now_served();
        let mut wrong = untouched(&before, &after, &["web", "mail", "db"]);
        for (hierarchy, client) in &self.stage.clients {
            let (_, lost) = client.measured();
            if lost > 0 {
                wrong.push(format!("{lost} questions to {hierarchy} were lost"));
            }
        }
        self.end("agent killed and restarted", "web adopted, not interrupted", Some("web"), wrong).await
    }

    async fn heartbeats_cut(&mut self) -> Result<(), Wrong> {
        self.begin(
            "All heartbeats are cut, the storage is still there",
            "No datagram passes between the nodes any more. But each of them beats in the lock area too: everybody is seen to be alive, and \
             nothing moves.",
        );
        let before = self.now_served();
        self.stage.relay.set(Link::Cut);
        let silent = |view: &Snapshot| {
            view.peers.iter().all(|p| {
                let mut network = p.channels.iter().filter(|c| c.channel.starts_with("udp")).peekable();
                network.peek().is_some() && network.all(|c| c.heard_ms_ago > 2_000)
            })
        };
        for node in NODES {
            self.wait_view(node, "two seconds of silence, five times what means that contact is lost", silent).await?;
        }
        let after = self.now_served();
        let wrong = untouched(&before, &after, &["web", "mail", "db"]);
        self.stage.relay.set(Link::Up);
        self.end("all heartbeats cut", "nothing moved", Some("web"), wrong).await?;
        for node in NODES {
            self.wait_view(node, "heartbeats to pass again", |view| !silent(view)).await?;
        }
        Ok(())
    }

    async fn last_man_standing(&mut self) -> Result<(), Wrong> {
        self.begin(
            "The last one standing",
            "Two of the three nodes lose power, one after the other. There is no quorum to lose: the last one serves everything.",
        );
        let before = self.now_served();
        let last = "beta";
        for node in ["alpha", "gamma"] {
            self.stage.signal(node, To::Everything, Signal::SIGKILL);
            self.served("nothing on a dead node", |s| s.len() == 3 && s.values().all(|a| a.node != node)).await?;
        }
        let served =
            self.served("everything on beta", |s| HIERARCHIES.iter().all(|(h, _)| on(s, h) == Some(last))).await?;
        let mut wrong = Vec::new();
        for (hierarchy, _) in HIERARCHIES {
            if on(&before, hierarchy) != Some(last) {
                wrong.extend(grew(&before, &served, hierarchy));
            }
        }
        self.end("last one standing", "beta serves all three", Some("db"), wrong).await
    }

    // --- Tools ---------------------------------------------------------------------------------------------------------------

    fn begin(&mut self, title: &'static str, told: &str) {
        say(&report::head(self.played.len() + 1, title, told));
        for client in self.stage.clients.values() {
            client.mark();
        }
    }

    /// Shows a step, with the figures of one hierarchy.
    async fn end(
        &mut self,
        title: &'static str,
        what: &str,
        figures_of: Option<&'static str>,
        wrong: Vec<String>,
    ) -> Result<(), Wrong> {
        let mut played = Played { title, what: what.to_owned(), t_detect: None, t_recover: None, outage: None, wrong };
        if let Some(hierarchy) = figures_of {
            let (gap, lost) =
                self.stage.clients.get(hierarchy).map(super::client::Client::measured).unwrap_or_default();
            let name = HierarchyName::new(hierarchy).map_err(|e| e.to_string())?;
            let node = self.now_served().get(hierarchy).map(|a| a.node.clone()).unwrap_or_default();
            let moved = !matches!(title, "all heartbeats cut" | "agent killed and restarted");
            if moved && let Some(timeline) = self.timeline_of(&node, &name).await {
                if timeline.cause != Cause::Adoption {
                    played.t_detect = Some(timeline.t_detect());
                    played.t_recover = Some(timeline.t_recover());
                }
                say(&report::timeline(&timeline));
            }
            played.outage = Some(gap);
            say(&report::client(hierarchy, gap, lost));
        }
        say(&report::verdict(&played.wrong));
        self.played.push(played);
        Ok(())
    }

    /// The timeline that ends in the epoch that the client sees; its agent may be a moment behind.
    async fn timeline_of(&self, node: &str, hierarchy: &HierarchyName) -> Option<ha_core::record::Timeline> {
        let epoch = self.now_served().get(hierarchy.as_str()).map(|a| a.epoch)?;
        let begun = Instant::now();
        loop {
            if let Some(timeline) = self.stage.timeline(node, hierarchy).await
                && timeline.epoch.0 >= epoch
            {
                return Some(timeline);
            }
            if begun.elapsed() > Duration::from_secs(5) {
                return None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Facts outside a step's own verdict; they count towards the last step.
    fn must(&mut self, wrong: Vec<String>) {
        say(&report::verdict(&wrong));
        if let Some(last) = self.played.last_mut() {
            last.wrong.extend(wrong);
        }
    }

    fn now_served(&self) -> Served {
        self.stage.clients.iter().filter_map(|(h, c)| Some((*h, c.last()?))).collect()
    }

    async fn served(&self, what: &str, accept: impl Fn(&Served) -> bool) -> Result<Served, Wrong> {
        let begun = Instant::now();
        loop {
            let served = self.now_served();
            if accept(&served) {
                return Ok(served);
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("waited {PATIENCE:?} for {what}, and saw {served:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn wait_view(&self, node: &str, what: &str, accept: impl Fn(&Snapshot) -> bool) -> Result<(), Wrong> {
        let begun = Instant::now();
        loop {
            let view = self.stage.view(node).await;
            if view.as_ref().is_some_and(&accept) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let view = view.map(|v| serde_json::to_string(&v).unwrap_or_default());
                return Err(format!("waited {PATIENCE:?} for {what}; {node} says: {view:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Until all of them hear each other and say where every hierarchy stands.
    async fn wait_in_contact(&self, nodes: &[&'static str]) -> Result<(), Wrong> {
        for node in nodes {
            self.wait_view(node, "all nodes to hear each other", |view| {
                view.peers.iter().all(|p| p.state == "alive")
                    && view
                        .hierarchies
                        .iter()
                        .all(|h| h.nodes.iter().all(|n| n.phase.is_some() && n.ineligible.is_none()))
            })
            .await?;
        }
        Ok(())
    }
}

fn on<'a>(served: &'a Served, hierarchy: &str) -> Option<&'a str> {
    served.get(hierarchy).map(|a| a.node.as_str())
}

/// A hierarchy that moved has a greater epoch.
fn grew(before: &Served, after: &Served, hierarchy: &str) -> Vec<String> {
    let epoch = |s: &Served| s.get(hierarchy).map_or(0, |a| a.epoch);
    if epoch(after) > epoch(before) {
        return Vec::new();
    }
    vec![format!("{hierarchy} moved from epoch {} to {}", epoch(before), epoch(after))]
}

/// Same node, same epoch, same process.
fn untouched(before: &Served, after: &Served, hierarchies: &[&str]) -> Vec<String> {
    let same = |h: &&&str| before.get(**h) != after.get(**h);
    hierarchies
        .iter()
        .filter(same)
        .map(|h| format!("{h} was touched: {:?} became {:?}", before.get(*h), after.get(*h)))
        .collect()
}
