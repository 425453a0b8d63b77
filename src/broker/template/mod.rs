//! Templates: registered, published, tried, and what a publish by one says in each language.
//!
//! A text is read by [`scan`] before the engine sees it and written back with the escape of the place where each value
//! stands ([`place`], [`escape`]); [`engine`] runs it within bounds. A publish is rendered once, in every language that the
//! template has; which of them a reader gets is decided when it is told (`store::wordings`, `fanout`).
//!
//! **Invariant**: what is wrong with the values is told before anything is stored.

mod compiled;
mod engine;
mod escape;
mod filter;
mod place;
mod scan;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::escape::{markdown, markdown_link};

use self::compiled::Compiled;
use super::keys::sha256;
use super::publish::Idempotency;
use super::{Broker, BrokerError};
use crate::lifecycle::joined;
use crate::model::{
    ContentError, Draft, Identity, NotificationId, Scope, Template, TemplateName, TemplateUse, UsedTemplate, Wording,
};
use crate::store::{
    DeleteTemplate, PublishTemplate, PutTemplate, Recall, Registered, TemplateRow, TemplateVersion, Which,
};
use crate::wire::publish::{PublishBody, Published};
use crate::wire::status::Scheduled;
use crate::wire::template::{Preview, PreviewBody, TemplateInfo, canonical, params, parse_template};
use crate::wire::topic::Listing;

/// Templates that are kept ready.
const MAX_READY: usize = 256;

/// Templates that were read, by the hash of what they say: so one that was changed is never taken for what it was.
#[derive(Default)]
pub(super) struct Ready(Mutex<HashMap<[u8; 32], Arc<Compiled>>>);

impl Broker {
    /// Registers a version of a template. The same content again changes nothing.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] with everything that is wrong with its texts.
    pub async fn put_template(
        &self,
        by: &Identity,
        name: &TemplateName,
        template: Template,
    ) -> Result<(TemplateInfo, Registered), BrokerError> {
        may_write(by, name)?;
        let definition = canonical(&template);
        let hash = sha256(definition.as_bytes());
        self.ready(hash, move || Ok(template)).await?;
        let operation = PutTemplate { name: name.clone(), hash, definition, now: self.inner.clock.now() };
        let (row, registered) = self.inner.store.write(operation).await?;
        Ok((info(row), registered))
    }

