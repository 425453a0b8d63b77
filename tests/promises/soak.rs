//! An hour of it (T19): connections with churn under a steady load, and memory and descriptors that do not grow.
//!
//! The quick form is 100 connections for 10 s; `TIDINGS_SOAK_S=5400` is the full one with 2,000, which judges the slopes over
//! an hour, after half an hour of warming up. It prints a line a minute.

use std::time::Duration;

use crate::crowd::{self, Plan, runtime, setting};
use crate::stalled::{KEPT, open_files, resident};
use crate::support::server::Server;
use crate::support::wait_for;

/// Growth of memory after warming up, in bytes an hour.
const STATED: f64 = 1024.0 * 1024.0;
/// The part of the span that is warming up: the caches of SQLite's connections are bounded, but fill only as their pages are
/// asked for, each reader's at its own pace.
const WARM_UP: f64 = 1.0 / 3.0;

#[test]
fn neither_memory_nor_descriptors_grow_while_clients_come_and_go() {
    let full = setting("TIDINGS_SOAK_S", 0);
    let seed = setting("TIDINGS_SOAK_SEED", 19);
    let plan = match full {
        0 => Plan { clients: 100, rate: 50, span: Duration::from_secs(10), lives: 500..5_000, seed },
        span => Plan { clients: 2_000, rate: 100, span: Duration::from_secs(span), lives: 5_000..60_000, seed },
    };
    let server = Server::start();
    let files_before = open_files(&server);
    let mut samples: Vec<(f64, f64)> = Vec::new();
    let outcome = runtime().block_on(crowd::run(&server, &plan, 0, |passed| {
        let (memory, files) = (resident(&server), open_files(&server));
        println!("{:>3} min: {:.2} MiB, {files} files", passed.as_secs() / 60, memory as f64 / STATED);
        samples.push((passed.as_secs_f64(), memory as f64));
    }));
    println!(
        "seed {seed}: {} clients for {:?}: {} published, {} delivered, {} cuts, {:?}; {:.2} MiB at the end",
        plan.clients,
        plan.span,
        outcome.published,
        outcome.delivered,
        outcome.cuts,
        outcome.faults,
        resident(&server) as f64 / STATED
    );
    assert!(outcome.cuts > plan.clients as u64, "there was hardly any churn");
    // Connections are gone when the server has noticed; the database's files stay open.
    wait_for("the descriptors to be given back", || (open_files(&server) <= files_before + KEPT).then_some(()));
    if full > 0 {
        samples.retain(|(passed, _)| *passed > plan.span.as_secs_f64() * WARM_UP);
        let slope = slope(&samples).expect("an hour has many minutes") * 3_600.0;
        println!("{:.3} MiB an hour after warming up, from {} samples", slope / STATED, samples.len());
        assert!(slope <= STATED, "{slope} bytes an hour");
    }
}

/// The slope of the straight line that lies nearest (least squares).
fn slope(samples: &[(f64, f64)]) -> Option<f64> {
    let count = samples.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| samples.iter().map(part).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let spread: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    let together: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    (spread > 0.0).then(|| together / spread)
}

#[test]
fn the_slope_of_what_grows_is_found_and_of_what_does_not_is_none() {
    let line =
        |growth: f64| (0..60).map(|i| (f64::from(i) * 60.0, 1e8 + growth * f64::from(i) * 60.0)).collect::<Vec<_>>();
    let found = slope(&line(500.0)).expect("two samples at least");
    assert!((found - 500.0).abs() < 1.0 && found * 3_600.0 > STATED, "{found}");
    assert!(slope(&line(0.0)).is_some_and(|slope| slope.abs() < 1e-6));
    assert_eq!(slope(&line(0.0)[..1]), None);
}
