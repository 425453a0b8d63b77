//! DingTalk: the adapter against `tidings sink`, which answers as DingTalk does, and against servers that do what none should.
//!
//! Waiting for a minute to pass is done by moving the clock of the test's runtime; `tidings sink` has one of its own, and
//! judges what comes within a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tidings::clock::Clock;
use tidings::deliver::dingtalk::{Address, DingTalk, MAX_BYTES, PER_MINUTE, Robot, Secret, WINDOW};
use tidings::deliver::{Adapter as _, Outcome, Progress};
use tidings::model::{
    Bulk, Category, DeliveryId, Letter, Medium, NotificationId, Parcel, RobotName, Timestamp, UserId,
};
use tidings::tls;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::cli::{arg, run};
use crate::support::http::Ask;
use crate::support::server::{Server, Setup, tidings};
use crate::support::sink::Sink;
use crate::support::{DEADLINE, Dice, wait_for};

const LANE: &str = "ops";
const REST: Duration = Duration::from_secs(600);

impl Sink {
    fn adapter(&self, secret: Option<&str>, rest: Duration) -> DingTalk {
        adapter(&self.url, secret, PER_MINUTE, rest)
    }
}

fn adapter(url: &str, secret: Option<&str>, per_minute: usize, rest: Duration) -> DingTalk {
    let robot = Robot {
        name: RobotName::new(LANE).expect("a name"),
        address: Address::parse(url).expect("an address"),
        secret: secret.and_then(Secret::new),
        per_minute,
    };
    DingTalk::new(vec![robot], rest, Arc::new(tls::client(None).expect("no file is named")), Clock::system())
}

/// A parcel of the `notification`-th notification to a person.
fn parcel(delivery: u64, notification: u64, person: &str, subject: &str) -> Parcel {
    let id = NotificationId::parse(&format!("00000000-0000-7000-8000-{notification:012x}")).expect("an id");
    Parcel {
        delivery: DeliveryId(delivery),
        medium: Medium::DingTalk,
        address: person.to_owned(),
        lane: LANE.to_owned(),
        message_id: format!("{delivery}@tidings.test"),
        attempt: 1,
        notification: id,
        user: UserId::new(person).expect("a user id"),
        category: Category::default(),
        locale: None,
        written_in: None,
        published_at: Timestamp::from_millis(0),
        bulk: Bulk::Personal,
        letter: Letter { subject: subject.to_owned(), text: "It is *due*.".to_owned(), ..Letter::default() },
    }
}

/// Hands parcels over to the one robot; what became of each.
async fn carry(adapter: &DingTalk, parcels: Vec<Parcel>) -> Vec<Outcome> {
    adapter.send(LANE, parcels, &Progress::unheard()).await
}

fn is_sent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Sent { .. })
}

/// Moves the runtime's clock, not that of other processes.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn everybody_a_notification_is_for_is_named_in_one_signed_message() {
    let sink = Sink::start(&["--secret", "SEC123"]);
    let adapter = sink.adapter(Some("SEC123"), REST);
    let parcels = vec![parcel(1, 1, "manager4220", "Disk full"), parcel(2, 1, "13800000000", "Disk full")];
    let outcomes = carry(&adapter, parcels).await;
    assert_eq!(outcomes, vec![Outcome::Sent { answer: "errcode 0: ok".to_owned() }; 2]);
    let message = sink.next();
    assert_eq!(message["text"], "### Disk full\n\nIt is \\*due\\*.\n\n@manager4220 @13800000000");
    assert_eq!(message["people"], serde_json::json!(["manager4220", "13800000000"]));
    assert_eq!((message["answer"].as_str(), message["faults"].clone()), (Some("errcode 0: ok"), serde_json::json!([])));
    assert_eq!(sink.stop().0, 0);
}

