//! The flags that say which server is asked and as whom, and the client they make.
//!
//! Every command that asks a server goes through [`ask`], whether by address, by socket or by state directory; see
//! `local` for what a state directory without a running server does.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Usage;
use super::client::{Client, Door, Target};
use super::local::{Directory, Unused};
use super::settings::Place;
use crate::server::state::{self, StateDir, StateError};

/// The server of those who name none.
const DEFAULT_URL: &str = "http://127.0.0.1:8383";

/// Which server, and as whom.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The server's address
    #[arg(long, value_name = "URL", conflicts_with_all = ["socket", "data", "config"])]
    url: Option<String>,
    /// The server's unix socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["data", "config"])]
    socket: Option<PathBuf>,
    /// The server's state directory, as its operator: its socket while it runs, else its log
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// The server's settings file, as its operator, for the state directory that it names and what holds there
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// The API key; --key-file and TIDINGS_KEY keep it out of sight of other users
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Asks a server, and lets go of its directory again where this process held that.
///
/// # Errors
/// Those of `work`.
pub(super) async fn ask<T>(client: Client, work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let outcome = work(&client).await;
    client.close().await;
    outcome
}

impl ServerArgs {
    /// Does some work with the server that is meant.
    ///
    /// # Errors
    /// [`Usage`] where none is, or nobody says as whom; those of `work`.
    pub(super) async fn ask<T>(&self, work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        ask(self.client()?, work).await
    }

    /// The state directory that is meant, held by this process; `None` where a server holds it, or none is meant.
    ///
    /// # Errors
    /// Where it can be neither asked nor held.
    pub(super) fn stopped(&self) -> anyhow::Result<Option<StateDir>> {
        if self.data.is_none() && self.config.is_none() {
            return Ok(None);
        }
        let data = Place::new(self.config.clone(), self.data.clone()).data()?;
        state::check_log(&data)?;
        match StateDir::open(&data) {
            Ok(state) => Ok(Some(state)),
            Err(StateError::Held { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn client(&self) -> anyhow::Result<Client> {
        let named = self.named_key()?;
        if self.data.is_some() || self.config.is_some() {
            let place = Place::new(self.config.clone(), self.data.clone());
            return Ok(Client::Directory(Directory::new(place, named, Unused::Refuse)));
        }
        let target = match (&self.socket, &self.url) {
            (Some(path), _) => Target::Unix { path: path.clone(), base_path: String::new() },
            (None, Some(url)) => Target::parse(url)?,
            (None, None) => Target::parse(&std::env::var("TIDINGS_URL").unwrap_or_else(|_| DEFAULT_URL.to_owned()))?,
        };
        let credential = named.or_else(|| std::env::var("TIDINGS_KEY").ok()).ok_or_else(|| {
            Usage(
                "no API key: give --key-file or TIDINGS_KEY (`tidings key create --name … --scope …` makes one), \
                 or --data DIR to come as the operator of the server on this machine"
                    .to_owned(),
            )
        })?;
        Ok(Client::Server(Door { target, credential }))
    }

    fn named_key(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.key_file else { return Ok(self.key.clone()) };
        let key = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(key.trim().to_owned()))
    }
}
