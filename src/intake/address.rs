//! Where RabbitMQ is: `amqp://[user@]host[:port][/vhost]`.
//!
//! **Invariant**: a password never stands here: settings are shown and files of settings can be read by everybody.

use percent_encoding::percent_decode_str;

/// The port that RabbitMQ listens on.
const PORT: u16 = 5672;
/// RabbitMQ's own user, who may come from its own machine only.
const GUEST: &str = "guest";
/// The virtual host that RabbitMQ makes.
const VHOST: &str = "/";

/// Where RabbitMQ is, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
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
        "speaks TLS, which is not built in: let RabbitMQ listen on this machine or in a network of its own, or put a \
         tunnel (stunnel, WireGuard) before it, and write amqp://"
    )]
    Tls,
    #[error(
        "holds a password, which everybody who reads settings would see: put it into a file and name that as amqp.password_file"
    )]
    Password,
    #[error("must be amqp://[user@]host[:port][/vhost], percent-encoded, such as amqp://tidings@127.0.0.1/%2F")]
    Form,
}

impl Address {
    /// Reads an address. Without a vhost it is RabbitMQ's own, `/`; as part of a path that is written `%2F`.
    ///
    /// # Errors
    /// [`AddressFault`]; its text goes on from the setting's name.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        if text.starts_with("amqps://") {
            return Err(AddressFault::Tls);
        }
        let rest = text.strip_prefix("amqp://").ok_or(AddressFault::Form)?;
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
        let (host, port) = place_of(place).ok_or(AddressFault::Form)?;
        let names_fit =
            [&user, &host, &vhost].iter().all(|name| !name.is_empty() && name.len() <= super::MAX_NAME_BYTES);
        if names_fit { Ok(Self { user, host, port, vhost }) } else { Err(AddressFault::Form) }
    }
}

fn decoded(text: &str) -> Result<String, AddressFault> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| AddressFault::Form)?;
    if text.contains(char::is_control) { Err(AddressFault::Form) } else { Ok(text.into_owned()) }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
fn place_of(place: &str) -> Option<(String, u16)> {
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
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port > 0))?;
    is_host.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_defaults() {
        let read = |text: &str| {
            Address::parse(text).map(|Address { user, host, port, vhost }| format!("{user} {host} {port} {vhost}"))
        };
        for (text, expected) in [
            ("amqp://localhost", "guest localhost 5672 /"),
            ("amqp://127.0.0.1:5673", "guest 127.0.0.1 5673 /"),
            ("amqp://tidings@mq.example/centre", "tidings mq.example 5672 centre"),
            ("amqp://a%40b@[::1]:1/%2F", "a@b ::1 1 /"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_says_why() {
        assert_eq!(Address::parse("amqps://mq.example"), Err(AddressFault::Tls));
        assert_eq!(Address::parse("amqp://a:b@mq.example"), Err(AddressFault::Password));
        for bad in [
            "",
            "amqp://",
            "amqp:///x",
            "http://x",
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
