//! One message of a robot: Markdown, whom it names, and how much of it fits.
//!
//! DingTalk takes 20,000 bytes, counted on the JSON as it is sent. A person is named by being in `at` *and* as `@id` in the
//! text; without the latter nobody's phone rings.
//!
//! **Invariant**: no message made here is longer than [`MAX_BYTES`]; what had to go is told in the message.

use bytes::Bytes;
use serde::Serialize;

use super::words::Words;
use crate::broker::{markdown, markdown_link};
use crate::model::{Form, Letter};

/// Bytes of a message at most, as JSON.
pub const MAX_BYTES: usize = 20_000;
/// People that one message names at most, a digest apart: with ids of 64 bytes they take a third of it.
pub(super) const MAX_PEOPLE: usize = 50;
/// Characters of a title at most: it stands in the list of chats and in the phone's banner.
const MAX_TITLE_CHARS: usize = 64;
/// Characters of a subject in the text at most.
const MAX_SUBJECT_CHARS: usize = 250;
/// Bytes of a link at most; a longer one is left out.
const MAX_LINK_BYTES: usize = 2_048;
/// Digits of a mobile number without its country.
const MOBILE_DIGITS: usize = 11;

/// A message, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    title: String,
    text: String,
    at: Vec<String>,
}

/// A message as DingTalk takes it.
#[derive(Serialize)]
struct Body<'a> {
    msgtype: &'static str,
    markdown: Markdown<'a>,
    at: At<'a>,
}

#[derive(Serialize)]
struct Markdown<'a> {
    title: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct At<'a> {
    at_user_ids: Vec<&'a str>,
    at_mobiles: Vec<&'a str>,
    is_at_all: bool,
}

impl Message {
    /// The message as it is sent.
    pub fn to_json(&self) -> Bytes {
        let is_mobile = |id: &&str| is_mobile(id);
        let (at_mobiles, at_user_ids) = self.at.iter().map(String::as_str).partition(is_mobile);
        let body = Body {
            msgtype: "markdown",
            markdown: Markdown { title: &self.title, text: &self.text },
            at: At { at_user_ids, at_mobiles, is_at_all: false },
        };
        serde_json::to_vec(&body).expect("texts and lists of texts are JSON").into()
    }

    /// What a letter says to up to [`MAX_PEOPLE`] people.
    pub(super) fn letter(letter: &Letter, people: &[&str], words: &Words) -> Self {
        let title = title(letter, words);
        let mut head = String::new();
        let mut tail = String::new();
        let link = link(letter);
        if letter.form == Form::Plain {
            let subject = subject(letter);
            match (&link, subject.is_empty()) {
                (Some(link), false) => head = format!("### [{subject}]({link})\n\n"),
                (Some(link), true) => tail = format!("\n\n[{}]({link})", words.open),
                (None, false) => head = format!("### {subject}\n\n"),
                (None, true) => {}
            }
        }
        let body = match letter.form {
            Form::Plain => lines(&letter.text),
            Form::Markdown => letter.text.clone(),
        };
        tail.push_str(&mentions("\n\n", people));
        let mut message = Self { title, text: format!("{head}{tail}"), at: distinct(people) };
        let room = MAX_BYTES.saturating_sub(message.to_json().len());
        let kept = if json_bytes(&body) <= room {
            body
        } else {
            let mark = format!("\n\n{}", words.cut);
            format!("{}{mark}", start_of(&body, room.saturating_sub(json_bytes(&mark))))
        };
        format!("{head}{kept}{tail}").trim().clone_into(&mut message.text);
        message
    }

    /// A digest with these entries, which fit ([`Entry::bytes`], [`digest_bytes`]).
    pub(super) fn digest(entries: &[&Entry], words: &Words) -> Self {
        let people: Vec<&str> = entries.iter().flat_map(|entry| entry.people.iter().map(String::as_str)).collect();
        let count = words.count(entries.len());
        let list: String = entries.iter().map(|entry| entry.line.as_str()).collect();
        Self { text: format!("### {count}\n\n{}", list.trim_end()), title: count, at: distinct(&people) }
    }
}

/// One notification in a digest: a line with its subject, its link and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    line: String,
    people: Vec<String>,
}

impl Entry {
    pub(super) fn new(letter: &Letter, people: &[&str], words: &Words) -> Self {
        let mut subject = subject(letter);
        if subject.is_empty() {
            subject = markdown(&title(letter, words));
        }
        let named = mentions(" ", people);
        let line = match link(letter) {
            Some(link) => format!("- [{subject}]({link}){named}\n"),
            None => format!("- {subject}{named}\n"),
        };
        Self { line, people: distinct(people) }
    }