#[tokio::test]
async fn a_wrong_secret_is_nobodys_fault_and_is_found_out_once() {
    let sink = Sink::start(&["--secret", "SEC123"]);
    let adapter = sink.adapter(Some("another"), REST);
    let outcomes = carry(&adapter, vec![parcel(1, 1, "a", "s"), parcel(2, 2, "a", "t")]).await;
    for outcome in &outcomes {
        let Outcome::Held { why, remedy } = outcome else { panic!("{outcomes:?}") };
        assert!(why == "errcode 310000: sign not match" && remedy.contains("secret_file"), "{outcome:?}");
    }
    let message = sink.next();
    assert_eq!(message["answer"], "errcode 310000: sign not match");
    assert!(message["faults"][0].as_str().is_some_and(|told| told.contains("not that of the secret")), "{message}");
    let (code, more, told) = sink.stop();
    assert_eq!((code, more.len()), (1, 0), "the second did not reach it");
    assert!(told.contains("1 of 1 message was not right"), "{told}");
}

#[tokio::test]
async fn too_fast_is_a_rest_and_no_message_is_lost() {
    let sink = Sink::start(&["--fail", "130101", "--times", "1"]);
    let adapter = sink.adapter(None, REST);
    let outcomes = carry(&adapter, vec![parcel(1, 1, "a", "s"), parcel(2, 2, "a", "t")]).await;
    for outcome in &outcomes {
        let Outcome::NotTried { why, after } = outcome else { panic!("{outcomes:?}") };
        assert_eq!((why.as_str(), *after), ("errcode 130101: send too fast, exceed 20 times per minute", REST));
    }
    assert!(adapter.pause(LANE) > REST - DEADLINE);
    pass(REST).await;
    assert_eq!(adapter.pause(LANE), Duration::ZERO);
    let outcomes = carry(&adapter, vec![parcel(1, 1, "a", "s"), parcel(2, 2, "a", "t")]).await;
    assert!(outcomes.iter().all(is_sent), "{outcomes:?}");
    let answers: Vec<String> = (0..3).map(|_| sink.next()["answer"].to_string()).collect();
    assert_eq!(answers.iter().filter(|answer| answer.contains("errcode 0")).count(), 2, "{answers:?}");
}

#[tokio::test]
async fn a_hundred_at_once_are_twenty_messages_which_dingtalk_takes() {
    let sink = Sink::start(&[]);
    let adapter = sink.adapter(None, REST);
    let parcels: Vec<Parcel> = (0..100).map(|n| parcel(n, n, &format!("p{n}"), &format!("Subject {n}"))).collect();
    let outcomes = carry(&adapter, parcels).await;
    assert!(outcomes.len() == 100 && outcomes.iter().all(is_sent), "{outcomes:?}");
    let late = carry(&adapter, vec![parcel(100, 100, "a", "s")]).await;
    assert!(matches!(&late[..], [Outcome::NotTried { after, .. }] if *after <= WINDOW), "{late:?}");
    let (code, messages, _) = sink.stop();
    assert_eq!((code, messages.len()), (0, 20));
    assert!(messages.iter().all(|message| message["answer"] == "errcode 0: ok"), "{messages:?}");
    let digest = &messages[19];
    assert_eq!(
        (digest["title"].as_str(), digest["people"].as_array().map(Vec::len)),
        (Some("81 notifications"), Some(81))
    );
    for n in 0..100 {
        let at = usize::try_from(n.min(19)).expect("small");
        let line = messages[at]["text"].as_str().expect("a text");
        assert!(line.contains(&format!("Subject {n}")) && line.contains(&format!("@p{n}")), "{line}");
    }
}

#[tokio::test]
async fn each_way_of_failing_that_the_sink_has_is_told_and_nothing_counts_as_sent() {
    for (fail, told) in [
        ("500", "HTTP 500"),
        ("404", "HTTP 404"),
        ("rubbish", "no errcode"),
        ("redirect", "HTTP 302"),
        ("close", "connection"),
        ("300001", "errcode 300001"),
        ("-1", "errcode -1"),
        ("777", "errcode 777"),
    ] {
        let sink = Sink::start(&["--fail", fail]);
        let outcomes = carry(&sink.adapter(None, REST), vec![parcel(1, 1, "a", "s")]).await;
        let is_held = ["redirect", "300001"].contains(&fail);
        let reason = match &outcomes[0] {
            Outcome::Later { reason, .. } if !is_held => reason,
            Outcome::Held { why, .. } if is_held => why,
            other => panic!("{fail}: {other:?}"),
        };
        assert!(reason.contains(told) && !reason.contains("sink"), "{fail}: {reason}");
        drop(sink.next());
    }
    let sink = Sink::start(&["--fail", "430102"]);
    let outcomes = carry(&sink.adapter(None, REST), vec![parcel(1, 1, "a", "s")]).await;
    assert!(matches!(&outcomes[..], [Outcome::Never { .. }]), "{outcomes:?}");
}

