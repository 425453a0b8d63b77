//! No gap, no duplicate to the eye, one order (T7): clients of all transports, cut at random every 0.2 to 2 s and coming back
//! by another way, while the server publishes to them and rotates their streams.
//!
//! The quick form cuts 60 clients for 8 s; `TIDINGS_CUTS_S=60` is the full one: 500 clients under 2,000 publishes a second.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::crowd::line::{Line, Transport};
use crate::crowd::{self, Eye, Faults, Plan, SETTLE, long_token, runtime, setting, user};
use crate::support::Dice;
use crate::support::server::{Server, Setup};

/// The library's share of the clients, in one process of Node.js.
const PAGES: usize = 4;

/// What a page does with `tidings.js`, for several people at once: each notification as a line.
const PAGE: &str = r#"
import { connect } from './static/tidings.mjs';
const { url, people } = JSON.parse(process.argv[2]);
for (const { name, token } of people) {
  const client = connect({ url, token, cursor: 'start', share: false });
  client.on('notification', ({ seq }) => console.log(`${name} ${seq}`));
}
setInterval(() => {}, 1000);
"#;

#[test]
fn clients_that_are_cut_all_the_time_see_each_notification_once_and_in_order() {
    let full = setting("TIDINGS_CUTS_S", 0);
    let seed = setting("TIDINGS_CUTS_SEED", 7);
    let plan = match full {
        0 => Plan { clients: 60, rate: 200, span: Duration::from_secs(8), lives: 200..2_000, seed },
        span => Plan { clients: 500, rate: 2_000, span: Duration::from_secs(span), lives: 200..2_000, seed },
    };
    let server = Setup::serve().env("TIDINGS_STREAMS_MAX_AGE", "1s").start();
    runtime().block_on(async {
        let pages = Pages::open(&server, plan.clients, seed).await;
        let outcome = crowd::run(&server, &plan, PAGES, |_| ()).await;
        let seen = pages.close(&outcome).await;
        let rate = outcome.published as f64 / plan.span.as_secs_f64();
        println!(
            "seed {seed}: {} clients and {PAGES} pages, {} published ({rate:.0}/s), {} delivered, {} cuts, {} rotations, {} came again, \
             {seen} seen by pages, settled in {:?}: {:?}",
            plan.clients, outcome.published, outcome.delivered, outcome.cuts, outcome.rotations, outcome.again, outcome.settled,
            outcome.faults
        );
        assert!(outcome.cuts > plan.clients as u64 && outcome.rotations > 0, "hardly anybody was cut");
        assert!(outcome.delivered > plan.clients && seen > 0, "hardly anything was published");
        assert_eq!(outcome.resets, 0, "every cursor was good");
    });
}

/// The control: who resumes one position too far is found out.
#[test]
fn a_client_that_skips_one_is_reported_as_a_gap() {
    let server = Server::start();
    let due: Vec<u64> =
        (0..6).map(|i| server.notify("alice", &format!("t{i}"))["seq"].as_u64().expect("a seq")).collect();
    runtime().block_on(async {
        for (skipped, expected) in [(0, Faults::default()), (1, Faults { gaps: 1, ..Faults::default() })] {
            let mut eye = Eye::default();
            while eye.seen.last() != due.last() {
                let address = crowd::address(&server);
                let token = long_token(&server, "alice");
                let transport = if eye.seen.is_empty() { Transport::Sse } else { Transport::Poll };
                let mut line = Line::open(address, transport, &token, &eye.cursor()).await.expect("it is accepted");
                while eye.seen.last() != due.last() {
                    let event =
                        timeout(crate::support::DEADLINE, line.next()).await.expect("it comes").expect("an event");
                    eye.look(&event);
                    if event.kind == "notification" && eye.seen.len() == 2 {
                        eye.last += skipped;
                        break;
                    }
                }
            }
            assert_eq!(Faults::of(&due, &eye.seen), expected, "due {due:?}, seen {:?}", eye.seen);
        }
    });
}

#[test]
fn the_judge_knows_a_gap_a_double_and_a_disorder() {
    let told = |seen: &[u64]| Faults::of(&[1, 3, 5], seen);
    assert_eq!(told(&[1, 3, 5]), Faults::default());
    assert_eq!(told(&[1, 5]), Faults { gaps: 1, ..Faults::default() });
    assert_eq!(told(&[1, 3, 3, 5]), Faults { doubles: 1, ..Faults::default() });
    assert_eq!(told(&[3, 1, 5]), Faults { disorder: 1, ..Faults::default() });
}

/// `tidings.js` under Node.js, through something that cuts.
struct Pages {
    _folder: tempfile::TempDir,
    child: std::process::Child,
    told: std::sync::mpsc::Receiver<String>,
    cutter: tokio::task::JoinHandle<()>,
    calm: tokio::sync::watch::Sender<bool>,
    first: usize,
}

impl Pages {
    async fn open(server: &Server, first: usize, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("static")).expect("it is ours");
        let library = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("static/tidings.js");
        std::fs::copy(library, folder.path().join("static/tidings.mjs")).expect("the library is there");
        std::fs::write(folder.path().join("page.mjs"), PAGE).expect("it is ours");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        let (calm, calmed) = tokio::sync::watch::channel(false);
        let cutter = tokio::spawn(cut(listener, crowd::address(server), Dice::new(seed), calmed));
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
        let (tell, told) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { _folder: folder, child, told, cutter, calm, first }
    }

    /// Lets the connections live, waits until everything is seen, and judges; how many were seen.
    async fn close(mut self, outcome: &crowd::Outcome) -> usize {
        self.calm.send_replace(true);
        let deadline = Instant::now() + SETTLE;
        let mut seen = vec![Vec::new(); PAGES];
        let due = |page: usize| outcome.due.get(&(self.first + page)).map(Vec::as_slice).unwrap_or_default();
        while (0..PAGES).any(|page| seen[page].last() < due(page).last()) {
            let line = self.told.try_recv();
            let Ok(line) = line else {
                assert!(Instant::now() < deadline, "the pages have not seen everything: {seen:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (number, seq) = line.split_once(' ').expect("who and what");
            let number: usize = number.parse().expect("a number");
            seen[number - self.first].push(seq.parse().expect("a position"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.cutter.abort();
        for (page, seen) in seen.iter().enumerate() {
            assert_eq!(
                Faults::of(due(page), seen),
                Faults::default(),
                "page {page}: due {:?}, seen {seen:?}",
                due(page)
            );
        }
        seen.iter().map(Vec::len).sum()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Carries connections on to a server, and cuts each after 1 to 3 s until there is calm.
async fn cut(
    listener: TcpListener,
    server: std::net::SocketAddr,
    mut dice: Dice,
    calm: tokio::sync::watch::Receiver<bool>,
) {
    while let Ok((mut near, _)) = listener.accept().await {
        let life = Duration::from_millis(1_000 + dice.below(2_000));
        let mut calm = calm.clone();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = async {
                    tokio::time::sleep(life).await;
                    if *calm.borrow_and_update() {
                        std::future::pending::<()>().await;
                    }
                } => {}
            }
        });
    }
}
