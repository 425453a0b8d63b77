//! What became of a notification for one person, decision by decision, for whoever is asked "did she get it?".
//!
//! **Invariant**: it tells what the log holds: who was reached, what was decided when deliveries were made, what the other
//! sides answered, what the person did. What the log does not hold any more is said to be unknown, never guessed; not found is
//! only what has left nothing there: neither itself nor a delivery to anybody.

use super::deliveries::may_look;
use super::explain::{in_words, wording};
use super::{Broker, BrokerError};
use crate::model::{
    Audience, Death, DeliveryState, Hearing, Identity, Locale, Media, NotificationId, Skip, UsedTemplate, UserId,
};
use crate::store::{Belonging, Completeness, ScheduledRow, Standpoint};
use crate::wire::delivery::{Attempt, Delivery};
use crate::wire::explain::{Account, Decision, Step};
use crate::wire::message_log::{IN_APP, PlacedState};

/// What the log knows of a notification and a person.
struct Known {
    standing: Standing,
    standpoint: Standpoint,
    locale: Option<Locale>,
    sent: Vec<Carried>,
    completeness: Completeness,
    making: Making,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Appeared,
    New,
}

/// Whether deliveries of the notification are still being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Making {
    Goes,
    Done,
}

/// Why the deliveries that were found may not be all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    StillMade,
    TooMany,
    /// It went by other media, and there is none.
    NoneKept,
}

impl Gap {
    const fn reason(self) -> &'static str {
        match self {
            Self::StillMade => "deliveries to so many are still being made; theirs may be among them",
            Self::TooMany => "they got too much while it went out for all of that to be looked through",
            Self::NoneKept => {
                "it went by other media too, and the log has no delivery to them: none was made, or it is not kept any more"
            }
        }
    }

    fn decision(self) -> Decision {
        let word = match self {
            Self::StillMade => "expanding",
            Self::TooMany | Self::NoneKept => "unknown",
        };
        Decision::new(Step::Medium, word, self.reason())
    }
}

enum Found {
    Published(Box<Known>),
    /// Deliveries of it are still there, and it is not. These are theirs.
    Outlived(Vec<Carried>, Completeness),
    Waits(Box<ScheduledRow>),
}

/// A delivery with its attempts.
type Carried = (Delivery, Vec<Attempt>);

impl Broker {
    /// What became of a notification for one person, who need not be among those it reached.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a notification of which the log holds nothing, not even a delivery to somebody else.
    pub async fn account(&self, by: &Identity, id: NotificationId, user: UserId) -> Result<Account, BrokerError> {
        may_look(by)?;
        let name = user.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let key = reader.user(&name)?;
                let standpoint = reader.standpoint(id, &name, key)?;
                if standpoint.is_none()
                    && let Some(row) = reader.scheduled(id)?
                {
                    return Ok(Some(Found::Waits(Box::new(row))));
                }
                let deliveries = reader.deliveries_to(key, id)?;
                if standpoint.is_none() && deliveries.is_none() {
                    return Ok(None);
                }
                let (deliveries, completeness) = deliveries.unwrap_or((Vec::new(), Completeness::All));
                let mut sent: Vec<Carried> = Vec::with_capacity(deliveries.len());
                for delivery in deliveries {
                    let attempts = reader.attempts(delivery.id)?;
                    sent.push((delivery, attempts));
                }
                let Some(standpoint) = standpoint else {
                    return Ok(Some(Found::Outlived(sent, completeness)));
                };
                Ok(Some(Found::Published(Box::new(Known {
                    standing: if key.is_some() { Standing::Appeared } else { Standing::New },
                    standpoint,
                    locale: key.map(|key| reader.locale(key)).transpose()?.flatten(),
                    sent,
                    completeness,
                    making: if reader.is_expanding(id)? { Making::Goes } else { Making::Done },
                }))))
            })
        });
        let decisions = match read.await?.ok_or(BrokerError::NotFound("notification"))? {
            Found::Published(known) => known.decisions(&self.config().media),
            Found::Outlived(sent, completeness) => outlived(&sent, completeness, &self.config().media),
            Found::Waits(row) => waiting(&row, &user),
        };
        Ok(Account { notification: id, user, decisions })
    }
}

impl Known {
    fn decisions(&self, media: &Media) -> Vec<Decision> {
        let mut decisions = vec![self.audience()];
        let is_outside = self.standpoint.belonging == Belonging::Outside;
        if is_outside && self.sent.is_empty() {
            return decisions;
        }
        decisions.push(self.template());
        decisions.extend(self.preferences());
        decisions.push(self.dedupe());
        decisions.extend(self.inbox());
        decisions.extend(self.sent.iter().flat_map(|sent| carried(sent, media)));
        decisions.extend(self.gap().map(Gap::decision));
        decisions.extend(self.state());
        decisions
    }

