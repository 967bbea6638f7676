//! What the guard process does. It has given back the master's memory: it calls the kernel alone, and reads nothing
//! but its room, its stack and constants.

use std::ffi::{c_int, c_long, c_void};
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use libc::{pid_t, timespec};

use super::{Kind, NOWHERE, Note, Room};
use crate::sys::raw::{self, Args};

/// How often the master is looked for where no descriptor tells of its end, in nanoseconds.
const LOOK_EVERY: c_long = 50_000_000;
/// Signals the group that the process led, also after the process itself is gone (Linux 6.9).
const PIDFD_SIGNAL_PROCESS_GROUP: usize = 1 << 2;
/// Bytes of the kernel's own signal set.
const KERNEL_SET: usize = 8;

/// Runs in the master's memory for a moment: forks the guard, as a child of the master, and ends.
///
/// A process that shares memory with another has no area for restartable sequences, and neither has its child: the
/// kernel would go on writing to one in memory that the guard gives back.
pub(super) extern "C" fn fork_guard(room: *mut c_void) -> c_int {
    let room = room.cast::<Room>();
    let flags = word(libc::CLONE_PARENT);
    // SAFETY: the master stands still until we end, and keeps the room for so long. A fork copies the stack that we
    // are on; both processes go on from here.
    unsafe {
        let forked = raw::syscall(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]);
        if forked == 0 {
            guard(&mut *room);
        }
        (*room).forked = forked;
        raw::syscall(libc::SYS_exit, [0; 6]);
    }
    0
}

/// The new process, from its first moment to its last.
unsafe fn guard(room: &mut Room) -> ! {
    // SAFETY: system calls on this process alone, and on memory of the room, which is this process's own copy.
    unsafe {
        leave_the_master(room);
        let mut control = room.control;
        while !is_over(room, &mut control) {}
        kill_all(room);
        exit()
    }
}

/// Takes nothing along: no signal, terminal, folder, descriptor or memory of the master's.
unsafe fn leave_the_master(room: &Room) {
    let every_signal = u64::MAX;
    // SAFETY: pointers to constants and to our own stack; what is unmapped is neither.
    unsafe {
        let set = (&raw const every_signal) as usize;
        raw::syscall(libc::SYS_rt_sigprocmask, [word(libc::SIG_SETMASK), set, 0, KERNEL_SET, 0, 0]);
        raw::syscall(libc::SYS_setsid, [0; 6]);
        raw::syscall(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]);
        let name = c"proteus-guard".as_ptr() as usize;
        raw::syscall(libc::SYS_prctl, [word(libc::PR_SET_NAME), name, 0, 0, 0, 0]);
        close_strangers(room);
        if raw::IS_FREESTANDING {
            for gap in &room.gaps[..room.gap_count] {
                raw::syscall(libc::SYS_munmap, [gap.start, gap.end - gap.start, 0, 0, 0, 0]);
            }
        }
    }
}

/// Closes every descriptor that is not the guard's: a listener above all must not be held open.
unsafe fn close_strangers(room: &Room) {
    let mut from = 0;
    let mut at = 0;
    loop {
        // The groups stand in the order of their descriptors.
        while at < room.group_count && room.groups[at].leader < from {
            at += 1;
        }
        let leader = if at < room.group_count { room.groups[at].leader } else { RawFd::MAX };
        let next = [room.control, room.master_fd, leader].into_iter().filter(|fd| *fd >= from).min();
        let next = next.unwrap_or(RawFd::MAX);
        if next > from {
            // SAFETY: closes descriptors of this process alone, and none that it uses.
            unsafe { close_range(from, next - 1) };
        }
        if next == RawFd::MAX {
            return;
        }
        from = next + 1;
    }
}

unsafe fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: takes integers; the limit is a place of our own to write to.
    unsafe {
        if raw::syscall(libc::SYS_close_range, [word(first), word(last), 0, 0, 0, 0]) == 0 {
            return;
        }
        // Before Linux 5.9: one by one, up to the limit.
        let mut limit: [u64; 2] = [0; 2];
        let place = (&raw mut limit) as usize;
        raw::syscall(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, 0, place, 0, 0]);
        let end = RawFd::try_from(limit[0]).unwrap_or(RawFd::MAX).min(1 << 20);
        for fd in first..end.min(last.saturating_add(1)) {
            close(fd);
        }
    }
}

/// Sleeps until something happens, and takes it in; whether it was the end.
unsafe fn is_over(room: &mut Room, control: &mut RawFd) -> bool {
    // SAFETY: the control socket is ours; the room is this process's own.
    unsafe {
        wait(*control, room.master_fd);
        match read_notes(room, *control) {
            Heard::AllForNow => {}
            // The master goes, which its own end will show; or somebody has closed it there.
            Heard::HungUp => *control = NOWHERE,
            Heard::End => return true,
        }
        let is_gone = raw::syscall(libc::SYS_getppid, [0; 6]) != room.master as isize;
        if is_gone {
            // What it wrote just before its end is still there.
            read_notes(room, *control);
        }
        is_gone
    }
}

