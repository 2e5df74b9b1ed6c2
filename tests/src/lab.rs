//! A whole laboratory: builds nodes, networks, disk, client and witness, and removes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::mount::{MsFlags, mount};

use crate::boot::Machine;
use crate::client::Client;
use crate::node::{Node, connect};
use crate::run::{Run, cgroup_root};
use crate::storage::DiskPath;
use crate::trouble::{Result, Trouble, While as _};
use crate::wire::{Conditions, Port, Switch};
use crate::witness::Witness;

/// The port of the client on every network; its addresses end in 200.
const CLIENT: Port = 199;

/// What a laboratory is to have.
#[derive(Clone, Debug)]
pub struct Builder {
    names: Vec<String>,
    networks: usize,
    state_bytes: u64,
    disk_bytes: u64,
    seed: u64,
    agent: Vec<String>,
}

impl Builder {
    /// How many networks join the nodes: 1 (default) or more. Network `n` is `10.(77+n).0.0/24`, on the nodes' device `eth(n)`.
    #[must_use]
    pub fn networks(mut self, count: usize) -> Self {
        self.networks = count;
        self
    }

    /// How much fits into each node's state folder. Default 16 MiB.
    #[must_use]
    pub fn state_bytes(mut self, bytes: u64) -> Self {
        self.state_bytes = bytes;
        self
    }

    /// The size of the shared disk, a multiple of 4096. Default 64 MiB, of which only what is written takes memory.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = bytes;
        self
    }

    /// What the networks draw their chances from. Default 1.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The command of the agent, the same on every node but for `{node}`, which becomes the node's name.
    #[must_use]
    pub fn agent(mut self, command: &[&str]) -> Self {
        self.agent = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Builds it, with every node turned on and no agent started.
    pub fn build(self) -> Result<Lab> {
        let run = Run::in_memory()?;
        let switches: Vec<Arc<Switch>> =
            (0..self.networks).map(|network| Arc::new(Switch::new(self.seed ^ (network as u64) << 32))).collect();
        let disk = run.dir.join("disk");
        fs::File::create(&disk).and_then(|file| file.set_len(self.disk_bytes)).to("create the disk")?;
        let witness = Witness::new(&run.dir.join("witness"))?;
        let nodes: Result<Vec<Node>> =
            self.names.iter().enumerate().map(|(port, name)| self.node(name, port, &run, &switches)).collect();
        let nodes = nodes?;
        let client_network = run.name("client");
        connect(&client_network, CLIENT, &switches)?;
        let lab = Lab { nodes, switches, client_network, witness, _run: run };
        for node in &lab.nodes {
            node.power_on()?;
        }
        Ok(lab)
    }

    fn node(&self, name: &str, port: Port, run: &Run, switches: &[Arc<Switch>]) -> Result<Node> {
        let dir = run.dir.join(name);
        for folder in ["etc/hierarchies", "state", "log", "run", "path"] {
            fs::create_dir_all(dir.join(folder)).to(format!("create {folder} of {name}"))?;
        }
        let size = format!("size={},mode=755", self.state_bytes);
        mount(Some("state"), &dir.join("state"), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .to("mount the state")?;
        let disk = DiskPath::new(&run.dir.join("disk"), &dir.join("path"))?;
        std::os::unix::fs::symlink(disk.device(), dir.join("disk")).to("name the disk")?;
        let network = run.name(name);
        let machine = Machine {
            name: name.to_owned(),
            network: Path::new("/run/netns").join(&network),
            dir: dir.clone(),
            witness: run.dir.join("witness"),
            cgroup: cgroup_root().map(|root| root.join(run.name(name))),
            boot_id: String::new(),
            agent: self.agent.iter().map(|part| part.replace("{node}", name)).collect(),
        };
        Ok(Node {
            name: name.to_owned(),
            port,
            network,
            dir,
            switches: switches.to_vec(),
            disk,
            machine: Mutex::new(machine),
            program: program("lab-init")?,
            power: Mutex::new(None),
        })
    }
}

/// A laboratory. Dropping it turns everything off and removes it.
pub struct Lab {
    nodes: Vec<Node>,
    switches: Vec<Arc<Switch>>,
    client_network: String,
    witness: Witness,
    // The last to be dropped: it removes the folder that all the others use.
    _run: Run,
}

impl Lab {
    /// Begins a laboratory with nodes of these names.
    pub fn with_nodes(names: &[&str]) -> Builder {
        Builder {
            names: names.iter().map(ToString::to_string).collect(),
            networks: 1,
            state_bytes: 16 << 20,
            disk_bytes: 64 << 20,
            seed: 1,
            agent: Vec::new(),
        }
    }

    /// The nodes, in the order in which they were named.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of a name.
    ///
    /// # Panics
    /// When there is none: the test is wrong.
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("this laboratory has no node {name}"))
    }

    /// A network.
    pub fn network(&self, network: usize) -> &Switch {
        &self.switches[network]
    }

    /// What every instance of a service writes to.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// A client that asks the service at `address`, such as `10.77.0.100:7000`, until it is told to stop.
    pub fn client(&self, address: &str) -> Result<Client> {
        Client::start(&self.client_network, address)
    }

    /// The name of the network namespace that clients are in.
    pub(crate) fn client_network(&self) -> &str {
        &self.client_network
    }

    /// A port of a stranger on every network, from which a test may send what it likes: runs `what` in the client's namespace.
    pub fn as_client<T: Send>(&self, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        crate::node::within(&self.client_network, what)
    }

    /// Sets how frames travel between a node and everybody else on a network, both ways.
    pub fn link(&self, node: &str, network: usize, conditions: Conditions) {
        self.outgoing(node, network, conditions);
        self.incoming(node, network, conditions);
    }

    /// Sets how frames travel from a node to everybody else on a network. With [`Conditions::CUT`] it hears, and is not heard.
    pub fn outgoing(&self, node: &str, network: usize, conditions: Conditions) {
        let own = self.node(node).port;
        self.ports().filter(|port| *port != own).for_each(|port| self.switches[network].set(own, port, conditions));
    }

    /// Sets how frames travel from everybody else on a network to a node. With [`Conditions::CUT`] it is heard, and hears nothing.
    pub fn incoming(&self, node: &str, network: usize, conditions: Conditions) {
        let own = self.node(node).port;
        self.ports().filter(|port| *port != own).for_each(|port| self.switches[network].set(port, own, conditions));
    }

    /// Sets how frames travel between two nodes, both ways; each still hears the others and the client.
    pub fn between(&self, one: &str, other: &str, network: usize, conditions: Conditions) {
        let (one, other) = (self.node(one).port, self.node(other).port);
        self.switches[network].set(one, other, conditions);
        self.switches[network].set(other, one, conditions);
    }

    /// Sets how frames travel between all, on every network.
    pub fn all_links(&self, conditions: Conditions) {
        for switch in &self.switches {
            for (from, to) in self.ports().flat_map(|from| self.ports().map(move |to| (from, to))) {
                switch.set(from, to, conditions);
            }
        }
    }

    fn ports(&self) -> impl Iterator<Item = Port> + '_ {
        self.nodes.iter().map(|node| node.port).chain([CLIENT])
    }
}

/// A program of this workspace, built beside the test that runs.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().to("find this program")?;
    // Tests lie in `deps`, one folder below the programs.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Trouble::new(format!(
            "there is no program {name} beside {}: run `cargo build --workspace` first",
            own.display()
        ))
    })
}
