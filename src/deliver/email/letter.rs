//! From a parcel to the bytes of a mail: headers, text and HTML.
//!
//! **Invariant**: a mail is the same at each attempt, but for the boundary between its parts: date and Message-ID are the
//! notification's. **Invariant**: nothing that a publisher wrote begins a header: control characters are taken out of what
//! stands in one, whatever was checked before.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};

use super::page::{WayOut, page};
use super::relay::Sender;
use crate::broker::UnsubscribeKey;
use crate::deliver::one_line;
use crate::model::{Bulk, Email, Letter, Parcel};

const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
const CONTENT_LANGUAGE: HeaderName = HeaderName::new_from_ascii_str("Content-Language");
const LIST_UNSUBSCRIBE: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe");
const LIST_UNSUBSCRIBE_POST: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe-Post");

/// Where people say that they want no more of a category.
#[derive(Clone, Debug)]
pub struct Links {
    /// The address that people's browsers know this server by, with the base path and without a slash at its end.
    pub public_url: String,
    pub key: UnsubscribeKey,
}

/// A mail that is ready to be handed over.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) bytes: Vec<u8>,
}

/// Writes mails of one sender.
pub(super) struct Writer {
    from: Mailbox,
    links: Option<Links>,
}

impl Writer {
    /// `None` where the sender's address is one that lettre does not take.
    pub(super) fn new(sender: &Sender, links: Option<Links>) -> Option<Self> {
        let address = sender.address.as_str().parse().ok()?;
        Some(Self { from: Mailbox::new(sender.name.clone(), address), links })
    }

    /// Writes a parcel's mail.
    ///
    /// # Errors
    /// Why it can never be one.
    pub(super) fn mail(&self, parcel: &Parcel) -> Result<Mail, String> {
        // Our own rule first: it is the narrower one, and lettre writes an address into a command as it is.
        let to = Email::new(&parcel.address).ok().and_then(|address| address.as_str().parse::<Address>().ok());
        let to = to.ok_or_else(|| "the address is none that mail can go to".to_owned())?;
        let millis = u64::try_from(parcel.published_at.as_millis()).unwrap_or_default();
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to.clone()))
            .subject(one_line(&parcel.letter.subject))
            .date(UNIX_EPOCH + Duration::from_millis(millis))
            .message_id(Some(message_id(&parcel.message_id)))
            .raw_header(header(AUTO_SUBMITTED, "auto-generated".to_owned()));
        if let Some(locale) = &parcel.written_in {
            builder = builder.raw_header(header(CONTENT_LANGUAGE, locale.to_string()));
        }
        let way_out = self.way_out(parcel);
        for (name, value) in way_out.iter().flat_map(unsubscribing) {
            builder = builder.raw_header(header(name, value));
        }
        let text = text(&parcel.letter);
        let text = SinglePart::plain(match &way_out {
            Some(way_out) => way_out.below(&text),
            None => text,
        });
        let built = match &parcel.letter.html {
            Some(html) => {
                let page = page(plain(html), &parcel.letter.subject, parcel.written_in.as_ref(), way_out.as_ref());
                builder.multipart(MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(page)))
            }
            None => builder.singlepart(text),
        };
        let message = built.map_err(|error| format!("no mail can be made of it: {}", one_line(&error.to_string())))?;
        Ok(Mail { from: self.from.email.clone(), to, bytes: message.formatted() })
    }

    /// Where the reader says that they want no more of this; for what went to many.
    fn way_out(&self, parcel: &Parcel) -> Option<WayOut> {
        let links = self.links.as_ref().filter(|_| parcel.bulk == Bulk::Bulk)?;
        Some(WayOut::new(&links.public_url, &links.key, parcel))
    }
}

/// The headers of RFC 8058. One click is only offered over TLS, as the RFC wants it.
fn unsubscribing(WayOut { url, .. }: &WayOut) -> Vec<(HeaderName, String)> {
    let mut headers = vec![(LIST_UNSUBSCRIBE, format!("<{url}>"))];
    if url.starts_with("https://") {
        headers.push((LIST_UNSUBSCRIBE_POST, "List-Unsubscribe=One-Click".to_owned()));
    }
    headers
}

/// A header of our own words, which are printable ASCII in one piece: nothing in it is to be folded or encoded.
fn header(name: HeaderName, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
}

fn message_id(id: &str) -> String {
    let id = one_line(id);
    if id.starts_with('<') { id } else { format!("<{id}>") }
}

/// The text, and below it where it leads unless it says so itself. A path leads nowhere from a mailbox. A mail has a text, also
/// where there is only a title.
fn text(letter: &Letter) -> String {
    let Letter { subject, text, click, .. } = letter;
    let mut whole = plain(if text.trim().is_empty() { subject } else { text });
    if let Some(click) = click.as_deref().filter(|click| leads_from_anywhere(click) && !whole.contains(click)) {
        whole.truncate(whole.trim_end().len());
        whole.push_str("\n\n");
        whole.push_str(&plain(click));
    }
    whole
}

fn leads_from_anywhere(click: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|scheme| click.starts_with(scheme))
}

