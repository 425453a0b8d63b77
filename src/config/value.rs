//! Single values: how a duration, a size, an address is written in a settings file or the environment.
//!
//! Pure text to value; durations are read as requests bear them. Which key has which kind, and between which bounds, is `config::Config`'s.

use std::time::Duration;

use crate::deliver::email::HIDDEN_PASSWORD;
pub use crate::wire::measure::duration;
use crate::wire::measure::measured;

/// A value as it was given, before its key says what it must be. Kinds that no key has (dates, floats, …) are refused
/// where the file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::List(_) => None,
        }
    }

    /// A whole number; the environment has it as text.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
            Self::List(_) => None,
        }
    }

    /// A list; the environment has it as text with commas.
    pub(super) fn list(&self) -> Option<Vec<String>> {
        match self {
            Self::List(list) => Some(list.clone()),
            Self::Text(text) => {
                Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            Self::Number(_) => None,
        }
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        match self {
            Self::Text(text) => duration(text),
            Self::Number(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Self::List(_) => None,
        }
    }

    /// Bytes.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Text(text) => {
                measured(text, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)])
            }
            Self::Number(bytes) => u64::try_from(*bytes).ok(),
            Self::List(_) => None,
        }
    }

    /// The same value in the kind of its default, where it can be read as one: the environment and flags have only
    /// texts.
    pub(super) fn like(&self, default: &Self) -> Self {
        let read = match default {
            Self::Text(_) => None,
            Self::Number(_) => self.number().and_then(|number| i64::try_from(number).ok()).map(Self::Number),
            Self::List(_) => self.list().map(Self::List),
        };
        read.unwrap_or_else(|| self.clone())
    }

    /// The same without the password of an address such as `smtp://user:password@host`: settings are shown to people, and
    /// to whatever they paste them into.
    pub(super) fn without_password(self) -> Self {
        let Self::Text(text) = &self else { return self };
        let Some((scheme, rest)) = text.split_once("://") else { return self };
        let Some((account, place)) = rest.rsplit_once('@') else { return self };
        match account.split_once(':') {
            Some((user, _)) => Self::Text(format!("{scheme}://{user}:{HIDDEN_PASSWORD}@{place}")),
            None => self,
        }
    }

    /// As a settings file has it.
    pub(super) fn into_toml(self) -> toml::Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::List(list) => list.into(),
        }
    }
}

/// Writes a duration of whole seconds the way [`duration`] reads it, in the largest unit that fits.
pub(super) fn duration_text(span: Duration) -> String {
    let seconds = span.as_secs();
    let (unit, length) = [("d", 86_400), ("h", 3600), ("m", 60)]
        .into_iter()
        .find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length))
        .unwrap_or(("s", 1));
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["90s", "10m", "2h", "7d", "0s", "1d"] {
            assert_eq!(duration(text).map(duration_text).as_deref(), Some(text));
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = |text: &str| match Value::Text(text.to_owned()).without_password() {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(shown("smtp://a@b.example:se@cr:et@mail.example:25"), "smtp://a@b.example:…@mail.example:25");
        for other in ["smtp://alice@mail.example:25", "smtp://mail.example:25", "127.0.0.1:8383", "", "a:b@c"] {
            assert_eq!(shown(other), other);
        }
    }

    #[test]
    fn sizes_have_binary_units_or_are_bytes() {
        let size = |text: &str| Value::Text(text.to_owned()).size();
        assert_eq!(size("256KiB"), Some(262_144));
        assert_eq!(size("1 MiB"), Some(1 << 20));
        assert_eq!(size("17"), Some(17));
        assert_eq!(size("17B"), Some(17));
        assert_eq!(Value::Number(17).size(), Some(17));
        for bad in ["", "KiB", "1KB", "x", "-1", "99999999999GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_in_the_environment_have_commas() {
        let list = |text: &str| Value::Text(text.to_owned()).list();
        assert_eq!(
            list("https://a.example, https://b.example"),
            Some(vec!["https://a.example".into(), "https://b.example".into()])
        );
        assert_eq!(list(""), Some(vec![]));
    }
}