#[tokio::test]
async fn a_parcel_of_a_robot_that_is_not_in_the_settings_has_nobody_who_would_say_it() {
    let adapter = adapter("http://127.0.0.1:9/robot/send?access_token=x", None, PER_MINUTE, REST);
    let outcomes = adapter.send("gone", vec![parcel(1, 1, "a", "s")], &Progress::unheard()).await;
    let Outcome::Never { reason } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(reason.contains("[dingtalk.robots.gone]"), "{reason}");
    assert_eq!(adapter.pause("gone"), Duration::ZERO);
}

/// A server whose robots' files hold this address, with this secret.
pub fn with_robots(url: &str, secret: &str, robots: &[(&str, &str)], folder: &Path) -> Setup {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("ours to write");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        path
    };
    let (url_file, secret_file) = (write("url", url), write("secret", secret));
    let mut text = "[outbox]\nschedule = [\"1s\"]\n".to_owned();
    for (name, categories) in robots {
        text.push_str(&format!(
            "[dingtalk.robots.{name}]\nurl_file = '{}'\nsecret_file = '{}'\ncategories = [{categories}]\n",
            url_file.display(),
            secret_file.display()
        ));
    }
    Setup::serve().config(&write("tidings.toml", &text))
}

/// The newest delivery.
fn newest(server: &Server) -> Value {
    server.operate(Ask::get("/v1/deliveries?limit=1")).expect(200).json()["deliveries"][0].clone()
}

#[test]
fn a_robot_with_a_wrong_secret_is_held_and_the_next_start_with_the_right_one_says_all() {
    let sink = Sink::start(&["--secret", "SEC123"]);
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = with_robots(&sink.url, "SEC-WRONG", &[("desk", "'loans'")], folder.path()).start();
    server.operate(Ask::put("/v1/users/alice").json(&json!({ "dingtalk": "manager4220" }))).expect(201);
    let body = json!({ "to": "user:alice", "title": "Due", "category": "loans", "via": ["dingtalk"] });
    server.publish(&body);
    // More often than the schedule has tries.
    for _ in 0..3 {
        assert_eq!(sink.next()["answer"], "errcode 310000: sign not match");
    }
    let held = server.send(&Ask::get("/readyz")).expect(200).json()["held"][0].clone();
    assert!(held.as_str().is_some_and(|held| held.starts_with("dingtalk `desk` since ")), "{held}");
    let waits = wait_for("it to be put back", || Some(newest(&server)).filter(|told| told["state"] == "pending"));
    assert_eq!((&waits["attempts"], &waits["held"]), (&json!(0), &json!("errcode 310000: sign not match")), "{waits}");

    server.terminate();
    let data = server.stop();
    let server = with_robots(&sink.url, "SEC123", &[("desk", "'loans'")], folder.path()).on(data).start();
    let said = wait_for("it to be said", || Some(sink.next()).filter(|said| said["answer"] == "errcode 0: ok"));
    assert_eq!(said["title"], "Due");
    let sent = wait_for("it to be sent", || Some(newest(&server)).filter(|told| told["state"] == "sent"));
    assert_eq!(sent["attempts"], 1, "{sent}");
}