    /// Lets publishes get a version; `None` is the newest.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn publish_template(
        &self,
        by: &Identity,
        name: &TemplateName,
        version: Option<u32>,
    ) -> Result<TemplateInfo, BrokerError> {
        may_write(by, name)?;
        Ok(info(self.inner.store.write(PublishTemplate { name: name.clone(), version }).await?))
    }

    /// Removes a template. What was sent by it stays.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn delete_template(&self, by: &Identity, name: &TemplateName) -> Result<(), BrokerError> {
        may_write(by, name)?;
        Ok(self.inner.store.write(DeleteTemplate { name: name.clone() }).await?)
    }

    /// A version of a template, the newest where none is named, and its definition.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn template(
        &self,
        by: &Identity,
        name: &TemplateName,
        version: Option<u32>,
    ) -> Result<(TemplateInfo, String), BrokerError> {
        may_write(by, name)?;
        let found = self.find_template(name, version.map_or(Which::Newest, Which::Version)).await?;
        Ok((info(found.row), found.definition))
    }

    /// A page of the templates that are the caller's to write, in order of their names.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn templates(
        &self,
        by: &Identity,
        after: Option<TemplateName>,
        limit: usize,
    ) -> Result<Listing<TemplateInfo>, BrokerError> {
        let by = by.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let (mut items, mut last) = (Vec::new(), after);
                // A key's own may lie far apart; there are few templates altogether (`MAX_TEMPLATES`).
                loop {
                    let rows = reader.templates(last.as_ref().map_or("", TemplateName::as_str), limit + 1)?;
                    let is_end = rows.len() <= limit;
                    last = rows.last().map(|row| row.name.clone());
                    items.extend(rows.into_iter().filter(|row| writes(&by, &row.name)).map(info));
                    if is_end || items.len() > limit {
                        return Ok(items);
                    }
                }
            })
        });
        let mut items: Vec<TemplateInfo> = read.await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|item| item.name.to_string());
        Ok(Listing { items, next })
    }

    /// What comes out of a template, in every medium, for a reader of a language.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] with what is wrong with the values.
    pub async fn preview_template(
        &self,
        by: &Identity,
        name: &TemplateName,
        preview: PreviewBody,
    ) -> Result<Preview, BrokerError> {
        may_write(by, name)?;
        let found = self.find_template(name, preview.version.map_or(Which::Newest, Which::Version)).await?;
        let version = found.row.version;
        let compiled = self.ready_version(&found).await?;
        let values = params(&preview.params, &compiled.template.variables).map_err(BrokerError::Invalid)?;
        let rendered =
            off_thread(move || compiled.render_for(preview.locale.as_ref(), &values, preview.time_zone.as_ref()));
        let (locale, texts) = rendered.await?.map_err(as_values_fault)?;
        Ok(Preview { version, locale, texts })
    }

    /// Publishes what a body says, by its template where it names one.
    ///
    /// # Errors
    /// [`BrokerError`]; [`BrokerError::Invalid`] names each value that is missing or wrong, and nothing was stored.
    pub async fn publish_body(
        &self,
        by: &Identity,
        body: PublishBody,
        idempotency: Option<Idempotency>,
    ) -> Result<Published, BrokerError> {
        let Some(template) = body.template else { return self.publish(by, body.draft, idempotency).await };
        super::publish::may_publish(by, &body.draft.to)?;
        match self.worded(body.draft, &template).await {
            Ok(draft) => self.publish(by, draft, idempotency).await,
            // What was published once is answered as it was then, whatever has become of the template.
            Err(error) => match idempotency {
                Some(idempotency) => {
                    let key = self.idempotency_key(by, idempotency);
                    self.inner.store.write(Recall(key)).await?.map(super::publish::told).ok_or(error)
                }
                None => Err(error),
            },
        }
    }

    /// Changes one that waits, by a template where the body names one.
    ///
    /// # Errors
    /// As [`Broker::reschedule`] and [`Broker::publish_body`].
    pub async fn reschedule_body(
        &self,
        by: &Identity,
        id: NotificationId,
        body: PublishBody,
    ) -> Result<Scheduled, BrokerError> {
        let draft = match &body.template {
            Some(template) => self.worded(body.draft, template).await?,
            None => body.draft,
        };
        self.reschedule(by, id, draft).await
    }

    /// The draft with what its template says, in every language.
    pub(in crate::broker) async fn worded(&self, mut draft: Draft, used: &TemplateUse) -> Result<Draft, BrokerError> {
        let found = match self.find_template(&used.name, used.version.map_or(Which::Published, Which::Version)).await {
            Err(BrokerError::NotFound(_)) => {
                let detail = match used.version {
                    None => format!("there is no published template `{}`; register one, then publish it", used.name),
                    Some(version) => format!("there is no version {version} of a template `{}`", used.name),
                };
                return Err(BrokerError::Invalid(vec![ContentError { pointer: "/template".to_owned(), detail }]));
            }
            other => other?,
        };
        let compiled = self.ready_version(&found).await?;
        let values = params(&used.params, &compiled.template.variables).map_err(BrokerError::Invalid)?;
        let (template, media) = (compiled.clone(), draft.via.media.clone());
        let rendered = off_thread(move || Ok((template.in_app(&values)?, template.letters(&values, &media)?)));
        let (wordings, mut letters) = rendered.await?.map_err(as_values_fault)?;
        let Template { category, default_locale, .. } = &compiled.template;
        let said = wordings.iter().find(|(locale, _)| locale == default_locale);
        // A letter leads where the inbox does in its language.
        for lettering in letters.iter_mut().filter(|_| draft.content.click.is_none()) {
            let same = wordings.iter().find(|(locale, _)| *locale == lettering.locale);
            lettering.letter.click = same.and_then(|(_, wording)| wording.click.clone());
        }
        draft.via.template = Some(UsedTemplate { name: used.name.clone(), version: Some(found.row.version) });
        draft.via.letters = letters.into();
        draft.via.default_locale = default_locale.clone();
        let Wording { title, body, click } = said.map(|(_, wording)| wording.clone()).unwrap_or_default();
        let own_click = draft.content.click.is_some();
        draft.content.title = title;
        draft.content.body = body;
        if !own_click {
            draft.content.click = click;
        }
        if let Some(category) = category.clone().filter(|_| !draft.category_named) {
            draft.content.category = category;
        }
        if wordings.len() > 1 {
            // The publish's own link goes before the template's.
            let keep = |(locale, wording): (_, Wording)| {
                (locale, Wording { click: wording.click.filter(|_| !own_click), ..wording })
            };
            draft.content.wordings = wordings.into_iter().map(keep).collect();
        }
        Ok(draft)
    }

    async fn find_template(&self, name: &TemplateName, which: Which) -> Result<TemplateVersion, BrokerError> {
        let name = name.clone();
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.template(&name, which)));
        read.await?.ok_or(BrokerError::NotFound("template"))
    }

    async fn ready_version(&self, version: &TemplateVersion) -> Result<Arc<Compiled>, BrokerError> {
        let definition = version.definition.clone();
        self.ready(version.hash, move || {
            parse_template(definition.as_bytes())
                .map_err(|e| vec![ContentError { pointer: String::new(), detail: e.to_string() }])
        })
        .await
    }

    /// A template that was read, now or before.
    async fn ready(
        &self,
        hash: [u8; 32],
        template: impl FnOnce() -> Result<Template, Vec<ContentError>> + Send + 'static,
    ) -> Result<Arc<Compiled>, BrokerError> {
        if let Some(known) = self.inner.templates.0.lock().get(&hash) {
            return Ok(known.clone());
        }
        let compiled = off_thread(move || Compiled::new(template()?)).await?.map_err(BrokerError::Invalid)?;
        let compiled = Arc::new(compiled);
        let mut ready = self.inner.templates.0.lock();
        if ready.len() >= MAX_READY {
            ready.clear();
        }
        ready.insert(hash, compiled.clone());
        Ok(compiled)
    }
}

