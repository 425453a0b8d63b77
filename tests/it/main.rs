//! The integration tests: one binary, a module for each thing that is held.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::type_complexity,
    clippy::bool_assert_comparison,
    reason = "tests print their seeds, spawn their own tasks and read as tables; what counts is that they can fail"
)]

mod abuse;
mod access;
mod activation;
mod architecture;
mod batch;
mod command_line;
mod config;
mod credentials;
mod dingtalk;
mod echo;
mod endings;
mod explain;
mod limits;
mod live;
mod lives;
mod logs;
mod mail;
mod mended;
mod message_log;
mod opening;
mod operator;
mod outbox;
mod people;
mod plain;
mod polls;
mod profiles;
mod proxy_header;
mod publish;
mod reload;
mod revocation;
mod sites;
#[allow(dead_code, reason = "the harness is shared with `tests/promises`, which uses the rest of it")]
mod support;
mod templates;
mod tickets;
mod topics;
mod transports;
mod watching;
mod websocket;
