//! Who is calling, and whether this route is for them: credentials are found here, judged by the broker, and held
//! against the route's [`Access`].
//!
//! `Authorization` wins over a ticket, and a ticket over the cookie: what was put there on purpose counts for more
//! than what a browser sends by itself. Only the winner is judged; a bad header is not rescued by a good cookie.
//! **Invariant**: a cookie changes nothing unless the cross-site rule (`site`) holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::query::Query;
use super::{App, Peer, cookie, site};
use crate::broker::{AuthError, Credentials};
use crate::model::{Credential, Identity, Scope, UserId};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anyone at all.
    Anyone,
    /// Anyone, and only where the server runs as a demo.
    Demo,
    /// Who watches whether the server lives.
    Probe,
    /// Who asks over the listener for watchers, or over this machine's loopback without a proxy in between, or with a key
    /// that has `admin`.
    Scraper,
    /// A user by token, cookie or ticket: reading only.
    Subscriber,
    /// As `Subscriber`, and who brings no credential sends one over the WebSocket; not for pages of foreign origins.
    WebSocket,
    /// A user by token or cookie.
    User,
    /// A user by a token in the `Authorization` header, and by nothing else.
    Token,
    /// A user by token or cookie, or a key with `tickets`.
    TicketMinter,
    /// A key that may publish at least somewhere, or a user whose token has the scope `publish`.
    Publisher,
    /// A key that may publish at least somewhere.
    PlainPublisher,
    /// A key with `users`.
    Manager,
    /// A key with `templates`.
    Author,
    /// A key with `admin`.
    Admin,
}

impl Access {
    pub const ALL: [Self; 14] = [
        Self::Anyone,
        Self::Demo,
        Self::Probe,
        Self::Scraper,
        Self::Subscriber,
        Self::WebSocket,
        Self::User,
        Self::Token,
        Self::TicketMinter,
        Self::Publisher,
        Self::PlainPublisher,
        Self::Manager,
        Self::Author,
        Self::Admin,
    ];

    /// Whether the listener for watchers has it.
    pub const fn is_watching(self) -> bool {
        matches!(self, Self::Probe | Self::Scraper)
    }

    /// Whether what browsers send by themselves will do: the cookie, or what a proxy goes by.
    const fn takes_ambient(self) -> bool {
        matches!(self, Self::Subscriber | Self::WebSocket | Self::User | Self::TicketMinter | Self::Publisher)
    }

    const fn takes_tickets(self) -> bool {
        matches!(self, Self::Subscriber | Self::WebSocket)
    }

    /// Whether the caller is one of those the route is for; where not, what is missing.
    ///
    /// Which topics a key may publish to, which templates are its own, and whose tickets may be minted, is the broker's to say.
    fn admits(self, identity: &Identity) -> Result<(), &'static str> {
        let publishes = |identity: &Identity| match identity {
            Identity::User(user) => user.publishes && !is_ticket(identity),
            Identity::Key(key) => {
                key.scopes.iter().any(|s| matches!(s, Scope::Publish | Scope::PublishTopics(_) | Scope::Admin))
            }
            Identity::Operator => true,
        };
        let writes = |identity: &Identity| match identity {
            Identity::Key(key) => {
                key.scopes.iter().any(|s| matches!(s, Scope::Templates | Scope::TemplatesNamed(_) | Scope::Admin))
            }
            other => other.has(&Scope::Templates),
        };
        let is_user = matches!(identity, Identity::User(_));
        let (good, missing) = match self {
            Self::Anyone | Self::Demo | Self::Probe => (true, ""),
            Self::Subscriber | Self::WebSocket => (is_user, "an inbox is a user's: send a user's token, not a key"),
            Self::User | Self::Token => {
                (is_user && !is_ticket(identity), "an inbox is a user's: send a user's token, not a key")
            }
            Self::TicketMinter => (
                if is_user { !is_ticket(identity) } else { identity.has(&Scope::Tickets) },
                "the key needs the scope `tickets`",
            ),
            Self::Publisher => (publishes(identity), "publishing needs the scope `publish`"),
            Self::PlainPublisher => {
                (!is_user && publishes(identity), "plain publishing needs an API key with the scope `publish`")
            }
            Self::Manager => (identity.has(&Scope::Users), "this needs an API key with the scope `users`"),
            Self::Author => (writes(identity), "this needs an API key with the scope `templates`"),
            Self::Scraper | Self::Admin => {
                (identity.has(&Scope::Admin), "this needs an API key with the scope `admin`")
            }
        };
        if good { Ok(()) } else { Err(missing) }
    }
}

