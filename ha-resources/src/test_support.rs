//! What the tests of this crate share: an operation's context, waiting for something to become true, with a bound, and
//! networks of their own.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use ha_core::driver::Context;
use ha_core::hierarchy::{Fields, Source, read_value};
use ha_core::name::{Epoch, HierarchyName, NodeName, ResourceName};
use nix::sched::CloneFlags;

use crate::cgroup;

/// An operation on the resource of this name.
pub(crate) fn context(resource: &str) -> Context {
    Context {
        // Tests run at the same time, and their control groups have one root.
        node: NodeName::new(format!("test-{}", std::process::id())).unwrap(),
        hierarchy: HierarchyName::new("web").unwrap(),
        resource: ResourceName::new(resource).unwrap(),
        epoch: Epoch(7),
        timeout: Duration::from_secs(30),
    }
}

/// The same with another time to do it in.
pub(crate) fn within(context: &Context, timeout: Duration) -> Context {
    Context { timeout, ..context.clone() }
}

/// Waits until something is there, at most half a minute.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never happened that {what}");
}

/// Reads a resource as it stands in a file: what was read, and all that was told.
pub(crate) fn read<T>(text: &str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> (Option<T>, String) {
    let source = Source::new("web.ron", text);
    let (found, diagnostics) = read_value(&source, |value| {
        let (_, mut fields) = value.variant("a resource")?;
        let found = read(&mut fields);
        fields.finish();
        found
    });
    (found, diagnostics.to_string())
}

/// Where control groups of tests can be, or `None`, said loudly, where they cannot.
pub(crate) fn usable_cgroups() -> Option<PathBuf> {
    let root = cgroup::find_root().filter(|root| cgroup::prepare(&root.join("probe")).is_ok());
    if root.is_none() {
        eprintln!("SKIPPED: no control groups of version 2 that can be used here");
    }
    root
}

/// A network namespace, with its loopback interface up. It goes when this is dropped and nothing runs in it any more.
pub(crate) struct Network(std::fs::File);

impl Network {
    /// `None`, said loudly, where such a thing cannot be had.
    pub(crate) fn new() -> Option<Network> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make network namespaces");
            return None;
        }
        let make = || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        };
        let network = Network(std::thread::spawn(make).join().unwrap());
        network.ip("link set lo up");
        Some(network)
    }

    /// From now on, the calling thread is inside.
    pub(crate) fn enter(&self) {
        nix::sched::setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Does something inside, on a thread of its own, with the caller's runtime.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let runtime = tokio::runtime::Handle::try_current();
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                self.enter();
                let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
                work()
            });
            done.join().unwrap()
        })
    }

    /// Runs `ip` inside, and says what it printed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let run = || std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
        let done = self.inside(run);
        assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// A cable to another one, up at both ends, which have these names.
    pub(crate) fn cable(&self, end: &str, other: &Network, other_end: &str) {
        let there = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.ip(&format!("link add {end} type veth peer name {other_end} netns {there}"));
        self.ip(&format!("link set {end} up"));
        other.ip(&format!("link set {other_end} up"));
    }
}

/// Two network namespaces with a cable between them, which is called `veth` in both. They go when this is dropped.
pub(crate) struct TwoNetworks([Network; 2]);

impl TwoNetworks {
    /// `None`, said loudly, where such a thing cannot be had.
    pub(crate) fn new() -> Option<TwoNetworks> {
        let networks = TwoNetworks([Network::new()?, Network::new()?]);
        networks.0[0].cable("veth", &networks.0[1], "veth");
        Some(networks)
    }

    /// Does something inside one of them, on a thread of its own, with the caller's runtime.
    pub(crate) fn inside<T: Send>(&self, which: usize, work: impl FnOnce() -> T + Send) -> T {
        self.0[which].inside(work)
    }

    /// Runs `ip` inside one of them.
    pub(crate) fn ip(&self, which: usize, arguments: &str) {
        self.0[which].ip(arguments);
    }
}
