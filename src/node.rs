//! Node's cluster messages: what a Node worker says on its channel, and what it is told. Pure: bytes in,
//! values out, and the state of one conversation.
//!
//! The wire is that of Node's own `cluster` module, whose workers run unmodified: lines of JSON, as on any
//! channel, whose `cmd` begins with `NODE_` where Node itself speaks. All else is `process.send`.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::{ListenAddress, UNIX_PATH_BYTES};
use crate::message::{self, FromWorker, Garbage, Message, number};

/// Flags of `queryServer`, as Node's libuv numbers them.
const ONLY_IPV6: u64 = 1;
const REUSE_ADDRESS: u64 = 4;

/// The longest that a query may be, many times what any address takes: its key and its data are kept.
const LONGEST_KEY: usize = 1 << 10;

/// What a handle takes beside its key while it waits.
const HANDLE_OVERHEAD: usize = 1 << 10;

/// A handle that got lost on its way (its receiver was out of descriptors) is sent again so many times.
const TRIES: u32 = 3;

/// A line from a Node worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// What any worker may say.
    Line(FromWorker),
    /// What Node says by itself: never shown to listeners.
    Node(FromNode),
}

/// A line of Node's own from a worker. What is left out means nothing to a master.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromNode {
    /// `listen()` or `bind()`: it wants a socket that it shares with its siblings.
    Query(Query),
    /// It has closed the listener of this key.
    Closed {
        key: String,
    },
    /// `worker.disconnect()` in the worker itself: its exit is planned. Wants an answer to `seq`.
    Leaving {
        seq: u64,
    },
    /// The handle that was sent has come.
    Arrived,
    /// It has not, and its line has.
    Lost,
    /// `process.send(message, handle)`: it sends no more until it is told that the handle came.
    Gift(Option<Message>),
    Internal,
}

/// A `queryServer`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) seq: u64,
    /// Names the listener between the worker and its master: the same in each worker that asks for the same.
    pub(crate) key: String,
    /// `Err` is the errno of an address that cannot be.
    pub(crate) target: Result<Target, i32>,
    pub(crate) options: Options,
    /// What workers share about the listener, such as TLS session keys: the first one's counts.
    pub(crate) data: Value,
}

/// Which socket a worker wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The first of these that can be had. With port 0, the `index`-th of this address in each worker.
    Addresses { candidates: Vec<ListenAddress>, index: u64 },
    /// A descriptor, by the worker's own number: one that it was started with.
    Descriptor(usize),
}

/// How the socket is bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) only_ipv6: bool,
    pub(crate) reuse_address: bool,
    /// Permission bits of a path for all users, beside those that the umask leaves.
    pub(crate) mode: u32,
    /// How many connections may wait. Node leaves it to the system's habit with none.
    pub(crate) backlog: Option<u32>,
}

/// What kind of handle Node makes of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandleKind {
    Stream,
    Datagram,
}

/// What a line says.
pub(crate) fn parse(line: impl Into<Vec<u8>>) -> Result<Heard, Garbage> {
    let message = Message::parse(line.into())?;
    if let Some(cmd) = message.cmd().filter(|cmd| cmd.starts_with("NODE_")) {
        return internal(cmd, &Wire::read(message.line())?);
    }
    Ok(Heard::Line(match FromWorker::of(message)? {
        // Node would keep the descriptor of the answer for a handle that never comes.
        FromWorker::Listen { .. } => FromWorker::Reserved("PROTEUS_LISTEN".into()),
        other => other,
    }))
}

/// A line of Node's own, each part as it stands there: only short ones are read, since a short text can be many
/// values.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(default, borrow)]
    act: Raw<'a>,
    #[serde(default, borrow)]
    seq: Raw<'a>,
    #[serde(default, borrow)]
    key: Raw<'a>,
    #[serde(default, borrow)]
    address: Raw<'a>,
    #[serde(default, borrow)]
    port: Raw<'a>,
    #[serde(default, borrow)]
    address_type: Raw<'a>,
    #[serde(default, borrow)]
    fd: Raw<'a>,
    #[serde(default, borrow)]
    index: Raw<'a>,
    #[serde(default, borrow)]
    flags: Raw<'a>,
    #[serde(default, borrow)]
    readable_all: Raw<'a>,
    #[serde(default, borrow)]
    writable_all: Raw<'a>,
    #[serde(default, borrow)]
    backlog: Raw<'a>,
    #[serde(default, borrow)]
    data: Raw<'a>,
    #[serde(default, borrow)]
    msg: Raw<'a>,
}

type Raw<'a> = Option<&'a RawValue>;

