//! What the program does with messages from the master.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::error::panic_text;
use crate::message::Message;

/// What may be kept for handlers that are still to come.
const KEPT: usize = 1 << 20;

type Handler = Arc<Mutex<dyn Fn(&Message) + Send>>;

#[derive(Default)]
pub(super) struct Handlers(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_cmd: HashMap<String, Handler>,
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
        let handler: Handler = Arc::new(Mutex::new(handler));
        let before = lock(&self.0).by_cmd.insert(cmd.to_owned(), handler);
        drop(before); // its own drop may do anything, so not under the lock
    }

    /// Beside those that are there.
    pub(super) fn add_any(&self, handler: impl Fn(&Message) + Send + 'static) {
        lock(&self.0).any.push(Arc::new(Mutex::new(handler)));
    }

    /// No more handlers are expected: what has none now never will.
    pub(super) fn ready(&self) {
        let stage = &mut lock(&self.0).stage;
        if let Stage::Booting(kept) = stage {
            *stage = Stage::Settling(Kept { seen: 0, ..std::mem::take(kept) });
        }
    }

    /// Calls those that the message is for, one after the other, and before that those for whom messages waited;
    /// the texts of those that panicked.
    pub(super) fn handle(&self, message: Option<Message>) -> Vec<String> {
        let mut panics = Vec::new();
        loop {
            let waited = lock(&self.0).take_kept();
            let Some((message, handlers)) = waited else { break };
            panics.extend(handlers.iter().filter_map(|handler| call(handler, &message)));
        }
        let Some(message) = message else { return panics };
        let mut table = lock(&self.0);
        let handlers = table.handlers(&message);
        if handlers.is_empty() {
            table.stage.keep(message);
            return panics;
        }
        drop(table);
        panics.extend(handlers.iter().filter_map(|handler| call(handler, &message)));
        panics
    }
}

impl Table {
    fn handlers(&self, message: &Message) -> Vec<Handler> {
        let by_cmd = message.cmd().and_then(|cmd| self.by_cmd.get(cmd));
        by_cmd.into_iter().chain(&self.any).cloned().collect()
    }

    /// The first of the messages that waited, for which there is a handler now.
    fn take_kept(&mut self) -> Option<(Message, Vec<Handler>)> {
        let (by_cmd, any) = (&self.by_cmd, &self.any);
        let is_wanted =
            |message: &Message| !any.is_empty() || message.cmd().is_some_and(|cmd| by_cmd.contains_key(cmd));
        let found = match &mut self.stage {
            Stage::Booting(kept) | Stage::Settling(kept) => kept.take(by_cmd.len() + any.len(), is_wanted),
            Stage::Ready => None,
        };
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

fn call(handler: &Handler, message: &Message) -> Option<String> {
    let call = || (*lock(handler))(message);
    let panic = catch_unwind(AssertUnwindSafe(call)).err()?;
    Some(panic_text(&*panic).to_owned())
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
