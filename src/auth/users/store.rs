//! The queries of users.

use jiff::Timestamp;
use uuid::Uuid;

use super::{AgeAssurance, Role};
use crate::{platform::seal::Sealed, queries, record};

queries! {
    /// Creates a user, unless the address is taken.
    fn add_user(
        id: Uuid, email: str, email_key: str, password_hash: str, role: Role, locale: Option<String>,
        birth_date: Option<Sealed>, age_assurance: AgeAssurance, created_at: Timestamp,
    ) =
        "INSERT INTO app_user (id, email, email_key, email_verified, password_hash, role, locale, birth_date,
                               age_assurance, created_at)
         VALUES ($1, $2, $3, TRUE, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (email_key) DO NOTHING";

    fn find_user(id: Uuid) -> UserRow =
        "SELECT id, email, email_verified, display_name, locale, time_zone, role, created_at, age_assurance
           FROM app_user WHERE id = $1";

    /// What login compares a password with.
    fn find_credentials(email_key: str) -> Credentials =
        "SELECT id, password_hash FROM app_user WHERE email_key = $1";

    /// Replaces a password's hash, which may be with itself. No row: it is another one by now. It holds the user's row
    /// until the transaction ends, so that what depends on the password cannot happen beside a change of it.
    fn replace_password(id: Uuid, old_hash: str, new_hash: str) =
        "UPDATE app_user SET password_hash = $3 WHERE id = $1 AND password_hash = $2";

    /// Sets the fields whose flag is true and leaves the others, so that two changes at once do not undo each other.
    fn update_profile(
        id: Uuid, set_name: bool, display_name: Option<Sealed>, set_locale: bool, locale: Option<String>,
        set_zone: bool, time_zone: Option<String>,
    ) =
        "UPDATE app_user
            SET display_name = CASE WHEN $2 THEN $3 ELSE display_name END,
                locale = CASE WHEN $4 THEN $5 ELSE locale END,
                time_zone = CASE WHEN $6 THEN $7 ELSE time_zone END
          WHERE id = $1";
}

record! {
    /// A user's row.
    pub struct UserRow {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) email: String,
        pub(in crate::auth) email_verified: bool,
        pub(in crate::auth) display_name: Option<Sealed>,
        pub(in crate::auth) locale: Option<String>,
        pub(in crate::auth) time_zone: Option<String>,
        pub(in crate::auth) role: Role,
        pub(in crate::auth) created_at: Timestamp,
        pub(in crate::auth) age_assurance: AgeAssurance,
    }
}

record! {
    /// What a password is compared with.
    pub struct Credentials {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) password_hash: Option<String>,
    }
}
