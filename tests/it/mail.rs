//! Mail: to real relays with TLS and users, and to scripted ones that refuse, hang, babble and die; what each makes of a
//! delivery; the links by which people unsubscribe; and `tidings mail check`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::broker::{UnsubscribeKey, Unsubscription};
use tidings::deliver::email::{Config, Email, Relay as Place, Sender};
use tidings::deliver::{Adapter, MAX_ANSWER_CHARS, Outcome, Progress};
use tidings::model::{
    Bulk, Category, DeliveryId, Form, Letter, Locale, Medium, NotificationId, Parcel, Timestamp, UserId,
};

use crate::support::cli::{arg, run, run_with};
use crate::support::http::Ask;
use crate::support::relay::{Act, Certificate, Relay, Scripted, header};
use crate::support::server::{Server, Setup};
use crate::support::{DEADLINE, wait_for};

/// How an adapter is set up that sends through this relay.
fn config(url: &str) -> Config {
    Config {
        relay: Place::parse(url).unwrap_or_else(|why| panic!("{url} {why}")),
        from: Sender::parse("图书馆 <library@example.org>").expect("a sender"),
        password_file: None,
        ca_file: None,
        per_domain: None,
        together_per_domain: 4,
        connections: 16,
        timeout: DEADLINE,
        public_url: None,
        unsubscribe: None,
    }
}

fn adapter(url: &str) -> Email {
    Email::new(config(url)).expect("the settings are right")
}

/// One that speaks without TLS to a relay on this machine.
fn plainly(port: u16) -> Email {
    adapter(&format!("smtp://127.0.0.1:{port}?tls=none"))
}

fn believing(url: &str, certificate: &Certificate) -> Email {
    Email::new(Config { ca_file: Some(certificate.authority()), ..config(url) }).expect("the settings are right")
}

fn parcel(address: &str) -> Parcel {
    Parcel {
        delivery: DeliveryId(7),
        medium: Medium::Email,
        address: address.to_owned(),
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
        letter: Letter { subject: "Due soon".to_owned(), text: "On Friday.".to_owned(), ..Letter::default() },
    }
}

async fn send(email: &Email, parcel: Parcel) -> Outcome {
    let lane = parcel.lane.clone();
    let mut outcomes = email.send(&lane, vec![parcel], &Progress::unheard()).await;
    assert_eq!(outcomes.len(), 1, "one outcome for each parcel");
    outcomes.remove(0)
}

fn sent(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Sent { answer } => answer,
        other => panic!("it was not sent: {other:?}"),
    }
}

fn later(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Later { reason, .. } => reason,
        other => panic!("it is not tried again: {other:?}"),
    }
}

/// Why all mail waits, and none pays for it.
fn held(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Held { why, remedy } if !remedy.is_empty() => why,
        other => panic!("it is not held: {other:?}"),
    }
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written() {
    let relay = Relay::open();
    let email = plainly(relay.port);
    let mut parcel = parcel("alice@example.com");
    let long = "x".repeat(3000);
    parcel.letter = Letter {
        subject: format!("到期提醒：《红楼梦》{}", "很长".repeat(40)),
        text: format!(".\n..begins with dots\n{long}\n到期"),
        form: Form::Plain,
        html: Some(format!("<p>《红楼梦》 &lt;b&gt; {long}</p>")),
        click: Some("https://app.example/loans/1".to_owned()),
    };
    let outcome = send(&email, parcel.clone()).await;
    assert_eq!(sent(&outcome), "250 2.0.0 taken");
    let mail = relay.mail_to("alice@example.com");
    assert_eq!(mail["sender"], "library@example.org");
    let of = |name: &str| header(&mail, name).unwrap_or_else(|| panic!("no {name} in {mail}"));
    assert_eq!(of("subject"), parcel.letter.subject);
    assert_eq!(of("from"), "图书馆 <library@example.org>");
    assert_eq!(of("to"), "alice@example.com");
    assert_eq!(of("message-id"), "<7.k7x2m9@library.example>");
    assert_eq!(of("date"), "Tue, 14 Nov 2023 22:13:20 +0000");
    assert_eq!(of("auto-submitted"), "auto-generated");
    assert_eq!(of("content-language"), "zh-Hans");
    assert_eq!(header(&mail, "list-unsubscribe"), None, "it went to one person");
    assert_eq!(mail["type"], "multipart/alternative");
    let parts: Vec<(&str, &str)> = mail["parts"].as_array().expect("parts").iter().map(part).collect();
    let text = format!("{}\n\nhttps://app.example/loans/1", parcel.letter.text);
    assert_eq!(parts[0], ("text/plain", text.as_str()), "the plain text comes first");
    let html = parcel.letter.html.as_deref().expect("it has one");
    assert!(parts[1].0 == "text/html" && parts[1].1.contains(&format!("\n{html}\n")), "{:?}", parts[1]);
    assert!(mail["longest"].as_u64().expect("a number") <= 998 && mail["ascii"] == true, "{mail}");
}

/// A part's type and text, without the line breaks at its end.
fn part(part: &Value) -> (&str, &str) {
    let of = |name: &str| part[name].as_str().unwrap_or_default();
    (of("type"), of("text").trim_end())
}

