//! Whatever an event says, its frame is one block that a client decodes to that one event: the same id, the same name, and
//! data of one line that is the same JSON. Nothing in it begins a line of its own.
//!
//! Titles and names are put in unchecked, more than a publish would take, since the encoder must not lean on the checks.
//! Only `data` comes as a publish leaves it: JSON on one line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;
use tidings::model::{
    Action, Became, Category, CategoryCounts, Content, Counts, Cursor, Death, EntryState, Epoch, MAX_DEPTH, MarkAs,
    MarkTarget, Notification, NotificationId, Priority, Seq, StateChange, Timestamp, TopicName, UserId,
};
use tidings::wire::event::{ByeReason, EventKind, Hello, ResetReason};
use tidings::wire::frame::{Frame, Framing};
use tidings::wire::json::{compact, depth};

use super::event_source::{Event, decode};
use super::input::Input;

const ID: &str = "0190b9f0-7b1a-7000-8000-000000000001";

pub fn event(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let at = Place { seq: Seq(input.number()), moment: Timestamp::from_millis(input.number().cast_signed()) };
    match kind % 8 {
        0 => notification(&at, &mut input, |epoch, it| Frame::live(epoch, it, Instant::now())),
        1 => {
            let state = EntryState { seen_at: Some(at.moment), read_at: None, archived_at: Some(at.moment) };
            notification(&at, &mut input, |epoch, it| Frame::replayed(epoch, it, state));
        }
        2 => hello(&at, &mut input),
        3 => state(&at, &mut input),
        4 => {
            let frame = Frame::unread(&at.epoch(), &counts(&mut input), at.seq);
            at.holds(&frame, EventKind::Unread, None);
        }
        5 => drop(at.holds(&Frame::token(at.seq.0), EventKind::Token, None)),
        6 => drop(at.holds(&Frame::bye(bye_reason(input.byte()), 1_500), EventKind::Bye, None)),
        _ => drop(at.holds(&Frame::heartbeat(), EventKind::Heartbeat, None)),
    }
}

/// Where an event stands.
struct Place {
    seq: Seq,
    moment: Timestamp,
}

impl Place {
    fn epoch(&self) -> Epoch {
        Epoch::new("k7x2m").expect("an epoch")
    }

    fn id(&self) -> String {
        Cursor { epoch: self.epoch(), seq: self.seq }.to_string()
    }

    /// The frame decodes to one event, in both framings, and to the same data in each.
    fn holds(&self, frame: &Frame, kind: EventKind, id: Option<String>) -> BTreeMap<String, Box<RawValue>> {
        let named = one(frame.sse(Framing::Named));
        assert_eq!((named.kind.as_str(), &named.id), (kind.as_str(), &id));
        assert_eq!(named.retry.is_some(), matches!(kind, EventKind::Hello | EventKind::Bye));
        let enveloped = one(frame.sse(Framing::Envelope));
        assert_eq!((enveloped.kind.as_str(), &enveloped.id), ("", &id), "onmessage hears what has no name");
        assert_eq!(enveloped.data.as_bytes(), frame.object().as_ref());
        let object = fields(&enveloped.data);
        assert_eq!(object["event"].get(), format!("\"{}\"", kind.as_str()));
        assert_eq!(object.get("id").map(|raw| text(raw)), id);
        assert_eq!(object["data"].get(), named.data, "one event, two framings");
        fields(&named.data)
    }
}

/// Decodes a frame that must be one event, whole, in lines that end in LF alone.
fn one(frame: &[u8]) -> Event {
    assert!(frame.ends_with(b"\n\n") && !frame.contains(&b'\r'), "a block and no other line break");
    let mut events = decode(frame);
    assert_eq!(events.len(), 1, "{events:?}");
    let whole = events.pop().expect("there is one");
    let cut = decode(&frame[..frame.len() - 1]);
    assert!(cut.is_empty(), "a frame that was cut off is no event: {cut:?}");
    whole
}

fn fields(json: &str) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("data is an object: {e} in {json}"))
}

fn text(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|e| panic!("a string: {e} in {raw}"))
}

