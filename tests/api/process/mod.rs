//! The program as an operator meets it: a process that is started, asked, watched and killed.

mod backup;
mod billing;
mod canaries;
mod commands;
mod doctor;
mod forwarded;
mod kill;
mod kill_regenerate;
mod leaving;
mod lifecycle;
mod master_key;
mod panics;
mod service_manager;
mod sessions;
