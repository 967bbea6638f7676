//! Messages to the workers over HTTP, answered as the page that this project follows has it, word for word.

use std::time::Duration;

use serde_json::value::RawValue;

use super::asked::Asked;
use super::routes::{Answer, Page, json, text};
use crate::ask::Reply;
use crate::config::LONGEST_WORKER_TIMEOUT;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::journal::escape;
use crate::message::{Message, field};

/// `/send`: to every worker.
pub(super) fn send(asked: &Asked) -> Answer {
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
    let message = match read(&asked.body) {
        Ok(message) => message,
        Err(page) => return page.into(),
    };
    if message.cmd().is_none_or(str::is_empty) {
        return send_without_cmd(asked.handle, &message).into();
    }
    let asked_for = field(message.line(), "timeout");
    let (handle, timeout) = (asked.handle.clone(), timeout(asked_for, asked.handle.worker_timeout()));
    let call = asked.by.call;
    Answer::Later(Box::new(move || gather(&handle, handle.request_for(call, message, timeout))))
}

/// Nobody could say what is the reply to it: it is enough that the workers get it.
fn send_without_cmd(handle: &Handle, message: &Message) -> Page {
    match handle.send_to_all(message) {
        Ok(0) if is_shutting_down(handle) => shutting_down(),
        Ok(workers) => array(&vec!["\"OK\""; workers]),
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
        // What the worker says of it may be shown on a terminal.
        Some(error) => text(500, &escape::text(&error.to_string())),
        None => array(&replies.iter().filter_map(Reply::message).map(msg).collect::<Vec<_>>()),
    }
}

/// Of values as they stand. Line ends between them become spaces: within texts they are escaped.
fn array(items: &[&str]) -> Page {
    let joined = items.join(",").replace(|letter: char| letter.is_ascii_control() && letter < ' ', " ");
    json(200, &format!("[{joined}]"))
}

/// As the worker wrote it; a reply without a `msg` stands as an empty text.
fn msg(reply: &Message) -> &str {
    field(reply.line(), "msg").map_or("\"\"", RawValue::get)
}

/// Milliseconds under `timeout` in the message itself, or the setting.
fn timeout(asked: Option<&RawValue>, setting: Duration) -> Duration {
    let asked = asked.and_then(|asked| serde_json::from_str::<f64>(asked.get()).ok());
    let asked = asked.filter(|milliseconds| *milliseconds > 0.0);
    let longest = LONGEST_WORKER_TIMEOUT.as_secs_f64();
    asked.map_or(setting, |milliseconds| Duration::from_secs_f64((milliseconds / 1000.0).min(longest)))
}

/// As it was sent: workers get its keys in their order.
fn read(body: &[u8]) -> Result<Message, Page> {
    Message::parse(body.to_vec()).map_err(|_| text(400, "request body parse failure."))
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
            (json!(250), 250),
            (json!(0.5), 0),
            (json!(0), 5000),
            (json!(-1), 5000),
            (json!("250"), 5000),
            (json!(null), 5000),
            (json!(3_600_000), 60_000),
            (json!(1e300), 60_000),
        ];
        for (asked, milliseconds) in table {
            let raw = RawValue::from_string(asked.to_string()).unwrap();
            assert_eq!(timeout(Some(&raw), setting).as_millis(), milliseconds, "{asked}");
        }
    }
}
