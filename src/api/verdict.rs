//! How what was ordered ended, for those who wait for it.

use serde::Serialize;

use super::routes::{Page, json, text};
use crate::handle::{Heard, RestartOutcome};
use crate::status::ExitRecord;
use crate::supervisor::{Ending, Order};

/// The answer to `?wait=`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    outcome: &'static str,
    reason: Option<String>,
    /// Those that failed.
    workers: Vec<ExitRecord>,
    #[serde(skip)]
    status: u16,
}

pub(super) fn page(order: Order, heard: Heard) -> Page {
    let verdict = verdict(order, heard);
    match serde_json::to_string(&verdict) {
        Ok(body) => json(verdict.status, &body),
        Err(error) => text(500, &error.to_string()),
    }
}

fn verdict(order: Order, heard: Heard) -> Verdict {
    let bare = |status, outcome, reason: Option<&str>| Verdict {
        outcome,
        reason: reason.map(Into::into),
        workers: Vec::new(),
        status,
    };
    match heard {
        Heard::Refused => bare(409, "refused", Some("a shutdown has begun")),
        Heard::StillRunning => bare(202, "running", None),
        Heard::Restarted(RestartOutcome::Completed) | Heard::Over(Ending::Graceful) => {
            bare(200, "completed", None)
        }
        Heard::Restarted(RestartOutcome::Aborted { reason, failed }) => {
            Verdict { workers: failed.into_iter().collect(), ..bare(500, "aborted", Some(&reason)) }
        }
        Heard::Over(Ending::Forced) if order == Order::ForceShutdown => bare(200, "completed", None),
        Heard::Over(Ending::Forced) => {
            bare(500, "forced", Some("workers were killed by a force order, or would not die"))
        }
        Heard::Over(Ending::GaveUp) => bare(500, "gave-up", Some("every crash replacement was made")),
        Heard::Over(Ending::CouldNotStart { reason }) => bare(500, "aborted", Some(&reason)),
    }
}
