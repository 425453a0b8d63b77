//! Socket activation: somebody else holds the listening socket, as systemd does, so that a restart refuses nobody. A
//! refused connection, or the 502 that a proxy makes of it, stops every browser's EventSource for ever.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::http::Ask;
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::server::{Server, Setup};

fn held() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// Restarts the server by `signal` under load; what its clients met, and how many publishes were acknowledged.
fn restart_under_load(signal: Signal, restarts: usize) -> (Server, Tally, usize) {
    let listener = held();
    let mut server = Setup::serve().inherit(&listener).start();
    let credential = server.key(&["publish"]);
    let (place, tally, stop) = (Whereabouts::new(server.place()), Tally::default(), AtomicBool::new(false));
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (told, progress) = channel();
        for i in 0..4 {
            let (told, place, tally, stop, credential) = (told.clone(), &place, &tally, &stop, &credential);
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let title = format!("{i}/{n}");
                    publish(place, credential, &title, &json!({ "to": "user:alice", "title": title }), tally);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    let _ = told.send(());
                }
            });
        }
        drop(told);
        for _ in 0..restarts {
            // Some are through, so some are under way.
            for _ in 0..20 {
                match progress.recv_timeout(crate::support::DEADLINE) {
                    Ok(()) => {}
                    Err(e @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => panic!("{e}"),
                }
            }
            server.signal(signal);
            let ended = server.exit();
            assert_eq!(ended.code(), (signal == Signal::TERM).then_some(0), "{}", server.log());
            server.restart();
        }
        stop.store(true, Ordering::Relaxed);
    });
    (server, tally, acknowledged.into_inner())
}

#[test]
fn a_server_that_is_killed_and_started_again_refuses_nobody() {
    let (server, tally, acknowledged) = restart_under_load(Signal::KILL, 5);
    assert_eq!(tally.refused.into_inner(), 0, "connections wait in the socket that somebody else holds");
    assert_eq!(server.inbox("alice")["counts"]["unread"], acknowledged);
}

#[test]
fn a_server_that_is_asked_to_restart_neither_refuses_nor_cuts_anybody() {
    let (server, tally, acknowledged) = restart_under_load(Signal::TERM, 5);
    assert_eq!((tally.refused.into_inner(), tally.cut.into_inner(), tally.later.into_inner()), (0, 0, 0));
    assert_eq!(server.inbox("alice")["counts"]["unread"], acknowledged);
}

#[test]
fn the_handed_over_socket_wins_over_the_configured_one() {
    let listener = held();
    let server = Setup::serve().inherit(&listener).start();
    let address = listener.local_addr().expect("it is bound");
    assert_eq!(server.url(), format!("http://{address}"));
    server.send(&Ask::get("/healthz")).expect(200);
    // Of the other kind nothing was handed over, so that one is bound as usual.
    Ask::get("/healthz").send(&server.unix()).expect(200);
    drop(server);
    assert!(
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok(),
        "the socket is not the server's to close"
    );
}
