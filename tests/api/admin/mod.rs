//! Administration: who may, what it does, and what it cannot reach.

mod access;
mod users;
