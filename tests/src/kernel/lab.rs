//! A whole kernel laboratory: builds the networks, the target and the nodes, cuts what is to be cut, and removes it all.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use super::guest::Guest;
use super::spec::{Network, PORTAL, Paths, Persistence, Role, Spec, TARGET, disk_link, initiator_name, target_name};
use crate::client::Client;
use crate::cluster::Machines;
use crate::command::{run, run_with_input};
use crate::iscsi::{Initiator, Session};
use crate::node::within;
use crate::run::Run;
use crate::trouble::{Result, Trouble, While as _, end_of};
use crate::wait::{eventually, patience};

/// The name of the guest that has the disks.
const STORAGE: &str = "storage";

/// What the laboratory's own addresses end in, from which clients ask.
const OWN: u8 = 254;

/// What a kernel laboratory is to have.
#[derive(Clone, Debug)]
pub struct KernelBuilder {
    names: Vec<String>,
    paths: Paths,
    disks: Vec<u64>,
    memory: u32,
    persistence: Persistence,
    agent: Vec<String>,
    contents: Option<fn(&Path) -> Result<()>>,
}

impl KernelBuilder {
    /// The names of the nodes.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// How the nodes reach the storage. Default: on one way.
    #[must_use]
    pub fn paths(mut self, paths: Paths) -> Self {
        self.paths = paths;
        self
    }

    /// The sizes of the shared disks in MiB; only what is written takes space. Default: one of 256.
    #[must_use]
    pub fn disks(mut self, sizes: &[u64]) -> Self {
        self.disks = sizes.to_vec();
        self
    }

    /// One shared disk more, of so many MiB.
    #[must_use]
    pub fn another_disk(mut self, size: u64) -> Self {
        self.disks.push(size);
        self
    }

