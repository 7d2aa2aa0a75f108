//! Who is calling.

mod age;
mod audit;
mod breaches;
mod email_change;
mod email_undo;
mod keys;
mod login;
mod password_change;
mod password_reset;
mod passwords;
mod sessions;
mod signup;
mod step_up;
mod suspension;
mod tokens;
