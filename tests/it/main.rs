//! The integration tests: one binary, a module for each thing that is held.

mod abuse;
mod access;
mod activation;
mod architecture;
mod batch;
mod command_line;
mod cursors;
mod endings;
mod handover;
mod idempotency;
mod kill;
mod live;
mod logs;
mod model;
mod opening;
mod plain;
mod publish;
mod sites;
mod support;
mod tickets;
