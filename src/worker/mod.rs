//! What runs inside a worker.

mod channel;
mod disconnect;
mod handlers;
mod incoming;
mod listeners;
#[cfg(feature = "logger")]
mod logger;
mod pulse;
mod relay;
mod serve;
mod waiters;
mod writer;

#[cfg(test)]
mod incoming_tests;
#[cfg(test)]
mod tests;

use std::env;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use serde::Serialize;

use self::channel::{Channel, Heard, Stream};
use self::disconnect::Disconnect;
use self::handlers::{Effect, Handlers};
use self::listeners::{Listeners, SocketKind};
use self::pulse::Pulse;
use self::relay::{Next, Part, Relay};
use crate::error::{Error, Kind, Result};
use crate::message::{FromWorker, Message, Outgoing};
use crate::sys::exit::{LastWord, before_exit};
use crate::sys::inherit;
use crate::sys::signal::Mask;

pub use self::incoming::{Accept, Incoming};
#[cfg(feature = "logger")]
pub(crate) use self::logger::Shipper;
pub(crate) use self::serve::serve;

/// This process as a worker of a cluster: its listeners, its readiness, and its order to disconnect.
///
/// Clones are the same worker, and may be used from any thread. A worker whose master is gone is told to
/// disconnect as if the master had said so.
///
/// # Examples
///
/// ```no_run
/// use proteus_cluster::Worker;
///
/// # fn main() -> proteus_cluster::Result<()> {
/// if let Some(worker) = Worker::from_env()? {
///     let listener = worker.listener("http")?;
///     worker.ready()?;
///     for stream in worker.incoming(&listener) {
///         drop(stream);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

struct Shared {
    identity: Identity,
    channel: Channel,
    relay: Relay,
    handlers: Handlers,
    listeners: Listeners,
    disconnect: Disconnect,
    said_ready: AtomicBool,
    pulse: Pulse,
    work: Work,
}

/// What is told of a failure or a panic is cut here: it is one line of the log.
const LONGEST_TEXT: usize = 4096;

/// The worker that this process is.
static CURRENT: Mutex<Option<Worker>> = Mutex::new(None);

/// What was sent in a burst may still be on its way when the process ends.
fn flush_current() {
    let worker = lock(&CURRENT).clone();
    if let Some(worker) = worker {
        worker.0.channel.flush();
    }
}

fn channel_number() -> Option<i32> {
    env::var("PROTEUS_CHANNEL_FD").ok()?.parse().ok()
}

/// The channel to the master whose worker this process is, for lines of the log: also before [`Worker::from_env`].
#[cfg(feature = "logger")]
pub(crate) fn early_channel() -> Option<inherit::EarlyChannel> {
    channel_number().and_then(inherit::early_channel)
}

/// Who the master says that we are.
#[derive(Debug, Clone, Copy)]
struct Identity {
    id: u64,
    slot: usize,
    generation: u64,
}

impl Worker {
    /// The worker that this process is, or `None` when a cluster did not start it.
    ///
    /// The first call takes over the channel and the listeners that the environment names, makes them
    /// close-on-exec, and says hello to the master; later calls return the same worker. The channel counts only
    /// when this process's own parent made it, so that a worker's children, which inherit its environment, are
    /// never mistaken for workers. Fails when the environment contradicts itself.
    pub fn from_env() -> Result<Option<Worker>> {
        let mut current = lock(&CURRENT);
        if current.is_none() {
            *current = Worker::take_env()?;
            before_exit(LastWord::Messages, flush_current);
        }
        Ok(current.clone())
    }

    fn take_env() -> Result<Option<Worker>> {
        let Some(channel) = channel_number().and_then(inherit::channel) else { return Ok(None) };
        match (Identity::from_env(), Listeners::from_env()) {
            (Ok(identity), Ok(listeners)) => {
                let worker = Worker::start(identity, UnixStream::from(channel), listeners);
                #[cfg(feature = "logger")]
                if let Ok(worker) = &worker {
                    logger::write_by(worker.0.channel.writer());
                }
                worker.map(Some).map_err(|error| Error::start("starting as a worker", error))
            }
            (Err(error), _) | (_, Err(error)) => {
                // Stays open, so that a second call fails too and does not find itself to be no worker.
                std::mem::forget(channel);
                Err(error)
            }
        }
    }

