//! Where the control API listens, and who may ask.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{self, ListenAddress, port_without_address};
use super::given::{Refusal, quoted};
use super::token_file;
use crate::error::Result;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 8111;
pub(crate) const DEFAULT_WORKER_TIMEOUT: Duration = Duration::from_secs(5);
/// Nobody may hold one of the API's few places for callers who wait for longer.
pub(crate) const LONGEST_WORKER_TIMEOUT: Duration = Duration::from_secs(60);

/// The control API: an HTTP server of the master's that takes orders and answers questions.
///
/// There is none unless it is asked for. `Api::default()` listens on `127.0.0.1:8111`.
#[derive(Clone, Default)]
#[must_use]
pub struct Api {
    pub(super) listen: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) token: Option<String>,
    pub(super) worker_timeout: Option<Duration>,
    pub(super) hosts: Vec<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) any_user: bool,
    pub(super) probes: Option<String>,
}

/// The control API after its checks.
#[derive(Clone)]
pub(crate) struct ApiConfig {
    /// `Tcp` or `Unix`, never `Udp`.
    pub(crate) listen: ListenAddress,
    token: Option<Token>,
    /// On loopback, whether every user of this machine gives orders.
    pub(crate) any_user: bool,
    pub(crate) probes: Option<SocketAddr>,
    /// How long `/sync_send` waits for replies.
    pub(crate) worker_timeout: Duration,
    /// In small letters.
    pub(crate) hosts: Vec<String>,
}

/// The token, or where it stands.
#[derive(Clone, PartialEq, Eq)]
enum Token {
    Is(String),
    In(PathBuf),
}

impl Api {
    /// The control API at `address`: `127.0.0.1:8111`, `[::1]:8111`, a host alone (`0.0.0.0`, `localhost`, `::1`;
    /// the port is then 8111), `unix:/path` or `unix:@name`.
    ///
    /// An address that other machines can reach should have a [`token`](Api::token).
    pub fn new(address: impl AsRef<str>) -> Self {
        Api { listen: Some(address.as_ref().into()), ..Api::default() }
    }

    /// Asks for `Authorization: Bearer TOKEN` on every request; by default nothing is asked.
    ///
    /// Visible ASCII without spaces, since a header must carry it. It is never printed.
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Some(token.as_ref().into());
        self
    }

    /// The same, where the token stands in a file: read at the start, its newline left out.
    ///
    /// A file that every user of the machine can read is warned of.
    pub fn token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.token_file = Some(path.as_ref().into());
        self
    }

    /// Whether every user of this machine may give orders to an API on loopback that has no token; by default root
    /// and the user of the master alone may.
    ///
    /// The kernel says whose a connection is. Where it cannot be asked, a warning says so, and everybody may.
    pub fn any_user(mut self, on: bool) -> Self {
        self.any_user = on;
        self
    }

    /// Another address for `/health` and `/ready`, which asks for no token, and where nothing else is to be had:
    /// for the probes of other machines, as `0.0.0.0:8112`. None by default.
    pub fn probes(mut self, address: impl AsRef<str>) -> Self {
        self.probes = Some(address.as_ref().into());
        self
    }

    /// How long `/sync_send` waits for the workers' replies, unless the message says otherwise; 5 s by default, 60 s
    /// at most.
    pub fn worker_timeout(mut self, timeout: Duration) -> Self {
        self.worker_timeout = Some(timeout);
        self
    }

    /// Adds a name by which callers may know this machine; `localhost`, IP addresses and the machine's own name
    /// are known already.
    ///
    /// A request over TCP whose `Host` is any other name is refused, since a web page can make a name of its own
    /// lead here.
    pub fn host(mut self, name: impl AsRef<str>) -> Self {
        self.hosts.push(name.as_ref().into());
        self
    }

    pub(super) fn checked(&self) -> Result<ApiConfig> {
        let listen = self.address().map_err(|refusal| refusal.of_setting("api.listen"))?;
        let token = self.given_token()?;
        let probes = self.probes.as_deref().map(probes_address).transpose();
        let probes = probes.map_err(|refusal| refusal.of_setting("api.probes"))?;
        let worker_timeout = self.worker_timeout.unwrap_or(DEFAULT_WORKER_TIMEOUT);
        check_worker_timeout(worker_timeout).map_err(|refusal| refusal.of_setting("api.workerTimeout"))?;
        let checked = |name: &String| check_host(name).map(|()| name.to_ascii_lowercase());
        let hosts = self.hosts.iter().map(checked).collect::<Result<_, _>>();
        let hosts = hosts.map_err(|refusal: Refusal| refusal.of_setting("api.hosts"))?;
        Ok(ApiConfig { listen, token, any_user: self.any_user, probes, worker_timeout, hosts })
    }

    fn given_token(&self) -> Result<Option<Token>> {
        match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => Err(Refusal::from("`api.token` is set as well, and one of them must go")
                .of_setting("api.tokenFile")),
            (Some(token), None) => {
                check_token(token).map_err(|refusal| refusal.of_setting("api.token"))?;
                Ok(Some(Token::Is(token.clone())))
            }
            (None, Some(path)) => Ok(Some(Token::In(path.clone()))),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn address(&self) -> Result<ListenAddress, Refusal> {
        let text = self.listen.as_deref().unwrap_or(DEFAULT_HOST);
        if text.parse::<u16>().is_ok() {
            return Err(port_without_address(text));
        }
        if let Some(host) = address::host(text) {
            return Ok(ListenAddress::Tcp(SocketAddr::new(host, self.port.unwrap_or(DEFAULT_PORT))));
        }
        let address = ListenAddress::read(text)?;
        match (&address, self.port) {
            (ListenAddress::Udp(_), _) => {
                Err(format!("{} is udp, and the API speaks HTTP", quoted(text)).into())
            }
            (ListenAddress::Unix(_) | ListenAddress::Abstract(_), Some(port)) => {
                Err(format!("{} has no port, but `api.port` is {port}", quoted(text)).into())
            }
            (ListenAddress::Tcp(_), Some(port)) => {
                Err(format!("{} names a port, and `api.port` ({port}) does as well", quoted(text)).into())
            }
            (ListenAddress::Tcp(_) | ListenAddress::Unix(_) | ListenAddress::Abstract(_), None) => {
                Ok(address)
            }
        }
    }
}

