//! Where the control API listens, and who may ask.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::address::{self, ListenAddress, port_without_address};
use super::given::{Refusal, quoted};
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
}

/// The control API after its checks.
#[derive(Clone)]
pub(crate) struct ApiConfig {
    /// `Tcp` or `Unix`, never `Udp`.
    pub(crate) listen: ListenAddress,
    pub(crate) token: Option<String>,
    /// How long `/sync_send` waits for replies.
    pub(crate) worker_timeout: Duration,
    /// In small letters.
    pub(crate) hosts: Vec<String>,
}

impl Api {
    /// The control API at `address`: `127.0.0.1:8111`, `[::1]:8111`, a host alone (`0.0.0.0`, `localhost`, `::1`;
    /// the port is then 8111), or `unix:/path`.
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
        if let Some(token) = &self.token {
            check_token(token).map_err(|refusal| refusal.of_setting("api.token"))?;
        }
        let worker_timeout = self.worker_timeout.unwrap_or(DEFAULT_WORKER_TIMEOUT);
        check_worker_timeout(worker_timeout).map_err(|refusal| refusal.of_setting("api.workerTimeout"))?;
        let checked = |name: &String| check_host(name).map(|()| name.to_ascii_lowercase());
        let hosts = self.hosts.iter().map(checked).collect::<Result<_, _>>();
        let hosts = hosts.map_err(|refusal: Refusal| refusal.of_setting("api.hosts"))?;
        Ok(ApiConfig { listen, token: self.token.clone(), worker_timeout, hosts })
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
            (ListenAddress::Unix(_), Some(port)) => {
                Err(format!("{} has no port, but `api.port` is {port}", quoted(text)).into())
            }
            (ListenAddress::Tcp(_), Some(port)) => {
                Err(format!("{} names a port, and `api.port` ({port}) does as well", quoted(text)).into())
            }
            (ListenAddress::Tcp(_) | ListenAddress::Unix(_), None) => Ok(address),
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
fn check_token(token: &str) -> Result<(), Refusal> {
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
struct Hidden<'a>(&'a Option<String>);

impl fmt::Debug for Hidden<'_> {
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
            .finish()
    }
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut api = f.debug_struct("ApiConfig");
        api.field("listen", &self.listen)
            .field("token", &Hidden(&self.token))
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
        ];
        for (api, address) in table {
            let config = Config::from_json(&format!("{{\"api\": {api}}}")).unwrap();
            assert_eq!(config.api.unwrap().listen.to_string(), address, "{api}");
        }
        for address in ["127.0.0.1:8111", "127.0.0.1", "localhost"] {
            let config = Config::builder().api(Api::new(address).token("t")).build().unwrap();
            let api = config.api.unwrap();
            assert_eq!(
                (api.listen.to_string().as_str(), api.token.as_deref()),
                ("127.0.0.1:8111", Some("t"))
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
