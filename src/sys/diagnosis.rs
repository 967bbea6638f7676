//! Whose a TCP connection of this machine is, by the kernel's socket diagnosis, or by its table in `/proc`.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Both headers, a request with its address pair, an answer without its attributes.
const NETLINK_HEADER: usize = 16;
const REQUEST: usize = NETLINK_HEADER + 56;
const ANSWER: usize = NETLINK_HEADER + 72;
/// The loopback interface of every network namespace.
const LOOPBACK: u32 = 1;
/// A socket that listens, in the kernel's numbers.
const LISTENS: u8 = 10;
/// The kernel answers at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// A way to ask.
#[derive(Debug)]
pub(crate) enum Diagnosis {
    Netlink(Socket),
    /// Slow where there are many connections, and there on every kernel.
    Table,
}

/// What is known of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    state: u8,
    uid: u32,
    /// 0 of a socket that no process has open any more.
    inode: u32,
}

impl Diagnosis {
    /// A way that works: it finds this listener of ours.
    pub(crate) fn open(listener: SocketAddr) -> io::Result<Self> {
        let nobody = SocketAddr::new(listener.ip(), 0);
        let works = |way: &Diagnosis| way.find(listener, nobody).is_ok_and(|found| found.is_some());
        match netlink().map(Diagnosis::Netlink) {
            Ok(way) if works(&way) => return Ok(way),
            Ok(_) | Err(_) => {}
        }
        match Diagnosis::Table.find(listener, nobody) {
            Ok(Some(_)) => Ok(Diagnosis::Table),
            Ok(None) => Err(io::Error::other("the kernel's tables do not show our own listener")),
            Err(error) => Err(error),
        }
    }

    /// The user who has the socket that is bound to `local` and connected to `remote` open; `None` where no process
    /// has, or where there is no such socket here.
    pub(crate) fn owner(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
        let found = self.find(local, remote)?;
        Ok(found.filter(|found| found.inode != 0 && found.state != LISTENS).map(|found| found.uid))
    }

    fn find(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Found>> {
        let (local, remote) = (canonical(local), canonical(remote));
        match self {
            Diagnosis::Netlink(socket) => ask(socket, local, remote),
            Diagnosis::Table => look_up(local, remote),
        }
    }
}

/// Two spellings of one address are one: a socket of IPv6 reaches `127.0.0.1` as `::ffff:127.0.0.1`.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn netlink() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn ask(socket: &Socket, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Found>> {
    socket.send(&request(local, remote))?;
    let mut answer = [0; 4096];
    let length = (&*socket).read(&mut answer)?;
    read(&answer[..length], local.port(), remote.port())
}

/// `nlmsghdr`, then `inet_diag_req_v2` with an exact address pair.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    const TCP: u8 = libc::IPPROTO_TCP.cast_unsigned() as u8;
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut bytes = Vec::with_capacity(REQUEST);
    bytes.extend((REQUEST as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend([0; 8]); // sequence and sender: one question at a time
    bytes.extend([family.cast_unsigned() as u8, TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // every state
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(octets(local.ip()));
    bytes.extend(octets(remote.ip()));
    bytes.extend(LOOPBACK.to_ne_bytes());
    bytes.extend([0xff; 8]); // no cookie: whichever socket it is
    bytes
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
    }
}

/// `nlmsghdr`, then `inet_diag_msg`, or an error. A socket of other ports is none of ours.
fn read(bytes: &[u8], local: u16, remote: u16) -> io::Result<Option<Found>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is too short");
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    let kind = bytes.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    match kind.ok_or_else(short)? {
        SOCK_DIAG_BY_FAMILY if bytes.len() >= ANSWER => {}
        SOCK_DIAG_BY_FAMILY => return Err(short()),
        _ => {
            let errno = word(NETLINK_HEADER).ok_or_else(short)?.cast_signed().wrapping_neg();
            return if errno == libc::ENOENT { Ok(None) } else { Err(io::Error::from_raw_os_error(errno)) };
        }
    }
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let body = NETLINK_HEADER;
    if port(body + 4) != local || ![remote, 0].contains(&port(body + 6)) {
        return Ok(None);
    }
    let (uid, inode) = (word(body + 64).ok_or_else(short)?, word(body + 68).ok_or_else(short)?);
    Ok(Some(Found { state: bytes[body + 1], uid, inode }))
}

fn look_up(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Found>> {
    let mut rows = Vec::new();
    for name in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
            Ok(table) => rows.extend(table.lines().filter_map(read_row).filter(|row| row.local == local)),
            // Without IPv6 there is no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "tcp6" => {}
            Err(error) => return Err(error),
        }
    }
    // What listens is connected to nothing, and has no port there.
    let listener = || rows.iter().find(|row| row.remote.port() == 0);
    let found = rows.iter().find(|row| row.remote == remote).or_else(listener);
    Ok(found.map(|row| row.found))
}

