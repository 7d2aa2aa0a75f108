//! What an operator may do through the API.
//!
//! It asks the other slices and keeps nothing of its own. Nobody's messages, titles, companions or birth dates are within
//! its reach.

pub(crate) mod http;

use crate::{
    auth::{Administrator, Auth, AuthError, Caller, Role},
    platform::client::Client,
};

/// Administration.
#[derive(Clone)]
pub struct Admin {
    auth: Auth,
    needs_second_factor: bool,
}

/// A caller who may administer. There is no other way to get one than [`Admin::admit`].
pub struct Operator {
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
    /// Administration over identity. `needs_second_factor` where it has to be safe, in production.
    pub fn new(auth: Auth, needs_second_factor: bool) -> Admin {
        Admin { auth, needs_second_factor }
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
        Ok(Operator { caller, client })
    }
}

impl Operator {
    fn administrator(&self) -> Administrator<'_> {
        Administrator::Admin(self.caller, &self.client)
    }
}
