//! A request as it comes in from outside, piece by piece. Pure.

use super::asked::BODY_LIMIT;
use super::request::title;

/// The longest request line and headers.
const HEAD_LIMIT: usize = 8 << 10;
/// More headers than any client sends.
const MOST_HEADERS: usize = 64;
/// The longest body with all that its chunks add to it.
const CHUNKED_LIMIT: usize = 2 * BODY_LIMIT;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: impl Into<String>) -> Self {
        Refusal { status, reason: reason.into() }
    }
}

/// The request line and the headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// The path and what follows it; visible ASCII.
    pub(super) target: String,
    /// Names in small letters.
    headers: Vec<(String, String)>,
    /// How many bytes all this took.
    pub(super) length: usize,
    pub(super) body: Body,
}

/// How the body's end is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Exactly(usize),
    Chunked(Chunks),
}

/// A body in chunks, as far as they have come in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    decoded: Vec<u8>,
    /// How many bytes of the connection that took.
    taken: usize,
}

impl Head {
    /// `None` while more of it is to come.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        Head::read_within(HEAD_LIMIT, bytes)
    }

    /// The same of what the gate has written, which is longer than what it has read.
    pub(super) fn read_again(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        Head::read_within(2 * HEAD_LIMIT, bytes)
    }

    fn read_within(limit: usize, bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length <= limit => length,
            Ok(httparse::Status::Partial) if bytes.len() < limit => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::new(
                    431,
                    format!("a header may have {HEAD_LIMIT} bytes and {MOST_HEADERS} lines"),
                ));
            }
            Err(httparse::Error::Version) => return Err(Refusal::new(505, "HTTP/1.1 or HTTP/1.0")),
            Err(error) => return Err(Refusal::new(400, format!("no HTTP request: {error}"))),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let headers =
            request.headers.iter().map(|header| (header.name.to_ascii_lowercase(), text(header.value)));
        let mut head = Head {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            headers: headers.collect(),
            length,
            body: Body::Exactly(0),
        };
        head.check_target()?;
        head.check_host(request.version == Some(1))?;
        head.body = head.framing(request.version == Some(1))?;
        Ok(Some(head))
    }

    fn check_target(&self) -> Result<(), Refusal> {
        if self.target.starts_with('/') && self.target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(());
        }
        Err(Refusal::new(400, "the path must begin with / and be visible ASCII"))
    }

    fn check_host(&self, needed: bool) -> Result<(), Refusal> {
        match self.values("host").count() {
            1 => Ok(()),
            0 if !needed => Ok(()),
            _ => Err(Refusal::new(400, "one Host header, please")),
        }
    }

    /// One way to tell the body's end and no other: whoever reads the same bytes must see the same request.
    fn framing(&self, has_chunks: bool) -> Result<Body, Refusal> {
        let lengths: Vec<&str> = self.values("content-length").collect();
        let codings: Vec<&str> = self.values("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(Body::Exactly(0)),
            ([length], []) => body_length(length).map(Body::Exactly),
            ([], [coding]) if !coding.eq_ignore_ascii_case("chunked") => {
                Err(Refusal::new(501, "no Transfer-Encoding but chunked"))
            }
            ([], [_]) if has_chunks => Ok(Body::Chunked(Chunks::default())),
            _ => Err(Refusal::new(400, "the length of the body is not told clearly")),
        }
    }

    /// What follows the `?`.
    pub(super) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The method and the path, for the log.
    pub(super) fn title(&self) -> String {
        title(&self.method, &self.target)
    }

    /// The same of a request that is not whole.
    pub(super) fn title_of(bytes: &[u8]) -> String {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ').map(|word| str::from_utf8(word).unwrap_or_default());
        match (words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(version))
                if version.starts_with("HTTP/")
                    && (method.to_owned() + target).bytes().all(|b| b.is_ascii_graphic()) =>
            {
                title(method, target)
            }
            _ => "a request".into(),
        }
    }

    /// The values of all headers of this name, which is in small letters.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// Whether the client sends its body only once it is asked to.
    pub(super) fn expects_continue(&self) -> bool {
        self.values("expect").any(|value| value.eq_ignore_ascii_case("100-continue"))
    }
}

fn body_length(text: &str) -> Result<usize, Refusal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new(400, "a Content-Length is a number"));
    }
    // A number that does not fit is too large like any other.
    text.parse().ok().filter(|length| *length <= BODY_LIMIT).ok_or_else(too_long)
}

fn too_long() -> Refusal {
    Refusal::new(413, format!("a body may have {BODY_LIMIT} bytes"))
}

impl Body {
    /// The body, once all of it is in `bytes`, which begin where it does.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        match self {
            Body::Exactly(length) => Ok(bytes.get(..*length).map(<[u8]>::to_vec)),
            Body::Chunked(chunks) => chunks.read(bytes),
        }
    }
}

