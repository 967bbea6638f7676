//! The server where no socket can have a file, as in a container that is read-only all over: a pair of sockets and a
//! thread for each request. The gate lets in only so many.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use socket2::Socket;
use tiny_http::HTTPVersion;

use super::backend::{Alive, quietly};
use super::head::Head;
use super::routes::{self, Answer, PRINCIPAL, Page, text};
use crate::handle::Handle;
use crate::journal;

/// A connection to a server that is there for it alone.
pub(super) fn connect(handle: &Handle, alive: &Alive) -> io::Result<Socket> {
    let (gate, mut server) = UnixStream::pair()?;
    gate.set_nonblocking(true)?;
    let (handle, alive) = (handle.clone(), alive.clone());
    let thread = thread::Builder::new().name("proteus-api".into());
    quietly(|| {
        thread.spawn(move || {
            if let Err(error) = serve(&mut server, &handle) {
                journal::debug!("control API: the caller has gone: {error}");
            }
            drop((server, alive));
        })
    })?;
    Ok(gate.into())
}

fn serve(stream: &mut UnixStream, handle: &Handle) -> io::Result<()> {
    let (head, body) = read(stream)?;
    let answered = catch_unwind(AssertUnwindSafe(|| answer(&head, body, handle)));
    let page = answered.unwrap_or_else(|_| {
        journal::error!("control API: a panic while it answered; it goes on");
        text(500, "the control API has failed")
    });
    let mut out = BufWriter::new(stream);
    page.raw_print(&mut out, HTTPVersion(1, 1), &[], head.method == "HEAD", None)?;
    out.flush()
}

/// What the gate has written: it is whole, and within all limits.
fn read(stream: &mut UnixStream) -> io::Result<(Head, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 8 << 10]);
    let mut head: Option<Head> = None;
    loop {
        if let Some(known) = &mut head {
            let body = known.body.read(&bytes[known.length..]).map_err(unreadable)?;
            if let Some(body) = body {
                return Ok((head.take().expect("it is known"), body));
            }
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        if head.is_none() {
            head = Head::read_again(&bytes).map_err(unreadable)?;
        }
    }
}

fn unreadable(refusal: super::head::Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, refusal.reason)
}

fn answer(head: &Head, body: Vec<u8>, handle: &Handle) -> Page {
    let by = head.values(&PRINCIPAL.to_ascii_lowercase()).next().and_then(|by| serde_json::from_str(by).ok());
    let Some(by) = by else { return text(400, "whoever asks must be named") };
    match routes::answer(&head.target, by, body, handle) {
        Answer::Now(page) => page,
        Answer::Later(later) => later(),
    }
}
