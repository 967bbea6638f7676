//! Where callers come in, and who they are.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Sender;

use socket2::Socket;

use super::gate::Over;
use crate::journal;
use crate::master::socketfile::SocketFile;
use crate::principal::{Owner, Principal};
use crate::sys::ancillary;
use crate::sys::diagnosis::Diagnosis;

/// The API's socket.
pub(super) struct Door {
    listener: Socket,
    _file: Option<SocketFile>,
    /// Where the kernel can be asked whose a connection of this machine is.
    diagnosis: Option<Diagnosis>,
    _open: Sender<Over>,
}

impl Door {
    /// `open` ends when the door is closed and its file is gone.
    pub(super) fn new(listener: Socket, file: Option<SocketFile>, open: Sender<Over>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?.as_socket();
        let diagnosis = at.map(Diagnosis::open).and_then(|asked| {
            asked.inspect_err(|error| journal::debug!("control API: socket diagnosis: {error}")).ok()
        });
        Ok(Door { listener, _file: file, diagnosis, _open: open })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whether it can tell whose a connection of this machine is.
    pub(super) fn knows_users(&self) -> bool {
        self.diagnosis.is_some()
    }

    /// The next caller. Whose the other end is can be asked now: later it may be closed.
    pub(super) fn accept(&self) -> io::Result<(Socket, Principal)> {
        let (client, address) = self.listener.accept()?;
        client.set_nonblocking(true)?;
        if let Some(address) = address.as_socket() {
            let owner = self.owner(&client, address);
            return Ok((client, Principal::Tcp { address, owner }));
        }
        let peer = ancillary::peer(client.as_fd())?;
        Ok((client, Principal::Unix { uid: peer.uid, pid: peer.pid }))
    }

    /// Whether a caller who sends nothing more is no longer there: where the kernel knows no process that has the
    /// other end open.
    pub(super) fn has_left(&self, client: &Socket) -> bool {
        let peer = client.peer_addr().ok().and_then(|address| address.as_socket());
        peer.is_some_and(|peer| self.owner(client, peer) == Owner::Nobody)
    }

    fn owner(&self, client: &Socket, peer: SocketAddr) -> Owner {
        let local = client.local_addr().ok().and_then(|address| address.as_socket());
        let (Some(diagnosis), Some(local)) = (&self.diagnosis, local) else { return Owner::Unknown };
        if !peer.ip().to_canonical().is_loopback() {
            return Owner::Unknown;
        }
        match diagnosis.owner(peer, local) {
            Ok(Some(uid)) => Owner::User(uid),
            Ok(None) => Owner::Nobody,
            Err(error) => {
                journal::debug!("control API: socket diagnosis: {error}");
                Owner::Unknown
            }
        }
    }
}

/// Whether the system lacks what every connection needs.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
