//! One row a route.

use std::io::Cursor;

use tiny_http::{Header, Method, Request, Response};

use crate::handle::{Handle, Taken};
use crate::supervisor::{Order, Origin};

type Answer = Response<Cursor<Vec<u8>>>;

/// Something that the API can be asked for.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    kind: Kind,
    answer: fn(&Handle) -> Answer,
    /// For the README.
    pub(crate) meaning: &'static str,
}

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// GET or POST, and never from a web page.
    Order,
    /// GET, HEAD or POST.
    Look,
}

/// To add a route: a row here.
pub(crate) const ROUTES: &[Route] = &[
    Route {
        path: "/restart",
        kind: Kind::Order,
        answer: |handle| order(handle, Order::Restart),
        meaning: "rolling restart; answers `OK` at once",
    },
    Route {
        path: "/shutdown",
        kind: Kind::Order,
        answer: |handle| order(handle, Order::Shutdown(Origin::Request)),
        meaning: "graceful shutdown; answers `OK` at once",
    },
    Route {
        path: "/force_shutdown",
        kind: Kind::Order,
        answer: |handle| order(handle, Order::ForceShutdown),
        meaning: "force shutdown: every worker is killed",
    },
    Route { path: "/status", kind: Kind::Look, answer: status, meaning: "the cluster as JSON" },
    Route {
        path: "/health",
        kind: Kind::Look,
        answer: |_| text(200, "OK"),
        meaning: "200 while the master runs",
    },
    Route {
        path: "/ready",
        kind: Kind::Look,
        answer: ready,
        meaning: "200 while `minReady` workers are ready and no shutdown has begun, else 503",
    },
];

/// Headers that a browser adds to what a page asks for: a web page must not stop a service.
const BROWSER: [&str; 5] = ["Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"];

pub(super) fn answer(request: &Request, handle: &Handle, token: Option<&str>) -> Answer {
    let path = request.url().split('?').next().unwrap_or_default();
    let Some(route) = ROUTES.iter().find(|route| route.path == path) else { return text(404, "NOT FOUND") };
    if !allows(route.kind, request.method()) {
        return text(405, "METHOD NOT ALLOWED");
    }
    if !token.is_none_or(|token| bears(request, token)) {
        return text(401, "UNAUTHORIZED").with_header(header("WWW-Authenticate", "Bearer"));
    }
    if route.kind == Kind::Order && BROWSER.iter().any(|name| value_of(request, name).is_some()) {
        return text(403, "FORBIDDEN");
    }
    (route.answer)(handle)
}

fn allows(kind: Kind, method: &Method) -> bool {
    match kind {
        Kind::Order => matches!(method, Method::Get | Method::Post),
        Kind::Look => matches!(method, Method::Get | Method::Post | Method::Head),
    }
}

fn value_of<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let named = |header: &&Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
    request.headers().iter().find(named).map(|header| header.value.as_str())
}

fn bears(request: &Request, token: &str) -> bool {
    let given = value_of(request, "Authorization").and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| same(given.trim().as_bytes(), token.as_bytes()))
}

/// Takes the same time wherever the two differ, so that a token cannot be guessed letter by letter.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

fn order(handle: &Handle, order: Order) -> Answer {
    match handle.order_and_hear(order) {
        Ok(Taken::Accepted) => text(200, "OK"),
        Ok(Taken::ShuttingDown) => text(409, "SHUTTING DOWN"),
        Err(error) => text(503, &error.to_string()),
    }
}

fn status(handle: &Handle) -> Answer {
    let status = handle.status().map_err(|error| error.to_string());
    match status.and_then(|status| serde_json::to_string(&status).map_err(|error| error.to_string())) {
        Ok(json) => text(200, &json).with_header(header("Content-Type", "application/json")),
        Err(error) => text(503, &error),
    }
}

fn ready(handle: &Handle) -> Answer {
    match handle.status() {
        Ok(status) if status.master.ready => text(200, "OK"),
        Ok(_) | Err(_) => text(503, "NOT READY"),
    }
}

fn text(status: u16, body: &str) -> Answer {
    Response::from_string(body).with_status_code(status)
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("constant header names and values are ASCII")
}
