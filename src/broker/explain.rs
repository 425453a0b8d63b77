//! What a publish would do, and why, without doing it.
//!
//! **Invariants**: a publish that is refused is refused here, by the same checks and in the same words; nothing is stored,
//! nobody is told, and no idempotency key is used.
//!
//! Each step is a function of its own that adds a [`Decision`]. Whether a medium would be tried is judged where it is for a
//! real delivery ([`Media::judge`]).

use uuid::Uuid;

use super::publish::may_publish;
use super::{Broker, BrokerError};
use crate::model::{
    Audience, CollapseKey, Draft, Hearing, Identity, Locale, Media, Medium, NotificationId, Profile, Scope, Skip,
    UsedTemplate, UserId, Wish, Wordings,
};
use crate::store::{Publish, Rehearse, Rehearsed};
use crate::wire::explain::{Decision, MAX_EXPLAINED, Person, Rehearsal, Step};
use crate::wire::message_log::IN_APP;
use crate::wire::publish::PublishBody;

/// What is known of one person.
struct Known {
    user: UserId,
    /// Whether anybody has named them yet.
    standing: Standing,
    profile: Profile,
    /// What the notification would take the place of.
    replaces: Option<NotificationId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Appeared,
    New,
}

impl Broker {
    /// What a publish would do.
    ///
    /// # Errors
    /// Those of [`Broker::publish_body`], save what idempotency keys bring.
    pub async fn rehearse(&self, by: &Identity, body: PublishBody) -> Result<Rehearsal, BrokerError> {
        may_publish(by, &body.draft.to)?;
        let PublishBody { draft, template, .. } = body;
        let draft = match &template {
            Some(template) => self.worded(draft, template).await?,
            None => draft,
        };
        let now = self.inner.clock.now();
        let publish = Publish {
            id: NotificationId(Uuid::now_v7()),
            when: self.when(&draft, now),
            draft,
            publisher: by.principal(),
            idempotency: None,
            now,
            policy: self.policy(),
        };
        let draft = publish.draft.clone();
        let rehearsed = self.inner.store.write(Rehearse(publish)).await?;
        let named: Vec<UserId> = match &draft.to {
            Audience::Users(users) => users.iter().take(MAX_EXPLAINED).cloned().collect(),
            Audience::Topic(_) | Audience::Everyone => Vec::new(),
        };
        // Somebody's language is theirs: who may publish to people may not read who they are.
        let people = if by.has(&Scope::Users) {
            let known = self.known(named, draft.life.collapse.clone()).await?;
            let config = self.config();
            let explain = |known| explain(known, &draft, &config.media, &rehearsed);
            Some(known.into_iter().map(explain).collect())
        } else {
            None
        };
        let Rehearsed { when, category, recipients } = rehearsed;
        Ok(Rehearsal {
            content: draft.content,
            category,
            due: when.due,
            expires_at: when.expires_at,
            recipients,
            people,
        })
    }

    async fn known(&self, users: Vec<UserId>, collapse: Option<CollapseKey>) -> Result<Vec<Known>, BrokerError> {
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let mut all = Vec::with_capacity(users.len());
                for user in users {
                    all.push(match reader.user(&user)? {
                        None => Known { user, standing: Standing::New, profile: Profile::default(), replaces: None },
                        Some(key) => Known {
                            user,
                            standing: Standing::Appeared,
                            profile: reader.profile(key)?,
                            replaces: match &collapse {
                                Some(collapse) => reader.replaced_by(key, collapse)?,
                                None => None,
                            },
                        },
                    });
                }
                Ok(all)
            })
        });
        Ok(read.await?)
    }
}

fn explain(known: Known, draft: &Draft, media: &Media, rehearsed: &Rehearsed) -> Person {
    let locale = known.profile.locale.as_ref();
    let mut decisions = vec![audience(&known), wording(draft.via.template.as_ref(), locale, &draft.content.wordings)];
    if draft.via.media.is_empty() {
        let reason = "it goes by no medium besides the inbox, and preferences are about those";
        decisions.push(Decision::new(Step::Preference, "none", reason));
    }
    let via = &draft.via.media;
    decisions.extend(via.iter().map(|medium| preference(&known.profile, *medium, rehearsed)));
    decisions.push(dedupe(&known, draft));
    decisions.push(inbox(rehearsed));
    decisions.extend(via.iter().map(|medium| carried(&known.profile, *medium, media, rehearsed)));
    Person { user: known.user, decisions }
}

