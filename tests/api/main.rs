//! The tests: the program seen from outside, filed by slice and story.
//!
//! The whole binary runs once on SQLite and once on PostgreSQL; `DM_TEST_DATABASE` chooses (see `support::database`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]
#![allow(clippy::print_stderr, clippy::pedantic)]

mod account;
mod admin;
mod auth;
mod billing;
mod chat;
mod config;
mod db;
mod deploy;
mod documents;
mod http;
mod jobs;
mod layering;
mod platform;
mod process;
mod stripe;
mod support;
