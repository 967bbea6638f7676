//! One logger for both roles.

/// Logs to stderr through `env_logger`: one call at the start of `main`, in the master and in the workers alike.
///
/// `RUST_LOG` chooses what is shown; without it `info` and louder. Does nothing if the program has a
/// logger already.
pub fn init() {
    let env = env_logger::Env::default().default_filter_or("info");
    // A logger that is there already stays.
    let _ = env_logger::Builder::from_env(env).try_init();
}
