//! A new process, at a cost that does not grow with the master's heap.
//!
//! `clone(CLONE_VM | CLONE_VFORK)`: the child borrows our memory, on a stack of its own, until it
//! execs; no page table is copied (measured with a 1 GiB heap: 0.02 ms against fork's 6 ms). Our
//! thread stands still meanwhile, with every signal blocked. The child allocates nothing, takes no
//! lock and makes only system calls; it reports a failed step by writing it where we can read it.

use std::ffi::{CString, OsStr, c_char, c_void};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, gid_t, pid_t, uid_t};

use super::attempt::Attempt;
use super::guard;
use super::limit;
use super::process::{Child, page_size};
use super::signal::{Mask, SIGNAL_END, empty};

/// What a process starts with. Descriptors go to 3, 4, 5… in their order; nothing else is passed on.
pub(crate) struct Plan<'a> {
    pub(crate) image: Image<'a>,
    /// From `argv[0]` on.
    pub(crate) args: Vec<&'a OsStr>,
    /// `KEY=value`, and nothing but these.
    pub(crate) env: Vec<Vec<u8>>,
    /// Variables to add whose value is the pid of the new process, which only that knows before its exec.
    pub(crate) own_pid: Vec<&'static str>,
    /// An open directory.
    pub(crate) cwd: Option<BorrowedFd<'a>>,
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) stdin: BorrowedFd<'a>,
    /// Its stdout and stderr; `None` is our own.
    pub(crate) output: Option<[BorrowedFd<'a>; 2]>,
    pub(crate) fds: Vec<BorrowedFd<'a>>,
    /// The limit of open files in force for it; `None` is our own.
    pub(crate) open_files: Option<u64>,
    /// Where the process announces itself before its exec, if there is a guard.
    pub(crate) guard: Option<BorrowedFd<'a>>,
}

/// A process that has begun.
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Whether the guard knows of it, where there is one.
    pub(crate) announced: bool,
}

/// The program that a process executes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image<'a> {
    Path(&'a OsStr),
    /// The file itself, wherever it lies by now, if anywhere. Not a script: its interpreter reads it by a path.
    Open(BorrowedFd<'a>),
}

/// Who the process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: Option<uid_t>,
    pub(crate) gid: Option<gid_t>,
    pub(crate) groups: Vec<gid_t>,
}

/// The step at which a spawn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A NUL byte in the program, an argument or the environment.
    Prepare,
    Fork,
    Group,
    Credentials,
    DeathSignal,
    Descriptors,
    Directory,
    Exec,
}

/// A spawn that failed, with its step and cause.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) cause: io::Error,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Prepare => "prepare",
            Step::Fork => "fork",
            Step::Group => "set the process group of",
            Step::Credentials => "set user and group of",
            Step::DeathSignal => "set the parent-death signal of",
            Step::Descriptors => "pass descriptors to",
            Step::Directory => "enter the working directory of",
            Step::Exec => "execute",
        })
    }
}

/// No descriptor.
const NOWHERE: RawFd = -1;
/// What the child's few calls need, many times over; one page more guards it.
const STACK: usize = 64 * 1024;
/// Bytes of the kernel's own signal set: one bit for each of 64 signals.
const KERNEL_SET: usize = 8;
/// Room for the largest pid and the closing NUL.
const PID_DIGITS: usize = 11;

/// Starts processes. Bound to the thread that made it: the parent-death signal follows the thread.
pub(crate) struct Spawner {
    /// The mapping, its guard page first.
    stack: *mut c_void,
    length: usize,
    clone_flags: c_int,
}

impl Spawner {
    pub(crate) fn new(with_pidfd: bool) -> io::Result<Self> {
        // Pages have 64 KiB on some machines: a guard of that size must not be all there is.
        let guard = usize::try_from(page_size()).unwrap_or(STACK);
        let length = guard + STACK;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh anonymous mapping; no memory of ours is touched.
        let stack =
            unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if stack == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the lowest page of our own mapping becomes the guard.
        unsafe { libc::mprotect(stack, guard, libc::PROT_NONE) };
        let pidfd = if with_pidfd { libc::CLONE_PIDFD } else { 0 };
        Ok(Spawner { stack, length, clone_flags: libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | pidfd })
    }

