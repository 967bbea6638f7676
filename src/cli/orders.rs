//! What each errand does.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use proteus_cluster::escape;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::client::{AT_ONCE, Answer, Master, Silence, TOKEN_VARIABLE};
use super::errand::{Errand, Flag, Words};
use super::progress::{self, Progress};
use super::table;
use super::{Refusal, print, say};

/// It was asked, and it failed or was refused.
const FAILED: u8 = 1;

/// How long the end of a restart or a shutdown is waited for.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The master waits for the workers' replies no longer than a minute.
const LONGEST_REPLY: Duration = Duration::from_secs(70);

const NO_WAIT: Flag =
    Flag { long: "no-wait", value: None, meaning: "give the order, and do not wait for its end" };
const TIMEOUT: Flag = Flag {
    long: "timeout",
    value: Some("TIME"),
    meaning: "wait no longer than this; the order goes on [10m]",
};

pub(super) static RESTART: Errand = Errand {
    name: "restart",
    word: None,
    flags: &[NO_WAIT, TIMEOUT],
    about: "Replaces every worker, new ones first, and waits for the verdict. When a replacement fails, the old \
        workers stay, and the cause and its last lines on stderr are printed.",
    run: |words| wait_for(words, "/restart", &progress::RESTART),
};

pub(super) static SHUTDOWN: Errand = Errand {
    name: "shutdown",
    word: None,
    flags: &[Flag { long: "force", value: None, meaning: "kill the workers at once" }, NO_WAIT, TIMEOUT],
    about: "Lets the workers finish their work, ends the cluster, and waits until it has ended.",
    run: |words| {
        let path = if words.has("force") { "/force_shutdown" } else { "/shutdown" };
        wait_for(words, path, &progress::SHUTDOWN)
    },
};

pub(super) static SCALE: Errand = Errand {
    name: "scale",
    word: Some("N"),
    flags: &[],
    about: "Sets the number of workers, from 1 to 4096. Workers that are too many finish their work first.",
    run: |words| {
        let workers: usize =
            words.word().parse().map_err(|_| format!("{:?} is no number of workers", words.word()))?;
        order(words, &format!("/scale?worker={workers}"), "")
    },
};

pub(super) static REOPEN: Errand = Errand {
    name: "reopen",
    word: None,
    flags: &[],
    about: "Opens the log file anew, for whoever has moved it away.",
    run: |words| order(words, "/reopen", ""),
};

pub(super) static SEND: Errand = Errand {
    name: "send",
    word: Some("JSON"),
    flags: &[],
    about: "Sends a message to every worker.",
    run: |words| order(words, "/send", json(words)?),
};

pub(super) static ASK: Errand = Errand {
    name: "ask",
    word: Some("JSON"),
    flags: &[],
    about: "Sends a message to every worker, waits for their replies, and prints them as a JSON array.",
    run: ask,
};

pub(super) static STATUS: Errand = Errand {
    name: "status",
    word: None,
    flags: &[Flag { long: "json", value: None, meaning: "as the API answers it" }],
    about: "Shows the master, its workers and how the last ones ended.",
    run: status,
};

fn order(words: &Words, path: &str, body: &str) -> Result<ExitCode, Refusal> {
    let master = Master::find(words)?;
    match master.post(path, body, AT_ONCE) {
        Ok(answer) if answer.status == 200 => print(&format!("{}\n", table::plain(&answer.body))),
        spoken => not_done(&master, spoken),
    }
}

/// The message, which must be one before anybody is called.
fn json(words: &Words) -> Result<&str, Refusal> {
    match serde_json::from_str::<IgnoredAny>(words.word()) {
        Ok(_) => Ok(words.word()),
        Err(error) => Err(format!("no JSON: {error}; a message is written as '{{\"cmd\":\"hello\"}}'")),
    }
}

fn ask(words: &Words) -> Result<ExitCode, Refusal> {
    let message = json(words)?;
    let master = Master::find(words)?;
    match master.post("/sync_send", message, LONGEST_REPLY) {
        Ok(answer) if answer.status == 200 => print(&format!("{}\n", escape::json(answer.body))),
        spoken => not_done(&master, spoken),
    }
}

fn status(words: &Words) -> Result<ExitCode, Refusal> {
    let master = Master::find(words)?;
    let answer = match master.get("/status", AT_ONCE) {
        Ok(answer) if answer.status == 200 => answer,
        spoken => return not_done(&master, spoken),
    };
    if words.has("json") {
        return print(&format!("{}\n", escape::json(answer.body)));
    }
    let table = serde_json::from_str(&answer.body).ok().and_then(|status| table::status(&status));
    print(&table.ok_or_else(|| format!("what {master} answers is no status of a cluster"))?)
}

/// Gives an order, shows how it goes, and ends as it ends.
fn wait_for(words: &Words, path: &str, progress: &Progress) -> Result<ExitCode, Refusal> {
    if words.has("no-wait") {
        return order(words, path, "");
    }
    let limit = words.time("timeout")?.unwrap_or(PATIENCE);
    let master = Master::find(words)?;
    let path = format!("{path}?wait={}", limit.as_millis());
    let began = Instant::now();
    let spoken = progress.during(&master, || master.post(&path, "", limit.saturating_add(AT_ONCE)));
    let Some(verdict) = spoken.as_ref().ok().and_then(verdict) else { return not_done(&master, spoken) };
    let noun = progress.noun;
    match verdict["outcome"].as_str() {
        Some("completed") => print(&format!("{noun} completed in {:.1} s\n", began.elapsed().as_secs_f64())),
        Some("running") => Ok(failed(&format!("the {noun} still runs after {limit:?}; it goes on"))),
        outcome => {
            let reason = verdict["reason"].as_str().unwrap_or("no reason given");
            let causes = table::causes(&verdict);
            let rest = if causes.is_empty() { "" } else { "; the old workers stay" };
            let [outcome, reason] = [outcome.unwrap_or_default(), reason].map(table::plain);
            let first = format!("{noun} {outcome}: {reason}{rest}");
            let lines: Vec<String> = std::iter::once(first).chain(causes).collect();
            Ok(failed(&lines.join("\n")))
        }
    }
}

fn verdict(answer: &Answer) -> Option<Value> {
    serde_json::from_str::<Value>(&answer.body).ok().filter(|verdict| verdict["outcome"].is_string())
}

/// What is said when an order could not be given, or was refused.
fn not_done(master: &Master, spoken: Result<Answer, Silence>) -> Result<ExitCode, Refusal> {
    let answer = match spoken {
        Ok(answer) => answer,
        Err(Silence::Unreachable(why)) => return Err(why),
        Err(Silence::Broken(why)) => return Ok(failed(&why)),
    };
    let said = table::plain(answer.body.trim());
    match answer.status {
        400 => Err(said),
        401 if master.has_token() => {
            Err(format!("the master at {master} has another token than this one: {said}"))
        }
        401 => Err(format!(
            "the master at {master} asks for a token: put it into {TOKEN_VARIABLE}, or name its settings with --config"
        )),
        404 => Err(format!("what listens at {master} has no such order: {said}")),
        409 => Ok(failed("refused: a shutdown has begun")),
        status => Ok(failed(&format!("the master at {master} answers {status}: {said}"))),
    }
}

fn failed(why: &str) -> ExitCode {
    say(why);
    ExitCode::from(FAILED)
}