#[tokio::test]
async fn what_a_publisher_wrote_is_no_header_of_the_mail_that_arrives() {
    let relay = Relay::open();
    let email = plainly(relay.port);
    let mut attack = parcel("alice@example.com");
    attack.letter.subject = "Hi\r\nBcc: mallory@example.com\r\n\r\nnot the body".to_owned();
    attack.letter.text = "\r\n.\r\nMAIL FROM:<mallory@example.com>\r\n".to_owned();
    sent(&send(&email, attack).await);
    let mail = relay.mail_to("alice@example.com");
    assert_eq!(header(&mail, "bcc"), None);
    assert_eq!(header(&mail, "subject").as_deref(), Some("Hi  Bcc: mallory@example.com    not the body"));
    let (_, text) = part(&mail["parts"][0]);
    assert_eq!(text, "\n.\nMAIL FROM:<mallory@example.com>");
    for bad in ["a@b.example\r\nRCPT TO:<c@d.example>", "a b@c.example", "", "<a@b.example>,<c@d.example>"] {
        assert!(matches!(send(&email, parcel(bad)).await, Outcome::Never { .. }), "{bad:?}");
    }
    sent(&send(&email, parcel("bob@example.com")).await);
    relay.mail_to("bob@example.com");
    assert_eq!(relay.mails().len(), 2, "one mail each, and none of the attack's");
}

#[tokio::test]
async fn mail_goes_through_relays_with_tls_and_users() {
    let certificate = Certificate::new();
    let users = json!({ "user": "library@example.org", "password": "p@ss:wörd" });
    let without_plain = json!({ "user": "library@example.org", "password": "p@ss:wörd", "without": ["PLAIN"] });
    let account = "library@example.org:p%40ss%3Aw%C3%B6rd";
    for (scheme, tls, options) in
        [("smtp", "starttls", &users), ("smtps", "implicit", &users), ("smtp", "starttls", &without_plain)]
    {
        let relay = Relay::with_tls(tls, &certificate, options.clone());
        let email = believing(&format!("{scheme}://{account}@localhost:{}", relay.port), &certificate);
        sent(&send(&email, parcel("alice@example.com")).await);
        let mail = relay.mail_to("alice@example.com");
        assert_eq!((&mail["encrypted"], &mail["user"]), (&json!(true), &json!("library@example.org")), "{tls}");
        let wrong =
            believing(&format!("{scheme}://library%40example.org:wrong@localhost:{}", relay.port), &certificate);
        let outcome = send(&wrong, parcel("bob@example.com")).await;
        assert!(held(&outcome).starts_with("signing in at the relay: refused with 535"), "{outcome:?}");
        // Whoever is not believed gets no password and no mail.
        let stranger = adapter(&format!("{scheme}://{account}@localhost:{}", relay.port));
        let outcome = send(&stranger, parcel("bob@example.com")).await;
        assert!(held(&outcome).contains("certificate"), "{outcome:?}");
        let elsewhere = believing(&format!("{scheme}://{account}@127.0.0.1:{}", relay.port), &certificate);
        let outcome = send(&elsewhere, parcel("bob@example.com")).await;
        assert!(held(&outcome).contains("certificate"), "it is made out to localhost: {outcome:?}");
        assert_eq!(relay.mails().len(), 1);
    }
}

#[tokio::test]
async fn without_the_tls_that_is_wanted_nothing_is_sent() {
    let relay = Relay::open();
    let email = adapter(&format!("smtp://library:secret@localhost:{}", relay.port));
    let outcome = send(&email, parcel("alice@example.com")).await;
    assert!(held(&outcome).contains("offers no STARTTLS"), "{outcome:?}");
    let opportunistic = adapter(&format!("smtp://localhost:{}?tls=opportunistic", relay.port));
    sent(&send(&opportunistic, parcel("alice@example.com")).await);
    assert_eq!(relay.mail_to("alice@example.com")["encrypted"], false);
}

