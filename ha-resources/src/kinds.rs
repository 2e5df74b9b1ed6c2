//! The kinds that hierarchy files may name.
//!
//! Decides which there are. Leaves the fields of each to its own module, and what a lock area is to whoever configures it.

use std::sync::Arc;

use ha_core::hierarchy::{Fields, Kinds, ResourceSpec};
use ha_core::name::LockAreaName;
use ha_core::{Probe, Resource};

use crate::claim::reservation::ReservationSpec;
use crate::probe::{
    Disk, DiskSpec, ExecProbe, ExecProbeSpec, Http, HttpSpec, Load, LoadSpec, Ping, PingSpec, Tcp, TcpSpec,
};
use crate::resource::address::{Address, AddressSpec};
use crate::resource::exec::{Exec, ExecSpec};
use crate::resource::filesystem::{Filesystem, FilesystemSpec};
use crate::resource::lsb::{Lsb, LsbSpec};
use crate::resource::lvm::{Lvm, LvmSpec};
use crate::resource::md::{Md, MdSpec};
use crate::resource::nbd::{Nbd, NbdSpec};
use crate::resource::ocf::{Ocf, OcfSpec};
use crate::resource::process::{Process, ProcessSpec};
use crate::resource::route::{Route, RouteSpec};
use crate::resource::systemd::{Systemd, SystemdSpec};
use crate::resource::{Advice, Directories};
use crate::systemd::ServiceManager;

/// All kinds of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builtin;

/// A resource as it was read.
#[derive(Clone, Debug)]
pub enum ResourceDefinition {
    /// A program.
    Process(ProcessSpec),
    /// Commands of the user's.
    Exec(ExecSpec),
    /// A mount.
    Filesystem(FilesystemSpec),
    /// A service address.
    Address(AddressSpec),
    /// An OCF resource agent.
    Ocf(OcfSpec),
    /// An init script.
    Lsb(LsbSpec),
    /// A unit of the service manager.
    Systemd(SystemdSpec),
    /// A route.
    Route(RouteSpec),
    /// A volume group.
    Lvm(LvmSpec),
    /// An array.
    Md(MdSpec),
    /// An export of an NBD server.
    Nbd(NbdSpec),
}

impl ResourceDefinition {
    /// The resource itself.
    pub fn build(self, directories: &Directories) -> Arc<dyn Resource> {
        match self {
            ResourceDefinition::Process(spec) => Arc::new(Process::new(spec, directories.clone())),
            ResourceDefinition::Exec(spec) => Arc::new(Exec::new(spec, directories.clone())),
            ResourceDefinition::Filesystem(spec) => Arc::new(Filesystem::new(spec)),
            ResourceDefinition::Address(spec) => Arc::new(Address::new(spec)),
            ResourceDefinition::Systemd(spec) => Arc::new(Systemd::new(spec, ServiceManager::of_machine())),
            ResourceDefinition::Lvm(spec) => Arc::new(Lvm::new(spec)),
            ResourceDefinition::Md(spec) => Arc::new(Md::new(spec)),
            ResourceDefinition::Nbd(spec) => Arc::new(Nbd::new(spec)),
            ResourceDefinition::Route(spec) => Arc::new(Route::new(spec)),
            ResourceDefinition::Ocf(spec) => Arc::new(Ocf::new(spec, directories.clone())),
            ResourceDefinition::Lsb(spec) => Arc::new(Lsb::new(spec, directories.clone())),
        }
    }

    /// What would be better otherwise with a resource that could be started, beside what every hierarchy is checked for. May run
    /// programs, which change nothing, and takes some seconds at most.
    pub async fn advice(&self, spec: &ResourceSpec, directories: &Directories) -> Vec<Advice> {
        match self {
            ResourceDefinition::Ocf(ocf) => Ocf::new(ocf.clone(), directories.clone()).advice(spec).await,
            ResourceDefinition::Lsb(lsb) => Lsb::new(lsb.clone(), directories.clone()).advice().await,
            ResourceDefinition::Lvm(lvm) => Lvm::new(lvm.clone()).advice().await,
            ResourceDefinition::Md(md) => Md::new(md.clone()).advice().await,
            ResourceDefinition::Nbd(nbd) => Nbd::new(nbd.clone()).advice().await,
            ResourceDefinition::Process(_)
            | ResourceDefinition::Exec(_)
            | ResourceDefinition::Filesystem(_)
            | ResourceDefinition::Address(_)
            | ResourceDefinition::Systemd(_)
            | ResourceDefinition::Route(_) => Vec::new(),
        }
    }
}

/// A claim as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimDefinition {
    /// A lease in the lock area of this name.
    LockArea(LockAreaName),
    /// Persistent reservations of whole disks.
    Reservation(ReservationSpec),
}

/// A probe as it was read.
#[derive(Clone, Debug)]
pub enum ProbeDefinition {
    /// Whether a machine answers.
    Ping(PingSpec),
    /// Whether a port accepts connections.
    Tcp(TcpSpec),
    /// Whether a page is answered as expected.
    Http(HttpSpec),
    /// How busy the processors are.
    Load(LoadSpec),
    /// Whether there is room on a filesystem.
    Disk(DiskSpec),
    /// What a program of the user's says.
    Exec(ExecProbeSpec),
}

