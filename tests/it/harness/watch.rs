//! An eye on the status while something else goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::master::{Master, ready_pids, rows};
use super::{http, pause};

/// Looks at the status of a master again and again.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    eye: JoinHandle<Seen>,
}

/// The extremes of what was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) looks: u64,
    pub(crate) fewest_ready: usize,
    pub(crate) most_rows: usize,
    pub(crate) most_generations: usize,
    /// The status with the fewest ready workers.
    pub(crate) leanest: Value,
}

impl Watch {
    pub(crate) fn begin(master: &Master) -> Self {
        let (over, socket) = (Arc::<AtomicBool>::default(), master.api().to_owned());
        let last = Arc::clone(&over);
        let eye = std::thread::spawn(move || {
            let mut seen = Seen::nothing();
            // The last look comes after the end was asked for, so that there is always one.
            while !last.load(Ordering::Relaxed) || seen.looks == 0 {
                seen.take(look(&socket));
                pause();
            }
            seen
        });
        Watch { over, eye }
    }

    #[track_caller]
    pub(crate) fn end(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.eye.join().expect("the status is always there")
    }
}

fn look(socket: &Path) -> Value {
    let answer = http::over_unix(socket, "GET", "/status", "").expect("the API answers");
    serde_json::from_str(&answer.body).expect("the status is JSON")
}

impl Seen {
    fn nothing() -> Self {
        Seen { looks: 0, fewest_ready: usize::MAX, most_rows: 0, most_generations: 0, leanest: Value::Null }
    }

    fn take(&mut self, status: Value) {
        let rows = rows(&status);
        let mut generations: Vec<u64> = rows.iter().filter_map(|row| row["generation"].as_u64()).collect();
        generations.sort_unstable();
        generations.dedup();
        self.looks += 1;
        self.most_rows = self.most_rows.max(rows.len());
        self.most_generations = self.most_generations.max(generations.len());
        let ready = ready_pids(&status).len();
        if ready < self.fewest_ready {
            self.fewest_ready = ready;
            self.leanest = status;
        }
    }
}
