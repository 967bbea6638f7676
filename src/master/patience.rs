//! Addresses of a master that has just been killed: its workers die with it, but a moment later.

use std::io;
use std::thread;
use std::time::Duration;

/// Waits between the tries: about a second in all, as short as can be at first.
const WAITS: [u64; 8] = [2, 5, 10, 25, 60, 150, 300, 500];

/// Tries again for a while where the address is in use. Only at the start, before the loop runs.
pub(crate) fn patiently<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for wait in WAITS {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                thread::sleep(Duration::from_millis(wait));
            }
            outcome => return outcome,
        }
    }
    bind()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_an_address_and_for_nothing_else() {
        let mut tries = 0;
        let outcome = patiently(|| {
            tries += 1;
            if tries < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(tries) }
        });
        assert_eq!(outcome.unwrap(), 3);
        let mut tries = 0;
        let refused: io::Result<()> = patiently(|| {
            tries += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!((refused.unwrap_err().kind(), tries), (io::ErrorKind::PermissionDenied, 1));
    }
}
