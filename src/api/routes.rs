//! One row a route.

use std::io::{Cursor, Read};

use tiny_http::{Header, Method, Request, Response};

use super::asked::{Asked, BODY_LIMIT, Match, Parameters, matches};
use super::messages;
use super::verdict;
use super::waiters::Later;
use crate::config::settings::duration;
use crate::handle::{Handle, Taken, headcount};
use crate::supervisor::{Order, Origin, Scale, WorkerId};

/// What a caller gets.
pub(crate) type Page = Response<Cursor<Vec<u8>>>;

/// Something that the API can be asked for.
pub(crate) struct Route {
    /// To the letter, but that `ID` stands for a number, which the answer gets as `Asked::id`.
    pub(crate) path: &'static str,
    kind: Kind,
    /// The parameters that the answer reads. An order with any other is refused.
    parameters: &'static [&'static str],
    answer: fn(&Asked) -> Answer,
    /// For the README.
    pub(crate) meaning: &'static str,
}

/// Whether a request changes anything, and whether it has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// GET or POST, and never from a web page.
    Order,
    /// POST with a body, which the answer gets as `Asked::body`; never from a web page.
    Message,
    /// GET, HEAD or POST.
    Look,
}

/// How a route answers.
pub(super) enum Answer {
    Now(Page),
    /// On a thread of its own, which may wait. It gives the order too: nothing is done for a caller who is told
    /// that too many wait already.
    Later(Later),
}

/// To add a route: a row here.
pub(crate) const ROUTES: &[Route] = &[
    Route {
        path: "/restart",
        kind: Kind::Order,
        parameters: &["wait"],
        answer: |asked| order(asked, Order::Restart),
        meaning: "rolling restart; answers `OK` at once, with `?wait=30s` how it ended",
    },
    Route {
        path: "/shutdown",
        kind: Kind::Order,
        parameters: &["wait"],
        answer: |asked| order(asked, Order::Shutdown(Origin::Request)),
        meaning: "graceful shutdown; answers `OK` at once, with `?wait=30s` how it ended",
    },
    Route {
        path: "/force_shutdown",
        kind: Kind::Order,
        parameters: &["wait"],
        answer: |asked| order(asked, Order::ForceShutdown),
        meaning: "force shutdown: every worker is killed; `OK` or, with `?wait=30s`, how it ended",
    },
    Route {
        path: "/scale",
        kind: Kind::Order,
        parameters: &["worker"],
        answer: scale,
        meaning: "`?worker=N`: so many workers from now on; answers `OK` at once",
    },
    Route {
        path: "/workers/ID/restart",
        kind: Kind::Order,
        parameters: &[],
        answer: |asked| {
            let worker = WorkerId(asked.id.unwrap_or_default());
            taken(asked.handle, Order::Recycle(worker)).into()
        },
        meaning: "replaces this one worker; answers `OK` at once, 404 where there is none of this id",
    },
    Route {
        path: "/send",
        kind: Kind::Message,
        parameters: &[],
        answer: messages::send,
        meaning: "POST: the body, any JSON value, goes to every worker; answers `OK`",
    },
    Route {
        path: "/sync_send",
        kind: Kind::Message,
        parameters: &[],
        answer: messages::sync_send,
        meaning: "POST: the body goes to every worker; answers an array of what they replied",
    },
    Route {
        path: "/status",
        kind: Kind::Look,
        parameters: &[],
        answer: |asked| status(asked.handle),
        meaning: "the cluster as JSON",
    },
    Route {
        path: "/health",
        kind: Kind::Look,
        parameters: &[],
        answer: |_| text(200, "OK").into(),
        meaning: "200 while the master runs",
    },
    Route {
        path: "/ready",
        kind: Kind::Look,
        parameters: &[],
        answer: |asked| ready(asked.handle),
        meaning: "200 while `minReady` workers are ready and no shutdown has begun, else 503",
    },
];

/// Headers that a browser adds to what a page asks for: a web page must not stop a service.
const BROWSER: [&str; 5] = ["Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"];

pub(super) fn answer(request: &mut Request, handle: &Handle, token: Option<&str>) -> Answer {
    let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
    let parameters = Parameters::parse(query);
    let found = ROUTES.iter().find_map(|route| Some((route, matches(route.path, path)?)));
    let Some((route, Match { id })) = found else { return text(404, "NOT FOUND").into() };
    if let Err(refusal) = admit(route, request, &parameters, token) {
        return refusal.into();
    }
    let body = match route.kind {
        Kind::Message => read_body(request),
        Kind::Order | Kind::Look => Ok(Vec::new()),
    };
    match body {
        Ok(body) => (route.answer)(&Asked { handle, id, parameters, body }),
        Err(refusal) => refusal.into(),
    }
}

