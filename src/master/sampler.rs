//! The workers' memory, looked at every second by a thread of its own: the loop never reads /proc.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::handle::Handle;
use crate::meter::resident;
use crate::supervisor::WorkerId;
use crate::sys::signal::Mask;

const EVERY: Duration = Duration::from_secs(1);

/// The thread that looks; it ends with this.
pub(super) struct Sampler {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Sampler {
    pub(super) fn start(handle: Handle) -> io::Result<Self> {
        let (stop, stopped) = channel();
        // The program's signals stay its own.
        let before = Mask::block_all();
        let started = Builder::new().name("proteus-memory".into()).spawn(move || sample(&handle, &stopped));
        before.apply();
        Ok(Sampler { thread: Some((stop, started?)) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.thread.take() else { return };
        drop(stop);
        drop(thread.join()); // a panic in it has been told on stderr
    }
}

fn sample(handle: &Handle, stopped: &Receiver<()>) {
    while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let Ok(workers) = handle.processes() else { return };
        let sizes = workers.into_iter().filter_map(|(id, pid)| Some((WorkerId(id), resident(pid)?)));
        if handle.tell_memory(sizes.collect()).is_err() {
            return;
        }
    }
}
