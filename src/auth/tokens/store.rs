//! The queries of signing keys.

use jiff::Timestamp;

use super::keys::KeyTimes;
use crate::{platform::seal::Sealed, queries, record};

queries! {
    /// Stores the key with this number, to sign from `activates_at`; an instance that was faster keeps its own.
    fn add_signing_key(
        number: i64, kid: str, public_key: [u8], private_key: Sealed, now: Timestamp, activates_at: Timestamp,
    ) =
        "INSERT INTO signing_key (number, kid, public_key, private_key, published_at, activates_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (number) DO NOTHING";

    /// Gives the keys before this one their end. Those that have one keep it.
    scan fn retire_signing_keys_before(number: i64, retires_at: Timestamp) =
        "UPDATE signing_key SET retires_at = $2 WHERE number < $1 AND retires_at IS NULL";

    /// Makes every key before this one worthless. The rows stay a while, for the operator to see.
    scan fn revoke_signing_keys_before(number: i64, now: Timestamp, retires_at: Timestamp) =
        "UPDATE signing_key SET revoked_at = $2, retires_at = $3 WHERE number < $1 AND revoked_at IS NULL";

    /// The newest key has no end, so one always stays.
    scan fn remove_retired_signing_keys(now: Timestamp) =
        "DELETE FROM signing_key WHERE retires_at <= $1";

    scan fn newest_signing_key_number() -> i64 =
        "SELECT number FROM signing_key ORDER BY number DESC LIMIT 1";

    /// Newest first.
    scan fn signing_keys() -> SigningKeyRow =
        "SELECT number, kid, public_key, private_key, published_at, activates_at, retires_at, revoked_at
           FROM signing_key ORDER BY number DESC LIMIT 100";
}

record! {
    /// A key that signs access tokens.
    #[derive(Clone)]
    pub struct SigningKeyRow {
        pub(in crate::auth) number: i64,
        pub(in crate::auth) kid: String,
        pub(in crate::auth) public_key: Vec<u8>,
        pub(in crate::auth) private_key: Sealed,
        pub(in crate::auth) published_at: Timestamp,
        pub(in crate::auth) activates_at: Timestamp,
        pub(in crate::auth) retires_at: Option<Timestamp>,
        pub(in crate::auth) revoked_at: Option<Timestamp>,
    }
}

impl SigningKeyRow {
    /// The times that decide what the key is for.
    pub(super) fn times(&self) -> KeyTimes {
        KeyTimes { signs: self.activates_at, ends: self.retires_at, revoked: self.revoked_at }
    }
}