    fn start(identity: Identity, channel: UnixStream, listeners: Listeners) -> io::Result<Worker> {
        let shared = Arc::new(Shared {
            identity,
            channel: Channel::new(channel)?,
            relay: Relay::default(),
            handlers: Handlers::default(),
            listeners,
            disconnect: Disconnect::new()?,
            said_ready: AtomicBool::new(false),
            pulse: Pulse::from_env(),
            work: Work::default(),
        });
        if let Err(error) = shared.channel.send(&FromWorker::Hello) {
            log::debug!("hello: {error}"); // the reader finds the same end, and acts on it
        }
        let (first, second) = (Arc::clone(&shared), Arc::clone(&shared));
        spawn_quiet("proteus-channel", move || first.attend(Next::Read))?;
        spawn_quiet("proteus-channel", move || second.attend(Next::StandBy))?;
        Ok(Worker(shared))
    }

    /// The worker's number: from 1, never used again in the life of its master.
    pub fn id(&self) -> u64 {
        self.0.identity.id
    }

    /// The seat that this worker fills, from 0. Its replacement fills the same one.
    pub fn slot(&self) -> usize {
        self.0.identity.slot
    }

    /// How many rolling restarts began before this worker's program was chosen, from 1.
    pub fn generation(&self) -> u64 {
        self.0.identity.generation
    }

    /// A TCP listener of the settings, by name. Each call gives a descriptor of its own to the one socket.
    ///
    /// All workers share the socket and its flags: `set_nonblocking` here changes it for all of them
    /// ([`Worker::incoming`] works either way), and `shutdown(2)` ends it for all of them.
    ///
    /// Fails for an unknown name or another kind of socket; the error lists what there is.
    pub fn listener(&self, name: impl AsRef<str>) -> Result<TcpListener> {
        self.socket(name.as_ref(), SocketKind::Tcp).map(Into::into)
    }

    /// A unix stream listener of the settings, by name; as [`Worker::listener`] otherwise.
    pub fn unix_listener(&self, name: impl AsRef<str>) -> Result<UnixListener> {
        self.socket(name.as_ref(), SocketKind::Unix).map(Into::into)
    }

    /// A UDP socket of the settings, by name; as [`Worker::listener`] otherwise.
    pub fn udp_socket(&self, name: impl AsRef<str>) -> Result<UdpSocket> {
        self.socket(name.as_ref(), SocketKind::Udp).map(Into::into)
    }

    fn socket(&self, name: &str, kind: SocketKind) -> Result<OwnedFd> {
        self.0.listeners.take(name, kind)
    }

