//! Catching signals as a guest: our handler stands over whatever the program has, calls that first, and is taken
//! away by looking. What is still ours is put back as it was; what the program has installed since stays.
//!
//! signal-hook's own registry cannot be taken away again: it installs its handler for a signal once in the life of
//! the process, and a program that comes to it later would find its handler not in place.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;

use libc::{c_int, c_void, sigaction, siginfo_t};

use super::check;
use super::signal::{SIGNAL_END, current};

const SIGNALS: usize = SIGNAL_END as usize;

/// How many may catch one signal at a time: the worker that this process is, a cluster in it, and one to spare.
const PLACES: usize = 3;

/// Nobody's descriptor.
const NONE: c_int = -1;

/// Who sent a signal, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentBy {
    /// The kernel itself, as for Ctrl-C at a terminal.
    Kernel,
    /// `pid` is 0 where the process lives outside of our pid namespace.
    Process { pid: u32, uid: u32 },
}

/// One who catches a signal, until it is dropped.
#[derive(Debug)]
pub(crate) struct Catcher {
    signal: c_int,
    place: &'static Place,
}

/// What the handler knows of one signal.
struct Seat {
    places: [Place; PLACES],
    /// The handler that stood there before ours.
    before: AtomicPtr<Before>,
    /// Handlers that run right now, on whatever thread.
    running: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    /// Gets a byte when the signal comes; [`NONE`] where nobody catches.
    wake: AtomicI32,
    came: AtomicBool,
    sender: AtomicU64,
}

/// A handler to call first, and what was called before that one stood there: a program's handler that was installed
/// over ours calls ours in its turn.
struct Before {
    action: sigaction,
    below: *mut Before,
}

static SEATS: [Seat; SIGNALS] = [const { Seat::new() }; SIGNALS];

/// Held by whoever changes dispositions.
static CHANGE: Mutex<()> = Mutex::new(());

thread_local! {
    /// The handler that this thread is calling for each signal: one that calls ours back must not go round.
    static CALLING: [Cell<*mut Before>; SIGNALS] = const { [const { Cell::new(ptr::null_mut()) }; SIGNALS] };
}

impl Catcher {
    /// From now on a byte goes to `wake` whenever `signal` comes. `wake` must not block and outlives the catcher.
    pub(crate) fn install(signal: c_int, wake: BorrowedFd<'_>) -> io::Result<Self> {
        let _change = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = &SEATS[signal.unsigned_abs() as usize];
        let place = seat.places.iter().find(|place| place.wake.load(SeqCst) == NONE);
        let place = place.ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
        place.came.store(false, SeqCst);
        place.wake.store(wake.as_raw_fd(), SeqCst);
        let stands = current(signal).and_then(|now| match now.sa_sigaction {
            ours if ours == own() => Ok(()),
            _ => seat.stand_over(signal, now),
        });
        if let Err(error) = stands {
            place.wake.store(NONE, SeqCst);
            seat.wait_until_idle();
            return Err(error);
        }
        Ok(Catcher { signal, place })
    }

    /// Whether the signal came since the last look, and who sent it last.
    pub(crate) fn take(&self) -> Option<SentBy> {
        let came = self.place.came.swap(false, SeqCst);
        came.then(|| SentBy::unpack(self.place.sender.load(SeqCst)))
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        let _change = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = &SEATS[self.signal.unsigned_abs() as usize];
        let others = seat.places.iter().filter(|place| place.wake.load(SeqCst) != NONE).count();
        if others == 1 {
            seat.step_down(self.signal);
        }
        self.place.wake.store(NONE, SeqCst);
        seat.wait_until_idle();
    }
}

impl Seat {
    const fn new() -> Self {
        Seat {
            places: [const { Place::new() }; PLACES],
            before: AtomicPtr::new(ptr::null_mut()),
            running: AtomicUsize::new(0),
        }
    }

    /// Puts our handler over what is there now.
    fn stand_over(&self, signal: c_int, now: sigaction) -> io::Result<()> {
        // With the default in place nobody can call ours any more, and what stood below is out of reach.
        let below = if is_function(&now) { self.before.load(SeqCst) } else { ptr::null_mut() };
        let before = Box::into_raw(Box::new(Before { action: now, below }));
        let replaced = self.before.swap(before, SeqCst);
        // SAFETY: all zeros is a valid action: nothing blocked; the handler calls nothing but what a handler may.
        let installed = unsafe {
            let mut action: sigaction = std::mem::zeroed();
            action.sa_sigaction = own();
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            check(sigaction(signal, &raw const action, ptr::null_mut()))
        };
        if installed.is_err() {
            self.before.store(replaced, SeqCst);
        }
        self.wait_until_idle();
        match installed {
            Ok(_) if below.is_null() => free(replaced),
            Ok(_) => {}
            Err(_) => drop(free_one(before)),
        }
        installed.map(drop)
    }

