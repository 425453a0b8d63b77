//! The server: build -> run -> drain.
//!
//! Build takes the state directory, reads the secrets and opens the broker. Run accepts on the listeners it is given until
//! the shutdown future it is given resolves. Drain says `bye` to every stream, waits for what is in flight, cuts what
//! outlives the deadline, lets the core commit what it holds, and leaves. The order is bind early, start late: sockets
//! are bound before the log is opened, so that whoever connects meanwhile waits in the kernel's queue.
//!
//! **Invariant**: listeners and the shutdown are arguments, so that tests run the same server without signals or ports.
//!
//! Deliberately not here: signals, logging and what a terminal shows (`cli`), and HTTP itself (`http`).
//!
//! Rank 5: imports `http`, `deliver`, `intake` and `broker`.

mod accept;
mod control;
pub mod file;
pub mod listen;
pub mod robots;
pub mod secrets;
pub mod state;
pub mod stopped;
mod systemd;
mod watchdog;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub use control::Control;

use accept::Gate;
use listen::{Listener, Role};
use robots::RobotError;
use state::{Need, StateDir, StateError};

use crate::broker::{self, Broker, Failure, KeyFile, OpenError, OperatorSecret, UnsubscribeKey};
use crate::clock::Clock;
use crate::deliver::{self, Adapter, Workers, dingtalk, email};
use crate::http::{self, App, Process};
use crate::intake::{self, Password};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::tls::{self, TrustError};

/// Connections of the command line, and of those who watch, each.
const OPERATOR_CONNECTIONS: usize = 32;
/// Files besides connections: the database and its readers, listeners, the runtime, operators. Where so few are allowed that this
/// would leave none, half of them are connections'.
const FILES_KEPT_FREE: usize = 64 + 2 * OPERATOR_CONNECTIONS;

/// How a server is built and how it ends.
#[derive(Clone, Debug)]
pub struct Config {
    /// Open connections at most; `None` is what the open-file limit allows.
    pub max_connections: Option<usize>,
    /// The secret of users' tokens; `None` is the state directory's own.
    pub jwt_secret_file: Option<PathBuf>,
    /// Further keys of users' tokens.
    pub jwt_keys: Vec<KeyFile>,
    pub deadlines: Deadlines,
    pub supervisor: Supervisor,
    pub http: http::Config,
    /// The queue that is consumed; its password is filled in from the file that it names.
    pub intake: Option<intake::Config>,
    /// Its secrets are filled in from the state directory.
    pub broker: broker::Config,
    /// Who carries what the outbox holds; `None` is nobody. Its secrets are filled in too.
    pub deliver: Option<deliver::Config>,
    /// The robots of DingTalk; their secrets are read from the files that are named here.
    pub robots: dingtalk::Settings,
}

/// Who is told that the server is ready, lives and stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervisor {
    /// systemd, where it started the process.
    Systemd,
    /// Nobody: the server is one command's, whatever started that.
    Nobody,
}

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Until connections that still live are cut.
    pub drain: Duration,
    /// Until the process leaves, whatever still runs; counted from the same moment.
    pub hard: Duration,
}

/// Why a server can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Mail(#[from] email::ConfigFault),
    #[error(transparent)]
    Robots(#[from] RobotError),
    #[error("[amqp] ca_file: {0}")]
    Queue(TrustError),
}

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything said goodbye in time.
    Drained,
    /// The log can't be written any more, for this reason; what was acknowledged is in it. A new start reads it again.
    Failed(Failure),
    /// The hard deadline passed while the core still worked. What was acknowledged is on disk all the same.
    TimedOut,
}

/// A server that is ready to run.
pub struct Server {
    config: Config,
    /// Held until the end: nobody else may write the log while we might.
    state: StateDir,
    broker: Broker,
    app: App,
    /// One for each medium that is set up.
    carriers: Vec<Arc<dyn Adapter>>,
    lifecycle: Lifecycle,
}

