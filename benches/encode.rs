//! Encoding a notification into a frame, once for each framing, and reading a publish: the work that is done once for
//! each event, however many receive it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput};
use tidings::model::{Content, Epoch, Notification, NotificationId, Seq, Timestamp, TopicName};
use tidings::wire::frame::{Frame, Framing};
use tidings::wire::publish::{Place, parse};

/// Sizes of the body in bytes.
const SIZES: [usize; 3] = [0, 200, 4_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frames(&mut criterion);
    publishes(&mut criterion);
    criterion.final_summary();
}

fn frames(criterion: &mut Criterion) {
    let epoch = Epoch::new("k7x2m").expect("an epoch");
    for (name, framing) in [("named", Framing::Named), ("envelope", Framing::Envelope)] {
        let mut group = criterion.benchmark_group(format!("encode/{name}"));
        for size in SIZES {
            let notification = notification(size);
            let make = || Frame::live(&epoch, black_box(&notification), Instant::now());
            group.throughput(Throughput::Bytes(make().sse(framing).len() as u64));
            group.bench_function(format!("{size} B body"), |bencher| {
                bencher.iter_batched(|| (), |()| make().sse(framing).clone(), BatchSize::SmallInput);
            });
        }
    }
}

fn publishes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for size in SIZES {
        let body = format!(r#"{{"to":"topic:ops","title":"Build finished","body":"{}"}}"#, "x".repeat(size));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{size} B body"), |bencher| {
            bencher.iter(|| parse(black_box(body.as_bytes()), Place::Request).expect("a publish"));
        });
    }
}

fn notification(size: usize) -> Notification {
    let content = Content { title: "Build finished".to_owned(), body: "x".repeat(size), ..Content::default() };
    Notification {
        seq: Seq(123_456),
        id: NotificationId::parse("0198f3a2-7b1c-7000-8000-000000000001").expect("an id"),
        topic: Some(TopicName::new("ops").expect("a topic")),
        content: Arc::new(content),
        created_at: Timestamp::from_millis(1_764_000_000_000),
    }
}