#[test]
fn what_waits_for_a_robot_that_was_renamed_is_given_up_with_a_word_and_a_retry_hands_it_over() {
    let sink = Sink::start(&["--secret", "SEC123"]);
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing passes, so that it waits.
    let server = with_robots(&sink.url, "SEC-WRONG", &[("desk", "'loans'")], folder.path()).start();
    server.operate(Ask::put("/v1/users/alice").json(&json!({ "dingtalk": "manager4220" }))).expect(201);
    let body = json!({ "to": "user:alice", "title": "Due", "category": "loans", "via": ["dingtalk"] });
    server.publish(&body);
    sink.next();
    let data = server.stop();
    let server = with_robots(&sink.url, "SEC123", &[("front", "'loans'")], folder.path()).on(data).start();
    let dead = wait_for("it to be given up", || Some(newest(&server)).filter(|told| told["state"] == "dead"));
    assert!(dead["reason"].as_str().is_some_and(|reason| reason.contains("`desk`")), "{dead}");
    assert!(server.log().contains("robots that are not in the settings any more"), "{}", server.log());

    let retried = run(&["delivery", "retry", "--dead", "--data", arg(server.data())], "").well();
    assert!(retried.out.contains("Trying 1 delivery again"), "{retried:?}");
    let said = wait_for("it to be said", || Some(sink.next()).filter(|said| said["answer"] == "errcode 0: ok"));
    assert_eq!(said["title"], "Due");
}

#[test]
fn the_sink_listens_on_this_machine_alone_and_says_so() {
    for args in [["--listen", "0.0.0.0:0"], ["--smtp", "192.0.2.1:25"], ["--listen", "[::]:0"]] {
        let said = run(&[&["sink"], &args[..]].concat(), "");
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{said:?}");
        assert!(said.err.contains("is not of this machine alone"), "{said:?}");
    }
    assert_eq!(run(&["sink", "--fail", "sometimes"], "").code, 64);
}

#[test]
fn the_sink_takes_mail_as_a_mail_server_does() {
    let mut sink = tidings();
    sink.args(["sink", "--json", "--listen", "127.0.0.1:0", "--smtp", "127.0.0.1:0"]);
    let mut child = sink.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary is built");
    let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it listens");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let address = ready["smtp"].as_str().expect("an address").trim_start_matches("smtp://").to_owned();
    let said = smtp(&address);
    assert!(said.ends_with("250 taken\r\n221 bye\r\n"), "{said}");
    line.clear();
    out.read_line(&mut line).expect("it prints");
    child.kill().and_then(|()| child.wait()).expect("it is ours");
    let mail: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((mail["medium"].as_str(), mail["title"].as_str()), (Some("email"), Some("Due")));
    assert_eq!((mail["from"].as_str(), mail["text"].as_str()), (Some("a@b.example"), Some(".dot\r\n")));
    assert_eq!(mail["faults"], serde_json::json!(["there is no header date", "there is no header message-id"]));
}

/// Hands a mail over, without waiting for each answer; all that was answered.
fn smtp(address: &str) -> String {
    use std::io::Write as _;
    let mut socket = std::net::TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    let talk = "EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n\
                From: a@b.example\r\nTo: c@d.example\r\nSubject: Due\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
    socket.write_all(talk.as_bytes()).expect("it reads");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("it closes after QUIT");
    said
}

/// A server that answers in its own way.
struct Scripted {
    address: SocketAddr,
    /// When each request came, and its body.
    came: Arc<Mutex<Vec<(Instant, String)>>>,
}

/// What is answered to a body; `None` is nothing, ever.
type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Scripted {
    async fn start(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::start_with(None, Arc::new(script)).await
    }

    async fn start_with(acceptor: Option<TlsAcceptor>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let came = Arc::new(Mutex::new(Vec::new()));
        let kept = came.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (script, kept, acceptor) = (script.clone(), kept.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => exchange(socket, &script, &kept).await,
                        // A client that does not trust us goes.
                        Some(acceptor) => {
                            if let Ok(socket) = acceptor.accept(socket).await {
                                exchange(socket, &script, &kept).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, came }
    }

    fn url(&self) -> String {
        format!("http://{}/robot/send?access_token=s3cret", self.address)
    }

    fn bodies(&self) -> Vec<String> {
        self.came.lock().expect("nobody panics with it").iter().map(|(_, body)| body.clone()).collect()
    }
}

async fn exchange(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    script: &Arc<Script>,
    came: &Mutex<Vec<(Instant, String)>>,
) {
    let mut read = Vec::new();
    let body = loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.expect("every request has its length") {
                break body.to_owned();
            }
        }
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    };
    came.lock().expect("nobody panics with it").push((Instant::now(), body.clone()));
    match script(&body) {
        Some(answer) => drop(socket.write_all(answer.as_bytes()).await),
        // Until the client goes.
        None => drop(socket.read_buf(&mut read).await),
    }
}

