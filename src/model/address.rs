//! Where people are reached besides the inbox: addresses of mail and of DingTalk, and the time zone they live in.
//!
//! **Invariant**: no control character, space or line break is in any of them, so that none can begin a header or a command
//! of its own where it is written into a mail or a request.

use std::fmt;
use std::sync::Arc;

/// Why an address was refused, in words for the one who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    #[error(
        "is no mail address: one `name@domain` of at most {} characters, in ASCII (a domain in other letters in its `xn--` \
         form), without quotes, comments or spaces",
        Email::MAX_BYTES
    )]
    Email,
    #[error(
        "is no DingTalk user: 1 to {} of the characters A-Z a-z 0-9 . _ + $ : - (a `userid`, or a mobile number)",
        DingTalkId::MAX_BYTES
    )]
    DingTalk,
    #[error("is no time zone of the IANA database, such as `Asia/Shanghai` or `Europe/Zurich`")]
    TimeZone,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Bytes at most.
            pub const MAX_BYTES: usize = $max;

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text! {
    /// A mail address as relays take it everywhere: a dot-atom, `@`, a domain (RFC 5321 without quoted names and
    /// address literals).
    Email, 254
}

text! {
    /// A person of a DingTalk organisation: the `userid`, or a mobile number.
    DingTalkId, 64
}

text! {
    /// A time zone by its name in the IANA database. A person's is kept for their application; texts are rendered in the template's.
    TimeZone, 64
}

/// Bytes before the `@` at most (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;
/// Bytes of one label of a domain at most.
const MAX_LABEL_BYTES: usize = 63;

impl Email {
    /// # Errors
    /// [`InvalidAddress::Email`].
    pub fn new(text: &str) -> Result<Self, InvalidAddress> {
        let valid = text.len() <= Self::MAX_BYTES
            && text.split_once('@').is_some_and(|(local, domain)| is_dot_atom(local) && is_domain(domain));
        if valid { Ok(Self(text.into())) } else { Err(InvalidAddress::Email) }
    }

    /// What stands behind the `@`.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

fn is_dot_atom(local: &str) -> bool {
    let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    local.len() <= MAX_LOCAL_BYTES && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // One that ends with a number is an address of a machine.
    let is_name = |last: &str| last.bytes().any(|b| b.is_ascii_alphabetic());
    domain.split('.').all(is_label) && domain.rsplit('.').next().is_some_and(is_name)
}

impl DingTalkId {
    /// # Errors
    /// [`InvalidAddress::DingTalk`].
    pub fn new(text: &str) -> Result<Self, InvalidAddress> {
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+$:-".contains(&b));
        if valid { Ok(Self(text.into())) } else { Err(InvalidAddress::DingTalk) }
    }
}

impl TimeZone {
    /// # Errors
    /// [`InvalidAddress::TimeZone`] where the database has none of that name.
    pub fn new(text: &str) -> Result<Self, InvalidAddress> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/_+-".contains(&b);
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(is_plain) {
            return Err(InvalidAddress::TimeZone);
        }
        let zone = jiff::tz::TimeZone::get(text).map_err(|_| InvalidAddress::TimeZone)?;
        // In the database's own case.
        zone.iana_name().map(|name| Self(name.into())).ok_or(InvalidAddress::TimeZone)
    }

    /// A name that was checked when it was stored. The database of zones may have dropped it since.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The zone's rules; UTC where the database has it no more.
    pub fn rules(&self) -> jiff::tz::TimeZone {
        jiff::tz::TimeZone::get(&self.0).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_relays_take_are_taken() {
        for good in ["alice@example.com", "a.b+c@x-y.example", "o'neil@localhost", "1@a.b", "a@xn--fiqs8s.example"] {
            let address = Email::new(good).unwrap_or_else(|e| panic!("{good}: {e}"));
            assert_eq!(address.as_str(), good);
        }
        assert_eq!(Email::new("a@b.example").map(|e| e.domain().to_owned()), Ok("b.example".to_owned()));
    }

    #[test]
    fn what_could_begin_a_header_or_a_second_address_is_refused() {
        for bad in [
            "",
            "alice",
            "@example.com",
            "alice@",
            "a@b@c",
            "a b@c.example",
            "a@b.example\r\nBcc: all@c.example",
            "a@b.example\0",
            "a\u{85}@b.example",
            "<a@b.example>",
            "a@b.example,c@d.example",
            "\"a b\"@c.example",
            "a(x)@b.example",
            ".a@b.example",
            "a.@b.example",
            "a..b@c.example",
            "a@-b.example",
            "a@b..example",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "库@example.com",
            "a@库.example",
        ] {
            assert_eq!(Email::new(bad), Err(InvalidAddress::Email), "{bad:?}");
        }
        assert!(Email::new(&format!("{}@b.example", "a".repeat(65))).is_err());
        assert!(Email::new(&format!("a@{}.example", "b".repeat(64))).is_err());
        assert!(Email::new(&format!("a@{}example", "b.".repeat(130))).is_err());
    }

    #[test]
    fn people_of_dingtalk_are_plain_words() {
        for good in ["manager4220", "+86-13800000000", "$:LWCP_v1:$x"] {
            assert!(DingTalkId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a@b", "a](http://x)", "a\nb", "库", &"x".repeat(65)] {
            assert_eq!(DingTalkId::new(bad), Err(InvalidAddress::DingTalk), "{bad:?}");
        }
    }

    #[test]
    fn zones_are_those_of_the_database() {
        assert_eq!(TimeZone::new("asia/shanghai").map(|zone| zone.to_string()), Ok("Asia/Shanghai".to_owned()));
        for bad in ["", "Mars/Olympus", "../../etc/passwd", "Asia/Shanghai\n", "+08:00", &"a".repeat(65)] {
            assert_eq!(TimeZone::new(bad), Err(InvalidAddress::TimeZone), "{bad:?}");
        }
        assert_eq!(TimeZone::stored("Mars/Olympus").rules(), jiff::tz::TimeZone::UTC);
    }
}