    /// Starts a process. On failure there is none: it has been reaped already. Sleeps until its exec is done, or the
    /// attempt is given up and the kernel lets go of the process.
    pub(crate) fn spawn(&mut self, plan: &Plan<'_>, attempt: &Attempt) -> Result<Started, Failure> {
        let given_up = || Failure { step: Step::Exec, cause: io::ErrorKind::TimedOut.into() };
        if attempt.is_given_up() {
            return Err(given_up());
        }
        let mut prepared = Prepared::new(plan).map_err(|error| Failure {
            step: Step::Prepare,
            cause: io::Error::new(io::ErrorKind::InvalidInput, error),
        })?;
        let mut room = Room::new(plan, &mut prepared, attempt);
        let mut pidfd: c_int = -1;
        let before = Mask::block_all();
        // SAFETY: the stack is ours and `length` bytes long; `child` never returns into our frames
        // before we go on (CLONE_VFORK), touches only `room`, and makes only system calls.
        let pid = unsafe {
            let top = self.stack.byte_add(self.length);
            libc::clone(child, top, self.clone_flags, (&raw mut room).cast(), &raw mut pidfd)
        };
        let error = io::Error::last_os_error();
        before.apply();
        let Ok(pid) = u32::try_from(pid) else { return Err(Failure { step: Step::Fork, cause: error }) };
        // SAFETY: the kernel put a new descriptor here, or left the -1.
        let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
        let child = Child { pid, pidfd };
        let is_wanted = attempt.end();
        if is_wanted && room.failed.is_none() {
            return Ok(Started { child, announced: room.announced });
        }
        if let Some(guard) = plan.guard {
            guard::withdraw(guard, pid);
        }
        let Some((step, errno)) = room.failed else {
            child.end_now();
            return Err(given_up());
        };
        // It has ended, or is about to: it is reaped here, so that nobody ever hears of it.
        child.wait_for_end();
        Err(Failure { step, cause: io::Error::from_raw_os_error(errno) })
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no child runs on it, since each `clone` waits for the exec.
        unsafe { libc::munmap(self.stack, self.length) };
    }
}

/// The C strings of a plan, owned.
struct Prepared {
    /// Empty when the image is an open file.
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    /// `NAME=` and room for a pid.
    own_pid: Vec<Vec<u8>>,
}

impl Prepared {
    fn new(plan: &Plan<'_>) -> Result<Self, std::ffi::NulError> {
        let with_room = |name: &&str| [name.as_bytes(), b"=", &[0; PID_DIGITS]].concat();
        let path = match plan.image {
            Image::Path(path) => path.as_bytes(),
            Image::Open(_) => b"",
        };
        Ok(Prepared {
            path: CString::new(path)?,
            args: plan.args.iter().map(|arg| CString::new(arg.as_bytes())).collect::<Result<_, _>>()?,
            env: plan.env.iter().map(|pair| CString::new(pair.as_slice())).collect::<Result<_, _>>()?,
            own_pid: plan.own_pid.iter().map(with_room).collect(),
        })
    }
}

/// All that the child reads and writes; made before the clone.
struct Room {
    parent: pid_t,
    /// Where the child writes its pid, of the attempt.
    pid: *const AtomicU32,
    /// Empty where `image` is what is executed.
    path: *const c_char,
    /// The open file to execute, or `NOWHERE`; replaced by its copy above the target range.
    image: RawFd,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Where each of the variables that hold the pid has room for it.
    own_pid: Vec<*mut u8>,
    /// The directory to enter, or `NOWHERE`.
    cwd: RawFd,
    credentials: Option<(Option<uid_t>, Option<gid_t>, *const gid_t, usize)>,
    stdin: RawFd,
    /// Stdout and stderr, unless they are the parent's.
    output: Option<[RawFd; 2]>,
    /// The descriptors to pass; replaced by their copies above the target range.
    fds: Vec<RawFd>,
    open_files: Option<u64>,
    /// The guard's control socket, or `NOWHERE`.
    guard: RawFd,
    announced: bool,
    failed: Option<(Step, c_int)>,
}

