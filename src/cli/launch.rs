//! `proteus run`: a master for any program.

use std::process::{ExitCode, Termination};

use lexopt::Parser;
use proteus_cluster::{Cluster, logger};

#[cfg(feature = "watch")]
use super::cause;
#[cfg(feature = "watch")]
use super::watch::Watch;
use super::words::{Asked, Words};
use super::{Refusal, help, print, usage};

pub(super) fn run(parser: &mut Parser) -> Result<ExitCode, Refusal> {
    match Words::read(parser)? {
        Asked::Help => print(&help::run()),
        Asked::For(words) => start(words),
    }
}

fn start(words: Words) -> Result<ExitCode, Refusal> {
    // First: nothing is said before there is a log.
    logger::init_master();
    #[cfg(feature = "watch")]
    let watch = match words.watched() {
        [] => None,
        paths => Some(Watch::begin(paths)?),
    };
    let config = words.config()?;
    let cluster = Cluster::new(config).map_err(usage)?;
    #[cfg(feature = "watch")]
    if let Some(watch) = watch {
        watch.follow(cluster.handle()).map_err(|error| format!("--watch: {}", cause(&error)))?;
    }
    Ok(cluster.run().map_err(usage)?.report())
}