unsafe fn wait(control: RawFd, master: RawFd) {
    let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut watched = [watch(control), watch(master)];
    let limit = timespec { tv_sec: 0, tv_nsec: LOOK_EVERY };
    let limit = if master == NOWHERE { (&raw const limit) as usize } else { 0 };
    // SAFETY: two entries and a time on our own stack.
    unsafe { raw::syscall(libc::SYS_ppoll, [(&raw mut watched) as usize, 2, limit, 0, 0, 0]) };
}

/// What reading came to.
enum Heard {
    AllForNow,
    HungUp,
    End,
}

/// Takes in what the master and its new workers have written.
unsafe fn read_notes(room: &mut Room, control: RawFd) -> Heard {
    loop {
        // SAFETY: the control socket is ours.
        let (count, note, leader) = unsafe { receive(control) };
        match (count, note.kind) {
            (count, _) if count == -(libc::EAGAIN as isize) => return Heard::AllForNow,
            (count, Kind::WATCH) if count > 0 => room.watch(note.pid, leader),
            (count, Kind::FORGET) if count > 0 => {
                // SAFETY: closes a descriptor that nobody uses any more.
                room.forget(note.pid, |leader| unsafe { close(leader) });
            }
            (count, Kind::END) if count > 0 => return Heard::End,
            _ => return Heard::HungUp,
        }
    }
}

/// One note, and the descriptor that came with it; how many bytes, or the negative of an error.
unsafe fn receive(control: RawFd) -> (isize, Note, RawFd) {
    let mut note = Note { kind: Kind(0), pid: 0 };
    let mut passed = [0u64; 4];
    let mut place = libc::iovec { iov_base: (&raw mut note).cast(), iov_len: size_of::<Note>() };
    // SAFETY: all zeros is a valid header; it is filled with places on our own stack. What the kernel has put into
    // `passed` begins with a header where its length says so.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &raw mut place;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut passed).cast();
        header.msg_controllen = size_of_val(&passed) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let args: Args = [word(control), (&raw mut header) as usize, word(flags), 0, 0, 0];
        let count = raw::syscall(libc::SYS_recvmsg, args);
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        let has_leader = count > 0 && !first.is_null() && (*first).cmsg_type == libc::SCM_RIGHTS;
        let leader = if has_leader { ptr::read_unaligned(libc::CMSG_DATA(first).cast()) } else { NOWHERE };
        (count, note, leader)
    }
}

/// The cluster is gone: nobody of its groups stays.
unsafe fn kill_all(room: &Room) {
    for group in &room.groups[..room.group_count] {
        // SAFETY: takes integers.
        unsafe {
            if group.leader == NOWHERE {
                kill(-group.pid);
            } else {
                kill_group_of(group.leader, group.pid);
                signal_leader(group.leader, libc::SIGKILL, 0);
            }
        }
    }
}

/// The group by its leader's descriptor, which names nobody else. Before Linux 6.9 by its number, where that is still
/// the group's: while its leader is not reaped, or no process has the number, which a group keeps from being reused.
unsafe fn kill_group_of(leader: RawFd, pid: pid_t) {
    // SAFETY: takes integers.
    unsafe {
        let missing = -(libc::EINVAL as isize);
        if signal_leader(leader, libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP) != missing {
            return;
        }
        let is_there = signal_leader(leader, 0, 0) != -(libc::ESRCH as isize);
        let gone = -(libc::ESRCH as isize);
        if is_there || raw::syscall(libc::SYS_kill, [word(pid), 0, 0, 0, 0, 0]) == gone {
            kill(-pid);
        }
    }
}

unsafe fn signal_leader(leader: RawFd, signal: c_int, flags: usize) -> isize {
    // SAFETY: takes integers; a null siginfo is allowed.
    unsafe { raw::syscall(libc::SYS_pidfd_send_signal, [word(leader), word(signal), 0, flags, 0, 0]) }
}

unsafe fn kill(pid: pid_t) {
    // SAFETY: takes integers.
    unsafe { raw::syscall(libc::SYS_kill, [word(pid), word(libc::SIGKILL), 0, 0, 0, 0]) };
}

unsafe fn close(fd: RawFd) {
    // SAFETY: takes an integer.
    unsafe { raw::syscall(libc::SYS_close, [word(fd), 0, 0, 0, 0, 0]) };
}

/// An integer as the kernel takes it: the lower half of a register.
fn word(number: c_int) -> usize {
    number.cast_unsigned() as usize
}

unsafe fn exit() -> ! {
    loop {
        // SAFETY: ends this process.
        unsafe { raw::syscall(libc::SYS_exit_group, [0; 6]) };
    }
}
