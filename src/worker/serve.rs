//! A worker's whole life in the process that embeds it: its closure, its signal, its end.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{LONGEST_TEXT, Worker, spawn_quiet};
use crate::error::{Error, Result, panic_text};
use crate::message::FromWorker;
use crate::sys::catch::Catcher;

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
    _catcher: Catcher,
    /// What the catcher writes to: closed after it, which ends the thread that listens.
    _wake: UnixStream,
}

impl Terminate {
    fn install(worker: &Worker) -> Result<Self> {
        Terminate::try_install(worker).map_err(|error| Error::start("handling SIGTERM", error))
    }

    fn try_install(worker: &Worker) -> io::Result<Self> {
        let (mut ours, wake) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let worker = worker.clone();
        spawn_quiet("proteus-signal", move || {
            while ours.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {
                worker.0.disconnect.request();
            }
        })?;
        Ok(Terminate { _catcher: Catcher::install(libc::SIGTERM, wake.as_fd())?, _wake: wake })
    }
}
