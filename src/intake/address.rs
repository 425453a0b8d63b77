//! Where RabbitMQ is: `amqp://[user@]host[:port][/vhost]`, or `amqps://` where it speaks TLS.
//!
//! **Invariant**: a password never stands here: settings are shown and files of settings can be read by everybody.

use percent_encoding::percent_decode_str;

/// The ports that RabbitMQ listens on, without TLS and with it.
const PORT: u16 = 5672;
pub(super) const TLS_PORT: u16 = 5671;
/// RabbitMQ's own user, who may come from its own machine only.
const GUEST: &str = "guest";
/// The virtual host that RabbitMQ makes.
const VHOST: &str = "/";

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Amqp,
    Amqps,
}

/// Where RabbitMQ is, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub scheme: Scheme,
    pub user: String,
    /// A name or an address; IPv6 without its brackets.
    pub host: String,
    pub port: u16,
    pub vhost: String,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    #[error(
        "holds a password, which everybody who reads settings would see: put it into a file and name that as amqp.password_file"
    )]
    Password,
    #[error(
        "must be amqp://[user@]host[:port][/vhost], percent-encoded, or amqps:// for TLS, such as \
         amqp://tidings@127.0.0.1/%2F"
    )]
    Form,
}

impl Address {
    /// Reads an address. Without a vhost it is RabbitMQ's own, `/`; as part of a path that is written `%2F`.
    ///
    /// # Errors
    /// [`AddressFault`]; its text goes on from the setting's name.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let schemes = [("amqp://", Scheme::Amqp, PORT), ("amqps://", Scheme::Amqps, TLS_PORT)];
        let (rest, scheme, usual) = schemes
            .into_iter()
            .find_map(|(prefix, scheme, usual)| Some((text.strip_prefix(prefix)?, scheme, usual)))
            .ok_or(AddressFault::Form)?;
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, Some(vhost)),
            None => (rest, None),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(AddressFault::Password),
            Some((user, place)) => (decoded(user)?, place),
            None => (GUEST.to_owned(), authority),
        };
        let vhost = match vhost {
            Some(vhost) if vhost.contains(['/', '?', '#']) => return Err(AddressFault::Form),
            Some(vhost) => decoded(vhost)?,
            None => VHOST.to_owned(),
        };
        let (host, port) = place_of(place, usual).ok_or(AddressFault::Form)?;
        let names_fit =
            [&user, &host, &vhost].iter().all(|name| !name.is_empty() && name.len() <= super::MAX_NAME_BYTES);
        if names_fit { Ok(Self { scheme, user, host, port, vhost }) } else { Err(AddressFault::Form) }
    }
}

fn decoded(text: &str) -> Result<String, AddressFault> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| AddressFault::Form)?;
    if text.contains(char::is_control) { Err(AddressFault::Form) } else { Ok(text.into_owned()) }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`; the port is the usual one where none stands.
fn place_of(place: &str, usual: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let is_host = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    let port = port.map_or(Some(usual), |port| port.parse().ok().filter(|port| *port > 0))?;
    is_host.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_defaults() {
        let read = |text: &str| {
            Address::parse(text)
                .map(|Address { scheme, user, host, port, vhost }| format!("{scheme:?} {user} {host} {port} {vhost}"))
        };
        for (text, expected) in [
            ("amqp://localhost", "Amqp guest localhost 5672 /"),
            ("amqp://127.0.0.1:5673", "Amqp guest 127.0.0.1 5673 /"),
            ("amqp://tidings@mq.example/centre", "Amqp tidings mq.example 5672 centre"),
            ("amqp://a%40b@[::1]:1/%2F", "Amqp a@b ::1 1 /"),
            ("amqps://tidings@mq.example", "Amqps tidings mq.example 5671 /"),
            ("amqps://[::1]:1/x", "Amqps guest ::1 1 x"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_says_why() {
        for secret in ["amqp://a:b@mq.example", "amqps://a:b@mq.example"] {
            assert_eq!(Address::parse(secret), Err(AddressFault::Password), "{secret}");
        }
        for bad in [
            "",
            "amqp://",
            "amqp:///x",
            "http://x",
            "amqps://",
            "amqpss://x",
            "amqp://x:y",
            "amqp://x:0",
            "amqp://[x]",
            "amqp://a b",
            "amqp://x/",
            "amqp://x/a/b",
            "amqp://x/a?b",
            "amqp://%ff@x",
            "amqp://@x",
            "amqp://x/%0a",
        ] {
            assert_eq!(Address::parse(bad), Err(AddressFault::Form), "{bad}");
        }
    }
}
