//! What the frame of a message says: whether a task stands around it, and which id it has.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lapin::BasicProperties;
use lapin::types::AMQPValue;

use crate::broker::hash_body;
use crate::wire::publish::is_idempotency_key;
use crate::wire::queue::Wrapping;

/// The header by which a Celery task names what it calls.
const TASK: &str = "task";
/// The header by which Celery, and others, name the message.
const ID: &str = "id";

/// What stands around what a message says.
pub(super) fn wrapping(properties: &BasicProperties) -> Wrapping {
    if header(properties, TASK).is_some() { Wrapping::CeleryTask } else { Wrapping::Bare }
}

/// The idempotency key of a message: what it calls itself in its body, else its property `message_id`, else its header `id`.
/// `None` where it has no name.
pub(super) fn key(own: Option<&str>, properties: &BasicProperties) -> Option<String> {
    let property = properties.message_id().as_ref().map(|id| id.as_str());
    let id = own.or(property).or_else(|| header(properties, ID)).filter(|id| !id.is_empty())?;
    Some(if is_idempotency_key(id) { id.to_owned() } else { hashed(&hash_body(id.as_bytes())) })
}

/// The idempotency key of a message without a name: what it says.
pub(super) fn nameless_key(body_hash: &[u8; 32]) -> String {
    hashed(body_hash)
}

fn hashed(hash: &[u8; 32]) -> String {
    format!("sha256:{}", URL_SAFE_NO_PAD.encode(hash))
}

/// A header that is a text.
fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldTable;

    use super::*;

    fn properties(message_id: Option<&str>, headers: &[(&str, &str)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        let properties = BasicProperties::default().with_headers(table);
        message_id.map_or(properties.clone(), |id| properties.with_message_id(id.into()))
    }

    #[test]
    fn a_message_is_known_by_the_first_name_it_has() {
        let celery = properties(None, &[("task", "notify"), ("id", "c-1")]);
        assert_eq!((wrapping(&celery), key(None, &celery).as_deref()), (Wrapping::CeleryTask, Some("c-1")));
        let both = properties(Some("m-1"), &[("id", "h-1")]);
        assert_eq!((wrapping(&both), key(None, &both).as_deref()), (Wrapping::Bare, Some("m-1")));
        assert_eq!(key(Some("o-1"), &both).as_deref(), Some("o-1"));
        assert_eq!(key(None, &BasicProperties::default()), None);
        assert_eq!(key(None, &properties(Some(""), &[])), None);
    }

    #[test]
    fn a_name_that_is_no_key_stands_for_itself_by_its_hash() {
        let long = "x".repeat(200);
        for id in ["two words", "库", &long] {
            let key = key(Some(id), &BasicProperties::default()).expect("it has a name");
            assert!(is_idempotency_key(&key) && key.starts_with("sha256:"), "{key}");
        }
    }
}
