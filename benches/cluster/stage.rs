//! Where the measured processes stand: a folder, and a socket on which workers say that they have begun.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Names the role of a process of this benchmark.
pub(crate) const ROLE: &str = "PROTEUS_BENCH_ROLE";
/// Names the file that a process logs to by itself.
pub(crate) const LOG: &str = "PROTEUS_BENCH_LOG";
/// Names the socket for reports.
pub(crate) const REPORT: &str = "PROTEUS_BENCH_REPORT";

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Stage {
    folder: PathBuf,
    reports: UnixDatagram,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("proteus-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let reports = UnixDatagram::bind(folder.join("reports")).expect("a socket");
        reports.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Stage { folder, reports }
    }

    /// Waits for a worker to say that it has begun; its pid.
    pub(crate) fn report(&self) -> u32 {
        let mut pid = [0; 4];
        self.reports.recv(&mut pid).expect("a worker reports in time");
        u32::from_ne_bytes(pid)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// This program in a role.
    pub(crate) fn command(&self, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(ROLE, role).env(REPORT, self.path("reports")).stdin(Stdio::null());
        command
    }

    /// `proteus run` with workers in a role.
    pub(crate) fn cluster(&self, role: &str, workers: usize, more: &Value) -> Running {
        self.cluster_that_logs("off", role, workers, more)
    }

    /// The same with `RUST_LOG`.
    pub(crate) fn cluster_that_logs(
        &self,
        rust_log: &str,
        role: &str,
        workers: usize,
        more: &Value,
    ) -> Running {
        let mut settings = json!({
            "worker": workers,
            "exec": std::env::current_exe().expect("this program"),
            "env": { ROLE: role, REPORT: self.path("reports") },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        let file = self.path("proteus.json");
        std::fs::write(&file, settings.to_string()).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_proteus"));
        command.arg("run").arg("--config").arg(file).env("RUST_LOG", rust_log).stdin(Stdio::null());
        Running(command.spawn().expect("the master starts"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A process that ends with its measurement. The workers of a master die with it.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