    /// Asks the master for a listener at `address` (`host:port`), which it shares with every worker that asks
    /// for the same. Waits for the answer; several threads may ask at once.
    ///
    /// A host name is resolved here, and its addresses are tried in order until one can be had. Fails with the
    /// master's reason, or with [`Error::is_ended`] when the master is gone.
    pub fn listen(&self, address: impl AsRef<str>) -> Result<TcpListener> {
        let address = address.as_ref();
        let found =
            address.to_socket_addrs().map_err(|error| Error::start(format!("listen {address}"), error))?;
        let mut last = None;
        for candidate in found {
            match self.listen_at(candidate) {
                Err(error) if !error.is_ended() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last
            .unwrap_or_else(|| Error::new(Kind::Start, format!("listen {address}: no address by that name"))))
    }

    fn listen_at(&self, address: SocketAddr) -> Result<TcpListener> {
        let socket = self.0.channel.listen(&address.to_string())?;
        match SocketKind::of(&socket) {
            SocketKind::Tcp => Ok(socket.into()),
            other => Err(Error::new(
                Kind::Start,
                format!("listen {address}: the answer is of kind {other}, not tcp"),
            )),
        }
    }

    /// Tells the master that this worker serves. Only the first call says so; a restart waits for it, up to
    /// the setting `readyTimeout`. Fails with [`Error::is_ended`] when the master is gone.
    pub fn ready(&self) -> Result<()> {
        let said = &self.0.said_ready;
        if said.swap(true, SeqCst) {
            return Ok(());
        }
        self.0.handlers.ready();
        self.0.relay.poke();
        self.tell(&FromWorker::Ready).inspect_err(|_| said.store(false, SeqCst))
    }

    /// Sends a message to the master: any value that serializes to JSON. A message with a text under `cmd` goes
    /// to the listener of that name. Messages arrive in the order of sending.
    ///
    /// A single message leaves at once; those of a burst share writes. Waits while the channel is full, which it
    /// is when the listeners fall behind. What this took arrives also when the worker ends right after, by
    /// return, `exit` or a panic; `abort` and SIGKILL may lose the last of a burst.
    ///
    /// # Errors
    ///
    /// [`is_ended`](Error::is_ended) when the master is gone, [`is_message`](Error::is_message) where it cannot
    /// be sent: a reserved `cmd` (`PROTEUS_…`, `NODE_…`) or more than 4 MiB.
    pub fn send(&self, message: impl Serialize) -> Result<()> {
        self.0.channel.send_line(&Outgoing::of(&message)?.line)
    }

    /// Calls `handler` for each message of the master whose `cmd` is this one, in the place of the handler that
    /// was there.
    ///
    /// Handlers run one at a time, in the order of the messages, on a thread of their own, which takes none of
    /// the program's signals. `run` waits for those of messages that came before the order to disconnect. A panic
    /// in a handler is logged, told to the master, and goes no further. Messages that come before
    /// [`ready`](Worker::ready) and have no handler yet wait for it.
    pub fn on_message(&self, cmd: impl AsRef<str>, handler: impl Fn(&Message) + Send + 'static) {
        self.0.handlers.set(cmd.as_ref(), handler);
        self.0.relay.poke();
    }

    /// Calls `handler` for each request of this `cmd` (`Handle::request`, or POST `/sync_send`), and sends what it
    /// returns as the reply: under `msg`, with the number of the request, so that every reply finds its request. A
    /// panic in it is the reply as well. A plain message of this `cmd` without a handler of its own comes here too,
    /// and gets no reply; as [`on_message`](Worker::on_message) otherwise.
    pub fn on_request<R: Serialize>(
        &self,
        cmd: impl AsRef<str>,
        handler: impl Fn(&Message) -> R + Send + 'static,
    ) {
        let cmd = cmd.as_ref();
        if let Err(error) = self.tell(&FromWorker::Answers { to: cmd.to_owned() }) {
            log::debug!("on_request: {error}");
        }
        self.0.handlers.set_request(cmd, handler);
        self.0.relay.poke();
    }

    /// Calls `handler` for every message of the master, whatever it is, after the handler of its `cmd`. Several
    /// are called in the order of their registration; as [`on_message`](Worker::on_message) otherwise.
    pub fn on_any_message(&self, handler: impl Fn(&Message) + Send + 'static) {
        self.0.handlers.add_any(handler);
        self.0.relay.poke();
    }

    /// Tells the master that this worker is not hung: to be called more often than the setting `watchdog`, where
    /// that is set; best twice as often or more. It costs next to nothing: only a few calls in that time are
    /// sent. Without a master there is nobody to tell, and nothing happens.
    ///
    /// Call it from the loop that serves. A thread or a timer of its own would go on saying so when nobody serves
    /// any more, and the hung worker would stay. [`Worker::incoming`] is such a loop and says it by itself, at each
    /// connection and while a thread waits for one: work on one connection that takes longer than the watchdog must
    /// say it too.
    pub fn alive(&self) {
        if !self.0.pulse.is_due(Instant::now()) {
            return;
        }
        self.say_alive();
    }

    fn say_alive(&self) {
        if let Err(error) = self.tell(&FromWorker::Alive) {
            log::debug!("alive: {error}");
        }
    }

    /// Asks the master to replace this worker: the replacement comes first, and then this one is told to
    /// disconnect. It is no crash. Until then it goes on serving. Asked before `minUptime`, it is replaced after
    /// that.
    ///
    /// # Errors
    ///
    /// [`is_ended`](Error::is_ended) when the master is gone.
    pub fn request_restart(&self) -> Result<()> {
        self.tell(&FromWorker::RestartMe)
    }

    fn tell(&self, message: &FromWorker) -> Result<()> {
        self.0.channel.send(message)
    }

    /// Whether this worker was told to disconnect: to stop accepting, finish its work and end.
    pub fn disconnect_requested(&self) -> bool {
        self.0.disconnect.is_requested()
    }

    /// Waits until this worker is told to disconnect.
    pub fn wait_for_disconnect(&self) {
        self.0.disconnect.wait();
    }

    /// Runs `f` once this worker is told to disconnect, on a thread that runs all such functions in order; at
    /// once and on this thread when it was told already. A panic in `f` is logged and goes no further.
    pub fn on_disconnect(&self, f: impl FnOnce() + Send + 'static) {
        self.0.disconnect.add_hook(Box::new(f));
    }

    /// A descriptor that becomes readable when this worker is told to disconnect, and stays so: for epoll loops
    /// and async runtimes. Reading it yields the end of a stream.
    pub fn disconnect_fd(&self) -> BorrowedFd<'_> {
        self.0.disconnect.fd()
    }

