//! How often anybody may call.

use super::reader::Reader;
use crate::platform::rate::Rate;

/// Limits that one instance keeps by itself.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    /// Calls from one network address.
    pub address: Rate,
    /// Calls of one user, but messages.
    pub user: Rate,
    /// Messages of one user.
    pub message: Rate,
    /// Notices of payment providers from one network address.
    pub webhook: Rate,
}

pub fn read(r: &mut Reader) -> Option<LimitSettings> {
    let address = rate(r, "limits.address");
    let user = rate(r, "limits.user");
    let message = rate(r, "limits.message");
    let webhook = rate(r, "limits.webhook");
    Some(LimitSettings { address: address?, user: user?, message: message?, webhook: webhook? })
}

/// A rate, for throttles too.
pub fn rate(r: &mut Reader, key: &str) -> Option<Rate> {
    let burst = r.number(&format!("{key}.burst"), 1, 1_000_000);
    let every = r.duration(&format!("{key}.every"));
    Some(Rate { burst: burst?, every: every? })
}
