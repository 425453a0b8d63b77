//! Other settings for a server that runs: all of what can be changed, or nothing.
//!
//! **Invariant**: everything that can fail is read and checked before the first setting changes.

use std::path::PathBuf;

use super::{Config, Supervisor, systemd};
use crate::http::App;

/// A way to give a server other settings. It holds the server's parts, so drop it when the drain begins.
pub struct Control {
    app: App,
    data: PathBuf,
    supervisor: Supervisor,
}

impl Control {
    pub(super) fn new(app: App, data: PathBuf, supervisor: Supervisor) -> Self {
        Self { app, data, supervisor }
    }

    /// Reads settings by `read` and goes on with them. What was fixed at the start stays as it is.
    ///
    /// # Errors
    /// What `read` told, or which key of users' tokens can't be used; nothing has changed then.
    pub fn reload(&self, read: impl FnOnce() -> Result<Config, String>) -> Result<(), String> {
        if self.supervisor == Supervisor::Systemd {
            systemd::reloading();
        }
        let outcome = read().and_then(|mut config| {
            config.read_keys(&self.data).map_err(|error| error.to_string())?;
            self.app.broker().reconfigure(config.broker);
            self.app.reconfigure(config.http);
            Ok(())
        });
        let label = if outcome.is_ok() { "done" } else { "refused" };
        self.app.metrics().reloads.get_or_create(&[("outcome", label)]).inc();
        if self.supervisor == Supervisor::Systemd {
            systemd::reloaded();
        }
        outcome
    }

    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.app.lifecycle().draining().await;
    }
}
