//! The `proteus` command: runs any program as a cluster of workers.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A signal that comes while settings are read must not be lost.
    if std::env::args_os().nth(1).is_some_and(|word| word == "run") {
        proteus_cluster::own_process();
    }
    cli::run(std::env::args_os().skip(1))
}
