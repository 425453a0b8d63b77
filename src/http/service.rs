//! One request from its head to its answer: limits, base path, route, caller, handler, and the headers that every
//! answer bears.
//!
//! **Invariant**: it always answers. A panic in a handler is counted, logged and told as a 500.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Instant;

use futures_util::FutureExt as _;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, HOST, HeaderName, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::api::{
    batch, deliveries, demo, follows, health, inbox, keys, notifications, ops, profiles, publish, scheduled, session,
    streams, templates, tickets, topics, unsubscribe, upkeep, users,
};
use super::body::Body;
use super::call::Call;
use super::query::Query;
use super::router::{self, Entry, Found, Params, Route};
use super::{App, Peer, answer, assets, auth, compress, network, problem, stream};
use crate::broker::Mute;
use crate::metrics::Metrics;
use crate::wire::problem::Problem;

/// Bytes of a request's target at most.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Bytes of a request's head at most. Hyper's buffer is as large, so only a head that just fits comes to be counted.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Header fields of a request at most.
const MAX_HEADERS: usize = 64;

impl App {
    /// Answers one request.
    pub async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let config = self.config();
        let method = request.method().clone();
        let encodings = request.headers().get(ACCEPT_ENCODING).cloned();
        let mut path = "";
        let handled = contain(pin!(self.handle(peer, request, &mut path)), self.metrics()).await;
        let mut response =
            handled.unwrap_or_else(|problem| problem::answer(&problem, &config.base_path, self.metrics()));
        finish(response.headers_mut());
        if self.lifecycle().is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let response = compress::compress(encodings, response).await;
        // The route, never the target: a ticket may stand in the query.
        tracing::debug!(%method, path, status = response.status().as_u16(), duration_ms = started.elapsed().as_millis(), "answered");
        response
    }

    async fn handle(
        &self,
        peer: Peer,
        request: Request<Incoming>,
        path: &mut &'static str,
    ) -> Result<Response<Body>, Problem> {
        let (head, body) = request.into_parts();
        check_head(&head)?;
        let config = self.config();
        let below = head.uri.path().strip_prefix(config.base_path.as_str());
        // Who watches asks the server itself, whatever path a proxy gives it.
        let below = if peer == Peer::Watcher { below.or(Some(head.uri.path())) } else { below };
        let Some(below) = below else { return Err(problem::nothing_here()) };
        if peer == Peer::Watcher && !router::is_watching(below) {
            return Err(problem::nothing_here());
        }
        if below.is_empty() && !config.base_path.is_empty() {
            return Ok(to_slash(&config.base_path));
        }
        let (entry, params) = match router::find(&head.method, below)? {
            Found::Entry(entry, params) => (entry, params),
            Found::OtherMethods { allow } => {
                return Ok(problem::method_not_allowed(allow, &config.base_path, self.metrics()));
            }
            Found::Options { allow } => return Ok(options(allow)),
        };
        *path = entry.path;
        self.admit(peer, head, body, entry, params).await
    }

    async fn admit(
        &self,
        peer: Peer,
        head: Parts,
        body: Incoming,
        entry: &Entry,
        params: Params,
    ) -> Result<Response<Body>, Problem> {
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let config = self.config();
        let address = network::client(peer, &head.headers, &config.trusted_proxies);
        let proxied = config.trusted_proxies.contains(peer);
        match auth::admit(self, peer, &head, &query, entry.access).await {
            Ok(caller) => {
                dispatch(entry.route, Call { app: self.clone(), head, body, query, params, caller, address, proxied })
                    .await
            }
            // A browser's EventSource stops for ever on an error status, so a stream's refusal may need another form.
            Err(denied) if entry.route == Route::OpenStream => {
                stream::turn_away(&head.headers, &query, denied, |reason| self.broker().retry_ms(reason))
            }
            Err(denied) if entry.route == Route::OpenWebSocket => {
                stream::websocket::turn_away(self, &head, &query, denied)
            }
            Err(denied) => Err(denied.into()),
        }
    }
}

/// Turns a panic into a 500, so that it ends one request, or one line of a batch, and not the connection.
pub async fn contain<T>(handler: impl Future<Output = Result<T, Problem>>, metrics: &Metrics) -> Result<T, Problem> {
    AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = said.unwrap_or("no message"), "a request's handler panicked");
        metrics.panics.inc();
        Err(problem::INTERNAL.because("the server failed at this request and has logged why"))
    })
}

