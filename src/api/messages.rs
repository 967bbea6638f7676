//! Messages to the workers over HTTP, answered as the page that this project follows has it, word for word.

use std::time::Duration;

use serde_json::Value;

use super::asked::Asked;
use super::routes::{Answer, Page, json, text};
use crate::ask::Reply;
use crate::config::LONGEST_WORKER_TIMEOUT;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::journal;

/// `/send`: to every worker.
pub(super) fn send(asked: &Asked) -> Answer {
    journal::debug!("a message to every worker by {}", asked.by);
    let page = match read(&asked.body) {
        Ok(message) => match asked.handle.send_to_all(&message) {
            Ok(0) if is_shutting_down(asked.handle) => shutting_down(),
            Ok(_) => text(200, "OK"),
            Err(error) => refusal(&error),
        },
        Err(page) => page,
    };
    page.into()
}

/// `/sync_send`: to every worker, and their replies.
pub(super) fn sync_send(asked: &Asked) -> Answer {
    journal::debug!("a question to every worker by {}", asked.by);
    let message = match read(&asked.body) {
        Ok(message) => message,
        Err(page) => return page.into(),
    };
    if message.get("cmd").and_then(Value::as_str).is_none_or(str::is_empty) {
        return send_without_cmd(asked.handle, &message).into();
    }
    let (handle, timeout) = (asked.handle.clone(), timeout(&message, asked.handle.worker_timeout()));
    let call = asked.by.call;
    Answer::Later(Box::new(move || gather(&handle, handle.request_for(call, message, timeout))))
}

/// Nobody could say what is the reply to it: it is enough that the workers get it.
fn send_without_cmd(handle: &Handle, message: &Value) -> Page {
    match handle.send_to_all(message) {
        Ok(0) if is_shutting_down(handle) => shutting_down(),
        Ok(workers) => array(vec!["OK".into(); workers]),
        Err(error) => refusal(&error),
    }
}

fn gather(handle: &Handle, replies: Result<Vec<Reply>>) -> Page {
    let replies = match replies {
        Ok(replies) => replies,
        Err(error) => return refusal(&error),
    };
    if replies.is_empty() && is_shutting_down(handle) {
        return shutting_down();
    }
    let errors = || replies.iter().filter_map(Reply::error);
    if errors().any(|error| error.is_timeout() || error.is_full()) {
        return text(500, "worker timeout.");
    }
    match errors().find(|error| !error.is_gone()) {
        Some(error) => text(500, &error.to_string()),
        None => array(replies.iter().filter_map(Reply::message).map(|reply| msg(reply.value())).collect()),
    }
}

fn array(items: Vec<Value>) -> Page {
    json(200, &Value::from(items).to_string())
}

/// A reply without a `msg` stands as an empty text.
fn msg(reply: &Value) -> Value {
    reply.get("msg").cloned().unwrap_or_else(|| "".into())
}

/// Milliseconds under `timeout` in the message itself, or the setting.
fn timeout(message: &Value, setting: Duration) -> Duration {
    let asked = message.get("timeout").and_then(Value::as_f64).filter(|milliseconds| *milliseconds > 0.0);
    let longest = LONGEST_WORKER_TIMEOUT.as_secs_f64();
    asked.map_or(setting, |milliseconds| Duration::from_secs_f64((milliseconds / 1000.0).min(longest)))
}

fn read(body: &[u8]) -> Result<Value, Page> {
    serde_json::from_slice(body).map_err(|_| text(400, "request body parse failure."))
}

fn refusal(error: &Error) -> Page {
    match error {
        _ if error.is_message() => text(400, &error.to_string()),
        _ if error.is_busy() => text(500, "server too busy."),
        _ => text(503, &error.to_string()),
    }
}

fn is_shutting_down(handle: &Handle) -> bool {
    handle.status().is_ok_and(|status| status.master.state == "shutting-down")
}

fn shutting_down() -> Page {
    text(409, "SHUTTING DOWN")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_time_for_replies() {
        let setting = Duration::from_secs(5);
        let table = [
            (json!({}), 5000),
            (json!({ "timeout": 250 }), 250),
            (json!({ "timeout": 0.5 }), 0),
            (json!({ "timeout": 0 }), 5000),
            (json!({ "timeout": -1 }), 5000),
            (json!({ "timeout": "250" }), 5000),
            (json!({ "timeout": null }), 5000),
            (json!({ "timeout": 3_600_000 }), 60_000),
            (json!({ "timeout": 1e300 }), 60_000),
        ];
        for (message, milliseconds) in table {
            assert_eq!(timeout(&message, setting).as_millis(), milliseconds, "{message}");
        }
    }
}
