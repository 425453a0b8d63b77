//! A publish as plain text with headers, for `curl -d`: header values in UTF-8 or as encoded words (RFC 2047).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::BodyError;
use super::publish::{LifeTexts, medium, parse_short, topic_audience};
use crate::model::{Category, Content, ContentError, Draft, Priority, Via};

/// What a plain publish says besides its body: the name as a query parameter, and as a header.
/// HTTP has a header `Via` of its own.
pub const PLAIN_FIELDS: [(&str, &str); 13] = [
    ("to", "to"),
    ("title", "title"),
    ("priority", "priority"),
    ("category", "category"),
    ("click", "click"),
    ("icon", "icon"),
    ("sender", "sender"),
    ("collapse", "collapse"),
    ("deliver_at", "deliver-at"),
    ("delay", "delay"),
    ("expires_in", "expires-in"),
    ("expires_at", "expires-at"),
    ("via", "deliver-via"),
];

/// Puts a plain publish together. `fields` are query names of [`PLAIN_FIELDS`] with their decoded values.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse(topic: Option<&str>, fields: &[(&str, String)], body: &[u8]) -> Result<Draft, BodyError> {
    let text = std::str::from_utf8(body).map_err(|e| BodyError::Encoding(e.valid_up_to()))?;
    let mut errors = Vec::new();
    let mut refuse = |name: &str, detail: String| errors.push(ContentError { pointer: format!("/{name}"), detail });
    let field = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());

    let to = match (topic, field("to")) {
        (Some(topic), None) => topic_audience(topic),
        (None, Some(to)) => parse_short(&to),
        (Some(_), Some(_)) => Err("stands beside a topic in the path; give one of them".to_owned()),
        (None, None) => Err("is missing: put a topic in the path, or `To: user:alice` in a header".to_owned()),
    };
    let to = to.map_err(|detail| refuse("to", detail)).ok();
    let priority = field("priority").map_or(Some(Priority::default()), |text| named_priority(&text));
    if priority.is_none() {
        refuse("priority", "must be 1 to 5, or min, low, default, high, max".to_owned());
    }
    let category = field("category").map(|text| Category::new(&text));
    if let Some(Err(e)) = &category {
        refuse("category", e.to_string());
    }
    let category = category.and_then(Result::ok);
    let life = LifeTexts {
        collapse: field("collapse"),
        deliver_at: field("deliver_at"),
        delay: field("delay"),
        expires_in: field("expires_in"),
        expires_at: field("expires_at"),
    };
    let life = life.read(&mut refuse);
    let mut media = Vec::new();
    for (i, name) in field("via").iter().flat_map(|names| names.split(',')).enumerate() {
        match medium(name.trim()) {
            Ok(medium) if media.contains(&medium) => {}
            Ok(medium) => media.push(medium),
            Err(detail) => refuse(&format!("via/{i}"), detail),
        }
    }
    let content = Content {
        title: field("title").unwrap_or_default(),
        // Editors and `echo` end a text with a line break that nobody means.
        body: text.trim_end_matches(['\n', '\r']).to_owned(),
        category: category.clone().unwrap_or_default(),
        priority: priority.unwrap_or_default(),
        click: field("click"),
        icon: field("icon"),
        sender: field("sender"),
        ..Content::default()
    };
    match (content.check(), to) {
        (Ok(content), Some(to)) if errors.is_empty() => {
            let via = Via { media, ..Via::default() };
            Ok(Draft { to, content, category_named: category.is_some(), life, via })
        }
        (content, _) => {
            errors.extend(content.err().unwrap_or_default());
            Err(BodyError::Fields(errors))
        }
    }
}

fn named_priority(text: &str) -> Option<Priority> {
    let value = match text {
        "min" => 1,
        "low" => 2,
        "default" => 3,
        "high" => 4,
        "max" | "urgent" => 5,
        number => number.parse().ok()?,
    };
    Priority::new(value)
}