fn audience(known: &Known) -> Decision {
    match known.standing {
        Standing::Appeared => Decision::new(Step::Audience, "named", "the publish names them"),
        Standing::New => Decision::new(
            Step::Audience,
            "new",
            "the publish names them, and their inbox would be made: nobody has yet",
        ),
    }
}

/// A template as part of a sentence.
pub(super) fn in_words(used: &UsedTemplate) -> String {
    match used.version {
        Some(version) => format!("version {version} of the template `{}`", used.name),
        None => format!("the template `{}`", used.name),
    }
}

/// Which text of a template the inbox shows to somebody who reads this language.
pub(super) fn wording(template: Option<&UsedTemplate>, locale: Option<&Locale>, wordings: &Wordings) -> Decision {
    let decision = |decision, reason: String| Decision::new(Step::Template, decision, reason);
    let name = match template {
        None if wordings.is_empty() => return decision("none", "the publish says its text itself".to_owned()),
        None => "the template".to_owned(),
        Some(used) => in_words(used),
    };
    if wordings.is_empty() {
        return decision("default", format!("{name} has one language"));
    }
    match locale {
        None => decision("default", format!("they have chosen no language; {name} says it in its own")),
        Some(locale) => match locale.best(wordings) {
            Some((found, _)) => decision("worded", format!("they read `{locale}`; {name} has `{found}`")),
            None => decision("default", format!("they read `{locale}`, which {name} has not")),
        },
    }
}

/// What they have said of a medium.
fn preference(profile: &Profile, medium: Medium, rehearsed: &Rehearsed) -> Decision {
    let (name, category) = (medium.as_str(), &rehearsed.category);
    let decision = |decision, reason: String| Decision::new(Step::Preference, decision, reason).by(name);
    let wish = |unsaid| profile.wants(category, medium, unsaid);
    match (wish(Wish::Wanted), wish(Wish::Unwanted)) {
        (Wish::Unwanted, _) => decision("unwanted", Skip::Unwanted.reason(medium, category)),
        (Wish::Wanted, Wish::Wanted) => decision("wanted", format!("they want {name} about {category}")),
        (Wish::Wanted, Wish::Unwanted) => {
            decision("unsaid", format!("they have said nothing of {name} about {category}, so it is wanted"))
        }
    }
}

fn dedupe(known: &Known, draft: &Draft) -> Decision {
    let decision = |decision, reason: String| Decision::new(Step::Dedupe, decision, reason);
    match (&draft.life.collapse, known.replaces) {
        (None, _) => decision("none", "it has no `collapse`".to_owned()),
        (Some(key), None) => {
            decision("first", format!("nothing with its `collapse`, `{}`, stands in their inbox", key.as_str()))
        }
        (Some(key), Some(older)) => decision(
            "replaces",
            format!("it takes the place of {older}, since both have the `collapse` `{}`", key.as_str()),
        ),
    }
}

fn inbox(rehearsed: &Rehearsed) -> Decision {
    let decision = |decision, reason: String| Decision::new(Step::Medium, decision, reason).by(IN_APP);
    match rehearsed.when.due {
        None => decision("inbox", "it would be there at once".to_owned()),
        Some(due) => decision("waits", format!("it would come into the inbox at {due}")),
    }
}

/// Whether a medium would be tried. Who is named listens: only what comes by a topic can be muted.
fn carried(profile: &Profile, medium: Medium, media: &Media, rehearsed: &Rehearsed) -> Decision {
    let category = &rehearsed.category;
    let address = profile.address(medium);
    let wish = profile.wants(category, medium, Wish::Wanted);
    let decision = |decision, reason: String| Decision::new(Step::Medium, decision, reason).by(medium.as_str());
    match media.judge(medium, category, Hearing::Listens, wish, address) {
        Ok(lane) => {
            let to = address.unwrap_or_default();
            decision("tried", format!("it would go to {to}, in its turn at {lane}"))
        }
        Err(skip) => decision("skipped", skip.reason(medium, category)),
    }
}
