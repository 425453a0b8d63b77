//! Mail: one parcel, one mail, handed to the relay that the operator named.
//!
//! Data passes `letter` (a parcel becomes the bytes of a mail, its HTML on a `page`) -> `pool` (a place, as `allowance` has them; on it a line
//! that is open already, or a new one by `line` over `socket`, secured by `trust`) -> the relay's answer -> an [`Outcome`]. What
//! each answer means stands at [`outcome`].
//!
//! **Invariant**: a mail goes out twice only where the relay may have taken it and could not say so; it has the same
//! Message-ID then. A line that was dead already is replaced before anything of the mail was taken.
//! **Invariant**: every mail ends within `timeout`, whatever the relay does, after waiting for a line as long at most; lettre
//! bounds only the connecting. What the relay has taken is noted before a line is left, however long that takes.
//! **Invariant**: nobody's mail pays for what comes before it: until the relay has taken the sender nothing was said of the mail,
//! and what goes wrong holds up all of them alike. What only this mail may have brought about holds up none, nor does a line that
//! is not let in while others of ours are: there are fewer of them then.
//!
//! Deliberately not here: SPF, DKIM and the delivery to the recipients' own servers, which are the relay's.

mod allowance;
mod letter;
mod line;
mod pace;
mod page;
mod pool;
mod relay;
mod socket;
mod trial;
mod trust;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lettre::transport::smtp::extension::ClientId;
use tokio::time::{Instant, timeout};

use allowance::Lowered;
use letter::{Mail, Writer};
use line::{Course, Line, Way};
use pace::Pace;
use pool::{Place, Pool};
use trial::advice;
use trust::Trust;

pub use letter::Links;
pub use line::{Fault, Passed, Step, Why};
pub use pace::Rate;
pub use relay::{Account, HIDDEN_PASSWORD, Privacy, Relay, Sender};
pub use trial::Trial;

use super::{Adapter, Outcome, Progress, SetUp, one_line};
use crate::broker::UnsubscribeKey;
use crate::model::{Medium, Parcel};

/// How mail is sent.
#[derive(Clone, Debug)]
pub struct Config {
    pub relay: Relay,
    pub from: Sender,
    /// Where the relay's password is; whoever builds the server reads it into `relay`.
    pub password_file: Option<PathBuf>,
    /// Certificate authorities besides this machine's.
    pub ca_file: Option<PathBuf>,
    /// How fast one domain is written to; `None` is as fast as it goes.
    pub per_domain: Option<Rate>,
    /// Mails to one domain that are on their way at once, where there is no rate.
    pub together_per_domain: usize,
    /// Lines to the relay at once at most, to whichever domains.
    pub connections: usize,
    /// How long one mail may take, from finding the relay to its last answer.
    pub timeout: Duration,
    /// The address that people's browsers know this server by; without it mails bear no link to it.
    pub public_url: Option<String>,
    /// What makes such links; the server fills it in.
    pub unsubscribe: Option<UnsubscribeKey>,
}

/// Why no mail can be sent with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    #[error("[email] from is an address that mail can't be sent from: name another one")]
    Sender,
    #[error("{}, named in [email] ca_file, {why}", path.display())]
    Authorities { path: PathBuf, why: String },
    #[error("TLS can't be set up: {0}")]
    Tls(String),
}

/// Carries mail.
pub struct Email {
    way: Way,
    writer: Writer,
    pool: Pool,
    pace: Pace,
    together: usize,
    timeout: Duration,
}

impl Email {
    /// Reads the certificate authorities; nothing is connected to yet.
    ///
    /// # Errors
    /// [`ConfigFault`], whose text says what to do.
    pub fn new(config: Config) -> Result<Self, ConfigFault> {
        let trust = Trust::new(&config.relay, config.ca_file.as_deref())?;
        let links = config.public_url.zip(config.unsubscribe).map(|(public_url, key)| Links { public_url, key });
        let writer = Writer::new(&config.from, links).ok_or(ConfigFault::Sender)?;
        Ok(Self {
            way: Way { relay: config.relay, trust, hello: ClientId::default() },
            writer,
            pool: Pool::new(config.connections),
            pace: Pace::new(config.per_domain),
            // A rate is one mail after another.
            together: if config.per_domain.is_some() { 1 } else { config.together_per_domain },
            timeout: config.timeout,
        })
    }

