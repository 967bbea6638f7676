//! Shows how an order goes while its end is waited for: a bar on a terminal, a line for each step elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::client::{AT_ONCE, Master};

/// How often the status is looked at.
const STEP: Duration = Duration::from_millis(100);
/// Cells of the bar.
const BAR: u64 = 24;

/// How one kind of order is followed.
pub(super) struct Progress {
    /// What it is called.
    pub(super) noun: &'static str,
    /// Where it stands, by the status.
    look: fn(&Value) -> Option<Step>,
}

/// One look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    text: String,
    /// So much of so much is done.
    share: Option<(u64, u64)>,
}

pub(super) static RESTART: Progress = Progress {
    noun: "restart",
    look: |status| {
        let restart = &status["restart"];
        let (replaced, total) = (restart["replaced"].as_u64()?, restart["total"].as_u64()?);
        let text = format!("restart {}: {replaced} of {total} workers replaced", restart["id"]);
        (restart["state"] == "running").then_some(Step { text, share: Some((replaced, total)) })
    },
};

pub(super) static SHUTDOWN: Progress = Progress {
    noun: "shutdown",
    look: |status| {
        let left = status["workers"].as_array()?.len();
        let text = format!("shutdown: {left} worker{} left", if left == 1 { "" } else { "s" });
        (status["master"]["state"] == "shutting-down").then_some(Step { text, share: None })
    },
};

impl Progress {
    /// Shows how it goes while `wait` waits for its end.
    pub(super) fn during<T: Send>(&self, master: &Master, wait: impl FnOnce() -> T + Send) -> T {
        let mut display = Display::new();
        thread::scope(|scope| {
            let (ended, end) = channel();
            let waiter = scope.spawn(move || {
                let outcome = wait();
                drop(ended);
                outcome
            });
            // Nothing is ever sent: the channel ends with the wait.
            while end.recv_timeout(STEP) == Err::<(), _>(RecvTimeoutError::Timeout) {
                if let Some(step) = self.step(master) {
                    display.show(&step);
                }
            }
            display.clear();
            waiter.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    fn step(&self, master: &Master) -> Option<Step> {
        let answer = master.get("/status", AT_ONCE).ok()?;
        (self.look)(&serde_json::from_str(&answer.body).ok()?)
    }
}

/// Where steps are shown; a reader who has gone misses them.
struct Display {
    out: io::Stdout,
    terminal: bool,
    shown: Option<Step>,
}

impl Display {
    fn new() -> Self {
        let out = io::stdout();
        Display { terminal: out.is_terminal(), out, shown: None }
    }

    fn show(&mut self, step: &Step) {
        if self.shown.as_ref() == Some(step) {
            return;
        }
        let line = if self.terminal { format!("\r{}\x1b[K", step.bar()) } else { format!("{}\n", step.text) };
        self.write(&line);
        self.shown = Some(step.clone());
    }

    /// Leaves the terminal's line to what is said next.
    fn clear(&mut self) {
        if self.terminal && self.shown.is_some() {
            self.write("\r\x1b[K");
        }
    }

    fn write(&mut self, text: &str) {
        drop(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()));
    }
}

impl Step {
    fn bar(&self) -> String {
        let Some((done, total)) = self.share else { return self.text.clone() };
        let filled = (done * BAR).checked_div(total).unwrap_or(BAR).min(BAR);
        let mut bar = String::from("[");
        for cell in 0..BAR {
            bar.push(if cell < filled { '#' } else { '-' });
        }
        let _ = write!(bar, "] {}", self.text);
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_restart_is_followed_while_it_runs() {
        let look = |state| json!({ "restart": { "id": 3, "state": state, "replaced": 1, "total": 4 } });
        let step = (RESTART.look)(&look("running")).unwrap();
        assert_eq!(step.bar(), "[######------------------] restart 3: 1 of 4 workers replaced");
        assert_eq!((RESTART.look)(&look("completed")), None);
        assert_eq!((RESTART.look)(&json!({ "restart": null })), None);
    }

    #[test]
    fn a_shutdown_is_followed_by_who_is_left() {
        let look = |state, left| json!({ "master": { "state": state }, "workers": vec![0; left] });
        let step = |left| (SHUTDOWN.look)(&look("shutting-down", left)).unwrap().bar();
        assert_eq!(
            (step(1).as_str(), step(3).as_str()),
            ("shutdown: 1 worker left", "shutdown: 3 workers left")
        );
        assert_eq!((SHUTDOWN.look)(&look("running", 3)), None);
    }

    #[test]
    fn the_bar_keeps_its_width() {
        for (done, total) in [(0, 4), (4, 4), (9, 4), (0, 0), (1, 3)] {
            let step = Step { text: String::new(), share: Some((done, total)) };
            assert_eq!(step.bar().len(), 27, "{done} of {total}");
        }
    }
}
