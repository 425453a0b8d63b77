//! Settings: the documented defaults file, what lies over it, and the checked [`Config`] that comes out.
//!
//! Data passes one way: [`Sources`] (which file, which variables, which flags) -> raw `overlay` -> checked [`Config`].
//! Nothing behind this module sees a raw value; [`Loaded`] tells those who look after settings what was read.
//! **Invariant**: `default.toml` is compiled in and *is* the defaults; the code has none of its own.
//!
//! Deliberately not here: secrets. They live in files of the state directory (`server::state`), never in settings or
//! the environment.
//!
//! Rank 5: imports `broker`, `deliver`, `http` and `intake`, whose own configurations it composes.

mod check;
mod fault;
mod files;
mod overlay;
mod robots;
mod setting;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use check::check;
use overlay::Overlay;
use value::Value;

pub use fault::{Fault, Origin};
pub use overlay::DEFAULTS;
pub use setting::{Setting, as_file};
pub use value::duration;

use crate::broker::KeyFile;
use crate::deliver::dingtalk;
use crate::model::Robots;
use crate::{broker, deliver, http, intake};

/// Where the settings file of an installed server stands.
pub const SYSTEM_FILE: &str = "/etc/tidings/tidings.toml";

/// Settings that have passed their checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory.
    pub data: PathBuf,
    /// Where to listen for TCP; `None` is not at all.
    pub listen: Option<SocketAddr>,
    /// The unix socket; `None` is `tidings.sock` in the state directory.
    pub socket: Option<PathBuf>,
    /// Permission bits of the unix socket.
    pub socket_mode: u32,
    /// Open connections at most; `None` is what the open-file limit allows.
    pub max_connections: Option<usize>,
    /// Where those who watch the server listen; `None` is nowhere.
    pub ops_listen: Option<SocketAddr>,
    /// The secret of users' tokens; `None` is `token.key` in the state directory.
    pub jwt_secret_file: Option<PathBuf>,
    /// Further keys of users' tokens.
    pub jwt_keys: Vec<KeyFile>,
    /// How long a drain waits for connections before it cuts them.
    pub drain_deadline: Duration,
    /// How long a shutdown may take in all.
    pub hard_deadline: Duration,
    /// What is logged, as a filter of `tracing-subscriber`.
    pub log_filter: String,
    pub log_format: LogFormat,
    pub http: http::Config,
    /// The robots of DingTalk. Without secrets: the server reads them from the files that are named here.
    pub dingtalk: dingtalk::Settings,
    /// Which of them speaks of what.
    pub robots: Robots,
    /// The queue that is consumed; `None` is none. Without its password: the server reads that.
    pub intake: Option<intake::Config>,
    /// Without secrets: the server reads them from the state directory.
    pub broker: broker::Config,
    /// Who carries what the outbox holds. Without secrets that are in files of their own.
    pub deliver: deliver::Config,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Journal lines where the journal reads them, else for a terminal.
    Auto,
    Terminal,
    Json,
    Journal,
}

/// Which settings file is read; its drop-ins (`FILE.d/*.toml`, in order of name) follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsFile {
    None,
    /// [`SYSTEM_FILE`], where it exists, and its drop-ins, also where it does not.
    System,
    Named(PathBuf),
}

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The dotted key it sets.
    pub key: &'static str,
    /// The flag as it is typed, for messages.
    pub flag: &'static str,
    pub value: String,
}

/// Where settings come from, lowest layer first.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Defaults of one command that differ from the file's: key and value.
    pub presets: Vec<(&'static str, String)>,
    pub file: SettingsFile,
    pub environment: Vec<(String, String)>,
    pub flags: Vec<Flag>,
}

/// Why settings were refused: every fault, one a line, each with where it is.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Fault>);

impl Config {
    /// Reads, lays over and checks.
    ///
    /// # Errors
    /// [`ConfigError`], which tells every fault at once.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        Loaded::read(sources).checked()
    }
}

