//! How many descriptors the cluster takes, and whether the master may have so many.

use crate::config::{Config, Output};
use crate::error::{Error, Kind, Result};

/// For the loop, the log, the control API and its callers, and what workers ask for.
const OWN: u64 = 64;
/// A worker's channel, notify socket and process.
const EACH: u64 = 3;
/// Its captured stdout and stderr.
const CAPTURED: u64 = 2;

/// Refuses what can never be had; `most` may be open.
pub(super) fn check(config: &Config, most: u64) -> Result<()> {
    let captured = if config.output == Some(Output::Log) { CAPTURED } else { 0 };
    let per_slot = count(config.listeners.iter().filter(|listener| listener.reuse_port).count());
    let each = EACH + captured + per_slot;
    let own = OWN + count(config.listeners.len()) - per_slot;
    let (workers, surge) = (count(config.workers), count(config.surge));
    let all = own + (workers + surge) * each;
    if all <= most {
        return Ok(());
    }
    let room = (most.saturating_sub(own) / each).saturating_sub(surge);
    Err(Error::new(
        Kind::Start,
        format!(
            "{workers} workers, and {surge} more in a restart, take {all} open files in the master ({each} each, {own} \
             for all), and it may have {most} (the hard limit: ulimit -Hn, LimitNOFILE=): raise that, or run {room} \
             workers at most"
        ),
    ))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_json(text).unwrap()
    }

    #[test]
    fn what_fits_and_what_does_not() {
        let plain = config(r#"{"worker": 100, "exec": "s", "listen": "127.0.0.1:0"}"#);
        assert!(check(&plain, 65 + 101 * 3).is_ok());
        assert!(check(&plain, u64::MAX).is_ok());
        let all = config(
            r#"{"worker": 100, "exec": "s", "output": "log", "surge": 10,
                "listen": [{"address": "127.0.0.1:0", "reusePort": true}, "127.0.0.1:0"]}"#,
        );
        assert!(check(&all, 65 + 110 * 6).is_ok());
        assert_eq!(
            check(&all, 65 + 110 * 6 - 1).unwrap_err().to_string(),
            "100 workers, and 10 more in a restart, take 725 open files in the master (6 each, 65 for all), and it may \
             have 724 (the hard limit: ulimit -Hn, LimitNOFILE=): raise that, or run 99 workers at most"
        );
        assert!(check(&all, 10).unwrap_err().to_string().ends_with("or run 0 workers at most"));
    }
}
