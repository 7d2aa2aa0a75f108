//! What every story needs: a private database, a running app, fakes of the outside.

pub mod app;
pub mod clock;
pub mod database;
pub mod http;
pub mod process;
pub mod smtp;
pub mod stream;
pub mod upstream;
