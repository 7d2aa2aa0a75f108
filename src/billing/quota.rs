//! The daily quota: a message is charged to the day on which it was sent, and given back to that day.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Access, store::quota as store};
use crate::platform::{
    db::{Conn, Result},
    time,
};

/// Stops before the first word that give the message back, each day.
const FREE_STOPS: i64 = 5;
/// Replies that came to nothing, which their messages can have brought about, and that give the message back, each day. Most
/// of them were paid for at the vendor.
const FREE_FAILURES: i64 = 20;

/// One message, charged to the day on which it was sent. It is given back to that day, whenever that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Who pays.
    pub user_id: Uuid,
    /// The UTC day, counted from 1970.
    pub day: i64,
}

impl Charge {
    /// A charge for a message sent at `now`.
    pub fn at(user_id: Uuid, now: Timestamp) -> Charge {
        Charge { user_id, day: time::utc_day(now) }
    }

    /// Takes the message from the day's quota; `None` when that is used up, and nothing was taken.
    pub async fn take(self, conn: &Conn, access: &Access) -> Result<Option<i64>> {
        if access.messages_per_day <= 0 {
            return Ok(None);
        }
        store::charge(self.user_id, self.day, access.messages_per_day).opt(conn).await
    }

    /// Gives it back: nothing was delivered.
    pub async fn give_back(self, conn: &Conn) -> Result<bool> {
        Ok(store::give_back(self.user_id, self.day).exec(conn).await? > 0)
    }

    /// Gives it back after a stop before the first word; only so often a day.
    pub async fn give_back_stopped(self, conn: &Conn) -> Result<bool> {
        Ok(store::give_back_stopped(self.user_id, self.day, FREE_STOPS).exec(conn).await? > 0)
    }

    /// Gives it back after a failure that the message can have brought about; only so often a day.
    pub async fn give_back_failed(self, conn: &Conn) -> Result<bool> {
        Ok(store::give_back_failed(self.user_id, self.day, FREE_FAILURES).exec(conn).await? > 0)
    }
}
