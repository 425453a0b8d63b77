//! The relay that takes our mail, and who we are to it: settings in their checked form.
//!
//! Pure text to value. **Invariant**: no password is ever shown: `Debug` leaves it out, and a fault repeats nothing of what
//! was given.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use crate::model::{Email, person_name_fault};

/// The port for submission with STARTTLS (RFC 6409).
const SUBMISSION_PORT: u16 = 587;
/// The port for submission over TLS (RFC 8314).
const SUBMISSIONS_PORT: u16 = 465;
/// What `tidings config show` puts in a password's place.
pub const HIDDEN_PASSWORD: &str = "…";

/// How the line to the relay is kept private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// TLS from the first byte on.
    Implicit,
    /// STARTTLS, or nothing is sent.
    Required,
    /// STARTTLS where it is offered; then the certificate must be right.
    Opportunistic,
    None,
}

/// As whom we sign in.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub user: String,
    /// `None` until whoever reads `password_file` has put it in.
    pub password: Option<String>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Where mail is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub privacy: Privacy,
    pub account: Option<Account>,
}

impl Relay {
    /// Reads `smtp://user:password@host:587?tls=required` or `smtps://host:465`.
    ///
    /// # Errors
    /// What it must be, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("must begin with smtp:// or smtps://")?;
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let privacy = match (scheme, query) {
            ("smtps", None) => Privacy::Implicit,
            ("smtps", Some(_)) => {
                return Err("must have nothing behind the port: smtps:// is TLS from the first byte on");
            }
            ("smtp", None | Some("tls=required")) => Privacy::Required,
            ("smtp", Some("tls=opportunistic")) => Privacy::Opportunistic,
            ("smtp", Some("tls=none")) => Privacy::None,
            ("smtp", Some(_)) => {
                return Err("may end with ?tls=required, ?tls=opportunistic or ?tls=none, and nothing else");
            }
            _ => return Err("must begin with smtp:// or smtps://"),
        };
        // A user's name is often an address itself.
        let (account, place) = match place.trim_end_matches('/').rsplit_once('@') {
            Some((account, place)) => (Some(parse_account(account)?), place),
            None => (None, place.trim_end_matches('/')),
        };
        let usual = if privacy == Privacy::Implicit { SUBMISSIONS_PORT } else { SUBMISSION_PORT };
        let (host, port) = parse_place(place, usual)?;
        let relay = Self { host, port, privacy, account };
        if relay.account.is_some() && privacy == Privacy::None && !relay.is_loopback() {
            return Err("would send the password over the network for everybody to read: leave ?tls=none out");
        }
        Ok(relay)
    }

    /// Whether it is this machine, where nobody listens in.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Signs in with this password.
    pub fn set_password(&mut self, password: String) {
        if let Some(account) = &mut self.account {
            account.password = Some(password);
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_account(text: &str) -> Result<Account, &'static str> {
    const NOT_TEXT: &str = "has a user or a password that is no text: percent-encode what is not a letter or a digit";
    let decoded = |part: &str| {
        let text = percent_decode_str(part).decode_utf8().map_err(|_| NOT_TEXT)?;
        if text.chars().any(char::is_control) { Err(NOT_TEXT) } else { Ok(text.into_owned()) }
    };
    let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
    let account = Account { user: decoded(user)?, password: password.map(decoded).transpose()? };
    if account.user.is_empty() {
        return Err("must name a user before the @");
    }
    if account.password.as_deref() == Some(HIDDEN_PASSWORD) {
        return Err(
            "was printed by `tidings config show`, which leaves the password out: put it in, or name password_file",
        );
    }
    Ok(account)
}

fn parse_place(text: &str, usual: u16) -> Result<(String, u16), &'static str> {
    const NO_HOST: &str = "must name the relay's host, such as smtp://mail.example:587";
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<IpAddr>().is_ok() => (host, rest.strip_prefix(':')),
        Some(_) => return Err(NO_HOST),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b".-:".contains(&b);
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(NO_HOST);
    }
    let port = match port {
        None => usual,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("must have a port from 1 to 65535")?,
    };
    Ok((host.to_owned(), port))
}

/// Who mail is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub name: Option<String>,
    pub address: Email,
}

impl Sender {
    /// Reads `library@example.org` or `Library <library@example.org>`; `None` for what is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some((name, address)) = text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) else {
            return Some(Self { name: None, address: Email::new(text).ok()? });
        };
        let name = name.trim();
        let name = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(name);
        let is_good = name.is_empty() || person_name_fault(name).is_none();
        let address = Email::new(address).ok()?;
        is_good.then(|| Self { name: Some(name.to_owned()).filter(|name| !name.is_empty()), address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(text: &str) -> Relay {
        Relay::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn a_relay_is_read_with_what_it_does_not_say() {
        let told = |text: &str| (relay(text).to_string(), relay(text).privacy);
        assert_eq!(told("smtp://mail.example"), ("mail.example:587".into(), Privacy::Required));
        assert_eq!(told("smtps://mail.example/"), ("mail.example:465".into(), Privacy::Implicit));
        assert_eq!(told("smtp://127.0.0.1:25?tls=none"), ("127.0.0.1:25".into(), Privacy::None));
        assert_eq!(told("smtp://[::1]:25?tls=opportunistic"), ("[::1]:25".into(), Privacy::Opportunistic));
        assert_eq!(told("smtp://[::1]"), ("[::1]:587".into(), Privacy::Required));
        let account = relay("smtp://a@b.example:p%3A%40x:y@mail.example:25").account.expect("it names a user");
        assert_eq!(account.user, "a@b.example");
        assert_eq!(account.password.as_deref(), Some("p:@x:y"));
        assert_eq!(relay("smtp://alice@mail.example").account.and_then(|account| account.password), None);
    }

    #[test]
    fn what_is_no_relay_is_refused_without_repeating_it() {
        for bad in [
            "mail.example",
            "http://mail.example",
            "smtp://",
            "smtp://:25",
            "smtp://mail.example:0",
            "smtp://mail.example:99999",
            "smtp://mail.example:x",
            "smtp://mail.example/x",
            "smtp://mail example",
            "smtp://[mail]:25",
            "smtp://@mail.example",
            "smtp://u:%ff@mail.example",
            "smtp://u:a%0d%0ab@mail.example",
            "smtp://u:…@mail.example",
            "smtp://mail.example?tls=requird",
            "smtps://mail.example?tls=none",
            "smtp://u:secret@mail.example?tls=none",
        ] {
            let why = Relay::parse(bad).expect_err(bad);
            assert!(!why.contains("secret") && !why.is_empty(), "{why}");
        }
        assert!(Relay::parse("smtp://u:secret@localhost?tls=none").is_ok(), "nobody listens in on this machine");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", relay("smtp://u:secret@mail.example")).contains("secret"));
    }

    #[test]
    fn a_sender_has_an_address_and_may_have_a_name() {
        let sender = |text: &str| Sender::parse(text).map(|sender| (sender.name, sender.address.to_string()));
        assert_eq!(sender("a@b.example"), Some((None, "a@b.example".into())));
        assert_eq!(sender("Library <a@b.example>"), Some((Some("Library".into()), "a@b.example".into())));
        assert_eq!(sender("\"Library, 图书馆\" <a@b.example>").and_then(|s| s.0), Some("Library, 图书馆".into()));
        assert_eq!(sender("<a@b.example>"), Some((None, "a@b.example".into())));
        for bad in ["", "Library", "Library <a>", "a\nBcc: x@y.example <a@b.example>", "a@b.example, c@d.example"] {
            assert_eq!(sender(bad), None, "{bad:?}");
        }
    }
}
