//! The one table of routes, and finding a request's route in it.
//!
//! **Invariant**: the table is all there is: method, path, who may call, and which handler. Tests walk it, and the
//! description of the API is held against it.

use std::sync::LazyLock;

use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;

use super::auth::Access;
use super::problem;
use crate::wire::problem::Problem;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub verb: Verb,
    /// Below the base path; `{name}` is one segment, `{*name}` all that is left.
    pub path: &'static str,
    pub access: Access,
    pub route: Route,
}

/// The methods that routes have. `HEAD` is answered wherever an open `GET` is, `OPTIONS` everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// The handlers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    Healthz,
    Readyz,
    Metrics,
    InboxPage,
    PublishPage,
    PreferencesPage,
    DemoPage,
    StaticFile,
    Favicon,
    ProblemPage,
    DemoUsers,
    DemoSignIn,
    SignIn,
    SignOut,
    MintTicket,
    OpenStream,
    Poll,
    OpenWebSocket,
    RefreshStream,
    Inbox,
    InboxCounts,
    InboxEntry,
    Mark,
    PutProfiles,
    Profile,
    PutProfile,
    OwnProfile,
    PutOwnProfile,
    UnsubscribePage,
    Unsubscribe,
    UserCounts,
    ExportUser,
    EraseUser,
    Publish,
    PublishPlain,
    Notification,
    Recipients,
    Explain,
    Retract,
    Deliveries,
    ExportDeliveries,
    Delivery,
    RetryDelivery,
    RetryDeliveries,
    Scheduled,
    ChangeScheduled,
    Topics,
    PutTopic,
    Topic,
    DeleteTopic,
    Followers,
    Follow,
    Unfollow,
    FollowMany,
    FollowOwn,
    UnfollowOwn,
    Mute,
    Unmute,
    OwnFollows,
    Templates,
    Template,
    PutTemplate,
    DeleteTemplate,
    PublishTemplate,
    PreviewTemplate,
    CreateKey,
    Keys,
    RevokeKey,
    RotateKey,
    Recount,
    Compact,
    Backup,
    Check,
    Reload,
    Status,
    Online,
    Disconnect,
    Revoke,
    Restore,
}

