//! A request in the gate's own words, and the page of a refusal.

use super::head::{Head, Refusal};
use super::routes::{PRINCIPAL, Route, Stay};
use super::waiting::Place;
use crate::principal::{By, Principal};

/// A complete request that the policy has let through: nothing of what the caller wrote but method, target and body.
pub(super) struct Request {
    method: String,
    target: String,
    /// Empty unless the route reads one.
    body: Vec<u8>,
    stay: Stay,
}

impl Request {
    pub(super) fn new(head: &Head, route: &Route, body: Vec<u8>) -> Self {
        Request {
            method: head.method.clone(),
            target: head.target.clone(),
            body: if route.kind.has_body() { body } else { Vec::new() },
            stay: route.stay(head.query()),
        }
    }

    /// How long it may stay.
    pub(super) fn stay(&self) -> Stay {
        self.stay
    }

    /// The method and the path, for the log.
    pub(super) fn title(&self) -> String {
        title(&self.method, &self.target)
    }

    /// The order is given all the same; of a name that is given twice, the last counts.
    pub(super) fn wait_no_longer(&mut self) {
        self.target.push_str("&wait=0");
        self.stay = Stay::Brief;
    }

    /// As the server reads it.
    pub(super) fn encode(&self, principal: &Principal, place: Option<&Place>) -> Vec<u8> {
        let (method, target, length) = (&self.method, &self.target, self.body.len());
        let by = By { principal: principal.clone(), call: place.map(Place::call) };
        let by = serde_json::to_string(&by).unwrap_or_default();
        let lines = format!(
            "{method} {target} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n{PRINCIPAL}: {by}\r\nContent-Length: {length}\r\n\r\n"
        );
        [lines.as_bytes(), &self.body].concat()
    }
}

/// A method and the path of a target, as long as a line of the log has room for.
pub(super) fn title(method: &str, target: &str) -> String {
    let path: String = target.split('?').next().unwrap_or_default().chars().take(80).collect();
    format!("{method} {path}")
}

/// A refusal as HTTP.
pub(super) fn page(refusal: &Refusal) -> Vec<u8> {
    let reason = match refusal.status {
        400 => "Bad Request",
        401 => "Unauthorized\r\nWWW-Authenticate: Bearer",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    };
    let (status, body) = (refusal.status, &refusal.reason);
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