fn is_ticket(identity: &Identity) -> bool {
    matches!(identity, Identity::User(user) if matches!(user.credential, Credential::Ticket(_)))
}

/// Who is calling.
#[derive(Clone, Debug)]
pub enum Caller {
    /// The route is open, and nobody was asked.
    Anyone,
    Known(Identity),
}

/// Why a caller was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential came that this route takes.
    Missing,
    Unauthenticated(AuthError),
    Forbidden(&'static str),
    CrossSite(&'static str),
    /// Whoever may not use the route need not know that it is there.
    Hidden,
}

impl From<AuthError> for Denied {
    fn from(error: AuthError) -> Self {
        Self::Unauthenticated(error)
    }
}

/// Finds out who is calling and whether the route lets them in.
///
/// # Errors
/// [`Denied`].
pub async fn admit(app: &App, peer: Peer, head: &Parts, query: &Query, access: Access) -> Result<Caller, Denied> {
    match access {
        Access::Anyone | Access::Probe => Ok(Caller::Anyone),
        Access::Demo if app.config().demo.is_some() => Ok(Caller::Anyone),
        Access::Demo => Err(Denied::Hidden),
        Access::Scraper if peer == Peer::Watcher => Ok(Caller::Anyone),
        Access::Scraper if peer.is_loopback() && !is_forwarded(&head.headers) => Ok(Caller::Anyone),
        Access::Scraper => identify(app, peer, head, query, access).await.map_err(|_| Denied::Hidden),
        Access::Token => {
            let token = bearer(&head.headers).ok_or(Denied::Missing)?;
            Ok(Caller::Known(Identity::User(app.broker().check_user_token(token)?)))
        }
        Access::WebSocket => {
            // A browser asks nobody before it opens a WebSocket, and sends cookies along.
            site::check_origin(&head.headers, &app.config().origins).map_err(Denied::CrossSite)?;
            match identify(app, peer, head, query, access).await {
                Err(Denied::Missing) => Ok(Caller::Anyone),
                other => other,
            }
        }
        _ => identify(app, peer, head, query, access).await,
    }
}

async fn identify(app: &App, peer: Peer, head: &Parts, query: &Query, access: Access) -> Result<Caller, Denied> {
    let config = app.config();
    let trusted =
        config.trusted_header.as_ref().filter(|trusted| trusted.from.contains(peer)).map(|trusted| &trusted.name);
    let presented = Presented::find(&head.headers, query, access, trusted)?;
    if presented.is_ambient() && !head.method.is_safe() {
        site::check(&head.headers, &config.origins).map_err(Denied::CrossSite)?;
    }
    let identity = app.broker().authenticate(presented.as_credentials()).await?;
    access.admits(&identity).map_err(Denied::Forbidden)?;
    Ok(Caller::Known(identity))
}

/// Whether something in between says that it passed the request on.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .map(HeaderName::as_str)
        .any(|name| matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-"))
}

/// The credential that counts.
#[derive(Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    Bearer(&'a str),
    Basic(String),
    Cookie(&'a str),
    Ticket(&'a str),
    Proxy(UserId),
}

impl<'a> Presented<'a> {
    /// `trusted` is the header by which this peer may say whom it has signed in.
    fn find(
        headers: &'a HeaderMap,
        query: &'a Query,
        access: Access,
        trusted: Option<&HeaderName>,
    ) -> Result<Self, Denied> {
        if headers.contains_key(AUTHORIZATION) {
            return Ok(authorization(headers).ok_or(AuthError::Invalid)?);
        }
        if let Some(ticket) = query.bytes("ticket").filter(|ticket| access.takes_tickets() && !ticket.is_empty()) {
            return Ok(std::str::from_utf8(ticket).map(Self::Ticket).map_err(|_| AuthError::Invalid)?);
        }
        // A page that means to send a token over its WebSocket can't keep the browser from sending a cookie along, which
        // may be another person's.
        let by_message = access == Access::WebSocket && query.bytes("auth") == Some(b"message");
        if by_message || !access.takes_ambient() {
            return Err(Denied::Missing);
        }
        // The proxy knows who is signed in now, and that nobody is; a cookie may be of who was before.
        if let Some(name) = trusted {
            return Ok(vouched(headers, name).ok_or(Denied::Missing)?.map(Self::Proxy)?);
        }
        cookie::session(headers).map(Self::Cookie).ok_or(Denied::Missing)
    }

    /// Whether a browser sends it by itself, for whatever page.
    const fn is_ambient(&self) -> bool {
        matches!(self, Self::Cookie(_) | Self::Proxy(_))
    }

    fn as_credentials(&self) -> Credentials<'_> {
        match self {
            Self::Bearer(text) => Credentials::Bearer(text),
            Self::Basic(password) => Credentials::BasicPassword(password),
            Self::Cookie(token) => Credentials::Cookie(token),
            Self::Ticket(ticket) => Credentials::Ticket(ticket),
            Self::Proxy(user) => Credentials::Proxy(user),
        }
    }
}

/// The user that a trusted proxy names; `None` where it names none, which is how it says that nobody is signed in.
fn vouched(headers: &HeaderMap, name: &HeaderName) -> Option<Result<UserId, AuthError>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| !value.is_empty())?;
    let user = std::str::from_utf8(value.as_bytes()).ok().filter(|_| values.next().is_none());
    Some(user.and_then(|user| UserId::new(user).ok()).ok_or(AuthError::Invalid))
}

