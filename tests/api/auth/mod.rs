//! Who is calling.

mod login;
mod sessions;
mod signup;
mod tokens;
