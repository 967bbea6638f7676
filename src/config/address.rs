//! Where a listener or the control API listens: parsed from text, printed as the same text.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::given::{Refusal, quoted};
use crate::error::{Error, Result};

/// `sun_path` holds 108 bytes on Linux with its final NUL; this is what is left for the path.
pub(crate) const UNIX_PATH_BYTES: usize = 107;

/// An address to listen on.
///
/// Its text is what the settings take, and `Display` prints it back:
///
/// | text | meaning |
/// |---|---|
/// | `127.0.0.1:8080`, `[::]:80` | TCP; `localhost:80` is `127.0.0.1:80` and `*:80` is `0.0.0.0:80` |
/// | `udp:127.0.0.1:53` | UDP, with the same spellings after the prefix |
/// | `unix:/run/app.sock` | a unix stream socket, at most 107 bytes of path |
/// | `unix:@app` | a unix stream socket by an abstract name, which has no file; a file called `@app` is `unix:./@app` |
///
/// Host names other than `localhost` are refused: the master never waits for a name to resolve.
///
/// ```
/// use proteus_cluster::ListenAddress;
///
/// let address: ListenAddress = "localhost:8080".parse()?;
/// assert_eq!(address.to_string(), "127.0.0.1:8080");
/// # Ok::<(), proteus_cluster::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A UDP address; port 0 lets the system choose.
    Udp(SocketAddr),
    /// The path of a unix stream socket; a relative one counts from the master's working directory.
    Unix(PathBuf),
    /// The abstract name of a unix stream socket, without the NUL before it: at most 107 bytes. It has no file and no
    /// mode: whoever shares the network namespace may connect.
    Abstract(OsString),
}

/// TCP, UDP, or unix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Tcp,
    Udp,
    Unix,
}

impl ListenAddress {
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.strip_prefix('@') {
                Some(name) => abstract_name(name).map(ListenAddress::Abstract),
                None => unix(path).map(ListenAddress::Unix),
            };
        }
        if let Some(rest) = text.strip_prefix("udp:") {
            return socket(rest).map(ListenAddress::Udp);
        }
        socket(text.strip_prefix("tcp:").unwrap_or(text)).map(ListenAddress::Tcp)
    }

    /// Whether a second bind of the same address is sure to fail; port 0 is a new port each time.
    pub(super) fn clashes_with(&self, other: &Self) -> bool {
        match self {
            ListenAddress::Tcp(a) | ListenAddress::Udp(a) if a.port() == 0 => false,
            _ => self == other,
        }
    }

    pub(crate) fn is_ipv4_wildcard(&self) -> bool {
        matches!(self, ListenAddress::Tcp(at) | ListenAddress::Udp(at) if at.ip() == Ipv4Addr::UNSPECIFIED)
    }

    /// What a socket of this address is like to whoever uses it.
    pub(crate) fn kind(&self) -> SocketKind {
        match self {
            ListenAddress::Tcp(_) => SocketKind::Tcp,
            ListenAddress::Udp(_) => SocketKind::Udp,
            ListenAddress::Unix(_) | ListenAddress::Abstract(_) => SocketKind::Unix,
        }
    }

    /// Whether the other is bound to the same port of IPv4, which an IPv6 socket for all addresses would take as well.
    pub(crate) fn shares_port_with_ipv4(&self, other: &Self) -> bool {
        match (self, other) {
            (ListenAddress::Tcp(a), ListenAddress::Tcp(b))
            | (ListenAddress::Udp(a), ListenAddress::Udp(b)) => {
                a.ip() == Ipv6Addr::UNSPECIFIED && b.is_ipv4() && a.port() == b.port() && a.port() != 0
            }
            _ => false,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        ListenAddress::read(text).map_err(|refusal| Error::setting(format!("address: {}", refusal.reason())))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Udp(address) => write!(f, "udp:{address}"),
            ListenAddress::Unix(path) if path.as_os_str().as_bytes().first() == Some(&b'@') => {
                write!(f, "unix:./{}", path.display())
            }
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Abstract(name) => write!(f, "unix:@{}", name.display()),
        }
    }
}

/// An IP address, or one of the two names that stand for one; brackets around IPv6 are optional here.
pub(super) fn host(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        _ => text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text).parse().ok(),
    }
}

fn socket(text: &str) -> Result<SocketAddr, Refusal> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.is_empty() {
        return Err("the address is empty".into());
    }
    if let Some(port) = bare_port(text) {
        return Err(port_without_address(port));
    }
    let named = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    match named {
        Some((name @ ("localhost" | "*"), port)) => Ok(SocketAddr::new(host(name).expect("a name above"), port)),
        Some((name, _)) if is_host_name(name) => {
            Err(format!("{} is a host name, and names are not looked up: give an IP address", quoted(name)).into())
        }
        _ if host(text).is_some() => Err(format!("{} has no port", quoted(text)).into()),
        _ => Err(format!(
            "{} is not an address such as \"127.0.0.1:8080\", \"[::]:80\", \"udp:127.0.0.1:53\" or \"unix:/run/app.sock\"",
            quoted(text)
        )
        .into()),
    }
}

/// `8080` and `:8080`, which other systems take for every interface.
fn bare_port(text: &str) -> Option<u16> {
    text.strip_prefix(':').unwrap_or(text).parse().ok()
}

