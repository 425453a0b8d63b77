//! From raw values to the checked [`Config`]: what each key must be, between which bounds, and which go together.
//!
//! A table in all but name: one line a setting, in the order of `default.toml`, and below it how the odd kinds are read.
//! **Invariant**: no bound and no default stands anywhere else; a default is in `default.toml`, a bound here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ::http::HeaderName;
use tracing_subscriber::EnvFilter;

use super::overlay::Overlay;
use super::value::{Value, duration, duration_text};
use super::{Config, LogFormat, robots};
use crate::broker::KeyFile;
use crate::deliver::email;
use crate::model::{Category, Mail, Media};
use crate::{broker, deliver, http, intake};

/// Reads every setting and checks it, alone and against the others. Faults are left in the overlay, and the default stands
/// in for what can't be used.
pub(super) fn check(o: &mut Overlay) -> Config {
    let (dingtalk, robots) = robots::check(o);
    let mut config = Config {
        data: o.read("data", "the path of a directory", |v| path(v).flatten()),
        listen: o.read("http.listen", "IP:PORT, such as \"127.0.0.1:8383\" or \"[::1]:0\", or \"none\"", listen),
        socket: o.read("http.socket", "the path of a unix socket, or empty", path),
        socket_mode: o.read("http.socket_mode", "permission bits in octal, such as \"0660\"", octal),
        max_connections: Some(count(o, "http.max_connections", 0..=1_000_000)).filter(|most| *most > 0),
        ops_listen: o.read("ops.listen", "IP:PORT, such as \"127.0.0.1:8384\", or \"none\"", listen),
        jwt_secret_file: o.read("auth.jwt_secret_file", "the path of a file, credential:NAME, or empty", path),
        jwt_keys: o.read(
            "auth.jwt_keys",
            "a list such as \"ES256 web-2026 /etc/tidings/web.pem\": HS256, ES256, RS256 or EdDSA, a kid or -, a file",
            |v| v.list()?.iter().map(|text| key_file(text)).collect(),
        ),
        drain_deadline: span(o, "server.drain_deadline", 0..=300),
        hard_deadline: span(o, "server.hard_deadline", 1..=600),
        log_filter: o.read("log.level", "a level or a filter such as \"info,tidings::store=debug\"", log_filter),
        log_format: o.read("log.format", "\"auto\", \"terminal\", \"journal\" or \"json\"", log_format),
        http: http_config(o),
        dingtalk,
        robots,
        intake: intake_config(o),
        broker: broker_config(o),
        deliver: deliver::Config { workers: workers(o), email: email_config(o).map(Box::new) },
    };
    config.broker.media = Media {
        email: config.deliver.email.as_ref().map(|mail| Mail { domain: mail.from.address.domain().to_owned() }),
        dingtalk: (!config.dingtalk.robots.is_empty()).then(|| config.robots.clone()),
    };
    if config.drain_deadline > config.hard_deadline {
        let told = "server.drain_deadline must not be longer than server.hard_deadline";
        o.refuse(&["server.drain_deadline", "server.hard_deadline"], told);
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
        limits: limits(o),
        trusted_proxies: o.read("http.trusted_proxies", PEERS, peers),
        trusted_header: trusted_header(o),
        ..http::Config::default()
    }
}

/// Mail, where `email.url` says that there is a relay.
fn email_config(o: &mut Overlay) -> Option<email::Config> {
    const FROM: &str = "a mail address, such as \"library@example.org\" or \"Library <library@example.org>\", or empty";
    const RATE: &str = "a rate such as \"10/s\", \"100/m\" or \"1000/h\", or empty";
    let url = o.read("email.url", "a text", |v| v.text().map(some_text));
    let from = o.read("email.from", FROM, |v| or_empty(v, email::Sender::parse));
    let password_file = o.read("email.password_file", "the path of a file, credential:NAME, or empty", path);
    let ca_file = o.read("email.ca_file", "the path of a file, or empty", path);
    let per_domain = o.read("email.per_domain", RATE, |v| or_empty(v, email::Rate::parse));
    let together_per_domain = count(o, "email.together_per_domain", 1..=64);
    let connections = count(o, "email.connections", 1..=256);
    let timeout = span(o, "email.timeout", 1..=600);
    let public_url = o.read(
        "http.public_url",
        "empty or the address that browsers use, such as \"https://app.example/tidings\"",
        |v| or_empty(v, public_address),
    );
    // Told in the relay's own words, which never repeat what may hold a password.
    let relay = match email::Relay::parse(&url?) {
        Ok(relay) => relay,
        Err(why) => {
            o.refuse(&["email.url"], &format!("email.url {why}"));
            return None;
        }
    };
    let Some(from) = from else {
        o.refuse(
            &["email.url"],
            "email.url needs email.from: who mail is from, such as \"Library <library@example.org>\"",
        );
        return None;
    };
    let password = relay.account.as_ref().map(|account| account.password.is_some());
    match (password, &password_file) {
        (None, Some(_)) => {
            let told = "email.password_file needs a user in email.url, such as smtp://library@mail.example:587";
            o.refuse(&["email.password_file"], told);
        }
        (Some(true), Some(_)) => {
            let told = "email.password_file: email.url has a password already; keep one of them";
            o.refuse(&["email.password_file"], told);
        }
        (Some(false), None) => {
            let told = "email.url names a user, so email.password_file must name the file that has the password";
            o.refuse(&["email.url"], told);
        }
        (None | Some(true), None) | (Some(false), Some(_)) => {}
    }
    Some(email::Config {
        relay,
        from,
        password_file,
        ca_file,
        per_domain,
        together_per_domain,
        connections,
        timeout,
        public_url,
        unsubscribe: None,
    })
}

