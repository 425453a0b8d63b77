//! A notification: what a person reads in the inbox.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::{Audience, Category, Life, Seq, Timestamp, TopicName, Via, Wording, Wordings};

/// Characters (Unicode scalar values) of a title at most.
pub const MAX_TITLE_CHARS: usize = 250;
/// Characters of a body at most.
pub const MAX_BODY_CHARS: usize = 10_000;
/// Characters of a link (`click`, `icon`) at most.
pub const MAX_LINK_CHARS: usize = 2_048;
/// Characters of a sender's name at most.
pub const MAX_SENDER_CHARS: usize = 128;
/// Bytes of `data` at most, after white space outside strings is dropped.
pub const MAX_DATA_BYTES: usize = 32 * 1024;
/// How deep JSON that a caller sends may nest.
pub const MAX_DEPTH: usize = 32;
/// Buttons of a notification at most.
pub const MAX_ACTIONS: usize = 3;
/// Characters of a button's label at most.
pub const MAX_LABEL_CHARS: usize = 64;

/// The public id of a notification: a `UUIDv7`, so that the index over ids grows at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotificationId(pub Uuid);

impl NotificationId {
    /// Reads what `Display` wrote: the hyphenated form, and no other.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How urgent: 1 (least) to 5 (most); 3 where the publisher says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// `None` outside 1-5.
    pub fn new(value: u64) -> Option<Self> {
        u8::try_from(value).ok().filter(|v| (1..=5).contains(v)).map(Self)
    }

    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(3)
    }
}

/// A button under a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    pub label: String,
    pub click: String,
}

/// What a notification says. Made by [`Content::check`] only, or read from the store, which holds nothing unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub title: String,
    pub body: String,
    pub category: Category,
    pub priority: Priority,
    /// JSON as sent, on one line.
    pub data: Option<String>,
    pub icon: Option<String>,
    pub click: Option<String>,
    pub actions: Vec<Action>,
    pub sender: Option<String>,
    /// The same title, body and link in each language that there is, where there are several.
    pub wordings: Wordings,
}

/// One field of a draft that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentError {
    /// Which field, as a JSON pointer (RFC 6901) into what was sent.
    pub pointer: String,
    /// The rule, in words for the one who sent it.
    pub detail: String,
}

impl Content {
    /// Checks every rule on what a notification may say, and tells all that are broken.
    ///
    /// # Errors
    /// One [`ContentError`] for each broken rule.
    pub fn check(self) -> Result<Self, Vec<ContentError>> {
        let mut errors = Vec::new();
        let mut refuse =
            |pointer: &str, detail: String| errors.push(ContentError { pointer: pointer.to_owned(), detail });

        if self.title.trim().is_empty() && self.body.trim().is_empty() {
            refuse("/body", "a notification needs a title or a body".to_owned());
        }
        if let Some(detail) = line_fault(&self.title, MAX_TITLE_CHARS) {
            refuse("/title", detail);
        }
        if let Some(detail) = text_fault(&self.body, MAX_BODY_CHARS, |c| matches!(c, '\n' | '\r' | '\t')) {
            refuse("/body", detail);
        }
        if let Some(detail) = self.sender.as_deref().and_then(|s| line_fault(s, MAX_SENDER_CHARS)) {
            refuse("/sender", detail);
        }
        if let Some(data) = self.data.as_deref().filter(|d| d.len() > MAX_DATA_BYTES) {
            refuse("/data", format!("has {} bytes; at most {MAX_DATA_BYTES} are kept", data.len()));
        }
        for (pointer, link) in [("/icon", &self.icon), ("/click", &self.click)] {
            if let Some(detail) = link.as_deref().and_then(|l| link_fault(l, pointer == "/click")) {
                refuse(pointer, detail);
            }
        }
        if self.actions.len() > MAX_ACTIONS {
            refuse("/actions", format!("has {} buttons; at most {MAX_ACTIONS} are shown", self.actions.len()));
        }
        for (i, action) in self.actions.iter().enumerate() {
            if action.label.trim().is_empty() {
                refuse(&format!("/actions/{i}/label"), "a button needs a label".to_owned());
            } else if let Some(detail) = line_fault(&action.label, MAX_LABEL_CHARS) {
                refuse(&format!("/actions/{i}/label"), detail);
            }
            if let Some(detail) = link_fault(&action.click, true) {
                refuse(&format!("/actions/{i}/click"), detail);
            }
        }
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }
}

