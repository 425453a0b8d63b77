//! A message of a robot, read as DingTalk reads it: what it says, what is wrong with it, and what DingTalk would have
//! answered.
//!
//! Pure but for the clock that is handed in. How often a robot spoke is `reception`'s.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::deliver::dingtalk::{MAX_BYTES, MAX_SKEW_MS, Secret};

/// The path of every robot's address.
pub(super) const SEND_PATH: &str = "/robot/send";

/// A request as it came.
pub(super) struct Arrived<'a> {
    pub(super) query: &'a str,
    pub(super) content_type: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// An answer in DingTalk's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) errcode: i64,
    pub(super) errmsg: String,
}

/// What a message says, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) title: String,
    pub(super) text: String,
    /// Who is meant, by id.
    pub(super) people: Vec<String>,
    /// What the sender should mend, whether or not DingTalk would have taken it.
    pub(super) faults: Vec<String>,
}

#[derive(Deserialize)]
struct Body {
    msgtype: String,
    markdown: Option<Markdown>,
    #[serde(default)]
    at: At,
}

#[derive(Deserialize)]
struct Markdown {
    title: String,
    text: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct At {
    at_user_ids: Vec<String>,
    at_mobiles: Vec<String>,
    is_at_all: bool,
}

impl Answer {
    pub(super) fn of(errcode: i64) -> Self {
        Self { errcode, errmsg: errmsg(errcode).to_owned() }
    }
}

/// What DingTalk says beside an `errcode`.
pub(super) fn errmsg(errcode: i64) -> &'static str {
    match errcode {
        0 => "ok",
        -1 => "system busy",
        40_035 => "missing parameter json",
        43_004 => "invalid http header Content-Type",
        130_101 => "send too fast, exceed 20 times per minute",
        300_001 | 300_005 => "token is not exist",
        310_000 => "sign not match",
        400_105 => "unsupported message type",
        460_101 => "message too long, exceed 20000 bytes",
        _ => "refused, as --fail wants it",
    }
}

/// The robot that a request is for, by its token.
pub(super) fn robot(query: &str) -> Option<String> {
    parameter(query, "access_token").filter(|token| !token.is_empty())
}

/// Reads a message. `secret` is what it must be signed with, where it must be; `now` is in milliseconds.
pub(super) fn read(arrived: &Arrived<'_>, secret: Option<&Secret>, now: i64) -> (Said, Answer) {
    let mut said = Said::default();
    let answer = judge(arrived, secret, now, &mut said);
    let errcode = match answer {
        Ok(()) => 0,
        Err((errcode, fault)) => {
            said.faults.insert(0, fault);
            errcode
        }
    };
    (said, Answer::of(errcode))
}

fn judge(arrived: &Arrived<'_>, secret: Option<&Secret>, now: i64, said: &mut Said) -> Result<(), (i64, String)> {
    let refuse = |errcode: i64, fault: &str| Err((errcode, fault.to_owned()));
    // What it says is worth showing, whatever DingTalk thinks of it.
    let read = serde_json::from_slice::<Body>(arrived.body);
    if let Ok(Body { markdown: Some(Markdown { title, text }), at, .. }) = &read {
        said.title.clone_from(title);
        said.text.clone_from(text);
        said.people = at.at_user_ids.iter().chain(&at.at_mobiles).cloned().collect();
        let unnamed = said.people.iter().filter(|id| !text.contains(&format!("@{id}")));
        said.faults.extend(unnamed.map(|id| format!("{id} is in `at` and not in the text as @{id}: nobody is named")));
        if at.is_at_all {
            said.faults.push("everybody in the group is named (isAtAll)".to_owned());
        }
    }
    if robot(arrived.query).is_none() {
        return refuse(300_001, "the address has no access_token");
    }
    if let Some(secret) = secret {
        signed(arrived.query, secret, now).map_err(|fault| (310_000, fault))?;
    }
    if !arrived.content_type.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json")) {
        return refuse(43_004, "the Content-Type is not application/json");
    }
    if arrived.body.len() > MAX_BYTES {
        return Err((460_101, format!("it has {} bytes; {MAX_BYTES} are the most", arrived.body.len())));
    }
    match read {
        Err(error) => Err((40_035, format!("the body is no message: {error}"))),
        Ok(Body { msgtype, .. }) if msgtype != "markdown" => {
            Err((400_105, format!("its msgtype is {msgtype:?}; Tidings sends markdown")))
        }
        Ok(Body { markdown: None, .. }) => refuse(40_035, "there is no `markdown`"),
        Ok(Body { markdown: Some(markdown), .. })
            if markdown.title.trim().is_empty() || markdown.text.trim().is_empty() =>
        {
            refuse(40_035, "its title or its text is empty")
        }
        Ok(_) => Ok(()),
    }
}

