//! A closed-loop load: clients with one request at a time each, and a ledger of every request.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request that takes longer has failed: a client that hangs is as bad as one that is refused.
const LIMIT: Duration = Duration::from_secs(10);

/// Between an answer and the next request, so that the load is steady and other tests get their share.
const THINK: Duration = Duration::from_millis(1);

/// What a client does with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// One for each request.
    New,
    /// Kept for as long as the server keeps it.
    KeepAlive,
}

/// Every request, by its end.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) answered: u64,
    /// Asked once more, since the server had closed a kept connection without a byte of answer: as HTTP clients do.
    pub(crate) retried: u64,
    /// Taken by the server, and ended before the answer was whole.
    pub(crate) cut: Vec<String>,
    /// Refused, hung, or answered with something else.
    pub(crate) failed: Vec<String>,
    pub(crate) slowest: Duration,
    /// Answers by the pid of the worker that gave them.
    pub(crate) by_worker: BTreeMap<u32, u64>,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: Ledger) {
        self.answered += other.answered;
        self.retried += other.retried;
        self.cut.extend(other.cut);
        self.failed.extend(other.failed);
        self.slowest = self.slowest.max(other.slowest);
        for (pid, count) in other.by_worker {
            *self.by_worker.entry(pid).or_default() += count;
        }
    }

    /// Every request that was made has its answer, and some were made.
    #[track_caller]
    pub(crate) fn assert_lossless(&self) {
        assert!(self.failed.is_empty() && self.cut.is_empty(), "{self}");
        assert!(self.answered > 0, "{self}");
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ledger { answered, retried, cut, failed, slowest, by_worker } = self;
        let (cuts, failures) = (cut.len(), failed.len());
        write!(f, "{answered} answered by {} workers, slowest {slowest:.0?}, ", by_worker.len())?;
        write!(f, "{retried} retried, {cuts} cut {:?}, {failures} failed {:?}", first(cut), first(failed))
    }
}

fn first(texts: &[String]) -> &[String] {
    &texts[..texts.len().min(3)]
}

/// Why a request has no answer.
#[derive(Debug)]
enum Trouble {
    /// There was no connection.
    NotConnected(io::Error),
    /// The connection ended, after so many bytes of answer.
    Cut(usize, String),
    Late,
    Wrong(String),
}

/// What the server said.
struct Answer {
    pid: u32,
    keeps: Keeps,
}

/// Whether the server keeps the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Yes,
    No,
}

/// One client with one request at a time.
pub(crate) struct Client {
    address: String,
    connections: Connections,
    limit: Duration,
    kept: Option<TcpStream>,
    pub(crate) ledger: Ledger,
}

impl Client {
    pub(crate) fn new(address: &str, connections: Connections) -> Self {
        let ledger = Ledger::default();
        Client { address: address.to_owned(), connections, limit: LIMIT, kept: None, ledger }
    }

    /// A client that waits no longer for an answer.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Client { limit, ..self }
    }

    /// Makes a request and writes down how it ended.
    pub(crate) fn request(&mut self) {
        let began = Instant::now();
        let ended = match self.kept.take() {
            None => self.connect_and_exchange(),
            Some(stream) => match self.exchange(stream) {
                Err(Trouble::Cut(0, _)) => {
                    self.ledger.retried += 1;
                    self.connect_and_exchange()
                }
                ended => ended,
            },
        };
        self.ledger.slowest = self.ledger.slowest.max(began.elapsed());
        self.note(ended);
    }

    fn note(&mut self, ended: Result<u32, Trouble>) {
        match ended {
            Ok(pid) => {
                self.ledger.answered += 1;
                *self.ledger.by_worker.entry(pid).or_default() += 1;
            }
            Err(Trouble::Cut(bytes, how)) => self.ledger.cut.push(format!("{how} after {bytes} bytes")),
            Err(Trouble::NotConnected(error)) => self.ledger.failed.push(format!("connect: {error}")),
            Err(Trouble::Late) => self.ledger.failed.push(format!("no answer within {:?}", self.limit)),
            Err(Trouble::Wrong(text)) => self.ledger.failed.push(format!("not an answer: {text:?}")),
        }
    }

    fn connect_and_exchange(&mut self) -> Result<u32, Trouble> {
        let stream = TcpStream::connect(&self.address).map_err(Trouble::NotConnected)?;
        stream.set_read_timeout(Some(self.limit)).map_err(Trouble::NotConnected)?;
        self.exchange(stream)
    }

    /// The pid of the worker that answers.
    fn exchange(&mut self, mut stream: TcpStream) -> Result<u32, Trouble> {
        let wish = match self.connections {
            Connections::New => "Connection: close\r\n",
            Connections::KeepAlive => "",
        };
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{wish}\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| trouble(0, &error))?;
        let answer = read_answer(&mut stream)?;
        if answer.keeps == Keeps::Yes {
            self.kept = Some(stream);
        }
        Ok(answer.pid)
    }
}

fn trouble(bytes: usize, error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::WouldBlock => Trouble::Late,
        _ => Trouble::Cut(bytes, error.to_string()),
    }
}

fn read_answer(stream: &mut TcpStream) -> Result<Answer, Trouble> {
    let (mut buffer, mut length) = ([0; 1024], 0);
    loop {
        match stream.read(&mut buffer[length..]) {
            Ok(0) => return Err(Trouble::Cut(length, "end".into())),
            Ok(count) => length += count,
            Err(error) => return Err(trouble(length, &error)),
        }
        let text = String::from_utf8_lossy(&buffer[..length]);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= promised(head)
        {
            return parse(head, body).ok_or_else(|| Trouble::Wrong(text.to_string()));
        }
    }
}

/// How long the body is to be.
fn promised(head: &str) -> usize {
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    lengths.next().unwrap_or(1)
}

/// `pid=N` of ours, `running worker N` of the page's.
fn parse(head: &str, body: &str) -> Option<Answer> {
    // HTTP/1.1 keeps unless something else is said, and so do axum and hyper.
    let closes = head.to_ascii_lowercase().contains("connection: close");
    let keeps = if closes { Keeps::No } else { Keeps::Yes };
    let pid = body.strip_prefix("pid=").or_else(|| body.strip_prefix("running worker "));
    let pid = pid?.trim_end().parse().ok()?;
    head.starts_with("HTTP/1.1 200 ").then_some(Answer { pid, keeps })
}

/// Clients at work on threads of their own.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Ledger>>,
}

impl Load {
    pub(crate) fn begin(address: &str, connections: Connections, clients: usize) -> Self {
        Load { over: Arc::default(), clients: Vec::new() }.and(address, connections, clients)
    }

    /// More clients, of another kind.
    pub(crate) fn and(mut self, address: &str, connections: Connections, clients: usize) -> Self {
        for _ in 0..clients {
            let (over, mut client) = (Arc::clone(&self.over), Client::new(address, connections));
            self.clients.push(std::thread::spawn(move || {
                // At least one request each, also when the end comes before the thread has begun.
                loop {
                    client.request();
                    if over.load(Ordering::Relaxed) {
                        return client.ledger;
                    }
                    std::thread::park_timeout(THINK);
                }
            }));
        }
        self
    }

    /// Lets every client finish its request, and adds up.
    #[track_caller]
    pub(crate) fn end(self) -> Ledger {
        self.over.store(true, Ordering::Relaxed);
        let mut sum = Ledger::default();
        for client in self.clients {
            sum.add(client.join().expect("a client does not panic"));
        }
        sum
    }
}
