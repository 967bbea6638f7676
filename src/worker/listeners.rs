//! The sockets that the master passed at birth, by name.

use std::fmt;
use std::os::fd::OwnedFd;

use socket2::{Domain, SockRef, Type};

use crate::error::{Error, Kind, Result};
use crate::sys::inherit;

/// Named sockets, in the order of passing.
#[derive(Default)]
pub(super) struct Listeners(Vec<(String, OwnedFd)>);

/// What a socket is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketKind {
    Tcp,
    Unix,
    Udp,
    Other,
}

impl Listeners {
    /// By the systemd convention: `LISTEN_FDS` descriptors from 3 on, ours only when they say so.
    pub(super) fn from_env() -> Result<Self> {
        let text = |key| std::env::var(key).unwrap_or_default();
        if !inherit::listeners_are_ours() {
            return Ok(Listeners::default());
        }
        let (fds, names) = (text("LISTEN_FDS"), text("LISTEN_FDNAMES"));
        let names = names_of(&fds, &names)?;
        let sockets = inherit::listeners(names.len()).map_err(|error| {
            Error::start(format!("LISTEN_FDS={fds}, but not all of the descriptors are open"), error)
        })?;
        Ok(Listeners(names.into_iter().zip(sockets).collect()))
    }

    #[cfg(test)]
    pub(super) fn of(sockets: Vec<(String, OwnedFd)>) -> Self {
        Listeners(sockets)
    }

    /// A descriptor of its own for the caller, if the name is known and of that kind.
    pub(super) fn take(&self, name: &str, wanted: SocketKind) -> Result<OwnedFd> {
        let Some((_, socket)) = self.0.iter().find(|(known, _)| known == name) else {
            return Err(Error::new(Kind::Unknown, format!("no listener {name:?}; there is {self}")));
        };
        let found = SocketKind::of(socket);
        if found != wanted {
            let text = format!("listener {name:?} is of kind {found}, not {wanted}; there is {self}");
            return Err(Error::new(Kind::Unknown, text));
        }
        socket.try_clone().map_err(|error| Error::start(format!("listener {name:?}"), error))
    }
}

fn names_of(fds: &str, names: &str) -> Result<Vec<String>> {
    let refuse =
        |why: &str| Error::new(Kind::Start, format!("LISTEN_FDS={fds} LISTEN_FDNAMES={names}: {why}"));
    let count: u16 = fds.parse().map_err(|_| refuse("LISTEN_FDS is not a number"))?;
    let count = usize::from(count);
    if names.is_empty() {
        return Ok((0..count).map(|index| format!("listen{index}")).collect());
    }
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    if names.len() == count { Ok(names) } else { Err(refuse("the counts differ")) }
}

impl SocketKind {
    pub(super) fn of(socket: &OwnedFd) -> Self {
        let socket = SockRef::from(socket);
        match (socket.domain(), socket.r#type()) {
            (Ok(Domain::IPV4 | Domain::IPV6), Ok(Type::STREAM)) => SocketKind::Tcp,
            (Ok(Domain::IPV4 | Domain::IPV6), Ok(Type::DGRAM)) => SocketKind::Udp,
            (Ok(Domain::UNIX), Ok(Type::STREAM)) => SocketKind::Unix,
            _ => SocketKind::Other,
        }
    }
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SocketKind::Tcp => "tcp",
            SocketKind::Unix => "unix",
            SocketKind::Udp => "udp",
            SocketKind::Other => "unknown",
        })
    }
}

/// The names there are, for an error: `"http" (tcp), "admin" (unix)`.
impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (name, socket)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name:?} ({})", SocketKind::of(socket))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    fn two() -> Listeners {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        Listeners::of(vec![("http".into(), tcp.into()), ("dns".into(), udp.into())])
    }

    #[test]
    fn a_name_gives_a_descriptor_each_time() {
        let listeners = two();
        let first = listeners.take("http", SocketKind::Tcp).unwrap();
        let second = listeners.take("http", SocketKind::Tcp).unwrap();
        assert_ne!(first.as_raw_fd(), second.as_raw_fd());
        listeners.take("dns", SocketKind::Udp).unwrap();
    }

    #[test]
    fn a_wrong_name_or_kind_lists_what_there_is() {
        let wrong = two().take("htp", SocketKind::Tcp).unwrap_err();
        assert_eq!(wrong.to_string(), r#"no listener "htp"; there is "http" (tcp), "dns" (udp)"#);
        let wrong = two().take("dns", SocketKind::Unix).unwrap_err();
        assert!(wrong.to_string().starts_with(r#"listener "dns" is of kind udp, not unix; there is"#));
        let none = Listeners::default().take("a", SocketKind::Tcp).unwrap_err();
        assert_eq!(none.to_string(), r#"no listener "a"; there is none"#);
    }

    #[test]
    fn names_go_with_numbers() {
        let names = |fds, names| names_of(fds, names).map_err(|error| error.to_string());
        assert_eq!(names("2", "a:b").unwrap(), ["a", "b"]);
        assert_eq!(names("2", "").unwrap(), ["listen0", "listen1"]);
        assert!(names("0", "").unwrap().is_empty());
        assert!(names("3", "a:b").unwrap_err().contains("counts differ"));
        assert!(names("-1", "a").unwrap_err().contains("not a number"));
    }
}