fn admit(route: &Route, request: &Request, parameters: &Parameters, token: Option<&str>) -> Result<(), Page> {
    if !allows(route.kind, request.method()) {
        return Err(text(405, "METHOD NOT ALLOWED"));
    }
    if !token.is_none_or(|token| bears(request, token)) {
        return Err(text(401, "UNAUTHORIZED").with_header(header("WWW-Authenticate", "Bearer")));
    }
    if route.kind == Kind::Look {
        return Ok(());
    }
    if BROWSER.iter().any(|name| value_of(request, name).is_some()) {
        return Err(text(403, "FORBIDDEN"));
    }
    match parameters.stranger(route.parameters) {
        Some(name) => Err(text(400, &format!("{} takes no parameter {name:?}", route.path))),
        None => Ok(()),
    }
}

fn allows(kind: Kind, method: &Method) -> bool {
    match kind {
        Kind::Order => matches!(method, Method::Get | Method::Post),
        Kind::Message => matches!(method, Method::Post),
        Kind::Look => matches!(method, Method::Get | Method::Post | Method::Head),
    }
}

fn read_body(request: &mut Request) -> Result<Vec<u8>, Page> {
    let mut body = Vec::new();
    let read = request.as_reader().take(BODY_LIMIT + 1).read_to_end(&mut body);
    match read {
        Ok(length) if length as u64 > BODY_LIMIT => {
            Err(text(413, &format!("a body may have {BODY_LIMIT} bytes")))
        }
        Ok(_) => Ok(body),
        Err(error) => Err(text(400, &format!("the body ends early: {error}"))),
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

/// Gives an order, and waits for its end if the caller does.
fn order(asked: &Asked, order: Order) -> Answer {
    let Some(limit) = asked.parameters.value("wait") else { return taken(asked.handle, order).into() };
    match duration(limit) {
        Ok(limit) => {
            let handle = asked.handle.clone();
            Answer::Later(Box::new(move || match handle.order_and_wait(order, limit) {
                Ok(heard) => verdict::page(order, heard),
                Err(error) => text(503, &error.to_string()),
            }))
        }
        Err(refusal) => text(400, &format!("wait: {refusal}")).into(),
    }
}

fn taken(handle: &Handle, order: Order) -> Page {
    match handle.order_and_hear(order) {
        Ok(Taken::Accepted) => text(200, "OK"),
        Ok(Taken::Unknown) => text(404, "NOT FOUND"),
        Ok(Taken::ShuttingDown) => text(409, "SHUTTING DOWN"),
        Err(error) => text(503, &error.to_string()),
    }
}

fn scale(asked: &Asked) -> Answer {
    let worker = asked.parameters.value("worker").unwrap_or_default();
    let workers = worker.parse().map_err(|_| format!("scale: worker={worker:?} is no number of workers"));
    match workers.and_then(|workers| headcount(workers).map_err(|error| error.to_string())) {
        Ok(headcount) => taken(asked.handle, Order::Scale(Scale::To(headcount))).into(),
        Err(reason) => text(400, &reason).into(),
    }
}

fn status(handle: &Handle) -> Answer {
    let status = handle.status().map_err(|error| error.to_string());
    let page =
        match status.and_then(|status| serde_json::to_string(&status).map_err(|error| error.to_string())) {
            Ok(body) => json(200, &body),
            Err(error) => text(503, &error),
        };
    page.into()
}

fn ready(handle: &Handle) -> Answer {
    match handle.status() {
        Ok(status) if status.master.ready => text(200, "OK").into(),
        Ok(_) | Err(_) => text(503, "NOT READY").into(),
    }
}

pub(super) fn text(status: u16, body: &str) -> Page {
    // Whole, with its length: what reads it need not know chunks.
    Response::from_string(body).with_status_code(status).with_chunked_threshold(usize::MAX)
}

pub(super) fn json(status: u16, body: &str) -> Page {
    text(status, body).with_header(header("Content-Type", "application/json"))
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("constant header names and values are ASCII")
}

impl From<Page> for Answer {
    fn from(page: Page) -> Self {
        Answer::Now(page)
    }
}
