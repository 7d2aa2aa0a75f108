//! Who is calling.

mod age;
mod keys;
mod login;
mod passwords;
mod sessions;
mod signup;
mod tokens;
