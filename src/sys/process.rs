//! Processes that we started: their handles, their signals, their end.
//!
//! A pid names our child until we reap it, and nobody else; a pidfd names it for ever.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

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
    ///
    /// Only while the child is not reaped does its pid keep the group's number from being reused; that is looked at
    /// first, since the host's own `waitpid(-1)` may have taken it.
    pub(crate) fn signal_group(&self, signal: c_int) -> io::Result<()> {
        if self.look() == Life::Gone {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: takes two integers; the group is the one our unreaped child leads.
        check(unsafe { libc::kill(-raw(self.pid), signal) }).map(drop)
    }

    /// Kills the child's group and waits for the child: for one that must not live on unwatched.
    pub(crate) fn end_now(&self) {
        // Where somebody else has reaped it there is nobody to kill, and nothing to wait for.
        drop(self.signal_group(libc::SIGKILL));
        self.wait_for_end();
    }

    /// Reaps a child that has only to end.
    pub(super) fn wait_for_end(&self) {
        // The one failure is that somebody else has reaped it: it is gone all the same.
        drop(self.wait(libc::WEXITED));
    }

    /// Looks without reaping.
    pub(crate) fn look(&self) -> Life {
        match self.wait(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
            Ok(None) => Life::Running,
            Ok(Some(_)) => Life::Exited,
            Err(_) => Life::Gone,
        }
    }

    /// Takes the exit status; `None` while the child runs. A stolen child has an unknown status.
    pub(crate) fn reap(&self) -> Option<ExitStatus> {
        self.wait(libc::WEXITED | libc::WNOHANG).unwrap_or(Some(ExitStatus::Unknown))
    }

    /// Asks for the child's end. By its pidfd where there is one: after the host's own `waitpid(-1)` the pid may
    /// already be that of another child of this process.
    fn wait(&self, options: c_int) -> io::Result<Option<ExitStatus>> {
        let (kind, id) = match &self.pidfd {
            Some(pidfd) => (libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs()),
            None => (libc::P_PID, self.pid),
        };
        // SAFETY: an all-zero siginfo_t is a valid value of this plain C struct.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid place to write to; the child is our own or nobody. A handler of the host program
        // may interrupt the wait.
        retry(|| unsafe { libc::waitid(kind, id, &raw mut info, options) })?;
        // SAFETY: waitid filled in the fields of a child event, or left zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok((pid != 0).then_some(match info.si_code {
            libc::CLD_EXITED => ExitStatus::Code(status),
            _ => ExitStatus::Signal(status),
        }))
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

/// Whether children's exits can be had from pidfds (Linux 5.3), and the children waited for by them (5.4).
///
/// Asks with a flag that no kernel knows and with a descriptor that nobody has, so that the answers take none: a
/// lack of those for the moment must not look like an old kernel.
pub(crate) fn has_pidfd() -> bool {
    const UNKNOWN_FLAG: libc::c_uint = 1 << 31;
    const NOBODYS: libc::id_t = libc::id_t::MAX >> 1;
    let refused =
        |asked: libc::c_long, errno| asked < 0 && io::Error::last_os_error().raw_os_error() == Some(errno);
    // SAFETY: takes two integers and makes no descriptor.
    let open = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), UNKNOWN_FLAG) };
    if !refused(open, libc::EINVAL) {
        return false;
    }
    let options = libc::WEXITED | libc::WNOHANG;
    // SAFETY: a null siginfo is allowed, and there is nobody to wait for.
    let wait = unsafe { libc::waitid(libc::P_PIDFD, NOBODYS, std::ptr::null_mut(), options) };
    refused(wait.into(), libc::EBADF)
}

/// The number of this process that no other one ever has: the inode of its pidfd (Linux 6.9).
pub(crate) fn own_number() -> Option<u64> {
    const PID_FILE_SYSTEM: i64 = 0x5049_4446;
    // SAFETY: takes integers; the result is a new descriptor, or -1.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) }).ok()?;
    // SAFETY: the kernel has just given us this descriptor.
    let pidfd = File::from(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(opened).ok()?) });
    // SAFETY: an all-zero statfs is a valid value of this plain C struct.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `system` is a valid place to write to; the descriptor is ours.
    check(unsafe { libc::fstatfs(pidfd.as_raw_fd(), &raw mut system) }).ok()?;
    // Before, all pidfds have one inode.
    (system.f_type as i64 == PID_FILE_SYSTEM).then(|| pidfd.metadata().ok())?.map(|found| found.ino())
}

/// The process group of a process, if it still exists.
pub(crate) fn group_of(pid: u32) -> Option<u32> {
    // SAFETY: takes an integer and returns one.
    u32::try_from(unsafe { libc::getpgid(pid_t::try_from(pid).ok()?) }).ok()
}

/// The users as whom the calling thread may signal others: its real and its effective one.
pub(crate) fn users() -> [u32; 2] {
    // SAFETY: always succeeds and touches no memory.
    [unsafe { libc::getuid() }, effective_user()]
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;
    use std::process::Command;

    /// The host's `waitpid(-1)` has taken our child, and the kernel has given its pid to another child of the process.
    #[test]
    fn a_stolen_child_is_gone_though_its_pid_is_anothers() {
        let mut ours = Command::new("true").spawn().unwrap();
        // SAFETY: the pid is an unreaped child's; the descriptor is new.
        let pidfd = unsafe { OwnedFd::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, ours.id(), 0) as i32) };
        ours.wait().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let stolen = Child { pid: other.id(), pidfd: Some(pidfd) };
        assert_eq!(stolen.look(), Life::Gone);
        assert_eq!(stolen.reap(), Some(ExitStatus::Unknown));
        stolen.end_now();
        assert!(other.try_wait().unwrap().is_none(), "the stranger lives");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn exits_are_told_as_they_were() {
        let table = [
            ("exit 7", ExitStatus::Code(7)),
            ("kill -9 $$", ExitStatus::Signal(9)),
            ("kill -6 $$", ExitStatus::Signal(6)),
        ];
        for (script, status) in table {
            let mut spawned = Command::new("sh").args(["-c", script]).spawn().unwrap();
            // SAFETY: the pid is an unreaped child's; the descriptor is new.
            let pidfd =
                unsafe { OwnedFd::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, spawned.id(), 0) as i32) };
            let child = Child { pid: spawned.id(), pidfd: Some(pidfd) };
            while child.look() == Life::Running {
                std::thread::yield_now();
            }
            assert_eq!(Child { pid: spawned.id(), pidfd: None }.look(), Life::Exited);
            assert_eq!(child.reap(), Some(status), "{script}");
            assert!(spawned.wait().is_err(), "reaped once");
        }
    }
}