/// Every route.
pub const ROUTES: &[Entry] = &[
    entry(Verb::Get, "/healthz", Access::Probe, Route::Healthz),
    entry(Verb::Get, "/readyz", Access::Probe, Route::Readyz),
    entry(Verb::Get, "/metrics", Access::Scraper, Route::Metrics),
    entry(Verb::Get, "/", Access::Anyone, Route::InboxPage),
    entry(Verb::Get, "/publish", Access::Anyone, Route::PublishPage),
    entry(Verb::Get, "/preferences", Access::Anyone, Route::PreferencesPage),
    entry(Verb::Get, "/static/{file}", Access::Anyone, Route::StaticFile),
    entry(Verb::Get, "/favicon.ico", Access::Anyone, Route::Favicon),
    entry(Verb::Get, "/problems/{code}", Access::Anyone, Route::ProblemPage),
    entry(Verb::Get, "/demo", Access::Demo, Route::DemoPage),
    entry(Verb::Get, "/demo/users", Access::Demo, Route::DemoUsers),
    entry(Verb::Post, "/demo/session", Access::Demo, Route::DemoSignIn),
    entry(Verb::Post, "/v1/session", Access::Token, Route::SignIn),
    entry(Verb::Delete, "/v1/session", Access::Anyone, Route::SignOut),
    entry(Verb::Post, "/v1/tickets", Access::TicketMinter, Route::MintTicket),
    entry(Verb::Get, "/v1/stream", Access::Subscriber, Route::OpenStream),
    entry(Verb::Get, "/v1/poll", Access::Subscriber, Route::Poll),
    entry(Verb::Get, "/v1/ws", Access::WebSocket, Route::OpenWebSocket),
    entry(Verb::Post, "/v1/streams/{stream}/refresh", Access::User, Route::RefreshStream),
    entry(Verb::Get, "/v1/inbox", Access::User, Route::Inbox),
    entry(Verb::Get, "/v1/inbox/counts", Access::User, Route::InboxCounts),
    entry(Verb::Get, "/v1/inbox/{id}", Access::User, Route::InboxEntry),
    entry(Verb::Post, "/v1/inbox/mark", Access::User, Route::Mark),
    entry(Verb::Get, "/v1/preferences", Access::User, Route::OwnProfile),
    entry(Verb::Put, "/v1/preferences", Access::User, Route::PutOwnProfile),
    entry(Verb::Get, "/v1/unsubscribe/{token}", Access::Anyone, Route::UnsubscribePage),
    entry(Verb::Post, "/v1/unsubscribe/{token}", Access::Anyone, Route::Unsubscribe),
    entry(Verb::Post, "/v1/users", Access::Manager, Route::PutProfiles),
    entry(Verb::Get, "/v1/users/{user}", Access::Manager, Route::Profile),
    entry(Verb::Put, "/v1/users/{user}", Access::Manager, Route::PutProfile),
    entry(Verb::Get, "/v1/users/{user}/counts", Access::Manager, Route::UserCounts),
    entry(Verb::Get, "/v1/users/{user}/export", Access::Manager, Route::ExportUser),
    entry(Verb::Delete, "/v1/users/{user}", Access::Manager, Route::EraseUser),
    entry(Verb::Post, "/v1/notifications", Access::Publisher, Route::Publish),
    entry(Verb::Post, "/v1/publish", Access::PlainPublisher, Route::PublishPlain),
    entry(Verb::Post, "/v1/publish/{*topic}", Access::PlainPublisher, Route::PublishPlain),
    entry(Verb::Get, "/v1/notifications/{id}", Access::Publisher, Route::Notification),
    entry(Verb::Delete, "/v1/notifications/{id}", Access::Publisher, Route::Retract),
    entry(Verb::Get, "/v1/notifications/{id}/recipients", Access::Manager, Route::Recipients),
    entry(Verb::Get, "/v1/notifications/{id}/explain", Access::Manager, Route::Explain),
    entry(Verb::Get, "/v1/deliveries", Access::Manager, Route::Deliveries),
    entry(Verb::Get, "/v1/deliveries/export", Access::Manager, Route::ExportDeliveries),
    entry(Verb::Post, "/v1/deliveries/retry", Access::Manager, Route::RetryDeliveries),
    entry(Verb::Get, "/v1/deliveries/{id}", Access::Manager, Route::Delivery),
    entry(Verb::Post, "/v1/deliveries/{id}/retry", Access::Manager, Route::RetryDelivery),
    entry(Verb::Get, "/v1/scheduled", Access::Publisher, Route::Scheduled),
    entry(Verb::Put, "/v1/scheduled/{id}", Access::Publisher, Route::ChangeScheduled),
    entry(Verb::Get, "/v1/topics", Access::Manager, Route::Topics),
    entry(Verb::Put, "/v1/topics/{topic}", Access::Manager, Route::PutTopic),
    entry(Verb::Get, "/v1/topics/{topic}", Access::Manager, Route::Topic),
    entry(Verb::Delete, "/v1/topics/{topic}", Access::Manager, Route::DeleteTopic),
    entry(Verb::Get, "/v1/topics/{topic}/followers", Access::Manager, Route::Followers),
    entry(Verb::Post, "/v1/topics/{topic}/followers", Access::Manager, Route::FollowMany),
    entry(Verb::Put, "/v1/topics/{topic}/followers/{user}", Access::Manager, Route::Follow),
    entry(Verb::Delete, "/v1/topics/{topic}/followers/{user}", Access::Manager, Route::Unfollow),
    entry(Verb::Put, "/v1/topics/{topic}/follow", Access::User, Route::FollowOwn),
    entry(Verb::Delete, "/v1/topics/{topic}/follow", Access::User, Route::UnfollowOwn),
    entry(Verb::Put, "/v1/topics/{topic}/mute", Access::User, Route::Mute),
    entry(Verb::Delete, "/v1/topics/{topic}/mute", Access::User, Route::Unmute),
    entry(Verb::Get, "/v1/follows", Access::User, Route::OwnFollows),
    entry(Verb::Get, "/v1/templates", Access::Author, Route::Templates),
    entry(Verb::Get, "/v1/templates/{template}", Access::Author, Route::Template),
    entry(Verb::Put, "/v1/templates/{template}", Access::Author, Route::PutTemplate),
    entry(Verb::Delete, "/v1/templates/{template}", Access::Author, Route::DeleteTemplate),
    entry(Verb::Post, "/v1/templates/{template}/publish", Access::Author, Route::PublishTemplate),
    entry(Verb::Post, "/v1/templates/{template}/preview", Access::Author, Route::PreviewTemplate),
    entry(Verb::Post, "/v1/keys", Access::Admin, Route::CreateKey),
    entry(Verb::Get, "/v1/keys", Access::Admin, Route::Keys),
    entry(Verb::Delete, "/v1/keys/{key}", Access::Admin, Route::RevokeKey),
    entry(Verb::Post, "/v1/keys/{key}/rotate", Access::Admin, Route::RotateKey),
    entry(Verb::Get, "/v1/status", Access::Admin, Route::Status),
    entry(Verb::Get, "/v1/online", Access::Manager, Route::Online),
    entry(Verb::Delete, "/v1/users/{user}/streams", Access::Manager, Route::Disconnect),
    entry(Verb::Put, "/v1/users/{user}/revocation", Access::Manager, Route::Revoke),
    entry(Verb::Delete, "/v1/users/{user}/revocation", Access::Manager, Route::Restore),
    entry(Verb::Post, "/v1/upkeep/reload", Access::Admin, Route::Reload),
    entry(Verb::Post, "/v1/upkeep/recount", Access::Admin, Route::Recount),
    entry(Verb::Post, "/v1/upkeep/compact", Access::Admin, Route::Compact),
    entry(Verb::Get, "/v1/upkeep/backup", Access::Admin, Route::Backup),
    entry(Verb::Post, "/v1/upkeep/check", Access::Admin, Route::Check),
];

