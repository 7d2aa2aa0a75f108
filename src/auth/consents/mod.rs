//! What people agreed to: versions of documents.

pub(crate) mod http;
pub(crate) mod store;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use self::store::ConsentRow;
use super::{Auth, AuthError, Caller, User, audit::Action, service::invalid_field};
use crate::platform::{client::Client, db, problem::Invalid};

/// A document that people consent to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Policy {
    /// Its name.
    #[schema(example = "terms")]
    pub document: String,
    /// Its current version.
    #[schema(example = "2026-11-01")]
    pub version: String,
    /// Where it can be read.
    pub url: String,
    /// Whether the service needs it.
    pub required: bool,
}

/// Consent to one version of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The document.
    #[schema(example = "terms", max_length = 64)]
    pub document: String,
    /// The version that was shown.
    #[schema(example = "2026-11-01", max_length = 64)]
    pub version: String,
}

impl Auth {
    /// The documents that people consent to.
    pub fn policies(&self) -> &[Policy] {
        &self.0.settings.policies
    }

    /// Stores consents. Each names the current version of a document.
    pub async fn consent(
        &self,
        caller: Caller,
        client: &Client,
        consents: Vec<Consent>,
    ) -> Result<User, AuthError> {
        self.check_consents(&consents)?;
        let id = caller.user_id;
        // Documents and versions are the operator's words; the check above let nothing else through.
        let accepted: Vec<String> =
            consents.iter().map(|consent| format!("{} {}", consent.document, consent.version)).collect();
        let event = self
            .audit(Action::ConsentGiven, Some(client))
            .by_caller(caller)
            .about(id)
            .with("accepted", accepted);
        let now = self.0.clock.now();
        self.0
            .db
            .write(async move |c| {
                for Consent { document, version } in &consents {
                    store::add_consent(id, document, version, now).exec(&c).await?;
                }
                event.store(&c).await?;
                Ok::<_, db::Error>(())
            })
            .await?;
        self.user(id).await
    }

    /// Refuses a user who has not accepted the current version of every required document.
    pub async fn require_consents(&self, id: Uuid) -> Result<(), AuthError> {
        let given = self.0.db.read(async |c| store::consents_of(id).all(&c).await).await?;
        let has = |policy: &Policy| {
            given
                .iter()
                .any(|row: &ConsentRow| row.document == policy.document && row.version == policy.version)
        };
        let complete = self.policies().iter().filter(|policy| policy.required).all(has);
        if complete { Ok(()) } else { Err(AuthError::ConsentRequired) }
    }

    /// Checks that consents name documents at their current versions, and each once. So there are never more of them
    /// than there are policies.
    pub(super) fn check_consents(&self, consents: &[Consent]) -> Result<(), AuthError> {
        check_shape(consents).map_err(|invalid| invalid_field("/consents", invalid))?;
        let is_current = |consent: &Consent| {
            self.policies()
                .iter()
                .any(|policy| policy.document == consent.document && policy.version == consent.version)
        };
        if consents.iter().all(is_current) { Ok(()) } else { Err(AuthError::PolicyOutdated) }
    }
}

/// What is wrong with a list of consents whatever the policies are.
pub(super) fn check_shape(consents: &[Consent]) -> Result<(), Invalid> {
    if consents.is_empty() {
        return Err(Invalid::new("missing", "Consent is needed."));
    }
    let mut seen = HashSet::new();
    if consents.iter().all(|consent| seen.insert(consent.document.as_str())) {
        Ok(())
    } else {
        Err(Invalid::new("duplicate", "Each document is named once."))
    }
}