fn signed(query: &str, secret: &Secret, now: i64) -> Result<(), String> {
    let moment = parameter(query, "timestamp").ok_or("it is not signed: there is no timestamp")?;
    let sign = parameter(query, "sign").ok_or("it is not signed: there is no sign")?;
    let moment: i64 = moment.parse().map_err(|_| "the timestamp is no number of milliseconds".to_owned())?;
    if now.abs_diff(moment) > MAX_SKEW_MS.unsigned_abs() {
        return Err("the timestamp is more than an hour from now".to_owned());
    }
    if secret.has_signed(moment, &sign) { Ok(()) } else { Err("the signature is not that of the secret".to_owned()) }
}

/// A parameter of a query, decoded as forms are: a `+` is a space, so that a signature that was not encoded fails here as it
/// does there.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn message(text: &str, ids: &[&str]) -> Value {
        let at = json!({ "atUserIds": ids, "atMobiles": [], "isAtAll": false });
        json!({ "msgtype": "markdown", "markdown": { "title": "T", "text": text }, "at": at })
    }

    fn read_with(query: &str, body: &Value, secret: Option<&str>) -> (Said, i64) {
        let body = body.to_string();
        let arrived = Arrived { query, content_type: Some("application/json; charset=utf-8"), body: body.as_bytes() };
        let secret = secret.and_then(Secret::new);
        let (said, answer) = read(&arrived, secret.as_ref(), NOW);
        (said, answer.errcode)
    }

    #[test]
    fn a_good_message_is_taken_and_shown() {
        let (said, errcode) = read_with("access_token=x", &message("hello @a", &["a"]), None);
        let people = vec!["a".to_owned()];
        let expected = Said { title: "T".into(), text: "hello @a".into(), people, faults: Vec::new() };
        assert_eq!((said, errcode), (expected, 0));
    }

    #[test]
    fn who_is_not_in_the_text_is_told_though_dingtalk_takes_it() {
        let (said, errcode) = read_with("access_token=x", &message("hello @a", &["a", "b"]), None);
        assert_eq!(errcode, 0);
        assert_eq!(said.faults, ["b is in `at` and not in the text as @b: nobody is named"]);
    }

    #[test]
    fn each_fault_has_dingtalk_s_answer() {
        let good = message("x", &[]);
        let long = message(&"x".repeat(20_000), &[]);
        for (query, body, secret, errcode) in [
            ("", &good, None, 300_001),
            ("access_token=", &good, None, 300_001),
            ("access_token=x", &good, Some("SEC"), 310_000),
            ("access_token=x&timestamp=1700000000000&sign=AAAA", &good, Some("SEC"), 310_000),
            ("access_token=x&timestamp=soon&sign=AAAA", &good, Some("SEC"), 310_000),
            ("access_token=x", &long, None, 460_101),
            ("access_token=x", &json!({ "msgtype": "text", "text": { "content": "x" } }), None, 400_105),
            ("access_token=x", &json!({ "msgtype": "markdown" }), None, 40_035),
            ("access_token=x", &message(" ", &[]), None, 40_035),
            ("access_token=x", &json!("no"), None, 40_035),
        ] {
            let (said, given) = read_with(query, body, secret);
            assert_eq!((given, said.faults.len()), (errcode, 1), "{query} {said:?}");
        }
        let arrived = Arrived { query: "access_token=x", content_type: None, body: b"{}" };
        assert_eq!(read(&arrived, None, NOW).1.errcode, 43_004);
    }

    #[test]
    fn signatures_are_looked_at_where_there_is_a_secret() {
        let secret = Secret::new("SEC").expect("a secret");
        let query = |moment: i64| format!("access_token=x{}", secret.query(moment));
        let errcode = |query: &str| read_with(query, &message("x", &[]), Some("SEC")).1;
        assert_eq!(errcode(&query(NOW - MAX_SKEW_MS)), 0);
        assert_eq!(errcode(&query(NOW - MAX_SKEW_MS - 1)), 310_000);
        assert_eq!(errcode(&query(NOW).replace("timestamp=17", "timestamp=18")), 310_000);
    }
}
