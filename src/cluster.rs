//! The facade: a cluster, and the one call that is a whole service.

use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::handle::Handle;
use crate::journal;
use crate::master::Foundation;
use crate::supervisor::Ending;
use crate::worker::{self, Worker};

/// How a cluster ended. As the result of `main` it is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Exit {
    /// A graceful shutdown, also when workers had to be killed at the disconnect time-out. Status 0.
    Graceful,
    /// A force order. Status 1.
    Forced,
    /// Every crash replacement that `max_fork_count` allows was made and no worker was ready. Status 3. The log
    /// says so; where [`logger::init`](crate::logger::init) sends it elsewhere than to stderr, or `RUST_LOG` hides
    /// it, or there is no logger, stderr has the line as well.
    GaveUp,
}

impl Exit {
    /// The exit status that this stands for.
    pub fn code(self) -> u8 {
        match self {
            Exit::Graceful => 0,
            Exit::Forced => 1,
            Exit::GaveUp => 3,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.code().into()
    }
}

/// Runs a service: this call returns in the master *and* in each worker.
///
/// The same program is started again for each worker; there, `serve` is called and its end is the
/// worker's. In the master `serve` is never called, and the cluster runs until it is shut down.
///
/// In the worker an error of `serve` is logged, told to the master as the cause of the exit, and
/// returned, so that `main` ends with status 1. A worker whose `serve` returns while
/// [`in_flight`](Worker::in_flight) guards are alive waits for them first.
///
/// # Errors
///
/// In the master, whatever keeps the cluster from starting: the program, the pid file, an address.
pub fn run<F>(config: Config, serve: F) -> Result<Exit>
where
    F: FnOnce(Worker) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
{
    match Worker::from_env()? {
        Some(worker) => worker::serve(&worker, config.handle_signals, serve).map(|()| Exit::Graceful),
        None => Cluster::new(config)?.run(),
    }
}

/// A cluster whose program is checked, whose pid file is taken and whose listeners are bound.
///
/// Workers start with [`run`](Cluster::run). Dropping it instead gives everything back.
pub struct Cluster {
    foundation: Foundation,
    _only: Only,
}

impl Cluster {
    /// Takes the pid file, binds every listener and the control API, and takes over the signals
    /// (unless `handle_signals` is off).
    ///
    /// # Errors
    ///
    /// Names the thing (program, pid file, address) and the cause; nothing is left behind. A second
    /// cluster in one process is refused while the first one exists.
    pub fn new(config: Config) -> Result<Self> {
        let only = Only::claim()?;
        Ok(Cluster { foundation: Foundation::lay(config)?, _only: only })
    }

    /// Gives orders from any thread, also while the cluster runs.
    pub fn handle(&self) -> Handle {
        self.foundation.handle().clone()
    }

    /// Starts the workers and runs until the cluster is shut down, on this thread.
    ///
    /// The workers die with this thread (Linux binds the parent-death signal to it), so let it run
    /// as long as the process. Afterwards signals work as before.
    ///
    /// # Errors
    ///
    /// When the very first worker cannot be started for a reason that lasts.
    pub fn run(self) -> Result<Exit> {
        let ending = self.foundation.run()?;
        journal::end();
        match ending {
            Ending::Graceful => Ok(Exit::Graceful),
            Ending::Forced => Ok(Exit::Forced),
            Ending::GaveUp => Ok(Exit::GaveUp),
            Ending::CouldNotStart { reason } => Err(Error::new(Kind::Start, reason)),
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// The claim to be the only cluster of the process: signals and the parent-death signal are the process's.
struct Only;

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl Only {
    fn claim() -> Result<Self> {
        if CLAIMED.swap(true, Ordering::SeqCst) {
            Err(Error::new(Kind::Start, "this process has a cluster already"))
        } else {
            Ok(Only)
        }
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        CLAIMED.store(false, Ordering::SeqCst);
    }
}
