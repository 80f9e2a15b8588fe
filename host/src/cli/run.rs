//! `run`: the configured pipeline, from start to signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::assemble::{Assembly, NotStarted, assemble};
use super::render;
use super::render::live;
use super::summary::Summary;
use crate::clock::RealClock;
use crate::config::Loaded;
use crate::model::Fault;
use crate::pipeline;
use crate::telemetry::Counters;

/// The code of a process that a second signal ends at once, as shells give it.
const KILLED: i32 = 130;

/// Takes records to the sinks until told to stop (S54).
///
/// # Errors
/// What kept it from starting, with the code that says so.
pub async fn run(loaded: &Loaded) -> Result<Exit, NotStarted> {
    let counters = Arc::new(Counters::default());
    let stopped = Arc::new(AtomicU8::new(0));
    let stop = stop_signal(stopped.clone())?;
    let Assembly { parts, source, topics } = assemble(loaded, counters.clone()).await?;
    let sinks: Vec<String> = loaded.config.sinks.names().map(|(kind, name)| format!("{kind}/{name}")).collect();
    live::running(&topics, &sinks);
    let outcome = pipeline::run(parts, source, RealClock::start(), stop).await;
    let signal = match stopped.load(Ordering::Relaxed) {
        0 => None,
        1 => Some("SIGTERM"),
        _ => Some("SIGINT"),
    };
    live::stopped(&Summary::of(&counters, signal));
    Ok(match outcome {
        Ok(()) => Exit::Done,
        Err(fault) => {
            render::faults(&[fault]);
            Exit::Stopped
        }
    })
}

/// Completes at SIGTERM or SIGINT; a SIGINT after that ends the process at once (S54).
fn stop_signal(stopped: Arc<AtomicU8>) -> Result<impl Future<Output = ()> + Send, Fault> {
    let listen = |kind| signal(kind).map_err(|error| Fault::host("signals cannot be received").because(error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => stopped.store(1, Ordering::Relaxed),
            _ = interrupt.recv() => stopped.store(2, Ordering::Relaxed),
        }
        tracing::info!("stopping: what is under way is settled and committed first");
        tokio::spawn(async move {
            interrupt.recv().await;
            std::process::exit(KILLED);
        });
    })
}
