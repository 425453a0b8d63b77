//! Profiles as they cross a socket: changes in, whole ones out.
//!
//! A change is a JSON merge patch (RFC 7396): what it does not name stays, `null` clears. `preferences` is
//! `{"loans":{"email":false},"*":{"email":true}}`: by category (`*` is every one without a word of its own) and medium.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{BodyError, Fields};
use super::manage::named_user;
use crate::model::{
    About, Category, DingTalkId, Edit, Email, InvalidName, Locale, Medium, PreferenceEdit, Preferences, Profile,
    ProfileEdit, TimeZone, UserId, Wish, person_name_fault,
};

/// Reads the body of `PUT /v1/users/{user}`.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse_profile(body: &[u8]) -> Result<ProfileEdit, BodyError> {
    let mut fields = Fields::parse(body)?;
    let edit = profile(&mut fields);
    fields.close(Some(edit))
}

/// Reads a line of `POST /v1/users`: the same, with `user`.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse_profile_line(line: &[u8]) -> Result<(UserId, ProfileEdit), BodyError> {
    let mut fields = Fields::parse(line)?;
    let (user, edit) = (named_user(&mut fields), profile(&mut fields));
    fields.close(user.map(|user| (user, edit)))
}

/// Reads the body of `PUT /v1/preferences`: what is the person's own to say.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse_own(body: &[u8]) -> Result<ProfileEdit, BodyError> {
    let mut fields = Fields::parse(body)?;
    for name in ["name", "email", "dingtalk"] {
        if !matches!(fields.edit(name), Edit::Keep) {
            fields.refuse(name, "is the application's to change, since it knows whose it is");
        }
    }
    let edit = own(&mut fields);
    fields.close(Some(edit))
}

fn profile(fields: &mut Fields<'_>) -> ProfileEdit {
    let name = |text: &str| person_name_fault(text).map_or_else(|| Ok(text.to_owned()), Err);
    ProfileEdit {
        name: text(fields, "name", name),
        email: text(fields, "email", Email::new),
        dingtalk: text(fields, "dingtalk", DingTalkId::new),
        ..own(fields)
    }
}

fn own(fields: &mut Fields<'_>) -> ProfileEdit {
    ProfileEdit {
        locale: text(fields, "locale", Locale::new),
        time_zone: text(fields, "time_zone", TimeZone::new),
        preferences: preferences(fields),
        ..ProfileEdit::default()
    }
}

/// Takes a string that must read as `T`.
fn text<T, E: ToString>(fields: &mut Fields<'_>, name: &str, read: impl Fn(&str) -> Result<T, E>) -> Edit<T> {
    let raw = match fields.edit(name) {
        Edit::Keep => return Edit::Keep,
        Edit::Clear => return Edit::Clear,
        Edit::Set(raw) => raw,
    };
    let text = serde_json::from_str::<String>(raw.get()).map_err(|_| "must be a string, or null".to_owned());
    match text.and_then(|text| read(&text).map_err(|e| e.to_string())) {
        Ok(value) => Edit::Set(value),
        Err(detail) => {
            fields.refuse(name, detail);
            Edit::Keep
        }
    }
}

fn preferences(fields: &mut Fields<'_>) -> Vec<PreferenceEdit> {
    let at = fields.pointer("preferences");
    let raw = match fields.edit("preferences") {
        Edit::Keep => return Vec::new(),
        Edit::Clear => return vec![PreferenceEdit::ClearAll],
        Edit::Set(raw) => raw,
    };
    let Some(mut by_category) = Fields::inside(at, raw) else {
        fields.refuse("preferences", "must be an object: {\"loans\":{\"email\":false}}, `*` for every category");
        return Vec::new();
    };
    let mut edits = Vec::new();
    for (name, raw) in by_category.rest() {
        match About::parse(&name) {
            None => by_category.refuse(&name, InvalidName::Category.to_string() + "; `*` is every one"),
            Some(about) if raw.get() == "null" => edits.push(PreferenceEdit::Clear(about)),
            Some(about) => by_medium(&mut by_category, &name, &about, raw, &mut edits),
        }
    }
    fields.absorb(by_category.finish());
    edits
}

fn by_medium(fields: &mut Fields<'_>, name: &str, about: &About, raw: &RawValue, edits: &mut Vec<PreferenceEdit>) {
    let Some(mut media) = Fields::inside(fields.pointer(name), raw) else {
        return fields.refuse(name, "must be an object such as {\"email\":false}, or null");
    };
    for (name, raw) in media.rest() {
        let wish = match raw.get() {
            "true" => Some(Wish::Wanted),
            "false" => Some(Wish::Unwanted),
            "null" => None,
            _ => {
                media.refuse(&name, "must be true, false or null");
                continue;
            }
        };
        match Medium::parse(&name) {
            Some(medium) => edits.push(PreferenceEdit::Say(about.clone(), medium, wish)),
            None => media.refuse(&name, format!("is no medium; there are {}", Medium::NAMES)),
        }
    }
    fields.absorb(media.finish());
}