impl ProbeDefinition {
    /// The probe itself.
    pub fn build(self) -> Arc<dyn Probe> {
        match self {
            ProbeDefinition::Ping(spec) => Arc::new(Ping::new(spec)),
            ProbeDefinition::Tcp(spec) => Arc::new(Tcp::new(spec)),
            ProbeDefinition::Http(spec) => Arc::new(Http::new(spec)),
            ProbeDefinition::Load(spec) => Arc::new(Load::new(spec)),
            ProbeDefinition::Disk(spec) => Arc::new(Disk::new(spec)),
            ProbeDefinition::Exec(spec) => Arc::new(ExecProbe::new(spec)),
        }
    }
}

impl Kinds for Builtin {
    type Resource = ResourceDefinition;
    type Claim = ClaimDefinition;
    type Probe = ProbeDefinition;

    fn resource_kinds(&self) -> &[&'static str] {
        &["Process", "Exec", "Filesystem", "Address", "Ocf", "Lsb", "Systemd", "Route", "Lvm", "Md", "Nbd"]
    }

    fn resource_kind_for(&self, word: &str) -> Option<&'static str> {
        Some(match word.to_lowercase().as_str() {
            "script" | "command" | "commands" | "custom" => "Exec",
            "program" | "daemon" | "application" | "app" => "Process",
            "mount" | "disk" | "volume" => "Filesystem",
            "ip" | "vip" | "ipaddr" | "ipaddr2" | "virtualip" => "Address",
            "init" | "initscript" | "sysv" => "Lsb",
            "unit" | "service" => "Systemd",
            "gateway" => "Route",
            "volumegroup" | "vg" => "Lvm",
            "raid" | "mdraid" | "array" => "Md",
            _ => return None,
        })
    }

    fn claim_kinds(&self) -> &[&'static str] {
        &["LockArea", "Reservation"]
    }

    fn probe_kinds(&self) -> &[&'static str] {
        &["Ping", "Tcp", "Http", "Load", "Disk", "Exec"]
    }

    fn resource(&self, kind: &str, fields: &mut Fields<'_>) -> Option<ResourceDefinition> {
        match kind {
            "Process" => ProcessSpec::read(fields).map(ResourceDefinition::Process),
            "Exec" => ExecSpec::read(fields).map(ResourceDefinition::Exec),
            "Filesystem" => FilesystemSpec::read(fields).map(ResourceDefinition::Filesystem),
            "Address" => AddressSpec::read(fields).map(ResourceDefinition::Address),
            "Ocf" => OcfSpec::read(fields).map(ResourceDefinition::Ocf),
            "Lsb" => LsbSpec::read(fields).map(ResourceDefinition::Lsb),
            "Systemd" => SystemdSpec::read(fields).map(ResourceDefinition::Systemd),
            "Lvm" => LvmSpec::read(fields).map(ResourceDefinition::Lvm),
            "Md" => MdSpec::read(fields).map(ResourceDefinition::Md),
            "Nbd" => NbdSpec::read(fields).map(ResourceDefinition::Nbd),
            "Route" => RouteSpec::read(fields).map(ResourceDefinition::Route),
            _ => None,
        }
    }

    fn claim(&self, kind: &str, fields: &mut Fields<'_>) -> Option<ClaimDefinition> {
        match kind {
            "LockArea" => fields.only_or("name", "the name of a lock area of agent.ron").map(ClaimDefinition::LockArea),
            "Reservation" => ReservationSpec::read(fields).map(ClaimDefinition::Reservation),
            _ => None,
        }
    }

    fn probe(&self, kind: &str, fields: &mut Fields<'_>) -> Option<ProbeDefinition> {
        match kind {
            "Ping" => PingSpec::read(fields).map(ProbeDefinition::Ping),
            "Tcp" => TcpSpec::read(fields).map(ProbeDefinition::Tcp),
            "Http" => HttpSpec::read(fields).map(ProbeDefinition::Http),
            "Load" => LoadSpec::read(fields).map(ProbeDefinition::Load),
            "Disk" => DiskSpec::read(fields).map(ProbeDefinition::Disk),
            "Exec" => ExecProbeSpec::read(fields).map(ProbeDefinition::Exec),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ha_core::hierarchy::{Source, read_sources};

    use super::*;

    /// What is said of a hierarchy with a resource of this kind.
    fn said(kind: &str) -> String {
        let text = format!(
            "Hierarchy(name: \"web\", nodes: [\"alpha\"], claim: LockArea(\"main\"), resources: [{kind}(name: \"app\", start: [\"/bin/app\"])])"
        );
        read_sources(&[Source::new("web.ron", &text)], &Builtin).diagnostics.to_string()
    }

    #[test]
    fn what_other_programs_call_a_kind_is_understood() {
        for (word, kind) in
            [("Script", "Exec"), ("Mount", "Filesystem"), ("IPaddr2", "Address"), ("Service", "Systemd")]
        {
            let told = said(word);
            assert!(
                told.contains(&format!("there is no kind of resource `{word}`: expected one of Process, Exec,")),
                "{told}"
            );
            assert!(told.contains(&format!("did you mean `{kind}`?")), "{told}");
        }
        assert!(said("Filsystem").contains("did you mean `Filesystem`?"));
        assert!(!said("Teapot").contains("did you mean"));
    }

    #[test]
    fn no_kind_is_suggested_that_there_is_not() {
        for word in ["script", "daemon", "mount", "vip", "init", "unit", "gateway", "vg", "raid"] {
            let kind = Builtin.resource_kind_for(word).unwrap();
            assert!(Builtin.resource_kinds().contains(&kind), "{kind}");
        }
    }
}
