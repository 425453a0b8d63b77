//! One connection to RabbitMQ: the socket, TLS on it, and the login.
//!
//! lapin opens sockets by itself, and its own TLS would bring a second tree of crates for certificates. It also has a seam for
//! sockets of others: ours are opened here, with the one configuration of `tls`, and are all that lapin reads and writes.
//!
//! **Invariant**: with `amqps://` nothing is said, and no password, to a side whose certificate was not checked.
//! **Invariant**: after [`Line::hold`] not another byte is read, whatever RabbitMQ still sends. What is said to it goes out all the
//! same, until [`Line::cut`].

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::{DummyIO, RuntimeParts};
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::{Address, Scheme};
use super::{Config, address};
use crate::tls::{self, TrustError};

/// How long RabbitMQ may take for one step of opening or closing.
const ANSWER: Duration = Duration::from_secs(15);
/// Silence after which a connection counts as lost is twice this; RabbitMQ may ask for less.
const HEARTBEAT_S: u16 = 20;
/// The password of RabbitMQ's own user.
const GUEST: &str = "guest";

/// Why the queue is not consumed any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("RabbitMQ did not answer in time while {0}")]
    Silent(&'static str),
    #[error("{doing} failed: {source}")]
    Amqp { doing: &'static str, source: Box<lapin::Error> },
    /// No TLS; the reason, in words for the operator.
    #[error("{0}")]
    Tls(String),
    #[error("RabbitMQ ended the consumer: was the queue deleted, or its node stopped?")]
    Cancelled,
    #[error(
        "messages larger than amqp.max_message hold more than {0} bytes of memory; they come again and are taken one at a time"
    )]
    Flooded(u64),
    #[error("the session panicked; the log has where")]
    Panic,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
enum TlsFault {
    #[error(
        "{0} shows a certificate that is not trusted: {1}. The host in amqp.url must be a name in the certificate, and its \
         authority one of this machine's or in amqp.ca_file"
    )]
    Certificate(String, TlsError),
    #[error("{0} speaks no TLS that we understand: {1}. RabbitMQ's port for it is {port} unless it was told otherwise", port = address::TLS_PORT)]
    Tls(String, io::Error),
    #[error("amqp.ca_file: {0}")]
    Trust(#[from] TrustError),
    #[error("{0} can't be a name in a certificate")]
    Name(String),
}

/// Gives a step of the protocol its time.
pub(super) async fn within<T>(
    doing: &'static str,
    step: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Lost> {
    let done = timeout(ANSWER, step).await.map_err(|_| Lost::Silent(doing))?;
    done.map_err(|source| Lost::Amqp { doing, source: Box::new(source) })
}

/// A connection that is open.
pub(super) struct Line {
    pub connection: Connection,
    ear: Ear,
}

/// Whether a socket is read; shared by the line and its socket.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Hearing>>);

#[derive(Default)]
enum Hearing {
    #[default]
    Open,
    /// Not for now; who wanted to read is woken when that ends.
    Held(Option<Waker>),
    Cut,
}

impl Ear {
    fn hold(&self) {
        let mut hearing = self.0.lock();
        if let Hearing::Open = *hearing {
            *hearing = Hearing::Held(None);
        }
    }

    fn cut(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), Hearing::Cut);
        if let Hearing::Held(Some(waiting)) = before {
            waiting.wake();
        }
    }

    /// Ready where it may be read.
    fn poll_open(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.lock() {
            Hearing::Open => Poll::Ready(Ok(())),
            Hearing::Held(waiting) => {
                *waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            Hearing::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl Line {
    /// Connects and logs in. `name` is what RabbitMQ shows of the connection.
    ///
    /// # Errors
    /// [`Lost`], whose text says what to do where it is TLS that fails.
    pub async fn open(config: &Config, name: &str) -> Result<Self, Lost> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tokio = Tokio::current();
        let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)));
        let ear = Ear::default();
        let (address, authority, shared) = (config.address.clone(), config.ca_file.clone(), ear.clone());
        // Runs in a thread of lapin's, where reading a file holds up nobody.
        let open = async move |_: AMQPUri, _: Runtime<Kit>| {
            let opened = timeout(ANSWER, socket(&address, authority.as_deref())).await;
            let bytes = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            Ok(AsyncTcpStream::Plain(Socket { bytes, ear: shared.clone() }))
        };
        let connected = within("connecting", Connection::connector(uri(config), runtime, open, properties)).await;
        Ok(Self { connection: connected.map_err(in_our_words)?, ear })
    }

    /// Reads no more, and goes on writing. RabbitMQ notices when its own buffers are full.
    pub fn hold(&self) {
        self.ear.hold();
    }

    /// Ends it: lapin finds its socket broken, and what it has put together goes with it.
    pub fn cut(&self) {
        self.ear.cut();
    }
}