/// Reads the one `Authorization` header; two of them are none, since nobody can say which was meant.
pub fn authorization(headers: &HeaderMap) -> Option<Presented<'_>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if rest.is_empty() {
        return None;
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Presented::Bearer(rest));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (_, password) = decoded.split_once(':')?;
        return Some(Presented::Basic(password.to_owned()));
    }
    None
}

/// The bearer token, where one was sent.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    match authorization(headers) {
        Some(Presented::Bearer(token)) => Some(token),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::model::{KeyId, KeyIdentity, UserIdentity};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn key(scope: &str) -> Identity {
        let scopes = [Scope::parse(scope).expect("a scope")].into();
        Identity::Key(KeyIdentity { id: KeyId("k".into()), name: "k".into(), scopes })
    }

    fn user(credential: Credential, publishes: bool) -> Identity {
        let user = UserId::new("alice").expect("a user");
        Identity::User(UserIdentity { user, credential, topics: None, publishes, expires: None, issued: None })
    }

    #[test]
    fn every_role_gets_in_where_it_should_and_nowhere_else() {
        use Access::{
            Admin, Author, Manager, PlainPublisher, Publisher, Scraper, Subscriber, TicketMinter, Token, User,
            WebSocket,
        };
        let roles: [(Identity, &[Access]); 11] = [
            (user(Credential::Bearer, false), &[Subscriber, WebSocket, User, Token, TicketMinter]),
            (user(Credential::Cookie, true), &[Subscriber, WebSocket, User, Token, TicketMinter, Publisher]),
            (user(Credential::Ticket("t".into()), true), &[Subscriber, WebSocket]),
            (key("publish"), &[Publisher, PlainPublisher]),
            (key("publish:topic/ops"), &[Publisher, PlainPublisher]),
            (key("tickets"), &[TicketMinter]),
            (key("users"), &[Manager]),
            (key("templates"), &[Author]),
            (key("templates:due"), &[Author]),
            (key("admin"), &[TicketMinter, Publisher, PlainPublisher, Manager, Author, Admin, Scraper]),
            (Identity::Operator, &[TicketMinter, Publisher, PlainPublisher, Manager, Author, Admin, Scraper]),
        ];
        for (identity, admitted) in &roles {
            for access in Access::ALL
                .into_iter()
                .filter(|access| !matches!(access, Access::Anyone | Access::Demo | Access::Probe))
            {
                assert_eq!(access.admits(identity).is_ok(), admitted.contains(&access), "{identity:?} at {access:?}");
            }
        }
    }

    const COOKIE: (&str, &str) = ("cookie", "tidings_session=c");

    #[test]
    fn the_header_wins_over_the_ticket_and_the_ticket_over_the_cookie() {
        let query = Query::parse("ticket=t");
        let find = |pairs: &[(&'static str, &'static str)], access| {
            Presented::find(&headers(pairs), &query, access, None).map(|p| format!("{p:?}"))
        };
        let text = |text: &str| Ok(text.to_owned());
        assert_eq!(find(&[COOKIE, ("authorization", "bearer b")], Access::Subscriber), text("Bearer(\"b\")"));
        assert_eq!(find(&[COOKIE], Access::Subscriber), text("Ticket(\"t\")"));
        assert_eq!(find(&[COOKIE], Access::User), text("Cookie(\"c\")"));
        assert_eq!(find(&[], Access::User), Err(Denied::Missing), "a ticket opens streams only");
        assert_eq!(find(&[COOKIE], Access::PlainPublisher), Err(Denied::Missing));
        assert_eq!(find(&[COOKIE], Access::Admin), Err(Denied::Missing));
        let query = Query::parse("auth=message");
        let find = |access| Presented::find(&headers(&[COOKIE]), &query, access, None).map(|p| format!("{p:?}"));
        assert_eq!(find(Access::WebSocket), Err(Denied::Missing), "the token that is to come counts");
        assert_eq!(find(Access::Subscriber), text("Cookie(\"c\")"), "nothing is to come here");
    }

    #[test]
    fn a_trusted_proxy_is_believed_before_a_cookie_and_after_what_was_put_there_on_purpose() {
        let name = HeaderName::from_static("x-remote-user");
        let query = Query::default();
        let find = |pairs: &[(&'static str, &'static str)], access, trusted| {
            Presented::find(&headers(pairs), &query, access, trusted).map(|p| format!("{p:?}"))
        };
        let named = ("x-remote-user", "alice");
        let proxy = Ok(format!("{:?}", Presented::Proxy(UserId::new("alice").expect("a user"))));
        assert_eq!(find(&[COOKIE, named], Access::User, Some(&name)), proxy);
        assert_eq!(find(&[named], Access::User, None), Err(Denied::Missing), "from anybody else it is not read");
        assert_eq!(find(&[named], Access::Admin, Some(&name)), Err(Denied::Missing), "it names users, no operators");
        let bearer = ("authorization", "bearer b");
        assert_eq!(find(&[bearer, named], Access::User, Some(&name)), Ok("Bearer(\"b\")".to_owned()));
        for nobody in [&[COOKIE, ("x-remote-user", "")][..], &[COOKIE]] {
            assert_eq!(
                find(nobody, Access::User, Some(&name)),
                Err(Denied::Missing),
                "signed out there is signed out here"
            );
        }
        for doubtful in [&[named, ("x-remote-user", "bob")][..], &[("x-remote-user", "a\tb")]] {
            assert_eq!(find(doubtful, Access::User, Some(&name)), Err(AuthError::Invalid.into()));
        }
    }

    #[test]
    fn a_bad_header_is_not_rescued_by_a_good_cookie() {
        for bad in ["Bearer", "Bearer ", "Digest x", "Basic !!!", "Basic a2V5", ""] {
            let headers = headers(&[COOKIE, ("authorization", bad)]);
            assert_eq!(
                Presented::find(&headers, &Query::default(), Access::User, None),
                Err(AuthError::Invalid.into()),
                "{bad}"
            );
        }
        let doubled = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(Presented::find(&doubled, &Query::default(), Access::User, None), Err(AuthError::Invalid.into()));
    }

    #[test]
    fn the_basic_password_is_the_key() {
        let headers = headers(&[("authorization", "Basic OnRrX2FfYjpj")]);
        assert_eq!(authorization(&headers), Some(Presented::Basic("tk_a_b:c".into())));
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn a_proxy_in_between_is_noticed() {
        assert!(!is_forwarded(&headers(&[("host", "localhost")])));
        for name in ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"] {
            assert!(is_forwarded(&headers(&[(name, "x")])), "{name}");
        }
    }
}
