//! `tidings.js` itself, under Node.js: the pages of several people in one process, which reach the server through something
//! that can cut.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Faults, SETTLE, long_token, user};
use crate::support::Dice;
use crate::support::server::Server;

/// People with a page.
pub const PAGES: usize = 4;

/// What a page does for several people at once: each notification as a line.
const PAGE: &str = r#"
import { connect } from './static/tidings.mjs';
const { url, people } = JSON.parse(process.argv[2]);
for (const { name, token } of people) {
  const client = connect({ url, token, cursor: 'start', share: false });
  client.on('notification', ({ seq }) => console.log(`${name} ${seq}`));
}
setInterval(() => {}, 1000);
"#;

/// What was due, by the number of the user.
pub type Due = HashMap<usize, Vec<u64>>;

/// What becomes of the pages' connections.
#[derive(Clone, Copy)]
pub enum Cuts {
    /// They live as long as the server does.
    None,
    /// Each lives for 1 to 3 s, drawn from this seed, until the pages are closed.
    Seeded(u64),
}

/// Pages that are open.
pub struct Pages {
    _folder: TempDir,
    child: Child,
    told: mpsc::Receiver<String>,
    relay: JoinHandle<()>,
    calm: watch::Sender<bool>,
    first: usize,
    seen: Vec<Vec<u64>>,
}

impl Pages {
    /// Opens [`PAGES`] of them, for users from number `first` on; `place` is where the server is at any time.
    pub async fn open(server: &Server, first: usize, place: watch::Receiver<SocketAddr>, cuts: Cuts) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("static")).expect("it is ours");
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("static/tidings.js");
        std::fs::copy(library, folder.path().join("static/tidings.mjs")).expect("the library is there");
        std::fs::write(folder.path().join("page.mjs"), PAGE).expect("it is ours");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        let (calm, calmed) = watch::channel(matches!(cuts, Cuts::None));
        let seed = if let Cuts::Seeded(seed) = cuts { seed } else { 0 };
        let relay = tokio::spawn(relay(listener, place, Dice::new(seed), calmed));
        let people: Vec<_> = (first..first + PAGES)
            .map(|number| json!({ "name": number, "token": long_token(server, &user(number)) }))
            .collect();
        let mut child = Command::new("node")
            .arg("page.mjs")
            .arg(json!({ "url": url, "people": people }).to_string())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js is there, as the other tests of the library need it too");
        let (tell, told) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { _folder: folder, child, told, relay, calm, first, seen: vec![Vec::new(); PAGES] }
    }

    /// Waits until each has seen the last of what is due to it.
    pub async fn have_seen(&mut self, due: &Due) {
        let deadline = Instant::now() + SETTLE;
        while (0..PAGES).any(|page| self.seen[page].last() < self.due(due, page).last()) {
            let Ok(line) = self.told.try_recv() else {
                assert!(Instant::now() < deadline, "the pages have not seen everything: {:?}", self.seen);
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (number, seq) = line.split_once(' ').expect("who and what");
            let number: usize = number.parse().expect("a number");
            self.seen[number - self.first].push(seq.parse().expect("a position"));
        }
    }

    /// Lets the connections live, waits until everything is seen, and judges; how many were seen.
    pub async fn close(mut self, due: &Due) -> usize {
        self.calm.send_replace(true);
        self.have_seen(due).await;
        for (page, seen) in self.seen.iter().enumerate() {
            let due = self.due(due, page);
            assert_eq!(Faults::of(due, seen), Faults::default(), "page {page}: due {due:?}, seen {seen:?}");
        }
        self.seen.iter().map(Vec::len).sum()
    }

    fn due<'d>(&self, due: &'d Due, page: usize) -> &'d [u64] {
        due.get(&(self.first + page)).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.relay.abort();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Carries connections on to the server, and cuts each after 1 to 3 s until there is calm.
async fn relay(listener: TcpListener, place: watch::Receiver<SocketAddr>, mut dice: Dice, calm: watch::Receiver<bool>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let life = Duration::from_millis(1_000 + dice.below(2_000));
        let (server, mut calm) = (*place.borrow(), calm.clone());
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = async {
                    sleep(life).await;
                    if *calm.borrow_and_update() {
                        std::future::pending::<()>().await;
                    }
                } => {}
            }
        });
    }
}