#[expect(clippy::too_many_lines, reason = "a table in all but name: a line for each route")]
async fn dispatch(route: Route, call: Call) -> Result<Response<Body>, Problem> {
    match route {
        Route::Healthz => Ok(health::alive()),
        Route::Readyz => Ok(health::ready(&call)),
        Route::Metrics => Ok(health::metrics(&call).await),
        Route::InboxPage => assets::page(&call, "inbox.html"),
        Route::PublishPage => assets::page(&call, "publish.html"),
        Route::PreferencesPage => assets::page(&call, "preferences.html"),
        Route::DemoPage => assets::page(&call, "demo.html"),
        Route::StaticFile => assets::file(&call, call.params.text("file")),
        Route::Favicon => assets::file(&call, "favicon.svg"),
        Route::ProblemPage => assets::problem_page(call.params.text("code")),
        Route::DemoUsers => demo::users(&call),
        Route::DemoSignIn => demo::sign_in(call).await,
        Route::SignIn => session::sign_in(&call),
        Route::SignOut => session::sign_out(&call),
        Route::MintTicket => tickets::mint(call).await,
        Route::OpenStream => stream::open(&call),
        Route::Poll => stream::long_poll::poll(&call).await,
        Route::OpenWebSocket => stream::websocket::open(&call),
        Route::RefreshStream => streams::refresh(&call).await,
        Route::Inbox => inbox::page(&call).await,
        Route::InboxCounts => inbox::counts(&call).await,
        Route::InboxEntry => inbox::entry(&call).await,
        Route::Mark => inbox::mark(call).await,
        Route::PutProfiles => profiles::put_many(call).await,
        Route::Profile => profiles::one(&call).await,
        Route::PutProfile => profiles::put(call).await,
        Route::OwnProfile => profiles::own(&call).await,
        Route::PutOwnProfile => profiles::put_own(call).await,
        Route::UnsubscribePage => unsubscribe::page(&call),
        Route::Unsubscribe => unsubscribe::act(call).await,
        Route::UserCounts => users::counts(&call).await,
        Route::ExportUser => users::export(&call).await,
        Route::EraseUser => users::erase(&call).await,
        Route::Publish => match publish::form(call.headers())? {
            publish::Form::One => publish::one(call).await,
            publish::Form::Batch => batch::publish(call).await,
        },
        Route::PublishPlain => publish::plain(call).await,
        Route::Notification => notifications::status(&call).await,
        Route::Recipients => notifications::recipients(&call).await,
        Route::Explain => notifications::explain(&call).await,
        Route::Retract => notifications::retract(&call).await,
        Route::Deliveries => deliveries::list(&call).await,
        Route::ExportDeliveries => deliveries::export(&call).await,
        Route::Delivery => deliveries::one(&call).await,
        Route::RetryDelivery => deliveries::retry(&call).await,
        Route::RetryDeliveries => deliveries::retry_many(call).await,
        Route::Scheduled => scheduled::list(&call).await,
        Route::ChangeScheduled => scheduled::change(call).await,
        Route::Topics => topics::list(&call).await,
        Route::PutTopic => topics::put(call).await,
        Route::Topic => topics::one(&call).await,
        Route::DeleteTopic => topics::delete(&call).await,
        Route::Followers => topics::followers(&call).await,
        Route::Follow => topics::follow(call).await,
        Route::Unfollow => topics::unfollow(&call).await,
        Route::FollowMany => topics::follow_many(call).await,
        Route::FollowOwn => follows::follow(call).await,
        Route::UnfollowOwn => follows::unfollow(&call).await,
        Route::Mute => follows::mute(&call, Mute::On).await,
        Route::Unmute => follows::mute(&call, Mute::Off).await,
        Route::OwnFollows => follows::list(&call).await,
        Route::Templates => templates::list(&call).await,
        Route::Template => templates::one(&call).await,
        Route::PutTemplate => templates::put(call).await,
        Route::DeleteTemplate => templates::delete(&call).await,
        Route::PublishTemplate => templates::publish(call).await,
        Route::PreviewTemplate => templates::preview(call).await,
        Route::CreateKey => keys::create(call).await,
        Route::Keys => keys::list(&call).await,
        Route::RevokeKey => keys::revoke(&call).await,
        Route::Recount => upkeep::recount(call).await,
        Route::RotateKey => keys::rotate(call).await,
        Route::Compact => upkeep::compact(&call).await,
        Route::Backup => upkeep::backup(&call).await,
        Route::Check => upkeep::check(&call).await,
        Route::Reload => ops::reload(&call).await,
        Route::Status => Ok(ops::status(&call)),
        Route::Online => ops::online(&call).await,
        Route::Disconnect => ops::disconnect(&call).await,
        Route::Revoke => ops::revoke(&call).await,
        Route::Restore => ops::restore(&call).await,
    }
}

