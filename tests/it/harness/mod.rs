//! What the tests share: masters under watch, a small HTTP client, conditions with deadlines.

pub(crate) mod guide;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod master;
pub(crate) mod mounts;
pub(crate) mod proc;
pub(crate) mod sys;
pub(crate) mod tools;
pub(crate) mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

pub(crate) use http::{get, try_get};
pub(crate) use master::Master;

/// A condition that has not come true by then never will: far beyond what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often to do a thing that is worth doing often: a sample of it in the ordinary test run, in full
/// where `PROTEUS_SOAK` is set (as `scripts/soak` does).
pub(crate) fn sample_or_full(sample: usize, full: usize) -> usize {
    if is_soak() { full } else { sample }
}

fn is_soak() -> bool {
    std::env::var_os("PROTEUS_SOAK").is_some()
}

/// A line of the soak's ledger; an ordinary test run has no use for it.
pub(crate) fn record(what: &str, figures: impl std::fmt::Display) {
    if is_soak() {
        println!("ledger: {what}: {figures}");
    }
}

/// One test: its folder, its tag on every process it starts, its watchdog.
pub(crate) struct Scene {
    pub(crate) folder: PathBuf,
    pub(crate) tag: String,
    loopback: u32,
    _watchdog: Sender<()>,
}

static SCENES: AtomicU32 = AtomicU32::new(0);

impl Scene {
    /// `name` is the test's; the watchdog ends the whole run if the test takes longer than 100 s (half an hour
    /// in a soak).
    pub(crate) fn new(name: &str) -> Self {
        let number = SCENES.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{name}-{}-{number}", std::process::id());
        // Unlike that of any other scene of this run, and of runs beside it.
        let loopback = std::process::id().wrapping_mul(251).wrapping_add(number) % (1 << 23);
        let folder = std::env::temp_dir().join(format!("proteus-test-{tag}"));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Scene { folder, tag, loopback, _watchdog: watchdog(name.to_owned()) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file into the test's folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file in the test's folder");
        path
    }

    /// The command, where every user may execute it: the folder of the build may be closed to others.
    pub(crate) fn proteus_for_all(&self) -> PathBuf {
        let path = self.path("proteus");
        // By another process: while one of ours is open for writing, whoever forks meanwhile keeps it from its exec.
        let copied = Command::new("install").args(["-m", "755"]).arg(proteus()).arg(&path).status();
        assert!(copied.expect("install").success());
        path
    }

    /// Puts an executable file into the test's folder, in one step if one is there already.
    ///
    /// Another process writes it: a descriptor of ours, open for writing, would be in every process that another
    /// test's thread starts meanwhile, and nobody can execute a file that somebody may write to.
    pub(crate) fn write_program(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        let mut writer = Command::new("sh")
            .args(["-c", "cat >\"$0.new\" && chmod 755 \"$0.new\" && mv \"$0.new\" \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        writer.stdin.take().expect("piped").write_all(content.as_bytes()).expect("written");
        assert!(writer.wait().expect("our child").success());
        path
    }

    /// A loopback address that is this test's alone, so that it can have any port. (Linux: all of 127/8 is local.)
    pub(crate) fn address(&self, port: u16) -> String {
        let [_, a, b, c] = self.loopback.to_be_bytes();
        format!("127.{}.{b}.{c}:{port}", 64 + a % 128)
    }

    /// Waits until no process that this test started, directly or not, is alive.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let within = Instant::now() + PATIENCE;
        loop {
            let left = proc::tagged(&self.tag);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < within, "processes left: {left:?}");
            pause();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for process in proc::tagged(&self.tag) {
            sys::kill(process.pid, libc::SIGKILL);
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn watchdog(name: String) -> Sender<()> {
    let (alive, test) = channel::<()>();
    std::thread::spawn(move || {
        let limit = Duration::from_secs(if is_soak() { 1800 } else { 100 });
        if test.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            eprintln!("watchdog: {name} hangs");
            std::process::abort();
        }
    });
    alive
}

/// The step of a waiting loop.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let within = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < within, "never came true: {what}");
        pause();
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// Says that a test cannot be run here, past the test runner's capture of what passing tests print.
pub(crate) fn skipped(test: &str, why: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED {test}: {why}"));
}

/// The program under test.
pub(crate) fn proteus() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_proteus"))
}
