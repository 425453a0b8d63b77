//! One line to the relay: opening it step by step, and handing mails over on it one after another.
//!
//! lettre speaks SMTP; here it is said how far a conversation came, which answer each step needs, and what a failure means.
//! **Invariant**: a step is passed only on the very answer that it needs. A relay whose answers have fallen behind (because
//! somebody put one in before STARTTLS) is found out by that, and no `250` is taken for another's.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::pki_types::ServerName;

use super::letter::Mail;
use super::relay::{Account, Privacy, Relay};
use super::socket::{Bounded, Socket};
use super::trust::Trust;
use crate::deliver::one_line;

/// How long one address of the relay may take to accept a connection; the next is tried after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of the relay that are tried at most.
const MAX_ADDRESSES: usize = 8;
/// How long a goodbye may take.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A step of handing a mail over, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Finding the relay's address.
    #[default]
    Address,
    Connect,
    /// Its greeting, and what it says to ours.
    Greeting,
    Tls,
    SignIn,
    Sender,
    Recipient,
    /// The mail itself, up to the answer to its end.
    Content,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Tls => "tls",
            Self::SignIn => "sign-in",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Content => "content",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Address => "finding the relay's address",
            Self::Connect => "connecting to the relay",
            Self::Greeting => "the relay's greeting",
            Self::Tls => "securing the line with TLS",
            Self::SignIn => "signing in at the relay",
            Self::Sender => "the sender (MAIL FROM)",
            Self::Recipient => "the recipient (RCPT TO)",
            Self::Content => "the mail itself (DATA)",
        }
    }
}

/// What went wrong in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The relay said no, with this code.
    Refused {
        code: u16,
        text: String,
    },
    /// It said something, but not what the step needs.
    Unexpected(String),
    /// It is not who it should be, or speaks no TLS that we understand.
    Tls(String),
    /// The line could not be had, or broke.
    BrokenOff(String),
    NoAnswer(Duration),
    /// The settings and the relay do not go together.
    SetUp(&'static str),
    /// Our own side failed; the log has it.
    Panicked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, text } => write!(f, "refused with {code} {text}"),
            Self::Unexpected(said) => write!(f, "not the answer this needs: {said}"),
            Self::Tls(error) | Self::BrokenOff(error) => f.write_str(error),
            Self::NoAnswer(waited) => write!(f, "no answer within {} s", waited.as_secs_f64()),
            Self::SetUp(what) => f.write_str(what),
            Self::Panicked => f.write_str("the server failed at this mail and has logged why"),
        }
    }
}

/// Where a conversation ended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub step: Step,
    pub why: Why,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step.words(), self.why)
    }
}

/// A step that was passed, and what was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub step: Step,
    pub told: String,
}

/// How far a conversation came. It outlives the conversation, so that one that was given up can be told of.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) at: Step,
    pub(super) passed: Vec<Passed>,
}

impl Course {
    pub(super) fn begin(&mut self, step: Step) {
        self.at = step;
    }

    fn pass(&mut self, told: impl Into<String>) {
        self.passed.push(Passed { step: self.at, told: told.into() });
    }

    pub(super) fn fault(&self, why: Why) -> Fault {
        Fault { step: self.at, why }
    }

    /// What a step came to.
    fn check<T>(&self, result: Result<T, SmtpError>) -> Result<T, Fault> {
        result.map_err(|error| self.fault(why(&error)))
    }
}

/// Where a line leads, and how it is made.
pub(super) struct Way {
    pub(super) relay: Relay,
    pub(super) trust: Trust,
    /// The name we greet with.
    pub(super) hello: ClientId,
}

/// An open line, signed in.
pub(super) struct Line {
    smtp: AsyncSmtpConnection,
    /// Mails that were begun on it.
    pub(super) mails: u32,
    /// When it was last used.
    pub(super) used: Instant,
    /// Whether a mail was broken off between its beginning and its content.
    begun: bool,
}

impl Line {
    /// Finds the relay, connects, greets, secures the line and signs in.
    pub(super) async fn open(way: &Way, course: &mut Course) -> Result<Self, Fault> {
        let tcp = connect(&way.relay, course).await?;
        let socket = match &way.trust {
            Trust::Implicit(connector) => {
                course.begin(Step::Tls);
                let host = way.relay.host.clone();
                let name = ServerName::try_from(host)
                    .map_err(|_| course.fault(Why::SetUp("a certificate can't be made out to this host")))?;
                let shaken = connector.connect(name, tcp).await;
                let tls = shaken.map_err(|e| course.fault(of_handshake(&e)))?;
                course.pass(format!("TLS from the first byte on; the certificate is right for {}", way.relay.host));
                Socket::Tls(Box::new(tls))
            }
            Trust::StartTls(_) | Trust::Nobody => Socket::Plain(tcp),
        };
        course.begin(Step::Greeting);
        let greeted = AsyncSmtpConnection::connect_with_transport(Box::new(Bounded::new(socket)), &way.hello).await;
        let mut smtp = course.check(greeted)?;
        course.pass(format!("{} greets", one_line(smtp.server_info().name())));
        let is_private = match &way.trust {
            Trust::Implicit(_) => true,
            Trust::StartTls(parameters) if smtp.can_starttls() => {
                course.begin(Step::Tls);
                course.check(smtp.starttls(parameters.clone(), &way.hello).await)?;
                course.pass(format!("STARTTLS; the certificate is right for {}", way.relay.host));
                true
            }
            Trust::StartTls(_) if way.relay.privacy == Privacy::Required => {
                course.begin(Step::Tls);
                return Err(course.fault(Why::SetUp("the relay offers no STARTTLS, without which nothing is sent")));
            }
            Trust::StartTls(_) | Trust::Nobody => false,
        };
        let mut line = Self { smtp, mails: 0, used: Instant::now(), begun: false };
        if let Some(account) = &way.relay.account {
            course.begin(Step::SignIn);
            if !is_private && !way.relay.is_loopback() {
                let told = "the line is not private, and the password would go over it for everybody to read";
                return Err(course.fault(Why::SetUp(told)));
            }
            line.sign_in(account, course).await?;
        }
        Ok(line)
    }