fn http(status: &str, more: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
}

fn ok() -> String {
    http("200 OK", "", r#"{"errcode":0,"errmsg":"ok"}"#)
}

#[tokio::test]
async fn what_no_server_should_answer_is_later_within_the_patience() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    elsewhere.set_nonblocking(true).expect("a socket can be");
    let place = format!("location: http://{}/\r\n", elsewhere.local_addr().expect("it is bound"));
    let long = format!("{{\"errcode\":0,\"errmsg\":\"{}\"}}", "x".repeat(64 * 1024));
    for (answer, told) in [
        (None, "no answer within 1 s"),
        (Some(String::new()), "the connection failed"),
        (Some("SSH-2.0-OpenSSH_9.2\r\n".to_owned()), "the connection failed"),
        (Some("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"errcode\":0".to_owned()), "the connection failed"),
        (Some(http("200 OK", "", &long)), "more than 65536 bytes"),
        (Some(http("200 OK", "", "<html>")), "no errcode"),
        (Some(http("200 OK", "", r#"{"errcode":"0"}"#)), "no errcode"),
        (Some(http("307 Temporary Redirect", &place, "")), "HTTP 307"),
        (Some(http("503 Service Unavailable", "retry-after: 7\r\n", "")), "HTTP 503"),
    ] {
        let script = answer.clone();
        let server = Scripted::start(move |_| script.clone()).await;
        let adapter = adapter(&server.url(), None, PER_MINUTE, REST).with_patience(Duration::from_secs(1));
        let asked = Instant::now();
        let outcomes = carry(&adapter, vec![parcel(1, 1, "a", "s"), parcel(2, 2, "a", "t")]).await;
        assert!(asked.elapsed() < DEADLINE, "{answer:?}");
        match &outcomes[..] {
            [Outcome::Later { reason, after }, Outcome::NotTried { why, .. }] => {
                assert!(reason.contains(told) && why.contains(told), "{answer:?}: {outcomes:?}");
                assert_eq!(*after == Some(Duration::from_secs(7)), told == "HTTP 503", "{after:?}");
                assert!(adapter.pause(LANE) > Duration::from_secs(3), "the robot rests");
            }
            [Outcome::Held { why, .. }, Outcome::Held { .. }] => {
                assert!(told == "HTTP 307" && why.contains(told), "{outcomes:?}");
            }
            other => panic!("{answer:?}: {other:?}"),
        }
        assert!(!format!("{outcomes:?}").contains("s3cret"), "{outcomes:?}");
        assert_eq!(server.bodies().len(), 1, "the second is not tried where the first failed");
    }
    let accepted = elsewhere.accept().expect_err("nobody followed the redirect");
    assert_eq!(accepted.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn what_poisons_a_digest_is_found_and_the_others_are_sent() {
    let server = Scripted::start(|body| {
        let refused = http("200 OK", "", r#"{"errcode":430102,"errmsg":"contains inappropriate text"}"#);
        Some(if body.contains("poison") { refused } else { ok() })
    })
    .await;
    let adapter = adapter(&server.url(), None, 4, REST);
    let mut left: BTreeMap<u64, Parcel> =
        (0..8).map(|n| (n, parcel(n, n, "a", if n == 5 { "poison" } else { "good" }))).collect();
    let mut never = Vec::new();
    for _ in 0..5 {
        let parcels: Vec<Parcel> = left.values().cloned().collect();
        let outcomes = carry(&adapter, parcels.clone()).await;
        for (parcel, outcome) in parcels.iter().zip(outcomes) {
            match outcome {
                Outcome::Sent { .. } => drop(left.remove(&parcel.delivery.0)),
                Outcome::Never { .. } => {
                    never.push(parcel.delivery.0);
                    left.remove(&parcel.delivery.0);
                }
                Outcome::Later { .. } | Outcome::NotTried { .. } => {}
                Outcome::Held { why, .. } => panic!("{why}"),
            }
        }
        pass(WINDOW).await;
    }
    assert_eq!((left.len(), never), (0, vec![5]));
}

#[tokio::test]
async fn an_errcode_that_nobody_knows_holds_up_no_other_and_costs_a_digest_no_try() {
    let server = Scripted::start(|body| {
        let unknown = http("200 OK", "", r#"{"errcode":987654,"errmsg":"what is it"}"#);
        Some(if body.contains("strange") { unknown } else { ok() })
    })
    .await;
    let adapter = adapter(&server.url(), None, 4, REST);
    let subject = |n: u64| if n == 0 || n == 5 { "strange" } else { "good" };
    let parcels: Vec<Parcel> = (0..8).map(|n| parcel(n, n, "a", subject(n))).collect();
    let outcomes = carry(&adapter, parcels.clone()).await;
    let Outcome::Later { reason, after: None } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(reason.contains("errcode 987654"), "{reason}");
    assert!(outcomes[1..3].iter().all(is_sent), "the robot does not rest for it: {outcomes:?}");
    for outcome in &outcomes[3..] {
        let Outcome::NotTried { why, after } = outcome else { panic!("{outcomes:?}") };
        assert!(why.contains("errcode 987654") && why.contains("goes by itself now"), "{why}");
        assert!(!after.is_zero(), "whether it was about the digest is not known");
    }
    // Each alone now: the one that was strange pays for itself, and so does the first, which gets into no digest.
    pass(WINDOW).await;
    let again = |at: &[usize]| at.iter().map(|at| parcels[*at].clone()).collect::<Vec<_>>();
    let outcomes = carry(&adapter, again(&[0, 3, 4, 5])).await;
    assert!(
        matches!(&outcomes[0], Outcome::Later { .. }) && matches!(&outcomes[3], Outcome::Later { .. }),
        "{outcomes:?}"
    );
    assert!(outcomes[1..3].iter().all(is_sent), "{outcomes:?}");
    pass(WINDOW).await;
    let outcomes = carry(&adapter, again(&[6, 7])).await;
    assert!(outcomes.iter().all(is_sent), "{outcomes:?}");
}

#[tokio::test]
async fn no_more_is_asked_for_than_the_messages_of_this_minute_hold() {
    let server = Scripted::start(|_| Some(ok())).await;
    let adapter = adapter(&server.url(), None, 2, REST);
    let before = adapter.most_together(LANE);
    assert!((100..=200).contains(&before), "two digests of short subjects: {before}");
    // Links so long that few of them fit.
    let long = |n: u64| {
        let mut parcel = parcel(n, n, "a", "s");
        parcel.letter.click = Some(format!("https://app.example/{}", "x".repeat(1_900)));
        parcel
    };
    let outcomes = carry(&adapter, (0..before as u64).map(long).collect()).await;
    let held = outcomes.iter().filter(|outcome| is_sent(outcome)).count();
    assert!((2..=30).contains(&held), "{held}");
    assert_eq!(adapter.most_together(LANE), 1, "it has said all that it may in this minute");
    pass(WINDOW).await;
    let after = adapter.most_together(LANE);
    assert!(after <= held && after + 2 > held, "what fitted: {after} of {held}");
    let outcomes = carry(&adapter, (0..after as u64).map(|n| parcel(1_000 + n, 1_000 + n, "a", "s")).collect()).await;
    assert!(outcomes.iter().all(is_sent), "{outcomes:?}");
    pass(WINDOW).await;
    assert_eq!(adapter.most_together(LANE), after * 2, "and more again where all had room");
}

/// Seeds of the walk below; `TIDINGS_DINGTALK_SEED` names another.
const SEEDS: [u64; 2] = [7, 4_220];

/// Bursts and silences for an hour of the runtime's clock, with failures in between; what is later comes again.
#[tokio::test]
async fn for_an_hour_of_bursts_nobody_is_told_twice_no_minute_has_too_many_and_no_message_is_too_long() {
    let named = std::env::var("TIDINGS_DINGTALK_SEED").ok().map(|seed| vec![seed.parse().expect("a number")]);
    for seed in named.unwrap_or(SEEDS.to_vec()) {
        println!("seed {seed}");
        walk(seed).await;
    }
}

async fn walk(seed: u64) {
    let mut dice = Dice::new(seed);
    let fails = Arc::new(Mutex::new(Dice::new(seed + 1)));
    let server = Scripted::start(move |_| {
        let busy = fails.lock().expect("nobody panics with it").below(20) == 0;
        Some(if busy { http("200 OK", "", r#"{"errcode":-1,"errmsg":"busy"}"#) } else { ok() })
    })
    .await;
    let adapter = adapter(&server.url(), None, PER_MINUTE, REST);
    let mut waiting: Vec<Parcel> = Vec::new();
    let mut sent = BTreeSet::new();
    let (mut delivery, mut notification) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3_600) || !waiting.is_empty() {
        if begun.elapsed() < Duration::from_secs(3_600) {
            for _ in 0..dice.below(12) {
                notification += 1;
                for person in 0..=dice.below(3) {
                    delivery += 1;
                    let subject = "长 subject ".repeat(usize::try_from(dice.below(40)).expect("small"));
                    waiting.push(parcel(delivery, notification, &format!("p{delivery}x{person}"), &subject));
                }
            }
        }
        let outcomes = carry(&adapter, waiting.clone()).await;
        assert_eq!(outcomes.len(), waiting.len());
        let mut later = Vec::new();
        for (parcel, outcome) in std::mem::take(&mut waiting).into_iter().zip(outcomes) {
            match outcome {
                Outcome::Sent { .. } => assert!(sent.insert(parcel.delivery), "{parcel:?} was sent before"),
                Outcome::Later { .. } | Outcome::NotTried { .. } => later.push(parcel),
                Outcome::Never { reason } | Outcome::Held { why: reason, .. } => panic!("{reason}"),
            }
        }
        waiting = later;
        pass(Duration::from_millis(dice.below(15_000)) + adapter.pause(LANE) / 2).await;
    }
    let came = server.came.lock().expect("nobody panics with it");
    for (first, (from, body)) in came.iter().enumerate() {
        let within =
            came[first..].iter().take_while(|(at, _)| at.duration_since(*from) <= Duration::from_secs(60)).count();
        assert!(within <= PER_MINUTE, "{within} in a minute");
        assert!(body.len() <= MAX_BYTES, "{} bytes", body.len());
    }
    // A refused message is said again; what was taken is said once.
    let expected: u64 = delivery;
    assert_eq!(u64::try_from(sent.len()).expect("small"), expected);
    println!("{expected} parcels of {notification} notifications in {} messages", came.len());
}

#[tokio::test]
async fn over_tls_a_certificate_is_trusted_where_its_authority_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    let names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", arg(&key), "-out"];
    let said = Command::new("openssl")
        .args(request)
        .args(leaf)
        .args(names)
        .arg(&certificate)
        .output()
        .expect("openssl is there");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let chain = CertificateDer::pem_file_iter(&certificate).expect("a file").collect::<Result<_, _>>().expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).expect("a key"))
        .expect("they belong together");
    let server = Scripted::start_with(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(|_: &str| Some(ok()))).await;
    let url = server.url().replace("http://", "https://");
    let send = async |authority| {
        let robot = Robot {
            name: RobotName::new(LANE).expect("a name"),
            address: Address::parse(&url).expect("an address"),
            secret: None,
            per_minute: PER_MINUTE,
        };
        let trusted = Arc::new(tls::client(authority).expect("a certificate"));
        carry(&DingTalk::new(vec![robot], REST, trusted, Clock::system()), vec![parcel(1, 1, "a", "s")]).await
    };
    let outcomes = send(Some(certificate.as_path())).await;
    assert!(outcomes.iter().all(is_sent), "{outcomes:?}");
    let outcomes = send(None).await;
    let Outcome::Held { why, remedy } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(why.contains("shows a certificate that is not trusted") && remedy.contains("ca_file"), "{outcomes:?}");
    assert_eq!(server.bodies().len(), 1, "what is not trusted is told nothing");
}
