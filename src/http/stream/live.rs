//! Counting a live stream, whatever carries it: the gauge, its deliveries, and how late they are.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::http::limits::Seat;
use crate::metrics::Metrics;
use crate::wire::frame::SharedFrame;

/// One live stream, counted for as long as it lives.
pub struct LiveStream {
    gauge: Gauge,
    deliveries: Counter,
    bytes: Counter,
    metrics: Arc<Metrics>,
    _seat: Option<Seat>,
}

impl LiveStream {
    /// `transport` is `sse`, `poll` or `ws`; `seat` is held as long as the stream lives.
    pub fn new(transport: &'static str, seat: Option<Seat>, metrics: &Arc<Metrics>) -> Self {
        let label = [("transport", transport)];
        let gauge = metrics.connections.get_or_create_owned(&label);
        gauge.inc();
        Self {
            gauge,
            deliveries: metrics.deliveries.get_or_create_owned(&label),
            bytes: metrics.sent_bytes.get_or_create_owned(&label),
            metrics: metrics.clone(),
            _seat: seat,
        }
    }

    /// These are about to be handed to the socket, as so many bytes.
    pub fn delivered(&self, frames: &[SharedFrame], bytes: usize) {
        self.bytes.inc_by(bytes as u64);
        self.deliveries.inc_by(frames.len() as u64);
        let now = Instant::now();
        for committed in frames.iter().filter_map(|frame| frame.committed) {
            self.metrics.commit_to_socket.observe(now.saturating_duration_since(committed).as_secs_f64());
        }
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