impl<'a> Wire<'a> {
    fn read(line: &'a [u8]) -> Result<Self, Garbage> {
        serde_json::from_slice(line).map_err(|error| Garbage::new(format!("a line of Node's own: {error}")))
    }

    /// `readableAll` and `writableAll`.
    fn mode(&self) -> u32 {
        let bits = |part: Raw<'_>, bits| if part.map(RawValue::get) == Some("true") { bits } else { 0 };
        bits(self.readable_all, 0o444) | bits(self.writable_all, 0o222)
    }

    /// Whether something is longer than it ever is.
    fn is_overlong(&self) -> bool {
        let parts = [self.address, self.port, self.address_type, self.fd, self.index, self.flags, self.data];
        parts.into_iter().flatten().map(|part| part.get().len()).sum::<usize>() > LONGEST_KEY
    }
}

/// What a short part says; a long one says nothing.
fn value(part: Raw<'_>) -> Value {
    let short = part.filter(|part| part.get().len() <= LONGEST_KEY);
    short.and_then(|part| serde_json::from_str(part.get()).ok()).unwrap_or_default()
}

fn internal(cmd: &str, wire: &Wire<'_>) -> Result<Heard, Garbage> {
    let heard = match (cmd, value(wire.act).as_str()) {
        ("NODE_CLUSTER", Some("queryServer")) => FromNode::Query(Query::parse(wire)?),
        ("NODE_CLUSTER", Some("listening")) => return Ok(Heard::Line(FromWorker::Ready)),
        ("NODE_CLUSTER", Some("close")) => FromNode::Closed { key: text(&value(wire.key)) },
        // Node 6 and older call it suicide.
        ("NODE_CLUSTER", Some("exitedAfterDisconnect" | "suicide")) => {
            FromNode::Leaving { seq: seq_of(wire)? }
        }
        ("NODE_HANDLE_ACK", _) => FromNode::Arrived,
        ("NODE_HANDLE_NACK", _) => FromNode::Lost,
        ("NODE_HANDLE", _) => FromNode::Gift(user_message(wire.msg)?),
        (_, _) => FromNode::Internal,
    };
    Ok(Heard::Node(heard))
}

/// The message that a handle came with, unless it is one of Node's own.
fn user_message(message: Raw<'_>) -> Result<Option<Message>, Garbage> {
    let line = message.map_or("null", RawValue::get);
    let message = Message::parse(line.as_bytes().to_vec())?;
    let is_user = matches!(FromWorker::of(message.clone())?, FromWorker::User(_));
    Ok(is_user.then_some(message))
}

/// The habit of workers under other masters: `process.send('ready')`.
pub(crate) fn says_ready(message: &Message) -> bool {
    message.is_text("ready")
}

fn seq_of(wire: &Wire<'_>) -> Result<u64, Garbage> {
    wire.seq.and_then(number).ok_or_else(|| Garbage::new("NODE_CLUSTER without the number \"seq\""))
}

/// As JavaScript writes it into a key.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Query {
    fn parse(wire: &Wire<'_>) -> Result<Self, Garbage> {
        let parts = [wire.address, wire.port, wire.address_type, wire.fd, wire.index];
        let key = parts.map(|part| text(&value(part))).join(":");
        let flags = wire.flags.and_then(number).unwrap_or(0);
        let target = if wire.is_overlong() { Err(libc::EINVAL) } else { Target::parse(wire) };
        Ok(Query {
            seq: seq_of(wire)?,
            key,
            target,
            options: Options {
                only_ipv6: flags & ONLY_IPV6 != 0,
                reuse_address: flags & REUSE_ADDRESS != 0,
                mode: wire.mode(),
                backlog: wire.backlog.and_then(number).and_then(backlog_of),
            },
            data: value(wire.data),
        })
    }
}

/// None and 0 mean the same to Node.
fn backlog_of(connections: u64) -> Option<u32> {
    let most = u32::try_from(connections).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
    (connections > 0).then_some(most)
}

