//! Speaks HTTP with a running master: one request a connection, over TCP or a unix socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use proteus_cluster::settings::SETTINGS;
use proteus_cluster::{Api, Builder, Config, ListenAddress};

use super::errand::Words;
use super::{Refusal, cause, usage};

/// Holds the token: a flag would show it to everybody who lists processes.
pub(super) const TOKEN_VARIABLE: &str = "PROTEUS_TOKEN";
/// How long a master on another machine may take to take the call.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take that nothing has to be waited for.
pub(super) const AT_ONCE: Duration = Duration::from_secs(10);
/// Far beyond the status of the largest cluster.
const LONGEST_ANSWER: u64 = 64 << 20;

/// The control API of a running master.
pub(super) struct Master {
    address: ListenAddress,
    token: Option<String>,
}

/// What it answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// Nobody took the call: nothing was ordered.
    Unreachable(String),
    /// It was taken, and broke off.
    Broken(String),
}

impl Master {
    /// Where `--api` says, else where the settings file says, else where a master listens by default.
    pub(super) fn find(words: &Words) -> Result<Self, Refusal> {
        let mut builder = match &words.config {
            Some(path) => Builder::from_file(path).map_err(usage)?,
            None => Config::builder().api(Api::default()),
        };
        if let Some(address) = &words.api {
            let setting = SETTINGS.iter().find(|setting| setting.key == "api.listen").expect("a setting");
            builder = builder.flag(setting, std::slice::from_ref(address)).map_err(usage)?;
        }
        let config = builder.build().map_err(usage)?;
        let named =
            |text: &str| words.config.as_ref().map_or(String::new(), |p| format!("{}: {text}", p.display()));
        let address =
            config.api_address().ok_or_else(|| named("no `api`: its master takes no orders by HTTP"))?;
        let token = match std::env::var(TOKEN_VARIABLE) {
            Ok(token) => Some(token),
            Err(_) => config.api_token().map_err(usage)?,
        };
        if token.as_deref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(format!("{TOKEN_VARIABLE} must be visible ASCII without spaces"));
        }
        let address = reachable(address.clone()).ok_or_else(|| {
            named("`api.port` is 0, and only the running master knows its port: name it with --api ADDRESS")
        })?;
        Ok(Master { address, token })
    }

    /// Whether a token goes with every call.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn get(&self, path: &str, limit: Duration) -> Result<Answer, Silence> {
        self.ask("GET", path, "", limit)
    }

    pub(super) fn post(&self, path: &str, body: &str, limit: Duration) -> Result<Answer, Silence> {
        self.ask("POST", path, body, limit)
    }

    /// `limit` is how long the master may say nothing.
    fn ask(&self, method: &str, path: &str, body: &str, limit: Duration) -> Result<Answer, Silence> {
        let request = self.request(method, path, body);
        match &self.address {
            ListenAddress::Unix(path) => self.ask_unix(UnixStream::connect(path), &request, limit),
            ListenAddress::Abstract(name) => {
                let address = SocketAddr::from_abstract_name(name.as_bytes());
                let stream = address.and_then(|address| UnixStream::connect_addr(&address));
                self.ask_unix(stream, &request, limit)
            }
            ListenAddress::Tcp(at) | ListenAddress::Udp(at) => {
                let stream =
                    TcpStream::connect_timeout(at, CONNECT).map_err(|error| self.unreachable(&error))?;
                let limited =
                    stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(AT_ONCE)));
                self.exchange(limited.map(|()| stream), &request)
            }
            _ => Err(self.unreachable(&io::ErrorKind::Unsupported.into())),
        }
    }

    fn ask_unix(
        &self,
        stream: io::Result<UnixStream>,
        request: &str,
        limit: Duration,
    ) -> Result<Answer, Silence> {
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let limited = stream.set_read_timeout(Some(limit)).and(stream.set_write_timeout(Some(AT_ONCE)));
        self.exchange(limited.map(|()| stream), request)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let host = match &self.address {
            ListenAddress::Tcp(at) => at.to_string(),
            _ => "localhost".into(),
        };
        let token =
            self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}Content-Length: {length}\r\n\r\n{body}"
        )
    }

    fn exchange(&self, stream: io::Result<impl Read + Write>, request: &str) -> Result<Answer, Silence> {
        let mut bytes = Vec::new();
        let spoken = stream.and_then(|mut stream| {
            // A master that refuses early answers before it has read everything.
            let written = stream.write_all(request.as_bytes());
            let read = stream.take(LONGEST_ANSWER).read_to_end(&mut bytes).map(drop);
            if bytes.is_empty() { written.and(read) } else { Ok(()) }
        });
        let broken = |why: &str| Silence::Broken(format!("the master at {self} broke off: {why}"));
        match spoken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(broken("it says nothing")),
            Err(error) => Err(broken(&cause(&error))),
            Ok(()) if bytes.is_empty() => Err(broken("no answer")),
            Ok(()) => read(&bytes).ok_or_else(|| broken("that is no whole HTTP answer")),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Silence {
        Silence::Unreachable(format!(
            "no master at {self}: {}; is it running, and is that its `api`?",
            cause(error)
        ))
    }
}

impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A master that listens everywhere is reached on this machine.
fn reachable(address: ListenAddress) -> Option<ListenAddress> {
    let ListenAddress::Tcp(mut at) = address else { return Some(address) };
    match at.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => at.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    (at.port() != 0).then_some(ListenAddress::Tcp(at))
}

/// An answer whose body has the length that its head tells.
fn read(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.strip_prefix("HTTP/1.")?.split(' ');
    let status = words.nth(1)?.split('\r').next()?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = &bytes[end + 4..];
    let body = body.get(..length.unwrap_or(body.len()))?;
    Some(Answer { status, body: String::from_utf8_lossy(body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let ok = |body: &str| Some(Answer { status: 200, body: body.into() });
        let table = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", ok("OK")),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", ok("until the end")),
            ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", ok("")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", None),
            ("HTTP/1.1 what\r\n\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
            ("", None),
        ];
        for (text, answer) in table {
            assert_eq!(read(text.as_bytes()), answer, "{text:?}");
        }
    }

    #[test]
    fn a_master_that_listens_everywhere_is_called_on_loopback() {
        let table = [
            ("0.0.0.0:80", Some("127.0.0.1:80")),
            ("[::]:80", Some("[::1]:80")),
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("127.0.0.1:0", None),
            ("unix:/x", Some("unix:/x")),
            ("unix:@x", Some("unix:@x")),
        ];
        for (listens, called) in table {
            let address = reachable(listens.parse().unwrap());
            assert_eq!(address.map(|address| address.to_string()).as_deref(), called, "{listens}");
        }
    }
}
