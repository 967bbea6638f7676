//! Who may ask for what. Pure: a request's head and where the API listens in, a refusal or none out.

use super::asked::matches;
use super::head::{Head, Refusal};
use super::host::{literal, without_port};
use super::routes::{Kind, ROUTES, Route};
use super::users::Users;
use crate::config::ListenAddress;
use crate::principal::{Owner, Principal};

/// What the policy knows of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) reach: Reach,
    /// Names that callers may have for this machine, in small letters.
    pub(super) names: Vec<String>,
    pub(super) token: Option<String>,
    pub(super) orders: Orders,
}

/// Who gives orders, beside what the token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Anybody,
    /// Over TCP on this machine: root, and the user of the master.
    Users(Users),
    /// There are none: this is for probes.
    Nobody,
}

/// From where callers come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A unix socket: only who may open its file, and no browser can.
    File,
    /// A unix socket without a file: every program of this machine, and no browser can.
    Name,
    /// Programs of this machine, browsers among them.
    Loopback,
    /// Other machines too.
    Network,
}

/// Headers that a browser adds to what a page asks for, beside all that begin with `sec-fetch-`.
const PAGE: [&str; 2] = ["origin", "referer"];

impl Reach {
    pub(super) fn of(address: &ListenAddress) -> Self {
        match address {
            ListenAddress::Unix(_) => Reach::File,
            ListenAddress::Abstract(_) => Reach::Name,
            ListenAddress::Tcp(at) | ListenAddress::Udp(at) if at.ip().to_canonical().is_loopback() => {
                Reach::Loopback
            }
            ListenAddress::Tcp(_) | ListenAddress::Udp(_) => Reach::Network,
        }
    }
}

impl Site {
    /// `/health` and `/ready` alone, by whatever name.
    pub(super) fn of_probes() -> Self {
        Site { reach: Reach::Network, names: Vec::new(), token: None, orders: Orders::Nobody }
    }

    /// The route that this request may take.
    pub(super) fn admit(&self, head: &Head, by: &Principal) -> Result<&'static Route, Refusal> {
        let path = head.target.split('?').next().unwrap_or_default();
        let route = ROUTES.iter().find(|route| matches(route.path, path).is_some());
        let is_there = |route: &&Route| self.orders != Orders::Nobody || route.kind == Kind::Probe;
        let route = route.filter(is_there).ok_or_else(|| Refusal::new(404, "NOT FOUND"))?;
        if !route.kind.methods().contains(&head.method.as_str()) {
            return Err(Refusal::new(405, "METHOD NOT ALLOWED"));
        }
        if self.orders == Orders::Nobody {
            return Ok(route);
        }
        if let Some(host) = head.values("host").find(|host| !self.is_ours(host)) {
            let host: String = host.chars().take(80).collect();
            return Err(Refusal::new(
                403,
                format!(
                    "FORBIDDEN: this API does not go by the name {host:?}; `api.hosts` in the settings adds one"
                ),
            ));
        }
        self.token.as_deref().map_or(Ok(()), |token| check_token(head, token))?;
        if !route.kind.is_order() {
            return Ok(route);
        }
        if self.is_from_a_page(head) {
            return Err(Refusal::new(403, "FORBIDDEN: a web page gives no orders"));
        }
        self.check_user(by).map(|()| route)
    }

    fn check_user(&self, by: &Principal) -> Result<(), Refusal> {
        let owner = match by {
            Principal::Program => return Ok(()),
            Principal::Unix { uid, .. } => Owner::User(*uid),
            Principal::Tcp { owner, .. } => *owner,
        };
        let Orders::Users(users) = &self.orders else { return Ok(()) };
        let reason = match owner {
            Owner::User(uid) if users.trust(uid) => return Ok(()),
            Owner::User(uid) => format!("uid {uid} gives no orders here"),
            Owner::Nobody => "nobody on this machine has the other end of this connection".into(),
            Owner::Unknown => "the kernel does not say whose the other end of this connection is".into(),
        };
        let own = if users.own == 0 { String::new() } else { format!(" and uid {}", users.own) };
        Err(Refusal::new(
            403,
            format!(
                "FORBIDDEN: {reason}: root{own} may; `api.token` or `api.anyUser` in the settings opens it"
            ),
        ))
    }

    /// A page of somebody else's can call this machine by a name of its own choice, and then read what it gets.
    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let address = literal(name);
        match self.reach {
            Reach::File | Reach::Name => true,
            Reach::Loopback if address.is_some_and(|address| address.is_loopback()) => true,
            Reach::Network if address.is_some() => true,
            Reach::Loopback | Reach::Network => {
                name == "localhost" || self.names.iter().any(|known| known == name)
            }
        }
    }

    fn is_from_a_page(&self, head: &Head) -> bool {
        let says_so = |name: &str| PAGE.contains(&name) || name.starts_with("sec-fetch-");
        // Over plain HTTP to another machine a page can do without all of these.
        let unsaid = self.reach == Reach::Network && self.token.is_none();
        head.names().any(says_so)
            || unsaid && head.values("user-agent").any(|agent| agent.contains("Mozilla/"))
    }
}