    fn audience(&self) -> Decision {
        let decision = |decision, reason: String| Decision::new(Step::Audience, decision, reason);
        let topic = self.standpoint.placed.topic.as_ref();
        match &self.standpoint.belonging {
            Belonging::Named => decision("named", "the publish names them".to_owned()),
            Belonging::Everyone => decision("everyone", "it was sent to everyone".to_owned()),
            Belonging::Follows { topic, hearing, left } => {
                let left = if *left { ", and have left it since" } else { "" };
                let muted = if *hearing == Hearing::HasMuted { "; they have muted it" } else { "" };
                decision("follows", format!("they followed `{topic}` when it came{left}{muted}"))
            }
            Belonging::Forgotten => decision(
                "unknown",
                "their inbox keeps nothing that old, so it can't be told whether it was theirs".to_owned(),
            ),
            Belonging::Outside => decision(
                "outside",
                match topic {
                    Some(topic) if self.standing == Standing::New && topic.is_everyone() => {
                        "nobody has named them yet; it is theirs when they appear, if it is not too old then".to_owned()
                    }
                    _ if self.standing == Standing::New => {
                        "nobody has named them yet, so they have no inbox".to_owned()
                    }
                    None => "it was sent to users by name, and they are not among them".to_owned(),
                    Some(topic) if topic.is_everyone() => {
                        "it was sent to everyone, and was too old for newcomers when they appeared".to_owned()
                    }
                    Some(topic) => format!("it was sent to `{topic}`, which they did not follow then"),
                },
            ),
        }
    }

    fn template(&self) -> Decision {
        let Standpoint { placed, wordings, death, .. } = &self.standpoint;
        let of_delivery = || self.sent.iter().find_map(|(delivery, _)| delivery.template.as_ref());
        let used: Option<&UsedTemplate> = placed.template.as_ref().or_else(of_delivery);
        match used {
            Some(used) if death.is_some() && wordings.is_empty() => Decision::new(
                Step::Template,
                "unknown",
                format!("it was published by {}; what that said in each language went with its end", in_words(used)),
            ),
            _ => wording(used, self.locale.as_ref(), wordings),
        }
    }

    fn preferences(&self) -> Vec<Decision> {
        if self.sent.is_empty() {
            if let Some(gap) = self.gap() {
                return vec![Decision::new(Step::Preference, "unknown", gap.reason())];
            }
            let reason = "nothing goes to them besides the inbox, and preferences are about that";
            return vec![Decision::new(Step::Preference, "none", reason)];
        }
        self.sent.iter().map(|(delivery, _)| preference(delivery)).collect()
    }

    fn dedupe(&self) -> Decision {
        let decision = |decision, reason: String| Decision::new(Step::Dedupe, decision, reason);
        match (&self.standpoint.collapse, self.standpoint.death) {
            (Some(key), Some(Death::Replaced { by })) => {
                decision("replaced", format!("{by} took its place, since both have the `collapse` `{key}`"))
            }
            (None, Some(Death::Replaced { by })) => decision("replaced", format!("{by} took its place")),
            (None, _) => decision("none", "it has no `collapse`".to_owned()),
            (Some(key), None) => decision("newest", format!("nothing newer with its `collapse`, `{key}`, has come")),
            // What came later took nothing's place, and is not looked for.
            (Some(key), Some(Death::Retracted | Death::Expired)) => {
                decision("ended", format!("nothing newer with its `collapse`, `{key}`, came before it was over"))
            }
        }
    }

    fn inbox(&self) -> Option<Decision> {
        let placed = &self.standpoint.placed;
        let is_known = !matches!(self.standpoint.belonging, Belonging::Outside | Belonging::Forgotten);
        is_known.then(|| {
            let (decision, reason) = match &placed.reason {
                None => ("inbox", "it is in their inbox".to_owned()),
                Some(why) => ("gone", format!("it was in their inbox; {why}")),
            };
            Decision::new(Step::Medium, decision, reason).by(IN_APP).at(placed.created_at)
        })
    }

    /// Why deliveries to them may be missing here, where they may.
    fn gap(&self) -> Option<Gap> {
        match (self.making, self.completeness) {
            (Making::Goes, _) => Some(Gap::StillMade),
            (Making::Done, Completeness::Unknown) => Some(Gap::TooMany),
            (Making::Done, Completeness::All) => {
                (self.standpoint.carried && self.sent.is_empty()).then_some(Gap::NoneKept)
            }
        }
    }

    fn state(&self) -> Option<Decision> {
        self.inbox()?;
        let placed = &self.standpoint.placed;
        let (at, reason) = match placed.state() {
            PlacedState::Read => (placed.read_at, "they have read it"),
            PlacedState::Seen => (placed.seen_at, "it was in front of them, and they have not read it"),
            PlacedState::Stored => (None, "they have not looked at their inbox since, or not so far"),
        };
        let decision = Decision::new(Step::InApp, placed.state().as_str(), reason).by(IN_APP);
        Some(match at {
            Some(at) => decision.at(at),
            None => decision,
        })
    }
}