fn notification(at: &Place, input: &mut Input<'_>, frame: impl FnOnce(&Epoch, &Notification) -> Frame) {
    let content = Content {
        title: input.text().into_owned(),
        body: input.text().into_owned(),
        data: input.some_text().filter(|text| is_json(text)).map(|text| compact(&text)),
        icon: input.some_text(),
        click: input.some_text(),
        sender: input.some_text(),
        category: Category::new(&input.text()).unwrap_or_default(),
        actions: vec![Action { label: input.text().into_owned(), click: input.text().into_owned() }],
        priority: Priority::new(input.byte().into()).unwrap_or_default(),
        ..Content::default()
    };
    let it = Notification {
        seq: at.seq,
        id: NotificationId::parse(ID).expect("an id"),
        topic: TopicName::new(&input.text()).ok(),
        content: Arc::new(content),
        created_at: at.moment,
    };
    let told = at.holds(&frame(&at.epoch(), &it), EventKind::Notification, Some(at.id()));
    let content = &it.content;
    assert_eq!((text(&told["title"]), text(&told["body"])), (content.title.clone(), content.body.clone()));
    assert_eq!(told["data"].get(), content.data.as_deref().unwrap_or("null"), "data is kept as sent");
    for (name, value) in [("icon", &content.icon), ("click", &content.click), ("sender", &content.sender)] {
        assert_eq!(&serde_json::from_str::<Option<String>>(told[name].get()).expect("text or null"), value);
    }
    assert_eq!((told["seq"].get(), text(&told["id"])), (at.seq.to_string().as_str(), ID.to_owned()));
}

/// Whether a publish would take it as `data`: any JSON that does not nest too deep.
fn is_json(text: &str) -> bool {
    depth(text) <= MAX_DEPTH && serde_json::from_str::<&RawValue>(text).is_ok()
}

fn hello(at: &Place, input: &mut Input<'_>) {
    let reasons = [
        None,
        Some(ResetReason::None),
        Some(ResetReason::Epoch),
        Some(ResetReason::Pruned),
        Some(ResetReason::Ahead),
        Some(ResetReason::Malformed),
    ];
    let Ok(user) = UserId::new(&input.text()) else { return };
    let hello = Hello {
        user,
        cursor: Cursor { epoch: at.epoch(), seq: at.seq },
        head: at.seq,
        reset: reasons[usize::from(input.byte()) % reasons.len()],
        missed: input.byte().into(),
        counts: counts(input),
        heartbeat: 15,
        expires: Some(at.moment),
        stream: input.text().into_owned(),
    };
    let told = at.holds(&Frame::hello(&hello, 2_000), EventKind::Hello, Some(at.id()));
    assert_eq!(text(&told["user"]), hello.user.as_str());
    assert_eq!(text(&told["stream"]), hello.stream);
    assert_eq!(told["recovered"].get() == "false", told.contains_key("reason"), "what was not recovered says why");
}

fn state(at: &Place, input: &mut Input<'_>) {
    let became = match input.byte() % 4 {
        0 => Became::Dead(Death::Expired),
        1 => Became::Dead(Death::Replaced { by: NotificationId::parse(ID).expect("an id") }),
        mark => Became::Marked(MarkAs::ALL[usize::from(mark)]),
    };
    let target = match input.byte() % 2 {
        0 => MarkTarget::Upto(Seq(input.number())),
        _ => MarkTarget::Ids(vec![NotificationId::parse(ID).expect("an id"); usize::from(input.byte())]),
    };
    let change = StateChange { seq: at.seq, became, target, category: Category::new(&input.text()).ok() };
    let told = at.holds(&Frame::state(&at.epoch(), &change, None), EventKind::State, Some(at.id()));
    assert_eq!(text(&told["state"]), change.became.as_str());
    assert_ne!(told.contains_key("ids"), told.contains_key("upto"));
}

fn counts(input: &mut Input<'_>) -> Counts {
    let mut counts = Counts::default();
    for _ in 0..input.byte() % 4 {
        let some = CategoryCounts { unread: input.byte().into(), unseen: input.byte().into() };
        counts.add(&Category::new(&input.text()).unwrap_or_default(), some);
    }
    counts
}

fn bye_reason(byte: u8) -> ByeReason {
    let reasons = [
        ByeReason::Shutdown,
        ByeReason::Rotate,
        ByeReason::Overloaded,
        ByeReason::Expired,
        ByeReason::Revoked,
        ByeReason::Slow,
        ByeReason::Replaced,
    ];
    reasons[usize::from(byte) % reasons.len()]
}
