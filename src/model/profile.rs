//! Who a person is to those who reach them: addresses, language, time zone, and by which media they want to hear of what.

use std::collections::BTreeMap;

use super::{Category, DingTalkId, Email, Locale, TimeZone};

/// Characters of a person's name at most.
pub const MAX_PERSON_NAME_CHARS: usize = 128;
/// Categories that one user's preferences may name, `*` apart.
pub const MAX_PREFERRED_CATEGORIES: usize = 100;

/// Where a notification goes besides the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Medium {
    Email,
    DingTalk,
    Webhook,
}

impl Medium {
    pub const ALL: [Self; 3] = [Self::Email, Self::DingTalk, Self::Webhook];
    /// Their names, for people.
    pub const NAMES: &str = "email, dingtalk, webhook";

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::DingTalk => "dingtalk",
            Self::Webhook => "webhook",
        }
    }

    /// Reads what [`Medium::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|medium| medium.as_str() == text)
    }
}

/// Whether somebody wants to be reached by a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Wanted,
    Unwanted,
}

/// Which entries a preference is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Every category that has no preference of its own.
    Every,
    Category(Category),
}

impl About {
    /// How `Every` is written.
    pub const EVERY: &str = "*";

    /// A category's name, or `*`; `None` for what is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text == Self::EVERY { Some(Self::Every) } else { Category::new(text).ok().map(Self::Category) }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Every => Self::EVERY,
            Self::Category(category) => category.as_str(),
        }
    }
}

/// By which media somebody wants to hear of what, as far as they have said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences(BTreeMap<About, BTreeMap<Medium, Wish>>);

impl Preferences {
    /// What was said about a category, else about every one; `default` where nothing was.
    pub fn wish(&self, category: &Category, medium: Medium, default: Wish) -> Wish {
        let said = |about: &About| self.0.get(about).and_then(|media| media.get(&medium)).copied();
        said(&About::Category(category.clone())).or_else(|| said(&About::Every)).unwrap_or(default)
    }

    /// Says something; `None` takes it back.
    pub fn set(&mut self, about: About, medium: Medium, wish: Option<Wish>) {
        match wish {
            Some(wish) => {
                self.0.entry(about).or_default().insert(medium, wish);
            }
            None => {
                if let Some(media) = self.0.get_mut(&about) {
                    media.remove(&medium);
                    if media.is_empty() {
                        self.0.remove(&about);
                    }
                }
            }
        }
    }

    /// Everything that was said, in order: `*` first, then the categories by name.
    pub fn iter(&self) -> impl Iterator<Item = (&About, &BTreeMap<Medium, Wish>)> {
        self.0.iter()
    }

    /// Categories that something was said about.
    pub fn categories(&self) -> impl Iterator<Item = &Category> {
        self.0.keys().filter_map(|about| match about {
            About::Every => None,
            About::Category(category) => Some(category),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A person as those who reach them know them. What is `None` was never said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub name: Option<String>,
    pub email: Option<Email>,
    pub locale: Option<Locale>,
    pub time_zone: Option<TimeZone>,
    pub dingtalk: Option<DingTalkId>,
    pub preferences: Preferences,
}

impl Profile {
    /// Where a medium reaches them, where that is known.
    pub fn address(&self, medium: Medium) -> Option<&str> {
        match medium {
            Medium::Email => self.email.as_ref().map(Email::as_str),
            Medium::DingTalk => self.dingtalk.as_ref().map(DingTalkId::as_str),
            Medium::Webhook => None,
        }
    }

    /// Whether the person wants to be reached by a medium about a category; `default` where they have not said.
    pub fn wants(&self, category: &Category, medium: Medium, default: Wish) -> Wish {
        self.preferences.wish(category, medium, default)
    }
}

/// What becomes of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// It was not named.
    #[default]
    Keep,
    Clear,
    Set(T),
}

impl<T: Clone> Edit<T> {
    fn apply(&self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value.clone()),
        }
    }
}

/// What becomes of preferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreferenceEdit {
    /// Nothing was ever said.
    ClearAll,
    /// Nothing was said about this.
    Clear(About),
    /// `None` takes back what was said.
    Say(About, Medium, Option<Wish>),
}

