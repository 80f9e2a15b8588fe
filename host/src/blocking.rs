//! Threads for work that may block for long, apart from the runtime's own pool: whoever fills one pool delays nobody in another.

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Below this many bytes, parsing takes less time than handing it to another thread is worth.
const INLINE_BYTES: usize = 64 << 10;

/// A pool of threads of its own, each started when it is first needed and ended after some seconds without work. Dropping it
/// does not wait for work under way.
#[derive(Debug)]
pub struct BlockingPool {
    /// Without drivers and never entered: only its pool is used. `None` where it could not be made; the runtime's pool serves then.
    runtime: Option<Runtime>,
}

impl BlockingPool {
    /// A pool of at most `threads` threads called `name`; more work than that waits for its turn.
    pub fn new(name: &str, threads: usize) -> Self {
        let runtime = Builder::new_current_thread().thread_name(name).max_blocking_threads(threads.max(1)).build();
        if let Err(error) = &runtime {
            tracing::warn!("the threads `{name}` cannot be had: {error}");
        }
        Self { runtime: runtime.ok() }
    }

    /// Runs `work` on a thread of the pool.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match &self.runtime {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        }
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Where async code runs, nobody may wait for threads.
            runtime.shutdown_background();
        }
    }
}

/// Runs work whose time grows with `bytes`, such as parsing. With many, the thread's other tasks are given to another thread
/// first, so that they do not wait for it.
pub fn compute<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_other_threads =
        Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= INLINE_BYTES && has_other_threads { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc;

    use super::*;

    fn runtime(workers: usize) -> Runtime {
        Builder::new_multi_thread().worker_threads(workers).max_blocking_threads(1).build().unwrap()
    }

    /// The only blocking thread of the runtime is taken, and so is every one of another pool.
    #[test]
    fn a_pool_has_threads_of_its_own() {
        let runtime = runtime(1);
        let (release, taken) = mpsc::channel::<()>();
        let parked = runtime.spawn_blocking(move || taken.recv());
        let (pool, full) = (BlockingPool::new("one", 1), BlockingPool::new("other", 1));
        let (finish, waiting) = mpsc::channel::<()>();
        drop(full.spawn(move || waiting.recv()));
        assert_eq!(
            runtime.block_on(pool.spawn(|| std::thread::current().name().map(str::to_owned))).unwrap().unwrap(),
            "one"
        );
        drop((release, finish));
        assert!(runtime.block_on(parked).unwrap().is_err());
    }

    /// S77: while one task parses much, the other tasks of its thread go on: here it waits for one of them.
    #[test]
    fn much_to_compute_keeps_no_other_task_waiting() {
        let runtime = runtime(1);
        let (done, waiting) = mpsc::channel();
        let computing = runtime.spawn(async move {
            tokio::spawn(async move { done.send(()) });
            compute(INLINE_BYTES, || waiting.recv())
        });
        runtime.block_on(computing).unwrap().unwrap();
    }

    #[tokio::test]
    async fn little_and_a_runtime_of_one_thread_compute_in_place() {
        let here = std::thread::current().id();
        assert_eq!(compute(usize::MAX, || std::thread::current().id()), here);
        assert_eq!(compute(0, || 7), 7);
    }
}
