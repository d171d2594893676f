//! Threads for those who read what lies behind: what they need is fetched, opened and checked here, and not where the end is served.
//! Used by `fetch` and `read`; made by who wires a log.
//!
//! A replay takes what processor it is given. Here that is what others leave: on Linux these threads have a lower priority (`nice`), so
//! that the kernel lets a write or a read at the end run at once, also where there are few processors.

use std::{fmt, future::Future, io, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::{StoreError, sealed::apart};

/// Threads that check and decrypt.
const WORKERS_MAX: usize = 4;
/// How much these give way: of a processor that somebody else wants as well, they get about a tenth (`sched(7)`).
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// The lowest priority there is.
#[cfg(target_os = "linux")]
const NICE_MAX: i32 = 19;

/// Where readers' work is done. Clones share it; the threads end with the last.
#[derive(Clone, Default)]
pub struct Readers(Option<Arc<Own>>);

struct Own {
    handle: Handle,
    /// There until this is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readers").field(&if self.0.is_some() { "own threads" } else { "those of who asks" }).finish()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also where it is dropped by a task.
            runtime.shutdown_background();
        }
    }
}

impl Readers {
    /// Threads of their own, that give way to all others.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn apart() -> io::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let lower = lower();
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(crate::read::FILE_READS_MAX + crate::fetch::READS_MAX)
            .thread_name("cairn-readers")
            .on_thread_start(move || give_way(lower))
            .enable_all()
            .build()?;
        Ok(Self(Some(Arc::new(Own { handle: runtime.handle().clone(), runtime: Some(runtime) }))))
    }

    /// The work, done here; it is finished whether anybody waits for it or not. Where there are no own threads, whoever waits does it.
    pub(crate) fn take<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let Some(own) = &self.0 else { return work.boxed() };
        let work = own.handle.spawn(work);
        async move { work.await.unwrap_or_else(|error| Err(StoreError::Failed { reason: error.to_string() })) }.boxed()
    }

    /// Work for one of them from without, done here. It ends where nobody waits for it any more.
    ///
    /// # Errors
    /// Where it panicked, or the threads are gone.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        match &self.0 {
            Some(own) => AbortOnDropHandle::new(own.handle.spawn(work)).await.map_err(io::Error::other),
            None => Ok(work.await),
        }
    }

    /// Work that takes a while and waits for nothing.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(own) = &self.0 else { return apart(work).await };
        let done = own.handle.spawn_blocking(work).await;
        done.map_err(|error| StoreError::Failed { reason: error.to_string() })
    }
}

/// The priority of those that give way to the threads that there are. It is found once: a thread begins with that of the one that makes it,
/// which may be one of them.
#[cfg(target_os = "linux")]
fn lower() -> Option<i32> {
    rustix::process::getpriority_process(None).ok().map(|now| (now + NICE).min(NICE_MAX))
}

/// Of this thread alone.
#[cfg(target_os = "linux")]
fn give_way(lower: Option<i32>) {
    if let Some(Err(error)) = lower.map(|lower| rustix::process::setpriority_process(None, lower)) {
        tracing::debug!(%error, "readers' threads run as all others do");
    }
}

/// A priority is the whole process's here, and stays.
#[cfg(not(target_os = "linux"))]
const fn lower() {}

#[cfg(not(target_os = "linux"))]
const fn give_way((): ()) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn readers_give_way_and_nobody_else_does() {
        let nice = || rustix::process::getpriority_process(None).expect("a thread has a priority");
        let before = nice();
        let readers = Readers::apart().expect("threads");
        let seen = readers.take(async move { Ok(nice()) }).await.expect("done");
        let blocking = readers.block(nice).await.expect("done");
        let lower = (before + NICE).min(NICE_MAX);
        assert_eq!((seen, blocking), (lower, lower));
        assert_eq!((nice(), std::thread::spawn(nice).join().expect("no panic")), (before, before));
        let within = readers.run(async move { nice() }).await.expect("done");
        assert_eq!(within, seen);
        // More of them at once than there were: one of the readers makes their threads.
        let made_by_a_reader = readers.run(async move {
            let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            let made = tokio::task::spawn_blocking(nice).await;
            drop(go);
            let _ = busy.await;
            made
        });
        assert_eq!(made_by_a_reader.await.expect("done").expect("done"), lower);
        drop(readers);
    }

    #[tokio::test]
    async fn what_is_begun_is_finished_though_nobody_waits() {
        let readers = Readers::apart().expect("threads");
        let (say, said) = tokio::sync::oneshot::channel();
        drop(readers.take(async move {
            tokio::task::yield_now().await;
            let _ = say.send(7);
            Ok(())
        }));
        assert_eq!(said.await, Ok(7));
    }

    #[tokio::test]
    async fn what_is_done_from_without_ends_with_who_waits_for_it() {
        let readers = Readers::apart().expect("threads");
        let (say, said) = tokio::sync::oneshot::channel::<()>();
        let forever = readers.run(async move {
            let _held = say;
            std::future::pending::<()>().await;
        });
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), forever).await;
        assert!(waited.is_err());
        assert!(said.await.is_err(), "it was dropped");
    }
}