    /// The connections of a listener, until this worker is told to disconnect.
    ///
    /// The iterator then ends, at once if it is idle, after yielding what was in the queue by then. It yields
    /// streams, not results: a client that gave up, or a process that is out of descriptors for a while, is its
    /// own affair. It also ends, with an error in the log, when the listener itself is broken.
    ///
    /// Workers share the load fairly, whether or not the listener is in non-blocking mode, and its mode is
    /// never changed. Streams are in blocking mode and close-on-exec. Several threads may each have an iterator
    /// over one listener. Set a read timeout on each stream: a client that says nothing holds its thread.
    ///
    /// With the setting `watchdog` it says [`alive`](Worker::alive) at each connection and while a thread waits
    /// for one.
    ///
    /// # Implementation notes
    ///
    /// A thread that blocks in accept is woken by SIGURG, or by a real-time signal where the program handles
    /// SIGURG itself when it is told to disconnect. No other call of the program is ever interrupted by it. Do
    /// not block SIGURG in a thread while it iterates.
    pub fn incoming<'a, L: Accept>(&self, listener: &'a L) -> Incoming<'a, L> {
        Incoming::new(self.clone(), listener)
    }

    /// Marks work in progress. The process's `run` ends only once no such guard is alive, so that work on
    /// other threads outlives the closure that started it.
    pub fn in_flight(&self) -> InFlight {
        *lock(&self.0.work.count) += 1;
        InFlight(self.clone())
    }

    fn wait_for_work(&self) {
        let work = &self.0.work;
        let mut count = lock(&work.count);
        while *count > 0 {
            count = work.done.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// The life of one of the two threads that read the channel and run handlers.
    fn attend(&self, mut next: Next) {
        loop {
            next = match next {
                Next::Read => self.read(),
                Next::Run => self.relay.run(Part::Guest, |message| self.handle(message)),
                Next::StandBy => self.relay.stand_by(),
                Next::Leave => return,
            };
        }
    }

    fn read(&self) -> Next {
        let stream = self.channel.read(&mut |heard| match heard {
            Heard::Disconnect => self.disconnect.request(),
            Heard::Message(message) => self.relay.put(message),
        });
        if stream == Stream::Ended {
            self.disconnect.request();
        }
        let next = self.relay.run(Part::Reader, |message| self.handle(message));
        match stream {
            Stream::Goes => next,
            Stream::Ended => {
                self.relay.end();
                Next::Leave
            }
        }
    }

    /// Without a message, only those are handled that waited for their handler.
    fn handle(&self, message: Option<Message>) {
        self.handlers.handle(message, &mut |effect| match effect {
            Effect::Reply(line) => {
                if let Err(error) = self.channel.send_line(&line) {
                    log::debug!("a reply could not be sent: {error}");
                }
            }
            Effect::Panicked(text) => {
                let text: String = text.chars().take(LONGEST_TEXT).collect();
                log::error!("a message handler panicked: {}", text.escape_debug());
                if let Err(error) = self.channel.send(&FromWorker::Panicked { text }) {
                    log::debug!("the panic could not be told: {error}");
                }
            }
        });
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { id, slot, generation } = self.0.identity;
        f.debug_struct("Worker")
            .field("id", &id)
            .field("slot", &slot)
            .field("generation", &generation)
            .finish()
    }
}

impl Identity {
    fn from_env() -> Result<Self> {
        Ok(Identity {
            id: number("PROTEUS_WORKER_ID")?,
            slot: number("PROTEUS_SLOT")?,
            generation: number("PROTEUS_GENERATION")?,
        })
    }
}

fn number<T: std::str::FromStr>(key: &str) -> Result<T> {
    let text = env::var(key).unwrap_or_default();
    text.parse().map_err(|_| Error::new(Kind::Start, format!("{key}={text:?} is not a number")))
}

/// Guards that are alive.
#[derive(Default)]
struct Work {
    count: Mutex<usize>,
    done: Condvar,
}

/// Work in progress; see [`Worker::in_flight`].
#[derive(Debug)]
#[must_use = "the work counts only while this is alive"]
pub struct InFlight(Worker);

impl Drop for InFlight {
    fn drop(&mut self) {
        let work = &self.0.0.work;
        let mut count = lock(&work.count);
        *count -= 1;
        if *count == 0 {
            work.done.notify_all();
        }
    }
}

/// A lock whose holder panicked is still good: nothing here is left half changed.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread of ours, which takes none of the program's signals.
fn spawn_quiet(name: &str, f: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let before = Mask::block_all();
    let started = thread::Builder::new().name(name.into()).spawn(f);
    before.apply();
    started.map(|handle| handle.thread().clone())
}
