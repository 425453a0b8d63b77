//! What came so far: it prints each message, counts it, and knows how often each robot spoke.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Failing;
use super::dingtalk::{Answer, Arrived, errmsg, read, robot};
use super::mail::Mail;
use crate::cli::{Output, progress, say};
use crate::clock::Clock;
use crate::deliver::dingtalk::Secret;

/// DingTalk's minute.
const MINUTE: Duration = Duration::from_secs(60);
/// How long DingTalk does not listen to a robot that spoke too fast.
const BAN: Duration = Duration::from_secs(600);
/// Robots at most whose pace is known; more are answered that there is no such robot.
const MAX_ROBOTS: usize = 1_000;
/// Characters of a robot's name that are shown.
const MAX_ROBOT_CHARS: usize = 16;

/// All that is known while the sink listens.
pub(super) struct Reception {
    output: Output,
    per_minute: usize,
    secret: Option<Secret>,
    fail: Option<Failing>,
    bar: ProgressBar,
    clock: Clock,
    counted: RefCell<Counted>,
    broken: Notify,
}

#[derive(Default)]
struct Counted {
    received: u64,
    wrong: u64,
    /// How many more fail; `None` is all.
    fails: Option<u64>,
    robots: HashMap<String, Pace>,
    /// Why nothing more can be printed.
    broken: Option<anyhow::Error>,
}

#[derive(Default)]
struct Pace {
    said: VecDeque<Instant>,
    banned_until: Option<Instant>,
}

impl Pace {
    /// Whether a robot may say one more now; one that may not is not listened to for a while.
    fn admits(&mut self, now: Instant, per_minute: usize) -> bool {
        if self.banned_until.is_some_and(|until| now < until) {
            return false;
        }
        while self.said.front().is_some_and(|at| *at + MINUTE < now) {
            self.said.pop_front();
        }
        if self.said.len() >= per_minute {
            self.banned_until = Some(now + BAN);
            return false;
        }
        self.said.push_back(now);
        true
    }
}

impl Reception {
    pub(super) fn new(
        output: Output,
        per_minute: usize,
        secret: Option<Secret>,
        fail: Option<Failing>,
        times: Option<u64>,
    ) -> Self {
        let counted = RefCell::new(Counted { fails: times, ..Counted::default() });
        let (bar, clock) = (progress::counter("messages"), Clock::system());
        Self { output, per_minute, secret, fail, bar, clock, counted, broken: Notify::new() }
    }

    /// Takes a robot's message: DingTalk's answer, or how it fails.
    pub(super) fn robot(&self, arrived: &Arrived<'_>) -> Result<Answer, Failing> {
        let now = self.clock.now();
        let (mut said, mut answer) = read(arrived, self.secret.as_ref(), now.as_millis());
        let token = robot(arrived.query).unwrap_or_default();
        let failing = self.next_failure();
        if answer.errcode == 0 && failing.is_none() && !self.admits(&token) {
            answer = Answer::of(130_101);
            said.faults.push(format!("more than {} messages in a minute, or soon after", self.per_minute));
        }
        let told = match failing {
            None => format!("errcode {}: {}", answer.errcode, answer.errmsg),
            Some(Failing::Errcode(code)) => format!("errcode {code}: {}", errmsg(code)),
            Some(other) => format!("{other:?}").to_lowercase(),
        };
        self.show(&json!({
            "medium": "dingtalk",
            "robot": token.chars().take(MAX_ROBOT_CHARS).collect::<String>(),
            "at": now.to_string(),
            "title": said.title,
            "text": said.text,
            "people": said.people,
            "bytes": arrived.body.len(),
            "answer": told,
            "faults": said.faults,
        }));
        failing.map_or(Ok(answer), Err)
    }

    /// Takes a mail.
    pub(super) fn mail(&self, mail: &Mail) {
        self.show(&json!({
            "medium": "email",
            "at": self.clock.now().to_string(),
            "from": mail.from,
            "people": mail.to,
            "title": mail.subject(),
            "text": mail.text(),
            "bytes": mail.bytes.len(),
            "answer": "250",
            "faults": mail.faults(),
        }));
    }

    /// Resolves when nothing more can be printed.
    pub(super) async fn broken(&self) -> anyhow::Error {
        loop {
            self.broken.notified().await;
            if let Some(error) = self.counted.borrow_mut().broken.take() {
                return error;
            }
        }
    }

    /// Messages that came, and those with something wrong.
    pub(super) fn end(&self) -> (u64, u64) {
        self.bar.finish_and_clear();
        let counted = self.counted.borrow();
        (counted.received, counted.wrong)
    }

    fn next_failure(&self) -> Option<Failing> {
        let fails = &mut self.counted.borrow_mut().fails;
        match fails {
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                self.fail
            }
            None => self.fail,
        }
    }

    fn admits(&self, token: &str) -> bool {
        let robots = &mut self.counted.borrow_mut().robots;
        if !robots.contains_key(token) && robots.len() == MAX_ROBOTS {
            return false;
        }
        robots.entry(token.to_owned()).or_default().admits(Instant::now(), self.per_minute)
    }

    fn show(&self, message: &Value) {
        let mut counted = self.counted.borrow_mut();
        counted.received += 1;
        counted.wrong += u64::from(message["faults"].as_array().is_some_and(|faults| !faults.is_empty()));
        self.bar.inc(1);
        let printed = match self.output {
            Output::Json => say(message),
            Output::People => self.bar.suspend(|| say(for_people(message))),
        };
        if let Err(error) = printed {
            counted.broken = Some(error);
            self.broken.notify_one();
        }
    }
}

/// A message as people read it. What steers a terminal is left out.
fn for_people(message: &Value) -> String {
    let text = |key: &str| message[key].as_str().unwrap_or_default().replace(|c: char| c.is_control() && c != '\n', "");
    let list = |key: &str| {
        let items = message[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        items.map(|item| item.replace(char::is_control, "")).collect::<Vec<_>>()
    };
    let who = if text("robot").is_empty() { text("from") } else { text("robot") };
    let head = format!(
        "{}  {}  {who} -> {}  {} bytes  {}\n  {}",
        text("at"),
        text("medium"),
        list("people").join(" "),
        message["bytes"],
        text("answer"),
        text("title").replace('\n', " "),
    );
    let body = text("text").lines().fold(head, |all, line| format!("{all}\n  | {line}"));
    list("faults").iter().fold(body, |all, fault| format!("{all}\n  WRONG: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_robot_that_speaks_too_fast_is_not_listened_to_for_a_while() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!((0..20).all(|_| pace.admits(now, 20)));
        assert!(!pace.admits(now + MINUTE, 20), "a minute has both of its ends");
        assert!(!pace.admits(now + MINUTE + BAN - Duration::from_secs(1), 20));
        assert!(pace.admits(now + MINUTE + BAN, 20));
    }

    #[test]
    fn people_see_what_came_and_nothing_that_steers_a_terminal() {
        let message = json!({
            "medium": "dingtalk", "robot": "sink", "at": "2026-01-01T00:00:00Z", "title": "T\u{1b}[2J", "text": "a\nb",
            "people": ["a", "b"], "bytes": 7, "answer": "errcode 0: ok", "faults": ["late"],
        });
        assert_eq!(
            for_people(&message),
            "2026-01-01T00:00:00Z  dingtalk  sink -> a b  7 bytes  errcode 0: ok\n  T[2J\n  | a\n  | b\n  WRONG: late"
        );
    }
}