/// Rendering may take some milliseconds, which streams on the same thread must not wait for. A panic goes on in the caller: a
/// request is answered `internal` and counted, and a message of the queue is given up after a few.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokerError> {
    joined(tokio::task::spawn_blocking(work).await).ok_or(BrokerError::StorageStopped)
}

/// What came out of a template that was fine when it was registered: the values are what can be mended.
fn as_values_fault(faults: Vec<ContentError>) -> BrokerError {
    let told = |fault: ContentError| ContentError {
        pointer: "/params".to_owned(),
        detail: format!("with these values, {} {}", fault.pointer, fault.detail),
    };
    BrokerError::Invalid(faults.into_iter().map(told).collect())
}

fn info(row: TemplateRow) -> TemplateInfo {
    let TemplateRow { name, version, published, created_at } = row;
    TemplateInfo { name, published, version, created_at }
}

/// Whether a template is the caller's to register, read and remove. Publishing by one needs no such right.
fn writes(by: &Identity, name: &TemplateName) -> bool {
    let by_name = |scope: &Scope| matches!(scope, Scope::TemplatesNamed(pattern) if pattern.matches(name));
    by.has(&Scope::Templates) || matches!(by, Identity::Key(key) if key.scopes.iter().any(by_name))
}

/// Asked before anything is looked for, so that nobody learns what others have.
fn may_write(by: &Identity, name: &TemplateName) -> Result<(), BrokerError> {
    let needed =
        "this template needs the scope `templates`, or `templates:<pattern>` with a pattern that its name matches";
    if writes(by, name) { Ok(()) } else { Err(BrokerError::Forbidden(needed)) }
}
