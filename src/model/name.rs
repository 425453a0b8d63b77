//! Names that callers give: users, topics, categories. Each says its alphabet and its length.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a name was refused, in words for the one who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error(
        "a user id has 1 to {} bytes of UTF-8, no control characters and no space at either end",
        UserId::MAX_BYTES
    )]
    User,
    #[error(
        "a topic has 1 to {} of the characters A-Z a-z 0-9 . _ ~ : @ - and /, begins and ends with none of `/`, and has no `//`",
        TopicName::MAX_BYTES
    )]
    Topic,
    #[error(
        "a category has 1 to {} of the characters a-z A-Z 0-9 . _ - and begins with a letter or digit",
        Category::MAX_BYTES
    )]
    Category,
    #[error(
        "a template has 1 to {} of the characters a-z A-Z 0-9 . _ - and begins with a letter or digit",
        TemplateName::MAX_BYTES
    )]
    Template,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $error:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Bytes at most.
            pub const MAX_BYTES: usize = $max;

            /// The name, where it keeps to the alphabet and the length.
            ///
            /// # Errors
            /// [`InvalidName`], whose text tells the rule.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let rule: fn(&str) -> bool = $rule;
                if (1..=Self::MAX_BYTES).contains(&text.len()) && rule(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName::$error)
                }
            }

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

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Who a person is to the embedding application: its own id, an address, a UUID.
    UserId, 128, User,
    |text| text.trim() == text && !text.chars().any(char::is_control)
}

name! {
    /// A named stream that those allowed may follow, such as `ops` or `orders/42`.
    TopicName, 128, Topic,
    |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~:@-/".contains(&b))
            && !text.starts_with('/')
            && !text.ends_with('/')
            && !text.contains("//")
    }
}

name! {
    /// What kind of thing an entry is about, such as `loans`; counts are kept by it.
    Category, 64, Category,
    |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && text.as_bytes()[0].is_ascii_alphanumeric()
    }
}

name! {
    /// A template, such as `loan-due`.
    TemplateName, 64, Template,
    |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && text.as_bytes()[0].is_ascii_alphanumeric()
    }
}

impl TopicName {
    /// The topic that all follow. Reserved: nobody follows or leaves it by hand.
    pub const EVERYONE: &str = "everyone";

    /// The topic that all follow.
    pub fn everyone() -> Self {
        Self(Self::EVERYONE.into())
    }

    /// Whether this is the topic that all follow.
    pub fn is_everyone(&self) -> bool {
        self.as_str() == Self::EVERYONE
    }
}

impl Default for Category {
    /// What an entry bears whose publisher named none.
    fn default() -> Self {
        Self("general".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_keep_to_their_alphabet() {
        for good in ["ops", "orders/42", "a.b_c~d:e@f-g", "Z"] {
            assert!(TopicName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a b", "库", "a\nb", "a*", "a?b", &"x".repeat(129)] {
            assert_eq!(TopicName::new(bad), Err(InvalidName::Topic), "{bad:?}");
        }
    }

    #[test]
    fn users_may_be_anything_printable() {
        for good in ["alice", "alice@example.com", "读者", "a b"] {
            assert!(UserId::new(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\0b", "a\r\nb", "\u{85}", &"x".repeat(129)] {
            assert_eq!(UserId::new(bad), Err(InvalidName::User), "{bad:?}");
        }
    }

    #[test]
    fn categories_are_plain() {
        assert!(Category::new("loans.due-soon_1").is_ok());
        for bad in ["", "-a", "a b", "a/b", "借", &"x".repeat(65)] {
            assert_eq!(Category::new(bad), Err(InvalidName::Category), "{bad:?}");
        }
    }
}
