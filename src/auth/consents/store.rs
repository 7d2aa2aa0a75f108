//! The queries of consents.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{queries, record};

queries! {
    fn add_consent(user_id: Uuid, document: str, version: str, accepted_at: Timestamp) =
        "INSERT INTO consent (user_id, document, version, accepted_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id, document, version) DO NOTHING";

    fn consents_of(user_id: Uuid) -> ConsentRow =
        "SELECT document, version FROM consent WHERE user_id = $1 ORDER BY accepted_at DESC LIMIT 500";
}

record! {
    /// A consent that was given.
    pub struct ConsentRow {
        pub(in crate::auth) document: String,
        pub(in crate::auth) version: String,
    }
}
