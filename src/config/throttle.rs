//! The settings of throttles.

use super::{limits::rate, reader::Reader};
use crate::auth::ThrottleSettings;

pub fn read(r: &mut Reader) -> Option<ThrottleSettings> {
    let login_account = rate(r, "auth.throttle.login_account");
    let login_address = rate(r, "auth.throttle.login_address");
    let login_pair = rate(r, "auth.throttle.login_pair");
    let signup_address = rate(r, "auth.throttle.signup_address");
    let mail_recipient = rate(r, "auth.throttle.mail_recipient");
    let mail_address = rate(r, "auth.throttle.mail_address");
    let code_address = rate(r, "auth.throttle.code_address");
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
