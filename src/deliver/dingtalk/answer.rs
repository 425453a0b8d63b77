//! What DingTalk's answers mean. It says HTTP 200 to nearly everything; what counts is the `errcode` in the body.
//!
//! **Invariant**: a message counts as sent for `errcode` 0 and for nothing else.

use std::time::Duration;

use serde::Deserialize;

use crate::deliver::MAX_ANSWER_CHARS;
use crate::deliver::post::{PostError, Reply};

/// How long a robot rests whose message was not taken, where the other side does not ask for more.
pub(super) const BUSY_REST: Duration = Duration::from_secs(10);

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Sent {
        answer: String,
    },
    /// The robot has spoken too often, whatever the message says.
    TooFast {
        reason: String,
    },
    /// Not now, whatever the message says; `asked` is how long the other side wants to be left alone, where it says so.
    Later {
        reason: String,
        asked: Option<Duration>,
    },
    /// The set-up is wrong, or nobody is there: no message passes until somebody mends it.
    Fault {
        reason: String,
        remedy: &'static str,
    },
    /// This message is not taken, others may be.
    Refused {
        reason: String,
    },
    /// Not taken, by an `errcode` that is not known here. It may be this message's own, and it may pass.
    Unknown {
        reason: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    errcode: i64,
    #[serde(default)]
    errmsg: String,
}

/// Reads an answer; `token` is what must not be repeated.
pub(super) fn read(reply: Result<Reply, PostError>, token: &str) -> Verdict {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return unanswered(&error),
    };
    match reply.status {
        200 => {}
        300..=399 => {
            return Verdict::Fault {
                reason: format!("HTTP {}: it leads elsewhere, and nothing is sent there", reply.status),
                remedy: "the address in url_file is not the robot's own: copy it again from the robot's page",
            };
        }
        status => {
            return Verdict::Later { reason: format!("HTTP {status}"), asked: reply.retry_after };
        }
    }
    let Ok(Answer { errcode, errmsg }) = serde_json::from_slice(&reply.body) else {
        return Verdict::Later {
            reason: "HTTP 200, and no errcode in the answer: is it DingTalk?".to_owned(),
            asked: None,
        };
    };
    let told = told(errcode, &errmsg, token);
    match errcode {
        0 => Verdict::Sent { answer: told },
        // Too fast, by the robot's own limit or by that of the whole interface.
        130_101 | 410_100 => Verdict::TooFast { reason: told },
        // Of the three that it stands for, one is the message's own: it holds none of the robot's keywords.
        310_000 if is_about_keywords(&errmsg) => Verdict::Refused { reason: told },
        310_000 => Verdict::Fault {
            reason: told,
            remedy: "DingTalk says in the answer which: the signature (secret_file is another robot's, or this machine's clock is \
                     an hour off), or this machine's address",
        },
        300_001 | 300_005 | 40_014 | 400_101 => Verdict::Fault {
            reason: told,
            remedy: "there is no robot at the address in url_file: copy it again from the robot's page",
        },
        400_013 | 400_102 | 400_106 => Verdict::Fault {
            reason: told,
            remedy: "the group or the robot is gone, or switched off: make another, or take it out of the settings",
        },
        // It is too long, of no kind, or says what DingTalk lets nobody say.
        40_035 | 400_105 | 101_002 | 460_101 | 430_101..=430_104 => Verdict::Refused { reason: told },
        // Busy.
        -1 => Verdict::Later { reason: told, asked: None },
        // The message is tried again, and the outbox gives up after its schedule; nobody else waits for it.
        _ => Verdict::Unknown { reason: told },
    }
}

fn is_about_keywords(errmsg: &str) -> bool {
    errmsg.contains("keyword") || errmsg.contains("关键词")
}

/// Why there is no answer: nobody was there to hear the message, or it may have been shown.
fn unanswered(error: &PostError) -> Verdict {
    let reason = error.to_string();
    match error {
        PostError::Connect(..) => Verdict::Fault {
            reason,
            remedy: "look at the host in url_file, at this machine's DNS, and whether a firewall or IPAddressAllow keeps it in",
        },
        PostError::Certificate(..) => Verdict::Fault {
            reason,
            remedy: "something on the way opens TLS: name its authority in [dingtalk] ca_file, or let this machine through",
        },
        PostError::Tls(..) => {
            Verdict::Fault { reason, remedy: "look at the host and port in url_file, and at what is on the way" }
        }
        PostError::TimedOut(_) | PostError::TooLong | PostError::Broken(_) => Verdict::Later { reason, asked: None },
    }
}

/// `errcode` and what stands beside it, on one line, bounded, without the token.
fn told(errcode: i64, errmsg: &str, token: &str) -> String {
    let text = if token.is_empty() { errmsg.to_owned() } else { errmsg.replace(token, "…") };
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    format!("errcode {errcode}: {}", line.collect::<String>()).chars().take(MAX_ANSWER_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn of(status: u16, body: &str) -> Verdict {
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(Ok(Reply { status, body, retry_after: None }), "s3cret")
    }

    #[test]
    fn only_errcode_0_is_sent() {
        assert_eq!(of(200, r#"{"errcode":0,"errmsg":"ok"}"#), Verdict::Sent { answer: "errcode 0: ok".to_owned() });
        for (status, body) in [
            (200, ""),
            (200, "ok"),
            (200, "{}"),
            (200, "[]"),
            (200, r#"{"errcode":"0"}"#),
            (200, r#"{"errcode":null,"errmsg":"ok"}"#),
            (200, r#"{"code":0}"#),
            (201, r#"{"errcode":0,"errmsg":"ok"}"#),
            (404, r#"{"errcode":0,"errmsg":"ok"}"#),
            (500, ""),
        ] {
            assert!(matches!(of(status, body), Verdict::Later { asked: None, .. }), "{status} {body}");
        }
        assert!(matches!(of(302, r#"{"errcode":0}"#), Verdict::Fault { .. }));
    }

    #[test]
    fn each_errcode_has_its_consequence() {
        let code = |code: i64| of(200, &format!(r#"{{"errcode":{code},"errmsg":"x"}}"#));
        for too_fast in [130_101, 410_100] {
            assert!(matches!(code(too_fast), Verdict::TooFast { .. }), "{too_fast}");
        }
        for fault in [310_000, 300_001, 300_005, 400_102] {
            assert!(matches!(code(fault), Verdict::Fault { .. }), "{fault}");
        }
        for errmsg in ["keywords not in content, more: […]", "关键词不匹配"] {
            let answer = of(200, &format!(r#"{{"errcode":310000,"errmsg":"{errmsg}"}}"#));
            assert!(matches!(answer, Verdict::Refused { .. }), "{errmsg}");
        }
        for refused in [460_101, 430_102, 400_105] {
            assert!(matches!(code(refused), Verdict::Refused { .. }), "{refused}");
        }
        assert!(matches!(code(-1), Verdict::Later { asked: None, .. }));
        for unknown in [987_654, -2, 1] {
            assert!(matches!(code(unknown), Verdict::Unknown { .. }), "{unknown}");
        }
    }

    #[test]
    fn an_answer_is_told_on_one_bounded_line_without_the_token() {
        let Verdict::Unknown { reason } = of(200, r#"{"errcode":7,"errmsg":"a\nb s3cret\u001b[0m"}"#) else {
            panic!("unknown errcodes are tried again");
        };
        assert_eq!(reason, "errcode 7: a b … [0m");
        assert_eq!(told(7, &"库".repeat(1_000), "").chars().count(), MAX_ANSWER_CHARS);
    }
}
