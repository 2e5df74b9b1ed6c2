//! Agents in a laboratory: writes what an administrator would write, starts them, and asks what they say.
//!
//! Decides a configuration fit for tests: short times, a lock area on the shared disk, the warden as watchdog. A test changes any file of any
//! node before it starts the agents.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::lab::program;
use crate::node::{Node, address};
use crate::trouble::{Result, Trouble, While as _, end_of};
use crate::wait::eventually;
use crate::{Builder, Client, Lab};

/// The address at which the service of [`served`] can be reached.
pub const SERVICE: &str = "10.77.0.100:7000";

/// The configuration folder as a node sees it.
pub(crate) const CONFIG: &str = "/run/lab/etc";

/// What has nodes for agents to run on.
pub trait Machines {
    /// The names of the nodes.
    fn names(&self) -> Vec<String>;
    /// Runs a program on a node to its end: whether it ended well, what it wrote, and what it complained of.
    fn run_on(&self, node: &str, program: &str, arguments: &[&str]) -> Result<(bool, String, String)>;
    /// All that the agent of a node has logged.
    fn agent_log_of(&self, node: &str) -> String;
    /// Waits before looking again at what costs a node a program's run.
    fn pause(&self) {}
    /// Has a node keep an agent running.
    fn start_agent_on(&self, node: &str) -> Result<()>;
}

impl Machines for Lab {
    fn names(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.name().to_owned()).collect()
    }

    fn run_on(&self, node: &str, program: &str, arguments: &[&str]) -> Result<(bool, String, String)> {
        let output = self.node(node).run(program, arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }

    fn agent_log_of(&self, node: &str) -> String {
        self.node(node).agent_log()
    }

    fn start_agent_on(&self, node: &str) -> Result<()> {
        self.node(node).start_agent()
    }
}

/// A laboratory with an agent on every node. When its test panics, it shows what the agents logged.
pub struct Cluster<L: Machines = Lab> {
    pub(crate) lab: L,
    pub(crate) ha: String,
}

/// How long the leases of a laboratory are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// A second: tests wait for it.
    Short,
    /// Eight seconds: tests can wait for it, and a machine that is busy with other things does not lose it.
    Lasting,
    /// Ten minutes: a test that waits for it fails.
    Long,
}

/// What a node says of the cluster, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    nodes: Vec<NodeStatus>,
    hierarchies: Vec<HierarchyStatus>,
    /// What an operator should know.
    pub problems: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeStatus {
    node: String,
    heard: String,
}

#[derive(Clone, Debug, Deserialize)]
struct HierarchyStatus {
    name: String,
    place: Value,
}

/// Something that happened on a node, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// As people read it.
    pub line: String,
    event: EventDetail,
}

#[derive(Clone, Debug, Deserialize)]
struct EventDetail {
    at: u64,
    hierarchy: Option<String>,
    what: Value,
}

impl Event {
    /// The hierarchy that it is about, if it is about one.
    pub fn hierarchy(&self) -> Option<&str> {
        self.event.hierarchy.as_deref()
    }

    /// When, on the node's own clock: since its machine booted.
    pub fn at(&self) -> Duration {
        Duration::from_nanos(self.event.at)
    }

    /// What kind of event it is, such as "claim-won".
    pub fn kind(&self) -> &str {
        let kind = self.event.what.as_str();
        kind.or_else(|| self.event.what.as_object()?.keys().next().map(String::as_str)).unwrap_or_default()
    }
}

impl Status {
    /// The node that a hierarchy is in service on.
    pub fn place(&self, hierarchy: &str) -> Option<&str> {
        let found = self.hierarchies.iter().find(|status| status.name == hierarchy)?;
        found.place.get("in-service")?.as_str()
    }

    /// How the node that was asked hears another: "here", "alive", "late", "lost", "left" or "unknown".
    pub fn heard(&self, node: &str) -> &str {
        self.nodes.iter().find(|status| status.node == node).map_or("unknown", |status| &status.heard)
    }
}

/// A hierarchy of one address and one service behind it, which the first of `nodes` is preferred for: [`SERVICE`] and the witness.
pub fn served(name: &str, nodes: &[&str]) -> Result<String> {
    let program = program("lab-service")?.to_string_lossy().into_owned();
    Ok(format!(
        r#"Hierarchy(
    name: "{name}",
    nodes: {nodes:?},
    claim: LockArea("main"),
    resources: [
        Address(name: "vip", address: "10.77.0.100/24", interface: "eth0"),
        Process(name: "app", command: [{program:?}, "--listen", "{SERVICE}"]),
    ],
)
"#
    ))
}

/// A hierarchy of one service that only the witness sees.
pub fn witnessed(name: &str, nodes: &[&str], every_ms: u32) -> Result<String> {
    let program = program("lab-service")?.to_string_lossy().into_owned();
    Ok(format!(
        r#"Hierarchy(
    name: "{name}",
    nodes: {nodes:?},
    claim: LockArea("main"),
    resources: [Process(name: "app", command: [{program:?}, "--every", "{every_ms}"])],
)
"#
    ))
}