/// What is refused by the head alone.
fn check_head(head: &Parts) -> Result<(), Problem> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        return Err(problem::TARGET_TOO_LONG
            .because(format!("the target has {target} bytes; at most {MAX_TARGET_BYTES} are taken")));
    }
    // `name: value\r\n` each.
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let (count, bytes) = (head.headers.len(), target + fields.sum::<usize>());
    if count > MAX_HEADERS || bytes > MAX_HEAD_BYTES {
        return Err(headers_too_large());
    }
    check_host(&head.headers, head.version)
}

/// 431, also for what hyper refuses.
pub fn headers_too_large() -> Problem {
    problem::HEADERS_TOO_LARGE
        .because(format!("at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} header fields are taken"))
}

fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let valid = host
                .to_str()
                .ok()
                .and_then(|text| text.parse::<Authority>().ok())
                .is_some_and(|host| !host.as_str().contains('@'));
            if valid {
                Ok(())
            } else {
                Err(problem::BAD_HOST.because("the Host header is no host with an optional port"))
            }
        }
        // HTTP/1.0 had no Host; health checks of load balancers still speak it.
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(problem::BAD_HOST.because("the Host header is missing")),
        (Some(_), Some(_)) => Err(problem::BAD_HOST.because("the Host header stands more than once")),
    }
}

/// Pages use relative addresses, which would leave the base path if it were shown without its slash.
fn to_slash(base_path: &str) -> Response<Body> {
    let mut response = answer::nothing();
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(format!("{base_path}/")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What the path can do, for whoever asks without a word about origins.
fn options(allow: HeaderValue) -> Response<Body> {
    let mut response = answer::nothing();
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Headers of every answer, where its handler has not set them otherwise.
fn finish(headers: &mut HeaderMap) {
    const DEFAULTS: [(HeaderName, HeaderValue); 4] = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    ];
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(Method::GET).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a valid head").into_parts().0
    }

    fn refusal(target: &str, headers: &[(&str, &str)]) -> Option<u16> {
        check_head(&head(target, headers)).err().map(|problem| problem.status)
    }

    #[test]
    fn exactly_one_host_is_needed() {
        assert_eq!(refusal("/", &[("host", "localhost:8080")]), None);
        assert_eq!(refusal("/", &[("host", "[::1]:80")]), None);
        for bad in [
            &[][..],
            &[("host", "")],
            &[("host", "a"), ("host", "a")],
            &[("host", "a b")],
            &[("host", "u@a")],
            &[("host", "a/b")],
        ] {
            assert_eq!(refusal("/", bad), Some(400), "{bad:?}");
        }
        let mut old = head("/", &[]);
        old.version = Version::HTTP_10;
        assert!(check_head(&old).is_ok());
    }

    #[test]
    fn long_heads_are_refused_by_name() {
        let host = ("host", "a");
        assert_eq!(refusal(&format!("/{}", "x".repeat(MAX_TARGET_BYTES)), &[host]), Some(414));
        assert_eq!(refusal("/", &[host, ("cookie", &"x".repeat(MAX_HEAD_BYTES))]), Some(431));
        let many: Vec<_> = std::iter::repeat_n(("x", "y"), MAX_HEADERS).chain([host]).collect();
        assert_eq!(refusal("/", &many), Some(431));
        assert_eq!(refusal("/", &many[1..]), None);
    }

    #[tokio::test]
    async fn a_panic_ends_one_request_and_tells_nothing() {
        let metrics = Metrics::default();
        let handler = async { if metrics.panics.get() == 0 { panic!("the secret is 42") } else { Ok(()) } };
        let problem = contain(handler, &metrics).await.expect_err("it panicked");
        assert_eq!((problem.status, problem.code), (500, "internal"));
        assert!(!problem.detail.contains("42"));
        assert_eq!(metrics.panics.get(), 1);
    }

    #[test]
    fn what_a_handler_set_stays() {
        let mut headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-cache"))]);
        finish(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "no-cache");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