    /// Bytes that it adds to a digest at most: its line, and each person in `at`, with quotes and comma.
    pub(super) fn bytes(&self) -> usize {
        json_bytes(&self.line) + self.people.iter().map(|id| json_bytes(id) + 3).sum::<usize>()
    }
}

/// Bytes that are left for the entries of a digest.
pub(super) fn digest_bytes(words: &Words) -> usize {
    /// More than any digest has: its number stands in the text and in the title.
    const MANY: usize = 99_999_999;
    let count = words.count(MANY);
    let empty = Message { text: format!("### {count}\n\n"), title: count, at: Vec::new() };
    MAX_BYTES - empty.to_json().len()
}

/// A plain title: the subject, else how the text begins.
fn title(letter: &Letter, words: &Words) -> String {
    let of = if letter.subject.trim().is_empty() { letter.text.trim() } else { letter.subject.trim() };
    let line = of.lines().next().unwrap_or_default();
    let kept: String = line.chars().filter(|c| !c.is_control()).take(MAX_TITLE_CHARS).collect();
    if kept.trim().is_empty() { words.nameless.to_owned() } else { kept }
}

/// The subject as Markdown, on one line.
fn subject(letter: &Letter) -> String {
    markdown(&letter.subject.trim().chars().take(MAX_SUBJECT_CHARS).collect::<String>())
}

/// The link, where it leads somewhere from a chat: a path leads nowhere there.
fn link(letter: &Letter) -> Option<String> {
    let link = markdown_link(letter.click.as_deref()?);
    let begins =
        |scheme| link.get(..8.min(link.len())).is_some_and(|head| head.to_ascii_lowercase().starts_with(scheme));
    ((begins("https://") || begins("http://")) && link.len() <= MAX_LINK_BYTES).then_some(link)
}

/// Plain text as Markdown: every line stays one, and says what it said.
fn lines(text: &str) -> String {
    let escaped: Vec<String> = text.trim().lines().map(line).collect();
    // Two spaces before a line break are one in Markdown; without them lines run together.
    escaped.join("  \n")
}

fn line(text: &str) -> String {
    // Four spaces, or a tab, would begin a block of code.
    let escaped = markdown(text.trim());
    let digits = escaped.bytes().take_while(u8::is_ascii_digit).count();
    // `1.` would begin a list, with a number that DingTalk counts anew.
    match escaped[digits..].strip_prefix('.') {
        Some(rest) if digits > 0 => format!("{}\\.{rest}", &escaped[..digits]),
        _ => escaped,
    }
}

/// `@a @b`, with something before it where there is anybody.
fn mentions(before: &str, people: &[&str]) -> String {
    let named: Vec<String> = people.iter().map(|id| format!("@{id}")).collect();
    if named.is_empty() { String::new() } else { format!("{before}{}", named.join(" ")) }
}

/// Everybody once, in their order.
fn distinct(people: &[&str]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    people.iter().filter(|id| seen.insert(**id)).map(|id| (*id).to_owned()).collect()
}