impl Cluster {
    /// Builds the laboratory and gives every node the same configuration, with these hierarchies (name and text). No agent runs yet.
    pub fn new(builder: Builder, networks: usize, hierarchies: &[(&str, String)]) -> Result<Self> {
        Cluster::with_leases(builder, networks, hierarchies, Lease::Short)
    }

    /// As [`Cluster::new`], with leases of that kind.
    pub fn with_leases(
        builder: Builder,
        networks: usize,
        hierarchies: &[(&str, String)],
        lease: Lease,
    ) -> Result<Self> {
        Cluster::set_up(builder, networks, hierarchies, lease, &program("ha")?, |_| Ok(()))
    }

    /// As [`Cluster::with_leases`], with a build of `ha` installed on every node, its own on each: `build` gives the path of that for a node of this
    /// name. It can be replaced: [`Node::install`].
    pub fn installed(
        builder: Builder,
        networks: usize,
        hierarchies: &[(&str, String)],
        lease: Lease,
        build: impl Fn(&str) -> PathBuf,
    ) -> Result<Self> {
        let install = |node: &Node| node.install(&build(node.name()));
        Cluster::set_up(builder, networks, hierarchies, lease, &Node::installed(), install)
    }

    fn set_up(
        builder: Builder,
        networks: usize,
        hierarchies: &[(&str, String)],
        lease: Lease,
        ha: &Path,
        prepare: impl Fn(&Node) -> Result<()>,
    ) -> Result<Self> {
        let ha = ha.to_string_lossy().into_owned();
        let agent = [ha.as_str(), "--config", CONFIG, "run", "--node", "{node}"];
        let cluster = Cluster { lab: builder.networks(networks).agent(&agent).build()?, ha };
        cluster.lab.nodes().iter().try_for_each(prepare)?;
        let names: Vec<&str> = cluster.lab.nodes().iter().map(Node::name).collect();
        let text = agent_file(&names, networks, lease);
        for node in cluster.lab.nodes() {
            write(node, "agent.ron", &text)?;
            for (name, text) in hierarchies {
                write(node, &format!("hierarchies/{name}.ron"), text)?;
            }
        }
        let first = &cluster.lab.nodes()[0];
        cluster.ha(first, &["keys", "generate", &format!("{CONFIG}/keys")])?;
        for other in &cluster.lab.nodes()[1..] {
            fs::copy(first.dir().join("etc/keys"), other.dir().join("etc/keys")).to("hand out the keys")?;
        }
        cluster.ha(first, &["lock-area", "init", "main"])?;
        Ok(cluster)
    }

    /// As [`Cluster::new`], with the agents started and the hierarchy `name` served by the first node to [`SERVICE`].
    pub fn serving(nodes: &[&str], networks: usize, name: &str) -> Result<Self> {
        let cluster = Cluster::new(Lab::with_nodes(nodes), networks, &[(name, served(name, nodes)?)])?;
        cluster.start()?;
        cluster.until_placed(name, nodes[0]);
        cluster.lab.witness().until_served_by(name, &nodes[..1]);
        Ok(cluster)
    }

    /// A node of the laboratory.
    pub fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// A client of [`SERVICE`].
    pub fn client(&self) -> Result<Client> {
        self.lab.client(SERVICE)
    }

    /// Has the agent of a node end in order, as a service manager does that restarts it, and waits until its next life serves there what the former one
    /// did, and hears all others.
    pub fn restart_agent(&self, node: &str, serves: &[&str]) -> Result<()> {
        let before = self.node(node).agent()?;
        if !self.node(node).end_agent()? {
            return Err(Trouble::new(format!("no agent runs on {node}")));
        }
        eventually(&format!("the agent of {node} runs again"), || match self.node(node).agent() {
            Ok(Some(now)) if Some(now) != before => Ok(()),
            other => Err(format!("{other:?}")),
        });
        serves.iter().for_each(|hierarchy| self.until_placed(hierarchy, node));
        let names = Machines::names(&self.lab);
        for other in names.iter().filter(|other| *other != node) {
            self.until_heard(node, other, "alive");
            self.until_heard(other, node, "alive");
        }
        Ok(())
    }

    /// Runs `ha` on a node and returns what it printed; its failure is an error with what it said.
    pub fn ha(&self, node: &Node, arguments: &[&str]) -> Result<String> {
        self.ask(node.name(), arguments)
    }

    /// Waits until the service of a hierarchy has written for so many milliseconds from now on: time that passed in service.
    pub fn until_served_for(&self, hierarchy: &str, milliseconds: u64) -> Result<()> {
        let witness = self.lab.witness();
        let last = || witness.last(hierarchy).unwrap_or(None).map_or(0, |line| line.at);
        let until = last() + milliseconds * 1_000_000;
        eventually(&format!("{hierarchy} has been served for {milliseconds} ms"), || {
            if last() >= until { Ok(()) } else { Err(last()) }
        });
        witness.check().map(drop)
    }
}

impl<L: Machines> Cluster<L> {
    /// The laboratory.
    pub fn lab(&self) -> &L {
        &self.lab
    }

