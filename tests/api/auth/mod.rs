//! Who is calling.

mod age;
mod cookies;
mod login;
mod passwords;
mod refresh;
mod refresh_model;
mod sessions;
mod signup;
mod tokens;
