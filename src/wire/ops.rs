//! Bodies for those who keep a server: how it is, who is online, whose access is taken back, keys that are rotated.

use std::time::Duration;

use serde::Serialize;

use super::json::{BodyError, Fields};
use super::measure::{DURATION_RULE, duration};
use crate::model::UserId;

/// How long the secret before a rotation is taken where the caller does not say, and at most.
const DEFAULT_GRACE: Duration = Duration::from_hours(24);
const MAX_GRACE: Duration = Duration::from_hours(30 * 24);

/// Reads the body of `POST /v1/keys/{key}/rotate`: `{"grace"}`, or nothing.
///
/// # Errors
/// [`BodyError`].
pub fn parse_rotation(body: &[u8]) -> Result<Duration, BodyError> {
    if body.is_empty() {
        return Ok(DEFAULT_GRACE);
    }
    let mut fields = Fields::parse(body)?;
    let grace = match fields.text("grace").map(|text| duration(&text)) {
        None => Some(DEFAULT_GRACE),
        Some(Some(grace)) if grace <= MAX_GRACE => Some(grace),
        Some(_) => {
            fields.refuse("grace", format!("{DURATION_RULE}, 30d at most"));
            None
        }
    };
    fields.close(grace)
}

/// A user with live streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnlineUser {
    #[serde(serialize_with = "as_text")]
    pub user: UserId,
    /// Its streams that are open, on any transport.
    pub streams: usize,
}

fn as_text<S: serde::Serializer>(user: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(user.as_str())
}

/// One page of who is online, by name.
#[derive(Clone, Debug, Serialize)]
pub struct OnlineBody {
    pub users: Vec<OnlineUser>,
    /// How many are online in all.
    pub online: usize,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// The answer to ending a user's streams.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EndedBody {
    pub ended: usize,
}

/// The answer to taking access back.
#[derive(Clone, Debug, Serialize)]
pub struct RevokedBody<'a> {
    pub user: &'a str,
    pub revoked: bool,
    /// Streams that it ended.
    pub ended: usize,
}

/// The answer to a reload.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadedBody {
    pub reloaded: bool,
    /// Settings that have changed and count only after a restart.
    pub needs_restart: Vec<&'static str>,
}

/// How the server is.
#[derive(Clone, Debug, Serialize)]
pub struct StatusBody {
    pub version: &'static str,
    /// `ready`, `draining` or `degraded`.
    pub status: &'static str,
    /// Why it is degraded.
    pub why: Option<String>,
    pub started_at: String,
    pub uptime_s: u64,
    pub listens: Vec<String>,
    pub cursor: String,
    pub users_online: i64,
    pub connections: Connections,
    pub sockets: i64,
    pub sockets_max: i64,
    pub publishes: u64,
    pub deliveries: u64,
    /// Answers that told a problem.
    pub errors: u64,
    /// What was refused because a limit was reached.
    pub limited: u64,
    pub lags: u64,
    pub panics: u64,
    pub count_drift: u64,
    pub revocations: i64,
    pub queue_bytes: i64,
    pub database_bytes: i64,
    pub wal_bytes: i64,
    /// Free space where the database lies; `None` where it can't be told.
    pub disk_free_bytes: Option<u64>,
    pub resident_memory_bytes: i64,
    pub open_files: i64,
    pub open_files_max: i64,
    /// How the queue is consumed; `None` where none is.
    pub intake: Option<IntakeBody>,
}

/// How the queue is consumed.
#[derive(Clone, Debug, Serialize)]
pub struct IntakeBody {
    /// As `/readyz` tells it.
    pub state: String,
    /// Why it is not consumed.
    pub why: Option<String>,
    /// Messages that never could be taken, since the start: the newest first, and the newest alone.
    pub untaken: Vec<UntakenBody>,
}

/// A message of the queue that never could be taken.
#[derive(Clone, Debug, Serialize)]
pub struct UntakenBody {
    pub at: String,
    pub reason: &'static str,
    pub detail: String,
    pub id: Option<String>,
    pub bytes: u64,
    /// `dead_lettered` or `rejected`.
    pub went: &'static str,
}

/// Live subscribers by transport.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Connections {
    pub sse: i64,
    pub poll: i64,
    pub ws: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_has_units_and_a_bound() {
        assert_eq!(parse_rotation(b""), Ok(DEFAULT_GRACE));
        assert_eq!(parse_rotation(b"{}"), Ok(DEFAULT_GRACE));
        assert_eq!(parse_rotation(br#"{"grace":"10m"}"#), Ok(Duration::from_mins(10)));
        assert_eq!(parse_rotation(br#"{"grace":0}"#), Ok(Duration::ZERO));
        for bad in [r#"{"grace":"31d"}"#, r#"{"grace":-1}"#, r#"{"grase":"1h"}"#] {
            assert!(parse_rotation(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