/// Without control characters, which no mail has business with; line breaks and tabs stay.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n").replace(|c: char| c.is_control() && c != '\n' && c != '\t', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Category, DeliveryId, Locale, Medium, NotificationId, Timestamp, UserId};

    fn parcel(letter: Letter) -> Parcel {
        Parcel {
            delivery: DeliveryId(7),
            medium: Medium::Email,
            address: "alice@example.com".to_owned(),
            lane: "example.com".to_owned(),
            message_id: "7.k7x2m9@library.example".to_owned(),
            attempt: 1,
            notification: NotificationId::parse("01890000-0000-7000-8000-000000000000").expect("an id"),
            user: UserId::new("alice").expect("a user"),
            category: Category::new("loans").expect("a category"),
            locale: Locale::new("zh-Hans").ok(),
            written_in: Locale::new("zh-Hans").ok(),
            published_at: Timestamp::from_seconds(1_700_000_000),
            bulk: Bulk::Personal,
            letter,
        }
    }

    fn writer(public_url: Option<&str>) -> Writer {
        let sender = Sender::parse("图书馆 <library@example.org>").expect("a sender");
        let key = UnsubscribeKey::new(&[7; 32]);
        let links = public_url.map(|url| Links { public_url: url.to_owned(), key });
        Writer::new(&sender, links).expect("an address")
    }

    fn written(writer: &Writer, parcel: &Parcel) -> String {
        String::from_utf8(writer.mail(parcel).expect("a mail").bytes).expect("ASCII")
    }

    fn headers(text: &str) -> Vec<&str> {
        text.split_once("\r\n\r\n").expect("a body").0.split("\r\n").filter(|line| !line.starts_with(' ')).collect()
    }

    fn due() -> Letter {
        Letter { subject: "Due".to_owned(), text: "On Friday".to_owned(), ..Letter::default() }
    }

    #[test]
    fn a_mail_bears_what_it_must_and_is_ascii_throughout() {
        let letter = Letter { html: Some("<p>到期</p>".into()), subject: "到期".into(), ..due() };
        let text = written(&writer(None), &parcel(letter));
        let headers = headers(&text);
        assert!(text.is_ascii());
        for expected in [
            "To: alice@example.com",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000",
            "Message-ID: <7.k7x2m9@library.example>",
            "Auto-Submitted: auto-generated",
            "Content-Language: zh-Hans",
            "MIME-Version: 1.0",
        ] {
            assert!(headers.contains(&expected), "{expected} is not in {headers:#?}");
        }
        assert!(text.contains("multipart/alternative"));
        assert!(!text.contains("List-Unsubscribe"), "it went to one person");
    }

    #[test]
    fn a_mail_says_of_which_language_its_text_is_not_which_its_reader_would_like() {
        let in_language = |written_in: Option<&str>| {
            let letter = Letter { html: Some("<p>Due</p>".into()), ..due() };
            let written_in = written_in.map(|tag| Locale::new(tag).expect("a tag"));
            written(&writer(None), &Parcel { written_in, ..parcel(letter) })
        };
        let fallback = in_language(Some("en"));
        assert!(
            headers(&fallback).contains(&"Content-Language: en") && fallback.contains("lang=3D\"en\""),
            "{fallback}"
        );
        assert!(!fallback.contains("zh-Hans"), "{fallback}");
        let unknown = in_language(None);
        assert!(!unknown.contains("Content-Language") && !unknown.contains("<html lang"), "{unknown}");
    }

    #[test]
    fn what_a_publisher_writes_begins_no_header() {
        let attack = "Hi\r\nBcc: all@example.com\n\nbody\0\u{85}";
        let letter = Letter { subject: attack.into(), text: "x".into(), ..Letter::default() };
        let mut parcel = parcel(letter);
        parcel.message_id = "a>\r\nBcc: b@c.example".to_owned();
        let text = written(&writer(Some("https://app.example")), &parcel);
        let (head, body) = text.split_once("\r\n\r\n").expect("a body");
        assert!(head.split("\r\n").all(|line| !line.starts_with("Bcc")), "{head}");
        assert_eq!(body, "x\r\n");
        parcel.address = "a@b.example>\r\nRCPT TO:<c@d.example".to_owned();
        assert!(writer(None).mail(&parcel).is_err());
    }

    #[test]
    fn a_text_says_where_it_leads_once() {
        let leads = |text: &str| {
            let letter = Letter { text: text.into(), click: Some("https://app.example/1".into()), ..due() };
            super::text(&letter)
        };
        assert_eq!(leads("On Friday\n"), "On Friday\n\nhttps://app.example/1");
        assert_eq!(leads("See https://app.example/1."), "See https://app.example/1.");
        let letter = Letter { click: Some("/loans".into()), ..due() };
        assert_eq!(text(&letter), "On Friday", "nobody reads mail on the application's host");
        assert_eq!(leads(" "), "Due\n\nhttps://app.example/1", "a mail has a text");
    }

    #[test]
    fn what_went_to_many_can_be_unsubscribed_with_one_click_over_tls() {
        let mut parcel = parcel(due());
        parcel.bulk = Bulk::Bulk;
        let text = written(&writer(Some("https://app.example/tidings")), &parcel);
        let link = headers(&text).into_iter().find_map(|line| line.strip_prefix("List-Unsubscribe: <"));
        let token = link.and_then(|link| link.strip_prefix("https://app.example/tidings/v1/unsubscribe/"));
        let token = token.and_then(|rest| rest.strip_suffix('>')).expect("a token");
        let read = UnsubscribeKey::new(&[7; 32]).read(token).expect("it is ours");
        assert_eq!((read.user.as_str(), read.category.as_str(), read.medium), ("alice", "loans", Medium::Email));
        assert!(headers(&text).contains(&"List-Unsubscribe-Post: List-Unsubscribe=One-Click"));
        let plain = written(&writer(Some("http://localhost:8383")), &parcel);
        assert!(plain.contains("List-Unsubscribe: ") && !plain.contains("One-Click"));
        assert!(!written(&writer(None), &parcel).contains("List-Unsubscribe"));
    }
}
