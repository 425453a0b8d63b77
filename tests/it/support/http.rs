//! A small HTTP/1.1 client on a bare socket, so that requests no library would send can be sent too.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::DEADLINE;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connected socket of either kind.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub fn connect(place: &Place) -> io::Result<Self> {
        let socket = match place {
            Place::Tcp(address) => Self::Tcp(TcpStream::connect_timeout(address, DEADLINE)?),
            Place::Unix(path) => Self::Unix(UnixStream::connect(path)?),
        };
        match &socket {
            Self::Tcp(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(DEADLINE))?;
                tcp.set_write_timeout(Some(DEADLINE))?;
            }
            Self::Unix(unix) => {
                unix.set_read_timeout(Some(DEADLINE))?;
                unix.set_write_timeout(Some(DEADLINE))?;
            }
        }
        Ok(socket)
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(tcp) => Self::Tcp(tcp.try_clone()?),
            Self::Unix(unix) => Self::Unix(unix.try_clone()?),
        })
    }

    /// Waits for this long instead of the usual deadline.
    pub fn patience(&self, span: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_read_timeout(Some(span)),
            Self::Unix(unix) => unix.set_read_timeout(Some(span)),
        }
    }

    pub fn shutdown(&self) {
        let _ = match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Both),
            Self::Unix(unix) => unix.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buffer),
            Self::Unix(unix) => unix.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Unix(unix) => unix.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header that stands at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        first
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            status: status.ok_or_else(|| io::Error::other(format!("no status line in {text:?}")))?,
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        })
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}: {:?}", self.text()))
    }

    /// The body as NDJSON.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"))).collect()
    }

    /// The same answer, which must have this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The problem document that this answer must be.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status(), status, "expected {code}: {}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        check_problem(&problem, status, code);
        problem
    }
}

/// Asserts that a value is a whole problem document of this kind.
pub fn check_problem(problem: &Value, status: u16, code: &str) {
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    let page = problem["type"].as_str().unwrap_or_default();
    assert!(page.ends_with(&format!("/problems/{code}")), "{problem}");
    for field in ["title", "detail"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "no {field} in {problem}");
    }
}

/// A connection with what was read but not used yet.
pub struct Connection {
    socket: Socket,
    unread: Vec<u8>,
    chunked: bool,
}

impl Connection {
    pub fn open(place: &Place) -> io::Result<Self> {
        Ok(Self { socket: Socket::connect(place)?, unread: Vec::new(), chunked: false })
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads the head of the next answer.
    pub fn head(&mut self) -> io::Result<Head> {
        let end = self.find(b"\r\n\r\n")?;
        let text = String::from_utf8(self.take(end)).map_err(io::Error::other)?;
        let head = Head::parse(text.trim_end())?;
        self.chunked = head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        Ok(head)
    }

    /// Reads a whole answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Ok(Answer { head, body })
    }

    fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.chunked {
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
        } else if let Some(length) = head.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            while self.unread.len() < length {
                self.fill()?;
            }
            body = self.take(length);
        }
        Ok(body)
    }

    /// The next chunk of a chunked body; `None` at its proper end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = self.find(b"\r\n")?;
        let line = String::from_utf8(self.take(end)).map_err(io::Error::other)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        while self.unread.len() < length + 2 {
            self.fill()?;
        }
        let mut chunk = self.take(length + 2);
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }

    /// So many bytes, whatever they are.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.fill()?;
        }
        Ok(self.take(length))
    }

    /// Whether the server closes, with nothing more to say.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.fill().is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock)
    }

    fn find(&mut self, pattern: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = self.unread.windows(pattern.len()).position(|window| window == pattern) {
                return Ok(at + pattern.len());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.unread.drain(..length).collect()
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    pub fn put(target: &str) -> Self {
        Self::new("PUT", target)
    }

    pub fn delete(target: &str) -> Self {
        Self::new("DELETE", target)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn bearer(self, credential: &str) -> Self {
        self.header("authorization", format!("Bearer {credential}"))
    }

    pub fn body(mut self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        if content_type.is_empty() { self } else { self.header("content-type", content_type) }
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn ndjson(self, lines: &[Value]) -> Self {
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        self.body("application/x-ndjson", lines.join("\n"))
    }

    /// The request as it goes over the wire. `Host` and `Content-Length` are added where they are missing.
    pub fn to_bytes(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        if !has("host") {
            line("host", b"localhost");
        }
        if !has("content-length") && !has("transfer-encoding") && self.method != "GET" {
            line("content-length", self.body.len().to_string().as_bytes());
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it on a connection of its own.
    ///
    /// # Errors
    /// Where the server is gone, or goes meanwhile.
    pub fn attempt(&self, place: &Place) -> io::Result<Answer> {
        let mut connection = Connection::open(place)?;
        connection.send(&self.clone().header("connection", "close").to_bytes())?;
        connection.answer()
    }

    /// Sends it to a server that must answer.
    pub fn send(&self, place: &Place) -> Answer {
        self.attempt(place).unwrap_or_else(|e| panic!("{} {}: {e}", self.method, self.target))
    }

    /// Sends it, and reads no more than the head where a stream begins.
    pub fn glance(&self, place: &Place) -> Answer {
        let mut connection = Connection::open(place).expect("the server accepts");
        connection.send(&self.clone().header("connection", "close").to_bytes()).expect("the server reads");
        let head = connection.head().expect("the server answers");
        if head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Answer { head, body: Vec::new() };
        }
        let body = connection.body(&head).expect("the server answers");
        Answer { head, body }
    }
}