impl Target {
    fn parse(wire: &Wire<'_>) -> Result<Self, i32> {
        if let Some(fd) = wire.fd.and_then(number) {
            return usize::try_from(fd).map(Target::Descriptor).map_err(|_| libc::EINVAL);
        }
        let index = wire.index.and_then(number).unwrap_or(0);
        let address = wire.address.and_then(message::text).filter(|address| !address.is_empty());
        let port = || wire.port.and_then(number).unwrap_or(0).try_into().map_err(|_| libc::EINVAL);
        let (kind, address_type) = kind_of(&value(wire.address_type));
        let candidates = match (address_type, address.as_deref()) {
            (AddressType::Path, Some(path)) => vec![unix(path)?],
            (AddressType::Path, None) => return Err(libc::EINVAL),
            (AddressType::Ip, Some(text)) => vec![kind(ip(text, port()?).ok_or(libc::EINVAL)?)],
            (AddressType::Ip, None) => anywhere(port()?).map(kind).into(),
        };
        Ok(Target::Addresses { candidates, index })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressType {
    Ip,
    Path,
}

/// 4 and 6 are TCP, -1 is a path, and UDP has names.
fn kind_of(address_type: &Value) -> (fn(SocketAddr) -> ListenAddress, AddressType) {
    match (address_type.as_str(), address_type.as_i64()) {
        (Some("udp4" | "udp6"), _) => (ListenAddress::Udp, AddressType::Ip),
        (_, Some(-1)) => (ListenAddress::Tcp, AddressType::Path),
        _ => (ListenAddress::Tcp, AddressType::Ip),
    }
}

/// No address means every interface: by IPv6, which takes IPv4 as well, or by IPv4 where there is no IPv6.
fn anywhere(port: u16) -> [SocketAddr; 2] {
    [SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)]
}

/// An address as Node has resolved it; `%` and a number may follow one of IPv6.
fn ip(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port));
    };
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, scope.parse().ok()?).into())
}

/// Older Node leaves the path as the program wrote it, relative to the worker's directory. An abstract name begins
/// with a NUL, behind the worker's directory, since Node takes it for a relative path.
fn unix(path: &str) -> Result<ListenAddress, i32> {
    let Some((before, name)) = path.split_once('\0') else {
        // A longer one could be bound in a roundabout way, and nobody could connect to it.
        return if path.len() > UNIX_PATH_BYTES {
            Err(libc::EINVAL)
        } else {
            Ok(ListenAddress::Unix(path.into()))
        };
    };
    let is_name =
        (before.is_empty() || before.ends_with('/')) && !name.is_empty() && name.len() <= UNIX_PATH_BYTES;
    if is_name { Ok(ListenAddress::Abstract(name.into())) } else { Err(libc::EINVAL) }
}

impl Query {
    /// Bytes that its answer takes while it waits: the key stands in two lines and in a list.
    pub(crate) fn cost(&self) -> usize {
        HANDLE_OVERHEAD + 3 * self.key.len()
    }

    /// A relative path becomes absolute, from the worker's directory.
    pub(crate) fn resolved(mut self, directory: &Path) -> Self {
        if let Ok(Target::Addresses { candidates, .. }) = &mut self.target {
            for candidate in candidates {
                match candidate {
                    ListenAddress::Unix(path) => *path = directory.join(&*path),
                    ListenAddress::Tcp(_) | ListenAddress::Udp(_) | ListenAddress::Abstract(_) => {}
                }
            }
        }
        self
    }
}

/// A line for a worker, and the descriptor that travels with it.
pub(crate) type Parcel<H> = (Vec<u8>, Option<H>);

/// The master's side of the conversation with one worker. `H` is a descriptor, or stands for one.
#[derive(Debug)]
pub(crate) struct Peer<H> {
    seq: u64,
    state: State<H>,
}

#[derive(Debug)]
enum State<H> {
    /// It has not asked to listen.
    Silent,
    Serving {
        /// The listeners it has open, by key; the names are the master's.
        held: BTreeMap<String, String>,
        /// The first is on its way; the next goes when that has come.
        handles: VecDeque<Handle<H>>,
    },
    /// Told to disconnect, or going by itself: what it still asks for is not answered.
    Leaving,
}

#[derive(Debug)]
struct Handle<H> {
    key: String,
    line: Vec<u8>,
    descriptor: H,
    tries: u32,
    /// The answer if it never comes.
    failure: Vec<u8>,
}

/// Whether a query is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attention {
    Answer,
    /// It is leaving, and would have to close at once what it got: Node's own master is silent too.
    Ignore,
}

/// How a worker is told to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    Line(Vec<u8>),
    Signal,
    /// It was told before.
    Said,
}

/// A socket that answers a query.
pub(crate) struct Grant<H> {
    pub(crate) handle: H,
    pub(crate) kind: HandleKind,
    /// The master's name of the listener: a worker has each open once at most.
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl<H> Grant<H> {
    pub(crate) fn map<T>(self, change: impl FnOnce(H) -> T) -> Grant<T> {
        let Grant { handle, kind, name, data } = self;
        Grant { handle: change(handle), kind, name, data }
    }
}

impl<H: Clone> Peer<H> {
    pub(crate) fn new() -> Self {
        Peer { seq: 0, state: State::Silent }
    }