fn check_token(head: &Head, token: &str) -> Result<(), Refusal> {
    let mut values = head.values("authorization").peekable();
    if values.peek().is_none() {
        return Err(Refusal::new(401, "UNAUTHORIZED: no token: send `Authorization: Bearer TOKEN`"));
    }
    match values.find_map(|value| value.strip_prefix("Bearer ")) {
        None => Err(Refusal::new(401, "UNAUTHORIZED: the Authorization is not `Bearer TOKEN`")),
        Some(given) if !same(given.trim().as_bytes(), token.as_bytes()) => {
            Err(Refusal::new(401, "UNAUTHORIZED: the token is wrong"))
        }
        Some(_) => Ok(()),
    }
}

/// Takes the same time wherever the two differ, so that a token cannot be guessed letter by letter.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(reach: Reach) -> Site {
        let names = vec!["box".into(), "box.example.org".into()];
        Site { reach, names, token: None, orders: Orders::Anybody }
    }

    fn status(site: &Site, line: &str, headers: &str) -> u16 {
        answer(site, line, headers, Owner::Unknown).0
    }

    /// The status, and why it is no other.
    fn answer(site: &Site, line: &str, headers: &str, owner: Owner) -> (u16, String) {
        let text = format!("{line} HTTP/1.1\r\n{headers}\r\n");
        let head = Head::read(text.as_bytes()).unwrap().unwrap();
        let by = Principal::Tcp { address: "127.0.0.1:54321".parse().unwrap(), owner };
        site.admit(&head, &by)
            .map_or_else(|refusal| (refusal.status, refusal.reason), |_| (200, String::new()))
    }

    /// A socket without a file has no mode that keeps others out.
    #[test]
    fn without_a_file_the_uid_of_the_caller_counts() {
        let orders = Orders::Users(Users { own: 1000, stranger: None });
        let site = Site { orders, ..site(Reach::of(&"unix:@x".parse().unwrap())) };
        let admit = |line: &str, uid| {
            let head =
                Head::read(format!("{line} HTTP/1.1\r\nHost: any\r\n\r\n").as_bytes()).unwrap().unwrap();
            site.admit(&head, &Principal::Unix { uid, pid: 1 }).map_or_else(|refusal| refusal.status, |_| 200)
        };
        for (uid, expected) in [(0, 200), (1000, 200), (1001, 403)] {
            assert_eq!((admit("GET /restart", uid), admit("GET /status", uid)), (expected, 200), "{uid}");
        }
    }

    #[test]
    fn on_this_machine_root_and_the_master_s_user_give_orders() {
        let users = |own, stranger| Orders::Users(Users { own, stranger });
        let user = Owner::User;
        // Who has the other end; whose orders are taken; whether these are.
        let table = [
            (user(0), users(1000, None), 200),
            (user(1000), users(1000, None), 200),
            (user(1001), users(1000, None), 403),
            (user(65534), users(0, None), 403),
            (user(65534), users(65534, None), 200),
            // Somebody whom the namespace does not know may be anybody.
            (user(65534), users(65534, Some(65534)), 403),
            (user(0), users(65534, Some(65534)), 200),
            (Owner::Nobody, users(0, None), 403),
            (Owner::Unknown, users(0, None), 403),
            (Owner::Nobody, Orders::Anybody, 200),
            (user(1001), Orders::Anybody, 200),
        ];
        for (owner, orders, expected) in table {
            let site = Site { orders: orders.clone(), ..site(Reach::Loopback) };
            for line in
                ["GET /restart", "POST /shutdown", "GET /scale?worker=1", "POST /send", "POST /sync_send"]
            {
                let found = answer(&site, line, "Host: localhost\r\n", owner);
                assert_eq!(found.0, expected, "{line} {owner:?} {orders:?} {}", found.1);
            }
            for line in ["GET /status", "GET /health", "GET /ready"] {
                assert_eq!(answer(&site, line, "Host: localhost\r\n", owner).0, 200, "{line} {owner:?}");
            }
        }
        let site = Site { orders: users(1000, None), ..site(Reach::Loopback) };
        let (_, reason) = answer(&site, "GET /restart", "Host: localhost\r\n", user(1001));
        assert_eq!(
            reason,
            "FORBIDDEN: uid 1001 gives no orders here: root and uid 1000 may; `api.token` or `api.anyUser` in the settings opens it"
        );
    }

    #[test]
    fn probes_ask_for_health_and_readiness_and_get_nothing_else() {
        let table = [
            ("GET /health", 200),
            ("HEAD /ready", 200),
            ("POST /ready?x=1", 200),
            ("DELETE /ready", 405),
            ("GET /status", 404),
            ("GET /restart", 404),
            ("POST /send", 404),
            ("GET /nonsense", 404),
        ];
        for (line, expected) in table {
            assert_eq!(status(&Site::of_probes(), line, "Host: evil.example\r\n"), expected, "{line}");
        }
    }

    #[test]
    fn only_routes_by_their_methods() {
        let table = [
            ("GET /restart", 200),
            ("POST /restart?wait=3s", 200),
            ("GET /status?x", 200),
            ("HEAD /status", 200),
            ("POST /health", 200),
            ("HEAD /restart", 405),
            ("PUT /restart", 405),
            ("OPTIONS /shutdown", 405),
            ("DELETE /status", 405),
            ("get /restart", 405),
            ("GET /restart/", 404),
            ("GET //restart", 404),
            ("GET /Restart", 404),
            ("GET /%72estart", 404),
            ("GET /restart%3Fwait", 404),
            ("GET /status/../restart", 404),
            ("GET /restart#x", 404),
        ];
        for (line, expected) in table {
            assert_eq!(status(&site(Reach::Loopback), line, "Host: localhost\r\n"), expected, "{line}");
        }
    }

    #[test]
    fn the_host_must_be_a_name_of_this_machine() {
        // Whether a host is good at a file, on loopback, on the network.
        let table = [
            ("localhost", [200, 200, 200]),
            ("LocalHost:8111", [200, 200, 200]),
            ("localhost.", [200, 200, 200]),
            ("127.0.0.1", [200, 200, 200]),
            ("127.8.9.1:80", [200, 200, 200]),
            ("[::1]:8111", [200, 200, 200]),
            ("::1", [200, 200, 200]),
            ("[::1%lo]", [200, 200, 200]),
            ("[::1%25lo]:8111", [200, 200, 200]),
            ("[::ffff:127.0.0.1]", [200, 200, 200]),
            ("[::ffff:127.0.0.1]:8111", [200, 200, 200]),
            ("[::ffff:10.1.2.3]", [200, 403, 200]),
            ("[fe80::1%eth0]", [200, 403, 200]),
            ("[::1%]", [200, 403, 403]),
            ("[::1%lo]evil.example", [200, 403, 403]),
            ("[::1%lo@evil.example]", [200, 403, 403]),
            ("[127.0.0.1%lo]", [200, 403, 403]),
            ("127.0.0.1%lo", [200, 403, 403]),
            ("[localhost]", [200, 403, 403]),
            ("[evil.example]", [200, 403, 403]),
            ("box", [200, 200, 200]),
            ("Box.Example.org:8111", [200, 200, 200]),
            ("10.1.2.3:8111", [200, 403, 200]),
            ("[fe80::1]", [200, 403, 200]),
            ("evil.example", [200, 403, 403]),
            ("localhost.evil.example", [200, 403, 403]),
            ("127.0.0.1.evil.example:8111", [200, 403, 403]),
            ("evil.example:localhost", [200, 403, 403]),
            ("localhost:8111@evil.example", [200, 403, 403]),
            ("2130706433", [200, 403, 403]),
            ("", [200, 403, 403]),
        ];
        for (host, expected) in table {
            let headers = format!("Host: {host}\r\n");
            let found = [Reach::File, Reach::Loopback, Reach::Network]
                .map(|reach| status(&site(reach), "GET /status", &headers));
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn a_web_page_gives_no_orders() {
        let agent = "User-Agent: Mozilla/5.0 (X11)\r\n";
        let table = [
            ("", [200, 200]),
            ("User-Agent: curl/8.5\r\n", [200, 200]),
            ("Origin: http://evil.example\r\n", [403, 403]),
            ("origin: null\r\n", [403, 403]),
            ("Referer: http://localhost:8111/\r\n", [403, 403]),
            ("Sec-Fetch-Site: none\r\n", [403, 403]),
            ("sec-fetch-user: ?1\r\n", [403, 403]),
            (agent, [200, 403]),
        ];
        for (headers, expected) in table {
            let headers = format!("Host: 127.0.0.1\r\n{headers}");
            for line in ["GET /restart", "POST /shutdown", "GET /scale?worker=1"] {
                let found =
                    [Reach::Loopback, Reach::Network].map(|reach| status(&site(reach), line, &headers));
                assert_eq!(found, expected, "{line} {headers}");
            }
            assert_eq!(status(&site(Reach::Network), "GET /status", &headers), 200, "{headers}");
        }
        // Who has the token is believed: a page has none.
        let site = Site { token: Some("t".into()), ..site(Reach::Network) };
        let headers = format!("Host: 10.0.0.1\r\nAuthorization: Bearer t\r\n{agent}");
        assert_eq!(status(&site, "GET /restart", &headers), 200);
    }

    #[test]
    fn a_token_is_asked_for_everywhere() {
        let site = Site { token: Some("s3cret".into()), ..site(Reach::Loopback) };
        let table = [
            ("Authorization: Bearer s3cret", 200),
            ("authorization: Bearer  s3cret ", 200),
            ("", 401),
            ("Authorization: Bearer s3cre", 401),
            ("Authorization: Bearer s3cret2", 401),
            ("Authorization: Bearer", 401),
            ("Authorization: Basic s3cret", 401),
            ("Authorization: s3cret", 401),
            ("X-Authorization: Bearer s3cret", 401),
        ];
        let why = |header: &str| {
            let headers = format!("Host: localhost\r\n{header}");
            answer(&site, "GET /status", &headers, Owner::Unknown).1
        };
        assert_eq!(why(""), "UNAUTHORIZED: no token: send `Authorization: Bearer TOKEN`");
        assert_eq!(why("Authorization: Bearer wrong\r\n"), "UNAUTHORIZED: the token is wrong");
        assert_eq!(
            why("Authorization: Basic wrong\r\n"),
            "UNAUTHORIZED: the Authorization is not `Bearer TOKEN`"
        );
        for (header, expected) in table {
            let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
            for line in ["GET /restart", "GET /status", "GET /health"] {
                assert_eq!(
                    status(&site, line, &format!("Host: localhost\r\n{header}")),
                    expected,
                    "{line} {header}"
                );
            }
        }
    }
}
