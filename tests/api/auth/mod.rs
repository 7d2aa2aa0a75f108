//! Who is calling.

mod age;
mod login;
mod passwords;
mod sessions;
mod signup;
mod tokens;
