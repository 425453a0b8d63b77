//! Publishers that do what a careful one does: the same request with the same key until there is an answer.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

use super::http::{Answer, Ask, Place};
use super::{DEADLINE, LOOK};

/// Where the server is now. It moves when it is started again.
#[derive(Debug)]
pub struct Whereabouts(Mutex<Place>);

impl Whereabouts {
    pub fn new(place: &Place) -> Self {
        Self(Mutex::new(place.clone()))
    }

    pub fn moved(&self, place: &Place) {
        *self.0.lock().expect("nobody panics with it") = place.clone();
    }

    pub fn place(&self) -> Place {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

/// What came of tries that brought no acknowledgement.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections that nobody took.
    pub refused: AtomicUsize,
    /// Connections that were cut before the answer.
    pub cut: AtomicUsize,
    /// Answers that ask to come later.
    pub later: AtomicUsize,
    /// Answers of another test's server, which was given the port that ours has left.
    pub strangers: AtomicUsize,
}

/// Publishes until it is acknowledged; the acknowledgement.
///
/// # Panics
/// At an answer that no retry mends, and where none comes in time. What does not know the credential is taken for a stranger
/// where our server was, until it turns out to have been ours.
pub fn publish(server: &Whereabouts, credential: &str, key: &str, body: &Value, tally: &Tally) -> Answer {
    let ask = Ask::post("/v1/notifications").bearer(credential).header("idempotency-key", key).json(body);
    let started = Instant::now();
    let mut strangers = Vec::new();
    loop {
        let place = server.place();
        match ask.attempt(&place) {
            Ok(answer) if answer.status() == 201 => {
                assert!(!strangers.contains(&place), "our server did not know its own key, and then it did");
                return answer;
            }
            Ok(answer) if answer.status() == 401 => {
                tally.strangers.fetch_add(1, Ordering::Relaxed);
                if !strangers.contains(&place) {
                    strangers.push(place);
                }
            }
            Ok(answer) => {
                answer.problem(409, "idempotency-running");
                assert_eq!(answer.header("retry-after"), Some("1"));
                tally.later.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                tally.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
        assert!(started.elapsed() < DEADLINE, "{key} is not acknowledged: {tally:?}");
        std::thread::park_timeout(LOOK);
    }
}