impl Server {
    /// Reads the secrets of the state directory, making those that are missing, and opens the broker on it.
    ///
    /// # Errors
    /// [`BuildError`], whose text says what to do.
    pub async fn build(mut config: Config, state: StateDir, process: Process) -> Result<Self, BuildError> {
        fit_subscribers(&mut config.broker.hub.max_subscribers, connections_at_most(config.max_connections));
        config.read_keys(state.path())?;
        config.read_password()?;
        // Made before the log is opened, so that a set-up that can't work refuses the start.
        let clock = Clock::system();
        let carriers = config.carriers(&clock)?;
        if let Some(file) = config.intake.as_ref().and_then(|intake| intake.ca_file.as_deref()) {
            tls::client(Some(file)).map_err(BuildError::Queue)?;
        }
        config.broker.operator_secret = Some(OperatorSecret(state.new_operator_credential()?));
        let (metrics, lifecycle) = (Arc::new(Metrics::default()), Lifecycle::default());
        let broker = Broker::open(state.path(), config.broker.clone(), clock, metrics.clone(), &lifecycle).await?;
        metrics.start_time.set(broker.clock().now().as_seconds());
        metrics.sockets_max.set(i64::try_from(connections_at_most(config.max_connections)).unwrap_or(i64::MAX));
        let app = App::new(broker.clone(), config.http.clone(), lifecycle.clone(), process);
        Ok(Self { config, state, broker, app, carriers, lifecycle })
    }

    /// A way to give the server other settings while it runs.
    pub fn control(&self) -> Control {
        Control::new(self.app.clone(), self.state.path().to_owned(), self.config.supervisor)
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Serves on the listeners until `shutdown` resolves, then drains.
    pub async fn run(self, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) -> Ended {
        let Self { config, state, broker, app, carriers, lifecycle } = self;
        let (stopped, cut) = (CancellationToken::new(), CancellationToken::new());
        let public = listeners.iter().filter(|listener| listener.role == Role::Public).count();
        let gate = |permits: usize| Gate {
            app: app.clone(),
            lifecycle: lifecycle.clone(),
            permits: Arc::new(Semaphore::new(permits)),
            cut: cut.clone(),
        };
        let (everybody, operators, watchers) =
            (gate(permits(config.max_connections, public)), gate(OPERATOR_CONNECTIONS), gate(OPERATOR_CONNECTIONS));
        if let Some(deliver) = config.deliver {
            // It must have given back what it can before connections are cut.
            let (grace, patience) = (config.deadlines.drain * 4 / 5, deliver.patience());
            let workers = Workers { patience, grace, ..deliver.workers };
            deliver::start(broker.clone(), carriers, workers, &lifecycle);
        }
        // Before anybody can ask how the queue is.
        if let Some(intake) = config.intake {
            intake::start(broker.clone(), intake, &lifecycle);
        }
        let status = status(&listeners);
        let mut probes = Vec::new();
        for listener in listeners {
            let (probe, probed) = mpsc::channel(1);
            probes.push(probe);
            let gate = match listener.role {
                Role::Public => &everybody,
                Role::Operator => &operators,
                Role::Watcher => &watchers,
            };
            lifecycle.spawn_edge(gate.clone().accept_all(listener, probed));
        }
        let dog = watchdog::Watchdog { broker: broker.clone(), probes, supervisor: config.supervisor };
        lifecycle.spawn_core(dog.run(stopped.clone(), lifecycle.clone()));
        // Connections hold what they need; when they have ended, nothing here keeps the broker alive.
        drop((everybody, operators, watchers, app));
        if config.supervisor == Supervisor::Systemd {
            systemd::ready(&status);
        }
        tracing::info!(data = %state.path().display(), "{status}");

        let failure = tokio::select! {
            () = shutdown => None,
            reason = broker.failed() => Some(reason),
        };
        if let Some(reason) = &failure {
            tracing::error!(
                %reason,
                "The log can't be written any more; leaving, so that a new start reads what is durable"
            );
        }
        if config.supervisor == Supervisor::Systemd {
            systemd::stopping();
        }
        let ended = Drain { lifecycle, cut, stopped, deadlines: config.deadlines }.run(broker).await;
        // Last of all: only now may another process open the log.
        drop(state);
        failure.map_or(ended, Ended::Failed)
    }
}

/// What the end needs.
struct Drain {
    lifecycle: Lifecycle,
    /// Ends connections.
    cut: CancellationToken,
    /// Ends what watches over the server itself.
    stopped: CancellationToken,
    deadlines: Deadlines,
}

impl Drain {
    async fn run(self, broker: Broker) -> Ended {
        let begun = Instant::now();
        let left = || self.deadlines.hard.saturating_sub(begun.elapsed());
        tracing::info!(deadline_ms = self.deadlines.drain.as_millis(), "Draining: no new connections, streams say bye");
        self.lifecycle.drain();
        broker.drain().await;
        // The core ends with its last user; connections are the others.
        drop(broker);
        if !self.lifecycle.edges_ended(self.deadlines.drain).await {
            tracing::warn!("Connections outlived the drain and are cut; what they had acknowledged is on disk");
            self.cut.cancel();
            self.lifecycle.edges_ended(left()).await;
        }
        self.stopped.cancel();
        if self.lifecycle.core_ended(left()).await {
            tracing::info!(duration_ms = begun.elapsed().as_millis(), "Drained");
            Ended::Drained
        } else {
            tracing::error!("The core did not end within the hard deadline; leaving all the same");
            Ended::TimedOut
        }
    }
}

/// A permit for each connection, and one more for each listener but one: a listener holds one while it waits, and must
/// not starve the others of the last. So connections may exceed the limit by as many.
fn permits(wanted: Option<usize>, listeners: usize) -> usize {
    (connections_at_most(wanted) + listeners.saturating_sub(1)).min(Semaphore::MAX_PERMITS)
}

/// Connections that streams may not take, so that publishes and probes are answered when no further stream is; half of
/// them where there are few.
const REQUESTS_KEPT_FREE: usize = 128;

/// Fits the streams into the connections: one too many must be told so, and could not be without a connection.
fn fit_subscribers(wanted: &mut usize, connections: usize) {
    let fitting = connections.saturating_sub(REQUESTS_KEPT_FREE).max(connections / 2).max(1);
    if *wanted > fitting {
        tracing::warn!(wanted, fitting, "Connections allow fewer streams than [streams] max");
        *wanted = fitting;
    }
}

/// Raises the open-file limit as far as allowed and fits the connections into it.
fn connections_at_most(wanted: Option<usize>) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit.current = limit.maximum;
        }
    }
    // `None` is no limit.
    let files = limit.current.map_or(Semaphore::MAX_PERMITS, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let fitting = files.saturating_sub(FILES_KEPT_FREE).max(files / 2).clamp(1, Semaphore::MAX_PERMITS);
    match wanted {
        Some(wanted) if wanted > fitting => {
            tracing::warn!(wanted, fitting, "The open-file limit allows fewer connections than [http] max_connections");
            fitting
        }
        Some(wanted) => wanted,
        None => fitting,
    }
}

