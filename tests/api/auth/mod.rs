//! Who is calling.

mod age;
mod login;
mod sessions;
mod signup;
mod tokens;
