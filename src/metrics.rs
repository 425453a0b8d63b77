//! Named counters, gauges and histograms, written out as OpenMetrics text.
//!
//! **Invariant**: labels come from closed sets (transports, problem codes, reasons), never from callers, so that
//! `/metrics` can't grow without bound.
//!
//! Rank 1: imports nothing of this crate.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// One label, whose values are a closed set.
pub type Label = [(&'static str, &'static str); 1];

/// Everything the server counts.
pub struct Metrics {
    registry: Registry,
    /// Live subscribers, by `transport`.
    pub connections: Family<Label, Gauge>,
    /// Open sockets, streams included.
    pub sockets: Gauge,
    /// Notifications committed.
    pub publishes: Counter,
    /// Frames handed to subscribers, by `transport`.
    pub deliveries: Family<Label, Counter>,
    /// Seconds from the durable commit to the frame being handed to the socket's writer.
    pub commit_to_socket: Histogram,
    /// Seconds that one group commit took.
    pub commit: Histogram,
    /// Operations in one group commit.
    pub batch: Histogram,
    /// Requests refused and failed, by problem `code`.
    pub errors: Family<Label, Counter>,
    /// Streams begun, by `recovery`: `recovered`, or the reason why not.
    pub recoveries: Family<Label, Counter>,
    /// Streams ended by the server, by `reason`.
    pub byes: Family<Label, Counter>,
    /// Times a subscriber overran its queue and went back to the log.
    pub lags: Counter,
    /// Panics caught in a connection or a job.
    pub panics: Counter,
    /// Entries that are over, by `death`; one for each notification, however many had it.
    pub deaths: Family<Label, Counter>,
    /// Scheduled notifications that could not be delivered.
    pub undelivered: Counter,
    /// Entries that retention took.
    pub pruned: Counter,
    /// Users whose stored counts were found to differ from a recount of their entries.
    pub drift: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidings");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", build);
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 18));
        let this = Self {
            connections: Family::default(),
            sockets: Gauge::default(),
            publishes: Counter::default(),
            deliveries: Family::default(),
            commit_to_socket: seconds(),
            commit: seconds(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            errors: Family::default(),
            recoveries: Family::default(),
            byes: Family::default(),
            lags: Counter::default(),
            panics: Counter::default(),
            drift: Counter::default(),
            deaths: Family::default(),
            undelivered: Counter::default(),
            pruned: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("connections", "Live subscribers", this.connections.clone());
        registry.register("sockets", "Open sockets", this.sockets.clone());
        registry.register("publishes", "Notifications committed", this.publishes.clone());
        registry.register("deliveries", "Frames handed to subscribers", this.deliveries.clone());
        registry.register_with_unit(
            "commit_to_socket",
            "From the durable commit to the frame being handed to the socket's writer",
            Unit::Seconds,
            this.commit_to_socket.clone(),
        );
        registry.register_with_unit("commit", "One group commit", Unit::Seconds, this.commit.clone());
        registry.register("commit_batch", "Operations in one group commit", this.batch.clone());
        registry.register("errors", "Requests refused or failed, by problem code", this.errors.clone());
        registry.register("recoveries", "Streams begun, by how they recovered", this.recoveries.clone());
        registry.register("byes", "Streams ended by the server, by reason", this.byes.clone());
        registry.register("lags", "Subscribers that overran their queue and went back to the log", this.lags.clone());
        registry.register("panics", "Panics caught in a connection or a job", this.panics.clone());
        registry.register("deaths", "Notifications that are over, by how", this.deaths.clone());
        registry.register(
            "undelivered",
            "Scheduled notifications that could not be delivered; `tidings schedule list` says why",
            this.undelivered.clone(),
        );
        registry.register("pruned", "Entries that retention took", this.pruned.clone());
        registry.register(
            "count_drift",
            "Users whose stored counts differed from a recount of their entries; always 0 unless there is a fault",
            this.drift.clone(),
        );
        Self { registry, ..this }
    }
}

impl Metrics {
    /// The OpenMetrics text (`application/openmetrics-text; version=1.0.0`).
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything that is written");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = Metrics::default();
        metrics.publishes.inc();
        metrics.connections.get_or_create(&[("transport", "sse")]).inc();
        let text = metrics.text();
        assert!(text.contains("tidings_publishes_total 1"), "{text}");
        assert!(text.contains("tidings_connections{transport=\"sse\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
