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
/// Two labels, whose values are closed sets.
pub type Labels = [(&'static str, &'static str); 2];

/// Everything the server counts.
pub struct Metrics {
    registry: Registry,
    /// Live subscribers, by `transport`.
    pub connections: Family<Label, Gauge>,
    /// Open sockets, streams included.
    pub sockets: Gauge,
    /// Sockets at most.
    pub sockets_max: Gauge,
    /// Users with at least one live subscriber.
    pub users_online: Gauge,
    /// 1 where the server takes everything, 0 where it does not.
    pub ready: Gauge,
    /// Users whose access is taken back.
    pub revocations: Gauge,
    /// Bytes of frames that wait for subscribers.
    pub queue: Gauge,
    /// Bytes of the database file, and of its write-ahead log.
    pub database: Gauge,
    pub wal: Gauge,
    /// Files and sockets that the process has open, and may have.
    pub open_files: Gauge,
    pub open_files_max: Gauge,
    /// Bytes of memory that the process has.
    pub resident_memory: Gauge,
    /// Seconds since the Unix epoch.
    pub start_time: Gauge,
    /// Times the settings were read again, by `outcome`: done, refused.
    pub reloads: Family<Label, Counter>,
    /// Backups made and checked.
    pub backups: Counter,
    /// When the newest backup of this run was whole; seconds since the Unix epoch, 0 before the first.
    pub last_backup: Gauge,
    /// Notifications committed.
    pub publishes: Counter,
    /// Frames handed to subscribers, by `transport`.
    pub deliveries: Family<Label, Counter>,
    /// Bytes of events handed to sockets, by `transport`.
    pub sent_bytes: Family<Label, Counter>,
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
    /// Requests and connections refused because a limit was reached, by `limit`.
    pub limited: Family<Label, Counter>,
    /// Notifications replayed, by where they were read `from`: memory, log.
    pub replays: Family<Label, Counter>,
    /// Times a subscriber overran its queue and went back to the log.
    pub lags: Counter,
    /// Panics caught in a connection or a job.
    pub panics: Counter,
    /// Messages of the queue that are settled, by `outcome`: published, duplicate, `dead_lettered`, rejected. Without samples
    /// where no queue is consumed.
    pub intake: Family<Label, Counter>,
    /// 1 where the queue is consumed, by `source`. Without a sample where none is.
    pub intake_connected: Family<Label, Gauge>,
    /// Entries that are over, by `death`; one for each notification, however many had it.
    pub deaths: Family<Label, Counter>,
    /// Scheduled notifications that could not be delivered.
    pub undelivered: Counter,
    /// Entries that retention took.
    pub pruned: Counter,
    /// What became of deliveries besides the inbox, by `medium` and `outcome`: sent, retried, dead, skipped, cancelled.
    pub outbox_deliveries: Family<Labels, Counter>,
    /// Deliveries that wait to be carried, by `medium`.
    pub outbox_pending: Family<Label, Gauge>,
    /// Seconds for which the first of them has been due, by `medium`.
    pub outbox_oldest: Family<Label, Gauge>,
    /// Set-ups by which nothing goes out for now, by `medium`: mail is one, each robot is one.
    pub outbox_held: Family<Label, Gauge>,
    /// Users whose stored counts were found to differ from a recount of their entries.
    pub drift: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidings");
        let this = Self::unregistered();
        this.register_process(&mut registry);
        this.register_streams(&mut registry);
        this.register_log(&mut registry);
        this.register_outbox(&mut registry);
        Self { registry, ..this }
    }
}

