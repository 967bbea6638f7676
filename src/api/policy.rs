//! Who may ask for what. Pure: a request's head and where the API listens in, a refusal or none out.

use std::net::IpAddr;

use super::asked::matches;
use super::head::{Head, Refusal};
use super::routes::{Kind, ROUTES, Route};
use crate::config::ListenAddress;

/// What the policy knows of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) reach: Reach,
    /// Names that callers may have for this machine, in small letters.
    pub(super) names: Vec<String>,
    pub(super) token: Option<String>,
}

/// From where callers come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A unix socket: only who may open its file, and no browser can.
    File,
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
            ListenAddress::Tcp(at) | ListenAddress::Udp(at) if at.ip().is_loopback() => Reach::Loopback,
            ListenAddress::Tcp(_) | ListenAddress::Udp(_) => Reach::Network,
        }
    }
}

impl Site {
    /// The route that this request may take.
    pub(super) fn admit(&self, head: &Head) -> Result<&'static Route, Refusal> {
        let path = head.target.split('?').next().unwrap_or_default();
        let route = ROUTES.iter().find(|route| matches(route.path, path).is_some());
        let route = route.ok_or_else(|| Refusal::new(404, "NOT FOUND"))?;
        if !route.kind.methods().contains(&head.method.as_str()) {
            return Err(Refusal::new(405, "METHOD NOT ALLOWED"));
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
        if !self.token.as_deref().is_none_or(|token| bears(head, token)) {
            return Err(Refusal::new(401, "UNAUTHORIZED"));
        }
        match route.kind {
            Kind::Order | Kind::Message if self.is_from_a_page(head) => {
                Err(Refusal::new(403, "FORBIDDEN: a web page gives no orders"))
            }
            Kind::Order | Kind::Message | Kind::Look => Ok(route),
        }
    }

    /// A page of somebody else's can call this machine by a name of its own choice, and then read what it gets.
    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        match self.reach {
            Reach::File => true,
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

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // `::1` is an address, `[::1]:8111` one with a port.
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}

fn bears(head: &Head, token: &str) -> bool {
    let mut given = head.values("authorization").filter_map(|value| value.strip_prefix("Bearer "));
    given.next().is_some_and(|given| same(given.trim().as_bytes(), token.as_bytes()))
}

/// Takes the same time wherever the two differ, so that a token cannot be guessed letter by letter.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(reach: Reach) -> Site {
        Site { reach, names: vec!["box".into(), "box.example.org".into()], token: None }
    }

    fn status(site: &Site, line: &str, headers: &str) -> u16 {
        let text = format!("{line} HTTP/1.1\r\n{headers}\r\n");
        let head = Head::read(text.as_bytes()).unwrap().unwrap();
        site.admit(&head).map_or_else(|refusal| refusal.status, |_| 200)
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