const fn entry(verb: Verb, path: &'static str, access: Access, route: Route) -> Entry {
    Entry { verb, path, access, route }
}

/// Entries by path.
static TREE: LazyLock<matchit::Router<Vec<&'static Entry>>> = LazyLock::new(|| {
    let mut paths: Vec<(&str, Vec<&Entry>)> = Vec::new();
    for entry in ROUTES {
        match paths.iter_mut().find(|(path, _)| *path == entry.path) {
            Some((_, entries)) => entries.push(entry),
            None => paths.push((entry.path, vec![entry])),
        }
    }
    let mut tree = matchit::Router::new();
    for (path, entries) in paths {
        tree.insert(path, entries).expect("the table's paths don't contradict each other; a test walks it");
    }
    tree
});

/// What the variable parts of a path hold, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// What stands for `{name}` in the path, where the route has it.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// What stands for `{name}`; empty where the route has no such part, which no name of anything is.
    pub fn text(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }
}

/// Where a request goes.
#[derive(Debug)]
pub enum Found {
    Entry(&'static Entry, Params),
    /// The path is there; `allow` names its methods.
    OtherMethods {
        allow: HeaderValue,
    },
    /// `OPTIONS`.
    Options {
        allow: HeaderValue,
    },
}

/// Whether a path is there for those who watch the server.
pub fn is_watching(path: &str) -> bool {
    TREE.at(path).is_ok_and(|matched| matched.value.iter().any(|entry| entry.access.is_watching()))
}

/// Finds a route. `path` is below the base path and still percent-encoded, so that `%2F` does not cut a name.
///
/// # Errors
/// 404 where no route has the path, 400 where a part of it is no UTF-8.
pub fn find(method: &Method, path: &str) -> Result<Found, Problem> {
    let matched = TREE.at(path).map_err(|_| problem::nothing_here())?;
    let entries = matched.value;
    if *method == Method::OPTIONS {
        return Ok(Found::Options { allow: allow(entries) });
    }
    let Some(entry) = entries.iter().find(|entry| answers(entry, method)) else {
        return Ok(Found::OtherMethods { allow: allow(entries) });
    };
    let mut params = Params::default();
    for (name, value) in matched.params.iter() {
        let value = percent_decode_str(value).decode_utf8();
        let value =
            value.map_err(|_| problem::BAD_REQUEST.because("the path holds percent-encoding that is no UTF-8"))?;
        params.0.push((name, value.into_owned()));
    }
    Ok(Found::Entry(entry, params))
}

fn answers(entry: &Entry, method: &Method) -> bool {
    entry.verb.as_str() == method.as_str() || (*method == Method::HEAD && has_head(entry))
}

/// Hyper leaves the body out, so a `HEAD` costs what the `GET` costs: it is for what is open and cheap.
fn has_head(entry: &Entry) -> bool {
    entry.verb == Verb::Get && matches!(entry.access, Access::Anyone | Access::Demo | Access::Probe)
}

fn allow(entries: &[&Entry]) -> HeaderValue {
    let mut methods: Vec<&str> = entries.iter().map(|entry| entry.verb.as_str()).collect();
    if entries.iter().any(|entry| has_head(entry)) {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    HeaderValue::try_from(methods.join(", ")).expect("method names are ASCII")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn route(method: &Method, path: &str) -> Option<(Route, Params)> {
        match find(method, path) {
            Ok(Found::Entry(entry, params)) => Some((entry.route, params)),
            _ => None,
        }
    }

    #[test]
    fn every_line_of_the_table_is_found() {
        let mut seen = HashSet::new();
        for entry in ROUTES {
            assert!(seen.insert((entry.verb, entry.path)), "{} stands twice", entry.path);
            let path = entry.path.replace("{*topic}", "orders/42").replace(['{', '}'], "");
            let method = Method::from_bytes(entry.verb.as_str().as_bytes()).expect("a method");
            let Some((found, _)) = route(&method, &path) else { panic!("{path} is not found") };
            assert_eq!(found, entry.route, "{path}");
        }
    }

    #[test]
    fn no_route_but_health_and_pages_is_open() {
        for entry in ROUTES.iter().filter(|entry| entry.access == Access::Anyone) {
            let open = matches!(
                entry.route,
                Route::Healthz
                    | Route::Readyz
                    | Route::InboxPage
                    | Route::PublishPage
                    | Route::PreferencesPage
                    | Route::StaticFile
                    | Route::Favicon
                    | Route::ProblemPage
            );
            // Signing out needs no proof of having been signed in; it only clears the caller's own cookie. Who unsubscribes has
            // their proof in the path.
            let proven = matches!(entry.route, Route::SignOut | Route::UnsubscribePage | Route::Unsubscribe);
            assert!(open || proven, "{}", entry.path);
        }
    }

    #[test]
    fn names_are_decoded_after_the_path_is_cut() {
        let (route_found, params) =
            route(&Method::PUT, "/v1/topics/orders%2F42/followers/alice%40example.com").expect("a route");
        assert_eq!(route_found, Route::Follow);
        assert_eq!((params.text("topic"), params.text("user")), ("orders/42", "alice@example.com"));
        let (_, params) = route(&Method::POST, "/v1/publish/orders/42").expect("a route");
        assert_eq!(params.find("topic"), Some("orders/42"));
        assert_eq!(find(&Method::GET, "/v1/users/%ff/counts").map_err(|p| p.code).err(), Some("bad-request"));
    }

    #[test]
    fn other_methods_are_told() {
        let allow = |method: Method, path| match find(&method, path) {
            Ok(Found::OtherMethods { allow } | Found::Options { allow }) => {
                allow.to_str().map(str::to_owned).unwrap_or_default()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(allow(Method::PATCH, "/v1/session"), "POST, DELETE, OPTIONS");
        assert_eq!(allow(Method::POST, "/healthz"), "GET, HEAD, OPTIONS");
        assert_eq!(allow(Method::HEAD, "/v1/inbox"), "GET, OPTIONS");
        assert_eq!(allow(Method::OPTIONS, "/v1/keys"), "POST, GET, OPTIONS");
        assert!(route(&Method::HEAD, "/static/inbox.js").is_some());
    }

    #[test]
    fn there_is_nothing_beside_the_table() {
        for path in ["/v1", "/v1/", "/healthz/", "//", "/v1/publish/", "/static/", "/static/a/b", "/v2/stream", "*", ""]
        {
            assert_eq!(find(&Method::GET, path).map_err(|p| p.code).err(), Some("not-found"), "{path}");
        }
    }
}
