//! The queries of signing keys.

use jiff::Timestamp;

use crate::{platform::seal::Sealed, queries, record};

queries! {
    /// Stores the key with this number; an instance that was faster keeps its own.
    fn add_signing_key(
        number: i64, kid: str, public_key: [u8], private_key: Sealed, created_at: Timestamp,
    ) =
        "INSERT INTO signing_key (number, kid, public_key, private_key, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (number) DO NOTHING";

    scan fn signing_keys() -> SigningKeyRow =
        "SELECT kid, public_key, private_key FROM signing_key ORDER BY number DESC LIMIT 100";
}

record! {
    /// A key that signs access tokens.
    pub struct SigningKeyRow {
        pub(in crate::auth) kid: String,
        pub(in crate::auth) public_key: Vec<u8>,
        pub(in crate::auth) private_key: Sealed,
    }
}