/// Whether an id is a mobile number, as DingTalk writes them: 11 digits from a 1, or with a `+` and the country.
fn is_mobile(id: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    match id.strip_prefix('+') {
        Some(rest) => digits(rest),
        None => id.len() == MOBILE_DIGITS && id.starts_with('1') && id.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Bytes of a text inside JSON.
fn json_bytes(text: &str) -> usize {
    text.chars().map(json_char_bytes).sum()
}

const fn json_char_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

/// As much of the beginning as fits into so many bytes of JSON. It does not end with half an escape, which would take
/// the next sign with it.
fn start_of(text: &str, room: usize) -> &str {
    let mut taken = 0;
    let fits = text.char_indices().find(|(_, c)| {
        taken += json_char_bytes(*c);
        taken > room
    });
    let start = fits.map_or(text, |(end, _)| &text[..end]);
    let slashes = start.bytes().rev().take_while(|b| *b == b'\\').count();
    &start[..start.len() - slashes % 2]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const WORDS: &Words = &Words::ENGLISH;

    fn letter(subject: &str, text: &str) -> Letter {
        Letter { subject: subject.to_owned(), text: text.to_owned(), ..Letter::default() }
    }

    fn json(message: &Message) -> Value {
        serde_json::from_slice(&message.to_json()).expect("it is JSON")
    }

    #[test]
    fn plain_text_says_what_it_said() {
        let said = letter("Due *soon* [x](http://evil)", "# not a heading\n1. no list\n    no code\n<b>\n\nend");
        let message = Message::letter(&said, &["manager4220", "13800000000"], WORDS);
        assert_eq!(
            json(&message),
            serde_json::json!({
                "msgtype": "markdown",
                "markdown": {
                    "title": "Due *soon* [x](http://evil)",
                    "text": "### Due \\*soon\\* \\[x\\]\\(http://evil\\)\n\n\\# not a heading  \n1\\. no list  \nno code  \n\
                             \\<b\\>  \n  \nend\n\n@manager4220 @13800000000",
                },
                "at": { "atUserIds": ["manager4220"], "atMobiles": ["13800000000"], "isAtAll": false },
            })
        );
    }

    #[test]
    fn markdown_of_a_template_stays_as_it_is() {
        let said = Letter {
            form: Form::Markdown,
            click: Some("https://a.example".into()),
            ..letter("T", "**due** [x](http://a)")
        };
        assert_eq!(json(&Message::letter(&said, &["a"], WORDS))["markdown"]["text"], "**due** [x](http://a)\n\n@a");
    }

    #[test]
    fn a_link_leads_somewhere_or_is_left_out() {
        let of = |click: &str, subject: &str| {
            let said = Letter { click: Some(click.to_owned()), ..letter(subject, "b") };
            Message::letter(&said, &[], WORDS).text
        };
        assert_eq!(of("https://a.example/x)y", "s"), "### [s](https://a.example/x%29y)\n\nb");
        assert_eq!(of("https://a.example/", ""), "b\n\n[Open](https://a.example/)");
        for nowhere in ["/loans/7", "mailto:a@b.example", &format!("https://a.example/{}", "x".repeat(2_048))] {
            assert_eq!(of(nowhere, "s"), "### s\n\nb", "{nowhere}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_with_a_mark_and_everybody_is_still_named() {
        let people: Vec<String> = (0..MAX_PEOPLE).map(|n| format!("{n:064}")).collect();
        let people: Vec<&str> = people.iter().map(String::as_str).collect();
        for text in ["库".repeat(10_000), "*".repeat(20_000), "\n\"\\".repeat(9_000)] {
            let message = Message::letter(&letter(&"王".repeat(250), &text), &people, WORDS);
            let bytes = message.to_json().len();
            assert!((MAX_BYTES - 8..=MAX_BYTES).contains(&bytes), "{bytes}");
            assert!(message.text.contains(WORDS.cut));
            assert!(people.iter().all(|id| message.text.contains(&format!("@{id}"))));
        }
    }

    #[test]
    fn a_title_is_never_empty() {
        for (subject, text, expected) in [("s", "b", "s"), (" ", "b\nc", "b"), ("", "\u{1b}", WORDS.nameless)] {
            assert_eq!(title(&letter(subject, text), WORDS), expected);
        }
    }

    #[test]
    fn mobile_numbers_are_told_from_user_ids() {
        for (id, mobile) in [
            ("13800000000", true),
            ("+86-13800000000", true),
            ("manager4220", false),
            ("0138000000", false),
            ("+x", false),
        ] {
            assert_eq!(is_mobile(id), mobile, "{id}");
        }
    }

    proptest! {
        #![proptest_config(super::super::same_cases())]

        #[test]
        fn no_letter_is_too_long(
            subject in ".{0,300}",
            text in "(\\PC|[\\\\\"*\\n\\t]){0,200}",
            times in 1_usize..200,
            people in prop::collection::vec("[a-z0-9._+$:-]{1,64}", 0..=MAX_PEOPLE),
            is_plain: bool,
        ) {
            let form = if is_plain { Form::Plain } else { Form::Markdown };
            let said = Letter { form, ..letter(&subject, &text.repeat(times)) };
            let people: Vec<&str> = people.iter().map(String::as_str).collect();
            let message = Message::letter(&said, &people, WORDS);
            let json = message.to_json();
            prop_assert!(json.len() <= MAX_BYTES, "{} bytes", json.len());
            let read: Value = serde_json::from_slice(&json).expect("it is JSON");
            let text = read["markdown"]["text"].as_str().expect("a text");
            for id in people {
                let mention = format!("@{id}");
                prop_assert!(text.contains(&mention));
            }
        }

        #[test]
        fn bytes_are_counted_as_they_are_written(text in "(\\PC|[\\\\\"\\x00-\\x1f\\x7f]){0,100}") {
            let written = serde_json::to_string(&text).expect("a text is JSON");
            prop_assert_eq!(json_bytes(&text), written.len() - 2);
        }
    }
}
