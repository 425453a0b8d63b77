//! What systemd is told: ready, reloading, stopping, alive (`sd_notify(3)`). Without systemd every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The server accepts connections.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Settings are read again.
pub(super) fn reloading() {
    tell(&[NotifyState::Reloading]);
}

/// They were, or stay as they were.
pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The server drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Draining")]);
}

/// The server does its work.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How the server is, for `systemctl status`.
pub(super) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// Within which systemd wants to hear that the server lives; `None` where it does not.
pub(super) fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "Cannot notify systemd");
    }
}
