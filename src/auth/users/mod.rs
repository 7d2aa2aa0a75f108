//! The user's row: who exists, as what, and what they want to be called.

mod profile;
pub(crate) mod store;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Auth, AuthError, Email, Password, Policy, audit::Action, consents, service::invalid_field, signup,
};
use crate::{platform::time, text_column};

pub use self::profile::ProfileChange;
pub(super) use self::profile::{locale, open_user};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A customer.
    User,
    /// An operator.
    Admin,
}

text_column!(Role { User = "user", Admin = "admin" });

/// How we know that a user is an adult.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgeAssurance {
    /// The user said so.
    Declared,
    /// The operator, who created the user, vouches for it.
    Operator,
}

text_column!(AgeAssurance { Declared = "declared", Operator = "operator" });

/// A user, as the user sees it.
#[derive(Clone, Serialize, ToSchema)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The address that mail goes to.
    pub email: String,
    /// Whether the user has shown that mail to it arrives.
    pub email_verified: bool,
    /// How the user wants to be called.
    pub display_name: Option<String>,
    /// The language, as a BCP 47 tag.
    #[schema(example = "en-GB")]
    pub locale: Option<String>,
    /// The time zone, as an IANA name.
    #[schema(example = "Europe/London")]
    pub time_zone: Option<String>,
    /// What the user may do.
    pub role: Role,
    /// When the user came to exist.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Whether a second factor is enrolled.
    pub mfa_enabled: bool,
    /// How we know that the user is an adult.
    pub age_assurance: AgeAssurance,
}

impl User {
    /// A user whose sign-up ends now, as the row will say.
    pub(super) fn signed_up(id: Uuid, email: &Email, locale: Option<String>, now: Timestamp) -> User {
        User {
            id,
            email: email.address().to_owned(),
            email_verified: true,
            display_name: None,
            locale,
            time_zone: None,
            role: Role::User,
            created_at: now,
            mfa_enabled: false,
            age_assurance: AgeAssurance::Declared,
        }
    }
}

impl Auth {
    /// Where mail of other slices goes, if there is such a user.
    pub async fn mail_address(&self, id: Uuid) -> Result<Option<String>, AuthError> {
        Ok(self.0.db.read(async |c| store::find_address(id).opt(&c).await).await?)
    }

    /// Creates a user for whose age and consents the operator vouches.
    pub async fn create_user(&self, email: Email, password: Password, role: Role) -> Result<Uuid, AuthError> {
        let judged = self.check_new_password(&password, Some(&email)).await;
        judged.map_err(|invalid| invalid_field("/password", invalid))?;
        let hash = self.0.hasher.hash(password).await?;
        let now = self.0.clock.now();
        let id = self.0.random.uuid(now);
        let key = self.0.keyring.new_user_key(id);
        let policies = self.0.settings.policies.clone();
        let email_mac = self.address_mac(&email)?;
        let event = self.audit(Action::UserCreated, None).about(id);
        let event = event.with("by", "command").with("role", role.as_str());
        self.0
            .db
            .write(async move |c| {
                if store::claim_address(&email_mac, id, now, now).exec(&c).await? == 0 {
                    return Err(AuthError::AddressTaken);
                }
                let (address, email_key) = (email.address(), email.key());
                let user = store::add_user(
                    id,
                    address,
                    email_key,
                    &hash,
                    role,
                    None,
                    None,
                    AgeAssurance::Operator,
                    now,
                );
                if user.exec(&c).await? == 0 {
                    return Err(AuthError::AddressTaken);
                }
                key.store(&c, now).await?;
                signup::store::make_decoys(&email_mac).exec(&c).await?;
                for Policy { document, version, .. } in &policies {
                    consents::store::add_consent(id, document, version, now).exec(&c).await?;
                }
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        Ok(id)
    }
}