impl Room {
    fn new(plan: &Plan<'_>, prepared: &mut Prepared, attempt: &Attempt) -> Self {
        let pointers =
            |strings: &[CString]| -> Vec<*const c_char> { strings.iter().map(|s| s.as_ptr()).collect() };
        let mut argv = pointers(&prepared.args);
        argv.push(ptr::null());
        let mut envp = pointers(&prepared.env);
        let mut own_pid = Vec::with_capacity(prepared.own_pid.len());
        for variable in &mut prepared.own_pid {
            let digits = variable.len() - PID_DIGITS;
            let start = variable.as_mut_ptr();
            envp.push(start.cast_const().cast());
            own_pid.push(start.wrapping_add(digits));
        }
        envp.push(ptr::null());
        Room {
            parent: std::process::id().cast_signed(),
            pid: &raw const attempt.pid,
            path: prepared.path.as_ptr(),
            image: match plan.image {
                Image::Path(_) => NOWHERE,
                Image::Open(file) => file.as_raw_fd(),
            },
            argv,
            envp,
            own_pid,
            cwd: plan.cwd.map_or(NOWHERE, |cwd| cwd.as_raw_fd()),
            credentials: plan.credentials.map(|c| (c.uid, c.gid, c.groups.as_ptr(), c.groups.len())),
            stdin: plan.stdin.as_raw_fd(),
            output: plan.output.map(|both| both.map(|fd| fd.as_raw_fd())),
            fds: plan.fds.iter().map(AsRawFd::as_raw_fd).collect(),
            open_files: plan.open_files,
            guard: plan.guard.map_or(NOWHERE, |guard| guard.as_raw_fd()),
            announced: false,
            failed: None,
        }
    }
}

/// The new process. Only async-signal-safe calls from here on.
extern "C" fn child(room: *mut c_void) -> c_int {
    // SAFETY: the parent passed a pointer to its `Room` and stands still until we exec or exit.
    let room = unsafe { &mut *room.cast::<Room>() };
    // SAFETY: the strings and arrays of `room` outlive the call; both arrays end in null.
    let failed = unsafe {
        match become_worker(room) {
            Ok(()) => {
                execute(room);
                (Step::Exec, *libc::__errno_location())
            }
            Err(step) => (step, *libc::__errno_location()),
        }
    };
    room.failed = Some(failed);
    // SAFETY: ends this process alone, without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Executes the path, or the open file where there is one; returns only if that fails.
unsafe fn execute(room: &Room) {
    let (argv, envp) = (room.argv.as_ptr(), room.envp.as_ptr());
    // SAFETY: the strings and arrays of `room` outlive the call; both arrays end in null.
    unsafe {
        if room.image == NOWHERE {
            libc::execve(room.path, argv, envp);
        } else {
            libc::syscall(libc::SYS_execveat, room.image, room.path, argv, envp, libc::AT_EMPTY_PATH);
        }
    }
}

/// Everything between clone and exec, in the one order that works: the group first, so that the
/// group exists whatever follows, and the guard, so that it knows of it; credentials before the death signal, which they would clear.
unsafe fn become_worker(room: &mut Room) -> Result<(), Step> {
    // SAFETY: plain system calls on integers and on `room`'s memory, which the parent keeps alive.
    unsafe {
        (*room.pid).store(libc::getpid().cast_unsigned(), Ordering::SeqCst);
        reset_signals();
        ok(libc::setpgid(0, 0), Step::Group)?;
        room.announced = room.guard != NOWHERE && guard::announce(room.guard);
        unprotect_from_oom();
        take_credentials(room)?;
        ok(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), Step::DeathSignal)?;
        if libc::getppid() != room.parent {
            libc::_exit(127); // the master died before the signal was set: nobody waits for us
        }
        if room.cwd != NOWHERE {
            ok(libc::fchdir(room.cwd), Step::Directory)?;
        }
        place_descriptors(room)?;
        if let Some(usual) = room.open_files {
            limit::lower(usual);
        }
        for &room_for_it in &room.own_pid {
            write_pid(room_for_it);
        }
    }
    Ok(())
}

fn ok(result: c_int, step: Step) -> Result<(), Step> {
    if result < 0 { Err(step) } else { Ok(()) }
}

