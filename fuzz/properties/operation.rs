//! A message of a WebSocket is an operation whose every field is one that it has, or it is refused; and whatever it was,
//! its answer is one JSON object that bears its `ref` exactly as it was sent.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use tidings::wire::json::BodyError;
use tidings::wire::operation::{Done, Failed, Operation, Refused, parse};
use tidings::wire::problem::{Problem, ProblemBody};

#[derive(Serialize)]
struct Nothing {}

pub fn operation(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let request = parse(text);
    let reference = request.reference;
    let reply = match &request.operation {
        Ok(operation) => {
            accepted(text, operation);
            serde_json::to_string(&Done { reference, ok: true, result: Nothing {} })
        }
        Err(refused) => {
            if let Refused::Body(BodyError::Fields(errors)) = refused {
                assert!(!errors.is_empty(), "a refusal says why");
                assert!(errors.iter().all(|error| error.pointer.starts_with('/') && !error.detail.is_empty()));
            }
            let problem = Problem::from(refused.clone());
            assert!((400..500).contains(&problem.status), "{problem:?}");
            let problem = ProblemBody { problem: &problem, base_path: "/tidings" };
            serde_json::to_string(&Failed { reference, ok: false, problem })
        }
    };
    let reply = reply.expect("an answer can be written");
    let told: BTreeMap<String, &RawValue> = serde_json::from_str(&reply).expect("an answer is a JSON object");
    assert_eq!(told["reply"].get(), reference.map_or("null", RawValue::get), "the answer bears the name as sent");
    assert_eq!(told["ok"].get(), if request.operation.is_ok() { "true" } else { "false" });
}

fn accepted(text: &str, operation: &Operation) {
    let known: &[&str] = match operation {
        Operation::Auth { .. } | Operation::Refresh { .. } => &["token"],
        Operation::Mark(_) => &["as", "upto", "ids", "category"],
        Operation::Follow { .. } => &["topic", "last"],
        Operation::Unfollow { .. } | Operation::Mute { .. } | Operation::Unmute { .. } => &["topic"],
        Operation::Ping => &[],
    };
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("what was accepted is an object");
    for name in fields.keys() {
        assert!(name == "op" || name == "ref" || known.contains(&name.as_str()), "{name} was let through");
    }
    let more = text.trim_end().strip_suffix('}').expect("it is an object").to_owned() + ",\"unknown\":1}";
    match parse(&more).operation {
        Err(Refused::Body(BodyError::Fields(errors))) => {
            assert!(errors.iter().any(|error| error.pointer == "/unknown"), "{errors:?}");
        }
        other => panic!("{more} was read as {other:?}"),
    }
    let twice = text.trim_end().strip_suffix('}').expect("it is an object").to_owned() + ",\"op\":\"ping\"}";
    assert!(parse(&twice).operation.is_err(), "a field that stands twice is nobody's meaning: {twice}");
}
