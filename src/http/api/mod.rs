//! The resources, a file each: parse with `wire`, call the broker, answer. No rule of the domain stands here.

pub(super) mod batch;
pub(super) mod deliveries;
pub(super) mod demo;
pub(super) mod follows;
pub(super) mod health;
pub(super) mod inbox;
pub(super) mod keys;
pub(super) mod notifications;
pub(super) mod ops;
pub(super) mod profiles;
pub(super) mod publish;
pub(super) mod scheduled;
pub(super) mod session;
pub(super) mod streams;
pub(super) mod templates;
pub(super) mod tickets;
pub(super) mod topics;
pub(super) mod unsubscribe;
pub(super) mod upkeep;
pub(super) mod users;