/// What a text must be where it is not empty; the inner `None` is the empty text.
fn or_empty<T>(value: &Value, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match value.text()? {
        "" => Some(None),
        text => read(text).map(Some),
    }
}

/// The address of a server as browsers have it, with its base path and without a slash at the end.
fn public_address(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let path = base_path(path)?;
    is_origin(&format!("{scheme}://{host}")).then(|| format!("{scheme}://{host}{path}"))
}

const PEERS: &str = "a list of addresses, networks such as \"10.0.0.0/8\", and \"unix\"";

fn peers(value: &Value) -> Option<http::Peers> {
    http::Peers::parse(value.list()?.iter().map(String::as_str)).ok()
}

fn trusted_header(o: &mut Overlay) -> Option<http::TrustedHeader> {
    let name = o.read("auth.trusted_header", "the name of a header, such as \"X-Remote-User\", or empty", header);
    let from = o.read("auth.trusted_header_from", PEERS, peers);
    if name.is_some() && from == http::Peers::default() {
        let told = "auth.trusted_header needs auth.trusted_header_from: who sends it, such as [\"127.0.0.1\"]";
        o.refuse(&["auth.trusted_header"], told);
    }
    name.map(|name| http::TrustedHeader { name, from })
}

/// A header that may name users; the inner `None` is the empty text.
fn header(value: &Value) -> Option<Option<HeaderName>> {
    /// What says something else already.
    const TAKEN: [&str; 26] = [
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "idempotency-key",
        "keep-alive",
        "last-event-id",
        "origin",
        "referer",
        "sec-fetch-site",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
    ];
    match some_text(value.text()?) {
        None => Some(None),
        Some(name) => HeaderName::try_from(name).ok().filter(|name| !TAKEN.contains(&name.as_str())).map(Some),
    }
}

fn limits(o: &mut Overlay) -> http::Limits {
    let mut most = |key| NonZeroU32::new(u32::try_from(count(o, key, 0..=1_000_000)).unwrap_or(u32::MAX));
    http::Limits {
        streams_per_user: most("limits.streams_per_user"),
        streams_per_address: most("limits.streams_per_address"),
        rates: http::Rates {
            connects_per_address: most("limits.connects_per_address"),
            publishes_per_key: most("limits.publishes_per_key"),
            publishes_per_user: most("limits.publishes_per_user"),
            marks_per_user: most("limits.marks_per_user"),
        },
    }
}

/// `ES256 web-2026 /etc/tidings/web.pem`.
fn key_file(text: &str) -> Option<KeyFile> {
    let mut words = text.splitn(3, ' ');
    let (algorithm, name, path) = (words.next()?, words.next()?, words.next()?);
    let known = broker::VerifyingKey::ALGORITHMS.contains(&algorithm) && !name.is_empty() && !path.is_empty();
    known.then(|| KeyFile {
        algorithm: algorithm.to_owned(),
        name: (name != "-").then(|| name.to_owned()),
        path: path.into(),
    })
}

fn broker_config(o: &mut Overlay) -> broker::Config {
    let jwt = broker::JwtConfig {
        secret: Vec::new(),
        keys: Vec::new(),
        audience: o.read("auth.audience", "a text", |v| v.text().map(some_text)),
        issuer: o.read("auth.issuer", "a text", |v| v.text().map(some_text)),
    };
    let mut config = broker::Config {
        jwt,
        ticket_ttl: span(o, "auth.ticket_ttl", 60..=7 * DAY),
        proxy_recheck: span(o, "auth.trusted_header_recheck", 10..=DAY),
        heartbeat: span(o, "streams.heartbeat", 1..=25),
        max_age: Some(span(o, "streams.max_age", 0..=30 * DAY)).filter(|age| !age.is_zero()),
        unknown_topics: o.read("topics.unknown", "\"create\" or \"refuse\"", unknown),
        unknown_users: o.read("users.unknown", "\"create\" or \"refuse\"", unknown),
        schedule_horizon: span(o, "schedule.horizon", 60..=3_650 * DAY),
        retention: retention(o),
        outbox: outbox(o),
        everyone_horizon: span(o, "topics.everyone_horizon", 0..=365 * DAY),
        idempotency_ttl: span(o, "idempotency.ttl", 60..=30 * DAY),
        ..broker::Config::default()
    };
    config.hub.max_subscribers = count(o, "streams.max", 1..=1_000_000);
    config
}

