//! A thread on which a device may hang, and one that waits for it.
//!
//! Decides that jobs for a device are carried out one by one, in the order in which they were asked for; that who asks hears in time, though
//! the device may never answer; and that nothing begins that nobody waits for any more. Leaves what a job is to the device.
//!
//! What the kernel has cannot be called back: with storage that hangs, the first thread hangs too, uninterruptibly (state D). The kernel keeps
//! what is left of a killed process until its last thread has left the kernel; so this one has a table of open files of its own, with nothing
//! in it but the device, and a next life of the agent finds its ports and lock files free. So it can wake nobody who waits in the runtime,
//! either, which takes a descriptor of the runtime's: the second, which shares everything, does that for it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::libc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::urgency;

/// So many jobs wait for their turn; further callers wait for room, with the same limit.
const QUEUE: usize = 64;

/// A job, and who waits for it.
#[derive(Debug)]
struct Request<Job, Done> {
    job: Job,
    answer: oneshot::Sender<Done>,
}

/// The threads of one open device. Both end when this is dropped, as soon as the device lets them; dropping waits for nothing.
#[derive(Debug)]
pub(super) struct DeviceThread<Job, Done> {
    requests: mpsc::Sender<Request<Job, Done>>,
}

/// A device on its thread, and where it is told how opening went.
pub(super) type Started<Job, Done, Opened, Error> =
    io::Result<(DeviceThread<Job, Done>, Receiver<Result<Opened, Error>>)>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It did not come in time. Whether the job is carried out is unknown, unless it had not begun: then it never begins.
    InTime,
    /// The thread has ended.
    Ever,
}

impl<Job: Send + 'static, Done: Send + 'static> DeviceThread<Job, Done> {
    /// Opens a device on a thread for it, of this name (15 bytes at most). Tells how opening went in the receiver. The threads are urgent
    /// if the one that calls this is: a lease is renewed by them, and no sooner than they run.
    ///
    /// `open` runs on that thread and gives what carries jobs out there.
    pub(super) fn start<Carry, Opened, Error>(
        name: &str,
        open: impl FnOnce() -> Result<(Carry, Opened), Error> + Send + 'static,
    ) -> Started<Job, Done, Opened, Error>
    where
        Carry: FnMut(Job) -> Done,
        Opened: Send + 'static,
        Error: Send + 'static,
    {
        let (requests, incoming) = mpsc::channel(QUEUE);
        let (tell_opened, opened) = sync_channel(1);
        let (jobs, next_job) = sync_channel(1);
        let (tell_done, done) = sync_channel(1);
        let urgent = urgency::is_thread_urgent();
        let touch = move || {
            be_urgent(urgent);
            keep_no_files();
            match open() {
                Err(e) => drop(tell_opened.send(Err(e))),
                Ok((mut carry_out, found)) => {
                    // Fails if the caller has gone on without this device; then there are no jobs either.
                    let _ = tell_opened.send(Ok(found));
                    while let Ok(job) = next_job.recv() {
                        if tell_done.send(carry_out(job)).is_err() {
                            return;
                        }
                    }
                }
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(touch)?;
        let wait = move || {
            be_urgent(urgent);
            serve(incoming, &jobs, &done);
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(wait)?;
        Ok((DeviceThread { requests }, opened))
    }

    /// Has a job carried out, and waits for its end, so long at most.
    pub(super) async fn carry_out(&self, job: Job, limit: Duration) -> Result<Done, Unanswered> {
        let deadline = Instant::now() + limit;
        let (answer, answered) = oneshot::channel();
        let ask = async {
            self.requests.send(Request { job, answer }).await.map_err(|_| Unanswered::Ever)?;
            answered.await.map_err(|_| Unanswered::Ever)
        };
        tokio::time::timeout_at(deadline, ask).await.unwrap_or(Err(Unanswered::InTime))
    }
}

fn serve<Job, Done>(mut requests: mpsc::Receiver<Request<Job, Done>>, jobs: &SyncSender<Job>, done: &Receiver<Done>) {
    while let Some(Request { job, answer }) = requests.blocking_recv() {
        // Given up before it began: nobody wants to know it, and a change that late is better not made.
        if answer.is_closed() {
            continue;
        }
        let Ok(result) = jobs.send(job).map_err(drop).and_then(|()| done.recv().map_err(drop)) else { return };
        // Fails if it was given up in between.
        drop(answer.send(result));
    }
}

/// Makes this thread what the one is that started it. That one was allowed to be, so this one is.
fn be_urgent(urgent: bool) {
    if urgent {
        let _ = urgency::make_thread_urgent();
    }
}

/// Gives this thread a table of open files of its own, in which only the standard streams are left. Before Linux 5.9 it
/// keeps sharing the process's.
fn keep_no_files() {
    // SAFETY: plain numbers. With this flag nothing is closed but copies that belong to this thread alone, and nothing on this
    // thread has opened a descriptor yet, or was given one.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENT: Duration = Duration::from_secs(30);
    const HASTY: Duration = Duration::from_millis(50);

    type Echo = DeviceThread<u32, u32>;

    /// A device that gives back what it is asked, each time that it is let, and tells what it began.
    fn echo() -> (Echo, mpsc::Sender<()>, mpsc::Receiver<u32>) {
        let (let_go, wait) = mpsc::channel();
        let (tell, begun) = mpsc::channel();
        let open = move || {
            let carry_out = move |job| {
                tell.send(job).unwrap();
                wait.recv().unwrap();
                job
            };
            Ok::<_, ()>((carry_out, "opened"))
        };
        let (thread, opened) = DeviceThread::start("ha-test", open).unwrap();
        assert_eq!(opened.recv().unwrap(), Ok("opened"));
        (thread, let_go, begun)
    }

    #[tokio::test]
    async fn who_asks_a_device_that_hangs_hears_in_time_and_what_nobody_waits_for_never_begins() {
        let (device, let_go, begun) = echo();
        assert_eq!(device.carry_out(1, HASTY).await, Err(Unanswered::InTime));
        let behind: Vec<_> = (2..200).map(|job| device.carry_out(job, HASTY)).collect();
        let answers = futures::future::join_all(behind).await;
        assert!(answers.iter().all(|answer| *answer == Err(Unanswered::InTime)), "{answers:?}");

        let_go.send(()).unwrap();
        let_go.send(()).unwrap();
        assert_eq!(device.carry_out(200, PATIENT).await, Ok(200), "and the answer to the first is not taken for its");
        assert_eq!(begun.try_iter().collect::<Vec<_>>(), [1, 200]);
    }

    #[tokio::test]
    async fn a_device_that_does_not_open_says_why_and_answers_nothing() {
        type Closed = Result<(fn(u32) -> u32, ()), &'static str>;
        let open = || -> Closed { Err("there is none") };
        let (device, opened): (Echo, _) = DeviceThread::start("ha-test", open).unwrap();
        assert_eq!(opened.recv().unwrap(), Err("there is none"));
        assert_eq!(device.carry_out(1, PATIENT).await, Err(Unanswered::Ever));
    }
}
