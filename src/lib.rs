//! The backend of DigitalMistress.ai: identity, a relay to AI providers, subscriptions.
//!
//! ARCHITECTURE.md is the map. Imports run one way: `main → app → slices → platform`, and inside a slice
//! `http → service → store → mod`.

pub mod account;
pub mod app;
pub mod auth;
pub mod billing;
pub mod chat;
pub mod commands;
pub mod config;
pub mod jobs;
pub mod openapi;
pub mod platform;
