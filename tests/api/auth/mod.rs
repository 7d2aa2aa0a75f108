//! Who is calling.

mod age;
mod audit;
mod keys;
mod login;
mod passwords;
mod sessions;
mod signup;
mod suspension;
mod tokens;
