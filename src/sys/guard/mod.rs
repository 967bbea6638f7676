//! The guard: a small process beside the master that kills the workers' process groups when the master is gone.
//!
//! The kernel kills a worker whose master dies, by the parent-death signal, unless the exec of its program cleared that
//! (file capabilities, set-user-ID, set-group-ID); and it never kills what the worker has started itself. The guard
//! waits on a descriptor of the master and depends on no exec.
//!
//! It is forked, not executed: a program of its own would have to lie somewhere. So that it stays small while the
//! master's memory changes, it gives all of that back at once, and from then on calls the kernel alone
//! (`guard/process.rs`, `guard/memory.rs`). It has no exit signal: a host program's `wait` does not see it.

mod memory;
mod process;

use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::pid_t;
use socket2::{Domain, Socket, Type};

use super::poll::{Watched, poll};
use super::process::{Child, page_size};
use super::signal::Mask;
use super::{check, retry};
use crate::supervisor::ExitStatus;

/// No descriptor.
const NOWHERE: RawFd = -1;
/// What the guard's few calls need, many times over.
const STACK: usize = 64 * 1024;
/// More files of code than a program has.
const GAPS: usize = 512;
/// More workers than there ever are at a time; memory is taken only as they come.
const GROUPS: usize = 65_536;
/// How long the guard may take to end: it does nothing but that.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The guard process, as the master has it.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Until it is reaped.
    pid: Option<u32>,
    /// Notes to the guard; hangs up when the guard is gone. Never blocks.
    control: Socket,
}

/// What the master and its workers write to the guard, one at a time.
#[repr(C)]
#[derive(Clone, Copy)]
struct Note {
    kind: Kind,
    pid: pid_t,
}

#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(u32);

impl Kind {
    /// There is a new worker; its descriptor comes along where the kernel has such.
    const WATCH: Kind = Kind(1);
    /// The worker is about to be reaped, and nothing is left of its group.
    const FORGET: Kind = Kind(2);
    /// The cluster is over.
    const END: Kind = Kind(3);
}

/// A worker's process group.
#[repr(C)]
#[derive(Clone, Copy)]
struct Group {
    pid: pid_t,
    /// A pidfd of its leader, or `NOWHERE`.
    leader: RawFd,
}

/// All that the guard reads; made before the fork, in a mapping of its own.
#[repr(C)]
struct Room {
    /// The guard's pid, or the negative of an error's number.
    forked: isize,
    master: pid_t,
    /// A pidfd of the master, or `NOWHERE`.
    master_fd: RawFd,
    control: RawFd,
    gap_count: usize,
    gaps: [Gap; GAPS],
    group_count: usize,
    groups: [Group; GROUPS],
}

/// Memory to give back.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gap {
    start: usize,
    end: usize,
}

impl Room {
    fn watch(&mut self, pid: pid_t, leader: RawFd) {
        if let Some(free) = self.groups.get_mut(self.group_count) {
            *free = Group { pid, leader };
            self.group_count += 1;
        }
    }

    fn forget(&mut self, pid: pid_t, close: impl Fn(RawFd)) {
        let Some(at) = self.groups[..self.group_count].iter().position(|group| group.pid == pid) else {
            return;
        };
        close(self.groups[at].leader);
        self.group_count -= 1;
        self.groups[at] = self.groups[self.group_count];
    }
}