#[tokio::test]
async fn a_refusal_means_what_its_step_and_its_code_say() {
    let relay = Relay::open();
    let email = plainly(relay.port);
    for (address, word, said) in [
        ("rcpt-550-5.1.1@example.com", "never", "the recipient (RCPT TO): refused with 550 5.1.1 as asked for"),
        ("rcpt-553@example.com", "never", "the recipient (RCPT TO): refused with 553"),
        ("rcpt-451-4.7.1@example.com", "later", "the recipient (RCPT TO): refused with 451"),
        ("rcpt-554-5.7.1@example.com", "later", "the recipient (RCPT TO): refused with 554"),
        ("rcpt-530@example.com", "later", "the recipient (RCPT TO): refused with 530"),
        ("data-554-5.7.1@example.com", "never", "the mail itself (DATA): refused with 554"),
        ("data-552@example.com", "never", "the mail itself (DATA): refused with 552"),
        ("data-452@example.com", "later", "the mail itself (DATA): refused with 452"),
    ] {
        let outcome = send(&email, parcel(address)).await;
        let reason = match &outcome {
            Outcome::Never { reason } if word == "never" => reason,
            Outcome::Later { reason, after: None } if word == "later" => reason,
            other => panic!("{address}: {other:?}"),
        };
        assert!(reason.starts_with(said), "{address}: {reason}");
    }
    sent(&send(&email, parcel("alice@example.com")).await);
    // Whom the relay does not let send may not cost anybody their mail: somebody mends the set-up.
    for sender in ["550 5.7.1 not yours", "451 4.3.0 not now"] {
        let strict = Relay::start(&json!({ "sender": sender }));
        let outcome = send(&plainly(strict.port), parcel("alice@example.com")).await;
        assert_eq!(held(&outcome), format!("the sender (MAIL FROM): refused with {sender}"));
    }
    let nobody = Scripted::start(Vec::new()).port;
    let outcome = send(&plainly(nobody), parcel("alice@example.com")).await;
    assert!(
        held(&outcome).starts_with("connecting to the relay") || held(&outcome).contains("greeting"),
        "{outcome:?}"
    );
    let nowhere = adapter("smtp://relay.invalid:25?tls=none");
    let outcome = send(&nowhere, parcel("alice@example.com")).await;
    assert!(held(&outcome).starts_with("finding the relay's address"), "{outcome:?}");
}

