//! Where a listener or the control API listens: parsed from text, printed as the same text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
}

impl ListenAddress {
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(ListenAddress::Unix);
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
            ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Unix(_) => self == other,
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
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
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
    if path.starts_with('@') {
        let reason = format!("{} looks like an abstract socket, and only files are supported", quoted(path));
        return Err(reason.into());
    }
    Ok(PathBuf::from(path))
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
            ("unix:@app", "\"@app\" looks like an abstract socket, and only files are supported".into()),
        ];
        for (text, reason) in table {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert_eq!(error.to_string(), format!("address: {reason}"), "{text}");
            assert!(error.is_setting());
        }
        let long = format!("unix:/{}", "x".repeat(107)).parse::<ListenAddress>().unwrap_err();
        assert_eq!(long.to_string(), "address: the socket path has 108 bytes, more than 107");
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
