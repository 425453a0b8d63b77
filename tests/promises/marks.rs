//! Marks (T9): four devices of one person mark the same entries at once, over HTTP and WebSockets, in any order and
//! doubled. What is in the end, and each step on the way, is what the marks do one after the other in commit order.
//!
//! The quick form sends 600 marks from a fixed seed; `TIDINGS_MARKS=10000` is the full one, from a seed that it prints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::http::{Ask, Place};
use crate::support::server::Setup;
use crate::support::sse::Event;
use crate::support::ws::{Ws, handshake};
use crate::support::{Dice, token};

const DEVICES: usize = 4;
const ENTRIES: u64 = 40;
const CATEGORIES: [&str; 2] = ["general", "loans"];
/// Operations that one WebSocket takes at once; behind them a device comes back, as it would after a cut.
const OPERATIONS: usize = 150;

/// An entry as one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    id: String,
    category: String,
    seen: bool,
    read: bool,
    archived: bool,
}

/// Everything, by position.
type Shelf = BTreeMap<u64, Known>;

/// What a mark names.
#[derive(Clone, Debug)]
enum Named {
    Upto(u64),
    Ids(Vec<String>),
}

#[derive(Clone, Debug)]
struct Mark {
    mark: &'static str,
    named: Named,
    category: Option<&'static str>,
}