/// A change of a profile. What it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileEdit {
    pub name: Edit<String>,
    pub email: Edit<Email>,
    pub locale: Edit<Locale>,
    pub time_zone: Edit<TimeZone>,
    pub dingtalk: Edit<DingTalkId>,
    /// One after the other.
    pub preferences: Vec<PreferenceEdit>,
}

impl ProfileEdit {
    /// Changes a profile.
    pub fn apply(&self, profile: &mut Profile) {
        self.name.apply(&mut profile.name);
        self.email.apply(&mut profile.email);
        self.locale.apply(&mut profile.locale);
        self.time_zone.apply(&mut profile.time_zone);
        self.dingtalk.apply(&mut profile.dingtalk);
        for edit in &self.preferences {
            match edit {
                PreferenceEdit::ClearAll => profile.preferences = Preferences::default(),
                PreferenceEdit::Clear(about) => {
                    profile.preferences.0.remove(about);
                }
                PreferenceEdit::Say(about, medium, wish) => profile.preferences.set(about.clone(), *medium, *wish),
            }
        }
    }
}

/// What is wrong with a person's name, if anything. It stands in the head of a mail.
pub fn person_name_fault(name: &str) -> Option<String> {
    let fits = (1..=MAX_PERSON_NAME_CHARS).contains(&name.chars().count());
    let is_plain = name.trim() == name && !name.chars().any(char::is_control);
    (!(fits && is_plain)).then(|| {
        format!(
            "must be 1 to {MAX_PERSON_NAME_CHARS} characters without control characters and without spaces at its ends"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loans() -> Category {
        Category::new("loans").expect("a category")
    }

    #[test]
    fn what_is_said_about_a_category_wins_over_what_is_said_about_all() {
        let mut said = Preferences::default();
        let wish = |said: &Preferences, default| said.wish(&loans(), Medium::Email, default);
        assert_eq!(wish(&said, Wish::Wanted), Wish::Wanted);
        assert_eq!(wish(&said, Wish::Unwanted), Wish::Unwanted);
        said.set(About::Every, Medium::Email, Some(Wish::Unwanted));
        assert_eq!(wish(&said, Wish::Wanted), Wish::Unwanted);
        said.set(About::Category(loans()), Medium::Email, Some(Wish::Wanted));
        assert_eq!(wish(&said, Wish::Unwanted), Wish::Wanted);
        assert_eq!(said.wish(&loans(), Medium::DingTalk, Wish::Unwanted), Wish::Unwanted);
        assert_eq!(said.wish(&Category::default(), Medium::Email, Wish::Wanted), Wish::Unwanted);
        said.set(About::Category(loans()), Medium::Email, None);
        assert_eq!(wish(&said, Wish::Wanted), Wish::Unwanted);
        said.set(About::Every, Medium::Email, None);
        assert!(said.is_empty());
    }

    #[test]
    fn an_edit_leaves_alone_what_it_does_not_name() {
        let mut profile =
            Profile { name: Some("Alice".into()), email: Email::new("a@b.example").ok(), ..Profile::default() };
        let edit = ProfileEdit {
            name: Edit::Clear,
            locale: Edit::Set(Locale::default()),
            preferences: vec![PreferenceEdit::Say(About::Every, Medium::Email, Some(Wish::Unwanted))],
            ..ProfileEdit::default()
        };
        edit.apply(&mut profile);
        assert_eq!((profile.name.as_deref(), profile.email.is_some()), (None, true));
        assert_eq!(profile.locale, Some(Locale::default()));
        assert_eq!(profile.wants(&loans(), Medium::Email, Wish::Wanted), Wish::Unwanted);
        let edit = ProfileEdit { preferences: vec![PreferenceEdit::ClearAll], ..ProfileEdit::default() };
        edit.apply(&mut profile);
        assert!(profile.preferences.is_empty());
    }

    #[test]
    fn names_stand_on_one_line() {
        for good in ["Alice", "王 小明", "O'Neil (Ops)"] {
            assert_eq!(person_name_fault(good), None, "{good}");
        }
        for bad in ["", " a", "a\nBcc: b@c.example", "a\0", &"x".repeat(129)] {
            assert!(person_name_fault(bad).is_some(), "{bad:?}");
        }
    }
}
