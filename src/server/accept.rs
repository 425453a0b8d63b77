//! Accepting: a permit first, then the connection, each in a task of its own.
//!
//! Errors of one socket (it went while it waited) are nobody's business. Running out of files or memory is: accepting
//! pauses, for a busy loop would take the processor from the streams that are open.
//!
//! **Invariant**: each connection holds a permit for as long as it lives, so that there are never more than permits.
//!
//! Deliberately not here: counting sockets and containing panics, which `http::serve_connection` does.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::listen::{Listener, Role, Socketed};
use crate::http::{self, App, Peer};
use crate::lifecycle::Lifecycle;

/// How long bytes may stay unacknowledged before the kernel gives the connection up: a peer that vanished without a
/// word would otherwise hold its stream for a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that the kernel holds of one connection and has not sent. It would take 4 MB of each (`tcp_wmem`): a few hundred
/// readers who stall would use up what it has for all sockets of the machine (`tcp_mem`), and slow everybody; and each would
/// be found out minutes later.
const UNSENT: u32 = 16 * 1024;

/// The first and the longest pause after running out of something.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Failures nearer to each other than this are one burst, told once.
const BURST: Duration = Duration::from_secs(30);

/// What every accept loop and connection shares. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) app: App,
    pub(super) lifecycle: Lifecycle,
    /// One permit a connection.
    pub(super) permits: Arc<Semaphore>,
    /// Ends every connection that has outlived the drain.
    pub(super) cut: CancellationToken,
}

/// A question to an accept loop whether it still turns.
pub(super) type Probe = oneshot::Sender<()>;

impl Gate {
    /// Accepts until the drain begins. The listener goes with it.
    pub(super) async fn accept_all(self, listener: Listener, mut probes: mpsc::Receiver<Probe>) {
        let mut pause = Pause::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.lifecycle.draining() => return,
                Some(probe) = probes.recv() => {
                    // Who asked may have given up.
                    let _ = probe.send(());
                    continue;
                }
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((socket, peer, permit)) => {
                    pause.over();
                    // Who connects too often is not even read from.
                    if self.app.admits(peer) {
                        self.lifecycle.spawn_edge(self.clone().serve(socket, peer, permit));
                    }
                }
                Err(e) if is_of_one_socket(&e) => {}
                Err(e) => tokio::select! {
                    () = self.lifecycle.draining() => return,
                    () = pause.wait(&e) => {}
                },
            }
        }
    }

    /// Waits for a free place, then for a connection: one that there is no place for stays in the kernel's queue.
    async fn accept(&self, listener: &Listener) -> io::Result<(Accepted, Peer, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (accepted, peer) = match &listener.socket {
            Socketed::Tcp(tcp) => {
                let (stream, peer) = tcp.accept().await?;
                tune(&stream)?;
                (Accepted::Tcp(stream), Peer::Tcp(peer))
            }
            Socketed::Unix { listener, .. } => (Accepted::Unix(listener.accept().await?.0), Peer::Unix),
        };
        let peer = match listener.role {
            Role::Public => peer,
            Role::Operator => Peer::Operator,
            Role::Watcher => Peer::Watcher,
        };
        Ok((accepted, peer, permit))
    }

    async fn serve(self, accepted: Accepted, peer: Peer, _permit: OwnedSemaphorePermit) {
        let connection = async {
            match accepted {
                Accepted::Tcp(stream) => http::serve_connection(&self.app, stream, peer).await,
                Accepted::Unix(stream) => http::serve_connection(&self.app, stream, peer).await,
            }
        };
        tokio::select! {
            biased;
            () = connection => {}
            () = self.cut.cancelled() => {}
        }
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Nagle would hold a small frame back for the acknowledgement of the one before: 40 ms.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Whether an error of `accept` concerns the connection that was to be accepted, not the listener.
fn is_of_one_socket(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    // Linux hands pending network errors of the new socket to `accept` as well (accept(2)); `tune` finds a socket that
    // was reset while it waited to be unconnected, or its options invalid.
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::NotConnected
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
            | Kind::Interrupted
            | Kind::InvalidInput
            | Kind::BrokenPipe
    )
}

/// How failures are waited out: growing pauses, a line in the log for each burst.
#[derive(Default)]
struct Pause {
    last: Option<Duration>,
    told: Option<Instant>,
}

impl Pause {
    /// Something was accepted: the next failure begins with a short pause again.
    fn over(&mut self) {
        self.last = None;
    }

    async fn wait(&mut self, error: &io::Error) {
        if self.told.is_none_or(|at| at.elapsed() >= BURST) {
            tracing::error!(
                %error,
                "Cannot accept connections; they wait in the kernel's queue. Out of files? Raise LimitNOFILE or lower [http] max_connections"
            );
        }
        // Failures that go on and on are one burst.
        self.told = Some(Instant::now());
        tokio::time::sleep(self.next()).await;
    }

    fn next(&mut self) -> Duration {
        let span = self.last.map_or(PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.last = Some(span);
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_files_pauses_and_a_lost_socket_does_not() {
        // EMFILE, ENFILE, ENOBUFS, ENOMEM
        for code in [24, 23, 105, 12] {
            assert!(!is_of_one_socket(&io::Error::from_raw_os_error(code)), "{code}");
        }
        // ECONNABORTED, ECONNRESET, ENETDOWN, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT
        for code in [103, 104, 100, 113, 101, 110] {
            assert!(is_of_one_socket(&io::Error::from_raw_os_error(code)), "{code}");
        }
    }

    #[test]
    fn pauses_grow_to_a_second() {
        let mut pause = Pause::default();
        let spans: Vec<_> = (0..6).map(|_| pause.next().as_millis()).collect();
        assert_eq!(spans, [100, 200, 400, 800, 1000, 1000]);
        pause.over();
        assert_eq!(pause.next(), PAUSE);
    }
}
