//! A listener that the master owns: as typed, and as checked.

use serde_json::Value;

use super::address::{ListenAddress, port_without_address};
use super::given::{Given, Refusal, backticked, quoted};
use super::nearest::nearest;

const DEFAULT_BACKLOG: u32 = 1024;
const KEYS: [&str; 7] = ["name", "address", "backlog", "reusePort", "mode", "user", "group"];

/// A listening socket that the master binds and every worker shares, with its options.
///
/// [`Builder::listen`](crate::Builder::listen) is enough when there are none.
/// What is wrong with one is said by [`Builder::build`](crate::Builder::build).
///
/// ```
/// use proteus_cluster::{Config, Listener};
///
/// let config = Config::builder()
///     .listener(Listener::new("http", "127.0.0.1:8080").backlog(64).reuse_port(true))
///     .listener(Listener::new("admin", "unix:/run/app.sock").mode(0o660).group("www-data"))
///     .build()?;
/// # Ok::<(), proteus_cluster::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Listener {
    name: Option<String>,
    address: String,
    backlog: u32,
    reuse_port: bool,
    mode: Option<u32>,
    user: Option<String>,
    group: Option<String>,
}

/// A listener after every check but that of its neighbours.
#[derive(Clone, Debug)]
pub(crate) struct ListenerConfig {
    /// Unique; what workers ask for, and what `LISTEN_FDNAMES` says.
    pub(crate) name: String,
    pub(crate) address: ListenAddress,
    pub(crate) backlog: u32,
    pub(crate) reuse_port: bool,
    /// A neighbour has the port of IPv4.
    pub(crate) only_ipv6: bool,
    /// Permission bits of a unix socket's file.
    pub(crate) mode: Option<u32>,
    /// Whose that file is, by name or number.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
}

impl Listener {
    /// A listener called `name` at `address`, which is written as a [`ListenAddress`] is.
    ///
    /// The name follows systemd's rule for descriptor names: 1 to 255 printable ASCII characters, no colon.
    pub fn new(name: impl AsRef<str>, address: impl AsRef<str>) -> Self {
        Listener { name: Some(name.as_ref().into()), ..Listener::unnamed(address.as_ref()) }
    }

    /// It will be named by its position: `listen0`, `listen1`…
    pub(super) fn unnamed(address: &str) -> Self {
        Listener {
            name: None,
            address: address.into(),
            backlog: DEFAULT_BACKLOG,
            reuse_port: false,
            mode: None,
            user: None,
            group: None,
        }
    }

    /// How many connections may wait to be accepted: at least 1, by default 1024. The system may allow fewer. UDP has none.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// A `SO_REUSEPORT` socket for each slot instead of one for all: the kernel spreads connections over them, and
    /// a worker's successor inherits its socket with the queue. TCP and UDP only; off by default.
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// The permission bits of a unix socket's file, such as `0o660`. By default the umask decides.
    pub fn mode(mut self, bits: u32) -> Self {
        self.mode = Some(bits);
        self
    }

    /// Whose the file of a unix socket is, by name or number, which takes a privileged master. By default the
    /// master's. Without [`group`](Listener::group) it is of the user's own group.
    pub fn user(mut self, name: impl AsRef<str>) -> Self {
        self.user = Some(name.as_ref().into());
        self
    }

    /// The group of a unix socket's file, by name or number: any for a privileged master, else one of the master's
    /// own groups. By default the master's, or that of the folder where it has the setgid bit.
    pub fn group(mut self, name: impl AsRef<str>) -> Self {
        self.group = Some(name.as_ref().into());
        self
    }

