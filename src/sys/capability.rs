//! What the calling thread may do beyond its user.

use std::io;

use super::check;

/// `CAP_KILL` and `CAP_SETUID`, by their bits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capability {
    Kill = 5,
    SetUid = 7,
}

/// The third layout of the call, with two halves of each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Capability {
    /// Whether the calling thread has it in effect.
    pub(crate) fn is_held(self) -> io::Result<bool> {
        let mut header = Header { version: VERSION, pid: 0 };
        let mut halves = [Half::default(); 2];
        // SAFETY: both are of the layout that the version names.
        check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) })?;
        Ok(halves[0].effective >> self as u32 & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_shows_it() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let effective = u64::from_str_radix(line.trim(), 16).unwrap();
        for capability in [Capability::Kill, Capability::SetUid] {
            assert_eq!(
                capability.is_held().unwrap(),
                effective >> capability as u32 & 1 == 1,
                "{capability:?}"
            );
        }
    }
}
