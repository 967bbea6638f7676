//! Processes that we started: their handles, their signals, their end.
//!
//! A pid names our child until we reap it, and nobody else; a pidfd names it for ever.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_int, pid_t};

use super::{check, retry};
use crate::supervisor::ExitStatus;

/// A child that we have not reaped yet.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    /// Readable when the child has exited; `None` on kernels before 5.3.
    pub(crate) pidfd: Option<OwnedFd>,
}

/// What a look at a child shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// A zombie: its pid and its process group are still its own.
    Exited,
    /// Somebody else has reaped it.
    Gone,
}

fn raw(pid: u32) -> pid_t {
    pid_t::try_from(pid).expect("a pid came from the kernel as a pid_t")
}

impl Child {
    /// Sends `signal` to the child alone.
    pub(crate) fn signal(&self, signal: c_int) -> io::Result<()> {
        let Some(fd) = &self.pidfd else {
            // SAFETY: takes two integers; the pid is our own unreaped child's.
            return check(unsafe { libc::kill(raw(self.pid), signal) }).map(drop);
        };
        let (fd, no_info) = (fd.as_raw_fd(), std::ptr::null::<u8>());
        // SAFETY: the descriptor is ours and open; a null siginfo is allowed.
        check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) }).map(drop)
    }

    /// Sends `signal` to the child's process group, which the child leads.
    /// Only while the child is not reaped: its pid keeps the group's number from being reused.
    pub(crate) fn signal_group(&self, signal: c_int) -> io::Result<()> {
        // SAFETY: takes two integers; the group is the one our unreaped child leads.
        check(unsafe { libc::kill(-raw(self.pid), signal) }).map(drop)
    }

    /// Kills the child's group and waits for the child: for one that must not live on unwatched.
    pub(crate) fn end_now(&self) {
        let killed = self.signal_group(libc::SIGKILL);
        debug_assert!(killed.is_ok(), "the group of an unreaped child exists");
        self.wait_for_end();
    }

    /// Reaps a child that has only to end. A handler of the host program may interrupt the wait.
    pub(super) fn wait_for_end(&self) {
        // SAFETY: the pid is our own unreaped child's; a null status is allowed.
        let reaped = retry(|| unsafe { libc::waitpid(raw(self.pid), std::ptr::null_mut(), 0) });
        // The one failure left is that somebody else has reaped it: it is gone all the same.
        drop(reaped);
    }

    /// Looks without reaping.
    pub(crate) fn look(&self) -> Life {
        // SAFETY: an all-zero siginfo_t is a valid value of this plain C struct.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is a valid place to write to; the pid is our own child's or nobody's.
        let done = unsafe { libc::waitid(libc::P_PID, self.pid, &raw mut info, options) };
        // SAFETY: waitid filled in the fields of a child event, or left zeroes.
        match (done, unsafe { info.si_pid() }) {
            (0, 0) => Life::Running,
            (0, _) => Life::Exited,
            _ => Life::Gone,
        }
    }

    /// Takes the exit status; `None` while the child runs. A stolen child has an unknown status.
    pub(crate) fn reap(&self) -> Option<ExitStatus> {
        let mut status: c_int = 0;
        // SAFETY: `status` is a valid place to write to; the pid is our own child's.
        match unsafe { libc::waitpid(raw(self.pid), &raw mut status, libc::WNOHANG) } {
            0 => None,
            -1 => Some(ExitStatus::Unknown),
            _ if libc::WIFEXITED(status) => Some(ExitStatus::Code(libc::WEXITSTATUS(status))),
            _ => Some(ExitStatus::Signal(libc::WTERMSIG(status))),
        }
    }
}

/// Reaps one exited child that is not in `own`, as the first process of a container must; its pid.
/// `None` when the next exited child is one of ours, or there is none.
pub(crate) fn reap_stranger(is_own: impl Fn(u32) -> bool) -> Option<u32> {
    // SAFETY: an all-zero siginfo_t is a valid value of this plain C struct.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place to write to.
    let done =
        unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    // SAFETY: waitid filled in the fields of a child event, or left zeroes.
    let pid = u32::try_from(unsafe { info.si_pid() }).ok().filter(|&pid| done == 0 && pid != 0)?;
    if is_own(pid) {
        return None;
    }
    Child { pid, pidfd: None }.reap().map(|_| pid)
}

/// Whether children's exits can be had from pidfds (Linux 5.3).
///
/// Asks with a flag that no kernel knows, so that the answer takes no descriptor: a lack of those for the
/// moment must not look like an old kernel.
pub(crate) fn has_pidfd() -> bool {
    const UNKNOWN_FLAG: libc::c_uint = 1 << 31;
    // SAFETY: takes two integers and makes no descriptor.
    let asked = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), UNKNOWN_FLAG) };
    asked < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

/// The process group of a process, if it still exists.
pub(crate) fn group_of(pid: u32) -> Option<u32> {
    // SAFETY: takes an integer and returns one.
    u32::try_from(unsafe { libc::getpgid(pid_t::try_from(pid).ok()?) }).ok()
}

/// The user that this process acts as.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}

/// A figure of the system that does not change: bytes a page, ticks a second.
fn system_figure(name: c_int) -> u64 {
    // SAFETY: takes an integer and returns one.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

/// Bytes a page.
pub(crate) fn page_size() -> u64 {
    system_figure(libc::_SC_PAGESIZE)
}

/// Ticks a second, the unit of processor time in /proc.
pub(crate) fn clock_ticks() -> u64 {
    system_figure(libc::_SC_CLK_TCK)
}
