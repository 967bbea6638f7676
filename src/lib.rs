//! A Unix master/worker cluster for services: one small master starts N worker processes, shares
//! listening sockets with them, replaces those that crash, and rolls new code out without losing a request.
//!
//! ```no_run
//! use proteus_cluster::{Api, Config, Exit};
//!
//! fn main() -> proteus_cluster::Result<Exit> {
//!     let config = Config::builder()
//!         .workers(4)
//!         .listen("http", "127.0.0.1:8080")
//!         .api(Api::new("127.0.0.1:8111"))
//!         .build()?;
//!     proteus_cluster::run(config, |worker| {
//!         let listener = worker.listener("http")?;
//!         worker.ready()?;
//!         for stream in worker.incoming(&listener) {
//!             if let Err(error) = respond(stream) {
//!                 log::warn!("{error}");
//!             }
//!         }
//!         Ok(())
//!     })
//! }
//! # fn respond(_: std::net::TcpStream) -> std::io::Result<()> { Ok(()) }
//! ```
//!
//! [`run`] is the short form. A program with threads of its own in the master uses [`Worker::from_env`],
//! [`Cluster`] and [`Handle`].
//!
//! # What it promises
//!
//! 1. While at least one worker is healthy, no connection is refused or reset by a restart, a scale or a
//!    crash of another worker.
//! 2. A bad release does not take the service down: a restart replaces nothing until a replacement has
//!    proved itself; one that fails later is rolled back, and it says why it stopped.
//! 3. The master never blocks on a worker or on a reader of its log, and never dies of what one of them sends.
//! 4. A shutdown always ends. While the master lives, no process group of a worker outlives its worker;
//!    when the master is killed, every worker dies with it (and, with a guard, what it has started).
//! 5. The master never signals or reaps a process that is not its own child.
//! 6. Nothing is silent: every crash, kill, refused order and dropped message is counted, logged and visible
//!    in the status, with its cause.
//!
//! # How it is built
//!
//! A pure core decides; a thin driver does. One thread owns all state.
//!
//! ```text
//! signal ─ self-pipe ─┐                         (pure)
//! process exit ───────┤            ┌─────────────────────────────┐
//! worker channel ─────┼─► Event ──►│ Supervisor::handle(now, ev) │──► Action…
//! deadline ───────────┤            └─────────────────────────────┘       │
//! HTTP ─ channel+wake ┘                                                  ▼
//!       ▲                                             perform: spawn, signal, send, reply
//!       └─────────────── reply ◄─────────── failures come back as Events (SpawnFailed)
//! ```
//!
//! Invariants: `supervisor/` has no descriptor, clock, system call, thread or log, and no catch-all arm.
//! Only a reap declares a worker dead; a channel's end is a hint. Signals, API routes and [`Handle`] calls
//! become the same `Order`. Messages for listeners leave the loop for a thread of their own, by a bounded queue;
//! any thread writes to a worker itself. `Action::Spawn` names worker, slot and generation: the driver chooses nothing; it
//! keeps each generation's program open until the core lets go of it.
//! The loop never writes HTTP, resolves no names, reads no /proc (but its own map of memory, when it starts a guard), waits for no logger (its lines leave by way
//! of `journal/`); it starts no process and reads no
//! program's path itself: threads of their own do (`master/starter.rs`), since a file system may not answer; children die
//! with the thread that made them, so those live as long as the cluster. A
//! descriptor leaves the loop before its child is reaped; what is left of a worker's process group is killed
//! before that, while the number is still the group's own. Nothing from outside reaches the HTTP server but what
//! `api/gate.rs` has read, admitted and written anew. Unsafe code is in `sys/` alone.
//!
//! # Where to add
//!
//! - a setting: a row in `config/settings.rs`
//! - a signal: a row in `master/signals.rs`
//! - a route: a row in `api/routes.rs`; who may ask for it: `api/policy.rs`
//! - a command: a row in `cli/mod.rs`; one for a running master is an `Errand` in `cli/orders.rs`
//! - a listener kind: a variant of [`ListenAddress`] and its arm in `master/listener.rs`
//! - a decision: an arm in `supervisor/`, an `Event` or `Action` if the driver must tell or do something new,
//!   and an invariant in `supervisor/simulator`
//! - a rule by which a worker is recycled: a variant of `Wear` in `supervisor/recycle.rs`, and the event that brings
//!   its fact
//! - a line of the log from the master's own code: `journal::info!` and its like, which never wait for a logger
//! - something of a worker that is kept beyond a turn of the loop: a `Kind` in `account.rs`, and a row in
//!   `docs/bounds.md`, which `tests/it/bounds.rs` sends beyond its bound
//! - a warning that somebody else can bring about again and again: by `journal/throttle.rs`
//! - a line of the channel: a variant in `message.rs`; one that Node speaks: in `node.rs`
//! - a system call: `sys/`

#[cfg(not(target_os = "linux"))]
compile_error!("proteus-cluster runs on Linux: it needs clone, epoll, parent-death signals and /proc");

mod account;
mod api;
mod ask;
mod cluster;
mod config;
mod dispatch;
mod error;
mod handle;
mod journal;
#[cfg(feature = "logger")]
pub mod logger;
mod master;
mod message;
mod meter;
mod node;
mod peers;
mod principal;
mod status;
mod supervisor;
mod sys;
mod worker;

pub use ask::Reply;
pub use cluster::{Cluster, Exit, run};
/// The tables of orders, for help texts and for the test that holds the README against them.
#[doc(hidden)]
pub mod orders {
    /// Each signal that the master takes over, and what it does.
    pub fn signals() -> impl Iterator<Item = (&'static str, &'static str)> {
        crate::master::signals::SIGNALS.iter().map(|row| (row.name, row.meaning))
    }

    /// Each path of the control API, and what it answers.
    pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
        crate::api::routes::ROUTES.iter().map(|route| (route.path, route.meaning))
    }
}

/// Text from workers, made safe for a terminal.
#[doc(hidden)]
pub mod escape {
    pub use crate::journal::escape::{json, text};
}

#[doc(hidden)]
pub use config::settings;
pub use config::{Api, Builder, Config, ListenAddress, Listener, LogFile, LogFormat, Output, Ready, Speaks};
pub use error::{Error, Result};
pub use handle::{Handle, Restart, RestartOutcome};
#[doc(hidden)]
pub use master::{check, own_process};
pub use message::Message;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use message::property;
pub use peers::WorkerInfo;
pub use status::{
    DroppedStatus, ExitRecord, ForkStatus, ListenerStatus, MasterStatus, OrderStatus, RestartStatus, Status,
    WorkerStatus,
};
pub use worker::{Accept, InFlight, Incoming, Worker};