/// Chosen to be refused: whether every interface or the loopback was meant must be said.
pub(super) fn port_without_address(port: impl fmt::Display) -> Refusal {
    format!("{port} is a port without an address: write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all interfaces")
        .into()
}

fn is_host_name(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

fn unix(path: &str) -> Result<PathBuf, Refusal> {
    if path.is_empty() {
        return Err("the path after \"unix:\" is empty".into());
    }
    if path.len() > UNIX_PATH_BYTES {
        let reason = format!("the socket path has {} bytes, more than {UNIX_PATH_BYTES}", path.len());
        return Err(reason.into());
    }
    if path.contains('\0') {
        return Err(format!("{} holds a NUL byte", quoted(path)).into());
    }
    Ok(PathBuf::from(path))
}

fn abstract_name(name: &str) -> Result<OsString, Refusal> {
    if name.is_empty() {
        return Err("the name after \"unix:@\" is empty".into());
    }
    if name.len() > UNIX_PATH_BYTES {
        let reason = format!("the socket name has {} bytes, more than {UNIX_PATH_BYTES}", name.len());
        return Err(reason.into());
    }
    if name.contains('\0') {
        return Err(format!("{} holds a NUL byte", quoted(name)).into());
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_round_trip() {
        let table = [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::]:80"),
            ("tcp:[::1]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("*:80", "0.0.0.0:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("udp:127.0.0.1:53", "udp:127.0.0.1:53"),
            ("udp:*:53", "udp:0.0.0.0:53"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:app.sock", "unix:app.sock"),
            ("unix:@app", "unix:@app"),
            ("unix:@@/x", "unix:@@/x"),
            ("unix:./@app", "unix:./@app"),
        ];
        for (text, printed) in table {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), printed, "{text}");
            assert_eq!(printed.parse::<ListenAddress>().unwrap(), address, "{text}");
        }
        assert!(format!("unix:/{}", "x".repeat(106)).parse::<ListenAddress>().is_ok());
    }

    #[test]
    fn bad_addresses_say_why() {
        const FORMS: &str = "\"127.0.0.1:8080\", \"[::]:80\", \"udp:127.0.0.1:53\" or \"unix:/run/app.sock\"";
        let table = [
            ("", "the address is empty".to_string()),
            ("udp:", "the address is empty".into()),
            (
                "8080",
                "8080 is a port without an address: write \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for all interfaces"
                    .into(),
            ),
            (
                ":80",
                "80 is a port without an address: write \"127.0.0.1:80\", or \"0.0.0.0:80\" for all interfaces"
                    .into(),
            ),
            (
                "example.com:80",
                "\"example.com\" is a host name, and names are not looked up: give an IP address".into(),
            ),
            ("127.0.0.1", "\"127.0.0.1\" has no port".into()),
            ("[::1]", "\"[::1]\" has no port".into()),
            ("localhost", "\"localhost\" has no port".into()),
            ("127.0.0.1:70000", format!("\"127.0.0.1:70000\" is not an address such as {FORMS}")),
            ("localhost:70000", format!("\"localhost:70000\" is not an address such as {FORMS}")),
            ("http://x/\n", format!("\"http://x/\\n\" is not an address such as {FORMS}")),
            ("unix:", "the path after \"unix:\" is empty".into()),
            ("unix:a\0b", "\"a\\0b\" holds a NUL byte".into()),
            ("unix:@", "the name after \"unix:@\" is empty".into()),
            ("unix:@a\0b", "\"a\\0b\" holds a NUL byte".into()),
        ];
        for (text, reason) in table {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert_eq!(error.to_string(), format!("address: {reason}"), "{text}");
            assert!(error.is_setting());
        }
        let long = format!("unix:/{}", "x".repeat(107)).parse::<ListenAddress>().unwrap_err();
        assert_eq!(long.to_string(), "address: the socket path has 108 bytes, more than 107");
        let long = format!("unix:@{}", "x".repeat(108)).parse::<ListenAddress>().unwrap_err();
        assert_eq!(long.to_string(), "address: the socket name has 108 bytes, more than 107");
        assert!(format!("unix:@{}", "x".repeat(107)).parse::<ListenAddress>().is_ok());
    }

    #[test]
    fn ipv6_for_all_takes_the_port_of_ipv4_too() {
        let takes = |a: &str, b: &str| {
            a.parse::<ListenAddress>().unwrap().shares_port_with_ipv4(&b.parse::<ListenAddress>().unwrap())
        };
        assert!(takes("[::]:80", "0.0.0.0:80") && takes("[::]:80", "127.0.0.1:80"));
        assert!(takes("udp:[::]:53", "udp:0.0.0.0:53"));
        assert!(!takes("[::1]:80", "0.0.0.0:80") && !takes("[::]:80", "[::1]:80"));
        assert!(!takes("0.0.0.0:80", "[::]:80") && !takes("[::]:80", "0.0.0.0:81"));
        assert!(!takes("[::]:0", "0.0.0.0:0") && !takes("[::]:80", "udp:0.0.0.0:80"));
    }

    #[test]
    fn only_a_fixed_port_clashes() {
        let clash = |a: &str, b: &str| {
            a.parse::<ListenAddress>().unwrap().clashes_with(&b.parse::<ListenAddress>().unwrap())
        };
        assert!(clash("127.0.0.1:80", "localhost:80"));
        assert!(clash("unix:/a", "unix:/a"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clash("127.0.0.1:80", "udp:127.0.0.1:80"));
    }
}