/// Handlers would run in our parent's memory and ignored signals would stay ignored after the exec.
/// By the raw call, since the C library refuses to touch the two signals that it uses itself (32, 33).
unsafe fn reset_signals() {
    // SAFETY: all zeros is the kernel's default action, whose layout fits into this much on every
    // architecture; the table is this process's own (no CLONE_SIGHAND).
    unsafe {
        let default = [0u64; 8];
        for signal in 1..SIGNAL_END {
            let nowhere = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nowhere, KERNEL_SET);
        }
        let none = empty();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// A master that the OOM killer spares must not make its workers immune: they are what grows.
unsafe fn unprotect_from_oom() {
    // SAFETY: constant strings, a small buffer on our own stack, and descriptors of this process.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        let mut sign = 0u8;
        if fd >= 0 && libc::read(fd, (&raw mut sign).cast(), 1) == 1 && sign == b'-' {
            libc::write(fd, c"0".as_ptr().cast(), 1);
        }
        if fd >= 0 {
            libc::close(fd);
        }
    }
}

/// By raw system calls: the C library's versions would change the master's other threads as well.
unsafe fn take_credentials(room: &Room) -> Result<(), Step> {
    let Some((uid, gid, groups, count)) = room.credentials else { return Ok(()) };
    // SAFETY: `groups` points to `count` ids in the parent's memory; the rest are integers.
    unsafe {
        raw_ok(libc::syscall(libc::SYS_setgroups, count, groups))?;
        if let Some(gid) = gid {
            raw_ok(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        }
        if let Some(uid) = uid {
            raw_ok(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        }
    }
    Ok(())
}

fn raw_ok(result: libc::c_long) -> Result<(), Step> {
    if result < 0 { Err(Step::Credentials) } else { Ok(()) }
}

/// Puts the descriptors at 0 to 2 and 3, 4, 5… by way of numbers above them, so that none overwrites another
/// and each loses its close-on-exec flag, and lets the exec close everything else, whatever the host program has opened.
unsafe fn place_descriptors(room: &mut Room) -> Result<(), Step> {
    let end = 3 + c_int::try_from(room.fds.len()).map_err(|_| Step::Descriptors)?;
    // SAFETY: descriptors of this process alone (no CLONE_FILES).
    unsafe {
        if room.image != NOWHERE {
            room.image = libc::fcntl(room.image, libc::F_DUPFD_CLOEXEC, end);
            ok(room.image, Step::Descriptors)?;
        }
        let moved = std::iter::once(&mut room.stdin).chain(room.output.iter_mut().flatten());
        for fd in moved.chain(&mut room.fds) {
            *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, end);
            ok(*fd, Step::Descriptors)?;
        }
        ok(libc::dup2(room.stdin, 0), Step::Descriptors)?;
        for (target, &fd) in (1..).zip(room.output.iter().flatten()) {
            ok(libc::dup2(fd, target), Step::Descriptors)?;
        }
        for (target, &fd) in (3..end).zip(&room.fds) {
            ok(libc::dup2(fd, target), Step::Descriptors)?;
        }
        close_from(end, room.image);
    }
    Ok(())
}

/// Of the descriptors from `first` on, `spared` stays open until the exec, which closes it.
unsafe fn close_from(first: c_int, spared: RawFd) {
    // SAFETY: only sets close-on-exec or closes, in this process's own table.
    unsafe {
        let cloexec = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, first, c_int::MAX, cloexec) == 0 {
            return;
        }
        // Before Linux 5.11: one by one, up to the limit.
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        for fd in first..c_int::try_from(limit.rlim_cur.min(65_536)).unwrap_or(65_536) {
            if fd != spared {
                libc::close(fd);
            }
        }
    }
}

/// Our pid in decimal into the buffer, which has room for it and a NUL.
unsafe fn write_pid(buffer: *mut u8) {
    // SAFETY: the buffer is PID_DIGITS long; a pid has at most ten digits.
    unsafe {
        let mut pid = libc::getpid().cast_unsigned();
        let mut digits = [0u8; PID_DIGITS];
        let mut count = 0;
        while pid > 0 {
            digits[count] = b'0' + (pid % 10) as u8;
            pid /= 10;
            count += 1;
        }
        for at in 0..count {
            *buffer.add(at) = digits[count - 1 - at];
        }
    }
}
