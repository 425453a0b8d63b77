//! SIGTERM and Ctrl-C: the first asks the server to drain, a second Ctrl-C means now. SIGHUP: read the settings again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP, as it comes.
pub(super) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// The signals that end the server.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen; from here on neither signal kills the process by itself.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Resolves at the first of either.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Resolves at the next Ctrl-C.
    pub(super) async fn interrupt(&mut self) {
        self.interrupt.recv().await;
    }
}
