//! A port of its own for each worker whose program can only bind a number.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Ports that the system gives to nobody by itself: a worker may take long to bind, and meanwhile no client's
/// connection must land on its port.
const QUIET: u16 = 10_000;
/// Fewer than this are too few to choose from.
const FEW: u16 = 1000;

/// Where the next port is looked for.
#[derive(Debug)]
pub(super) struct Ports {
    range: Range<u16>,
    next: u16,
}

impl Ports {
    /// Below the ports that the system hands out, beginning anywhere, so that two masters rarely meet.
    pub(super) fn new() -> Self {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let end = text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
        let range = if end >= QUIET + FEW { QUIET..end } else { QUIET..u16::MAX };
        let random = RandomState::new().build_hasher().finish();
        let span = u64::from(range.end - range.start);
        let next = range.start + u16::try_from(random % span).unwrap_or(0);
        Ports { range, next }
    }

    /// A port of the loopback address that nobody has, and no worker was given.
    pub(super) fn take(&mut self, is_given: impl Fn(u16) -> bool) -> io::Result<u16> {
        for _ in self.range.clone() {
            let port = self.next;
            self.next = if port + 1 < self.range.end { port + 1 } else { self.range.start };
            if !is_given(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_given_nor_taken_and_round_again() {
        let mut ports = Ports::new();
        let first = ports.take(|_| false).unwrap();
        assert!(ports.range.contains(&first));
        let anywhere = 12_000 + u16::try_from(std::process::id() % 10_000).unwrap();
        let mut ports = Ports { range: 12_000..30_000, next: anywhere };
        let (held, skipped) = (ports.take(|_| false).unwrap(), ports.take(|_| false).unwrap());
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, held)).unwrap();
        let mut few = Ports { range: held..skipped + 2, next: held };
        assert!(few.take(|port| port == skipped).unwrap() > held);
        let mut none = Ports { range: held..held + 1, next: held };
        assert_eq!(none.take(|_| false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
