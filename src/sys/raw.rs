//! System calls without the C library: for code that runs where its memory is not.

use std::ffi::c_long;

/// The arguments of a call; what it does not take is 0.
pub(super) type Args = [usize; 6];

/// Whether a call here touches nothing but registers and what its arguments point to.
pub(super) const IS_FREESTANDING: bool =
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"));

/// Makes a system call: its result, or the negative of the error's number.
///
/// # Safety
///
/// As the call itself, with these arguments.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) unsafe fn syscall(number: c_long, args: Args) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the rest is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes a system call: its result, or the negative of the error's number.
///
/// # Safety
///
/// As the call itself, with these arguments.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) unsafe fn syscall(number: c_long, args: Args) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the rest is the caller's promise.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            options(nostack),
        );
    }
    result
}

/// Makes a system call: its result, or the negative of the error's number.
///
/// # Safety
///
/// As the call itself, with these arguments.
#[cfg(target_arch = "riscv64")]
#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) unsafe fn syscall(number: c_long, args: Args) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; the rest is the caller's promise.
    unsafe {
        std::arch::asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") args[0] => result,
            in("a1") args[1], in("a2") args[2], in("a3") args[3], in("a4") args[4], in("a5") args[5],
            options(nostack),
        );
    }
    result
}

/// Makes a system call: its result, or the negative of the error's number.
///
/// # Safety
///
/// As the call itself, with these arguments.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub(super) unsafe fn syscall(number: c_long, args: Args) -> isize {
    // SAFETY: the caller's promise; errno is the calling thread's own.
    unsafe {
        match libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) {
            -1 => -(*libc::__errno_location() as isize),
            result => result as isize,
        }
    }
}
