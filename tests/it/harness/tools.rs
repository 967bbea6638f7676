//! Programs that are not ours: found where `scripts/peers` puts them, or in PATH. Tests that need one that is
//! not there say so.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use super::skipped;

/// Where `scripts/peers` puts what it installs.
pub(crate) fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

/// A program by its name: from PATH.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Every Node there is: the one in PATH, an old one, the newest.
pub(crate) fn nodes() -> Vec<PathBuf> {
    let installed = ["node8", "node-newest"].map(|name| peers().join(name).join("node_modules/.bin/node"));
    in_path("node").into_iter().chain(installed).filter(|program| program.is_file()).collect()
}

/// Plays a test with each Node; `path` is a PATH that finds it first.
pub(crate) fn with_each_node(test: &str, play: impl Fn(&OsString)) {
    let nodes = nodes();
    if nodes.is_empty() {
        skipped(test, "there is no node here");
    }
    for node in nodes {
        let folder = node.parent().expect("a folder").to_owned();
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&rest)));
        play(&path.expect("no colon in it"));
    }
}

/// A port of every address that nobody has, and that the system gives to no client: another with each call.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = std::process::id().wrapping_mul(97);
    super::eventually("a free port", || {
        let number = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into()) % 20_000;
        let port = 10_000 + u16::try_from(number).expect("small");
        let bound = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        bound.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).is_ok().then_some(port)
    })
}
