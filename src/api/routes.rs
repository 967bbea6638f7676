//! One row a route.

use std::io::{Cursor, Read};

use tiny_http::{Header, Request, Response};

use super::asked::{Asked, BODY_LIMIT, Match, Parameters, matches};
use super::messages;
use super::verdict;
use super::waiters::Later;
use crate::config::settings::duration;
use crate::handle::{Handle, Taken, headcount};
use crate::principal::Principal;
use crate::supervisor::{Order, Origin, Scale, WorkerId};

/// The header by which the gate says who asks, as JSON. Nothing that a caller wrote gets through as a header.
pub(super) const PRINCIPAL: &str = "Principal";

/// What a caller gets.
pub(crate) type Page = Response<Cursor<Vec<u8>>>;

/// Something that the API can be asked for.
pub(crate) struct Route {
    /// To the letter, but that `ID` stands for a number, which the answer gets as `Asked::id`.
    pub(crate) path: &'static str,
    pub(super) kind: Kind,
    /// The parameters that the answer reads. An order with any other is refused.
    parameters: &'static [&'static str],
    answer: fn(&Asked) -> Answer,
    /// For the README.
    pub(crate) meaning: &'static str,
}

/// Whether a request changes anything, and whether it has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
        path: "/reopen",
        kind: Kind::Order,
        parameters: &[],
        answer: |asked| taken(asked, Order::ReopenLogs).into(),
        meaning: "the log file is opened anew; answers `OK` at once",
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
            taken(asked, Order::Recycle(worker)).into()
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

impl Kind {
    pub(super) fn methods(self) -> &'static [&'static str] {
        match self {
            Kind::Order => &["GET", "POST"],
            Kind::Message => &["POST"],
            Kind::Look => &["GET", "POST", "HEAD"],
        }
    }

    /// Whether the answer reads the body; any other body is thrown away.
    pub(super) fn has_body(self) -> bool {
        self == Kind::Message
    }
}

/// Answers a request that the gate has let through.
pub(super) fn answer(request: &mut Request, handle: &Handle) -> Answer {
    let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
    let parameters = Parameters::parse(query);
    let found = ROUTES.iter().find_map(|route| Some((route, matches(route.path, path)?)));
    let Some((route, Match { id })) = found else { return text(404, "NOT FOUND").into() };
    let stranger = parameters.stranger(route.parameters).filter(|_| route.kind != Kind::Look);
    if let Some(name) = stranger {
        return text(400, &format!("{} takes no parameter {name:?}", route.path)).into();
    }
    let Some(by) = principal(request) else { return text(400, "whoever asks must be named").into() };
    let mut body = Vec::new();
    match request.as_reader().take(BODY_LIMIT as u64).read_to_end(&mut body) {
        Ok(_) => (route.answer)(&Asked { handle, by, id, parameters, body }),
        Err(error) => text(400, &format!("the body ends early: {error}")).into(),
    }
}

/// Who asks, in the gate's words.
fn principal(request: &Request) -> Option<Principal> {
    let header = request.headers().iter().find(|header| header.field.equiv(PRINCIPAL))?;
    serde_json::from_str(header.value.as_str()).ok()
}

/// Gives an order, and waits for its end if the caller does.
fn order(asked: &Asked, order: Order) -> Answer {
    let Some(limit) = asked.parameters.value("wait") else { return taken(asked, order).into() };
    match duration(limit) {
        Ok(limit) => {
            let (handle, by) = (asked.handle.clone(), asked.by.clone());
            Answer::Later(Box::new(move || match handle.order_and_wait(order, by, limit) {
                Ok(heard) => verdict::page(order, heard),
                Err(error) => text(503, &error.to_string()),
            }))
        }
        Err(refusal) => text(400, &format!("wait: {refusal}")).into(),
    }
}

fn taken(asked: &Asked, order: Order) -> Page {
    match asked.handle.order_and_hear(order, asked.by.clone()) {
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
        Ok(headcount) => taken(asked, Order::Scale(Scale::To(headcount))).into(),
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
