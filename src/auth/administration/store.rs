//! The queries of administration.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    auth::{AgeAssurance, Role, users::store::UserRow},
    platform::seal::Sealed,
    queries, record,
};

queries! {
    /// The first statement of every act: acts come one after the other, and each sees what the one before it did.
    fn begin_act() = "UPDATE administration SET acts = acts + 1 WHERE id = 1";

    /// Whether this user can administer: has the role and is not suspended.
    fn find_active_admin(id: Uuid, now: Timestamp) -> Uuid =
        "SELECT id FROM app_user
          WHERE id = $1 AND role = 'admin' AND (suspended_at IS NULL OR suspended_until <= $2)";

    /// Holds the row of somebody who can administer until the transaction ends; their session's row comes after it.
    fn hold_active_admin(id: Uuid, now: Timestamp) -> Uuid =
        "UPDATE app_user SET role = role
          WHERE id = $1 AND role = 'admin' AND (suspended_at IS NULL OR suspended_until <= $2)
         RETURNING id";

    /// Somebody else who can administer.
    fn find_other_active_admin(id: Uuid, now: Timestamp) -> Uuid =
        "SELECT id FROM app_user
          WHERE role = 'admin' AND id <> $1 AND (suspended_at IS NULL OR suspended_until <= $2) LIMIT 1";

    /// Whether a user is suspended.
    fn find_suspension(id: Uuid, now: Timestamp) -> Uuid =
        "SELECT id FROM app_user WHERE id = $1 AND suspended_at IS NOT NULL
            AND (suspended_until IS NULL OR suspended_until > $2)";

    fn find_managed_user(id: Uuid) -> ManagedUserRow =
        "SELECT id, email, email_verified, display_name, locale, time_zone, role, created_at, age_assurance,
                suspended_at, suspended_until, suspension_reason
           FROM app_user WHERE id = $1";

    fn suspend_user(id: Uuid, now: Timestamp, until: Option<Timestamp>, reason: Sealed) =
        "UPDATE app_user SET suspended_at = $2, suspended_until = $3, suspension_reason = $4 WHERE id = $1";

    fn unsuspend_user(id: Uuid) =
        "UPDATE app_user SET suspended_at = NULL, suspended_until = NULL, suspension_reason = NULL
          WHERE id = $1 AND suspended_at IS NOT NULL";

    /// No row: the user has this role.
    fn set_user_role(id: Uuid, role: Role) = "UPDATE app_user SET role = $2 WHERE id = $1 AND role <> $2";
}

record! {
    /// A user's row with what administration adds.
    pub struct ManagedUserRow {
        id: Uuid,
        email: String,
        email_verified: bool,
        display_name: Option<Sealed>,
        locale: Option<String>,
        time_zone: Option<String>,
        role: Role,
        created_at: Timestamp,
        age_assurance: AgeAssurance,
        suspended_at: Option<Timestamp>,
        suspended_until: Option<Timestamp>,
        suspension_reason: Option<Sealed>,
    }
}

/// A suspension as it is stored. It may be over.
pub struct SuspensionRow {
    pub(super) at: Timestamp,
    pub(super) until: Option<Timestamp>,
    pub(super) reason: Option<Sealed>,
}

impl ManagedUserRow {
    /// The user and the suspension.
    pub(super) fn parts(self) -> (UserRow, Option<SuspensionRow>) {
        let (until, reason) = (self.suspended_until, self.suspension_reason);
        let suspension = self.suspended_at.map(|at| SuspensionRow { at, until, reason });
        let user = UserRow {
            id: self.id,
            email: self.email,
            email_verified: self.email_verified,
            display_name: self.display_name,
            locale: self.locale,
            time_zone: self.time_zone,
            role: self.role,
            created_at: self.created_at,
            age_assurance: self.age_assurance,
        };
        (user, suspension)
    }
}