/// What reading settings came to, right or wrong.
#[derive(Clone, Debug)]
pub struct Loaded {
    config: Config,
    /// Every setting, in the order of the documented defaults.
    pub settings: Vec<Setting>,
    /// The settings file, where one was to be read.
    pub file: Option<PathBuf>,
    /// Its drop-ins, in their order.
    pub drop_ins: Vec<PathBuf>,
    faults: Vec<Fault>,
}

impl Loaded {
    /// Reads, lays over and checks; faults are kept beside what could be read.
    pub fn read(sources: Sources) -> Self {
        let mut overlay = Overlay::defaults();
        for (key, value) in sources.presets {
            overlay.lay(key, Value::Text(value), Origin::Preset);
        }
        let layers = files::read(&sources.file);
        for layer in &layers {
            overlay.lay_file(layer);
        }
        overlay.lay_env(sources.environment);
        for Flag { key, flag, value } in sources.flags {
            overlay.lay(key, Value::Text(value), Origin::Flag(flag));
        }
        let config = check(&mut overlay);
        let (drop_ins, file): (Vec<_>, Vec<_>) = layers.into_iter().partition(|layer| layer.is_drop_in);
        let mut loaded = Self {
            config,
            settings: overlay.effective(),
            file: file.into_iter().next().map(|layer| layer.path),
            drop_ins: drop_ins.into_iter().map(|layer| layer.path).collect(),
            faults: Vec::new(),
        };
        loaded.add(overlay.into_faults());
        loaded
    }

    /// Adds faults. Those of files come first, as one meets them in reading, then the others in the order of layers.
    pub fn add(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
        let files: Vec<_> = self.file.iter().chain(&self.drop_ins).map(|path| path.display().to_string()).collect();
        let place = |fault: &Fault| files.iter().position(|file| Some(file.as_str()) == fault.file());
        self.faults.sort_by_key(|fault| (place(fault).unwrap_or(usize::MAX), fault.line()));
    }

    /// What is wrong, in order; nothing where the settings are right.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The settings, where they are right.
    ///
    /// # Errors
    /// [`ConfigError`], which tells every fault at once.
    pub fn checked(self) -> Result<Config, ConfigError> {
        if self.faults.is_empty() { Ok(self.config) } else { Err(ConfigError(self.faults)) }
    }

    /// The settings with defaults where they are wrong: to look for more faults, never to run on.
    pub fn provisional(&self) -> &Config {
        &self.config
    }

    /// A fault of one setting, told where it was given; the message names the key.
    pub fn fault(&self, key: &str, message: &str) -> Fault {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        Fault::of(key, setting.map_or(&Origin::Default, |setting| &setting.origin), message)
    }
}

