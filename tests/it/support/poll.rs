//! A long-poll client: one connection, one answer after the other, and the position between them.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::Value;

use super::DEADLINE;
use super::http::{Answer, Ask, Connection, Place};
use super::server::Server;
use super::sse::Event;
use super::ws::event;

/// A client that polls.
pub struct Poll {
    place: Place,
    connection: Option<Connection>,
    /// The query beside the cursor, without `?`.
    query: String,
    credential: Option<String>,
    pub cursor: Option<String>,
    events: VecDeque<Event>,
    /// Answers taken in.
    pub answers: usize,
}

impl Poll {
    /// `query` begins with `?` or is empty.
    pub fn new(place: &Place, query: &str, credential: &str) -> Self {
        Self {
            place: place.clone(),
            connection: None,
            query: query.trim_start_matches('?').to_owned(),
            credential: Some(credential.to_owned()),
            cursor: None,
            events: VecDeque::new(),
            answers: 0,
        }
    }

    /// One whose credential stands in the query.
    pub fn anonymous(place: &Place, query: &str) -> Self {
        Self { credential: None, ..Self::new(place, query, "") }
    }

    /// Asks once; the answer, whatever it is.
    pub fn ask(&mut self, wait: u32) -> std::io::Result<Answer> {
        // The last one counts.
        let cursor = self.cursor.as_ref().map_or(String::new(), |cursor| format!("&cursor={cursor}"));
        let mut ask = Ask::get(&format!("/v1/poll?wait={wait}&{}{cursor}", self.query));
        if let Some(credential) = &self.credential {
            ask = ask.bearer(credential);
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.place)?,
        };
        connection.send(&ask.to_bytes())?;
        let answer = connection.answer()?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Takes an answer in.
    pub fn absorb(&mut self, answer: &Value) {
        self.cursor = Some(answer["cursor"].as_str().expect("every answer has a cursor").to_owned());
        let events = answer["events"].as_array().expect("every answer has events");
        let events: Vec<Event> = events.iter().map(event).collect();
        assert!(events.iter().all(|event| event.kind != "hello"), "{answer}");
        self.events.extend(events);
        self.answers += 1;
    }

    /// The next event. The first is made of what the first answer says of itself, as `hello` says it on a stream.
    pub fn next(&mut self) -> Event {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "nothing came in {DEADLINE:?}");
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let answer = self.ask(10).expect("the server answers").expect(200).json();
            self.absorb(&answer);
            if self.answers == 1 {
                let mut data = answer.clone();
                data.as_object_mut().expect("an object").remove("events");
                return Event { kind: "hello".to_owned(), data, ..Event::default() };
            }
        }
    }
}

/// A figure of `/metrics`, such as how many polls are parked; `None` where nothing of it was ever counted.
pub fn figure(server: &Server, name: &str) -> Option<u64> {
    let text = server.send(&Ask::get("/metrics")).expect(200).text().to_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