/// A person, as their application and they themselves see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnProfile {
    pub profile: Profile,
    /// Categories that the person has entries in, follows, or has said something about; in order.
    pub categories: Vec<Category>,
}

/// A profile as a body.
#[derive(Serialize)]
pub struct ProfileBody<'a> {
    user: &'a str,
    name: Option<&'a str>,
    email: Option<&'a str>,
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
    dingtalk: Option<&'a str>,
    preferences: BTreeMap<&'a str, BTreeMap<&'static str, bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    categories: Option<Vec<&'a str>>,
}

impl<'a> ProfileBody<'a> {
    pub fn new(user: &'a UserId, profile: &'a Profile) -> Self {
        Self {
            user: user.as_str(),
            name: profile.name.as_deref(),
            email: profile.email.as_ref().map(Email::as_str),
            locale: profile.locale.as_ref().map(Locale::as_str),
            time_zone: profile.time_zone.as_ref().map(TimeZone::as_str),
            dingtalk: profile.dingtalk.as_ref().map(DingTalkId::as_str),
            preferences: told(&profile.preferences),
            categories: None,
        }
    }

    /// As the person sees it.
    pub fn own(user: &'a UserId, own: &'a OwnProfile) -> Self {
        let categories = own.categories.iter().map(Category::as_str).collect();
        Self { categories: Some(categories), ..Self::new(user, &own.profile) }
    }
}

fn told(preferences: &Preferences) -> BTreeMap<&str, BTreeMap<&'static str, bool>> {
    let media = |media: &BTreeMap<Medium, Wish>| {
        media.iter().map(|(medium, wish)| (medium.as_str(), *wish == Wish::Wanted)).collect()
    };
    preferences.iter().map(|(about, said)| (about.as_str(), media(said))).collect()
}

/// What became of a line of `POST /v1/users`.
#[derive(Serialize)]
pub struct PutBody<'a> {
    pub status: u16,
    pub user: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers<T: std::fmt::Debug>(read: Result<T, BodyError>) -> Vec<String> {
        match read {
            Err(BodyError::Fields(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn edited(body: &str) -> String {
        let mut profile = Profile { email: Email::new("a@b.example").ok(), ..Profile::default() };
        profile.preferences.set(About::Every, Medium::Email, Some(Wish::Wanted));
        parse_profile(body.as_bytes()).expect("a change").apply(&mut profile);
        let user = UserId::new("alice").expect("a user");
        serde_json::to_string(&ProfileBody::new(&user, &profile)).expect("JSON")
    }

    #[test]
    fn what_is_not_named_stays_and_null_clears() {
        let told = |email: &str, locale: &str, preferences: &str| {
            format!(
                r#"{{"user":"alice","name":null,"email":{email},"locale":{locale},"time_zone":null,"dingtalk":null,"preferences":{preferences}}}"#
            )
        };
        let address = r#""a@b.example""#;
        let every = r#"{"*":{"email":true}}"#;
        assert_eq!(edited("{}"), told(address, "null", every));
        assert_eq!(edited(r#"{"locale":"DE-ch"}"#), told(address, r#""de-CH""#, every));
        assert_eq!(edited(r#"{"email":null,"preferences":null}"#), told("null", "null", "{}"));
        assert_eq!(
            edited(r#"{"preferences":{"loans":{"email":false,"dingtalk":true}}}"#),
            told(address, "null", r#"{"*":{"email":true},"loans":{"dingtalk":true,"email":false}}"#)
        );
        assert_eq!(edited(r#"{"preferences":{"*":{"email":null}}}"#), told(address, "null", "{}"));
        assert_eq!(edited(r#"{"preferences":{"*":null,"a":{"email":null}}}"#), told(address, "null", "{}"));
    }

    #[test]
    fn every_broken_field_is_told_at_once() {
        let body = r#"{"name":"a\nb","email":"a@b@c","locale":"zh_CN","time_zone":"Mars/Olympus","dingtalk":"a b","nick":1,
            "preferences":{"a b":{},"loans":{"fax":true,"email":"no"},"x":7}}"#;
        let mut found = pointers(parse_profile(body.as_bytes()));
        found.sort_unstable();
        let mut expected = [
            "/name",
            "/email",
            "/locale",
            "/time_zone",
            "/dingtalk",
            "/nick",
            "/preferences/a b",
            "/preferences/loans/fax",
            "/preferences/loans/email",
            "/preferences/x",
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(pointers(parse_profile_line(b"{}")), ["/user"]);
        assert_eq!(pointers(parse_profile(br#"{"email":7,"preferences":[]}"#)), ["/email", "/preferences"]);
    }

    #[test]
    fn addresses_are_not_the_persons_own_to_change() {
        assert!(parse_own(br#"{"locale":"zh","time_zone":"UTC","preferences":{"*":{"email":false}}}"#).is_ok());
        assert_eq!(
            pointers(parse_own(br#"{"email":"a@b.example","name":null,"dingtalk":"x"}"#)),
            ["/name", "/email", "/dingtalk"]
        );
    }
}
