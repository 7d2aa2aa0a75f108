//! The settings of throttles.

use super::reader::Reader;
use crate::auth::{Rate, ThrottleSettings};

pub fn read(r: &mut Reader) -> Option<ThrottleSettings> {
    let login_account = rate(r, "login_account");
    let login_address = rate(r, "login_address");
    let login_pair = rate(r, "login_pair");
    let signup_address = rate(r, "signup_address");
    let mail_recipient = rate(r, "mail_recipient");
    let mail_address = rate(r, "mail_address");
    let code_address = rate(r, "code_address");
    Some(ThrottleSettings {
        login_account: login_account?,
        login_address: login_address?,
        login_pair: login_pair?,
        signup_address: signup_address?,
        mail_recipient: mail_recipient?,
        mail_address: mail_address?,
        code_address: code_address?,
    })
}

fn rate(r: &mut Reader, name: &str) -> Option<Rate> {
    let burst = r.number(&format!("auth.throttle.{name}.burst"), 1, 1_000_000);
    let every = r.duration(&format!("auth.throttle.{name}.every"));
    Some(Rate { burst: burst?, every: every? })
}
