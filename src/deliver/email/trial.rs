//! One mail sent step by step, to find out whether the set-up is right: what `tidings mail check` shows.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::line::{Course, Line};
use super::{Email, Fault, Passed, Privacy, Step, Why};
use crate::model::Parcel;

/// What a trial came to.
#[derive(Debug)]
pub struct Trial {
    /// The steps that went well, in order.
    pub passed: Vec<Passed>,
    /// The one that did not, where one did not.
    pub fault: Option<Fault>,
    /// What to do about it; empty where all is well.
    pub advice: &'static str,
}

impl Email {
    /// Sends one mail on a line of its own, within the time that any mail has.
    pub async fn try_out(&self, parcel: &Parcel) -> Trial {
        let mut course = Course::default();
        let work = AssertUnwindSafe(async {
            let mut line = Line::open(&self.way, &mut course).await?;
            course.begin(Step::Recipient);
            let mail = self.writer.mail(parcel).map_err(|why| course.fault(Why::Unexpected(why)))?;
            let ended = line.carry(&mail, &mut course).await;
            Ok((ended, line))
        });
        let ended = timeout(self.timeout, work.catch_unwind()).await;
        let fault = match ended {
            Ok(Ok(Ok((ended, line)))) => {
                // Behind the time that the mail has: a goodbye that nobody answers is none of its steps.
                line.leave().await;
                ended.err()
            }
            Ok(Ok(Err(fault))) => Some(fault),
            Ok(Err(_)) => Some(course.fault(Why::Panicked)),
            Err(_) => Some(course.fault(Why::NoAnswer(self.timeout))),
        };
        let advice = fault.as_ref().map_or("", |fault| advice(fault, self.way.relay.privacy));
        Trial { passed: course.passed, fault, advice }
    }
}

/// What to do about a failure, for the one who set it up.
pub(super) fn advice(Fault { step, why }: &Fault, privacy: Privacy) -> &'static str {
    match (step, why) {
        (Step::Address, _) => {
            "The host in [email] url has no address here: look for a slip of the pen, or at this machine's DNS."
        }
        (Step::Connect, _) => {
            "Nobody answers there: look at host and port in [email] url (587 and smtp://, or 465 and smtps://), and whether a \
             firewall lets this machine out. Port 25 is closed at many hosts."
        }
        (Step::Tls, Why::Tls(_)) => {
            "The relay's certificate is not believed: the host in [email] url must be the name in the certificate, and its \
             authority one of this machine's (ca-certificates) or in [email] ca_file."
        }
        (Step::Tls, Why::SetUp(_)) => {
            "Use smtps:// and port 465 if the relay has it. Only for a relay on this machine or a network that nobody listens \
             in on, put ?tls=none behind the port in [email] url."
        }
        (Step::Tls | Step::Greeting, Why::BrokenOff(_) | Why::Unexpected(_) | Why::NoAnswer(_)) => match privacy {
            Privacy::Implicit => "This may be a port without TLS from the first byte on: try smtp:// and port 587.",
            _ => "This may be a port with TLS from the first byte on: try smtps:// and port 465.",
        },
        (Step::SignIn, Why::SetUp(_)) => {
            "Signing in needs TLS, a user in [email] url and a password in [email] password_file; a relay that knows this \
             machine by its address may need none of them."
        }
        (Step::SignIn, _) => {
            "The relay does not take this user and password. Many providers want an app password, made in their web pages, \
             instead of the one you sign in with there."
        }
        (Step::Greeting | Step::Tls, _) => "The relay does not talk to this machine now: its words say why.",
        (Step::Sender, _) => {
            "The relay does not let this user send as [email] from: take an address of that account, or have the relay allow it."
        }
        (Step::Recipient, Why::Refused { code, .. }) if *code >= 500 => {
            "The relay refuses this recipient. If it refuses others too (`relay access denied`), it does not know this machine: \
             sign in, or have it allow this machine's address."
        }
        (Step::Recipient, _) => {
            "The relay may take it later: its words say why. Deliveries are tried again by themselves."
        }
        (Step::Content, Why::Refused { code, .. }) if *code >= 500 => {
            "The relay took sender and recipient, and not the mail: its words say why (size, a filter, SPF or DKIM of the \
             sender's domain)."
        }
        (Step::Content, _) => "The relay may have taken the mail without saying so. Its log knows.",
    }
}
