//! Who gives an order, as far as the kernel tells.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Who gives an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Principal {
    /// This very program, by its [`Handle`](crate::Handle).
    Program,
    /// A process at the other end of a unix socket.
    Unix { uid: u32, pid: u32 },
    /// Somebody at the other end of a TCP connection.
    Tcp { address: SocketAddr, owner: Owner },
}

/// Whose the other end of a TCP connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owner {
    /// A user of this machine.
    User(u32),
    /// Of a process that has closed it, or that this machine does not have.
    Nobody,
    /// Of another machine, or the kernel could not be asked.
    Unknown,
}

/// A call of the control API whose caller waits for the end of what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CallId(pub(crate) u64);

/// Who gives an order, and by which call, where somebody waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct By {
    pub(crate) principal: Principal,
    pub(crate) call: Option<CallId>,
}

impl By {
    /// This very program.
    pub(crate) const PROGRAM: By = By { principal: Principal::Program, call: None };
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.principal.fmt(f)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Program => write!(f, "this program"),
            Principal::Unix { uid, pid } => write!(f, "uid {uid} pid {pid} (unix socket)"),
            Principal::Tcp { address, owner: Owner::User(uid) } => write!(f, "uid {uid} at {address}"),
            Principal::Tcp { address, owner: Owner::Nobody } => write!(f, "nobody any more at {address}"),
            Principal::Tcp { address, owner: Owner::Unknown } => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_was_in_words() {
        let address = "127.0.0.1:43210".parse().unwrap();
        let table = [
            (Principal::Program, "this program"),
            (Principal::Unix { uid: 0, pid: 123 }, "uid 0 pid 123 (unix socket)"),
            (Principal::Tcp { address, owner: Owner::User(1000) }, "uid 1000 at 127.0.0.1:43210"),
            (Principal::Tcp { address, owner: Owner::Nobody }, "nobody any more at 127.0.0.1:43210"),
            (Principal::Tcp { address, owner: Owner::Unknown }, "127.0.0.1:43210"),
        ];
        for (principal, words) in table {
            assert_eq!(principal.to_string(), words);
            let text = serde_json::to_string(&principal).unwrap();
            assert_eq!(serde_json::from_str::<Principal>(&text).unwrap(), principal);
        }
    }
}
