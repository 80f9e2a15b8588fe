//! What runs asynchronous code for the targets.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// Its clock stands still and jumps to the next timer when nothing else is left to do, so that no back-off takes time.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap_or_else(|error| panic!("no runtime: {error}"))
});

/// Waits for a future.
pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}