impl Guard {
    /// Starts a guard that knows these workers already.
    pub(crate) fn start<'a>(workers: impl Iterator<Item = &'a Child>) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        ours.set_nonblocking(true)?;
        let master = open_process(std::process::id())?;
        let mut mapping = Mapping::new()?;
        let own = mapping.range();
        let room = mapping.room();
        room.forked = -(libc::EAGAIN as isize);
        room.master = std::process::id().cast_signed();
        room.master_fd = master.as_ref().map_or(NOWHERE, AsRawFd::as_raw_fd);
        room.control = theirs.as_raw_fd();
        for worker in workers {
            room.watch(worker.pid.cast_signed(), worker.pidfd.as_ref().map_or(NOWHERE, AsRawFd::as_raw_fd));
        }
        let known = room.group_count;
        room.groups[..known].sort_unstable_by_key(|group| group.leader);
        let maps = fs::read("/proc/self/maps")?;
        let code = process::fork_guard as *const () as usize;
        let gaps = memory::gaps(&String::from_utf8_lossy(&maps), &own, code);
        for (place, gap) in room.gaps.iter_mut().zip(&gaps) {
            *place = Gap { start: gap.start, end: gap.end };
        }
        room.gap_count = gaps.len().min(GAPS);
        let pid = mapping.fork()?;
        Ok(Guard { pid: Some(pid), control: ours })
    }

    /// Where a new worker says that it is there, by [`announce`], before its exec.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Says that there is a worker, which has not announced itself to this guard. An error means that the guard does
    /// not read.
    pub(crate) fn watch(&self, worker: &Child) -> io::Result<()> {
        let leader = worker.pidfd.as_ref().map_or(NOWHERE, AsRawFd::as_raw_fd);
        check(send_worker(self.control.as_raw_fd(), worker.pid.cast_signed(), leader)).map(drop)
    }

    /// Says that a worker is about to be reaped. An error means that the guard does not read.
    pub(crate) fn forget(&self, pid: u32) -> io::Result<()> {
        write(self.control.as_fd(), Note { kind: Kind::FORGET, pid: pid.cast_signed() })
    }

    /// Ends a guard that does not read; its control socket then hangs up.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid {
            // SAFETY: takes two integers; the pid is our own unreaped child's.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        }
    }

    /// Takes the exit status of a guard that has gone; `None` while it runs.
    pub(crate) fn look(&mut self) -> Option<ExitStatus> {
        if self.hangs_up(Duration::ZERO) { self.reap() } else { None }
    }

    /// Of one that has hung up: it is about to end, if it has not.
    fn reap(&mut self) -> Option<ExitStatus> {
        let pid = self.pid.take()?;
        let mut status: c_int = 0;
        // SAFETY: `status` is a valid place to write to; the pid is our own child's.
        let reaped = retry(|| unsafe { libc::waitpid(pid.cast_signed(), &raw mut status, libc::__WALL) });
        Some(match reaped {
            Err(_) => ExitStatus::Unknown,
            Ok(_) if libc::WIFEXITED(status) => ExitStatus::Code(libc::WEXITSTATUS(status)),
            Ok(_) => ExitStatus::Signal(libc::WTERMSIG(status)),
        })
    }

    /// Whether it has gone, or goes within this time.
    fn hangs_up(&self, within: Duration) -> bool {
        let mut watched = [Watched::new(self.control.as_fd(), false, false)];
        poll(&mut watched, Some(within)).is_ok() && watched[0].is_lost()
    }
}

/// The end of the cluster, however it comes: who is left then would be left unwatched, and goes.
impl Drop for Guard {
    fn drop(&mut self) {
        if self.pid.is_none() {
            return;
        }
        let told = write(self.control.as_fd(), Note { kind: Kind::END, pid: 0 }).is_ok();
        if told && self.hangs_up(END_WITHIN) {
            self.reap();
            return;
        }
        self.kill();
        if self.hangs_up(END_WITHIN) {
            self.reap();
        }
    }
}

/// Tells a guard of the calling process, a new worker: with a descriptor of it, which names it even when its pid does
/// no longer. Only async-signal-safe calls. Whether that went.
pub(super) unsafe fn announce(control: RawFd) -> bool {
    // SAFETY: plain calls on integers; the descriptor is of this process alone, and closed once.
    unsafe {
        let pid = libc::getpid();
        let own = libc::syscall(libc::SYS_pidfd_open, pid, 0) as RawFd;
        let sent = send_worker(control, pid, own);
        if own >= 0 {
            libc::close(own);
        }
        sent >= 0
    }
}