impl Config {
    /// Settings of `newer` that differ and count only after a restart.
    pub fn fixed(&self, newer: &Self) -> Vec<&'static str> {
        let (mail, newer_mail) = (self.deliver.email.as_ref(), newer.deliver.email.as_ref());
        let pairs = [
            ("data", self.data != newer.data),
            ("http.listen", self.listen != newer.listen),
            ("http.socket", self.socket != newer.socket),
            ("http.socket_mode", self.socket_mode != newer.socket_mode),
            ("http.base_path", self.http.base_path != newer.http.base_path),
            ("http.max_connections", self.max_connections != newer.max_connections),
            ("http.header_timeout", self.http.header_timeout != newer.http.header_timeout),
            ("streams.max", self.broker.hub.max_subscribers != newer.broker.hub.max_subscribers),
            ("http.public_url", mail.map(|m| &m.public_url) != newer_mail.map(|m| &m.public_url)),
            ("email.url", mail.map(|m| &m.relay) != newer_mail.map(|m| &m.relay)),
            ("email.from", mail.map(|m| &m.from) != newer_mail.map(|m| &m.from)),
            ("email.password_file", mail.map(|m| &m.password_file) != newer_mail.map(|m| &m.password_file)),
            ("email.ca_file", mail.map(|m| &m.ca_file) != newer_mail.map(|m| &m.ca_file)),
            ("email.per_domain", mail.map(|m| &m.per_domain) != newer_mail.map(|m| &m.per_domain)),
            (
                "email.together_per_domain",
                mail.map(|m| m.together_per_domain) != newer_mail.map(|m| m.together_per_domain),
            ),
            ("email.connections", mail.map(|m| m.connections) != newer_mail.map(|m| m.connections)),
            ("email.timeout", mail.map(|m| &m.timeout) != newer_mail.map(|m| &m.timeout)),
            ("outbox.workers", self.deliver.workers != newer.deliver.workers),
            ("ops.listen", self.ops_listen != newer.ops_listen),
            ("dingtalk", self.dingtalk != newer.dingtalk || self.robots != newer.robots),
            ("amqp", self.intake != newer.intake),
            ("log.format", self.log_format != newer.log_format),
            ("server.drain_deadline", self.drain_deadline != newer.drain_deadline),
            ("server.hard_deadline", self.hard_deadline != newer.hard_deadline),
        ];
        pairs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::check::base_path;
    use super::*;
    use crate::model::Category;

