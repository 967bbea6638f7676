//! The few system calls that tests need. Each block is sound for the reason it gives.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sends a signal to one process that the test started.
pub(crate) fn kill(pid: u32, signal: i32) {
    // SAFETY: takes two integers.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// The process dies with the thread that started it: a test that panics leaves nothing.
pub(crate) fn die_with_me(command: &mut Command) {
    // SAFETY: the closure makes one async-signal-safe call.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// The process inherits this descriptor, which must live as long as the command.
pub(crate) fn keep_open(command: &mut Command, number: RawFd) {
    // SAFETY: the closure makes one async-signal-safe call.
    unsafe {
        command.pre_exec(move || {
            libc::fcntl(number, libc::F_SETFD, 0);
            Ok(())
        });
    }
}

/// The process starts with these signals blocked and those ignored.
pub(crate) fn with_signals(command: &mut Command, blocked: &'static [i32], ignored: &'static [i32]) {
    // SAFETY: only async-signal-safe calls on memory of the closure's own.
    unsafe {
        command.pre_exec(move || {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for &signal in blocked {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            for &signal in ignored {
                // The raw call: the C library refuses 32 and 33, which other libraries do ignore.
                let ignore = [libc::SIG_IGN as u64, 0, 0, 0, 0, 0, 0, 0];
                let nowhere = std::ptr::null_mut::<u64>();
                libc::syscall(libc::SYS_rt_sigaction, signal, ignore.as_ptr(), nowhere, 8);
            }
            Ok(())
        });
    }
}

/// The process gets no socket of this family, as under systemd's `RestrictAddressFamilies`.
pub(crate) fn without_family(command: &mut Command, family: i32) {
    // Of `seccomp_data`: the number of the call, and the low half of its first argument.
    const NUMBER: u32 = 0;
    const FIRST: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
    let step = |code: u32, jump: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("an instruction"),
        jt: 0,
        jf: jump,
        k,
    };
    let (load, unless) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let denied = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.unsigned_abs();
    let mut filter = [
        step(load, 0, NUMBER),
        step(unless, 3, u32::try_from(libc::SYS_socket).expect("a call")),
        step(load, 0, FIRST),
        step(unless, 1, family.unsigned_abs()),
        step(libc::BPF_RET | libc::BPF_K, 0, denied),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: the closure makes two async-signal-safe calls; the filter is its own.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
            let own = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0;
            if own { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the caller was told this number by its environment, and asks once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A terminal: the end that types and sees, and the end that a program has.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let ours = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx");
    let ours = ours.expect("a pseudo-terminal");
    let (unlock, flags) = (0, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
    // SAFETY: reads an integer of our own; then the kernel makes a new descriptor, or says -1.
    let theirs = unsafe {
        libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock);
        libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags)
    };
    assert!(theirs >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor.
    (ours, unsafe { OwnedFd::from_raw_fd(theirs) })
}

/// The process leads a session of its own, whose terminal this is.
pub(crate) fn control_terminal(command: &mut Command, terminal: OwnedFd) {
    // SAFETY: the closure makes two async-signal-safe calls; the descriptor lives as long as the closure.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            match libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

/// Changes how many descriptors a process may have open.
pub(crate) fn limit_descriptors(pid: u32, soft: u64) {
    limit_descriptors_to(pid, soft, 4096);
}

/// How many descriptors this process may have open: in force, and at most.
pub(crate) fn most_open_files() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a valid place to write to.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    (limit.rlim_cur, limit.rlim_max)
}

/// The same, with the hard limit.
pub(crate) fn limit_descriptors_to(pid: u32, soft: u64, hard: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is a valid place to read; a null place for the old one is allowed.
    let done = unsafe {
        libc::prlimit(pid.cast_signed(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Makes a listening socket of a process that we started useless: its accept fails from now on.
pub(crate) fn shut_down_socket(pid: u32, number: u32) -> std::io::Result<()> {
    let socket = descriptor_of(pid, number)?;
    // SAFETY: takes integers, and the descriptor is ours.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
    Ok(())
}

/// A copy of what another process has open at this number.
pub(crate) fn descriptor_of(pid: u32, number: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: takes integers; the kernel makes a new descriptor, or says -1.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the same.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// What a system call has just made.
fn owned(outcome: libc::c_long) -> std::io::Result<OwnedFd> {
    if outcome < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let number = RawFd::try_from(outcome).expect("a small number");
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The calling thread no longer has a parent-death signal; a process has that of its main thread.
pub(crate) fn outlive_parent() {
    // SAFETY: takes two integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// Reaps any child of this process that has exited, as no good guest does.
pub(crate) fn reap_anybody() -> Option<u32> {
    // SAFETY: a null status is allowed.
    u32::try_from(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) })
        .ok()
        .filter(|pid| *pid > 0)
}

/// Waits for any child of this process, as long as there is one.
pub(crate) fn wait_for_anybody() -> Option<u32> {
    // SAFETY: a null status is allowed.
    u32::try_from(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) }).ok().filter(|pid| *pid > 0)
}

/// The number of this process that no other one ever has, where the kernel has such (Linux 6.9).
pub(crate) fn own_number() -> Option<u64> {
    let number = |pid: u32| {
        // SAFETY: takes integers; the result is a new descriptor, or -1.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let pidfd = RawFd::try_from(pidfd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just given us this descriptor.
        Some(File::from(unsafe { OwnedFd::from_raw_fd(pidfd) }).metadata().ok()?.ino())
    };
    // On older ones all have the same.
    let own = number(std::process::id())?;
    (Some(own) != number(std::os::unix::process::parent_id())).then_some(own)
}

/// Holds a signal back from the calling thread.
pub(crate) fn block(signal: i32) {
    // SAFETY: the set is of our own, and initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// This process ignores a signal.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

static COUNTS: [AtomicUsize; 32] = [const { AtomicUsize::new(0) }; 32];

/// Gives this process a handler of its own for a signal: it counts.
pub(crate) fn count(signal: i32) {
    extern "C" fn handler(signal: i32) {
        if let Some(count) = usize::try_from(signal).ok().and_then(|at| COUNTS.get(at)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
    // SAFETY: the handler only adds to an atomic number.
    unsafe { libc::signal(signal, handler as extern "C" fn(i32) as libc::sighandler_t) };
}

/// How often that handler ran.
pub(crate) fn counted(signal: i32) -> usize {
    COUNTS[usize::try_from(signal).expect("a signal")].load(Ordering::SeqCst)
}

/// Puts descriptors at 3, 4, 5… for the program that this process is about to become.
pub(crate) fn hand_over(descriptors: &[OwnedFd]) {
    let end = 3 + RawFd::try_from(descriptors.len()).expect("a few");
    let above: Vec<RawFd> = descriptors
        .iter()
        // SAFETY: takes integers; the result is a new descriptor above all targets.
        .map(|descriptor| unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, end) })
        .collect();
    for (target, source) in (3..).zip(above) {
        // SAFETY: takes integers; the caller execs next and uses none of the numbers that are overwritten.
        assert_eq!(unsafe { libc::dup2(source, target) }, target);
    }
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// A copy of an open descriptor.
pub(crate) fn copy_of(number: RawFd) -> OwnedFd {
    // SAFETY: takes integers; the result is a new descriptor, or -1.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    assert!(copy >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Waits until one of the descriptors can be read, or a signal comes.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>]) {
    wait_readable_for(fds, -1);
}

/// The same for so many milliseconds at most.
pub(crate) fn wait_readable_for(fds: &[BorrowedFd<'_>], milliseconds: i32) {
    let watch = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut watched: Vec<libc::pollfd> = fds.iter().map(watch).collect();
    // SAFETY: as many entries as the vector has, which outlives the call.
    unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, milliseconds) };
}

/// What the calling thread mounts from now on, it and its children alone can see.
pub(crate) fn unshare_mounts() -> std::io::Result<()> {
    let nowhere = std::ptr::null();
    // SAFETY: takes an integer; then strings with their ends, of which none is wanted but the target.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(nowhere, c"/".as_ptr(), nowhere, libc::MS_REC | libc::MS_PRIVATE, nowhere.cast())
                == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

pub(crate) fn mount(kind: &CStr, target: &CStr, data: &CStr) -> std::io::Result<()> {
    // SAFETY: strings with their ends, which outlive the call.
    let done = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

pub(crate) fn unmount(target: &CStr) {
    // SAFETY: a string with its end, which outlives the call.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
}

/// Sends a datagram with copies of these descriptors beside it.
pub(crate) fn send_with_descriptors(
    socket: &impl AsRawFd,
    bytes: &[u8],
    descriptors: &[RawFd],
) -> std::io::Result<()> {
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let size = u32::try_from(size_of_val(descriptors)).expect("a few hundred descriptors");
    let mut control = vec![0_u64; 256];
    // SAFETY: all zeros is a valid header; it points at buffers that outlive the call, and the control buffer has
    // room for the 253 descriptors that the kernel passes at most.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
        if !descriptors.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size) as _;
            std::ptr::copy_nonoverlapping(
                descriptors.as_ptr(),
                libc::CMSG_DATA(first).cast(),
                descriptors.len(),
            );
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