impl Mark {
    fn draw(dice: &mut Dice, shelf: &Shelf) -> Self {
        let seqs: Vec<u64> = shelf.keys().copied().collect();
        let mut seq = || seqs[dice.below(ENTRIES) as usize];
        let (one, two) = (seq(), seq());
        let by_ids = dice.below(5) > 0;
        let marks: &[&'static str] =
            if by_ids { &["seen", "read", "unread", "archived", "unarchived"] } else { &["seen", "read"] };
        let mark = marks[dice.below(marks.len() as u64) as usize];
        let named = if by_ids {
            Named::Ids([one, two].iter().map(|seq| shelf[seq].id.clone()).collect())
        } else {
            Named::Upto(one.min(two))
        };
        let category = (dice.below(4) == 0).then(|| CATEGORIES[dice.below(2) as usize]);
        Self { mark, named, category }
    }

    fn body(&self, epoch: &str) -> Value {
        let mut body = json!({ "as": self.mark });
        match &self.named {
            Named::Upto(upto) => body["upto"] = json!(format!("{epoch}.{upto}")),
            Named::Ids(ids) => body["ids"] = json!(ids),
        }
        if let Some(category) = self.category {
            body["category"] = json!(category);
        }
        body
    }

    /// A `state` event is a mark.
    fn apply(&self, shelf: &mut Shelf) -> u64 {
        let upto = if let Named::Upto(upto) = self.named { Some(upto) } else { None };
        let ids = if let Named::Ids(ids) = &self.named { ids.as_slice() } else { &[] };
        apply(shelf, self.mark, upto, ids, self.category)
    }
}

/// Marks entries; how many changed.
fn apply(shelf: &mut Shelf, mark: &str, upto: Option<u64>, ids: &[String], category: Option<&str>) -> u64 {
    let mut changed = 0;
    for (seq, known) in shelf {
        let meant = upto.is_some_and(|upto| *seq <= upto) || ids.contains(&known.id);
        if !meant || category.is_some_and(|category| category != known.category) {
            continue;
        }
        let before = known.clone();
        match mark {
            "seen" => known.seen = true,
            "read" => (known.read, known.seen) = (true, true),
            "unread" => known.read = false,
            "archived" => known.archived = true,
            "unarchived" => known.archived = false,
            other => panic!("no mark is called {other}"),
        }
        changed += u64::from(*known != before);
    }
    changed
}

/// Unread and unseen.
fn counts(shelf: &Shelf) -> (usize, usize) {
    let shown = || shelf.values().filter(|known| !known.archived);
    (shown().filter(|known| !known.read).count(), shown().filter(|known| !known.seen).count())
}

/// A mark and what was answered.
#[derive(Debug)]
struct Told {
    mark: Mark,
    changed: u64,
    as_of: u64,
    counts: (usize, usize),
}

impl Told {
    fn new(mark: Mark, answer: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {answer}"));
        let size = |field: &str| usize::try_from(number(&answer["counts"][field])).expect("it is small");
        let as_of = seq_of(answer["cursor"].as_str().unwrap_or_default());
        Self { mark, changed: number(&answer["changed"]), as_of, counts: (size("unread"), size("unseen")) }
    }
}

fn seq_of(cursor: &str) -> u64 {
    cursor.split_once('.').and_then(|(_, seq)| seq.parse().ok()).unwrap_or_else(|| panic!("{cursor} is no cursor"))
}

/// A device's copy, as its stream makes it.
struct Copy {
    shelf: Shelf,
    last: u64,
}

impl Copy {
    /// Takes one event in; one at or below the last is ignored, as clients do.
    fn take(&mut self, event: &Event) {
        if event.kind != "state" || event.seq() <= self.last {
            return;
        }
        self.last = event.seq();
        let data = &event.data;
        let ids = data["ids"].as_array().into_iter().flatten().map(|id| id.as_str().unwrap_or_default().to_owned());
        let ids: Vec<String> = ids.collect();
        let upto = data["upto"].as_str().map(seq_of);
        let mark = data["state"].as_str().unwrap_or_default();
        if mark == "unread" {
            // Only what was read can be unread, and read is seen: a compact replay may leave the `read` out.
            apply(&mut self.shelf, "seen", upto, &ids, data["category"].as_str());
        }
        apply(&mut self.shelf, mark, upto, &ids, data["category"].as_str());
    }
}

/// A device that marks over HTTP, and listens with an EventSource.
fn over_http(place: &Place, credential: &str, epoch: &str, marks: Vec<Mark>) -> Vec<Told> {
    let told = |mark: Mark| {
        let ask = Ask::post("/v1/inbox/mark").bearer(credential).json(&mark.body(epoch));
        let answer = ask.send(place).expect(200).json();
        Told::new(mark, &answer)
    };
    marks.into_iter().map(told).collect()
}

fn open(place: &Place, credential: &str, cursor: &str) -> Ws {
    let mut ws =
        Ws::open(place, &handshake(&format!("/v1/ws?events=notification,state&cursor={cursor}")).bearer(credential));
    assert_eq!(ws.expect("hello").data["recovered"], true);
    ws
}

/// A device that does both over WebSockets, one after the other, and resumes from the last event that it had.
fn over_websocket(place: &Place, credential: &str, epoch: &str, marks: Vec<Mark>, copy: &mut Copy) -> Vec<Told> {
    let mut told = Vec::new();
    for some in marks.chunks(OPERATIONS) {
        let mut ws = open(place, credential, &format!("{epoch}.{}", copy.last));
        for mark in some {
            let mut operation = mark.body(epoch);
            operation["op"] = json!("mark");
            let answer = ws.ask(operation);
            assert_eq!(answer["ok"], true, "{answer}");
            told.push(Told::new(mark.clone(), &answer));
        }
        // What has come is read up to a reply behind it; the rest is lost with the connection, and comes again.
        while let Some(event) = ws.pending() {
            copy.take(&event);
        }
    }
    told
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what a full run is kept for")]
fn marks_of_four_devices_end_as_their_commit_order_says_and_every_device_agrees() {
    let asked: Option<usize> = std::env::var("TIDINGS_MARKS").ok().map(|text| text.parse().expect("a number of marks"));
    let seed = asked.map_or(9, |_| u64::try_from(token::now()).unwrap_or_default());
    let marks = asked.unwrap_or(600);
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    // A quick machine marks faster than a person may.
    let server = Setup::serve().env("TIDINGS_LIMITS_MARKS_PER_USER", "0").start();
    server.operate(Ask::put("/v1/topics/ops").json(&json!({ "category": "loans" }))).expect(201);
    server.follow("ops", "alice");
    let mut shelf = Shelf::new();
    let mut epoch = String::new();
    for i in 0..ENTRIES {
        let (to, category) = if i % 3 == 0 { (json!("topic:ops"), "loans") } else { (json!("user:alice"), "general") };
        let made = server.publish(&json!({ "to": to, "title": format!("t{i}"), "category": category }));
        let id = made["id"].as_str().expect("an id").to_owned();
        let known = Known { id, category: category.to_owned(), seen: false, read: false, archived: false };
        let cursor = made["cursor"].as_str().expect("a cursor");
        epoch = cursor.split_once('.').expect("a cursor").0.to_owned();
        shelf.insert(seq_of(cursor), known);
    }
    let begin = *shelf.keys().last().expect("there are some");

    // A third is sent by a second device as well; each device sends its share in an order of its own.
    let mut shares: Vec<Vec<Mark>> = vec![Vec::new(); DEVICES];
    let mut drawn = 0;
    while drawn < marks {
        let mark = Mark::draw(&mut dice, &shelf);
        for _ in 0..if dice.below(3) == 0 { 2 } else { 1 } {
            shares[dice.below(DEVICES as u64) as usize].push(mark.clone());
            drawn += 1;
        }
    }
    for share in &mut shares {
        for at in (1..share.len()).rev() {
            share.swap(at, dice.below(at as u64 + 1) as usize);
        }
    }

    let credential = server.token("alice");
    let (place, credential, epoch) = (server.place(), credential.as_str(), epoch.as_str());
    let listen = |_| server.stream("alice", &format!("?events=notification,state&cursor={epoch}.{begin}"));
    let mut streams: Vec<_> = (0..2).map(listen).collect();
    let mut copies: Vec<Copy> = (0..DEVICES).map(|_| Copy { shelf: shelf.clone(), last: begin }).collect();
    let mut told: Vec<Told> = std::thread::scope(|scope| {
        let devices: Vec<_> = shares
            .into_iter()
            .zip(&mut copies)
            .enumerate()
            .map(|(number, (share, copy))| {
                scope.spawn(move || match number {
                    0 | 1 => over_http(place, credential, epoch, share),
                    _ => over_websocket(place, credential, epoch, share, copy),
                })
            })
            .collect();
        devices.into_iter().flat_map(|device| device.join().expect("every mark is answered")).collect()
    });

    // What changes something takes the next position; what changes nothing happened right behind the position it names.
    told.sort_by_key(|told| (told.as_of, told.changed == 0));
    let mut head = begin;
    for Told { mark, changed, as_of, counts: answered } in &told {
        assert_eq!(mark.apply(&mut shelf), *changed, "{mark:?} at {as_of}");
        head += u64::from(*changed > 0);
        assert_eq!(*as_of, head, "{mark:?}: one position for each mark that changes something");
        assert_eq!(*answered, counts(&shelf), "{mark:?} at {as_of}");
    }
    assert!(head > begin + marks as u64 / 5, "hardly any mark changed anything");

    for (number, copy) in copies.iter_mut().enumerate() {
        if let Some(stream) = streams.get_mut(number) {
            assert_eq!(stream.expect("hello").data["recovered"], true);
            while copy.last < head {
                copy.take(&stream.until("state"));
            }
        } else if copy.last < head {
            let mut ws = open(place, credential, &format!("{epoch}.{}", copy.last));
            while copy.last < head {
                copy.take(&ws.until("state"));
            }
        }
        assert_eq!(copy.shelf, shelf, "device {number}");
    }
    let inbox = server.inbox("alice");
    let unread_and_unseen = (inbox["counts"]["unread"].clone(), inbox["counts"]["unseen"].clone());
    let expected = counts(&shelf);
    assert_eq!(unread_and_unseen, (json!(expected.0), json!(expected.1)));
    // The harness recounts when the server ends.
    println!("{} marks, {} of them changed something", told.len(), head - begin);
}
