//! One row a route.

use std::io::Cursor;

use tiny_http::{Header, Response};

use super::asked::{Asked, Match, Parameters, matches};
use super::messages;
use super::verdict;
use crate::config::settings::duration;
use crate::handle::{Handle, Taken, headcount};
use crate::principal::By;
use crate::supervisor::{Order, Origin, Scale, WorkerId};

/// The header by which the gate says who asks, as JSON. Nothing that a caller wrote gets through as a header.
pub(super) const PRINCIPAL: &str = "Principal";

/// An answer that takes its time.
pub(crate) type Later = Box<dyn FnOnce() -> Page + Send>;

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
    /// An order after which the service is no more.
    Stop,
    /// POST with a body, which the answer gets as `Asked::body`; never from a web page.
    Message,
    /// The same, answered when the workers have replied.
    Question,
    /// GET, HEAD or POST.
    Look,
    /// A look that says nothing but yes or no.
    Probe,
}

/// How long a request stays with the server, and in which of the places for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It is answered at once.
    Brief,
    Waits,
    /// For the end of the service: in a place that nobody else can have.
    WaitsToStop,
}

/// How a route answers.
pub(super) enum Answer {
    Now(Page),
    /// On a thread of its own, which may wait.
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
        kind: Kind::Stop,
        parameters: &["wait"],
        answer: |asked| order(asked, Order::Shutdown(Origin::Request)),
        meaning: "graceful shutdown; answers `OK` at once, with `?wait=30s` how it ended",
    },
    Route {
        path: "/force_shutdown",
        kind: Kind::Stop,
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
        kind: Kind::Question,
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
        kind: Kind::Probe,
        parameters: &[],
        answer: |_| text(200, "OK").into(),
        meaning: "200 while the master runs",
    },
    Route {
        path: "/ready",
        kind: Kind::Probe,
        parameters: &[],
        answer: |asked| ready(asked.handle),
        meaning: "200 while `minReady` workers are ready and no shutdown has begun, else 503",
    },
];

impl Kind {
    pub(super) fn methods(self) -> &'static [&'static str] {
        match self {
            Kind::Order | Kind::Stop => &["GET", "POST"],
            Kind::Message | Kind::Question => &["POST"],
            Kind::Look | Kind::Probe => &["GET", "POST", "HEAD"],
        }
    }

    /// Whether the answer reads the body; any other body is thrown away.
    pub(super) fn has_body(self) -> bool {
        matches!(self, Kind::Message | Kind::Question)
    }

    /// Whether it changes anything.
    pub(super) fn is_order(self) -> bool {
        !matches!(self, Kind::Look | Kind::Probe)
    }
}

impl Route {
    /// How long a request with this query stays.
    pub(super) fn stay(&self, query: &str) -> Stay {
        let waits = || {
            let parameters = Parameters::parse(query);
            let wait = parameters.value("wait").filter(|_| self.parameters.contains(&"wait"));
            wait.is_some_and(|limit| duration(limit).is_ok())
        };
        match self.kind {
            Kind::Order if waits() => Stay::Waits,
            Kind::Stop if waits() => Stay::WaitsToStop,
            Kind::Question => Stay::Waits,
            Kind::Order | Kind::Stop | Kind::Message | Kind::Look | Kind::Probe => Stay::Brief,
        }
    }
}

/// Answers a request that the gate has let through.
pub(super) fn answer(target: &str, by: By, body: Vec<u8>, handle: &Handle) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameters = Parameters::parse(query);
    let found = ROUTES.iter().find_map(|route| Some((route, matches(route.path, path)?)));
    let Some((route, Match { id })) = found else { return text(404, "NOT FOUND").into() };
    let stranger = parameters.stranger(route.parameters).filter(|_| route.kind.is_order());
    if let Some(name) = stranger {
        return text(400, &format!("{} takes no parameter {name:?}", route.path)).into();
    }
    (route.answer)(&Asked { handle, by, id, parameters, body })
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
