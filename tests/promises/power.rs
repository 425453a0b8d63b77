//! Power cuts (T2): the real binary runs on a disk that is written down; the power is cut at many points of the record, with
//! what was not flushed dropped, kept or torn, and every publish and mark acknowledged before the cut is in what is left.
//!
//! The quick form cuts 120 times from a fixed seed; `TIDINGS_POWER_CUTS=1000` is the full one, from a random seed unless
//! `TIDINGS_POWER_SEED` names one. Every 30th cut is looked at by the binary itself, which recounts every inbox and is asked
//! for every other change that was acknowledged ([`verbs`](crate::verbs)).

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;

use serde_json::json;

use crate::shim::{Disk, Fate, Honesty, Record, recorded};
use crate::stored::{Acknowledged, Marked, Verdict, judge, unmarked};
use crate::support::http::Ask;
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::server::Setup;
use crate::support::{Dice, token};
use crate::verbs::{self, Change, Verbs};

const PUBLISHERS: usize = 4;
/// One in so many publishes is marked as read, with all before it.
const MARKED: usize = 5;
/// Enough that the log of writes is taken into the database more than once.
const EACH: usize = 60;
const CUTS: usize = 120;
const SEED: u64 = 20_260_401;
/// Rounds of the other verbs meanwhile.
const ROUNDS: usize = 3;
/// One of so many cuts is looked at by the binary.
const BY_THE_BINARY: usize = 30;

/// A run that was written down.
struct Written {
    record: Record,
    acknowledged: Vec<Acknowledged>,
    marked: Vec<Marked>,
    changes: Vec<Change>,
    possible: HashSet<String>,
    /// With it users' tokens were signed; it lies beside the log and is not in the record.
    token_key: Vec<u8>,
}

fn write_down() -> Written {
    let (data, aside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let log = aside.path().join("record");
    let mut server = recorded(data, &log).start();
    let credential = server.key(&["publish"]);
    let (place, tally, told) = (Whereabouts::new(server.place()), Tally::default(), Mutex::new(Vec::new()));
    let marked = Mutex::new(Vec::new());
    let written = || std::fs::metadata(&log).expect("it is written").len();
    let mut verbs = Verbs::new(&place, server.data().to_owned(), server.key(&["admin"]), &written);
    let tokens: Vec<String> = (0..PUBLISHERS).map(|i| server.token(&format!("u{i}"))).collect();
    for i in 0..PUBLISHERS {
        server.follow("all", &format!("u{i}"));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| (0..ROUNDS).for_each(|n| verbs.round(n)));
        for (i, token) in tokens.iter().enumerate() {
            let (credential, place, tally, told, marked) = (&credential, &place, &tally, &told, &marked);
            let length = &written;
            scope.spawn(move || {
                for n in 0..EACH {
                    let title = format!("{i}/{n}");
                    let to = if n % 4 == 3 { json!("topic:all") } else { json!({ "user": format!("u{i}") }) };
                    let body = json!({ "to": to, "title": title, "body": "x".repeat(1_500) });
                    let answer = publish(place, credential, &title, &body, tally).json();
                    let seq = answer["seq"].as_u64().expect("a seq");
                    told.lock().expect("nobody panics with it").push(Acknowledged { title, seq, told: length() });
                    if n % MARKED == 0 {
                        let mark = json!({ "as": "read", "upto": answer["cursor"] });
                        Ask::post("/v1/inbox/mark").bearer(token).json(&mark).send(&place.place()).expect(200);
                        let mark = Marked { user: format!("u{i}"), upto: seq, told: length() };
                        marked.lock().expect("nobody panics with it").push(mark);
                    }
                }
            });
        }
    });
    assert!(server.terminate().0.success(), "{}", server.log());
    let acknowledged = told.into_inner().expect("nobody panics with it");
    let marked = marked.into_inner().expect("nobody panics with it");
    let mut possible: HashSet<String> =
        (0..PUBLISHERS).flat_map(|i| (0..EACH).map(move |n| format!("{i}/{n}"))).collect();
    let Verbs { changes, titles, .. } = verbs;
    possible.extend(titles);
    let token_key = std::fs::read(server.data().join("token.key")).expect("tokens were signed with it");
    Written { record: Record::read(&log), acknowledged, marked, changes, possible, token_key }
}

