//! Tools that know no slice of the product.

pub mod client;
pub mod clock;
pub mod cookie;
pub mod data_dir;
pub mod db;
pub mod digest;
pub mod edge;
pub mod extract;
pub mod http_client;
pub mod job;
pub mod json;
pub mod keyring;
pub mod lock;
pub mod mail;
pub mod page;
pub mod problem;
pub mod proxies;
pub mod public;
pub mod random;
pub mod seal;
pub mod server;
pub mod tasks;
pub mod telemetry;
pub mod time;
pub mod token;
pub mod valid;
