//! A publish that is accepted is within every limit of the contract, and the same when it is written and read again; one
//! that is refused says what is wrong, and where.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tidings::wire::json::BodyError;
use tidings::wire::publish::{Place, is_idempotency_key, parse};

use super::draft;

/// An object with a key of its own, `null` included.
#[derive(Deserialize)]
struct Keyed {
    #[serde(rename = "idempotency_key")]
    _key: IgnoredAny,
}

/// An object that says whether it is only tried.
#[derive(Deserialize)]
struct Tried {
    dry_run: Option<IgnoredAny>,
}

fn says_whether_it_is_tried(data: &[u8]) -> bool {
    serde_json::from_slice::<Tried>(data).is_ok_and(|body| body.dry_run.is_some())
}

pub fn publish(data: &[u8]) {
    let (alone, in_batch) = (parse(data, Place::Request), parse(data, Place::BatchLine));
    for error in [&alone, &in_batch].into_iter().filter_map(|read| read.as_ref().err()) {
        draft::is_told(error);
    }
    match (alone, in_batch) {
        (Ok(alone), in_batch) => {
            draft::holds(&alone.draft);
            assert_eq!(alone.idempotency_key, None, "a request's key is in a header");
            match in_batch {
                Err(BodyError::Fields(faults)) if says_whether_it_is_tried(data) => {
                    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
                    assert_eq!(pointers, ["/dry_run"], "only one by itself can be tried");
                }
                in_batch => assert_eq!(in_batch.as_ref(), Ok(&alone), "what is good alone is good as a line"),
            }
        }
        (Err(_), Ok(line)) => {
            draft::holds(&line.draft);
            assert!(line.idempotency_key.is_none_or(|key| is_idempotency_key(&key)));
            let text = String::from_utf8_lossy(data);
            assert!(serde_json::from_str::<Keyed>(&text).is_ok(), "only the key may make the difference: {text}");
        }
        (Err(alone), Err(line)) => {
            assert_eq!(matches!(alone, BodyError::Fields(_)), matches!(line, BodyError::Fields(_)));
        }
    }
}