    /// A command line's `[NAME=]ADDRESS`. A name holds no colon, so `unix:/run/a=b.sock` is an address.
    pub(super) fn from_flag(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, address)) if !name.contains(':') => Listener::new(name, address),
            _ => Listener::unnamed(text),
        }
    }

    /// An address, or an object with an address and options.
    pub(super) fn from_json(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::String(address) => Ok(Listener::unnamed(address)),
            Value::Number(port) => Err(port_without_address(port)),
            Value::Object(object) => {
                let mut listener = Listener::unnamed("");
                for (key, value) in object {
                    listener.set(key, &Given::Json(value))?;
                }
                if object.contains_key("address") { Ok(listener) } else { Err("`address` is missing".into()) }
            }
            Value::Null | Value::Bool(_) | Value::Array(_) => {
                Err(Given::Json(value).is_not("an address or an object with an `address`"))
            }
        }
    }

    fn set(&mut self, key: &str, given: &Given) -> Result<(), Refusal> {
        match key {
            "name" => given.text().map(|name| self.name = Some(name.into())),
            "address" => address_text(given).map(|address| self.address = address),
            "backlog" => given.count(&BACKLOGS).map(|connections| self.backlog = connections),
            "reusePort" => given.yes_or_no().map(|on| self.reuse_port = on),
            "mode" => octal(given).map(|bits| self.mode = Some(bits)),
            "user" => given.text().map(|name| self.user = Some(name.into())),
            "group" => given.text().map(|name| self.group = Some(name.into())),
            _ => return Err(unknown_key(key, given)),
        }
        .map_err(|refusal| refusal.under(format!(".{key}")))
    }

    /// Everything that can be said about one listener by itself.
    pub(super) fn checked(self, position: usize) -> Result<ListenerConfig, Refusal> {
        let Listener { name, address, backlog, reuse_port, mode, user, group } = self;
        let name = name.unwrap_or_else(|| format!("listen{position}"));
        check_name(&name)?;
        let address = ListenAddress::read(&address)?;
        let is_ip = matches!(address, ListenAddress::Tcp(_) | ListenAddress::Udp(_));
        if !BACKLOGS.contains(&backlog) {
            return Err(format!("a backlog of {backlog} is out of range (1 to {})", BACKLOGS.end()).into());
        }
        if reuse_port && !is_ip {
            return Err(format!("`reusePort` is for tcp and udp addresses, not {address}").into());
        }
        let of_file = [("mode", mode.is_some()), ("user", user.is_some()), ("group", group.is_some())];
        if let (Some((key, _)), false) =
            (of_file.iter().find(|(_, given)| *given), matches!(address, ListenAddress::Unix(_)))
        {
            let files = if is_ip { "unix sockets" } else { "unix sockets with a file" };
            return Err(format!("`{key}` is for {files}, not {address}").into());
        }
        for (key, name) in [("user", &user), ("group", &group)] {
            if name.as_deref() == Some("") {
                return Err(format!("the {key} is empty").into());
            }
        }
        if let Some(bits) = mode.filter(|bits| *bits > 0o777) {
            return Err(format!("the mode {bits:#o} is out of range (0 to 0o777)").into());
        }
        Ok(ListenerConfig { name, address, backlog, reuse_port, only_ipv6: false, mode, user, group })
    }
}

/// What listen(2) takes, and not 0, with which connections are lost under load.
const BACKLOGS: std::ops::RangeInclusive<u32> = 1..=i32::MAX.unsigned_abs();

fn address_text(given: &Given) -> Result<String, Refusal> {
    if let Given::Json(Value::Number(port)) = given {
        return Err(port_without_address(port));
    }
    given.text().map(String::from)
}

/// The rule of systemd's `LISTEN_FDNAMES`, which separates names with colons.
fn check_name(name: &str) -> Result<(), Refusal> {
    let bad = name.chars().find(|c| *c == ':' || !(' '..='~').contains(c));
    match bad {
        _ if name.is_empty() => Err("the name is empty".into()),
        _ if name.len() > 255 => Err(format!("the name has {} bytes, more than 255", name.len()).into()),
        Some(letter) => Err(format!(
            "the name {} holds {letter:?}: printable ASCII without a colon, please",
            quoted(name)
        )
        .into()),
        None => Ok(()),
    }
}

fn octal(given: &Given) -> Result<u32, Refusal> {
    let text = match given {
        Given::Json(Value::Number(number)) => {
            return Err(
                format!("{number} is a number: write octal digits as a string, such as \"0660\"").into()
            );
        }
        _ => given.text()?,
    };
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777 && !text.starts_with('+'));
    bits.ok_or_else(|| given.is_not("an octal mode such as \"0660\", at most \"0777\""))
}

