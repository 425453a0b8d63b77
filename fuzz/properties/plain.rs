//! A text survives its way through a header, as UTF-8 and as encoded words (RFC 2047) of either kind; and a plain publish
//! that is accepted is one that could have been sent as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tidings::http::fuzzing::{Query, plain_fields};
use tidings::wire::plain::{PLAIN_FIELDS, header_text, parse};

use super::draft;
use super::input::Input;

pub fn plain(data: &[u8]) {
    let mut input = Input::new(data);
    words(input.field());
    let topic = input.some_text();
    let mut headers = HeaderMap::new();
    let mut query = String::new();
    for _ in 0..input.byte() % 8 {
        let (name, header) = PLAIN_FIELDS[usize::from(input.byte()) % PLAIN_FIELDS.len()];
        let value = input.field();
        match (input.byte() % 2, HeaderValue::from_bytes(value)) {
            (0, Ok(value)) => drop(headers.insert(HeaderName::from_static(header), value)),
            _ => {
                let encoded: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
                query.push_str(&format!("{name}={encoded}&"));
            }
        }
    }
    let query = Query::parse(&query);
    match plain_fields(&headers, &query) {
        Ok(fields) => {
            for (name, value) in &fields {
                let (_, header) = PLAIN_FIELDS.iter().find(|(known, _)| known == name).expect("a field of the table");
                let is_plain = |raw: &HeaderValue| raw.as_bytes() == value.as_bytes() || raw.as_bytes().contains(&b'?');
                let by_header = headers.get(*header).is_some_and(is_plain);
                assert!(by_header || query.bytes(name) == Some(value.as_bytes()), "{name} came from nowhere");
            }
            match parse(topic.as_deref(), &fields, input.rest()) {
                Ok(accepted) => draft::holds(&accepted),
                Err(error) => draft::is_told(&error),
            }
        }
        Err(problem) => assert_eq!((problem.status, problem.errors.len()), (422, 1), "{problem:?}"),
    }
}

fn words(bytes: &[u8]) {
    let decoded = header_text(bytes);
    if !bytes.windows(2).any(|pair| pair == b"=?") {
        assert_eq!(decoded.as_deref(), std::str::from_utf8(bytes).ok(), "what is no word stays as it is");
    }
    let text = String::from_utf8_lossy(bytes);
    let kinds = [base64_word(&text), quoted_word(&text)];
    for word in &kinds {
        assert_eq!(header_text(word.as_bytes()).as_deref(), Some(&*text), "{word}");
        let among = format!("a {word} z");
        assert_eq!(header_text(among.as_bytes()), Some(format!("a {text} z")), "{among}");
    }
    let [first, second] = kinds;
    let both = format!("{first} {second}");
    assert_eq!(header_text(both.as_bytes()), Some(format!("{text}{text}")), "space between words is none of the text");
}

fn base64_word(text: &str) -> String {
    format!("=?UTF-8?B?{}?=", STANDARD.encode(text))
}

fn quoted_word(text: &str) -> String {
    let quoted: String = text.bytes().map(|byte| format!("={byte:02X}")).collect();
    format!("=?utf-8?q?{quoted}?=")
}