    /// It asks to listen, or says hello: from now on it is told to go in Node's own way. Answers whether it is
    /// to have an answer.
    pub(crate) fn asks(&mut self) -> Attention {
        match self.state {
            State::Silent => {
                self.state = State::Serving { held: BTreeMap::new(), handles: VecDeque::new() };
                Attention::Answer
            }
            State::Serving { .. } => Attention::Answer,
            State::Leaving => Attention::Ignore,
        }
    }

    /// How it is told to go: by Node's disconnect, after which it stops accepting, closes the channel and ends
    /// once its work is done. A signal on top would lose the request in hand. One that never asked to listen
    /// would have no reason to end, so there it is the signal alone.
    pub(crate) fn dismiss(&mut self) -> Farewell {
        match std::mem::replace(&mut self.state, State::Leaving) {
            State::Silent => Farewell::Signal,
            State::Serving { .. } => Farewell::Line(self.cluster(json!({ "act": "disconnect" }))),
            State::Leaving => Farewell::Said,
        }
    }

    /// It goes by itself, which it waits to be allowed.
    pub(crate) fn allow_leaving(&mut self, seq: u64) -> Vec<u8> {
        self.state = State::Leaving;
        self.cluster(json!({ "ack": seq }))
    }

    /// The answer to a query that cannot be met: the worker sees the error of this (positive) errno.
    pub(crate) fn refuse(&mut self, query: &Query, errno: i32) -> Vec<u8> {
        self.cluster(reply(query, errno, &Value::Null))
    }

    /// Answers a query with a socket; `None` if another is still on its way, after which this one goes.
    pub(crate) fn grant(&mut self, query: &Query, grant: Grant<H>) -> Option<Parcel<H>> {
        let Grant { handle, kind, name, data } = grant;
        let twice = |held: &BTreeMap<String, String>| held.values().any(|known| *known == name);
        match &self.state {
            State::Silent | State::Leaving => return None,
            State::Serving { held, .. } if twice(held) => {
                return Some((self.refuse(query, libc::EADDRINUSE), None));
            }
            State::Serving { .. } => {}
        }
        let kind = match kind {
            HandleKind::Stream => "net.Native",
            HandleKind::Datagram => "dgram.Native",
        };
        let answer = self.numbered(reply(query, 0, &data));
        let line = line(&json!({ "cmd": "NODE_HANDLE", "type": kind, "msg": answer }));
        let failure = self.refuse(query, libc::EMFILE);
        let State::Serving { held, handles } = &mut self.state else { return None };
        held.insert(query.key.clone(), name);
        handles.push_back(Handle { key: query.key.clone(), line, descriptor: handle, tries: 0, failure });
        if handles.len() == 1 { self.send_first() } else { None }
    }

    /// The handle has come: the next one, if any.
    pub(crate) fn arrived(&mut self) -> Option<Parcel<H>> {
        if let State::Serving { handles, .. } = &mut self.state {
            handles.pop_front();
        }
        self.send_first()
    }

    /// The handle has not come: it goes again, or its query fails and the next goes.
    pub(crate) fn lost(&mut self) -> Vec<Parcel<H>> {
        let State::Serving { held, handles } = &mut self.state else { return Vec::new() };
        let given_up = handles.front().is_some_and(|first| first.tries >= TRIES);
        let failed = if given_up { handles.pop_front() } else { None };
        let failed = failed.map(|handle| {
            held.remove(&handle.key);
            (handle.failure, None)
        });
        failed.into_iter().chain(self.send_first()).collect()
    }

    /// It has closed the listener of this key.
    pub(crate) fn closed(&mut self, key: &str) {
        if let State::Serving { held, .. } = &mut self.state {
            held.remove(key);
        }
    }

    fn send_first(&mut self) -> Option<Parcel<H>> {
        let State::Serving { handles, .. } = &mut self.state else { return None };
        let first = handles.front_mut()?;
        first.tries += 1;
        Some((first.line.clone(), Some(first.descriptor.clone())))
    }

    fn cluster(&mut self, message: Value) -> Vec<u8> {
        line(&self.numbered(message))
    }

    fn numbered(&mut self, mut message: Value) -> Value {
        message["cmd"] = json!("NODE_CLUSTER");
        message["seq"] = json!(self.seq);
        self.seq += 1;
        message
    }
}

/// To a worker that has sent a handle with a message: it may go on.
pub(crate) fn gift_arrived() -> Vec<u8> {
    line(&json!({ "cmd": "NODE_HANDLE_ACK" }))
}

fn reply(query: &Query, errno: i32, data: &Value) -> Value {
    json!({ "errno": -errno, "key": query.key, "ack": query.seq, "data": data })
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

#[cfg(test)]
mod tests;