    /// Sends the mail of the parcel at this place of a call.
    async fn deliver(&self, at: usize, parcel: &Parcel, progress: &Progress) -> Outcome {
        let not_tried = |why: &str| Outcome::NotTried { why: why.to_owned(), after: Duration::ZERO };
        // Waiting for a line of ours is no fault of the relay's, and each mail that is on one ends in time.
        let waiting = timeout(self.timeout, self.pool.place());
        let mut place = tokio::select! {
            biased;
            () = progress.draining() => return not_tried("the server is about to end"),
            place = waiting => match place {
                Ok(place) => place,
                Err(_) => return not_tried("every line to the relay was taken"),
            },
        };
        let mut course = Course::default();
        let work = AssertUnwindSafe(async {
            let mail = self.writer.mail(parcel).map_err(Undone::NoMail)?;
            self.carry(&mail, &mut course, &mut place).await.map_err(Undone::Fault)
        });
        // lettre 0.11.23 panics at some answers, such as a blank line to EHLO.
        let ended = timeout(self.timeout, work.catch_unwind()).await;
        let result = match ended {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                tracing::error!(delivery = %parcel.delivery, "handing a mail over panicked");
                Err(Undone::Fault(course.fault(Why::Panicked)))
            }
            Err(_) => Err(Undone::Fault(course.fault(Why::NoAnswer(self.timeout)))),
        };
        let outcome = match result {
            Ok(answer) => Outcome::Sent { answer },
            Err(Undone::NoMail(reason)) => Outcome::Never { reason },
            Err(Undone::Fault(fault)) if is_one_too_many(&fault) && place.refused() != Lowered::No => {
                not_tried(&one_line(&format!("the relay takes no more lines of ours for now: {fault}")))
            }
            Err(Undone::Fault(fault)) => outcome(&fault, self.way.relay.privacy),
        };
        if let Some(line) = place.done_with.take() {
            // A goodbye that nobody answers makes no mail unsent. Where it can't be stored now, it is when this call is back.
            let _ = progress.note(&[at], &outcome).await;
            line.leave().await;
        }
        outcome
    }

    /// Hands a mail over, on a line that is open already where there is one. If that one turns out dead before the mail's
    /// sender was taken, nothing of the mail can have gone out, and a new line takes its place.
    async fn carry(&self, mail: &Mail, course: &mut Course, place: &mut Place<'_>) -> Result<String, Fault> {
        if let Some(line) = place.take() {
            match self.carry_on(line, mail, course, place).await {
                Err(fault) if fault.step == Step::Sender && is_dead(&fault.why) => place.lost(),
                ended => return ended,
            }
        }
        let line = Line::open(&self.way, course).await?;
        place.opened();
        self.carry_on(line, mail, course, place).await
    }

    async fn carry_on(
        &self,
        mut line: Line,
        mail: &Mail,
        course: &mut Course,
        place: &mut Place<'_>,
    ) -> Result<String, Fault> {
        let ended = line.carry(mail, course).await;
        if course.at > Step::Sender {
            place.worked();
        }
        let is_usable = match &ended {
            Ok(_) => true,
            Err(Fault { step, why: Why::Refused { code, .. } }) => *step == Step::Recipient && *code != SHUTTING_DOWN,
            Err(_) => false,
        };
        if is_usable {
            self.pool.keep(line, place);
        }
        ended
    }
}

impl Adapter for Email {
    fn medium(&self) -> Medium {
        Medium::Email
    }

    fn most_together(&self, _: &str) -> usize {
        1
    }

    fn at_once(&self) -> usize {
        self.together
    }

    fn set_up(&self) -> SetUp {
        SetUp::OfMedium
    }

    fn pause(&self, lane: &str) -> Duration {
        self.pace.pause(lane, Instant::now())
    }

    fn send<'a>(&'a self, lane: &'a str, parcels: Vec<Parcel>, progress: &'a Progress) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(parcels.len());
            for (at, parcel) in parcels.iter().enumerate() {
                self.pace.take(lane, Instant::now());
                outcomes.push(self.deliver(at, parcel, progress).await);
            }
            outcomes
        })
    }
}

/// Why a mail was not taken.
enum Undone {
    /// There is none that could be sent.
    NoMail(String),
    Fault(Fault),
}

/// The relay ends the line (RFC 5321, 3.8).
const SHUTTING_DOWN: u16 = 421;
/// Signing in is needed, failed, or needs a private line (RFC 4954).
const SIGN_IN_CODES: [u16; 4] = [530, 534, 535, 538];

/// What a failure means for a mail.
///
/// | step | 4xx, no answer, line broken, rubbish | 5xx |
/// |---|---|---|
/// | up to the sender | held | held |
/// | recipient | later | never; later for `530` and its like, and for `x.7.y` |
/// | content | later | never; later for `530` and its like |
///
/// A recipient that is refused for a reason of policy (`5.7.1 relay access denied`, or `530` for whoever is outside) is most
/// often our own set-up, and would end every delivery at once; but it may be this recipient's own, so that it holds up no other. After the end of the content
/// "no answer" may mean that it was taken. A panic may be at what stands in this mail.
fn outcome(fault: &Fault, privacy: Privacy) -> Outcome {
    let reason = one_line(&fault.to_string());
    match &fault.why {
        Why::Panicked => Outcome::Later { reason, after: None },
        _ if fault.step <= Step::Sender => Outcome::Held { why: reason, remedy: advice(fault, privacy) },
        Why::Refused { code, .. } if SIGN_IN_CODES.contains(code) => Outcome::Later { reason, after: None },
        Why::Refused { code: 500..600, text } if fault.step == Step::Content || !text.starts_with("5.7.") => {
            Outcome::Never { reason }
        }
        _ => Outcome::Later { reason, after: None },
    }
}

