//! The backend of DigitalMistress.ai: identity, a relay to AI providers, subscriptions.
//!
//! ARCHITECTURE.md is the map. Imports run one way: `main → app → slices → platform`, and inside a slice
//! `http → service → store → mod`.

// The unit tests may do what the program may not.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::string_slice))]
#![cfg_attr(test, allow(clippy::pedantic))]

pub mod account;
pub mod admin;
pub mod app;
pub mod auth;
pub mod billing;
pub mod chat;
pub mod commands;
pub mod config;
pub mod contact;
pub mod health;
pub mod jobs;
pub mod openapi;
pub mod platform;
