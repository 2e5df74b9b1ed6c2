//! What the tests of this crate share: an operation's context, and waiting for something to become true, with a bound.

use std::time::Duration;

use ha_core::driver::Context;
use ha_core::name::{Epoch, HierarchyName, NodeName, ResourceName};

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
