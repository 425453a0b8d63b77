//! The HTTP edge: from a socket's bytes to a call of the broker, and back.
//!
//! Data passes `connection` (hyper on one socket) -> `service` (limits, base path, CORS, panics) -> `router` (the one
//! table of routes) -> `auth` (who is calling, and may they) -> `api::*` or `stream` (parse with `wire`, call the
//! broker, answer) -> `Body` -> the socket.
//!
//! **Invariant**: this module sees only the broker, never the store or the hub; no hyper type leaves it.
//! **Invariant**: every refusal is a problem document made in `problem`, also those that hyper would have answered.
//! **Invariant**: deny by default: a route without an [`Access`] can't be written down.
//!
//! What it deliberately does not do: listen, accept and count connections (`server`), decide what a caller may see
//! (`broker`), terminate TLS.
//!
//! Rank 4: imports `broker` and below.

mod answer;
mod api;
mod assets;
mod auth;
mod body;
mod call;
mod compress;
mod connection;
mod cookie;
mod cors;
mod export;
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod lines;
mod network;
#[cfg(test)]
mod openapi;
mod problem;
mod query;
mod router;
mod service;
mod site;
mod socket;
mod stream;
pub mod upgrade;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use auth::Access;
pub use body::Body;
pub use connection::serve_connection;
pub use limits::{LIMITS, Limited, Limits, Rates};
pub use network::{Address, NoPeer, Peers};
pub use problem::{KINDS as PROBLEM_KINDS, Kind as ProblemKind};
pub use router::{Entry, ROUTES, Route, Verb};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{HeaderMap, HeaderName};
use tokio::sync::{mpsc, oneshot};
use tower_http::cors::CorsLayer;

use limits::Meters;
use stream::long_poll::Pace;

use crate::broker::Broker;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// What an operator may set about the edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// What stands before every path: empty, or `/tidings`, with no `/` at its end.
    pub base_path: String,
    /// Origins of other sites whose pages may call with credentials, each exactly as a browser sends it.
    pub origins: Vec<String>,
    /// Bytes of a request's body at most, batches apart.
    pub max_body: usize,
    /// Lines of a batch of publishes at most.
    pub max_batch_lines: usize,
    /// Bytes of a streamed body at most: a batch of publishes, a bulk of followers.
    pub max_batch_bytes: usize,
    /// Lines of a bulk of followers at most.
    pub max_bulk_lines: usize,
    /// Silence in the middle of a body after which it is given up.
    pub body_timeout: Duration,
    /// Time that a whole body may take, batches apart.
    pub body_deadline: Duration,
    /// Time that the head of a request may take; an idle connection is closed after it too.
    pub header_timeout: Duration,
    /// Time for which a client may accept no byte before its connection is cut.
    pub write_timeout: Duration,
    pub secure_cookies: SecureCookies,
    pub limits: Limits,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Peers,
    /// The header by which a proxy says whom it has signed in; `None` where none does.
    pub trusted_header: Option<TrustedHeader>,
    /// The demo's users; `None` on a real server, where nobody is signed in by a click.
    pub demo: Option<Demo>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_path: String::new(),
            origins: Vec::new(),
            max_body: 256 * 1024,
            max_batch_lines: 10_000,
            max_batch_bytes: 64 * 1024 * 1024,
            max_bulk_lines: 1_000_000,
            body_timeout: Duration::from_secs(30),
            body_deadline: Duration::from_mins(2),
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            secure_cookies: SecureCookies::default(),
            limits: Limits::default(),
            trusted_proxies: Peers::default(),
            trusted_header: None,
            demo: None,
        }
    }
}

/// A header that names the user whom a proxy has signed in.
#[derive(Clone, Debug)]
pub struct TrustedHeader {
    pub name: HeaderName,
    /// Who may send it; from anybody else it is not read.
    pub from: Peers,
}

/// When the session cookie is marked `Secure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecureCookies {
    /// Where a proxy says that the page came over TLS.
    #[default]
    Auto,
    Always,
}

/// What the demo signs people in with.
#[derive(Clone, Debug)]
pub struct Demo {
    pub users: Vec<DemoUser>,
}

/// One person of the demo.
#[derive(Clone)]
pub struct DemoUser {
    pub id: String,
    pub name: String,
    /// A user token with the scope `publish`.
    pub token: String,
}

impl fmt::Debug for DemoUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DemoUser").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
    /// Over the operator's unix socket.
    Operator,
    /// Over the listener for those who watch the server.
    Watcher,
}

impl Peer {
    /// Whether the connection comes over this machine's loopback. A unix socket is not meant: who may open that is
    /// the file system's to say.
    pub(crate) fn is_loopback(self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().to_canonical().is_loopback())
    }
}

/// Everything that a request needs, shared by all connections. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    broker: Broker,
    /// Replaced as a whole by a reload.
    config: ArcSwap<Config>,
    lifecycle: Lifecycle,
    /// What other origins may do; `None` where none may.
    cors: ArcSwapOption<CorsLayer>,
    /// How often clients poll.
    pace: Pace,
    meters: Meters,
    process: Process,
}

/// What only the process knows that this is part of.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Where to ask for the settings to be read again; `None` where nobody does that.
    pub reloads: Option<mpsc::Sender<Reload>>,
    /// Where it listens, for people.
    pub listens: Vec<String>,
}

/// A question to read the settings again. The answer names those that count only after a restart, or tells every fault,
/// a line each.
pub type Reload = oneshot::Sender<Result<Vec<&'static str>, String>>;

impl App {
    pub fn new(broker: Broker, config: Config, lifecycle: Lifecycle, process: Process) -> Self {
        let cors = ArcSwapOption::from_pointee(cors::layer(&config.origins));
        let meters = Meters::new(config.limits.rates, broker.metrics().clone());
        let config = ArcSwap::from_pointee(config);
        Self(Arc::new(Shared { broker, config, lifecycle, cors, pace: Pace::default(), meters, process }))
    }

    /// Goes on with other settings. The base path stays, since clients and proxies know it, and the demo.
    pub fn reconfigure(&self, config: Config) {
        let now = self.config();
        self.0.cors.store(cors::layer(&config.origins).map(Arc::new));
        self.0.meters.reconfigure(config.limits.rates);
        self.0.config.store(Arc::new(Config { base_path: now.base_path.clone(), demo: now.demo.clone(), ..config }));
    }

    /// Whether one more connection is taken from a peer. Proxies bring everybody's.
    pub fn admits(&self, peer: Peer) -> bool {
        let none = HeaderMap::new();
        let config = self.config();
        if config.trusted_proxies.contains(peer) {
            return true;
        }
        network::client(peer, &none, &config.trusted_proxies)
            .is_none_or(|address| self.meters().connect(address).is_ok())
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.0.broker
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.0.config.load_full()
    }

    pub(crate) fn cors(&self) -> Option<Arc<CorsLayer>> {
        self.0.cors.load_full()
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    pub(crate) fn process(&self) -> &Process {
        &self.0.process
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.0.lifecycle
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        self.0.broker.metrics()
    }
}
