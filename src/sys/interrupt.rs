//! Waking one thread out of a blocking system call, by a signal that means nothing to anybody else.

use std::io;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::check;
use super::signal::{Mask, current, is_default, is_ignored};

/// A thread of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tid(libc::pid_t);

impl Tid {
    /// The calling thread; asked of the kernel once a thread.
    pub(crate) fn current() -> Self {
        thread_local! {
            // SAFETY: takes no arguments and cannot fail.
            static TID: Tid = Tid(unsafe { libc::gettid() });
        }
        TID.with(|tid| *tid)
    }
}

/// The signal that interrupts: SIGURG, or a real-time one where the program handles SIGURG itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupt(libc::c_int);

impl Interrupt {
    /// Installs the handler that does nothing, without `SA_RESTART`: the call in progress returns EINTR. Once in a
    /// process, and again with another signal where the program has since taken this one for itself.
    ///
    /// SIGURG because its default is to be ignored, so that nobody misses it and a stray one harms nobody
    /// (Go's runtime preempts with it for the same reason).
    pub(crate) fn claim() -> io::Result<Self> {
        static CLAIMED: Mutex<Option<Interrupt>> = Mutex::new(None);
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = claimed.filter(|claimed| is_noop(claimed.0)) {
            return Ok(interrupt);
        }
        let free = |&signal: &libc::c_int| is_default(signal) || signal == libc::SIGURG && is_ignored(signal);
        let signal = std::iter::once(libc::SIGURG)
            .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
            .find(free)
            .ok_or_else(|| io::Error::other("the program handles SIGURG and every real-time signal"))?;
        install_noop(signal)?;
        Ok(*claimed.insert(Interrupt(signal)))
    }

    /// Sends it to that thread alone, which must not have ended.
    pub(crate) fn send(self, thread: Tid) {
        // SAFETY: tgkill reaches no other process than the one named; a failure leaves all as it was.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.0, self.0) };
    }

    /// Lets it reach the calling thread.
    pub(crate) fn unblock(self) {
        Mask::unblock(&[self.0]);
    }

    /// Makes a signal that is on its way to the calling thread arrive now: signals are delivered where a system
    /// call returns, and this one cannot be interrupted.
    pub(crate) fn settle() {
        // SAFETY: takes no arguments.
        unsafe { libc::sched_yield() };
    }
}

extern "C" fn noop(_: libc::c_int) {}

fn noop_address() -> libc::sighandler_t {
    noop as extern "C" fn(libc::c_int) as libc::sighandler_t
}

fn is_noop(signal: libc::c_int) -> bool {
    current(signal).is_ok_and(|action| action.sa_sigaction == noop_address())
}

fn install_noop(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a valid action: no flags, so no SA_RESTART, and nothing blocked. The handler does
    // nothing, which any thread may do at any moment.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = noop_address();
        check(libc::sigaction(signal, &raw const action, ptr::null_mut()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_blocked_call_is_interrupted_even_where_the_signal_was_blocked() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let (tell, told) = mpsc::channel();
        let interrupt = Interrupt::claim().unwrap();
        let thread = std::thread::spawn(move || {
            Mask::block_all();
            interrupt.unblock();
            tell.send(Tid::current()).unwrap();
            ours.read(&mut [0; 1]).map_err(|error| error.kind())
        });
        let tid = told.recv_timeout(Duration::from_secs(10)).unwrap();
        while !thread.is_finished() {
            interrupt.send(tid);
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!(thread.join().unwrap(), Err(io::ErrorKind::Interrupted));
    }

    #[test]
    fn masks_come_back_as_they_were() {
        let before = Mask::block_all();
        Interrupt::claim().unwrap().unblock();
        before.apply();
        let after = Mask::current();
        // SAFETY: reads two sets.
        unsafe {
            for signal in 1..32 {
                assert_eq!(
                    libc::sigismember(&raw const before.0, signal),
                    libc::sigismember(&raw const after.0, signal)
                );
            }
        }
    }
}