/// Why a delivery is not tried, where it is not.
fn skip(delivery: &Delivery) -> Option<Skip> {
    let Delivery { medium, category, state, reason, .. } = delivery;
    let reason = reason.as_deref().filter(|_| *state == DeliveryState::Skipped)?;
    Skip::ALL.into_iter().find(|skip| skip.reason(*medium, category) == reason)
}

/// What they wanted when the delivery was made: what they have said since changes nothing of it.
fn preference(delivery: &Delivery) -> Decision {
    let (name, category) = (delivery.medium.as_str(), &delivery.category);
    let decision = |decision, reason: String| Decision::new(Step::Preference, decision, reason).by(name);
    match skip(delivery) {
        Some(skip @ Skip::Unwanted) => decision("unwanted", skip.reason(delivery.medium, category)),
        Some(Skip::HasMuted) => decision("none", "it was not asked for, since they have muted the topic".to_owned()),
        _ => decision("wanted", format!("they had not said no to {name} about {category}")),
    }
}

/// Where a delivery is, and how it came there.
fn carried((delivery, attempts): &Carried, media: &Media) -> Vec<Decision> {
    std::iter::once(stands(delivery, media)).chain(attempts.iter().map(|attempt| tried(delivery, attempt))).collect()
}

/// Where a delivery is, and why.
fn stands(delivery: &Delivery, media: &Media) -> Decision {
    let name = delivery.medium.as_str();
    let to = delivery.address.as_ref().map(|address| format!(" for {address}")).unwrap_or_default();
    let why = delivery.reason.as_deref();
    let reason = match delivery.state {
        DeliveryState::Pending if !media.has(delivery.medium) => {
            format!("{name} is not set up here any more; it waits{to} until it is")
        }
        DeliveryState::Pending => match why {
            Some(why) => format!("it waits{to} to be tried again: {why}"),
            None => format!("it waits{to} for its turn"),
        },
        DeliveryState::Leased => format!("an attempt is being made{to}"),
        DeliveryState::Sent => format!("the other side has said that it took it{to}"),
        DeliveryState::Dead => format!("nothing more is tried{to}: {}", why.unwrap_or("no reason was kept")),
        DeliveryState::Cancelled | DeliveryState::Skipped => why.unwrap_or("no reason was kept").to_owned(),
    };
    let mut decision = Decision::new(Step::Medium, delivery.state.as_str(), reason).by(name).of(delivery.id);
    decision.at = Some(delivery.settled_at.unwrap_or(delivery.created_at));
    decision.next_at = delivery.next_at;
    decision
}

fn tried(delivery: &Delivery, attempt: &Attempt) -> Decision {
    let decision = Decision::new(Step::Attempt, attempt.outcome.as_str(), attempt.answer.clone());
    let mut decision = decision.by(delivery.medium.as_str()).of(delivery.id).at(attempt.at);
    decision.next_at = attempt.next_at;
    decision
}

/// What is known of a notification that retention took, or its topic's end, before its deliveries.
fn outlived(sent: &[Carried], completeness: Completeness, media: &Media) -> Vec<Decision> {
    let reason = match (sent, completeness) {
        ([_, ..], _) => "the notification is not kept any more; these are its deliveries to them",
        ([], Completeness::All) => {
            "the notification is not kept any more, so it can't be told whether it was theirs; none of its deliveries that are \
             still kept is to them"
        }
        ([], Completeness::Unknown) => {
            "the notification is not kept any more, so it can't be told whether it was theirs"
        }
    };
    let mut decisions = vec![Decision::new(Step::Audience, "unknown", reason)];
    decisions.extend(sent.iter().map(|(delivery, _)| preference(delivery)));
    decisions.extend(sent.iter().flat_map(|sent| carried(sent, media)));
    if completeness == Completeness::Unknown {
        decisions.push(Gap::TooMany.decision());
    }
    decisions
}

/// What is known before its time has come.
fn waiting(row: &ScheduledRow, user: &UserId) -> Vec<Decision> {
    let scheduled = &row.scheduled;
    let audience = match &scheduled.to {
        Audience::Users(users) if users.contains(user) => {
            Decision::new(Step::Audience, "named", "the publish names them")
        }
        Audience::Users(_) => {
            let reason = "it is for users by name, and they are not among them";
            return vec![Decision::new(Step::Audience, "outside", reason)];
        }
        Audience::Topic(topic) => Decision::new(
            Step::Audience,
            "waits",
            format!("it goes to those who follow `{topic}` when its time has come"),
        ),
        Audience::Everyone => Decision::new(Step::Audience, "everyone", "it goes to everyone"),
    };
    let due = scheduled.due;
    let medium = match scheduled.failed {
        None => Decision::new(Step::Medium, "waits", format!("it comes into the inbox at {due}")),
        Some(why) => {
            let reason = format!("it could not be delivered when its time came: {}", why.as_str());
            Decision::new(Step::Medium, "failed", reason)
        }
    };
    vec![audience, medium.by(IN_APP).at(due)]
}