#[tokio::test]
async fn a_relay_that_does_not_answer_is_given_up_in_time() {
    let relay = Relay::open();
    let hanging = Scripted::start(vec![vec![Act::Hang]]);
    let patience = Duration::from_secs(1);
    for (port, address, step) in
        [(relay.port, "slow@example.com", "the recipient"), (hanging.port, "a@example.com", "the relay's greeting")]
    {
        let url = format!("smtp://127.0.0.1:{port}?tls=none");
        let email = Email::new(Config { timeout: patience, ..config(&url) }).expect("the settings are right");
        let begun = Instant::now();
        let outcome = send(&email, parcel(address)).await;
        assert!(begun.elapsed() >= patience && begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
        let told = if address.starts_with("slow") { later(&outcome) } else { held(&outcome) };
        assert!(told.starts_with(step) && told.ends_with("no answer within 1 s"), "{outcome:?}");
    }
}

const GREETING: Act = Act::Say(b"220 relay.test ESMTP\r\n");
const EHLO: Act = Act::Hear("EHLO ");
const PLAIN: Act = Act::Say(b"250-relay.test\r\n250 8BITMIME\r\n");
const OK: Act = Act::Say(b"250 ok\r\n");
const MAIL: Act = Act::Hear("MAIL FROM:<library@example.org>");
const RCPT: Act = Act::Hear("RCPT TO:<alice@example.com>");
const DATA: Act = Act::Hear("DATA");
const GO_ON: Act = Act::Say(b"354 go on\r\n");

/// The beginning of a conversation, and what is said when, up to a mail's content.
fn up_to_content() -> Vec<Act> {
    vec![GREETING, EHLO, PLAIN, MAIL, OK, RCPT, OK, DATA, GO_ON, Act::HearContent]
}

#[tokio::test]
async fn a_relay_that_dies_before_it_has_said_yes_gets_the_same_mail_again() {
    let saying_yes = [up_to_content(), vec![OK, Act::Hang]].concat();
    let relay = Scripted::start(vec![up_to_content(), saying_yes]);
    let email = plainly(relay.port);
    let outcome = send(&email, parcel("alice@example.com")).await;
    assert_eq!(later(&outcome), "the mail itself (DATA): the relay hung up", "nothing is sent before it was said");
    sent(&send(&email, Parcel { attempt: 2, ..parcel("alice@example.com") }).await);
    let heard = relay.heard();
    let ids: Vec<&String> = heard.iter().filter(|line| line.starts_with("Message-ID:")).collect();
    assert_eq!(ids, ["Message-ID: <7.k7x2m9@library.example>"; 2]);
    let dates: Vec<&String> = heard.iter().filter(|line| line.starts_with("Date:")).collect();
    assert!(dates.len() == 2 && dates[0] == dates[1], "{dates:?}");
}

#[tokio::test]
async fn lines_are_used_again_and_one_that_died_meanwhile_is_replaced_without_a_word() {
    let relay = Relay::open();
    let email = plainly(relay.port);
    for n in 0..5 {
        sent(&send(&email, parcel(&format!("u{n}@example.com"))).await);
        let refused = send(&email, parcel("rcpt-550@example.com")).await;
        assert!(matches!(refused, Outcome::Never { .. }), "{refused:?}");
    }
    relay.mail_to("u4@example.com");
    assert_eq!((relay.connections(), relay.mails().len()), (1, 5), "a refused recipient ends no line");
    // Cut after one mail; told to go at the next; and a third that takes it.
    let one = [up_to_content(), vec![OK]].concat();
    let going = [up_to_content(), vec![OK, MAIL, Act::Say(b"421 4.4.2 idle for too long\r\n")]].concat();
    let last = [up_to_content(), vec![OK, Act::Hang]].concat();
    let relay = Scripted::start(vec![one, going, last]);
    let email = plainly(relay.port);
    for _ in 0..3 {
        sent(&send(&email, parcel("alice@example.com")).await);
    }
    let contents = relay.heard().iter().filter(|line| *line == ".").count();
    assert_eq!(contents, 3, "each mail went out once");
}

/// One more mail on a line that has carried one.
const ANOTHER: [Act; 8] = [MAIL, OK, RCPT, OK, DATA, GO_ON, Act::HearContent, OK];
/// Mails that are sent on one line, at most.
const MAILS_A_LINE: usize = 100;

#[tokio::test]
async fn what_the_relay_has_taken_is_sent_though_it_does_not_answer_the_goodbye() {
    // A machine that stands still for a second looks the same for once, and not again and again.
    const TRIES: usize = 3;
    for _ in 1..TRIES {
        if says_goodbye_to_nobody().await.is_ok() {
            return;
        }
    }
    let told = says_goodbye_to_nobody().await;
    assert!(told.is_ok(), "it was taken, and not sent: {told:?}");
}

/// Sends one mail more than a line carries to a relay that does not answer a QUIT, in no more time for a mail than a goodbye may
/// take.
///
/// # Errors
/// The first outcome that is not `Sent`.
async fn says_goodbye_to_nobody() -> Result<(), Outcome> {
    let mut script = [up_to_content(), vec![OK]].concat();
    script.extend((1..MAILS_A_LINE).flat_map(|_| ANOTHER));
    script.extend([Act::Hear("QUIT"), Act::Hang]);
    let next = [up_to_content(), vec![OK, Act::Hang]].concat();
    let relay = Scripted::start(vec![script, next]);
    let url = format!("smtp://127.0.0.1:{}?tls=none", relay.port);
    let email = Email::new(Config { timeout: Duration::from_secs(1), ..config(&url) }).expect("right");
    for _ in 0..=MAILS_A_LINE {
        match send(&email, parcel("alice@example.com")).await {
            Outcome::Sent { .. } => {}
            other => return Err(other),
        }
    }
    let heard = relay.heard();
    let goodbye = heard.iter().position(|line| line == "QUIT").expect("the line was left");
    let contents = |lines: &[String]| lines.iter().filter(|line| *line == ".").count();
    assert_eq!((contents(&heard[..goodbye]), contents(&heard)), (MAILS_A_LINE, MAILS_A_LINE + 1), "each went out once");
    Ok(())
}

#[tokio::test]
async fn a_line_that_nothing_is_sent_on_is_left_after_a_while() {
    let relay = Scripted::start(vec![[up_to_content(), vec![OK, Act::Hear("QUIT"), Act::Hang]].concat()]);
    let email = plainly(relay.port);
    sent(&send(&email, parcel("alice@example.com")).await);
    assert!(!relay.heard().contains(&"QUIT".to_owned()), "it is kept for the next mail");
    let deadline = Instant::now() + DEADLINE;
    while !relay.heard().contains(&"QUIT".to_owned()) {
        assert!(Instant::now() < deadline, "nobody left it");
        // Moves the runtime's clock, by which lines grow old, not that of the relay; again where nobody looked at it yet.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(31)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_relay_that_lets_few_lines_in_has_all_mail_on_those_and_none_pays_for_the_others() {
    const LINES: usize = 3;
    const MAILS: usize = 60;
    let relay = Relay::start(&json!({ "connections": LINES, "takes_ms": 20 }));
    let url = format!("smtp://127.0.0.1:{}?tls=none", relay.port);
    let server = impatient(&url).env("TIDINGS_EMAIL_TOGETHER_PER_DOMAIN", "16").start();
    let users: Vec<Value> =
        (0..MAILS).map(|n| json!({ "user": format!("u{n}"), "email": format!("u{n}@example.com") })).collect();
    server.operate(Ask::post("/v1/users").ndjson(&users)).expect(200);
    let to: Vec<String> = (0..MAILS).map(|n| format!("u{n}")).collect();
    let made = server.publish(&json!({ "to": { "users": to }, "title": "Due", "via": ["email"] }));
    let asked = format!("/v1/deliveries?limit=100&notification={}", made["id"].as_str().expect("an id"));
    let all = wait_for("all to be sent", || {
        let told = server.operate(Ask::get(&asked)).expect(200).json();
        (told["summary"]["sent"] == MAILS).then(|| told["deliveries"].as_array().expect("a list").clone())
    });
    assert!(all.iter().all(|delivery| delivery["attempts"] == 1), "nobody's mail paid for it: {all:?}");
    assert_eq!(relay.mails().len(), MAILS, "each once");
    assert!(relay.turned_away() > 0, "it was asked for more than it takes");
    let log = server.log();
    assert!(!log.contains("Nothing goes out as it is set up"), "mail was never held: {log}");
    assert!(log.contains("The relay takes no more lines of ours"), "{log}");
    assert!(readiness(&server).get("held").is_none());
}

#[tokio::test]
async fn rubbish_is_no_yes_whatever_it_looks_like() {
    let injected = b"220 go on\r\n250-evil.test\r\n250 8BITMIME\r\n";
    let scripts: Vec<(&str, Vec<Act>)> = vec![
        ("no greeting", vec![Act::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Act::Hang]),
        ("no words", vec![Act::Say(&[0xff, 0xfe, 0x00, 0x0a]), Act::Hang]),
        ("a line without an end", vec![Act::Babble(&[b'x'; 4096])]),
        ("lines without an end", vec![Act::Babble(b"220-relay.test\r\n")]),
        ("a blank line to EHLO", vec![GREETING, EHLO, Act::Say(b"250-relay.test\r\n250-\r\n250 \r\n"), Act::Hang]),
        ("nothing but a code", vec![GREETING, EHLO, Act::Say(b"250\r\n"), MAIL, Act::Say(b"\r\n"), Act::Hang]),
        ("yes instead of go on", vec![GREETING, EHLO, PLAIN, MAIL, OK, RCPT, OK, DATA, OK, Act::Hang]),
        ("go on instead of yes", [up_to_content(), vec![GO_ON, Act::Hang]].concat()),
        ("an answer ahead of time", vec![GREETING, EHLO, Act::Say(b"250 a\r\n250 b\r\n250 c\r\n250 d\r\n"), Act::Hang]),
        ("an early end", vec![GREETING, EHLO, Act::Say(b"250-relay.te")]),
        ("a code that is none", [up_to_content(), vec![Act::Say(b"999 what\r\n"), Act::Hang]].concat()),
    ];
    for (what, script) in scripts {
        let relay = Scripted::start(vec![script]);
        let url = format!("smtp://127.0.0.1:{}?tls=none", relay.port);
        let email = Email::new(Config { timeout: Duration::from_secs(2), ..config(&url) }).expect("right");
        let outcome = send(&email, parcel("alice@example.com")).await;
        let (Outcome::Later { reason, .. } | Outcome::Held { why: reason, .. }) = &outcome else {
            panic!("{what}: {outcome:?}")
        };
        assert!(reason.chars().count() <= MAX_ANSWER_CHARS && !reason.contains(char::is_control), "{what}: {reason:?}");
    }
    // What was put in before the line was secured is not taken for the relay's own.
    let relay = Scripted::start(vec![vec![
        GREETING,
        EHLO,
        Act::Say(b"250-relay.test\r\n250 STARTTLS\r\n"),
        Act::Hear("STARTTLS"),
        Act::Say(injected),
        Act::Hang,
    ]]);
    let url = format!("smtp://localhost:{}", relay.port);
    let email = Email::new(Config { timeout: Duration::from_secs(2), ..config(&url) }).expect("right");
    held(&send(&email, parcel("alice@example.com")).await);
    assert!(!relay.heard().iter().any(|line| line.starts_with("MAIL")), "nothing of the mail went out");
}

#[tokio::test]
async fn an_answer_is_kept_in_one_short_line() {
    let long: &'static [u8] = format!("250 ok\x1b[31m \x07{}\r\n", "x".repeat(900)).leak().as_bytes();
    let relay = Scripted::start(vec![[up_to_content(), vec![Act::Say(long), Act::Hang]].concat()]);
    let outcome = send(&plainly(relay.port), parcel("alice@example.com")).await;
    let answer = sent(&outcome);
    assert!(answer.starts_with("250 ok") && answer.chars().count() <= MAX_ANSWER_CHARS, "{answer}");
    assert!(!answer.contains(char::is_control), "{answer:?}");
}

#[tokio::test]
async fn a_domain_is_written_to_at_the_pace_that_was_set() {
    let relay = Relay::open();
    let url = format!("smtp://127.0.0.1:{}?tls=none", relay.port);
    let rate = tidings::deliver::email::Rate::parse("1/h");
    let email = Email::new(Config { per_domain: rate, ..config(&url) }).expect("the settings are right");
    assert_eq!(
        (email.pause("example.com"), email.most_together("example.com"), email.at_once()),
        (Duration::ZERO, 1, 1)
    );
    assert_eq!(adapter(&url).at_once(), 4, "without a rate they go together");
    sent(&send(&email, parcel("alice@example.com")).await);
    assert!(email.pause("example.com") > Duration::from_mins(50), "{:?}", email.pause("example.com"));
    assert_eq!(email.pause("example.net"), Duration::ZERO);
}

/// A server that gives a mail up behind its second try, with this relay.
fn impatient(url: &str) -> Setup {
    let setup = Setup::serve().env("TIDINGS_EMAIL_URL", url).env("TIDINGS_EMAIL_FROM", "library@example.org");
    setup.env("TIDINGS_OUTBOX_SCHEDULE", "1s")
}

/// Publishes by mail to somebody with an address; the notification's id.
fn publish_to(server: &Server, user: &str) -> String {
    let profile = json!({ "email": format!("{user}@example.com") });
    server.operate(Ask::put(&format!("/v1/users/{user}")).json(&profile));
    let made = server.publish(&json!({ "to": format!("user:{user}"), "title": "Due", "via": ["email"] }));
    made["id"].as_str().expect("an id").to_owned()
}

/// The one delivery of a notification, with its timeline.
fn timeline(server: &Server, notification: &str) -> Value {
    let listed = server.operate(Ask::get(&format!("/v1/deliveries?notification={notification}"))).expect(200).json();
    let id = listed["deliveries"][0]["id"].as_u64().expect("a number");
    server.operate(Ask::get(&format!("/v1/deliveries/{id}"))).expect(200).json()
}

fn readiness(server: &Server) -> Value {
    server.send(&Ask::get("/readyz")).expect(200).json()
}

/// What `tidings_outbox_held` says of mail.
fn held_gauge(server: &Server) -> Option<String> {
    let text = server.operate(Ask::get("/metrics")).expect(200).text().to_owned();
    let line = text.lines().find(|line| line.starts_with("tidings_outbox_held{medium=\"email\"}"))?;
    line.rsplit(' ').next().map(str::to_owned)
}

#[test]
fn a_wrong_password_costs_no_mail_a_try_and_when_it_is_mended_all_go_out() {
    let certificate = Certificate::new();
    let users = json!({ "user": "library", "password": "right" });
    let relay = Relay::with_tls("starttls", &certificate, users);
    let url = |password: &str| format!("smtp://library:{password}@localhost:{}", relay.port);
    let authority = certificate.authority();
    let start = |url: &str| impatient(url).env("TIDINGS_EMAIL_CA_FILE", arg(&authority));
    let mut server = start(&url("wrong")).start();
    let mails: Vec<String> = ["alice", "bob", "carol"].iter().map(|user| publish_to(&server, user)).collect();
    // Each of them once, and then it is looked whether it has been mended.
    wait_for("the relay to be tried again and again", || (relay.connections() >= 5).then_some(()));
    let ready = readiness(&server);
    assert!(ready["held"][0].as_str().is_some_and(|held| held.starts_with("email since ")), "{ready}");
    assert_eq!((&ready["status"], held_gauge(&server).as_deref()), (&json!("ready"), Some("1")));
    assert!(!ready.to_string().contains("535"), "why is not for everybody");
    for mail in &mails {
        let told = wait_for("it to be put back", || {
            let told = timeline(&server, mail);
            (told["state"] == "pending").then_some(told)
        });
        assert_eq!((&told["attempts"], &told["timeline"]), (&json!(0), &json!([])), "{told}");
        assert!(told["held"].as_str().is_some_and(|why| why.contains("refused with 535")), "{told}");
    }
    let log = server.log();
    assert_eq!(log.matches("Nothing goes out as it is set up").count(), 1, "it is told once: {log}");
    assert!(log.contains("app password"), "it says what to do: {log}");

    // In order, so that nobody has to guess what became of an attempt.
    server.terminate();
    let server = start(&url("right")).on(server.stop()).start();
    for (mail, user) in mails.iter().zip(["alice", "bob", "carol"]) {
        relay.mail_to(&format!("{user}@example.com"));
        let told = wait_for("it to be sent", || {
            let told = timeline(&server, mail);
            (told["state"] == "sent").then_some(told)
        });
        assert_eq!(told["timeline"].as_array().map(Vec::len), Some(1), "{told}");
    }
    assert_eq!((readiness(&server).get("held"), held_gauge(&server).as_deref()), (None, Some("0")));
}

#[test]
fn a_relay_that_is_away_and_comes_back_is_found_by_itself() {
    // It hangs up more often than the schedule has tries.
    let back = [up_to_content(), vec![OK, Act::Hang]].concat();
    let relay = Scripted::start(vec![vec![], vec![], vec![], back]);
    let server = impatient(&format!("smtp://127.0.0.1:{}?tls=none", relay.port)).start();
    let mail = publish_to(&server, "alice");
    wait_for("it to be held", || readiness(&server)["held"].is_array().then_some(()));
    let told = wait_for("it to be sent", || {
        let told = timeline(&server, &mail);
        (told["state"] == "sent").then_some(told)
    });
    assert_eq!(told["timeline"].as_array().map(Vec::len), Some(1), "{told}");
    wait_for("it to be told", || readiness(&server).get("held").is_none().then_some(()));
}

#[test]
fn who_unsubscribes_by_the_link_gets_none_of_the_mails_that_still_wait() {
    let (server, key) = with_links("smtp://127.0.0.1:9?tls=none");
    let profile = json!({ "email": "alice@example.com" });
    server.operate(Ask::put("/v1/users/alice").json(&profile)).expect(201);
    let body = json!({ "to": "user:alice", "title": "Due", "category": "loans", "via": ["email"] });
    let made = server.publish(&body);
    wait_for("it to be held", || readiness(&server)["held"].is_array().then_some(()));
    server.send(&Ask::post(&format!("/v1/unsubscribe/{}", key.token(&about_loans("alice"))))).expect(200);
    let told = wait_for("it to be cancelled", || {
        let told = timeline(&server, made["id"].as_str().expect("an id"));
        (told["state"] == "cancelled").then_some(told)
    });
    assert_eq!(told["reason"], "unsubscribed: does not want email about loans any more", "{told}");
}

/// A server with mail set up, and what makes its links.
fn with_links(relay: &str) -> (Server, UnsubscribeKey) {
    let server =
        Setup::serve().env("TIDINGS_EMAIL_URL", relay).env("TIDINGS_EMAIL_FROM", "library@example.org").start();
    let secret = std::fs::read_to_string(server.data().join("unsubscribe.key")).expect("it was made at the start");
    (server, UnsubscribeKey::new(secret.trim().as_bytes()))
}

fn about_loans(user: &str) -> Unsubscription {
    Unsubscription {
        user: UserId::new(user).expect("a user"),
        category: Category::new("loans").expect("a category"),
        medium: Medium::Email,
    }
}

#[test]
fn the_link_in_a_mail_asks_when_it_is_opened_and_acts_when_the_button_is_pressed() {
    let (mut server, key) = with_links("smtp://127.0.0.1:9?tls=none");
    server.notify("alice", "hello");
    let link = format!("/v1/unsubscribe/{}", key.token(&about_loans("alice")));
    let said = |server: &Server, user: &str| {
        server.operate(Ask::get(&format!("/v1/users/{user}"))).expect(200).json()["preferences"].clone()
    };
    let page = server.send(&Ask::get(&link).header("accept-language", "zh-CN,zh;q=0.9")).expect(200);
    assert!(page.text().contains("不再接收关于“loans”的邮件？") && page.text().contains("<form method=\"post\">"));
    assert!(!page.text().contains("alice"), "the page does not say whose link it is");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(said(&server, "alice"), json!({}), "a scanner that follows links changes nothing");
    // A mail program (RFC 8058), then the person, then a server that has started again.
    let click = Ask::post(&link).body("application/x-www-form-urlencoded", "List-Unsubscribe=One-Click");
    for _ in 0..2 {
        let done = server.send(&click).expect(200);
        assert!(done.text().contains("You will get no more mail about “loans”."), "{}", done.text());
        assert_eq!(said(&server, "alice"), json!({ "loans": { "email": false } }));
    }
    server.restart();
    server.send(&click).expect(200);
    server.send(&Ask::put(&link)).problem(405, "method-not-allowed");
}

#[test]
fn a_link_that_was_made_up_does_nothing_and_an_erased_user_stays_erased() {
    let (server, key) = with_links("smtp://127.0.0.1:9?tls=none");
    server.notify("alice", "hello");
    let token = key.token(&about_loans("alice"));
    let forged = UnsubscribeKey::new(&[7; 32]).token(&about_loans("alice"));
    for bad in [&forged, &token[..token.len() - 1], "x", &"x".repeat(4000)] {
        let link = format!("/v1/unsubscribe/{bad}");
        server.send(&Ask::get(&link)).problem(404, "not-found");
        server.send(&Ask::post(&link)).problem(404, "not-found");
    }
    server.operate(Ask::delete("/v1/users/alice")).expect(200);
    server.send(&Ask::post(&format!("/v1/unsubscribe/{token}"))).expect(200);
    server.operate(Ask::get("/v1/users/alice")).problem(404, "not-found");
    let log = server.log();
    assert!(!log.contains(&token), "the log does not have the token");
}

#[test]
fn who_has_spoken_of_too_much_can_unsubscribe_all_the_same() {
    let (server, key) = with_links("smtp://127.0.0.1:9?tls=none");
    let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("c{n}"), json!({ "email": true }))).collect();
    server.operate(Ask::put("/v1/users/alice").json(&json!({ "preferences": many }))).expect(201);
    server.send(&Ask::post(&format!("/v1/unsubscribe/{}", key.token(&about_loans("alice"))))).expect(200);
    let profile = server.operate(Ask::get("/v1/users/alice")).expect(200).json();
    assert_eq!(profile["preferences"]["*"], json!({ "email": false }), "nothing was said about loans itself");
}