/// Whether this is how a relay refuses one line more than it wants of us: before it has signed us in, or with a 421 at the first
/// mail. It is the same for a relay that is away, so that it says something only where others of ours work.
fn is_one_too_many(Fault { step, why }: &Fault) -> bool {
    matches!(
        (step, why),
        (Step::Connect | Step::Greeting | Step::Tls, Why::BrokenOff(_) | Why::NoAnswer(_))
            | (Step::Greeting | Step::Tls | Step::SignIn, Why::Refused { code: 400..500, .. })
            | (Step::Sender, Why::Refused { code: SHUTTING_DOWN, .. })
    )
}

/// Whether a line that was open for a while had ended in the meantime.
fn is_dead(why: &Why) -> bool {
    match why {
        Why::BrokenOff(_) | Why::Unexpected(_) => true,
        Why::Refused { code, .. } => *code == SHUTTING_DOWN,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(step: Step, code: u16, text: &str) -> Fault {
        Fault { step, why: Why::Refused { code, text: text.to_owned() } }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Word {
        Held,
        Later,
        Never,
    }

    fn word(fault: &Fault) -> Word {
        match outcome(fault, Privacy::Required) {
            Outcome::Held { remedy, .. } => {
                assert!(!remedy.is_empty(), "{fault}");
                Word::Held
            }
            Outcome::Later { after: None, .. } => Word::Later,
            Outcome::Never { .. } => Word::Never,
            other => panic!("{fault}: {other:?}"),
        }
    }

    #[test]
    fn only_a_recipient_or_a_content_that_is_refused_for_good_is_never_taken() {
        for fault in [
            refused(Step::Recipient, 550, "5.1.1 no such user"),
            refused(Step::Recipient, 553, "no"),
            refused(Step::Content, 554, "5.7.1 spam"),
            refused(Step::Content, 552, "too large"),
        ] {
            assert_eq!(word(&fault), Word::Never, "{fault}");
        }
        for fault in [
            refused(Step::Recipient, 451, "greylisted"),
            refused(Step::Recipient, 554, "5.7.1 relay access denied"),
            refused(Step::Content, 452, "no room"),
            Fault { step: Step::Content, why: Why::NoAnswer(Duration::from_secs(1)) },
            Fault { step: Step::Content, why: Why::BrokenOff("gone".into()) },
            Fault { step: Step::Recipient, why: Why::Unexpected("354 go on".into()) },
        ] {
            assert_eq!(word(&fault), Word::Later, "{fault}");
        }
    }

    #[test]
    fn what_goes_wrong_before_a_mail_is_no_mail_s_fault_and_what_it_may_have_brought_about_holds_up_no_other() {
        for step in [Step::Address, Step::Connect, Step::Greeting, Step::Tls, Step::SignIn, Step::Sender] {
            for why in [
                Why::Refused { code: 550, text: "no".into() },
                Why::Refused { code: 421, text: "busy".into() },
                Why::Unexpected("what".into()),
                Why::Tls("UnknownIssuer".into()),
                Why::BrokenOff("gone".into()),
                Why::NoAnswer(Duration::from_secs(1)),
                Why::SetUp("no STARTTLS"),
            ] {
                let fault = Fault { step, why };
                assert_eq!(word(&fault), Word::Held, "{fault}");
            }
            let panicked = Fault { step, why: Why::Panicked };
            assert_eq!(word(&panicked), Word::Later, "{panicked}");
        }
        for (step, code) in [(Step::Greeting, 421), (Step::Greeting, 450), (Step::SignIn, 454), (Step::Sender, 421)] {
            assert!(is_one_too_many(&refused(step, code, "too many")), "{step:?} {code}");
        }
        for (step, code) in [(Step::Greeting, 554), (Step::SignIn, 535), (Step::Sender, 451), (Step::Recipient, 421)] {
            assert!(!is_one_too_many(&refused(step, code, "no")), "{step:?} {code}");
        }
        for (code, text) in [(530, "sign in first"), (535, "no"), (538, "not in the clear")] {
            assert_eq!(word(&refused(Step::Recipient, code, text)), Word::Later, "{code}");
        }
    }
}