/// Decodes a header's value: UTF-8 as it stands, encoded words (`=?UTF-8?B?…?=`, `=?utf-8?Q?…?=`) resolved. White space
/// between two encoded words is dropped (RFC 2047, 6.2). `None` where it is not UTF-8 or a word can't be decoded.
pub fn header_text(value: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(value).ok()?;
    let mut text = String::with_capacity(rest.len());
    let mut after_word = false;
    while let Some(start) = rest.find("=?") {
        // A word is charset?encoding?payload?= ; what looks like one but is not stays as it is.
        let mut parts = rest[start + 2..].splitn(3, '?');
        let (Some(charset), Some(encoding), Some(tail)) = (parts.next(), parts.next(), parts.next()) else { break };
        let Some(end) = tail.find("?=") else { break };
        let before = &rest[..start];
        if !(after_word && before.chars().all(char::is_whitespace)) {
            text.push_str(before);
        }
        text.push_str(&decode_word(charset, encoding, &tail[..end])?);
        rest = &tail[end + 2..];
        after_word = true;
        if rest.is_empty() {
            return Some(text);
        }
    }
    text.push_str(rest);
    Some(text)
}

fn decode_word(charset: &str, encoding: &str, payload: &str) -> Option<String> {
    let bytes = match encoding {
        "B" | "b" => STANDARD.decode(payload).ok()?,
        "Q" | "q" => decode_q(payload)?,
        _ => return None,
    };
    // RFC 2231 allows a language behind `*`.
    match charset.split('*').next()?.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

fn decode_q(payload: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(payload.len());
    let mut rest = payload.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{CollapseKey, Deliver, Expiry};

    #[test]
    fn headers_are_utf_8_or_encoded_words() {
        for (value, text) in [
            ("磁盘", "磁盘"),
            ("=?UTF-8?B?56OB55uY?=", "磁盘"),
            ("=?utf-8?Q?=E7=A3=81_=E7=9B=98?=", "磁 盘"),
            ("a =?utf-8?q?b?= =?utf-8?q?c?= d", "a bc d"),
            ("=?iso-8859-1?q?caf=E9?=", "café"),
            ("1 =? 2", "1 =? 2"),
        ] {
            assert_eq!(header_text(value.as_bytes()).as_deref(), Some(text), "{value}");
        }
        assert_eq!(header_text(b"\xff"), None);
        assert_eq!(header_text(b"=?utf-8?b?%%%?="), None);
        assert_eq!(header_text(b"=?utf-8?q?=ZZ?="), None);
    }

    #[test]
    fn a_topic_or_a_to_is_needed_and_not_both() {
        let to = |value: &str| [("to", value.to_owned())];
        assert!(parse(Some("ops"), &[], b"x").is_ok());
        assert!(parse(None, &to("user:alice"), b"x\n").is_ok_and(|d| d.content.body == "x"));
        assert!(parse(Some("ops"), &to("user:alice"), b"x").is_err());
        assert!(parse(None, &[], b"x").is_err());
        assert!(parse(Some("o ps"), &[], b"x").is_err());
        assert_eq!(parse(Some("ops"), &[], b"a\xff").err(), Some(BodyError::Encoding(1)));
    }

    #[test]
    fn media_stand_behind_each_other() {
        let via = |names: &str| parse(Some("ops"), &[("via", names.to_owned())], b"x").map(|draft| draft.via.media);
        assert_eq!(via("email, dingtalk,email"), Ok(vec![crate::model::Medium::Email, crate::model::Medium::DingTalk]));
        let Err(BodyError::Fields(errors)) = via("email,fax") else { panic!("it is refused") };
        assert_eq!(errors[0].pointer, "/via/1");
    }

    #[test]
    fn a_life_may_be_asked_for_too() {
        let fields = |pairs: &[(&'static str, &str)]| {
            let fields: Vec<_> = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            parse(Some("ops"), &fields, b"x").map(|draft| draft.life)
        };
        let life = fields(&[("collapse", "disk"), ("delay", "10m"), ("expires_in", "2h")]).expect("a life");
        assert_eq!(life.collapse.as_ref().map(CollapseKey::as_str), Some("disk"));
        assert_eq!(life.deliver, Deliver::After(Duration::from_mins(10)));
        assert_eq!(life.expiry, Some(Expiry::After(Duration::from_hours(2))));
        let Err(BodyError::Fields(errors)) = fields(&[("delay", ""), ("expires_at", "never"), ("collapse", "")]) else {
            panic!("they are refused");
        };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/collapse", "/delay", "/expires_at"]);
    }
}
