//! The payment providers that there are. Each translates between our words and its own wire; none knows the database.

pub mod dev;
pub mod postback;
pub mod stripe;