fn status(listeners: &[Listener]) -> String {
    format!("Listening on {}", places(listeners).join(" and "))
}

/// Where the public listens, for people.
pub fn places(listeners: &[Listener]) -> Vec<String> {
    let public = listeners.iter().filter(|listener| listener.role == Role::Public);
    let place = |listener: &Listener| match (listener.address(), listener.path()) {
        (Some(address), _) => Some(format!("http://{address}")),
        (None, path) => path.map(|path| path.display().to_string()),
    };
    public.filter_map(place).collect()
}

impl Config {
    /// Fills in the keys of users' tokens and of links, and passwords.
    fn read_keys(&mut self, data: &Path) -> Result<(), StateError> {
        self.broker.jwt.secret = state::token_secret(data, self.jwt_secret_file.as_deref())?;
        self.broker.jwt.keys = secrets::verifying_keys(&self.jwt_keys)?;
        let mail = self.deliver.as_mut().and_then(|deliver| deliver.email.as_mut());
        let need = if mail.is_some() { Need::Now } else { Need::None };
        self.broker.unsubscribe = state::unsubscribe_secret(data, need)?.map(|secret| UnsubscribeKey::new(&secret));
        if let Some(mail) = mail {
            mail.unsubscribe.clone_from(&self.broker.unsubscribe);
            if let Some(path) = &mail.password_file {
                mail.relay.set_password(secrets::password(path)?);
            }
        }
        Ok(())
    }