    /// The memory of each node in MiB. Default 256.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// The command of the agent, the same on every node but for `{node}`, which becomes the node's name.
    #[must_use]
    pub fn agent(mut self, command: &[&str]) -> Self {
        self.agent = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Has the first disk begin as an ext4 filesystem of what `fill` puts into the empty folder that it is given.
    #[must_use]
    pub fn ext4(mut self, fill: fn(&Path) -> Result<()>) -> Self {
        self.contents = Some(fill);
        self
    }

    /// Builds it, with the target and every node turned on and every disk seen on every node. No agent is started.
    pub fn boot(self) -> Result<KernelLab> {
        needs(self.paths)?;
        let run = Run::new()?;
        let namespace = run.name("net");
        self.networks(&namespace)?;
        let mut disks = Vec::new();
        for (number, size) in self.disks.iter().enumerate() {
            let path = run.dir.join(format!("disk{number}"));
            fs::File::create(&path).and_then(|file| file.set_len(size << 20)).to("create a disk")?;
            disks.push(path);
        }
        if let (Some(fill), Some(disk)) = (self.contents, disks.first()) {
            let contents = run.dir.join("contents");
            fs::create_dir(&contents).to("make a folder for the disk's contents")?;
            fill(&contents)?;
            let (from, to) = (contents.to_string_lossy(), disk.to_string_lossy());
            crate::command::run(
                "mkfs.ext4",
                &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", &from, &to],
            )?;
            fs::remove_dir_all(&contents).to("remove the disk's contents")?;
        }
        let guest = |name: &str, last: u8, disks, role, memory| -> Result<Guest> {
            let dir = run.dir.join(name);
            for folder in ["etc/hierarchies", "state", "log", "uml"] {
                fs::create_dir_all(dir.join(folder)).to(format!("create {folder} of {name}"))?;
            }
            let agent = self.agent.iter().map(|part| part.replace("{node}", name)).collect();
            let spec = Spec {
                name: name.to_owned(),
                namespace: Path::new("/run/netns").join(&namespace),
                dir,
                last,
                taps: Network::ALL.map(|network| tap(last, network)).to_vec(),
                memory,
                disks,
                role,
                agent,
            };
            let namespace = namespace.clone();
            Ok(Guest { spec: Mutex::new(spec), name: name.to_owned(), namespace, power: Mutex::new(None) })
        };
        let target = guest(STORAGE, TARGET, disks, Role::Target(self.persistence), 128)?;
        let nodes: Result<Vec<Guest>> = (1..)
            .zip(&self.names)
            .map(|(last, name)| guest(name, last, Vec::new(), Role::Node(self.paths), self.memory))
            .collect();
        let lab = KernelLab { nodes: nodes?, target, namespace, paths: self.paths, disks: self.disks.len(), _run: run };
        lab.target.power_on()?;
        for node in &lab.nodes {
            node.power_on()?;
        }
        lab.until_up();
        Ok(lab)
    }

    /// A namespace with a bridge for each network, and on it a TAP device for each guest.
    fn networks(&self, namespace: &str) -> Result<()> {
        run("ip", &["netns", "add", namespace])?;
        let mut script = vec!["link set lo up".to_owned()];
        for network in Network::ALL {
            let (bridge, mtu) = (bridge(network), network.mtu());
            script.push(format!("link add {bridge} type bridge"));
            script.push(format!("link set {bridge} mtu {mtu} up"));
            script.push(format!("addr add {}/24 dev {bridge}", network.address(OWN)));
            for last in self.lasts() {
                let tap = tap(last, network);
                script.push(format!("tuntap add dev {tap} mode tap"));
                script.push(format!("link set {tap} mtu {mtu} master {bridge} up"));
            }
        }
        run_with_input("ip", &["-n", namespace, "-batch", "-"], &script.join("\n")).map(drop)
    }

    fn lasts(&self) -> impl Iterator<Item = u8> + use<> {
        (1..).take(self.names.len()).chain([TARGET])
    }
}

/// A laboratory of real kernels. Dropping it turns everything off and removes it; when its test fails, it shows what the guests said.
pub struct KernelLab {
    nodes: Vec<Guest>,
    target: Guest,
    namespace: String,
    paths: Paths,
    disks: usize,
    // The last to be dropped: it removes the folder that all the others use.
    _run: Run,
}

impl KernelLab {
    /// Begins a laboratory with nodes of these names.
    pub fn with_nodes(names: &[&str]) -> KernelBuilder {
        KernelBuilder {
            names: names.iter().map(ToString::to_string).collect(),
            paths: Paths::One,
            disks: vec![256],
            memory: 256,
            persistence: Persistence::Kept,
            agent: Vec::new(),
            contents: None,
        }
    }

    /// The nodes, in the order in which they were named.
    pub fn nodes(&self) -> &[Guest] {
        &self.nodes
    }

    /// The node of a name.
    ///
    /// # Panics
    /// When there is none: the test is wrong.
    pub fn node(&self, name: &str) -> &Guest {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| panic!("this laboratory has no node {name}"))
    }

    /// The guest that has the disks.
    pub fn target(&self) -> &Guest {
        &self.target
    }

