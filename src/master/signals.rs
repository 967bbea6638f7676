//! Orders by signal: one flag a signal, one pipe that wakes the loop. Empty the pipe, then act.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::supervisor::{Order, Origin, Scale};
use crate::sys::catch::{Catcher, SentBy};
use crate::sys::signal::{KeptZombies, Mask};

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
        meaning: "one worker more; not through an init such as tini",
    },
    Row {
        signal: libc::SIGTTOU,
        name: "SIGTTOU",
        response: Response::Order(Order::Scale(Scale::OneFewer)),
        meaning: "one worker fewer, which finishes its work first; the last one stays; not through an init such as tini",
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
    caught: Vec<Caught>,
    pipe: UnixStream,
    /// The other end of `pipe`, which the catchers write to: it outlives them.
    _wake: UnixStream,
    exits: ExitSource,
    /// SIGCHLD as it was before we made sure that the kernel keeps our zombies; put back after all else.
    _zombies: Option<KeptZombies>,
}

struct Caught {
    row: Row,
    catcher: Catcher,
}

/// A signal that came, however often: once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) name: &'static str,
    pub(crate) response: Response,
    /// Who sent it last.
    pub(crate) sent_by: SentBy,
}

impl Signals {
    /// Takes the orders' signals over (when `orders`), and SIGCHLD when exits come by it.
    pub(crate) fn take(orders: bool, exits: ExitSource) -> io::Result<Self> {
        let (pipe, wake) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let zombies = KeptZombies::ensure()?;
        let rows = SIGNALS.iter().filter(|_| orders).chain((exits == ExitSource::Sigchld).then_some(&CHILD));
        let catch =
            |row: &Row| Ok(Caught { row: *row, catcher: Catcher::install(row.signal, wake.as_fd())? });
        let caught = rows.map(catch).collect::<io::Result<_>>()?;
        Ok(Signals { caught, pipe, _wake: wake, exits, _zombies: zombies })
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

    /// Empties the pipe, then says which signals came.
    pub(crate) fn drain(&self) -> Vec<Arrival> {
        let mut pipe = &self.pipe;
        let mut sink = [0; 512];
        while matches!(pipe.read(&mut sink), Ok(count) if count > 0) {}
        let arrived = |caught: &Caught| {
            let Row { name, response, .. } = caught.row;
            caught.catcher.take().map(|sent_by| Arrival { name, response, sent_by })
        };
        self.caught.iter().filter_map(arrived).collect()
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} received from {}", self.name, self.sent_by)
    }
}