impl ApiConfig {
    /// Whether callers need a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The token that callers need.
    pub(crate) fn read_token(&self) -> Result<Option<String>> {
        match &self.token {
            None => Ok(None),
            Some(Token::Is(token)) => Ok(Some(token.clone())),
            Some(Token::In(path)) => token_file::read(path).map(Some),
        }
    }

    /// What whoever runs this should know of the API at `address`.
    pub(crate) fn warning(&self, address: &ListenAddress) -> Option<String> {
        let ListenAddress::Tcp(at) = address else { return None };
        let open = self.token.is_none() && !at.ip().to_canonical().is_loopback();
        open.then(|| {
            format!(
                "the control API at {at} has no token: whoever reaches that address can restart and stop this service"
            )
        })
    }
}

/// Over TCP only: what probes is another machine.
fn probes_address(text: &str) -> Result<SocketAddr, Refusal> {
    match ListenAddress::read(text)? {
        ListenAddress::Tcp(at) => Ok(at),
        ListenAddress::Udp(_) | ListenAddress::Unix(_) | ListenAddress::Abstract(_) => {
            Err(format!("{} is not a TCP address such as \"0.0.0.0:8112\"", quoted(text)).into())
        }
    }
}

fn check_worker_timeout(timeout: Duration) -> Result<(), Refusal> {
    if timeout.is_zero() || timeout > LONGEST_WORKER_TIMEOUT {
        let most = LONGEST_WORKER_TIMEOUT.as_millis();
        return Err(format!("{} is out of range (1 to {most})", timeout.as_millis()).into());
    }
    Ok(())
}

/// The token itself stays out of the refusal.
pub(super) fn check_token(token: &str) -> Result<(), Refusal> {
    match token {
        "" => Err("must not be empty".into()),
        _ if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(()),
        _ => Err("must be visible ASCII without spaces".into()),
    }
}

fn check_host(name: &str) -> Result<(), Refusal> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("{} is not a host name (without a port)", quoted(name)).into())
}

/// Says that there is a token, and not which.
struct Hidden<'a, T>(&'a Option<T>);