    async fn sign_in(&mut self, Account { user, password }: &Account, course: &mut Course) -> Result<(), Fault> {
        let Some(password) = password else {
            return Err(
                course.fault(Why::SetUp("there is no password: `[email] password_file` names the file that has it"))
            );
        };
        let Some(mechanism) = self.smtp.server_info().get_auth_mechanism(&[Mechanism::Plain, Mechanism::Login]) else {
            return Err(course.fault(Why::SetUp("the relay offers neither AUTH PLAIN nor AUTH LOGIN on this line")));
        };
        let credentials = Credentials::new(user.clone(), password.clone());
        let answer = course.check(self.smtp.auth(&[mechanism], &credentials).await)?;
        self.need(&answer, 235..=235, course)?;
        course.pass(format!("as {} ({mechanism})", one_line(user)));
        Ok(())
    }

    /// Hands a mail over; what the relay said to its end.
    pub(super) async fn carry(&mut self, mail: &Mail, course: &mut Course) -> Result<String, Fault> {
        course.begin(Step::Sender);
        self.mails += 1;
        if std::mem::replace(&mut self.begun, true) {
            let answer = course.check(self.smtp.command(Rset).await)?;
            self.need(&answer, 250..=250, course)?;
        }
        let answer = course.check(self.smtp.command(MailFrom::new(Some(mail.from.clone()), Vec::new())).await)?;
        self.need(&answer, 250..=250, course)?;
        course.pass(mail.from.to_string());
        course.begin(Step::Recipient);
        let answer = course.check(self.smtp.command(Rcpt::new(mail.to.clone(), Vec::new())).await)?;
        self.need(&answer, 250..=252, course)?;
        course.pass(mail.to.to_string());
        course.begin(Step::Content);
        let answer = course.check(self.smtp.command(Data).await)?;
        self.need(&answer, 354..=354, course)?;
        let answer = course.check(self.smtp.message(&mail.bytes).await)?;
        self.need(&answer, 250..=250, course)?;
        let said = told(&answer);
        course.pass(said.clone());
        self.begun = false;
        self.used = Instant::now();
        Ok(said)
    }

    /// Says goodbye, as far as the relay listens.
    pub(super) async fn leave(mut self) {
        // It ends either way.
        let _ = timeout(QUIT_TIMEOUT, self.smtp.command(Quit)).await;
    }

    #[expect(clippy::unused_self, reason = "an answer is always one of this line")]
    fn need(&self, answer: &Response, codes: std::ops::RangeInclusive<u16>, course: &Course) -> Result<(), Fault> {
        if codes.contains(&u16::from(answer.code())) {
            Ok(())
        } else {
            Err(course.fault(Why::Unexpected(told(answer))))
        }
    }
}

async fn connect(relay: &Relay, course: &mut Course) -> Result<TcpStream, Fault> {
    course.begin(Step::Address);
    let found = lookup_host((relay.host.as_str(), relay.port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|e| course.fault(Why::BrokenOff(one_line(&e.to_string()))))?.take(MAX_ADDRESSES).collect();
    let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    course.pass(format!("{} is {}", relay.host, listed.join(", ")));
    course.begin(Step::Connect);
    let mut last = Why::BrokenOff("the name has no address".to_owned());
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Each command waits for its answer, so none should wait for more of its kind.
                let _ = tcp.set_nodelay(true);
                course.pass(format!("{address} accepts"));
                return Ok(tcp);
            }
            Ok(Err(e)) => last = Why::BrokenOff(format!("{address}: {}", one_line(&e.to_string()))),
            Err(_) => last = Why::NoAnswer(CONNECT_TIMEOUT),
        }
    }
    Err(course.fault(last))
}

/// An answer in one line: its code and all its text.
fn told(answer: &Response) -> String {
    let text: Vec<&str> = answer.message().collect();
    one_line(&format!("{} {}", answer.code(), text.join(" ")))
}

/// What an error of lettre's means.
fn why(error: &SmtpError) -> Why {
    let said = error.source().map(|source| one_line(&source.to_string())).unwrap_or_default();
    if let Some(code) = error.status() {
        return Why::Refused { code: code.into(), text: said };
    }
    if let Some(tls) = tls_error(error) {
        return Why::Tls(tls.to_string());
    }
    match said.as_str() {
        // lettre's words for a line that ended.
        "incomplete response" | "" => Why::BrokenOff("the relay hung up".to_owned()),
        _ if error.is_response() => Why::Unexpected(said),
        _ => Why::BrokenOff(said),
    }
}

fn of_handshake(error: &io::Error) -> Why {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(tls) => Why::Tls(tls.to_string()),
        None => Why::BrokenOff(one_line(&error.to_string())),
    }
}

/// The TLS error that an error is about, where it is.
fn tls_error(error: &SmtpError) -> Option<&TlsError> {
    let mut next = error.source();
    while let Some(cause) = next {
        let inside = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = cause.downcast_ref().or_else(|| inside.and_then(|inner| inner.downcast_ref()));
        if found.is_some() {
            return found;
        }
        next = cause.source();
    }
    None
}
