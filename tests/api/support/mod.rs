//! What every story needs: a private database, a running app, fakes of the outside.

pub mod database;
