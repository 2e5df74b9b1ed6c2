//! What it takes to turn on a guest: the contract between the laboratory and its program `lab-guest`, which is each guest's power
//! supply outside, and its process number 1 and its command server inside.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::boot::LAB;
use crate::trouble::{Result, Trouble, While as _};

/// The environment variable, given on the kernel's command line, in which process number 1 finds the path of its [`Spec`].
pub const SPEC: &str = "LAB_SPEC";

/// The TCP port on which a guest takes commands, on the network [`Network::Control`].
pub const COMMANDS: u16 = 7000;

/// The TCP port of an iSCSI portal.
pub const PORTAL: u16 = 3260;

/// The networks of a kernel laboratory. Network `n` is `10.(77+n).0.0/24`, on each guest's device `eth(n)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Network {
    /// Where nodes hear each other and clients reach services.
    Cluster,
    /// The first way to the storage.
    StorageA,
    /// The second way to the storage.
    StorageB,
    /// How the laboratory speaks to its guests; never cut.
    Control,
}

impl Network {
    /// All, in the order of their numbers.
    pub const ALL: [Network; 4] = [Network::Cluster, Network::StorageA, Network::StorageB, Network::Control];

    /// Its number.
    pub fn number(self) -> usize {
        Network::ALL.iter().position(|network| *network == self).unwrap_or_default()
    }

    /// Bytes in a packet. Storage has large ones: with 1500, 4 KiB of I/O need several, and often wait 10 ms for a timer.
    pub fn mtu(self) -> u32 {
        match self {
            Network::StorageA | Network::StorageB => 9000,
            Network::Cluster | Network::Control => 1500,
        }
    }

    /// The address that ends in `last`.
    pub fn address(self, last: u8) -> String {
        format!("10.{}.0.{last}", 77 + self.number())
    }
}

/// A guest, as it is turned on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its host name.
    pub name: String,
    /// The network namespace of the host that its taps are in.
    pub namespace: PathBuf,
    /// Its folder on the host, which it sees as [`LAB`], and may write to. What is in it outlives a loss of power.
    pub dir: PathBuf,
    /// What its addresses end in, on every network.
    pub last: u8,
    /// Its TAP devices in the namespace, one for each of [`Network::ALL`].
    pub taps: Vec<String>,
    /// Its memory in MiB.
    pub memory: u32,
    /// Files that it sees as disks, `/dev/ubda` first. A write that it has seen completed outlives a loss of its power.
    pub disks: Vec<PathBuf>,
    /// What it is there for.
    pub role: Role,
    /// The command that its process number 1 keeps running while [`crate::Machine::wanted`] exists, as a service manager would.
    pub agent: Vec<String>,
}

/// What a guest is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It gives its disks away over iSCSI, as logical units in their order.
    Target(Persistence),
    /// It uses the target's disks on these ways.
    Node(Paths),
}

/// What becomes of reservations when the target loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Persistence {
    /// Those made to last (APTPL) are there again afterwards.
    Kept,
    /// All are gone, as with a target that promises APTPL and does not keep its word, or whose state was lost.
    Forgotten,
}

/// How a node reaches the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Paths {
    /// Over [`Network::StorageA`] only.
    One,
    /// Over both networks, joined by dm-multipath.
    Two,
}

impl Paths {
    /// The networks.
    pub fn networks(self) -> &'static [Network] {
        match self {
            Paths::One => &[Network::StorageA],
            Paths::Two => &[Network::StorageA, Network::StorageB],
        }
    }
}

/// What the target's addresses end in.
pub const TARGET: u8 = 250;

/// The iSCSI name of the target that is reached over a network. Each has its own, so that a node's two paths are two I_T nexuses.
pub fn target_name(network: Network) -> String {
    let letter = if network == Network::StorageB { 'b' } else { 'a' };
    format!("iqn.2026-01.example.ha-lab:{letter}")
}

/// The iSCSI name of a node.
pub fn initiator_name(node: &str) -> String {
    format!("iqn.2026-01.example.ha-lab:{node}")
}

/// The unit serial number of a logical unit, from which the target makes its world-wide name: hexadecimal digits.
pub fn serial(unit: usize) -> String {
    format!("1ab0000000000{unit:03x}")
}

/// Where a node sees a logical unit, whatever the path: the name that udev makes from the unit's world-wide name (NAA 6, the
/// target's company id 001405, and the digits of the serial number, to 32 digits).
pub fn disk_link(unit: usize) -> String {
    format!("/dev/disk/by-id/wwn-0x6001405{:0<25}", serial(unit))
}

/// Another name of udev's for the same unit, where there is one path: the way to it.
pub fn disk_way(unit: usize) -> String {
    let network = Network::StorageA;
    format!("/dev/disk/by-path/ip-{}:{PORTAL}-iscsi-{}-lun-{unit}", network.address(TARGET), target_name(network))
}

impl Spec {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).to(format!("read {}", path.display()))?;
        serde_json::from_slice(&text).map_err(Trouble::from)
    }

    /// Where it lies, on the host.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("guest")
    }

    /// Its address on a network.
    pub fn address(&self, network: Network) -> String {
        network.address(self.last)
    }

    /// The hardware address of its device on a network.
    pub fn hardware(&self, network: Network) -> String {
        format!("02:77:00:00:{:02x}:{:02x}", network.number(), self.last)
    }

    /// Where it finds something of its folder.
    pub fn inside(what: &str) -> PathBuf {
        Path::new(LAB).join(what)
    }
}
