//! Templates: texts with places for values, by medium and language, and the variables that they declare.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Category, Locale, TimeZone};

/// Languages of one template at most.
pub const MAX_TEMPLATE_LOCALES: usize = 32;
/// Variables of one template, and fields of one list's items, at most.
pub const MAX_TEMPLATE_VARIABLES: usize = 64;
/// Bytes of one text of a template at most.
pub const MAX_TEMPLATE_TEXT_BYTES: usize = 64 * 1024;
/// Items that a list among the values may have.
pub const MAX_PARAM_ITEMS: usize = 100;
/// Characters of a text among the values at most.
pub const MAX_PARAM_CHARS: usize = 10_000;

/// What a variable holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableKind {
    Text,
    Integer,
    Number,
    Boolean,
    /// A day of the calendar.
    Date,
    /// A moment.
    Moment,
    /// An http(s) or mailto address, or a path.
    Link,
    /// Objects with these fields, none of which is a list.
    List(BTreeMap<String, Variable>),
}

impl VariableKind {
    /// The kinds' names, for people.
    pub const NAMES: &str = "string, integer, number, boolean, date, datetime, url, list";

    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Moment => "datetime",
            Self::Link => "url",
            Self::List(_) => "list",
        }
    }
}

/// Whether a value must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
}

/// A declared variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub kind: VariableKind,
    pub need: Need,
}

/// Variables by name.
pub type Variables = BTreeMap<String, Variable>;

/// What the inbox shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InAppText {
    pub title: String,
    pub body: String,
    pub click: Option<String>,
}

/// A mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmailText {
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
}

/// A message of a DingTalk robot; `text` is its Markdown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DingTalkText {
    pub title: String,
    pub text: String,
}

/// Texts of one language, as far as there are any: as they were written, or as they came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub in_app: Option<InAppText>,
    pub email: Option<EmailText>,
    pub dingtalk: Option<DingTalkText>,
    /// JSON.
    pub webhook: Option<String>,
}

/// A template as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What its notifications are about where the publish does not say.
    pub category: Option<Category>,
    /// The language of readers for whom there is no better one.
    pub default_locale: Locale,
    /// In which moments are told; UTC where none is named.
    pub time_zone: Option<TimeZone>,
    pub variables: Variables,
    pub texts: BTreeMap<Locale, Texts>,
}

/// Values for a template's variables. What may be left out and was is not here.
pub type Params = BTreeMap<String, Param>;

/// A value, of the kind that was declared.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Date(String),
    Moment(String),
    Link(String),
    List(Vec<Params>),
}

/// A publish by a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateUse {
    pub name: super::TemplateName,
    /// `None` is the one that is published.
    pub version: Option<u32>,
    /// The values as JSON, as they were sent: what they must be only the template knows.
    pub params: String,
}

/// The template that something was published by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedTemplate {
    pub name: super::TemplateName,
    /// `None` of what was published before the log kept it.
    pub version: Option<u32>,
}

/// What a notification says in one language.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wording {
    pub title: String,
    pub body: String,
    pub click: Option<String>,
}

/// What a notification says in other languages. Most say one thing to everybody, so that these are none.
pub type Wordings = Arc<[(Locale, Wording)]>;