/// A row of `/proc/net/tcp`.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    found: Found,
}

fn read_row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    Some(Row {
        local: read_address(local)?,
        remote: read_address(remote)?,
        found: Found {
            state: u8::from_str_radix(state, 16).ok()?,
            uid: uid.parse().ok()?,
            inode: inode.parse().ok()?,
        },
    })
}

/// `0100007F:1F90`: the words of the address as the machine has them in memory, the port as people write it.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok())
        .map(|word| word.map(u32::to_ne_bytes))
        .collect::<Option<Vec<_>>>()
        .map(|words| words.concat());
    let words = words?;
    let ip = match words.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(words).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)),
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    fn own_uid() -> u32 {
        fs::metadata("/proc/self").unwrap().uid()
    }

    fn both() -> Vec<Diagnosis> {
        netlink().map(Diagnosis::Netlink).into_iter().chain([Diagnosis::Table]).collect()
    }

    #[test]
    fn the_other_end_is_ours_while_we_have_it_open_and_nobody_s_afterwards() {
        for address in ["127.0.0.1:0", "[::1]:0", "127.7.8.9:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = listener.local_addr().unwrap();
            for way in both() {
                let client = TcpStream::connect(at).unwrap();
                let (server, peer) = listener.accept().unwrap();
                assert_eq!(way.owner(peer, at).unwrap(), Some(own_uid()), "{way:?} {address}");
                drop(client);
                assert_eq!(way.owner(peer, at).unwrap(), None, "{way:?} {address}: it is closed");
                drop(server);
                // A listener is nobody's connection, whatever its port.
                assert_eq!(way.owner(at, peer).unwrap(), None, "{way:?} {address}");
            }
            assert!(Diagnosis::open(at).is_ok());
        }
    }

    #[test]
    fn a_socket_of_ipv6_that_calls_ipv4_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", at.port()).parse().unwrap();
        let Ok(_client) = TcpStream::connect(mapped) else { return };
        let (_server, peer) = listener.accept().unwrap();
        for way in both() {
            assert_eq!(way.owner(peer, at).unwrap(), Some(own_uid()), "{way:?}");
        }
    }

    #[test]
    fn rows_of_the_table() {
        let line = "   0: 0100007F:1FAF 0200007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 20 4 30 10 -1";
        let found = Found { state: 1, uid: 1000, inode: 4711 };
        let row = |local: &str, remote: &str| Row {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            found,
        };
        if cfg!(target_endian = "little") {
            assert_eq!(read_row(line), Some(row("127.0.0.1:8111", "127.0.0.2:54321")));
            let six = line.replace("0100007F", "00000000000000000000000001000000");
            let six = six.replace("0200007F", "0000000000000000FFFF00000200007F");
            assert_eq!(read_row(&six), Some(row("[::1]:8111", "127.0.0.2:54321")));
        }
        for wrong in ["", "  sl  local_address rem_address   st", "0: 0100007F 0:1 01 0 0 0 0 0 0"] {
            assert_eq!(read_row(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn answers_that_are_none_of_ours() {
        let mut error = vec![0; 36];
        error[4..6].copy_from_slice(&2u16.to_ne_bytes());
        error[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&error, 1, 2).unwrap(), None);
        error[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&error, 1, 2).unwrap_err().raw_os_error(), Some(libc::EPERM));
        for length in 0..16 {
            assert!(read(&error[..length.min(5)], 1, 2).is_err());
        }
    }
}
