//! `proteus run`: a master for any program.

use std::process::{ExitCode, Termination};

use lexopt::Parser;
use proteus_cluster::{Cluster, Config, Result, logger};

use super::words::{Asked, Words};
use super::{Refusal, help, print, usage};

pub(super) fn run(parser: &mut Parser) -> Result<ExitCode, Refusal> {
    match Words::read(parser)? {
        Asked::Help => print(&help::run()),
        Asked::For(words) => start(words.config()?).map_err(usage),
    }
}

fn start(config: Config) -> Result<ExitCode> {
    logger::init_master();
    Ok(Cluster::new(config)?.run()?.report())
}