impl Chunks {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let unclear = || Refusal::new(400, "that is no chunk");
        loop {
            let rest = bytes.get(self.taken..).unwrap_or_default();
            let size = httparse::parse_chunk_size(rest).map_err(|_| unclear())?;
            let httparse::Status::Complete((begin, size)) = size else { return unfinished(bytes) };
            let room = BODY_LIMIT - self.decoded.len();
            let size = usize::try_from(size).ok().filter(|size| *size <= room).ok_or_else(too_long)?;
            if size == 0 {
                // Headers may follow the last chunk; nobody here reads them.
                let end = rest[begin..].starts_with(b"\r\n")
                    || rest[begin..].windows(4).any(|end| end == b"\r\n\r\n");
                return if end { Ok(Some(std::mem::take(&mut self.decoded))) } else { unfinished(bytes) };
            }
            let Some(chunk) = rest.get(begin..begin + size + 2) else { return unfinished(bytes) };
            let data = chunk.strip_suffix(b"\r\n").ok_or_else(unclear)?;
            self.decoded.extend_from_slice(data);
            self.taken += begin + size + 2;
        }
    }
}

fn unfinished(bytes: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    if bytes.len() > CHUNKED_LIMIT { Err(too_long()) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> u16 {
        match Head::read(text.as_bytes()) {
            Ok(Some(_)) => 200,
            Ok(None) => 100,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn a_head_is_whole_unfinished_or_refused() {
        let table = [
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
            ("GET /restart?wait=30s HTTP/1.1\r\nhost: x\r\nX: \u{e4}\r\n\r\nmore", 200),
            ("GET / HTTP/1.0\r\n\r\n", 200),
            ("POST /send HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n", 200),
            ("POST /send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n", 200),
            ("", 100),
            ("GET / HT", 100),
            ("GET / HTTP/1.1\r\nHost: x\r\n", 100),
            ("GET /\r\n\r\n", 400),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505),
            ("\u{16}\u{3}\u{1}\u{2}", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
            ("GET http://localhost/restart HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET /\u{e4} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\n continued\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400),
        ];
        for (text, expected) in table {
            assert_eq!(status(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_end_of_a_body_is_told_in_one_way_only() {
        let table = [
            ("Content-Length: 0", 200),
            ("Content-Length:  7 ", 200),
            ("Content-Length: 65537", 413),
            ("Content-Length: 99999999999999999999999999", 413),
            ("Content-Length: 18446744073709551615", 413),
            ("Content-Length: -1", 400),
            ("Content-Length: +7", 400),
            ("Content-Length: 0x7", 400),
            ("Content-Length:", 400),
            ("Content-Length: 7, 7", 400),
            ("Content-Length: 7\r\nContent-Length: 7", 400),
            ("Content-Length: 7\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: xchunked", 501),
        ];
        for (headers, expected) in table {
            let text = format!("POST /send HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
            assert_eq!(status(&text), expected, "{headers}");
        }
        assert_eq!(status("POST /send HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn a_head_has_its_limits() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert_eq!(status(&long), 431);
        assert_eq!(status(&format!("{long}\r\n\r\n")), 431);
        assert_eq!(status(&format!("GET /{} HTTP/1.1", "x".repeat(HEAD_LIMIT))), 431);
        let lines = "X: x\r\n".repeat(MOST_HEADERS);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")), 431);
        let most = "X: x\r\n".repeat(MOST_HEADERS - 1);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{most}\r\n")), 200);
    }

    /// The body as it is known after each byte; the last word counts.
    fn chunked(text: &str) -> Result<Option<String>, u16> {
        let mut body = Body::Chunked(Chunks::default());
        let mut outcome = Ok(None);
        for end in 0..=text.len() {
            outcome = body.read(&text.as_bytes()[..end]);
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        let text = outcome.map(|body| body.map(|body| String::from_utf8(body).unwrap()));
        text.map_err(|refusal| refusal.status)
    }

    #[test]
    fn chunks_byte_by_byte() {
        let whole = |text: &str| Ok(Some(text.to_owned()));
        let table = [
            ("0\r\n\r\n", whole("")),
            ("3\r\nabc\r\n0\r\n\r\n", whole("abc")),
            ("3;x=y\r\nabc\r\n1\r\n\n\r\n0\r\nX: y\r\n\r\n", whole("abc\n")),
            ("3\r\nabc\r\n", Ok(None)),
            ("3\r\nabcd\r\n", Err(400)),
            ("x\r\n", Err(400)),
            ("-1\r\n", Err(400)),
            ("10001\r\n", Err(413)),
            ("ffffffffffffffff\r\n", Err(413)),
            ("fffffffffffffffff\r\n", Err(400)),
        ];
        for (text, expected) in table {
            assert_eq!(chunked(text), expected, "{text:?}");
        }
        let crumbs = "1\r\nx\r\n".repeat(BODY_LIMIT);
        assert_eq!(Body::Chunked(Chunks::default()).read(crumbs.as_bytes()), Err(too_long()));
        let extension = format!("1;{}", "x".repeat(CHUNKED_LIMIT));
        assert_eq!(
            Body::Chunked(Chunks::default()).read(extension.as_bytes()).map_err(|r| r.status),
            Err(413)
        );
    }

    #[test]
    fn a_body_of_known_length_is_cut_from_what_follows() {
        assert_eq!(Body::Exactly(3).read(b"ab"), Ok(None));
        assert_eq!(Body::Exactly(3).read(b"abcGET / HTTP/1.1"), Ok(Some(b"abc".to_vec())));
        assert_eq!(Body::Exactly(0).read(b""), Ok(Some(Vec::new())));
    }
}
