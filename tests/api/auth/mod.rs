//! Who is calling.

mod age;
mod lockout;
mod login;
mod one_answer;
mod passwords;
mod sessions;
mod signup;
mod throttle;
mod tokens;
