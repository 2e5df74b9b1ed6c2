//! A laboratory of real kernels: machines that are User Mode Linux, disks that are real SCSI devices over iSCSI, faults as they come.
//!
//! What the laboratory of namespaces ([`crate::Lab`]) cannot show is shown here: persistent reservations on a real target, filesystems
//! and their dirty pages, a kernel that hangs and goes on, device-mapper, a watchdog that resets. A [`KernelLab`] has two or three nodes
//! and one guest with the disks; each guest is a kernel of its own that runs the host's programs, on taps and bridges of a network
//! namespace of the laboratory's own. Power loss is the end of its process, a hang is SIGSTOP.
//!
//! It needs root, `/dev/net/tun`, and some packages of Debian's (see `tests/run`), but neither a hypervisor nor modules of the
//! host's kernel.

pub mod by_hand;
pub mod cluster;
pub mod database;
pub mod device;
pub mod fault;
pub mod guest;
pub mod history;
pub mod holder;
pub mod init;
mod initiator;
pub mod lab;
pub mod latency;
pub mod ledger;
pub mod nbd;
pub mod nvme;
pub mod power;
pub mod remote;
pub mod resource;
pub mod spec;
pub mod stamp;
mod target;
pub mod unwritten;
pub mod volume;
pub mod watchdog;

pub use cluster::{ClaimKind, KernelCluster};
pub use database::DatabaseClient;
pub use fault::Fault;
pub use guest::{Guest, Running};
pub use lab::{KernelBuilder, KernelLab};
pub use ledger::LedgerClient;
pub use nvme::NvmeLab;
pub use spec::{Network, Paths, Persistence, Role, Spec, disk_link, disk_way};