impl<T> fmt::Debug for Hidden<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut api = f.debug_struct("Api");
        api.field("listen", &self.listen)
            .field("port", &self.port)
            .field("token", &Hidden(&self.token))
            .field("worker_timeout", &self.worker_timeout)
            .field("hosts", &self.hosts)
            .field("token_file", &self.token_file)
            .field("any_user", &self.any_user)
            .field("probes", &self.probes)
            .finish()
    }
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut api = f.debug_struct("ApiConfig");
        api.field("listen", &self.listen)
            .field("token", &Hidden(&self.token))
            .field("any_user", &self.any_user)
            .field("probes", &self.probes)
            .field("worker_timeout", &self.worker_timeout)
            .field("hosts", &self.hosts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::refused;

    #[test]
    fn the_api_in_every_spelling() {
        let table = [
            ("{}", "127.0.0.1:8111"),
            (r#"{"port": 0}"#, "127.0.0.1:0"),
            (r#"{"listen": "0.0.0.0", "port": 9000}"#, "0.0.0.0:9000"),
            (r#"{"listen": "localhost"}"#, "127.0.0.1:8111"),
            (r#"{"listen": "*"}"#, "0.0.0.0:8111"),
            (r#"{"listen": "::1"}"#, "[::1]:8111"),
            (r#"{"listen": "[::1]", "port": 1}"#, "[::1]:1"),
            (r#"{"listen": "127.0.0.1:80"}"#, "127.0.0.1:80"),
            (r#"{"listen": "unix:/x"}"#, "unix:/x"),
            (r#"{"listen": "unix:@x"}"#, "unix:@x"),
        ];
        for (api, address) in table {
            let config = Config::from_json(&format!("{{\"api\": {api}}}")).unwrap();
            assert_eq!(config.api.unwrap().listen.to_string(), address, "{api}");
        }
        for address in ["127.0.0.1:8111", "127.0.0.1", "localhost"] {
            let config = Config::builder().api(Api::new(address).token("t")).build().unwrap();
            let api = config.api.unwrap();
            assert_eq!(
                (api.listen.to_string(), api.read_token().unwrap()),
                ("127.0.0.1:8111".to_owned(), Some("t".to_owned()))
            );
        }
        let config = Config::from_json(r#"{"api": {"hosts": ["Box", "box.example.org"]}}"#).unwrap();
        assert_eq!(config.api.unwrap().hosts, ["box", "box.example.org"]);
        let config = Config::builder().api(Api::default().host("BOX")).build().unwrap();
        assert_eq!(config.api.unwrap().hosts, ["box"]);
        let config = Config::builder().api(Api::default()).build().unwrap();
        assert_eq!(config.api.unwrap().listen.to_string(), "127.0.0.1:8111");
    }

    #[test]
    fn wrong_apis_are_refused_and_tokens_never_shown() {
        let table = [
            (
                r#"{"listen": "127.0.0.1:80", "port": 81}"#,
                "setting `api.listen`: \"127.0.0.1:80\" names a port, and `api.port` (81) does as well",
            ),
            (
                r#"{"listen": "unix:/x", "port": 81}"#,
                "setting `api.listen`: \"unix:/x\" has no port, but `api.port` is 81",
            ),
            (r#"{"listen": "udp:*:1"}"#, "setting `api.listen`: \"udp:*:1\" is udp, and the API speaks HTTP"),
            (
                r#"{"listen": "8111"}"#,
                "setting `api.listen`: 8111 is a port without an address: write \"127.0.0.1:8111\", or \"0.0.0.0:8111\" for all interfaces",
            ),
            (r#"{"listen": 8111}"#, "setting `api.listen`: 8111 is not a string"),
            (r#"{"port": 65536}"#, "setting `api.port`: 65536 is out of range (0 to 65535)"),
            (r#"{"port": "8111"}"#, "setting `api.port`: \"8111\" is not a whole number"),
            (r#"{"workerTimeout": 0}"#, "setting `api.workerTimeout`: 0 is out of range (1 to 60000)"),
            (
                r#"{"workerTimeout": 60001}"#,
                "setting `api.workerTimeout`: 60001 is out of range (1 to 60000)",
            ),
            (
                r#"{"workerTimeout": "5s"}"#,
                "setting `api.workerTimeout`: \"5s\" is not a whole number of milliseconds",
            ),
            (r#"{"token": ""}"#, "setting `api.token`: must be a string that is not empty"),
            (r#"{"token": 4711}"#, "setting `api.token`: must be a string that is not empty"),
            (
                r#"{"token": "t", "tokenFile": "/t"}"#,
                "setting `api.tokenFile`: `api.token` is set as well, and one of them must go",
            ),
            (r#"{"tokenFile": ""}"#, "setting `api.tokenFile`: must not be empty"),
            (r#"{"anyUser": 1}"#, "setting `api.anyUser`: 1 is not true or false"),
            (
                r#"{"probes": "unix:/x"}"#,
                "setting `api.probes`: \"unix:/x\" is not a TCP address such as \"0.0.0.0:8112\"",
            ),
            (r#"{"probes": "0.0.0.0"}"#, "setting `api.probes`: \"0.0.0.0\" has no port"),
            (r#"{"hosts": "box"}"#, "setting `api.hosts`: \"box\" is not an array of strings"),
            (
                r#"{"hosts": ["box", "box:8111"]}"#,
                "setting `api.hosts`: \"box:8111\" is not a host name (without a port)",
            ),
            (r#"{"token": "a secret"}"#, "setting `api.token`: must be visible ASCII without spaces"),
        ];
        for (api, line) in table {
            assert_eq!(refused(&format!("{{\"api\": {api}}}")), line, "{api}");
        }
        let builder = Config::builder().api(Api::new("127.0.0.1").token("hush"));
        assert!(!format!("{builder:?}{:?}", builder.clone().build()).contains("hush"));
    }
}
