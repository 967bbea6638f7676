//! The only unsafe code of the crate: thin, safe names for system calls. Every block says why it is sound.
#![allow(unsafe_code)]
// Sizes of C structs of a few bytes, for calls that take them as `socklen_t` or `u32`.
#![allow(clippy::cast_possible_truncation)]
// CMSG_DATA is aligned for what it holds; its C type does not say so.
#![allow(clippy::cast_ptr_alignment)]

pub(crate) mod accept;
pub(crate) mod ancillary;
pub(crate) mod attempt;
pub(crate) mod capability;
pub(crate) mod catch;
pub(crate) mod diagnosis;
pub(crate) mod exit;
pub(crate) mod guard;
pub(crate) mod inherit;
pub(crate) mod inotify;
pub(crate) mod interrupt;
pub(crate) mod limit;
pub(crate) mod poll;
pub(crate) mod process;
mod raw;
pub(crate) mod sentinel;
pub(crate) mod signal;
pub(crate) mod spawn;
pub(crate) mod steer;
pub(crate) mod user;
pub(crate) mod write;
pub(crate) mod xattr;

use std::io;

/// A call's result as `io::Result`: -1 is the error that errno names.
pub(crate) fn check<T: From<i8> + PartialEq>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same, made again for as long as signals interrupt it.
pub(crate) fn retry<T: From<i8> + PartialEq>(mut call: impl FnMut() -> T) -> io::Result<T> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
