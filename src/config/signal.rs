//! Signals by name, as a stop signal.

use signal_hook::low_level::signal_name;

use super::given::{Refusal, quoted};
use super::nearest::nearest;

/// What a worker can be told to stop with. Numbers are not taken: they differ between systems.
const STOP_SIGNALS: [i32; 11] = [
    libc::SIGTERM,
    libc::SIGQUIT,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGWINCH,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGABRT,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// `SIGTERM`, `TERM` or `term`.
pub(super) fn read(text: &str) -> Result<i32, Refusal> {
    let upper = text.to_ascii_uppercase();
    let name = format!("SIG{}", upper.strip_prefix("SIG").unwrap_or(&upper));
    if matches!(name.as_str(), "SIGKILL" | "SIGSTOP") {
        return Err(format!("{} cannot be caught, so no worker could finish its work", quoted(text)).into());
    }
    let known = STOP_SIGNALS.into_iter().find(|signal| signal_name(*signal) == Some(&name));
    known.ok_or_else(|| unknown(text, &name))
}

fn unknown(text: &str, name: &str) -> Refusal {
    if text.parse::<i32>().is_ok() {
        return format!("{} is a number: write a name such as \"SIGTERM\"", quoted(text)).into();
    }
    let meant = nearest(name, STOP_SIGNALS.into_iter().filter_map(signal_name));
    let hint = meant.map_or(String::new(), |meant| format!(": did you mean \"{meant}\"?"));
    format!("{} is not a signal that stops{hint}", quoted(text)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_sig() {
        for text in ["SIGQUIT", "QUIT", "sigquit", "Quit"] {
            assert_eq!(read(text).unwrap(), libc::SIGQUIT, "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        let table = [
            ("SIGKILL", "\"SIGKILL\" cannot be caught, so no worker could finish its work"),
            ("stop", "\"stop\" cannot be caught, so no worker could finish its work"),
            ("15", "\"15\" is a number: write a name such as \"SIGTERM\""),
            ("SIGTREM", "\"SIGTREM\" is not a signal that stops: did you mean \"SIGTERM\"?"),
            ("banana", "\"banana\" is not a signal that stops"),
        ];
        for (text, reason) in table {
            assert_eq!(read(text).unwrap_err().reason(), reason, "{text}");
        }
    }
}
