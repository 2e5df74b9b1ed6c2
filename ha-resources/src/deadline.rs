//! Work that may hang in the kernel, waited for no longer than until a deadline.
//!
//! Decides that whoever waits goes on, and that what hangs is not begun a second time. The thread that hangs stays until the kernel lets it go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

/// What `work` came to, if it came to its end before the deadline. It gets a thread of its own, so that it is in nobody's way.
pub(crate) async fn by<T: Send + 'static>(deadline: Instant, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("storage".to_owned()).spawn(move || answer.send(work()).ok()).ok()?;
    tokio::time::timeout_at(deadline, answered).await.ok()?.ok()
}

/// Lets one in at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

/// Somebody who was let in; out when dropped.
#[derive(Debug)]
pub(crate) struct Inside(Arc<AtomicBool>);

impl Gate {
    /// `None` while somebody is inside.
    pub(crate) fn enter(&self) -> Option<Inside> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| Inside(self.0.clone()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
