//! What an operator may do through the API.
//!
//! It asks the other slices and keeps nothing of its own. Nobody's messages, titles, companions or birth dates are within
//! its reach.

pub(crate) mod http;

use uuid::Uuid;

use crate::{
    auth::{
        Administrator, AuditEntry, AuditFilter, Auth, AuthError, Caller, ManagedUser, Role, SuspensionForm,
    },
    billing::{Billing, BillingError, Grant, GrantForm},
    platform::{client::Client, page::Page},
};

/// Administration.
#[derive(Clone)]
pub struct Admin {
    auth: Auth,
    billing: Billing,
    needs_second_factor: bool,
}

/// A caller who may administer, and all that they may do. There is no other way to get one than [`Admin::admit`].
pub struct Operator {
    auth: Auth,
    billing: Billing,
    caller: Caller,
    client: Client,
}

/// Why administration refuses.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The caller is not an administrator.
    #[error("not an administrator")]
    NotAnAdministrator,
    /// A second factor is needed, and there are none yet.
    #[error("administration needs a second factor")]
    NoSecondFactor,
    /// Identity refuses.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

impl Admin {
    /// Administration over identity and billing. `needs_second_factor` where it has to be safe, in production.
    pub fn new(auth: Auth, billing: Billing, needs_second_factor: bool) -> Admin {
        Admin { auth, billing, needs_second_factor }
    }

    /// Lets an administrator through who has shown lately who they are.
    pub fn admit(&self, caller: Caller, client: Client) -> Result<Operator, AdminError> {
        if caller.role != Role::Admin {
            return Err(AdminError::NotAnAdministrator);
        }
        if self.needs_second_factor {
            return Err(AdminError::NoSecondFactor);
        }
        self.auth.require_fresh(caller)?;
        Ok(Operator { auth: self.auth.clone(), billing: self.billing.clone(), caller, client })
    }
}

impl Operator {
    /// The user with this id or address, exactly, if there is one.
    pub async fn find_user(&self, query: &str) -> Result<Option<ManagedUser>, AuthError> {
        self.auth.find_managed_user(query).await
    }

    /// A user.
    pub async fn user(&self, id: Uuid) -> Result<ManagedUser, AuthError> {
        self.auth.managed_user(id).await
    }

    /// Suspends a user; see [`Auth::suspend`].
    pub async fn suspend(&self, id: Uuid, form: SuspensionForm) -> Result<ManagedUser, AuthError> {
        self.auth.suspend(self.administrator(), id, form).await
    }

    /// Ends a suspension; see [`Auth::unsuspend`].
    pub async fn unsuspend(&self, id: Uuid) -> Result<ManagedUser, AuthError> {
        self.auth.unsuspend(self.administrator(), id).await
    }

    /// Ends all sessions of a user; see [`Auth::revoke_sessions`].
    pub async fn revoke_sessions(&self, id: Uuid) -> Result<(), AuthError> {
        self.auth.revoke_sessions(self.administrator(), id).await
    }

    /// Gives a user another role; see [`Auth::set_role`].
    pub async fn set_role(&self, id: Uuid, role: Role) -> Result<ManagedUser, AuthError> {
        self.auth.set_role(self.administrator(), id, role).await
    }

    /// Gives a user a plan; see [`Billing::grant`].
    pub async fn grant(&self, id: Uuid, form: &GrantForm) -> Result<Grant, BillingError> {
        self.billing.grant(self.administrator(), id, form).await
    }

    /// Takes a grant back; see [`Billing::revoke_grant`].
    pub async fn revoke_grant(&self, id: Uuid, grant: Uuid) -> Result<(), BillingError> {
        self.billing.revoke_grant(self.administrator(), id, grant).await
    }

    /// A page of the audit; see [`Auth::audit_page`].
    pub async fn audit(
        &self,
        filter: AuditFilter,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Page<AuditEntry>, AuthError> {
        self.auth.audit_page(self.caller.user_id, filter, cursor, limit).await
    }

    fn administrator(&self) -> Administrator<'_> {
        Administrator::Admin(self.caller, &self.client)
    }
}