    /// The namespace in which all networks are, for programs that are to run on them outside of the guests.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs a program of the host's on the laboratory's networks, outside of the guests, to its end.
    pub fn outside(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).args(arguments).stdin(Stdio::null());
        command.output().to(format!("run {program}"))
    }

    /// A machine that is none of the nodes and commands a logical unit, over the first way to the storage.
    pub fn stranger(&self, unit: u8) -> Result<Initiator> {
        let portal = format!("{}:{PORTAL}", Network::StorageA.address(TARGET)).parse()?;
        let (target, own) = (target_name(Network::StorageA), initiator_name("stranger"));
        let session = within(&self.namespace, || {
            Session::login(portal, &target, &own, unit, patience()).to("log in as a stranger")
        })?;
        Ok(Initiator::new("stranger", session))
    }

    /// A client that asks the service at `address`, such as `10.77.0.100:7000`, until it is told to stop.
    pub fn client(&self, address: &str) -> Result<Client> {
        Client::start(&self.namespace, address)
    }

    /// Cuts a guest off a network: nothing of it is heard there, and it hears nothing. Its device does not notice.
    pub fn cut(&self, guest: &Guest, network: Network) -> Result<()> {
        let last = guest.spec.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last;
        run("ip", &["-n", &self.namespace, "link", "set", &tap(last, network), "nomaster"]).map(drop)
    }

    /// Undoes [`KernelLab::cut`].
    pub fn join(&self, guest: &Guest, network: Network) -> Result<()> {
        let last = guest.spec.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last;
        let tap = tap(last, network);
        run("ip", &["-n", &self.namespace, "link", "set", &tap, "master", &bridge(network)]).map(drop)
    }

    /// Waits until every guest takes commands and every node sees every disk.
    pub fn until_up(&self) {
        self.target.until_up();
        self.nodes.iter().for_each(Guest::until_up);
        self.nodes.iter().for_each(|node| self.until_disks(node));
    }

    /// Waits until a node sees every disk, over each of its paths.
    pub fn until_disks(&self, node: &Guest) {
        for unit in 0..self.disks {
            let link = disk_link(unit);
            let check = match self.paths {
                Paths::One => format!("dd if={link} of=/dev/null count=1"),
                Paths::Two => format!(
                    "device=$(basename $(readlink -f {link})) && test $(ls /sys/block/$device/slaves | wc -l) = 2 \
                     && ! multipathd show paths raw format '%t %m' | grep -v '^active' && dd if={link} of=/dev/null count=1"
                ),
            };
            eventually(&format!("{} sees {link}", node.name()), || node.shell(&check).inspect_err(|_| pause()));
        }
    }
}

impl Drop for KernelLab {
    /// Tells what the guests said. Of a test that passes nobody sees it; one that fails may panic, or return an error.
    fn drop(&mut self) {
        for guest in self.nodes.iter().chain([&self.target]) {
            let text = guest.console() + &guest.log("power");
            eprintln!("---- the console of {}:\n{}", guest.name(), end_of(&text, 6000));
        }
    }
}

impl Machines for KernelLab {
    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name().to_owned()).collect()
    }

    fn run_on(&self, node: &str, program: &str, arguments: &[&str]) -> Result<(bool, String, String)> {
        let ended = self.node(node).run(program, arguments)?;
        Ok((ended.status == 0, ended.output, ended.errors))
    }

    fn agent_log_of(&self, node: &str) -> String {
        self.node(node).agent_log()
    }

    fn pause(&self) {
        pause();
    }

    fn start_agent_on(&self, node: &str) -> Result<()> {
        self.node(node).start_agent()
    }
}

/// Says what this machine lacks for a kernel laboratory, if anything.
fn needs(paths: Paths) -> Result<()> {
    let multipath: &[(&str, &str)] = match paths {
        Paths::One => &[],
        Paths::Two => &[("/usr/sbin/multipathd", "multipath-tools"), ("/usr/sbin/dmsetup", "dmsetup")],
    };
    let always = [
        ("/usr/bin/linux.uml", "user-mode-linux"),
        ("/usr/sbin/iscsid", "open-iscsi"),
        ("/usr/bin/udevadm", "udev"),
        ("/usr/bin/sg_persist", "sg3-utils"),
        ("/usr/sbin/modprobe", "kmod"),
    ];
    // Where the two places of system programs are not one yet.
    let there =
        |path: &str| Path::new(path).exists() || path.strip_prefix("/usr").is_some_and(|path| Path::new(path).exists());
    let missing: Vec<&str> =
        always.iter().chain(multipath).filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(" ");
    Err(Trouble::new(format!("this test NEEDS {missing}: it was NOT RUN; install these packages, or use tests/run")))
}

/// Guests share few processors, and starting a program costs them 50 ms: who looks again and again does it this slowly.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(150));
}

/// The TAP device of a guest on a network, in the laboratory's namespace.
fn tap(last: u8, network: Network) -> String {
    format!("tap{last}-{}", network.number())
}

fn bridge(network: Network) -> String {
    format!("net{}", network.number())
}
