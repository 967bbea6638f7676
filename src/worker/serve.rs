//! A worker's whole life in the process that embeds it: its closure, its signal, its end.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use signal_hook::SigId;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::{pipe, unregister};

use super::{LONGEST_TEXT, Worker, spawn_quiet};
use crate::error::{Error, Result, panic_text};
use crate::message::FromWorker;
use crate::sys::signal::is_default;

/// What a worker's closure may fail with.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the closure to its end, and waits for work on other threads when it ended well. What went wrong is
/// logged and told to the master; a panic goes on after that.
///
/// With `handle_signals` SIGTERM means being told to disconnect: a service manager that stops the whole control
/// group sends it to workers too, and must not cut their requests.
pub(crate) fn serve<F>(worker: &Worker, handle_signals: bool, f: F) -> Result<()>
where
    F: FnOnce(Worker) -> Result<(), Failure>,
{
    let _terminate = if handle_signals { Some(Terminate::install(worker)?) } else { None };
    match catch_unwind(AssertUnwindSafe(|| f(worker.clone()))) {
        Ok(Ok(())) => {
            worker.0.relay.wait_until_done();
            worker.wait_for_work();
            Ok(())
        }
        Ok(Err(error)) => {
            log::error!("worker {} failed: {error}", worker.id());
            tell_failure(worker, &error.to_string());
            Err(Error::worker(error))
        }
        Err(panic) => {
            tell_failure(worker, &format!("panicked: {}", panic_text(&*panic)));
            resume_unwind(panic)
        }
    }
}

fn tell_failure(worker: &Worker, reason: &str) {
    let reason = reason.chars().take(LONGEST_TEXT).collect();
    if let Err(error) = worker.tell(&FromWorker::Failed { reason }) {
        log::debug!("the failure could not be told: {error}");
    }
}

/// While this lives SIGTERM asks the worker to disconnect; afterwards it does what it did before.
struct Terminate {
    action: SigId,
    over: Arc<AtomicBool>,
}

impl Terminate {
    fn install(worker: &Worker) -> Result<Self> {
        Terminate::try_install(worker).map_err(|error| Error::start("handling SIGTERM", error))
    }

    fn try_install(worker: &Worker) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        if is_default(SIGTERM) {
            signal_hook::flag::register_conditional_default(SIGTERM, Arc::clone(&over))?;
        }
        let (mut ours, theirs) = UnixStream::pair()?;
        let action = pipe::register(SIGTERM, theirs)?;
        let worker = worker.clone();
        spawn_quiet("proteus-signal", move || {
            while ours.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {
                worker.0.disconnect.request();
            }
        })?;
        Ok(Terminate { action, over })
    }
}

impl Drop for Terminate {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        unregister(self.action);
    }
}
