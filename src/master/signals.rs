//! Orders by signal: one flag a signal, one pipe that wakes the loop. Empty the pipe, then act.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::SigId;
use signal_hook::low_level;

use crate::supervisor::{Order, Origin, Scale};
use crate::sys::signal::{Disposition, Handler, Mask, set_default};

/// What the master does on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Order(Order),
    /// Children may have exited. Only on kernels without pidfds, or for a container's first process.
    LookForExits,
    /// Stay alive when the terminal goes.
    Ignore,
}

/// One signal that the master takes over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    signal: i32,
    pub(crate) name: &'static str,
    response: Response,
    /// For help and README.
    pub(crate) meaning: &'static str,
}

/// To add a signal: a row here.
pub(crate) const SIGNALS: &[Row] = &[
    Row {
        signal: libc::SIGUSR2,
        name: "SIGUSR2",
        response: Response::Order(Order::Restart),
        meaning: "rolling restart: new workers first, then the old ones go",
    },
    Row {
        signal: libc::SIGINT,
        name: "SIGINT",
        response: Response::Order(Order::Shutdown(Origin::Signal)),
        meaning: "graceful shutdown; a second SIGINT or SIGTERM forces it",
    },
    Row {
        signal: libc::SIGTERM,
        name: "SIGTERM",
        response: Response::Order(Order::Shutdown(Origin::Signal)),
        meaning: "graceful shutdown; a second SIGINT or SIGTERM forces it",
    },
    Row {
        signal: libc::SIGQUIT,
        name: "SIGQUIT",
        response: Response::Order(Order::ForceShutdown),
        meaning: "force shutdown: every worker is killed",
    },
    Row {
        signal: libc::SIGHUP,
        name: "SIGHUP",
        response: Response::Ignore,
        meaning: "nothing: the master outlives its terminal",
    },
    Row {
        signal: libc::SIGUSR1,
        name: "SIGUSR1",
        response: Response::Order(Order::ReopenLogs),
        meaning: "the log file is opened anew, for logrotate",
    },
    Row {
        signal: libc::SIGTTIN,
        name: "SIGTTIN",
        response: Response::Order(Order::Scale(Scale::OneMore)),
        meaning: "one worker more",
    },
    Row {
        signal: libc::SIGTTOU,
        name: "SIGTTOU",
        response: Response::Order(Order::Scale(Scale::OneFewer)),
        meaning: "one worker fewer, which finishes its work first; the last one stays",
    },
];

const CHILD: Row = Row {
    signal: libc::SIGCHLD,
    name: "SIGCHLD",
    response: Response::LookForExits,
    meaning: "a child may have exited",
};

/// Where the loop learns of exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitSource {
    /// A pidfd a child, and no SIGCHLD beside them.
    Pidfds,
    /// SIGCHLD, and a look at each of our own children.
    Sigchld,
}

/// The signals that the master has taken over; given back when dropped.
pub(crate) struct Signals {
    pipe: UnixStream,
    caught: Vec<Caught>,
    exits: ExitSource,
    /// SIGCHLD as it was before we made sure that the kernel keeps our zombies.
    _children: Option<Disposition>,
}

struct Caught {
    row: Row,
    came: Arc<AtomicBool>,
    actions: [SigId; 2],
    _before: Disposition,
}

/// signal-hook installs its handler for a signal once in the life of a process; after we have given
/// a signal back, the next cluster of the process must put that handler in place again itself.
static HANDLERS: Mutex<BTreeMap<i32, Handler>> = Mutex::new(BTreeMap::new());

impl Signals {
    /// Takes the orders' signals over (when `orders`), and SIGCHLD when exits come by it.
    pub(crate) fn take(orders: bool, exits: ExitSource) -> io::Result<Self> {
        let (pipe, wake) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let children = keep_zombies()?;
        let rows = SIGNALS.iter().filter(|_| orders).chain((exits == ExitSource::Sigchld).then_some(&CHILD));
        let caught = rows.map(|row| Caught::new(*row, &wake)).collect::<io::Result<_>>()?;
        Ok(Signals { pipe, caught, exits, _children: children })
    }

    /// The end that becomes readable.
    pub(crate) fn pipe(&self) -> &UnixStream {
        &self.pipe
    }

    /// Where the loop learns of exits: decided once, for the signals and for the spawning alike.
    pub(crate) fn exits(&self) -> ExitSource {
        self.exits
    }

    /// Lets the caught signals through to the calling thread, and returns what it blocked before.
    pub(crate) fn unblock(&self) -> Mask {
        let signals: Vec<i32> = self.caught.iter().map(|caught| caught.row.signal).collect();
        Mask::unblock(&signals)
    }

    /// Empties the pipe, then says which signals came; however often each came, once.
    pub(crate) fn drain(&self) -> Vec<(&'static str, Response)> {
        let mut pipe = &self.pipe;
        let mut sink = [0; 512];
        while matches!(pipe.read(&mut sink), Ok(count) if count > 0) {}
        let came = self.caught.iter().filter(|caught| caught.came.swap(false, Ordering::SeqCst));
        came.map(|caught| (caught.row.name, caught.row.response)).collect()
    }
}

/// With SIGCHLD ignored the kernel would reap our children behind our back.
fn keep_zombies() -> io::Result<Option<Disposition>> {
    let before = Disposition::save(libc::SIGCHLD)?;
    if !before.discards_children() {
        return Ok(None);
    }
    set_default(libc::SIGCHLD)?;
    Ok(Some(before))
}

impl Caught {
    fn new(row: Row, wake: &UnixStream) -> io::Result<Self> {
        let signal = row.signal;
        let before = Disposition::save(signal)?;
        let came = Arc::new(AtomicBool::new(false));
        // Actions run in this order: the flag is up before the pipe wakes the loop.
        let flag = signal_hook::flag::register(signal, Arc::clone(&came))?;
        let pipe = low_level::pipe::register(signal, wake.try_clone()?)?;
        install_hook(signal)?;
        Ok(Caught { row, came, actions: [flag, pipe], _before: before })
    }
}

fn install_hook(signal: i32) -> io::Result<()> {
    let mut handlers = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handler) = handlers.get(&signal) {
        return handler.install(signal);
    }
    handlers.insert(signal, Handler::current(signal)?);
    Ok(())
}

impl Drop for Caught {
    fn drop(&mut self) {
        for action in self.actions {
            low_level::unregister(action);
        }
    }
}
