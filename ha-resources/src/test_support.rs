//! What the tests of this crate share: an operation's context, waiting for something to become true, with a bound, and
//! networks of their own.

use std::os::fd::AsRawFd;
use std::time::Duration;

use ha_core::driver::Context;
use ha_core::name::{Epoch, HierarchyName, NodeName, ResourceName};
use nix::sched::CloneFlags;

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

/// Two network namespaces with a cable between them, which is called `veth` in both. They go when this is dropped.
pub(crate) struct TwoNetworks([std::fs::File; 2]);

impl TwoNetworks {
    /// `None`, said loudly, where such a thing cannot be had.
    pub(crate) fn new() -> Option<TwoNetworks> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make network namespaces");
            return None;
        }
        let networks = TwoNetworks([namespace(), namespace()]);
        let other = format!("/proc/{}/fd/{}", std::process::id(), networks.0[1].as_raw_fd());
        networks.ip(0, &format!("link add veth type veth peer name veth netns {other}"));
        for which in [0, 1] {
            networks.ip(which, "link set lo up");
            networks.ip(which, "link set veth up");
        }
        Some(networks)
    }

    /// Does something inside one of them, on a thread of its own, with the caller's runtime.
    pub(crate) fn inside<T: Send>(&self, which: usize, work: impl FnOnce() -> T + Send) -> T {
        let runtime = tokio::runtime::Handle::try_current();
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                nix::sched::setns(&self.0[which], CloneFlags::CLONE_NEWNET).unwrap();
                let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
                work()
            });
            done.join().unwrap()
        })
    }

    /// Runs `ip` inside one of them.
    pub(crate) fn ip(&self, which: usize, arguments: &str) {
        let run = || std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
        let done = self.inside(which, run);
        assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

fn namespace() -> std::fs::File {
    let make = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}
