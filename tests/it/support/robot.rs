//! The other side of a robot, which answers when it is let: as many messages as the test says, each after a while.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

/// A robot's group, as DingTalk would show it.
pub struct Group {
    /// What a robot posts to.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// How long each message takes.
    takes: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The title of each message, as they came.
    titles: Vec<String>,
    /// How many of them are answered.
    through: usize,
}

impl Group {
    /// Nothing is answered at first.
    pub fn open(takes: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared { takes, state: Mutex::default(), changed: Condvar::new() });
        let kept = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let shared = kept.clone();
                // A client that went has no answer.
                std::thread::spawn(move || shared.serve(socket).ok());
            }
        });
        Self { url: format!("http://{address}/robot/send?access_token=s3cret"), shared }
    }

    /// Answers so many messages, of all that ever come, each in its turn.
    pub fn let_through(&self, messages: usize) {
        self.shared.state.lock().expect("nobody panics with it").through = messages;
        self.shared.changed.notify_all();
    }

    /// The title of each message that came, answered or not.
    pub fn titles(&self) -> Vec<String> {
        self.shared.state.lock().expect("nobody panics with it").titles.clone()
    }
}

impl Shared {
    fn serve(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(socket.try_clone()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(said) = line.to_lowercase().strip_prefix("content-length:") {
                length = said.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        let message: Value = serde_json::from_slice(&body).expect("robots say JSON");
        let title = message["markdown"]["title"].as_str().expect("a title").to_owned();
        let mut state = self.state.lock().expect("nobody panics with it");
        let place = state.titles.len();
        state.titles.push(title);
        drop(self.changed.wait_while(state, |state| state.through <= place));
        // Not for a time that something is guessed to take: this is how slow the other side is.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(self.takes);
        let said = r#"{"errcode":0,"errmsg":"ok"}"#;
        socket.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{said}", said.len()).as_bytes())
    }
}
