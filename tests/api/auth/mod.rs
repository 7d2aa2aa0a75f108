//! Who is calling.

mod age;
mod audit;
mod breaches;
mod cookies;
mod email_change;
mod email_undo;
mod keys;
mod lockout;
mod login;
mod one_answer;
mod password_change;
mod password_reset;
mod passwords;
mod refresh;
mod refresh_model;
mod sessions;
mod signup;
mod step_up;
mod suspension;
mod throttle;
mod tokens;