    /// What carries each medium that is set up; nothing where nothing is carried.
    fn carriers(&self, clock: &Clock) -> Result<Vec<Arc<dyn Adapter>>, BuildError> {
        let mut carriers: Vec<Arc<dyn Adapter>> = Vec::new();
        let Some(deliver) = &self.deliver else { return Ok(carriers) };
        if let Some(mail) = &deliver.email {
            carriers.push(Arc::new(email::Email::new(email::Config::clone(mail))?));
        }
        if !self.robots.robots.is_empty() {
            carriers.push(Arc::new(robots::dingtalk(&self.robots, clock)?));
        }
        Ok(carriers)
    }

    /// Fills in the password of the queue.
    fn read_password(&mut self) -> Result<(), StateError> {
        if let Some(intake) = &mut self.intake
            && let Some(file) = &intake.password_file
        {
            intake.password = Some(Password(secrets::password(file)?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixStream};
    use tokio::sync::oneshot;

    use super::listen::{Addresses, Inherited};
    use super::*;

    fn config(deadlines: Deadlines) -> Config {
        Config {
            max_connections: Some(1),
            jwt_secret_file: None,
            jwt_keys: Vec::new(),
            deadlines,
            supervisor: Supervisor::Nobody,
            http: http::Config::default(),
            intake: None,
            broker: broker::Config::default(),
            deliver: None,
            robots: dingtalk::Settings::default(),
        }
    }

    fn listeners(folder: &Path) -> Vec<Listener> {
        let tcp = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        let addresses = Addresses {
            tcp,
            unix: Some(folder.join("t.sock")),
            unix_mode: 0o600,
            operator: folder.join("ops.sock"),
            watcher: None,
        };
        listen::listen(&addresses, Inherited::default()).expect("free")
    }

    async fn is_healthy(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> bool {
        let ask = b"GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        socket.write_all(ask).await.expect("the server reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("the server answers");
        answer.starts_with("HTTP/1.1 200 ")
    }

    #[tokio::test]
    async fn one_place_serves_every_listener_and_the_end_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(folder.path()).expect("free");
        let listeners = listeners(folder.path());
        let tcp = listen::tcp_address(&listeners, Role::Public).expect("one is TCP");
        let deadlines = Deadlines { drain: Duration::from_secs(5), hard: Duration::from_secs(30) };
        let server = Server::build(config(deadlines), state, Process::default()).await.expect("a new log");
        let (stop, stopped) = oneshot::channel::<()>();
        let visit = async {
            for _ in 0..3 {
                assert!(is_healthy(TcpStream::connect(tcp).await.expect("it listens")).await);
                assert!(is_healthy(UnixStream::connect(folder.path().join("t.sock")).await.expect("it listens")).await);
            }
            stop.send(()).expect("the server runs");
        };
        let (ended, ()) = tokio::join!(server.run(listeners, async { stopped.await.unwrap_or_default() }), visit);
        assert_eq!(ended, Ended::Drained);
        assert!(!folder.path().join("t.sock").exists());
        StateDir::open(folder.path()).expect("free again");
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_at_the_deadline() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(folder.path()).expect("free");
        let listeners = listeners(folder.path());
        let tcp = listen::tcp_address(&listeners, Role::Public).expect("one is TCP");
        let deadlines = Deadlines { drain: Duration::ZERO, hard: Duration::from_secs(30) };
        let server = Server::build(config(deadlines), state, Process::default()).await.expect("a new log");
        let (stop, stopped) = oneshot::channel::<()>();
        let visit = async {
            let mut socket = TcpStream::connect(tcp).await.expect("it listens");
            let ask = b"POST /v1/session HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
            socket.write_all(ask).await.expect("the server reads");
            stop.send(()).expect("the server runs");
            let mut rest = Vec::new();
            // Cut is closed or reset, as the kernel has it.
            let _ = socket.read_to_end(&mut rest).await;
        };
        let (ended, ()) = tokio::join!(server.run(listeners, async { stopped.await.unwrap_or_default() }), visit);
        assert_eq!(ended, Ended::Drained);
    }
}