/// What is wrong with a single line of text, if anything.
fn line_fault(text: &str, max: usize) -> Option<String> {
    text_fault(text, max, |_| false)
}

fn text_fault(text: &str, max: usize, allowed: impl Fn(char) -> bool) -> Option<String> {
    if let Some(c) = text.chars().find(|c| c.is_control() && !allowed(*c)) {
        return Some(format!("holds the control character U+{:04X}, which is not allowed here", u32::from(c)));
    }
    let count = text.chars().count();
    (count > max).then(|| format!("has {count} characters; at most {max} are allowed"))
}

/// What is wrong with a link that a notification leads to, if anything.
pub fn click_fault(link: &str) -> Option<String> {
    link_fault(link, true)
}

/// Links are followed from a page, so a `javascript:` link would run as the page.
fn link_fault(link: &str, mail: bool) -> Option<String> {
    if let Some(fault) = line_fault(link, MAX_LINK_CHARS) {
        return Some(fault);
    }
    let lower = link.get(..8.min(link.len())).unwrap_or_default().to_ascii_lowercase();
    let absolute =
        lower.starts_with("https://") || lower.starts_with("http://") || (mail && lower.starts_with("mailto:"));
    // `//host` and `/\host` leave the site although they look like a path.
    let path = link.starts_with('/') && !link[1..].starts_with(['/', '\\']);
    let clean = !link.contains(char::is_whitespace);
    (!(clean && (absolute || path))).then(|| {
        let schemes = if mail { "http:, https: or mailto:" } else { "http: or https:" };
        format!("is neither an {schemes} address nor a path that begins with one `/`")
    })
}

/// A notification as a publisher hands it in, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub to: Audience,
    pub content: Content,
    /// Whether the publisher named the category. A topic's entries bear the topic's own where none is named.
    pub category_named: bool,
    pub life: Life,
    /// Where it goes besides the inbox.
    pub via: Via,
}

/// A notification as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub seq: Seq,
    pub id: NotificationId,
    /// `None` for one sent to users directly.
    pub topic: Option<TopicName>,
    pub content: Arc<Content>,
    pub created_at: Timestamp,
}

impl Notification {
    /// The same in other words.
    #[must_use]
    pub fn worded(self, wording: &Wording) -> Self {
        let Wording { title, body, click } = wording;
        let click = click.clone().or_else(|| self.content.click.clone());
        let content = Content { title: title.clone(), body: body.clone(), click, ..Content::clone(&self.content) };
        Self { content: Arc::new(content), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(content: Content) -> Vec<String> {
        content.check().err().unwrap_or_default().into_iter().map(|e| e.pointer).collect()
    }

    fn hello() -> Content {
        Content { title: "hello".into(), ..Content::default() }
    }

    #[test]
    fn a_title_or_a_body_is_enough() {
        assert!(hello().check().is_ok());
        assert!(Content { body: "b\n\tc".into(), ..Content::default() }.check().is_ok());
        assert_eq!(faults(Content::default()), ["/body"]);
    }

    #[test]
    fn every_broken_rule_is_told_at_once() {
        let content = Content {
            title: "x".repeat(251),
            body: "a\0".into(),
            sender: Some("a\nb".into()),
            click: Some("javascript:alert(1)".into()),
            icon: Some("mailto:a@b".into()),
            data: Some("1".repeat(MAX_DATA_BYTES + 1)),
            actions: vec![Action { label: " ".into(), click: "//evil".into() }; 4],
            ..Content::default()
        };
        let told = faults(content);
        for pointer in [
            "/title",
            "/body",
            "/sender",
            "/click",
            "/icon",
            "/data",
            "/actions",
            "/actions/3/label",
            "/actions/0/click",
        ] {
            assert!(told.iter().any(|t| t == pointer), "{pointer} in {told:?}");
        }
    }

    #[test]
    fn links_stay_on_the_web() {
        for good in ["https://a/b?c", "HTTP://a", "/loans/1", "/", "mailto:a@b"] {
            assert_eq!(link_fault(good, true), None, "{good}");
        }
        for bad in
            ["", "loans", "//a", "/\\a", "javascript:1", "data:x", "https://a b", " https://a", "ht\ttps://a", "库"]
        {
            assert!(link_fault(bad, true).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_allowed_is_allowed() {
        let content = Content { title: "库".repeat(250), body: "库".repeat(10_000), ..Content::default() };
        assert!(content.check().is_ok());
    }
}