fn uri(config: &Config) -> AMQPUri {
    let Address { scheme, user, host, port, vhost } = config.address.clone();
    let password = config.password.as_ref().map_or(GUEST, |password| &password.0).to_owned();
    let scheme = match scheme {
        Scheme::Amqp => AMQPScheme::AMQP,
        Scheme::Amqps => AMQPScheme::AMQPS,
    };
    AMQPUri {
        scheme,
        authority: AMQPAuthority { userinfo: AMQPUserInfo { username: user, password }, host, port },
        vhost,
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
    }
}

/// What failed at TLS comes out of lapin as an error of the socket.
fn in_our_words(lost: Lost) -> Lost {
    if let Lost::Amqp { source, .. } = &lost
        && let ErrorKind::IOError(error) = source.kind()
        && let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFault>())
    {
        return Lost::Tls(fault.to_string());
    }
    lost
}

/// Connects, and begins TLS where the address asks for it.
async fn socket(address: &Address, authority: Option<&Path>) -> io::Result<Box<dyn Bytes>> {
    let host = address.host.as_str();
    let tcp = TcpStream::connect((host, address.port)).await?;
    tcp.set_nodelay(true)?;
    match address.scheme {
        Scheme::Amqp => Ok(Box::new(tcp)),
        Scheme::Amqps => encrypted(host, tcp, authority).await.map_err(io::Error::other),
    }
}

async fn encrypted(host: &str, tcp: TcpStream, authority: Option<&Path>) -> Result<Box<dyn Bytes>, TlsFault> {
    let trusted = Arc::new(tls::client(authority)?);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsFault::Name(host.to_owned()))?;
    let begun = TlsConnector::from(trusted).connect(name, tcp).await;
    let stream = begun.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(refused @ TlsError::InvalidCertificate(_)) => TlsFault::Certificate(host.to_owned(), refused.clone()),
        _ => TlsFault::Tls(host.to_owned(), error),
    })?;
    Ok(Box::new(stream))
}

/// What carries bytes: TCP, or TLS on it.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// A socket as lapin takes it.
struct Socket {
    bytes: Box<dyn Bytes>,
    ear: Ear,
}

impl futures_io::AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.ear.poll_open(cx))?;
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(&mut self.bytes).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }
}

impl futures_io::AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write_vectored(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

/// What lapin runs on: tokio, with sockets of our own.
type Kit = RuntimeParts<Tokio, Sockets>;

/// Times are tokio's; sockets are made by [`socket`], which [`Line::open`] hands over.
#[derive(Clone)]
struct Sockets(Tokio);

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

impl Reactor for Sockets {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        Err::<DummyIO, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, span: Duration) -> Self::Sleep {
        self.0.sleep(span)
    }

    fn interval(&self, span: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(span)
    }

    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        // No address is resolved but by `socket`.
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use futures_util::future::join;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_line_on_hold_is_not_read_and_is_written_until_it_is_cut() {
        let (near, mut far) = tokio::io::duplex(64);
        let ear = Ear::default();
        let mut socket = Socket { bytes: Box::new(near), ear: ear.clone() };
        far.write_all(b"heard").await.expect("there is room");
        assert_eq!(read(&mut socket).await.expect("it is open"), 5);

        ear.hold();
        far.write_all(b"unheard").await.expect("there is room");
        assert!(read(&mut socket).now_or_never().is_none(), "nothing is read");
        let said = poll_fn(|cx| futures_io::AsyncWrite::poll_write(Pin::new(&mut socket), cx, b"done")).await;
        assert_eq!(said.expect("it is written"), 4);
        let mut told = [0; 4];
        far.read_exact(&mut told).await.expect("it came");
        assert_eq!(&told, b"done");

        // Whoever wanted to read finds out.
        let (broken, ()) = timeout(ANSWER, join(read(&mut socket), async { ear.cut() })).await.expect("it is woken");
        assert_eq!(broken.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionAborted));
        ear.hold();
        assert!(read(&mut socket).await.is_err(), "what is cut stays so");
    }

    async fn read(socket: &mut Socket) -> io::Result<usize> {
        let mut into = [0; 8];
        poll_fn(|cx| futures_io::AsyncRead::poll_read(Pin::new(socket), cx, &mut into)).await
    }
}
