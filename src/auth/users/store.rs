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

    fn find_address(id: Uuid) -> String = "SELECT email FROM app_user WHERE id = $1";

    /// Whether there is such a user.
    fn find_user_id(id: Uuid) -> Uuid = "SELECT id FROM app_user WHERE id = $1";

    /// What login compares a password with.
    fn find_credentials(email_key: str) -> Credentials =
        "SELECT id, password_hash FROM app_user WHERE email_key = $1";

    /// Who has an address.
    fn find_owner(email_key: str) -> Owner = "SELECT id, email FROM app_user WHERE email_key = $1";

    /// How somebody signs in.
    fn find_sign_in(id: Uuid) -> SignIn = "SELECT email, password_hash FROM app_user WHERE id = $1";

    /// Holds the user's row until the transaction ends.
    fn hold_user(id: Uuid) = "UPDATE app_user SET role = role WHERE id = $1";

    /// Holds the user's row until the transaction ends, as long as the address is theirs.
    fn hold_owner(id: Uuid, email_key: str) =
        "UPDATE app_user SET email_key = email_key WHERE id = $1 AND email_key = $2";

    /// Replaces a password's hash, which may be with itself. No row: it is another one by now. It holds the user's row
    /// until the transaction ends, so that what depends on the password cannot happen beside a change of it.
    fn replace_password(id: Uuid, old_hash: str, new_hash: str) =
        "UPDATE app_user SET password_hash = $3 WHERE id = $1 AND password_hash = $2";

    /// Gives a first password to somebody who has none.
    fn set_first_password(id: Uuid, new_hash: str) =
        "UPDATE app_user SET password_hash = $2 WHERE id = $1 AND password_hash IS NULL";

    /// Sets a password, whatever there was before.
    fn set_password(id: Uuid, new_hash: str) = "UPDATE app_user SET password_hash = $2 WHERE id = $1";

    /// Gives a user another address than `old_key`. No row: it is another one by now, or the new one is taken.
    fn change_email(id: Uuid, old_key: str, email: str, email_key: str) =
        "UPDATE app_user SET email = $3, email_key = $4, email_verified = TRUE
          WHERE id = $1 AND email_key = $2
            AND NOT EXISTS (SELECT 1 FROM app_user other WHERE other.email_key = $4 AND other.id <> $1)";

    /// Gives a user an address back, and takes the password away: whoever changed the address may have set it.
    fn restore_email(id: Uuid, email: str, email_key: str) =
        "UPDATE app_user
            SET email = $2, email_key = $3, email_verified = TRUE, password_hash = NULL
          WHERE id = $1
            AND NOT EXISTS (SELECT 1 FROM app_user other WHERE other.email_key = $3 AND other.id <> $1)";

    /// Takes an address for a user until a time, which may be now. No row: it is held for somebody else. It comes before
    /// any change of users' rows, so that two who want one address come one after the other.
    fn claim_address(email_mac: [u8], user_id: Uuid, now: Timestamp, until: Timestamp) =
        "INSERT INTO held_address (email_mac, user_id, until) VALUES ($1, $2, $4)
         ON CONFLICT (email_mac) DO UPDATE SET user_id = $2, until = $4
          WHERE held_address.user_id = $2 OR held_address.until <= $3";

    /// Who an address is held for.
    fn find_hold(email_mac: [u8], now: Timestamp) -> Uuid =
        "SELECT user_id FROM held_address WHERE email_mac = $1 AND until > $2";

    fn remove_ended_holds(now: Timestamp) =
        "DELETE FROM held_address
          WHERE email_mac IN (SELECT email_mac FROM held_address WHERE until < $1 LIMIT 500)";

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

record! {
    /// Who has an address.
    pub struct Owner {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) email: String,
    }
}

record! {
    /// How somebody signs in.
    pub struct SignIn {
        pub(in crate::auth) email: String,
        pub(in crate::auth) password_hash: Option<String>,
    }
}