/// The settings of a server that sends mail, in a file.
fn settings(folder: &Path, text: &str) -> String {
    let file = folder.join("tidings.toml");
    std::fs::write(&file, text).expect("ours to write");
    arg(&file).to_owned()
}

#[test]
fn mail_check_sends_one_mail_and_tells_each_step() {
    let certificate = Certificate::new();
    let relay =
        Relay::with_tls("starttls", &certificate, json!({ "user": "library", "password": "secret-of-the-relay" }));
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&password, text).expect("ours to write");
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("ours");
    };
    write("secret-of-the-relay\n");
    let text = |port: u16| {
        format!(
            "[email]\nurl = \"smtp://library@localhost:{port}\"\nfrom = \"Library <library@example.org>\"\n\
             password_file = '{}'\nca_file = '{}'\n",
            password.display(),
            certificate.authority().display()
        )
    };
    let file = settings(folder.path(), &text(relay.port));
    let check =
        |more: &[&str]| run(&[&["mail", "check", "--config", &file, "--to", "alice@example.com"], more].concat(), "");
    let said = check(&["--json"]).well().json();
    let steps: Vec<&str> = said["steps"].as_array().expect("steps").iter().filter_map(|s| s["step"].as_str()).collect();
    assert_eq!(steps, ["address", "connect", "greeting", "tls", "sign-in", "sender", "recipient", "content"]);
    assert_eq!((&said["ok"], &said["advice"]), (&json!(true), &json!("")));
    let mail = relay.mail_to("alice@example.com");
    assert_eq!(header(&mail, "subject").as_deref(), Some("Tidings can send mail"));
    assert!(check(&[]).well().out.contains("ok   tls        STARTTLS; the certificate is right for localhost"));

    write("hunter3");
    let said = check(&[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("FAIL sign-in    refused with 535") && said.out.contains("app password"), "{said:?}");
    assert!(!format!("{said:?}").contains("hunter3"), "no password is printed");
    let said = check(&["--json"]);
    let told = said.json();
    let last = told["steps"].as_array().and_then(|steps| steps.last()).expect("a step");
    assert_eq!((said.code, &last["step"], &last["ok"]), (1, &json!("sign-in"), &json!(false)));

    settings(folder.path(), &text(9));
    let said = check(&[]);
    assert!(said.code == 1 && said.out.contains("FAIL connect") && said.out.contains("firewall"), "{said:?}");
    settings(folder.path(), "");
    let said = check(&[]);
    assert!(said.code == 64 && said.err.contains("mail is not set up"), "{said:?}");
    let said = run(&["mail", "check", "--config", &file, "--to", "nobody"], "");
    assert!(said.code == 64 && said.err.contains("no mail address"), "{said:?}");
}

