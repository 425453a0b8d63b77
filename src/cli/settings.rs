//! The flags that say which server is meant, and the settings they lead to.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Config, ConfigError, Flag, Loaded, SettingsFile, Sources};

/// Which server: its settings and its state directory.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Settings file [default: /etc/tidings/tidings.toml, where it exists; the demo reads none by itself]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// State directory: database, lock, secrets, the operator's socket
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

impl Place {
    pub(super) fn new(config: Option<String>, data: Option<String>) -> Self {
        Self { config, data }
    }

    /// The same with this settings file, where none is named yet.
    pub(super) fn or_config(self, file: Option<String>) -> Self {
        Self { config: self.config.or(file), ..self }
    }

    /// The state directory that the flag names.
    pub(super) fn named_data(&self) -> Option<&Path> {
        self.data.as_deref().map(Path::new)
    }

    /// The state directory that is meant. Settings are read only where no flag names it: they may be what is wrong.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) fn data(&self) -> Result<PathBuf, ConfigError> {
        match self.named_data() {
            Some(data) => Ok(data.to_owned()),
            None => Ok(self.load([])?.data),
        }
    }

    /// The settings of the server that is meant, with `flags` of the command above the rest.
    pub(super) fn load(&self, flags: impl IntoIterator<Item = Flag>) -> Result<Config, ConfigError> {
        Config::load(self.sources(SettingsFile::System, flags))
    }

    /// The same, right or wrong.
    pub(super) fn read(&self) -> Loaded {
        Loaded::read(self.sources(SettingsFile::System, []))
    }

    /// The same for the demo, which wants to be alike everywhere: no file but a named one, and a folder of its own.
    pub(super) fn load_demo(&self, flags: impl IntoIterator<Item = Flag>) -> Result<Config, ConfigError> {
        let mut sources = self.sources(SettingsFile::None, flags);
        sources.presets.push(("data", "tidings-demo".to_owned()));
        Config::load(sources)
    }

    fn sources(&self, file: SettingsFile, flags: impl IntoIterator<Item = Flag>) -> Sources {
        let data = flag("data", "--data", self.data.as_ref());
        Sources {
            presets: Vec::new(),
            file: self.config.as_ref().map_or(file, |path| SettingsFile::Named(path.into())),
            // A variable that is not UTF-8 can't be a setting.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags: data.into_iter().chain(flags).collect(),
        }
    }
}

/// A flag's value as a setting, where the flag was given.
pub(super) fn flag(key: &'static str, flag: &'static str, value: Option<&String>) -> Option<Flag> {
    value.map(|value| Flag { key, flag, value: value.clone() })
}
