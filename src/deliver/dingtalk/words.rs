//! What a robot says by itself: the heading of a digest, and that something was cut. In Chinese for who reads Chinese, else
//! in English.

use crate::model::Locale;

/// Its words in one language.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// Stands where a text was cut.
    pub(super) cut: &'static str,
    /// Leads where the notification leads.
    pub(super) open: &'static str,
    /// The title of what has none.
    pub(super) nameless: &'static str,
    /// Follows a number.
    notifications: &'static str,
    notification: &'static str,
}

impl Words {
    pub(super) const ENGLISH: Self = Self {
        cut: "… cut here: the whole is in the inbox.",
        open: "Open",
        nameless: "Notification",
        notifications: " notifications",
        notification: " notification",
    };
    pub(super) const CHINESE: Self = Self {
        cut: "……以下从略，全文见收件箱。",
        open: "打开",
        nameless: "通知",
        notifications: " 条通知",
        notification: " 条通知",
    };

    /// Those of a reader's language.
    pub(super) fn of(locale: Option<&Locale>) -> &'static Self {
        let is_chinese = locale.is_some_and(|locale| locale.as_str().split('-').next() == Some("zh"));
        if is_chinese { &Self::CHINESE } else { &Self::ENGLISH }
    }

    /// So many notifications.
    pub(super) fn count(&self, number: usize) -> String {
        format!("{number}{}", if number == 1 { self.notification } else { self.notifications })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_s_language_decides() {
        let of = |tag: &str| Words::of(Some(&Locale::new(tag).expect("a language tag")));
        assert_eq!(
            (of("zh-Hans"), of("zh"), of("de"), Words::of(None)),
            (&Words::CHINESE, &Words::CHINESE, &Words::ENGLISH, &Words::ENGLISH)
        );
        assert_eq!((Words::ENGLISH.count(1), Words::CHINESE.count(3)), ("1 notification".into(), "3 条通知".into()));
    }
}
