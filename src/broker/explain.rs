//! What a publish would do, and why, without doing it.
//!
//! **Invariants**: a publish that is refused is refused here, by the same checks and in the same words; nothing is stored,
//! nobody is told, and no idempotency key is used.
//!
//! Each step is a function of its own that adds a [`Decision`], so that what comes later (deliveries) is one more.

use uuid::Uuid;

use super::publish::{may_publish, when};
use super::{Broker, BrokerError};
use crate::model::{Audience, CollapseKey, Draft, Identity, NotificationId, Profile, Scope, TemplateUse, UserId};
use crate::store::{Publish, Rehearse, Rehearsed};
use crate::wire::explain::{Decision, MAX_EXPLAINED, Person, Rehearsal, Step};
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
            when: when(&draft.life, now, self.inner.config().schedule_horizon),
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
            let explain = |known| explain(known, &draft, template.as_ref(), &rehearsed);
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

fn explain(known: Known, draft: &Draft, template: Option<&TemplateUse>, rehearsed: &Rehearsed) -> Person {
    let decisions = vec![
        audience(&known),
        wording(&known, draft, template),
        Decision::new(
            Step::Preference,
            "none",
            "preferences are about media besides the inbox, which a dry run does not look at yet",
        ),
        dedupe(&known, draft),
        medium(rehearsed),
    ];
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

fn wording(known: &Known, draft: &Draft, template: Option<&TemplateUse>) -> Decision {
    let decision = |decision, reason: String| Decision::new(Step::Template, decision, reason);
    let Some(TemplateUse { name, .. }) = template else {
        return decision("none", "the publish says its text itself".to_owned());
    };
    let wordings = &draft.content.wordings;
    if wordings.is_empty() {
        return decision("default", format!("the template `{name}` has one language"));
    }
    match &known.profile.locale {
        None => decision("default", "they have chosen no language".to_owned()),
        Some(locale) => match locale.best(wordings) {
            Some((found, _)) => {
                decision("worded", format!("they read `{locale}`; the template `{name}` has `{found}`"))
            }
            None => decision("default", format!("they read `{locale}`, which the template `{name}` has not")),
        },
    }
}

fn dedupe(known: &Known, draft: &Draft) -> Decision {
    let decision = |decision, reason: String| Decision::new(Step::Dedupe, decision, reason);
    match (&draft.life.collapse, known.replaces) {
        (None, _) => decision("none", "it has no `collapse`".to_owned()),
        (Some(_), None) => decision("first", "nothing with this `collapse` stands in their inbox".to_owned()),
        (Some(_), Some(older)) => decision("replaces", format!("it takes the place of {older}")),
    }
}

fn medium(rehearsed: &Rehearsed) -> Decision {
    match rehearsed.when.due {
        None => Decision::new(Step::Medium, "inbox", "it would be there at once"),
        Some(due) => Decision::new(Step::Medium, "waits", format!("it would come into the inbox at {due}")),
    }
}
