//! A state directory as a way to a server: the running server's unix socket where one holds the directory, and else a
//! server of our own in this process, which lives as long as the command.
//!
//! Ours listens on the operator's socket and nowhere else: another command that comes meanwhile finds the directory held and asks us, as it would ask a server. Both ways the
//! same request goes through the same client, so the answer is the same.
//!
//! **Invariant**: the log is opened by whoever holds the directory's lock, and by nobody else.

use std::time::Duration;

use tokio::sync::{OnceCell, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use super::client::{Door, Target};
use super::serve::server_config;
use super::settings::Place;
use crate::broker::Retention;
use crate::config::Config;
use crate::http::Process;
use crate::server::listen::{self, Addresses, Inherited};
use crate::server::state::{self, Endpoint, StateDir, StateError};
use crate::server::{self, Ended, Server, Supervisor};

/// Whether a directory that no server has used yet will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unused {
    /// No: its path may be misspelt, and what is sent there would reach nobody.
    Refuse,
    /// Yes: what is kept there is for the first start.
    Make,
}

/// A state directory, and who we are to the server on it.
#[derive(Debug)]
pub(super) struct Directory {
    place: Place,
    /// An API key; `None` is the operator.
    key: Option<String>,
    unused: Unused,
    /// Set from when we hold the directory.
    own: OnceCell<Own>,
}

/// Our own server.
#[derive(Debug)]
struct Own {
    endpoint: Endpoint,
    operator: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Ended>,
}

impl Directory {
    pub(super) fn new(place: Place, key: Option<String>, unused: Unused) -> Self {
        Self { place, key, unused, own: OnceCell::new() }
    }

    /// Whether we come as the operator.
    pub(super) fn is_operator(&self) -> bool {
        self.key.is_none()
    }

    /// Whether the server on the directory is ours.
    pub(super) fn is_own(&self) -> bool {
        self.own.get().is_some()
    }

    /// The server that holds the directory now; ours, which is started at the first need.
    ///
    /// # Errors
    /// Where the directory can be neither asked nor held, in words that say what to do.
    pub(super) async fn door(&self) -> anyhow::Result<Door> {
        if let Some(own) = self.own.get() {
            return Ok(self.door_of(&own.endpoint, &own.operator));
        }
        let data = self.place.data()?;
        let log = state::check_log(&data);
        if let (Err(error @ StateError::Unused(_)), Unused::Refuse) = (&log, self.unused) {
            anyhow::bail!("{error}");
        }
        match StateDir::open(&data) {
            Ok(state) => {
                match log {
                    Ok(()) | Err(StateError::Unused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                let own = self.own.get_or_try_init(|| async { Own::start(self.place.load([])?, state).await }).await?;
                Ok(self.door_of(&own.endpoint, &own.operator))
            }
            Err(StateError::Held { path, .. }) => {
                tracing::debug!(data = %path.display(), "A server holds the directory; asking it");
                let operator = if self.is_operator() { state::operator_credential(&path)? } else { String::new() };
                Ok(self.door_of(&state::endpoint(&path), &operator))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends our own server: whoever asked it meanwhile still gets an answer.
    pub(super) async fn close(self) {
        let Some(own) = self.own.into_inner() else { return };
        // Gone where it ended by itself, which its last answer has told.
        let _ = own.stop.send(());
        match own.ended.await {
            Ok(Ended::Drained) => {}
            Ok(ended) => {
                tracing::debug!(?ended, "The directory was not let go of in order; what was acknowledged is in it");
            }
            Err(panic) => tracing::debug!(%panic, "Our server panicked; what was acknowledged is on disk"),
        }
    }

    fn door_of(&self, endpoint: &Endpoint, operator: &str) -> Door {
        let credential = self.key.as_deref().unwrap_or(operator).to_owned();
        Door { target: Target::at(endpoint.clone()), credential }
    }
}

impl Own {
    async fn start(mut config: Config, state: StateDir) -> anyhow::Result<Self> {
        tracing::debug!(data = %state.path().display(), "No server holds the directory; opening the log here");
        let socket = state::operator_socket_in(state.path());
        let addresses = Addresses { tcp: None, unix: None, unix_mode: 0, operator: socket.clone(), watcher: None };
        let listeners = listen::listen(&addresses, Inherited::default())?;
        let endpoint = Endpoint { socket, base_path: config.http.base_path.clone() };
        state.tell_endpoint(&endpoint)?;
        let data = state.path().to_owned();
        // The settings here may not be those that the server runs with: a command takes nothing that it was not asked to.
        config.broker.retention = Retention::none();
        config.intake = None;
        config.broker.outbox.keep = Duration::MAX;
        // And it carries nothing to anybody: it may be gone before an answer comes.
        let config = server::Config { deliver: None, ..server_config(config, Supervisor::Nobody) };
        let server = Server::build(config, state, Process::default()).await?;
        let operator = state::operator_credential(&data)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let run = server.run(listeners, async {
            // A command that is gone wants no server either.
            let _ = stopped.await;
        });
        // Here rather than on the server's own lifecycle, which ends before it does. `close` waits for it.
        let ended = spawn_local(run);
        Ok(Self { endpoint, operator, stop, ended })
    }
}
