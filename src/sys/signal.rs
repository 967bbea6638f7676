//! Signal masks and dispositions: taken at the start of `run`, given back at its end.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_int, sigaction, sigset_t};

use super::check;

/// One more than the largest signal number of Linux.
pub(super) const SIGNAL_END: c_int = 65;

/// SIGCHLD made to leave our zombies to us, where the program had it otherwise; put back when dropped, if it is
/// still as we made it.
#[derive(Debug)]
pub(crate) struct KeptZombies {
    before: sigaction,
}

impl KeptZombies {
    /// With SIGCHLD ignored the kernel would reap our children behind our back. `None` where it would not.
    pub(crate) fn ensure() -> io::Result<Option<Self>> {
        let before = current(libc::SIGCHLD)?;
        if before.sa_sigaction != libc::SIG_IGN && before.sa_flags & libc::SA_NOCLDWAIT == 0 {
            return Ok(None);
        }
        set_default(libc::SIGCHLD)?;
        Ok(Some(KeptZombies { before }))
    }
}

impl Drop for KeptZombies {
    fn drop(&mut self) {
        if is_default(libc::SIGCHLD) {
            // SAFETY: `before` came from the kernel for this very signal.
            unsafe { sigaction(libc::SIGCHLD, &raw const self.before, ptr::null_mut()) };
        }
    }
}

pub(super) fn current(signal: c_int) -> io::Result<sigaction> {
    let mut now = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: a null new action only reads; `now` is a valid place to write to.
    check(unsafe { sigaction(signal, ptr::null(), now.as_mut_ptr()) })?;
    // SAFETY: zeroed, then filled in by the kernel.
    Ok(unsafe { now.assume_init() })
}

/// Gives `signal` its default effect.
fn set_default(signal: c_int) -> io::Result<()> {
    // SAFETY: all-zero is the valid action "default, no flags, empty mask".
    let action: sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` is valid and SIG_DFL runs no code of ours.
    check(unsafe { sigaction(signal, &raw const action, ptr::null_mut()) }).map(drop)
}

/// Whether nobody in this process has changed what the signal does.
pub(crate) fn is_default(signal: c_int) -> bool {
    current(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL)
}

/// Whether the signal is ignored.
pub(crate) fn is_ignored(signal: c_int) -> bool {
    current(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// The signals that a thread blocks.
#[derive(Clone, Copy)]
pub(crate) struct Mask(pub(super) sigset_t);

impl Mask {
    /// What the calling thread blocks.
    pub(crate) fn current() -> Self {
        Mask::of(&[]).change(libc::SIG_BLOCK)
    }

    /// Blocks in the calling thread all but the faults, and returns what it blocked before. A thread of ours
    /// started meanwhile inherits this, so that it never takes a signal that the program waits for elsewhere.
    pub(crate) fn block_all() -> Self {
        let mut all = Mask::of(&[]);
        // SAFETY: fills and changes a set that is ours.
        unsafe {
            libc::sigfillset(&raw mut all.0);
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
                libc::sigdelset(&raw mut all.0, fault);
            }
        }
        all.change(libc::SIG_SETMASK)
    }

    /// Lets `signals` through to the calling thread, and returns what it blocked before.
    pub(crate) fn unblock(signals: &[c_int]) -> Self {
        Mask::of(signals).change(libc::SIG_UNBLOCK)
    }

    /// Makes it the calling thread's.
    pub(crate) fn apply(&self) {
        self.change(libc::SIG_SETMASK);
    }

    fn of(signals: &[c_int]) -> Self {
        let mut set = empty();
        for &signal in signals {
            // SAFETY: `set` is initialised; a bad number is refused, not undefined.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        Mask(set)
    }

    fn change(&self, how: c_int) -> Self {
        let mut before = empty();
        // SAFETY: both sets outlive the call, which changes the calling thread only.
        unsafe { libc::pthread_sigmask(how, &raw const self.0, &raw mut before) };
        Mask(before)
    }
}

pub(super) fn empty() -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}