    /// Starts every agent, and waits until all hear each other.
    pub fn start(&self) -> Result<()> {
        let names = self.lab.names();
        for node in &names {
            self.lab.start_agent_on(node)?;
        }
        for node in &names {
            names.iter().filter(|other| *other != node).for_each(|other| self.until_heard(node, other, "alive"));
        }
        Ok(())
    }

    /// Runs `ha` on the node of that name and returns what it printed; its failure is an error with what it said.
    pub fn ask(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["--config", CONFIG].into_iter().chain(arguments.iter().copied()).collect();
        match self.lab.run_on(node, &self.ha, &all)? {
            (true, output, _) => Ok(output),
            (false, output, said) => {
                let asked = arguments.join(" ");
                Err(Trouble::new(format!("`ha {asked}` on {node} failed: {} {}", said.trim(), output.trim())))
            }
        }
    }

    /// What happened on a node, the oldest first.
    pub fn events(&self, node: &str) -> Result<Vec<Event>> {
        let text = self.ask(node, &["events", "--json"])?;
        text.lines().map(|line| serde_json::from_str(line).to(format!("read an event of {node}: {line}"))).collect()
    }

    /// All that `ha` says on a node, whether or not it succeeds; what could not be asked is an error.
    pub fn said(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["--config", CONFIG].into_iter().chain(arguments.iter().copied()).collect();
        let (_, output, errors) = self.lab.run_on(node, &self.ha, &all)?;
        Ok(output + &errors)
    }

    /// Waits until `ha` says so on a node: all of these words, in what may be wrapped into several lines.
    pub fn until_said(&self, node: &str, arguments: &[&str], words: &[&str]) -> String {
        eventually(&format!("`ha {}` on {node} says {words:?}", arguments.join(" ")), || {
            let said = self.said(node, arguments).map_err(|trouble| trouble.to_string())?;
            let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
            if words.iter().all(|words| flat.contains(words)) {
                return Ok(said);
            }
            self.lab.pause();
            Err(said)
        })
    }

    /// What a node says of the cluster.
    pub fn status(&self, node: &str) -> Result<Status> {
        let text = self.ask(node, &["status", "--json"])?;
        serde_json::from_str(&text).to(format!("read the status of {node}: {text}"))
    }

    /// Waits until a hierarchy is in service on a node, as that node says itself.
    pub fn until_placed(&self, hierarchy: &str, node: &str) {
        self.until(node, &format!("{hierarchy} is in service on {node}"), |status| {
            status.place(hierarchy) == Some(node)
        });
    }

    /// Waits until a node hears another in a way.
    pub fn until_heard(&self, node: &str, other: &str, how: &str) {
        self.until(node, &format!("{node} hears {other} as {how}"), |status| status.heard(other) == how);
    }

    /// Waits until the status of a node is as wanted.
    pub fn until(&self, node: &str, what: &str, wanted: impl Fn(&Status) -> bool) {
        eventually(what, || {
            let seen = match self.status(node) {
                Ok(status) if wanted(&status) => return Ok(()),
                Ok(status) => format!("{status:?}"),
                Err(trouble) => trouble.to_string(),
            };
            self.lab.pause();
            Err(seen)
        });
    }
}

impl<L: Machines> Drop for Cluster<L> {
    /// Tells what the agents logged. Of a test that passes nobody sees it; one that fails may panic, or return an error.
    fn drop(&mut self) {
        for node in self.lab.names() {
            eprintln!("---- the agent of {node}:\n{}", end_of(&self.lab.agent_log_of(&node), 8000));
        }
    }
}

/// Writes a file into a node's configuration folder.
pub fn write(node: &Node, name: &str, text: &str) -> Result<()> {
    let path = node.dir().join("etc").join(Path::new(name));
    fs::write(&path, text).to(format!("write {}", path.display()))
}

/// `agent.ron` for nodes of these names.
pub fn agent_file(names: &[&str], networks: usize, lease: Lease) -> String {
    let node = |(port, name): (usize, &&str)| {
        let addresses: Vec<String> = (0..networks).map(|network| format!("{}:7946", address(network, port))).collect();
        format!("        {name:?}: (addresses: {addresses:?}),\n")
    };
    let lease = match lease {
        Lease::Short => r#"deadline: "1s", margin: "100ms""#,
        Lease::Lasting => r#"deadline: "8s", margin: "100ms""#,
        Lease::Long => r#"deadline: "10min", margin: "7s""#,
    };
    let nodes: String = names.iter().enumerate().map(node).collect();
    format!(
        r#"(
    cluster: "lab",
    nodes: {{
{nodes}    }},
    heartbeat: (interval: "50ms", late_after: "200ms", dead_after: "500ms", startup_grace: "2s"),
    keys: "{CONFIG}/keys",
    lock_areas: {{ "main": (path: "/run/lab/disk", renew: "100ms", watchdog: "500ms", {lease}) }},
    watchdog: Warden,
    run_dir: "/run/ha",
    state_dir: "/run/lab/state",
)
"#
    )
}