    /// Puts back what was there, where ours is what is there still.
    fn step_down(&self, signal: c_int) {
        let before = self.before.load(SeqCst);
        // SAFETY: set by `stand_over` before the first catcher, and freed under the lock alone, which is held.
        let Some(Before { action, below }) = (unsafe { before.as_ref() }) else { return };
        if !current(signal).is_ok_and(|now| now.sa_sigaction == own()) {
            return;
        }
        // SAFETY: `action` was in place for this very signal; all zeros is a valid place to write to.
        unsafe {
            let mut replaced: sigaction = std::mem::zeroed();
            sigaction(signal, action, &raw mut replaced);
            if replaced.sa_sigaction != own() {
                // Somebody came in between, and stays.
                sigaction(signal, &raw const replaced, ptr::null_mut());
                return;
            }
        }
        self.before.store(*below, SeqCst);
        self.wait_until_idle();
        free_one(before);
    }

    /// Until no handler can use what has just been taken away. One that interrupted this thread has ended.
    fn wait_until_idle(&self) {
        while self.running.load(SeqCst) > 0 {
            thread::yield_now();
        }
    }
}

impl Place {
    const fn new() -> Self {
        Place { wake: AtomicI32::new(NONE), came: AtomicBool::new(false), sender: AtomicU64::new(0) }
    }

    fn tell(&self, sender: SentBy) {
        let wake = self.wake.load(SeqCst);
        if wake == NONE {
            return;
        }
        self.sender.store(sender.pack(), SeqCst);
        self.came.store(true, SeqCst);
        // A byte that is lost is an order that nobody obeys; a full pipe wakes anyway.
        for _ in 0..3 {
            // SAFETY: one byte of a constant; `drop` waits for us before the descriptor may go.
            if unsafe { libc::write(wake, b"!".as_ptr().cast(), 1) } == 1 {
                return;
            }
        }
    }
}

impl SentBy {
    /// The kernel's own signals have a pid that is nobody's.
    const KERNEL: u64 = u64::MAX;

    fn of(info: Option<&siginfo_t>) -> Self {
        match info {
            // Codes up to 0 are those of kill, tgkill and sigqueue, which name the sender.
            Some(info) if info.si_code <= 0 => {
                // SAFETY: the code says that the pid and the uid are there.
                let (pid, uid) = unsafe { (info.si_pid(), info.si_uid()) };
                SentBy::Process { pid: pid.unsigned_abs(), uid }
            }
            Some(_) | None => SentBy::Kernel,
        }
    }

    fn pack(self) -> u64 {
        match self {
            SentBy::Kernel => SentBy::KERNEL,
            SentBy::Process { pid, uid } => u64::from(pid) << 32 | u64::from(uid),
        }
    }

    fn unpack(packed: u64) -> Self {
        match packed {
            SentBy::KERNEL => SentBy::Kernel,
            _ => SentBy::Process { pid: (packed >> 32) as u32, uid: packed as u32 },
        }
    }
}

fn own() -> libc::sighandler_t {
    caught as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as libc::sighandler_t
}

fn is_function(action: &sigaction) -> bool {
    action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
}

fn free(mut before: *mut Before) {
    while !before.is_null() {
        before = free_one(before);
    }
}

/// Frees one that no handler can reach any more, and returns what was below it.
fn free_one(before: *mut Before) -> *mut Before {
    // SAFETY: made by `Box::into_raw`, taken out of reach, and nobody uses it since `wait_until_idle`.
    unsafe { Box::from_raw(before) }.below
}

impl fmt::Display for SentBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SentBy::Kernel => f.write_str("the kernel, as for a key at the terminal"),
            SentBy::Process { pid: 0, uid } => write!(f, "outside of this pid namespace (uid {uid})"),
            SentBy::Process { pid, uid } => write!(f, "pid {pid} (uid {uid})"),
        }
    }
}

extern "C" fn caught(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let seat = &SEATS[signal.unsigned_abs() as usize];
    // SAFETY: the calling thread's own; a handler must leave it as it was.
    let errno = unsafe { *libc::__errno_location() };
    seat.running.fetch_add(1, SeqCst);
    let calling = CALLING.try_with(|calling| {
        let calling = &calling[signal.unsigned_abs() as usize];
        let outer = calling.get();
        // SAFETY: alive as long as `running` counts the outer call of this thread.
        let next = unsafe { outer.as_ref() }.map_or_else(|| seat.before.load(SeqCst), |outer| outer.below);
        calling.set(next);
        call(next, signal, info, context);
        calling.set(outer);
        outer
    });
    // Called by the handler above ours, the outer call has told already.
    if calling.is_ok_and(<*mut Before>::is_null) {
        // SAFETY: the kernel's pointer, valid while the handler runs.
        let sender = SentBy::of(unsafe { info.as_ref() });
        seat.places.iter().for_each(|place| place.tell(sender));
    }
    seat.running.fetch_sub(1, SeqCst);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Calls the handler that stood there before ours, as the kernel would.
fn call(before: *mut Before, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: alive while `running` counts us.
    let Some(Before { action, .. }) =
        (unsafe { before.as_ref() }).filter(|before| is_function(&before.action))
    else {
        return;
    };
    let handler = action.sa_sigaction as *const ();
    // SAFETY: the flag says which of the two kinds of function the program had installed.
    unsafe {
        if action.sa_flags & libc::SA_SIGINFO == 0 {
            std::mem::transmute::<*const (), extern "C" fn(c_int)>(handler)(signal);
        } else {
            type Informed = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            std::mem::transmute::<*const (), Informed>(handler)(signal, info, context);
        }
    }
}
