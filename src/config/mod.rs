//! Settings: the documented defaults file, what lies over it, and the checked [`Config`] that comes out.
//!
//! Data passes one way: [`Sources`] (which file, which variables, which flags) -> raw `overlay` -> checked [`Config`].
//! Nothing behind this module sees a raw value. **Invariant**: `default.toml` is compiled in and *is* the defaults; the
//! code has none of its own.
//!
//! Deliberately not here: secrets. They live in files of the state directory (`server::state`), never in settings or
//! the environment.
//!
//! Rank 5: imports `broker` and `http`, whose own configurations it composes.

mod overlay;
mod value;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use overlay::{Origin, Overlay};
use value::{Value, duration_text};

pub use value::duration;

use crate::model::Category;
use crate::{broker, http};

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
    /// The secret of users' tokens; `None` is `token.key` in the state directory.
    pub jwt_secret_file: Option<PathBuf>,
    /// How long a drain waits for connections before it cuts them.
    pub drain_deadline: Duration,
    /// How long a shutdown may take in all.
    pub hard_deadline: Duration,
    /// What is logged, as a filter of `tracing-subscriber`.
    pub log_filter: String,
    pub log_format: LogFormat,
    pub http: http::Config,
    /// Without secrets: the server reads them from the state directory.
    pub broker: broker::Config,
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

/// Which settings file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsFile {
    None,
    /// [`SYSTEM_FILE`], where it exists.
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

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// One line a fault, each with where it is.
    #[error("{}", .0.join("\n"))]
    Faults(Vec<String>),
}

impl Config {
    /// Reads, lays over and checks.
    ///
    /// # Errors
    /// [`ConfigError`], which tells every fault at once.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let mut overlay = Overlay::defaults();
        for (key, value) in sources.presets {
            overlay.lay(key, Value::Text(value), Origin::Preset);
        }
        if let Some((path, text)) = read_file(&sources.file)? {
            overlay.lay_file(&path, &text);
        }
        overlay.lay_env(sources.environment);
        for Flag { key, flag, value } in sources.flags {
            overlay.lay(key, Value::Text(value), Origin::Flag(flag));
        }
        let config = check(&mut overlay);
        let faults = overlay.into_faults();
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::Faults(faults)) }
    }
}

fn read_file(file: &SettingsFile) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let (path, must_exist) = match file {
        SettingsFile::None => return Ok(None),
        SettingsFile::System => (Path::new(SYSTEM_FILE), false),
        SettingsFile::Named(path) => (path.as_path(), true),
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
    }
}

fn check(o: &mut Overlay) -> Config {
    let config = Config {
        data: o.read("data", "the path of a directory", |v| path(v).flatten()),
        listen: o.read("http.listen", "IP:PORT, such as \"127.0.0.1:8383\" or \"[::1]:0\", or \"none\"", listen),
        socket: o.read("http.socket", "the path of a unix socket, or empty", path),
        socket_mode: o.read("http.socket_mode", "permission bits in octal, such as \"0660\"", octal),
        max_connections: Some(count(o, "http.max_connections", 0..=1_000_000)).filter(|most| *most > 0),
        jwt_secret_file: o.read("auth.jwt_secret_file", "the path of a file, or empty", path),
        drain_deadline: span(o, "server.drain_deadline", 0..=300),
        hard_deadline: span(o, "server.hard_deadline", 1..=600),
        log_filter: o.read("log.level", "a level or a filter such as \"info,tidings::store=debug\"", filled_text),
        log_format: o.read("log.format", "\"auto\", \"terminal\", \"journal\" or \"json\"", log_format),
        http: http_config(o),
        broker: broker_config(o),
    };
    if config.drain_deadline > config.hard_deadline {
        o.refuse("server.drain_deadline must not be longer than server.hard_deadline".to_owned());
    }
    config
}

fn http_config(o: &mut Overlay) -> http::Config {
    http::Config {
        base_path: o.read("http.base_path", "empty or a path such as \"/tidings\"", |v| base_path(v.text()?)),
        origins: o.read("http.origins", "a list of exact origins such as \"https://library.example\"", |v| {
            v.list()?.into_iter().map(|origin| is_origin(&origin).then_some(origin)).collect()
        }),
        max_body: size(o, "http.max_body", 1 << 10..=16 << 20),
        header_timeout: span(o, "http.header_timeout", 1..=60),
        body_timeout: span(o, "http.body_timeout", 1..=120),
        secure_cookies: o.read("http.secure_cookies", "\"auto\" or \"always\"", secure_cookies),
        ..http::Config::default()
    }
}

fn broker_config(o: &mut Overlay) -> broker::Config {
    let jwt = broker::JwtConfig {
        secret: Vec::new(),
        audience: o.read("auth.audience", "a text", |v| v.text().map(some_text)),
        issuer: o.read("auth.issuer", "a text", |v| v.text().map(some_text)),
    };
    let mut config = broker::Config {
        jwt,
        ticket_ttl: span(o, "auth.ticket_ttl", 60..=7 * DAY),
        heartbeat: span(o, "streams.heartbeat", 1..=25),
        unknown_topics: o.read("topics.unknown", "\"create\" or \"refuse\"", unknown),
        unknown_users: o.read("users.unknown", "\"create\" or \"refuse\"", unknown),
        schedule_horizon: span(o, "schedule.horizon", 60..=3_650 * DAY),
        retention: retention(o),
        everyone_horizon: span(o, "topics.everyone_horizon", 0..=365 * DAY),
        idempotency_ttl: span(o, "idempotency.ttl", 60..=30 * DAY),
        ..broker::Config::default()
    };
    config.hub.max_subscribers = count(o, "streams.max", 1..=1_000_000);
    config
}

