//! `GET /v1/poll`: the same events as a stream's, as one answer a request.
//!
//! Nothing is kept between two requests but the client's cursor. A client that goes away takes its poll with it: hyper
//! drops the handler, and what it held is freed at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{Response, StatusCode};

use super::live::LiveStream;
use super::options::Options;
use crate::broker::{FeedRequest, MAX_POLL_EVENTS, PollRequest};
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::limits::Sole;
use crate::http::query::{Query, bad};
use crate::http::{answer, problem};
use crate::model::{UserId, UserIdentity};
use crate::wire::problem::Problem;

/// Seconds to wait where the client names none, and at most.
const DEFAULT_WAIT: u64 = 25;
const MAX_WAIT: u64 = 60;
/// Events of an answer where the client names no number.
const DEFAULT_LIMIT: usize = 100;
/// Characters of a client's name.
const MAX_CLIENT: usize = 64;

/// Polls of one client that names itself, in the long run, a second, and at once. One that catches up page by page stays
/// far below.
const POLLS_A_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("it is not zero");
const POLLS_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).expect("it is not zero");
/// The same for all of a user's clients together.
const USER_POLLS_A_SECOND: NonZeroU32 = NonZeroU32::new(500).expect("it is not zero");
const USER_POLLS_AT_ONCE: NonZeroU32 = NonZeroU32::new(5_000).expect("it is not zero");
/// Clients are forgotten every so many polls, those apart that have polled much of late.
const FORGET_EVERY: u32 = 4_096;

/// Holds back a client that polls as fast as it can, such as a page whose timer runs wild.
pub struct Pace {
    clients: DefaultKeyedRateLimiter<(UserId, Arc<str>)>,
    users: DefaultKeyedRateLimiter<UserId>,
    polls: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        let quota = Quota::per_second(POLLS_A_SECOND).allow_burst(POLLS_AT_ONCE);
        let users = Quota::per_second(USER_POLLS_A_SECOND).allow_burst(USER_POLLS_AT_ONCE);
        Self { clients: RateLimiter::keyed(quota), users: RateLimiter::keyed(users), polls: AtomicU32::new(0) }
    }
}

impl Pace {
    /// Takes one poll into account; how many a second there may be, where it is one too many.
    fn admits(&self, user: &UserId, client: Option<&Arc<str>>) -> Result<(), NonZeroU32> {
        // The limiters never forget by themselves.
        if self.polls.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.clients.retain_recent();
            self.clients.shrink_to_fit();
            self.users.retain_recent();
            self.users.shrink_to_fit();
        }
        self.users.check_key(user).map_err(|_| USER_POLLS_A_SECOND)?;
        let Some(client) = client else { return Ok(()) };
        self.clients.check_key(&(user.clone(), client.clone())).map_err(|_| POLLS_A_SECOND)
    }
}

/// Waits for what comes after the client's cursor.
///
/// # Errors
/// 400 for a parameter that can't be read, 429 for a client that polls without pause, 503 where the poll is refused.
pub async fn poll(call: &Call) -> Result<Response<Body>, Problem> {
    let who = call.user()?.clone();
    let request = read(call)?;
    call.app.pace().admits(&who.user, request.client.as_ref()).map_err(|most| {
        problem::TOO_MANY.for_now(format!("polls come more often than {most} times a second in the long run"), 1)
    })?;
    // A plain catch-up is over at once.
    let seat =
        if request.wait.is_zero() { None } else { Some(call.seat(&who.user, sole(&who, request.client.as_ref()))?) };
    let live = LiveStream::new("poll", seat, call.app.metrics());
    let polled = call.broker().poll(who, request).await?;
    let body = answer::to_json(&polled);
    live.delivered(&polled.frames, body.len());
    Ok(answer::typed(StatusCode::OK, answer::JSON, body))
}

/// Whose poll ends when this one begins; one that names itself ends its own by that name, whatever the ticket.
fn sole(who: &UserIdentity, client: Option<&Arc<str>>) -> Option<Sole> {
    client.map(|client| Sole::Client(who.user.clone(), client.clone())).or_else(|| Sole::of(who))
}

fn read(call: &Call) -> Result<PollRequest, Problem> {
    let Options { resume, snapshot, filter, .. } = Options::read(call.headers(), &call.query)?;
    Ok(PollRequest {
        feed: FeedRequest { resume, snapshot, filter },
        wait: wait(&call.query)?,
        limit: limit(&call.query)?,
        client: client(&call.query)?,
    })
}

fn wait(query: &Query) -> Result<Duration, Problem> {
    let Some(text) = query.text("wait")? else { return Ok(Duration::from_secs(DEFAULT_WAIT)) };
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT);
    seconds.map(Duration::from_secs).ok_or_else(|| bad("wait", &format!("must be 0 to {MAX_WAIT} seconds")))
}

fn limit(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.text("limit")? else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_POLL_EVENTS).contains(limit));
    limit.ok_or_else(|| bad("limit", &format!("must be 1 to {MAX_POLL_EVENTS}")))
}

fn client(query: &Query) -> Result<Option<Arc<str>>, Problem> {
    let Some(text) = query.text("client")? else { return Ok(None) };
    if text.len() > MAX_CLIENT || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("client", &format!("must be 1 to {MAX_CLIENT} printable ASCII characters")));
    }
    Ok(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_within_their_limits() {
        let query = Query::parse("wait=0&limit=500&client=tab-1");
        assert_eq!(wait(&query), Ok(Duration::ZERO));
        assert_eq!(limit(&query), Ok(500));
        assert_eq!(client(&query), Ok(Some("tab-1".into())));
        let plain = Query::default();
        assert_eq!((wait(&plain), limit(&plain)), (Ok(Duration::from_secs(25)), Ok(100)));
        assert_eq!(client(&plain), Ok(None));
    }

    #[test]
    fn absurd_parameters_are_refused() {
        for bad in ["wait=1e9", "wait=61", "wait=-1", "wait=x", "wait=18446744073709551616"] {
            assert_eq!(wait(&Query::parse(bad)).map_err(|p| p.code), Err("bad-query"), "{bad}");
        }
        for bad in ["limit=-1", "limit=0", "limit=501", "limit=1e3"] {
            assert_eq!(limit(&Query::parse(bad)).map_err(|p| p.code), Err("bad-query"), "{bad}");
        }
        for bad in [format!("client={}", "x".repeat(65)), "client=a+b".to_owned(), "client=%C3%A9".to_owned()] {
            assert_eq!(client(&Query::parse(&bad)).map_err(|p| p.code), Err("bad-query"), "{bad}");
        }
    }

    #[test]
    fn a_client_that_polls_without_pause_is_held_back_and_no_other() {
        let pace = Pace::default();
        let user = UserId::new("alice").expect("a user");
        let admitted = |count: NonZeroU32, client: Option<&Arc<str>>| {
            let count = (0..count.get() * 2).filter(|_| pace.admits(&user, client).is_ok()).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let most = POLLS_AT_ONCE.get();
        assert!((most..most + most / 2).contains(&admitted(POLLS_AT_ONCE, Some(&"hidden".into()))));
        assert_eq!(pace.admits(&user, Some(&"other".into())), Ok(()));
        assert!(admitted(USER_POLLS_AT_ONCE, None) < USER_POLLS_AT_ONCE.get() * 3 / 2, "nor is a crowd without names");
        assert_eq!(pace.admits(&UserId::new("bob").expect("a user"), None), Ok(()));
    }
}
