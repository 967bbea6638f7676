//! A worker's stdout and stderr, captured: read by budget, cut into lines, handed to the log.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mio::unix::pipe::Receiver;

use super::channel::Rest;
use crate::journal::lines::{Cutter, LastLines, Lines};
use crate::journal::{self, Origin, Stream};

/// What is read from one stream in one turn of the loop, so that a flood starves nobody: as much as a pipe holds.
const TURN: usize = 64 * 1024;
/// What is read after the worker's end. Its last words are in the pipe by then; a grandchild that goes on
/// writing must not hold us.
const LAST: usize = 1 << 20;

/// The master's ends.
#[derive(Debug)]
pub(super) struct Capture {
    origin: Arc<Origin>,
    stdout: Tap,
    stderr: Tap,
    last: LastLines,
}

/// The master's ends of both pipes, before there is a worker to name.
#[derive(Debug)]
pub(super) struct Pipes([Receiver; 2]);

#[derive(Debug)]
struct Tap {
    /// `None` once the last holder of the other end has closed it.
    pipe: Option<Receiver>,
    cutter: Cutter,
}

impl Pipes {
    /// With the worker's stdout and stderr. The workers' user owns them: else who is not root could not open
    /// `/dev/stderr`.
    pub(super) fn new(owner: Option<u32>) -> io::Result<(Self, [OwnedFd; 2])> {
        let (stdout, their_stdout) = pipe(owner)?;
        let (stderr, their_stderr) = pipe(owner)?;
        Ok((Pipes([stdout, stderr]), [their_stdout, their_stderr]))
    }

    /// The worker has begun.
    pub(super) fn capture(self, origin: Arc<Origin>) -> Capture {
        let [stdout, stderr] = self.0.map(|pipe| Tap { pipe: Some(pipe), cutter: Cutter::default() });
        Capture { origin, stdout, stderr, last: LastLines::default() }
    }
}

fn pipe(owner: Option<u32>) -> io::Result<(Receiver, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    let (ours, theirs) = (Receiver::from(OwnedFd::from(ours)), OwnedFd::from(theirs));
    ours.set_nonblocking(true)?;
    if owner.is_some() {
        // Who may not do this may not start such a worker either, and is told so there.
        drop(std::os::unix::fs::fchown(&theirs, owner, None));
    }
    Ok((ours, theirs))
}

impl Capture {
    /// The pipes that are open.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let both = [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)];
        both.into_iter().filter_map(|(stream, tap)| Some((stream, tap.pipe.as_ref()?.as_fd())))
    }

    /// Reads for one turn.
    pub(super) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Rest {
        self.read_up_to(TURN, stream, buffer)
    }

    /// After the worker's end: what it wrote last, and what it left without a newline. Its last lines on stderr.
    pub(super) fn finish(mut self, buffer: &mut [u8]) -> Vec<String> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_up_to(LAST, stream, buffer);
            let rest = self.tap(stream).cutter.finish();
            self.put(stream, rest);
        }
        self.last.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// The other end is closed: what was left without a newline is a line now. Returns the pipe, to be
    /// taken from the loop.
    pub(super) fn close(&mut self, stream: Stream) -> Option<Receiver> {
        let rest = self.tap(stream).cutter.finish();
        self.put(stream, rest);
        self.tap(stream).pipe.take()
    }

    fn read_up_to(&mut self, mut budget: usize, stream: Stream, buffer: &mut [u8]) -> Rest {
        while budget > 0 {
            let room = buffer.len().min(budget);
            let tap = self.tap(stream);
            let Some(pipe) = &mut tap.pipe else { return Rest::Drained };
            match pipe.read(&mut buffer[..room]) {
                Ok(0) => return Rest::Ended,
                Ok(count) => {
                    budget -= count;
                    let lines = tap.cutter.push(&buffer[..count]);
                    self.put(stream, lines);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Rest::Drained,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Rest::Ended,
            }
        }
        Rest::More
    }

    fn tap(&mut self, stream: Stream) -> &mut Tap {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn put(&mut self, stream: Stream, lines: Lines) {
        if stream == Stream::Stderr {
            self.last.push(&lines);
        }
        journal::output(&self.origin, stream, lines);
    }
}