fn unknown_key(key: &str, given: &Given) -> Refusal {
    let hint = nearest(key, KEYS).map_or(String::new(), |meant| format!(": did you mean `{meant}`?"));
    format!("unknown key {} ({}){hint}", backticked(key), given.shown()).into()
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::tests::refused;

    #[test]
    fn wrong_listeners_are_refused() {
        let port =
            "is a port without an address: write \"127.0.0.1:80\", or \"0.0.0.0:80\" for all interfaces";
        let table = [
            (r#"{"listen": 80}"#, format!("setting `listen`: 80 {port}")),
            (r#"{"listen": ["80"]}"#, format!("setting `listen[0]`: 80 {port}")),
            (r#"{"listen": {"address": 80}}"#, format!("setting `listen.address`: 80 {port}")),
            (
                r#"{"listen": true}"#,
                "setting `listen`: true is not an address or an object with an `address`".into(),
            ),
            (r#"{"listen": {"name": "a"}}"#, "setting `listen`: `address` is missing".into()),
            (r#"{"listen": {"name": 1}}"#, "setting `listen.name`: 1 is not a string".into()),
            (
                r#"{"listen": ["*:1", {"address": "*:2", "name": "a:b"}]}"#,
                "setting `listen[1]`: the name \"a:b\" holds ':': printable ASCII without a colon, please"
                    .into(),
            ),
            (
                r#"{"listen": {"address": "*:2", "backlog": 0}}"#,
                "setting `listen.backlog`: 0 is out of range (1 to 2147483647)".into(),
            ),
            (
                r#"{"listen": {"address": "*:2", "reusePort": 1}}"#,
                "setting `listen.reusePort`: 1 is not true or false".into(),
            ),
            (
                r#"{"listen": {"address": "unix:/s", "reusePort": true}}"#,
                "setting `listen`: `reusePort` is for tcp and udp addresses, not unix:/s".into(),
            ),
            (
                r#"{"listen": {"address": "*:2", "mode": "0660"}}"#,
                "setting `listen`: `mode` is for unix sockets, not 0.0.0.0:2".into(),
            ),
            (
                r#"{"listen": {"address": "unix:@s", "mode": "0660"}}"#,
                "setting `listen`: `mode` is for unix sockets with a file, not unix:@s".into(),
            ),
            (
                r#"{"listen": {"address": "*:2", "user": "root"}}"#,
                "setting `listen`: `user` is for unix sockets, not 0.0.0.0:2".into(),
            ),
            (
                r#"{"listen": {"address": "unix:@s", "group": "root"}}"#,
                "setting `listen`: `group` is for unix sockets with a file, not unix:@s".into(),
            ),
            (
                r#"{"listen": {"address": "unix:/s", "user": ""}}"#,
                "setting `listen.user`: must not be empty".into(),
            ),
            (
                r#"{"listen": {"address": "unix:/s", "user": 1}}"#,
                "setting `listen.user`: 1 is not a string".into(),
            ),
            (
                r#"{"listen": {"address": "unix:@s", "reusePort": true}}"#,
                "setting `listen`: `reusePort` is for tcp and udp addresses, not unix:@s".into(),
            ),
            (
                r#"{"listen": {"address": "unix:/s", "mode": 660}}"#,
                "setting `listen.mode`: 660 is a number: write octal digits as a string, such as \"0660\""
                    .into(),
            ),
            (
                r#"{"listen": {"address": "unix:/s", "mode": "0888"}}"#,
                "setting `listen.mode`: \"0888\" is not an octal mode such as \"0660\", at most \"0777\""
                    .into(),
            ),
            (
                r#"{"listen": ["127.0.0.1:80", "localhost:80"]}"#,
                "setting `listen`: `listen0` and `listen1` have one address, 127.0.0.1:80".into(),
            ),
            (
                r#"{"listen": ["*:0", {"name": "listen0", "address": "*:0"}]}"#,
                "setting `listen`: two listeners are named `listen0`".into(),
            ),
            (
                r#"{"listen": "127.0.0.1:8111", "api": {}}"#,
                "setting `api.listen`: 127.0.0.1:8111 is the address of listener `listen0`".into(),
            ),
        ];
        for (json, line) in table {
            assert_eq!(refused(json), line, "{json}");
        }
    }

    #[test]
    fn listener_names_follow_systemd() {
        let fails = |name: &str| Config::builder().listen(name, "*:1").build().is_err();
        for name in ["a:b", "a\nb", "é", &"x".repeat(256)] {
            assert!(fails(name), "{name:?}");
        }
        for name in ["a", "a b", "a=b", &"x".repeat(255)] {
            assert!(!fails(name), "{name:?}");
        }
    }
}
