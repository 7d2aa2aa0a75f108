//! What every story needs: a private database, a running app, fakes of the outside.

pub mod app;
pub mod clock;
pub mod database;
pub mod http;
pub mod logs;
pub mod pages;
pub mod postback;
pub mod process;
pub mod proxy;
pub mod requests;
pub mod smtp;
pub mod stream;
pub mod stripe;
pub mod upstream;
