//! What the program does with messages from the master.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::lock;
use crate::error::panic_text;
use crate::message::{Message, failure_line, reply_line};

/// What may be kept for handlers that are still to come.
const KEPT: usize = 1 << 20;

/// With the line of a reply, where it has one.
type Handler = Arc<Mutex<dyn Fn(&Message) -> Option<Vec<u8>> + Send>>;

/// What comes of a handler, beside what it does itself.
pub(super) enum Effect {
    Reply(Vec<u8>),
    /// With the text of the panic.
    Panicked(String),
}

#[derive(Default)]
pub(super) struct Handlers(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_cmd: HashMap<String, Handler>,
    /// Those that answer requests.
    requests: HashMap<String, Handler>,
    any: Vec<Handler>,
    stage: Stage,
}

enum Stage {
    /// The program still registers its handlers: what has none yet is kept for them.
    Booting(Kept),
    /// It is done with that, and what was kept is to be looked through once more.
    Settling(Kept),
    Ready,
}

/// Messages without a handler.
#[derive(Default)]
struct Kept {
    messages: VecDeque<Message>,
    size: usize,
    /// None of them is for the handlers that were there when there were so many.
    seen: usize,
}

impl Default for Stage {
    fn default() -> Self {
        Stage::Booting(Kept::default())
    }
}

impl Handlers {
    /// In the place of the one that was there.
    pub(super) fn set(&self, cmd: &str, handler: impl Fn(&Message) + Send + 'static) {
        let before = lock(&self.0).by_cmd.insert(cmd.to_owned(), silent(handler));
        drop(before); // its own drop may do anything, so not under the lock
    }

    /// Answers requests, in the place of the one that was there.
    pub(super) fn set_request<R: Serialize>(
        &self,
        cmd: &str,
        handler: impl Fn(&Message) -> R + Send + 'static,
    ) {
        let handler: Handler = Arc::new(Mutex::new(move |message: &Message| {
            let value = handler(message);
            let (cmd, number) = (message.cmd()?, message.request()?);
            let reply = reply_line(cmd, number, &value);
            Some(reply.unwrap_or_else(|error| failure_line(cmd, number, &error.to_string())))
        }));
        let before = lock(&self.0).requests.insert(cmd.to_owned(), handler);
        drop(before);
    }

    /// Beside those that are there.
    pub(super) fn add_any(&self, handler: impl Fn(&Message) + Send + 'static) {
        lock(&self.0).any.push(silent(handler));
    }

    /// No more handlers are expected: what has none now never will.
    pub(super) fn ready(&self) {
        let stage = &mut lock(&self.0).stage;
        if let Stage::Booting(kept) = stage {
            *stage = Stage::Settling(Kept { seen: 0, ..std::mem::take(kept) });
        }
    }

    /// Calls those that the message is for, one after the other, and before that those for whom messages waited.
    pub(super) fn handle(&self, message: Option<Message>, effect: &mut impl FnMut(Effect)) {
        loop {
            let waited = lock(&self.0).take_kept();
            let Some((message, handlers)) = waited else { break };
            for handler in &handlers {
                call(handler, &message, effect);
            }
        }
        let Some(message) = message else { return };
        let mut table = lock(&self.0);
        let handlers = table.handlers(&message);
        if handlers.is_empty() {
            table.stage.keep(message);
            return;
        }
        drop(table);
        for handler in &handlers {
            call(handler, &message, effect);
        }
    }
}

impl Table {
    /// The one for its name, then the general ones. A request prefers the one that answers.
    fn handlers(&self, message: &Message) -> Vec<Handler> {
        let named = message.cmd().and_then(|cmd| {
            let (hears, answers) = (self.by_cmd.get(cmd), self.requests.get(cmd));
            if message.request().is_some() { answers.or(hears) } else { hears.or(answers) }
        });
        named.into_iter().chain(&self.any).cloned().collect()
    }

    fn has(&self, message: &Message) -> bool {
        let named = |cmd: &str| self.by_cmd.contains_key(cmd) || self.requests.contains_key(cmd);
        !self.any.is_empty() || message.cmd().is_some_and(named)
    }

    /// The first of the messages that waited, for which there is a handler now.
    fn take_kept(&mut self) -> Option<(Message, Vec<Handler>)> {
        let count = self.by_cmd.len() + self.requests.len() + self.any.len();
        let mut stage = std::mem::replace(&mut self.stage, Stage::Ready);
        let found = match &mut stage {
            Stage::Booting(kept) | Stage::Settling(kept) => kept.take(count, |message| self.has(message)),
            Stage::Ready => None,
        };
        self.stage = stage;
        if let (None, Stage::Settling(kept)) = (&found, &self.stage) {
            log::debug!("messages from the master that nobody listens to: {}", kept.messages.len());
            self.stage = Stage::Ready;
        }
        let message = found?;
        let handlers = self.handlers(&message);
        Some((message, handlers))
    }
}

impl Kept {
    fn take(&mut self, handlers: usize, is_wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        if self.seen == handlers {
            return None;
        }
        let Some(at) = self.messages.iter().position(is_wanted) else {
            self.seen = handlers;
            return None;
        };
        let message = self.messages.remove(at)?;
        self.size -= message.size();
        Some(message)
    }
}

fn silent(handler: impl Fn(&Message) + Send + 'static) -> Handler {
    Arc::new(Mutex::new(move |message: &Message| {
        handler(message);
        None
    }))
}

fn call(handler: &Handler, message: &Message, effect: &mut impl FnMut(Effect)) {
    match catch_unwind(AssertUnwindSafe(|| (*lock(handler))(message))) {
        Ok(reply) => reply.map(Effect::Reply).into_iter().for_each(effect),
        Err(panic) => {
            let text = panic_text(&*panic);
            if let (Some(cmd), Some(number)) = (message.cmd(), message.request()) {
                effect(Effect::Reply(failure_line(cmd, number, &format!("panicked: {text}"))));
            }
            effect(Effect::Panicked(text.to_owned()));
        }
    }
}

impl Stage {
    fn keep(&mut self, message: Message) {
        match self {
            Stage::Booting(kept) if kept.size + message.size() <= KEPT => {
                kept.size += message.size();
                kept.messages.push_back(message);
            }
            Stage::Booting(_) | Stage::Settling(_) | Stage::Ready => {
                log::debug!("a message from the master has no listener");
            }
        }
    }
}
