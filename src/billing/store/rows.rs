//! The queries of what access is decided from: customers, subscriptions, holds, grants.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    billing::row::{GrantedRow, HoldKind, Mode, OpenHold, State, StoredSubscription},
    platform::seal::Sealed,
    queries, record,
};

queries! {
    fn subscriptions_of(user_id: Uuid) -> StoredSubscription =
        "SELECT provider, mode, reference, user_id, customer, state, raw_state, price, period_start, period_end, cancel_at,
                ended_at, price_at, cancelled, renewal_at, version, observed_at
           FROM subscription WHERE user_id = $1";

    /// What is given now or later, and was not revoked.
    fn grants_of(user_id: Uuid, now: Timestamp) -> GrantedRow =
        "SELECT plan, starts_at, ends_at FROM access_grant
          WHERE user_id = $1 AND revoked_at IS NULL AND ends_at > $2";

    /// Those of the user, and those of the user's subscriptions: a provider may have told of a refund before it told of the
    /// sale.
    fn holds_of(user_id: Uuid) -> OpenHold =
        "SELECT provider, mode, kind, subscription, opened_at FROM access_hold
          WHERE user_id = $1 AND released_at IS NULL
          UNION
         SELECT access_hold.provider, access_hold.mode, access_hold.kind, access_hold.subscription, access_hold.opened_at
           FROM subscription JOIN access_hold ON access_hold.provider = subscription.provider
                AND access_hold.mode = subscription.mode AND access_hold.subscription = subscription.reference
          WHERE subscription.user_id = $1 AND access_hold.released_at IS NULL";

    /// Those of a customer, whoever the user is. Also for the sync.
    fn subscriptions_of_customer(provider: str, mode: Mode, customer: str) -> StoredSubscription =
        "SELECT provider, mode, reference, user_id, customer, state, raw_state, price, period_start, period_end, cancel_at,
                ended_at, price_at, cancelled, renewal_at, version, observed_at
           FROM subscription WHERE provider = $1 AND mode = $2 AND customer = $3";

    fn find_subscription(provider: str, mode: Mode, reference: str) -> StoredSubscription =
        "SELECT provider, mode, reference, user_id, customer, state, raw_state, price, period_start, period_end, cancel_at,
                ended_at, price_at, cancelled, renewal_at, version, observed_at
           FROM subscription WHERE provider = $1 AND mode = $2 AND reference = $3";

    /// Stores a subscription that is `expected`, or is not there where that is 0. No row: it is something else meanwhile, or
    /// somebody else's.
    fn put_subscription(
        provider: str, mode: Mode, reference: str, user_id: Option<Uuid>, customer: Option<String>, state: State,
        raw_state: str, price: Option<String>, period_start: Option<Timestamp>, period_end: Option<Timestamp>,
        cancel_at: Option<Timestamp>, ended_at: Option<Timestamp>, price_at: Option<Timestamp>, cancelled: bool,
        renewal_at: Option<Timestamp>, version: i64, observed_at: Timestamp, expected: i64,
    ) =
        "INSERT INTO subscription
                (provider, mode, reference, user_id, customer, state, raw_state, price, period_start, period_end, cancel_at,
                 ended_at, price_at, cancelled, renewal_at, version, observed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
         ON CONFLICT (provider, mode, reference) DO UPDATE
            SET user_id = $4, customer = $5, state = $6, raw_state = $7, price = $8, period_start = $9, period_end = $10,
                cancel_at = $11, ended_at = $12, price_at = $13, cancelled = $14, renewal_at = $15, version = $16,
                observed_at = $17
          WHERE subscription.version = $18 AND (subscription.user_id IS NULL OR subscription.user_id = $4)";

    fn find_customer(provider: str, mode: Mode, reference: str) -> Uuid =
        "SELECT user_id FROM billing_customer WHERE provider = $1 AND mode = $2 AND reference = $3";

    fn customer_of(user_id: Uuid, provider: str, mode: Mode) -> String =
        "SELECT reference FROM billing_customer WHERE user_id = $1 AND provider = $2 AND mode = $3";

    fn customers_of(user_id: Uuid) -> CustomerRow =
        "SELECT provider, mode, reference FROM billing_customer WHERE user_id = $1";

    /// No row: the reference is somebody's, or the user has another one.
    fn add_customer(provider: str, mode: Mode, reference: str, user_id: Uuid, now: Timestamp) =
        "INSERT INTO billing_customer (provider, mode, reference, user_id, asked, asked_since, created_at)
         VALUES ($1, $2, $3, $4, 0, $5, $5) ON CONFLICT DO NOTHING";

    /// Gives a user another reference at a provider. No row: it is another one already.
    fn replace_customer(user_id: Uuid, provider: str, mode: Mode, old: str, new: str, now: Timestamp) =
        "UPDATE billing_customer SET reference = $5, created_at = $6
          WHERE user_id = $1 AND provider = $2 AND mode = $3 AND reference = $4";

    /// Counts that a user had a provider asked. No row: as often as `most` since `since` already.
    fn count_question(user_id: Uuid, provider: str, mode: Mode, now: Timestamp, since: Timestamp, most: i64) =
        "UPDATE billing_customer
            SET asked = CASE WHEN asked_since <= $5 THEN 1 ELSE asked + 1 END,
                asked_since = CASE WHEN asked_since <= $5 THEN $4 ELSE asked_since END
          WHERE user_id = $1 AND provider = $2 AND mode = $3 AND (asked_since <= $5 OR asked < $6)";

    fn find_hold(provider: str, mode: Mode, reference: str) -> StoredHold =
        "SELECT provider, mode, reference, kind, user_id, subscription, opened_at, released_at, released_by
           FROM access_hold WHERE provider = $1 AND mode = $2 AND reference = $3";

    /// As [`holds_of`], with those that were released.
    fn all_holds_of(user_id: Uuid) -> StoredHold =
        "SELECT provider, mode, reference, kind, user_id, subscription, opened_at, released_at, released_by
           FROM access_hold WHERE user_id = $1
          UNION
         SELECT access_hold.provider, access_hold.mode, access_hold.reference, access_hold.kind, access_hold.user_id,
                access_hold.subscription, access_hold.opened_at, access_hold.released_at, access_hold.released_by
           FROM subscription JOIN access_hold ON access_hold.provider = subscription.provider
                AND access_hold.mode = subscription.mode AND access_hold.subscription = subscription.reference
          WHERE subscription.user_id = $1
          ORDER BY opened_at";

    /// Opens a hold, or opens it again; what an operator released stays so. No row: it did, or is open.
    fn open_hold(
        provider: str, mode: Mode, reference: str, kind: HoldKind, user_id: Option<Uuid>, subscription: Option<String>,
        opened_at: Timestamp,
    ) =
        "INSERT INTO access_hold (provider, mode, reference, kind, user_id, subscription, opened_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (provider, mode, reference) DO UPDATE
            SET released_at = NULL, released_by = NULL, opened_at = $7, subscription = $6
          WHERE access_hold.released_by = 'provider'";

    /// A hold that is open is of a later time than was known. No row: it is not open.
    fn move_hold(provider: str, mode: Mode, reference: str, subscription: Option<String>, opened_at: Timestamp) =
        "UPDATE access_hold SET opened_at = $5, subscription = $4
          WHERE provider = $1 AND mode = $2 AND reference = $3 AND released_at IS NULL";

    /// No row: it is released already, or not there.
    fn release_hold(provider: str, mode: Mode, reference: str, released_at: Timestamp, released_by: str) =
        "UPDATE access_hold SET released_at = $4, released_by = $5
          WHERE provider = $1 AND mode = $2 AND reference = $3 AND released_at IS NULL";

    fn add_grant(
        id: Uuid, user_id: Uuid, plan: str, starts_at: Timestamp, ends_at: Timestamp, reason: Sealed, granted_by: Option<Uuid>,
    ) =
        "INSERT INTO access_grant (id, user_id, plan, starts_at, ends_at, reason, granted_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)";

    fn find_grant(user_id: Uuid, id: Uuid) -> StoredGrant =
        "SELECT id, plan, starts_at, ends_at, reason, granted_by, revoked_at FROM access_grant
          WHERE user_id = $1 AND id = $2";

    fn all_grants_of(user_id: Uuid) -> StoredGrant =
        "SELECT id, plan, starts_at, ends_at, reason, granted_by, revoked_at FROM access_grant
          WHERE user_id = $1 ORDER BY starts_at";

    /// No row: it was revoked before.
    fn revoke_grant(user_id: Uuid, id: Uuid, now: Timestamp) =
        "UPDATE access_grant SET revoked_at = $3 WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL";
}

record! {
    /// A grant's row.
    pub struct StoredGrant {
        pub id: Uuid,
        pub plan: String,
        pub starts_at: Timestamp,
        pub ends_at: Timestamp,
        pub reason: Sealed,
        pub granted_by: Option<Uuid>,
        pub revoked_at: Option<Timestamp>,
    }
}

record! {
    /// A hold's row.
    #[derive(Clone, Debug)]
    pub struct StoredHold {
        pub provider: String,
        pub mode: Mode,
        pub reference: String,
        pub kind: HoldKind,
        pub user_id: Option<Uuid>,
        pub subscription: Option<String>,
        pub opened_at: Timestamp,
        pub released_at: Option<Timestamp>,
        pub released_by: Option<String>,
    }
}

record! {
    /// Who a user is at a provider.
    pub struct CustomerRow {
        pub provider: String,
        pub mode: Mode,
        pub reference: String,
    }
}