fn workers(o: &mut Overlay) -> deliver::Workers {
    deliver::Workers { workers: count(o, "outbox.workers", 1..=256), ..deliver::Workers::default() }
}

fn outbox(o: &mut Overlay) -> broker::Outbox {
    let schedule = "a list of 1 to 20 durations from 1s to 7d, such as [\"30s\", \"10m\"]";
    broker::Outbox {
        schedule: o.read("outbox.schedule", schedule, |v| steps(&v.list()?)),
        expire_after: span(o, "outbox.expire_after", 3_600..=30 * DAY),
        keep: span(o, "outbox.keep", 3_600..=3_650 * DAY),
        domain: o.read("outbox.domain", "the name of a domain, or empty", |v| domain(v.text()?)),
    }
}

/// Waits between attempts.
fn steps(texts: &[String]) -> Option<Vec<Duration>> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(7 * DAY);
    let steps: Option<Vec<Duration>> =
        texts.iter().map(|text| duration(text).filter(|step| bounds.contains(step))).collect();
    steps.filter(|steps| (1..=20).contains(&steps.len()))
}

/// A domain as it may stand in a message id; the inner `None` is the empty text.
fn domain(text: &str) -> Option<Option<String>> {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let valid = text.is_empty() || (text.len() <= 253 && text.split('.').all(label));
    valid.then(|| some_text(text))
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

/// `None` where no queue is named.
fn intake_config(o: &mut Overlay) -> Option<intake::Config> {
    let url = o.read("amqp.url", "a text", |v| v.text().map(some_text));
    let queue = o.read("amqp.queue", NAME, name);
    let password_file = o.read("amqp.password_file", "the path of a file, credential:NAME, or empty", path);
    let ca_file = o.read("amqp.ca_file", "the path of a file, or empty", path);
    let declare = o.read("amqp.declare", "\"passive\" or \"durable\"", declare);
    let dead_letter_exchange = o.read("amqp.dead_letter_exchange", NAME, name);
    let prefetch = u16::try_from(count(o, "amqp.prefetch", 1..=10_000)).expect("its bounds fit");
    let max_message = size(o, "amqp.max_message", 1 << 10..=16 << 20);
    let url = url?;
    if let Some(why) = intake::refusal() {
        o.refuse(&["amqp.url"], &format!("amqp.url can't be used: {why}"));
        return None;
    }
    let address = match intake::Address::parse(&url) {
        Ok(address) => address,
        Err(why) => {
            o.refuse(&["amqp.url"], &format!("amqp.url {why}"));
            return None;
        }
    };
    let Some(queue) = queue else {
        o.refuse(&["amqp.url"], "amqp.url needs amqp.queue: the name of the queue that is consumed");
        return None;
    };
    let password = None;
    Some(intake::Config {
        address,
        password_file,
        password,
        ca_file,
        queue,
        declare,
        dead_letter_exchange,
        prefetch,
        max_message,
    })
}

const NAME: &str = "a name of at most 255 bytes without control characters, or empty";

/// The name of a queue or an exchange; the inner `None` is the empty text.
fn name(value: &Value) -> Option<Option<String>> {
    let text = value.text()?;
    let fits = text.len() <= intake::MAX_NAME_BYTES && !text.contains(char::is_control);
    fits.then(|| some_text(text))
}

fn declare(value: &Value) -> Option<intake::Declare> {
    match value.text()? {
        "passive" => Some(intake::Declare::Passive),
        "durable" => Some(intake::Declare::Durable),
        _ => None,
    }
}

/// Seconds.
const DAY: u64 = 86_400;

/// Reads a duration; `bounds` are seconds.
pub(super) fn span(o: &mut Overlay, key: &str, bounds: RangeInclusive<u64>) -> Duration {
    let text = |seconds: &u64| duration_text(Duration::from_secs(*seconds));
    let expected =
        format!("a duration from {} to {}, such as \"90s\" or \"2h\"", text(bounds.start()), text(bounds.end()));
    o.read(key, &expected, |v| v.duration().filter(|span| bounds.contains(&span.as_secs())))
}

pub(super) fn count(o: &mut Overlay, key: &str, bounds: RangeInclusive<usize>) -> usize {
    let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
    o.read(key, &expected, |v| usize::try_from(v.number()?).ok().filter(|n| bounds.contains(n)))
}

/// Reads a size; `bounds` are bytes.
fn size(o: &mut Overlay, key: &str, bounds: RangeInclusive<usize>) -> usize {
    let expected = format!("a size from {} to {} bytes, such as \"256KiB\"", bounds.start(), bounds.end());
    o.read(key, &expected, |v| usize::try_from(v.size()?).ok().filter(|n| bounds.contains(n)))
}

/// A path; the inner `None` is the empty text.
pub(super) fn path(value: &Value) -> Option<Option<PathBuf>> {
    value.text().map(|text| some_text(text).map(PathBuf::from))
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A filter; it is kept as text, since the layers of the log each read it for themselves.
fn log_filter(value: &Value) -> Option<String> {
    value.text().and_then(some_text).filter(|text| EnvFilter::try_new(text).is_ok())
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
pub(super) fn base_path(text: &str) -> Option<String> {
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
