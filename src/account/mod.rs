//! The account as its owner sees it: profile, session validation.
//!
//! It answers from what the other slices know and keeps nothing of its own.

pub(crate) mod http;