/// A worker's pid, and its descriptor unless that is `NOWHERE`. Async-signal-safe; as `sendmsg`.
fn send_worker(control: RawFd, pid: pid_t, leader: RawFd) -> isize {
    let mut note = Note { kind: Kind::WATCH, pid };
    let mut passed = [0u64; 4];
    let mut place = libc::iovec { iov_base: (&raw mut note).cast(), iov_len: size_of::<Note>() };
    // SAFETY: all zeros is a valid header, which then describes places on our own stack, and no more than is there.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut place;
        header.msg_iovlen = 1;
        if leader >= 0 {
            header.msg_control = (&raw mut passed).cast();
            header.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            ptr::write_unaligned(libc::CMSG_DATA(first).cast(), leader);
        }
        libc::sendmsg(control, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    }
}

/// Says that a process that announced itself is not there any more.
pub(super) fn withdraw(control: BorrowedFd<'_>, pid: u32) {
    // A guard that does not read is noticed at the next exit.
    drop(write(control, Note { kind: Kind::FORGET, pid: pid.cast_signed() }));
}

fn write(control: BorrowedFd<'_>, note: Note) -> io::Result<()> {
    let (fd, flags) = (control.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: as many bytes as the note has.
    check(unsafe { libc::send(fd, (&raw const note).cast(), size_of::<Note>(), flags) }).map(drop)
}

/// A descriptor of a process; none on kernels before 5.3.
fn open_process(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes integers; the result is a new descriptor, or -1.
    match check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) {
        // SAFETY: the kernel has just given us this descriptor.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A page that nobody may touch, a stack, and the room.
struct Mapping {
    start: *mut c_void,
    guard_page: usize,
}

impl Mapping {
    fn new() -> io::Result<Self> {
        let guard_page = usize::try_from(page_size()).unwrap_or(STACK);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let length = guard_page + STACK + size_of::<Room>();
        // SAFETY: a fresh anonymous mapping; no memory of ours is touched.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the lowest page of our own mapping.
        unsafe { libc::mprotect(start, guard_page, libc::PROT_NONE) };
        Ok(Mapping { start, guard_page })
    }

    fn length(&self) -> usize {
        let pages = self.guard_page + STACK + size_of::<Room>();
        pages.next_multiple_of(self.guard_page)
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.length()
    }

    fn room(&mut self) -> &mut Room {
        // SAFETY: so many bytes of the mapping lie there, aligned to a page; all zeros is a valid room.
        unsafe { &mut *self.start.byte_add(self.guard_page + STACK).cast() }
    }

    /// Forks the guard by way of a process that ends at once.
    fn fork(&mut self) -> io::Result<u32> {
        let before = Mask::block_all();
        // SAFETY: the stack is ours; the process on it touches only the room, and ends before we go on (CLONE_VFORK).
        let between = check(unsafe {
            let room = self.start.byte_add(self.guard_page + STACK);
            libc::clone(process::fork_guard, room, libc::CLONE_VM | libc::CLONE_VFORK, room)
        });
        before.apply();
        let between = between?;
        // SAFETY: the pid is our own child's; a null status is allowed. What fails has been reaped by somebody else.
        drop(retry(|| unsafe { libc::waitpid(between, ptr::null_mut(), libc::__WALL) }));
        // SAFETY: the room outlives the call.
        let forked = unsafe { ptr::read_volatile(&raw const self.room().forked) };
        match u32::try_from(forked) {
            Ok(pid) => Ok(pid),
            Err(_) => Err(io::Error::from_raw_os_error(c_int::try_from(-forked).unwrap_or(libc::EAGAIN))),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nobody runs on it any more.
        unsafe { libc::munmap(self.start, self.length()) };
    }
}