fn retention(o: &mut Overlay) -> broker::Retention {
    let ages = "a list of categories with a duration from 1m to 3650d, or 0s, such as [\"alerts=7d\"]";
    let numbers = "a list of categories with a number up to 1000000, or 0, such as [\"alerts=500\"]";
    broker::Retention {
        age: o.read("retention.age", "a duration from 1m to 3650d, or 0s", |v| kept_age(v.duration()?)),
        ages: o.read("retention.ages", ages, |v| by_category(v, |text| kept_age(duration(text)?))),
        per_user: kept_number(count(o, "retention.per_user", 0..=1_000_000)),
        numbers: o.read("retention.numbers", numbers, |v| {
            by_category(v, |text| text.parse().ok().filter(|most| *most <= 1_000_000).map(kept_number))
        }),
        per_topic: kept_number(count(o, "retention.per_topic", 0..=100_000_000)),
    }
}

/// An age; the inner `None` is 0, which keeps entries whatever theirs.
fn kept_age(age: Duration) -> Option<Option<Duration>> {
    let bounds = Duration::from_secs(60)..=Duration::from_secs(3_650 * DAY);
    if age.is_zero() { Some(None) } else { bounds.contains(&age).then_some(Some(age)) }
}

/// A number; 0 keeps all.
fn kept_number(number: usize) -> Option<u64> {
    u64::try_from(number).ok().filter(|most| *most > 0)
}

/// A list of `category=value`.
fn by_category<T>(value: &Value, read: impl Fn(&str) -> Option<T>) -> Option<HashMap<Category, T>> {
    let pair = |text: String| {
        let (category, value) = text.split_once('=')?;
        Some((Category::new(category.trim()).ok()?, read(value.trim())?))
    };
    value.list()?.into_iter().map(pair).collect()
}

/// Seconds.
const DAY: u64 = 86_400;

/// Reads a duration; `bounds` are seconds.
fn span(o: &mut Overlay, key: &str, bounds: RangeInclusive<u64>) -> Duration {
    let text = |seconds: &u64| duration_text(Duration::from_secs(*seconds));
    let expected =
        format!("a duration from {} to {}, such as \"90s\" or \"2h\"", text(bounds.start()), text(bounds.end()));
    o.read(key, &expected, |v| v.duration().filter(|span| bounds.contains(&span.as_secs())))
}

fn count(o: &mut Overlay, key: &str, bounds: RangeInclusive<usize>) -> usize {
    let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
    o.read(key, &expected, |v| usize::try_from(v.number()?).ok().filter(|n| bounds.contains(n)))
}

/// Reads a size; `bounds` are bytes.
fn size(o: &mut Overlay, key: &str, bounds: RangeInclusive<usize>) -> usize {
    let expected = format!("a size from {} to {} bytes, such as \"256KiB\"", bounds.start(), bounds.end());
    o.read(key, &expected, |v| usize::try_from(v.size()?).ok().filter(|n| bounds.contains(n)))
}

/// A path; the inner `None` is the empty text.
fn path(value: &Value) -> Option<Option<PathBuf>> {
    value.text().map(|text| some_text(text).map(PathBuf::from))
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn filled_text(value: &Value) -> Option<String> {
    value.text().and_then(some_text)
}

fn listen(value: &Value) -> Option<Option<SocketAddr>> {
    match value.text()? {
        "none" => Some(None),
        address => address.parse().ok().map(Some),
    }
}

fn octal(value: &Value) -> Option<u32> {
    let bits = u32::from_str_radix(value.text()?, 8).ok()?;
    (bits <= 0o777).then_some(bits)
}

fn log_format(value: &Value) -> Option<LogFormat> {
    match value.text()? {
        "auto" => Some(LogFormat::Auto),
        "terminal" => Some(LogFormat::Terminal),
        "journal" => Some(LogFormat::Journal),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn secure_cookies(value: &Value) -> Option<http::SecureCookies> {
    match value.text()? {
        "auto" => Some(http::SecureCookies::Auto),
        "always" => Some(http::SecureCookies::Always),
        _ => None,
    }
}

fn unknown(value: &Value) -> Option<broker::Unknown> {
    match value.text()? {
        "create" => Some(broker::Unknown::Create),
        "refuse" => Some(broker::Unknown::Refuse),
        _ => None,
    }
}

/// A base path without a slash at its end; `/` is none.
fn base_path(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let segment = |s: &str| {
        !s.is_empty() && s != "." && s != ".." && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
    };
    let valid = text.is_empty() || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment));
    valid.then(|| text.to_owned())
}

/// Whether a text is an origin as browsers send it: scheme, lower-case host, port where it is not the usual one.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: SettingsFile, flags: &[(&'static str, &str)]) -> Sources {
        let flags = flags.iter().map(|(key, value)| Flag { key, flag: "--flag", value: (*value).to_owned() }).collect();
        Sources { presets: Vec::new(), file, environment: Vec::new(), flags }
    }

    fn faults(flags: &[(&'static str, &str)]) -> Vec<String> {
        match Config::load(sources(SettingsFile::None, flags)) {
            Err(ConfigError::Faults(faults)) => faults,
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
    fn every_fault_is_told_at_once() {
        assert_eq!(faults(&[("streams.heartbeat", "x"), ("idempotency.ttl", "1s"), ("http.listen", "y")]).len(), 3);
    }

    #[test]
    fn a_drain_fits_into_the_shutdown() {
        assert_eq!(faults(&[("server.drain_deadline", "2m")]).len(), 1);
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
        assert!(refused.to_string().starts_with("cannot read the settings file /nonexistent/tidings.toml: "));
    }
}