impl Written {
    /// Cuts the power at random points, in order; hands what is left to `look` with the cut's number and its place.
    fn cut(&self, cuts: usize, seed: u64, honesty: Honesty, mut look: impl FnMut(usize, usize, tempfile::TempDir)) {
        let mut dice = Dice::new(seed);
        let mut places: Vec<usize> = (0..cuts).map(|_| dice.below(self.record.len() as u64 + 1) as usize).collect();
        places.sort_unstable();
        let mut disk = Disk::new(&self.record, honesty);
        for (i, place) in places.into_iter().enumerate() {
            disk.forward(place);
            let left = tempfile::tempdir().expect("a directory");
            let fate = [Fate::Dropped, Fate::Torn, Fate::Torn, Fate::Kept][dice.below(4) as usize];
            disk.cut(fate, &mut dice, left.path());
            look(i, place, left);
        }
    }

    /// What is wrong with what a cut has left.
    fn judge(&self, place: usize, left: &Path) -> Verdict {
        let told = self.record.told(place);
        let mut verdict = judge(left, self.acknowledged.iter().filter(|one| one.told <= told), &self.possible);
        verdict.lost.extend(unmarked(left, self.marked.iter().filter(|one| one.told <= told)));
        verdict
    }

    /// How many cuts of this disk lose something acknowledged. What they break besides is not counted.
    fn losses(&self, honesty: Honesty) -> usize {
        let mut losses = 0;
        self.cut(CUTS / 2, SEED, honesty, |_, place, left| {
            losses += usize::from(!self.judge(place, left.path()).lost.is_empty());
        });
        losses
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cuts = number("TIDINGS_POWER_CUTS").map_or(CUTS, |cuts| cuts as usize);
    let drawn = || if cuts == CUTS { SEED } else { u64::try_from(token::now()).unwrap_or(SEED) };
    let seed = number("TIDINGS_POWER_SEED").unwrap_or_else(drawn);
    let written = write_down();
    println!(
        "seed {seed}: {cuts} cuts, {} writes, {} publishes, {} marks and {} other changes acknowledged",
        written.record.len(),
        written.acknowledged.len(),
        written.marked.len(),
        written.changes.len()
    );
    let mut by_the_binary = 0;
    written.cut(cuts, seed, Honesty::Honest, |i, place, left| {
        if i % BY_THE_BINARY == 0 {
            // The first of all: a server starts on whatever a cut leaves. When it is dropped the harness recounts.
            std::fs::write(left.path().join("token.key"), &written.token_key).expect("there is room");
            let server = Setup::serve().on(left).start();
            server.notify("u0", "afterwards");
            let left = server.data().to_owned();
            let told = written.record.told(place);
            let mut possible = written.possible.clone();
            possible.insert("afterwards".to_owned());
            let before = written.acknowledged.iter().filter(|one| one.told <= told);
            let verdict = judge(&left, before, &possible);
            assert!(verdict.is_clean(), "seed {seed}, cut {i} after {place} changes, read by the server: {verdict:?}");
            let changes = written.changes.iter().filter(|one| one.told <= told);
            let missing = verbs::missing(changes, server.place());
            assert!(missing.is_empty(), "seed {seed}, cut {i} after {place} changes, asked: {missing:?}");
            by_the_binary += 1;
        } else {
            let verdict = written.judge(place, left.path());
            assert!(verdict.is_clean(), "seed {seed}, cut {i} after {place} changes: {verdict:?}");
        }
    });
    assert!(by_the_binary > 0);

    // The controls: the same judge on disks, and on settings, that break the promise.
    let (normal, lying) = (written.losses(Honesty::ForgetsTheLog), written.losses(Honesty::LosesSectors));
    println!("of {} cuts each: without flushes of the log {normal} lose, with lost sectors {lying}", CUTS / 2);
    assert!(normal > 0, "a log that is not flushed must lose what was acknowledged, or this test sees nothing");
    assert!(lying > 0, "a disk that loses flushed sectors must lose what was acknowledged, or this test sees nothing");
}
