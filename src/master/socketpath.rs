//! Paths of unix sockets that are longer than an address holds: the address leads through the folder instead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use socket2::SockAddr;

/// What to bind, or to connect to, for a path of any length; good while it lives.
pub(super) struct PathAddress {
    address: SockAddr,
    _folder: Option<File>,
}

impl PathAddress {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        if let Ok(address) = SockAddr::unix(path) {
            return Ok(PathAddress { address, _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(PathAddress { address: SockAddr::unix(short)?, _folder: Some(folder) })
    }

    pub(super) fn address(&self) -> &SockAddr {
        &self.address
    }
}