#[test]
fn faults_of_the_mail_settings_say_what_to_do_and_no_password_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = "from = 'library@example.org'";
    let missing = folder.path().join("missing");
    let named = |setting: &str| format!("{from}\nurl = 'smtp://u@mail.example'\n{setting} = '{}'", missing.display());
    for (text, told) in [
        ("url = 'mail.example'".to_owned(), "email.url must begin with smtp:// or smtps://"),
        ("url = 'smtp://mail.example'".to_owned(), "email.url needs email.from"),
        ("from = 'Library'".to_owned(), "email.from must be a mail address"),
        ("per_domain = '10'".to_owned(), "email.per_domain must be a rate"),
        ("timeout = '1h'".to_owned(), "email.timeout must be a duration from 1s to 10m"),
        ("urll = 'x'".to_owned(), "email.urll is no setting; did you mean email.url?"),
        (format!("{from}\nurl = 'smtp://u@mail.example'"), "so email.password_file must name the file"),
        (format!("{from}\nurl = 'smtp://mail.example'\npassword_file = 'x'"), "needs a user in email.url"),
        (format!("{from}\nurl = 'smtp://u:hunter2@mail.example?tls=none'"), "would send the password over the network"),
        (format!("{from}\nurl = 'smtp://u:hunter2@mail.example'\npassword_file = 'x'"), "keep one of them"),
        (named("password_file"), "email.password_file: cannot look at"),
        (format!("{from}\nurl = 'smtp://mail.example'\nca_file = '{}'", missing.display()), "email.ca_file: "),
        ("[http]\npublic_url = 'app.example'".to_owned(), "http.public_url must be empty or the address"),
    ] {
        let file = settings(folder.path(), &format!("[email]\n{text}\n"));
        let said = run(&["config", "check", &file], "");
        assert!(said.code == 64 && said.out.contains(told), "{text}: {said:?}");
        assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
    }
    let file = settings(folder.path(), &format!("[email]\n{from}\nurl = 'smtp://u:hunter2@mail.example'\n"));
    let said = run(&["config", "show", "--config", &file], "").well();
    assert!(said.out.contains("url = \"smtp://u:…@mail.example\"") && !said.out.contains("hunter2"), "{said:?}");
    // What was shown can't be used as if the mark was the password.
    let again = settings(folder.path(), &said.out);
    let said = run(&["config", "check", &again], "");
    assert!(said.code == 64 && said.out.contains("which leaves the password out"), "{said:?}");
    let env = [("TIDINGS_EMAIL_URL", "smtp://u:hunter2@mail.example"), ("TIDINGS_EMAIL_FROM", "a@b.example")];
    let empty = settings(folder.path(), "");
    let said = run_with(&["config", "show", "--json", "--all", "--config", &empty], "", &env).well();
    assert!(said.out.contains("TIDINGS_EMAIL_URL") && !said.out.contains("hunter2"), "{said:?}");
}

#[test]
fn a_server_does_not_start_on_a_mail_set_up_that_can_not_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, "not a certificate").expect("ours to write");
    let with = |name: &'static str, value: &Path| {
        let setup = Setup::serve().env("TIDINGS_EMAIL_FROM", "library@example.org");
        setup.env("TIDINGS_EMAIL_URL", "smtp://u@mail.example").env(name, arg(value)).attempt()
    };
    let Err(refused) = with("TIDINGS_EMAIL_PASSWORD_FILE", &folder.path().join("missing")) else {
        panic!("it started without the password")
    };
    assert!(refused.log.contains("missing"), "{}", refused.log);
    let setup = Setup::serve().env("TIDINGS_EMAIL_FROM", "library@example.org");
    let setup = setup.env("TIDINGS_EMAIL_URL", "smtps://mail.example").env("TIDINGS_EMAIL_CA_FILE", arg(&authorities));
    let Err(refused) = setup.attempt() else { panic!("it started without authorities") };
    assert_eq!(refused.code, Some(64));
    assert!(refused.log.contains("[email] ca_file, holds no certificate in PEM"), "{}", refused.log);
}