impl Metrics {
    fn unregistered() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 18));
        Self {
            connections: Family::default(),
            sockets: Gauge::default(),
            sockets_max: Gauge::default(),
            users_online: Gauge::default(),
            ready: Gauge::default(),
            revocations: Gauge::default(),
            queue: Gauge::default(),
            database: Gauge::default(),
            wal: Gauge::default(),
            open_files: Gauge::default(),
            open_files_max: Gauge::default(),
            resident_memory: Gauge::default(),
            start_time: Gauge::default(),
            reloads: Family::default(),
            backups: Counter::default(),
            last_backup: Gauge::default(),
            publishes: Counter::default(),
            deliveries: Family::default(),
            sent_bytes: Family::default(),
            commit_to_socket: seconds(),
            commit: seconds(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            errors: Family::default(),
            recoveries: Family::default(),
            byes: Family::default(),
            limited: Family::default(),
            replays: Family::default(),
            lags: Counter::default(),
            panics: Counter::default(),
            drift: Counter::default(),
            intake: Family::default(),
            intake_connected: Family::default(),
            deaths: Family::default(),
            undelivered: Counter::default(),
            pruned: Counter::default(),
            outbox_deliveries: Family::default(),
            outbox_pending: Family::default(),
            outbox_oldest: Family::default(),
            outbox_held: Family::default(),
            registry: Registry::default(),
        }
    }

    fn register_process(&self, registry: &mut Registry) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", build);
        registry.register("ready", "1 where the server takes everything; /readyz says why not", self.ready.clone());
        registry.register_with_unit("start_time", "When the process started", Unit::Seconds, self.start_time.clone());
        registry.register_with_unit("resident_memory", "The process's", Unit::Bytes, self.resident_memory.clone());
        registry.register("open_files", "Files and sockets that are open", self.open_files.clone());
        registry.register("open_files_max", "Files and sockets that may be open", self.open_files_max.clone());
        registry.register("reloads", "Times the settings were read again, by outcome", self.reloads.clone());
        registry.register("panics", "Panics caught in a connection or a job", self.panics.clone());
    }

    fn register_streams(&self, registry: &mut Registry) {
        registry.register("connections", "Live subscribers", self.connections.clone());
        registry.register("sockets", "Open sockets", self.sockets.clone());
        registry.register("sockets_max", "Sockets at most", self.sockets_max.clone());
        registry.register("users_online", "Users with at least one live subscriber", self.users_online.clone());
        registry.register("revocations", "Users whose access is taken back", self.revocations.clone());
        registry.register("deliveries", "Frames handed to subscribers", self.deliveries.clone());
        registry.register_with_unit("sent", "Events handed to sockets", Unit::Bytes, self.sent_bytes.clone());
        registry.register_with_unit(
            "commit_to_socket",
            "From the durable commit to the frame being handed to the socket's writer",
            Unit::Seconds,
            self.commit_to_socket.clone(),
        );
        registry.register_with_unit(
            "queue",
            "Frames that wait for subscribers; a shared one counts for each",
            Unit::Bytes,
            self.queue.clone(),
        );
        registry.register("errors", "Requests refused or failed, by problem code", self.errors.clone());
        registry.register("limited", "Refused because a limit was reached, by setting", self.limited.clone());
        registry.register("recoveries", "Streams begun, by how they recovered", self.recoveries.clone());
        registry.register("byes", "Streams ended by the server, by reason", self.byes.clone());
        registry.register("replays", "Notifications replayed, by where they were read", self.replays.clone());
        registry.register("lags", "Subscribers that overran their queue and went back to the log", self.lags.clone());
    }

    fn register_log(&self, registry: &mut Registry) {
        registry.register("publishes", "Notifications committed", self.publishes.clone());
        registry.register("intake", "Messages of the queue that are settled, by outcome", self.intake.clone());
        registry.register("intake_connected", "1 where the queue is consumed", self.intake_connected.clone());
        registry.register_with_unit("commit", "One group commit", Unit::Seconds, self.commit.clone());
        registry.register("commit_batch", "Operations in one group commit", self.batch.clone());
        registry.register_with_unit("database", "The database file", Unit::Bytes, self.database.clone());
        registry.register_with_unit("wal", "The database's write-ahead log", Unit::Bytes, self.wal.clone());
        registry.register("backups", "Backups made and checked", self.backups.clone());
        registry.register_with_unit(
            "last_backup",
            "When the newest backup of this run was whole; 0 before the first",
            Unit::Seconds,
            self.last_backup.clone(),
        );
        registry.register("deaths", "Notifications that are over, by how", self.deaths.clone());
        registry.register(
            "undelivered",
            "Scheduled notifications that could not be delivered; `tidings schedule list` says why",
            self.undelivered.clone(),
        );
        registry.register("pruned", "Entries that retention took", self.pruned.clone());
        registry.register(
            "count_drift",
            "Users whose stored counts differed from a recount of their entries; always 0 unless there is a fault",
            self.drift.clone(),
        );
    }

    fn register_outbox(&self, registry: &mut Registry) {
        registry.register(
            "outbox_deliveries",
            "What became of deliveries besides the inbox, by medium and outcome",
            self.outbox_deliveries.clone(),
        );
        registry.register(
            "outbox_pending",
            "Deliveries that wait to be carried, by medium",
            self.outbox_pending.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest",
            "For how long the first of them has been due, by medium",
            Unit::Seconds,
            self.outbox_oldest.clone(),
        );
        registry.register(
            "outbox_held",
            "Set-ups by which nothing goes out for now, by medium: mail is one, each robot is one",
            self.outbox_held.clone(),
        );
    }

    /// What a family has counted under these values of its label together.
    pub fn sum(
        family: &Family<Label, Counter>,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> u64 {
        values.into_iter().filter_map(|value| family.get(&[(label, value)]).map(|counter| counter.get())).sum()
    }

    /// Sets the gauges that the kernel knows. What it does not tell stays as it was.
    pub fn look_at_process(&self) {
        let set = |gauge: &Gauge, value: Option<u64>| {
            if let Some(value) = value {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        };
        set(&self.open_files, open_files());
        set(&self.open_files_max, rustix::process::getrlimit(rustix::process::Resource::Nofile).current);
        set(&self.resident_memory, resident_memory());
    }

    /// The OpenMetrics text (`application/openmetrics-text; version=1.0.0`).
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything that is written");
        text
    }
}

/// Linux tells their number as the size of the directory since 6.2; before that they are to be counted.
fn open_files() -> Option<u64> {
    const LIST: &str = "/proc/self/fd";
    match std::fs::metadata(LIST).ok()?.len() {
        0 => u64::try_from(std::fs::read_dir(LIST).ok()?.count()).ok(),
        told => Some(told),
    }
}

/// Bytes, from the line `VmRSS:  1234 kB` (`proc_pid_status(5)`).
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
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