    fn sources(file: SettingsFile, flags: &[(&'static str, &str)]) -> Sources {
        let flags = flags.iter().map(|(key, value)| Flag { key, flag: "--flag", value: (*value).to_owned() }).collect();
        Sources { presets: Vec::new(), file, environment: Vec::new(), flags }
    }

    fn faults(flags: &[(&'static str, &str)]) -> Vec<String> {
        match Config::load(sources(SettingsFile::None, flags)) {
            Err(ConfigError(faults)) => faults.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_pass_their_own_checks() {
        let config = Config::load(sources(SettingsFile::None, &[])).expect("the defaults are valid");
        assert_eq!(config.listen, Some(SocketAddr::from(([127, 0, 0, 1], 8383))));
        assert_eq!(config.socket, None);
        assert_eq!(config.socket_mode, 0o600);
        assert_eq!(config.drain_deadline, Duration::from_secs(5));
        assert_eq!(config.broker.heartbeat, Duration::from_secs(15));
        assert_eq!(config.broker.jwt.audience, None);
        assert_eq!(config.log_format, LogFormat::Auto);
    }

    #[test]
    fn a_bad_value_names_its_key_and_what_is_expected() {
        for (key, value, expected) in [
            ("idempotency.ttl", "31d", "--flag: idempotency.ttl must be a duration from 1m to 30d"),
            ("http.listen", "8383", "--flag: http.listen must be IP:PORT"),
            ("http.max_connections", "-1", "--flag: http.max_connections must be a whole number from 0 to 1000000"),
            ("http.max_body", "1KB", "--flag: http.max_body must be a size from 1024 to 16777216 bytes"),
            ("http.origins", "https://A.example/", "--flag: http.origins must be a list of exact origins"),
            ("http.base_path", "tidings", "--flag: http.base_path must be empty or a path"),
            ("http.socket_mode", "0999", "--flag: http.socket_mode must be permission bits"),
            ("topics.unknown", "ignore", "--flag: topics.unknown must be \"create\" or \"refuse\""),
            ("users.unknown", "ignore", "--flag: users.unknown must be \"create\" or \"refuse\""),
            ("schedule.horizon", "1s", "--flag: schedule.horizon must be a duration from 1m to 3650d"),
            ("retention.ages", "alerts", "--flag: retention.ages must be a list of categories with a duration"),
            ("retention.age", "1s", "--flag: retention.age must be a duration from 1m to 3650d, or 0s"),
            ("retention.ages", "alerts=30s", "--flag: retention.ages must be a list of categories with a duration"),
            (
                "retention.numbers",
                "alerts=many",
                "--flag: retention.numbers must be a list of categories with a number",
            ),
            ("amqp.url", "localhost", "--flag: amqp.url must be amqp://"),
            ("amqp.url", "amqps://mq.example", "--flag: amqp.url needs amqp.queue"),
            ("amqp.url", "amqp://a:secret@x", "--flag: amqp.url holds a password"),
            ("amqp.url", "amqp://mq.example", "--flag: amqp.url needs amqp.queue"),
            ("amqp.declare", "force", "--flag: amqp.declare must be \"passive\" or \"durable\""),
            ("amqp.prefetch", "0", "--flag: amqp.prefetch must be a whole number from 1 to 10000"),
            ("outbox.schedule", "1h,8d", "--flag: outbox.schedule must be a list of 1 to 20 durations from 1s to 7d"),
            ("outbox.domain", "a b", "--flag: outbox.domain must be the name of a domain, or empty"),
            ("outbox.expire_after", "1m", "--flag: outbox.expire_after must be a duration from 1h to 30d"),
            ("email.together_per_domain", "0", "--flag: email.together_per_domain must be a whole number from 1 to 64"),
            ("email.connections", "257", "--flag: email.connections must be a whole number from 1 to 256"),
            ("outbox.workers", "0", "--flag: outbox.workers must be a whole number from 1 to 256"),
            ("log.format", "xml", "--flag: log.format must be \"auto\""),
            ("data", "", "--flag: data must be the path"),
        ] {
            let told = faults(&[(key, value)]);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
        }
    }

    #[test]
    fn nothing_is_kept_for_no_time() {
        let flags = [("retention.ages", "alerts=0s,loans=2d"), ("retention.numbers", "alerts=0")];
        let kept = Config::load(sources(SettingsFile::None, &flags)).expect("is valid").broker.retention;
        let category = |name| Category::new(name).expect("a category");
        assert_eq!(kept.ages[&category("alerts")], None);
        assert_eq!(kept.ages[&category("loans")], Some(Duration::from_hours(48)));
        assert_eq!(kept.numbers[&category("alerts")], None);
        assert_eq!((kept.age, kept.per_user), (None, Some(10_000)));
    }

    #[test]
    fn a_mail_has_the_time_that_its_settings_give_it() {
        let mail = [("email.url", "smtp://mail.example"), ("email.from", "a@b.example")];
        let patience = |flags: &[(&'static str, &str)]| {
            Config::load(sources(SettingsFile::None, flags)).expect("is valid").deliver.patience()
        };
        assert_eq!(patience(&mail), Duration::from_mins(3));
        let slow = [&mail[..], &[("email.timeout", "10m")]].concat();
        assert!(patience(&slow) > Duration::from_mins(20), "it may wait for a line as long as it takes");
    }

    #[test]
    fn every_fault_is_told_at_once() {
        assert_eq!(faults(&[("streams.heartbeat", "x"), ("idempotency.ttl", "1s"), ("http.listen", "y")]).len(), 3);
    }

    #[test]
    fn a_drain_fits_into_the_shutdown() {
        assert_eq!(faults(&[("server.drain_deadline", "2m")]).len(), 1);
        // The default of the other has no place, so the fault is told where somebody gave something.
        let told = faults(&[("server.hard_deadline", "3s")]);
        assert_eq!(told, ["--flag: server.drain_deadline must not be longer than server.hard_deadline"]);
    }

    #[test]
    fn base_paths_lose_the_slash_at_their_end() {
        for (given, kept) in [("", ""), ("/", ""), ("/tidings", "/tidings"), ("/a/b/", "/a/b")] {
            assert_eq!(base_path(given).as_deref(), Some(kept));
        }
        for bad in ["a", "//", "/a//b", "/a b", "/../x", "/a?b"] {
            assert_eq!(base_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let missing = SettingsFile::Named("/nonexistent/tidings.toml".into());
        let refused = Config::load(sources(missing, &[])).expect_err("no such file");
        assert!(refused.to_string().starts_with("/nonexistent/tidings.toml: this settings file can't be read: "));
    }

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("ours to make");
            std::fs::write(path, text).expect("ours to write");
        }
        folder
    }

    fn loaded(folder: &tempfile::TempDir, flags: &[(&'static str, &str)]) -> Loaded {
        Loaded::read(sources(SettingsFile::Named(folder.path().join("t.toml")), flags))
    }

    #[test]
    fn every_layer_tells_where_its_values_came_from() {
        let folder = folder(&[
            ("t.toml", "data = 'a'\n[http]\nlisten = 'none'\nbase_path = '/a'\n[streams]\nmax = 3\n"),
            ("t.toml.d/10.toml", "[http]\nbase_path = '/b'\n"),
            ("t.toml.d/20.toml", "\n[http]\nbase_path = '/c'\n[streams]\nmax = 19000"),
        ]);
        let loaded = loaded(&folder, &[("data", "b")]);
        let of = |key: &str| {
            let found = loaded.settings.iter().find(|setting| setting.key == key).expect("a known key");
            let origin = found.origin.to_string().replace(&*folder.path().to_string_lossy(), "");
            (found.value.to_string(), origin, found.differs)
        };
        assert_eq!(of("data"), ("\"b\"".into(), "--flag".into(), true));
        assert_eq!(of("http.listen"), ("\"none\"".into(), "/t.toml:3".into(), true));
        assert_eq!(of("http.base_path"), ("\"/c\"".into(), "/t.toml.d/20.toml:3".into(), true));
        assert_eq!(of("streams.max"), ("19000".into(), "/t.toml.d/20.toml:5".into(), false));
        assert_eq!(of("log.level"), ("\"info\"".into(), "default".into(), false));
        assert_eq!((loaded.drop_ins.len(), loaded.faults.len()), (2, 0));
        assert_eq!(loaded.checked().expect("is valid").http.base_path, "/c");
    }

    #[test]
    fn settings_are_shown_in_the_order_of_the_defaults_and_are_themselves_again_when_read() {
        let flags = [("http.origins", "https://a.example,https://b.example"), ("streams.max", "7")];
        let shown = Loaded::read(sources(SettingsFile::None, &flags)).settings;
        assert_eq!([&*shown[0].key, &*shown[1].key], ["data", "http.listen"]);
        let folder = folder(&[("t.toml", &as_file(&shown))]);
        let again = loaded(&folder, &[]);
        assert_eq!(again.faults, []);
        let values = |settings: &[Setting]| -> Vec<_> {
            settings.iter().map(|s| (s.key.clone(), s.value.clone(), s.differs)).collect()
        };
        assert_eq!(values(&again.settings), values(&shown));
        assert_eq!(shown.iter().filter(|setting| setting.differs).count(), 2);
    }

    #[test]
    fn faults_are_told_in_the_order_of_their_layers_and_lines() {
        let folder = folder(&[
            ("t.toml", "[streams]\nheartbeat = 'x'\n[http]\nlissten = 'y'\n[server]\ndrain_deadline = '1m'\n"),
            ("t.toml.d/a.toml", "no toml"),
            ("t.toml.d/b.toml", "[auht]\n"),
        ]);
        std::fs::create_dir(folder.path().join("t.toml.d/c.toml")).expect("ours to make");
        let told: Vec<_> = loaded(&folder, &[("http.listen", "z")]).faults.iter().map(ToString::to_string).collect();
        let starts = ["t.toml:2: ", "t.toml:4: ", "t.toml:6: ", "a.toml:1: ", "b.toml:1: ", "c.toml: ", "--flag: "];
        assert_eq!(told.len(), starts.len(), "{told:?}");
        for (fault, start) in told.iter().zip(starts) {
            assert!(fault.contains(start), "{start} in {told:?}");
        }
    }
}
