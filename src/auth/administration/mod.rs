//! What an operator does with users: suspends them, ends their sessions, changes their role.
//!
//! Each act is one transaction that begins with the one row that all acts change. So a rule over several users, that an
//! administrator is left, holds also for acts at the same moment, and somebody who was demoted a moment ago does nothing.

pub(crate) mod store;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Auth, AuthError, Caller, Email, Role, User,
    audit::{Action, AuditEvent},
    session,
    users::{self, open_user},
};
use crate::platform::{
    client::Client,
    db::Conn,
    problem::{Faults, Invalid},
    seal::{DataKey, Place},
    time,
    valid::single_line,
};

/// The longest reason for a suspension, in characters.
const MAX_REASON: usize = 500;

/// A user, as an operator sees it: nothing that they talk about, and no birth date.
#[derive(Clone, Serialize, ToSchema)]
pub struct ManagedUser {
    /// The user, as the user sees it.
    #[serde(flatten)]
    pub user: User,
    /// Since when the user is suspended, if so.
    #[serde(serialize_with = "time::serialize_optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub suspended_at: Option<Timestamp>,
    /// When the suspension ends by itself, if it does.
    #[serde(serialize_with = "time::serialize_optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub suspended_until: Option<Timestamp>,
    /// Why the user is suspended, in an operator's words. The user does not see it.
    pub suspension_reason: Option<String>,
}

/// Who acts.
#[derive(Clone, Copy)]
pub enum Administrator<'a> {
    /// Somebody with the role, who has been let through.
    Admin(Caller, &'a Client),
    /// Whoever may run commands on the machine.
    Command,
}

/// A suspension as it was asked for.
pub struct SuspensionForm {
    /// Why.
    pub reason: String,
    /// Until when, in RFC 3339; without end if absent.
    pub until: Option<String>,
}

impl Administrator<'_> {
    /// Who, where it is somebody.
    pub fn caller(self) -> Option<Caller> {
        match self {
            Administrator::Admin(caller, _) => Some(caller),
            Administrator::Command => None,
        }
    }
}

impl Auth {
    /// The user with this id or address, exactly.
    pub async fn find_managed_user(&self, query: &str) -> Result<Option<ManagedUser>, AuthError> {
        let id = match (Uuid::try_parse(query.trim()), Email::parse(query)) {
            (Ok(id), _) => Some(id),
            (Err(_), Ok(email)) => {
                let found = self.0.db.read(async |c| users::store::find_owner(email.key()).opt(&c).await);
                found.await?.map(|row| row.id)
            }
            (Err(_), Err(_)) => None,
        };
        let Some(id) = id else { return Ok(None) };
        match self.managed_user(id).await {
            Err(AuthError::NoSuchUser) => Ok(None),
            found => found.map(Some),
        }
    }

    /// A user, as an operator sees it.
    pub async fn managed_user(&self, id: Uuid) -> Result<ManagedUser, AuthError> {
        let (key, now) = (self.key_of(id).await?, self.now());
        self.0.db.read(async |c| read_user(&c, id, &key, now).await).await
    }

    /// Suspends a user and ends all their sessions. Suspending once more replaces reason and end.
    ///
    /// # Errors
    ///
    /// [`AuthError::OwnSuspension`], [`AuthError::LastAdministrator`], and [`AuthError::Forbidden`] for somebody who has
    /// just lost the role.
    pub async fn suspend(
        &self,
        by: Administrator<'_>,
        id: Uuid,
        form: SuspensionForm,
    ) -> Result<ManagedUser, AuthError> {
        let now = self.now();
        let (reason, until) = parse_suspension(&form, now)?;
        if by.caller().is_some_and(|caller| caller.user_id == id) {
            return Err(AuthError::OwnSuspension);
        }
        let key = self.key_of(id).await?;
        let reason = key.seal(reason_place(&id), reason.as_bytes(), &*self.0.random);
        let event = self.act(Action::UserSuspended, by, id).with("until", until.map(time::rfc3339));
        let actor = by.caller();
        self.0
            .db
            .write(async move |c| {
                begin_act(&c, actor, now).await?;
                keep_an_administrator(&c, id, now).await?;
                if store::suspend_user(id, now, until, &reason).exec(&c).await? == 0 {
                    return Err(AuthError::NoSuchUser);
                }
                let ended = session::store::end_sessions_of(id).exec(&c).await?;
                event.clone().with("sessions", ended).store(&c).await?;
                read_user(&c, id, &key, now).await
            })
            .await
    }

    /// Ends a suspension. Nothing happens where there is none.
    pub async fn unsuspend(&self, by: Administrator<'_>, id: Uuid) -> Result<ManagedUser, AuthError> {
        let (now, actor, key) = (self.now(), by.caller(), self.key_of(id).await?);
        let event = self.act(Action::UserUnsuspended, by, id);
        self.0
            .db
            .write(async move |c| {
                begin_act(&c, actor, now).await?;
                if store::unsuspend_user(id).exec(&c).await? > 0 {
                    event.store(&c).await?;
                }
                read_user(&c, id, &key, now).await
            })
            .await
    }

    /// Ends all sessions of a user.
    pub async fn revoke_sessions(&self, by: Administrator<'_>, id: Uuid) -> Result<(), AuthError> {
        let (now, actor) = (self.now(), by.caller());
        let event = self.act(Action::SessionsRevoked, by, id);
        self.0
            .db
            .write(async move |c| {
                begin_act(&c, actor, now).await?;
                users::store::find_user_id(id).opt(&c).await?.ok_or(AuthError::NoSuchUser)?;
                let ended = session::store::end_sessions_of(id).exec(&c).await?;
                event.clone().with("sessions", ended).store(&c).await?;
                Ok::<_, AuthError>(())
            })
            .await
    }

    /// Gives a user another role. It counts from their next request on: the role is read from the row each time, and what
    /// an administrator does needs a fresh sign-in.
    ///
    /// # Errors
    ///
    /// [`AuthError::LastAdministrator`], and [`AuthError::Forbidden`] for somebody who has just lost the role.
    pub async fn set_role(
        &self,
        by: Administrator<'_>,
        id: Uuid,
        role: Role,
    ) -> Result<ManagedUser, AuthError> {
        let (now, actor, key) = (self.now(), by.caller(), self.key_of(id).await?);
        let event = self.act(Action::RoleChanged, by, id).with("role", role.as_str());
        self.0
            .db
            .write(async move |c| {
                begin_act(&c, actor, now).await?;
                if role != Role::Admin {
                    keep_an_administrator(&c, id, now).await?;
                }
                if store::set_user_role(id, role).exec(&c).await? > 0 {
                    event.store(&c).await?;
                }
                read_user(&c, id, &key, now).await
            })
            .await
    }

    /// The entry of what an operator does to a user.
    pub fn act(&self, action: Action, by: Administrator<'_>, about: Uuid) -> AuditEvent {
        match by {
            Administrator::Admin(caller, client) => self.audit(action, Some(client)).by_caller(caller),
            Administrator::Command => self.audit(action, None).with("by", "command"),
        }
        .about(about)
    }

    /// A user's key, if there is such a user.
    pub async fn key_of(&self, id: Uuid) -> Result<DataKey, AuthError> {
        let found = self.0.db.read(async |c| users::store::find_user_id(id).opt(&c).await).await?;
        found.ok_or(AuthError::NoSuchUser)?;
        Ok(self.0.keyring.user(id).await?)
    }
}

/// A user as an operator sees it. Acts read it before they commit: nobody is told that something failed which was done.
async fn read_user(conn: &Conn, id: Uuid, key: &DataKey, now: Timestamp) -> Result<ManagedUser, AuthError> {
    let row = store::find_managed_user(id).opt(conn).await?;
    let (user, suspension) = row.ok_or(AuthError::NoSuchUser)?.parts();
    // One that is over is nobody's business any more.
    let suspension = suspension.filter(|suspension| suspension.until.is_none_or(|until| until > now));
    let reason = suspension.as_ref().and_then(|suspension| suspension.reason.as_ref());
    Ok(ManagedUser {
        user: open_user(user, key)?,
        suspended_at: suspension.as_ref().map(|suspension| suspension.at),
        suspended_until: suspension.as_ref().and_then(|suspension| suspension.until),
        suspension_reason: reason.map(|sealed| key.open_text(reason_place(&id), sealed)).transpose()?,
    })
}

/// The first statement of what an operator does: waits for the act before, and refuses who may not act any more since then.
pub async fn begin_act(conn: &Conn, actor: Option<Caller>, now: Timestamp) -> Result<(), AuthError> {
    store::begin_act().exec(conn).await?;
    let Some(actor) = actor else { return Ok(()) };
    if store::hold_active_admin(actor.user_id, now).opt(conn).await?.is_none() {
        return Err(AuthError::Forbidden);
    }
    session::hold(conn, actor, now).await
}

/// Refuses to take the last user who can administer away.
async fn keep_an_administrator(conn: &Conn, id: Uuid, now: Timestamp) -> Result<(), AuthError> {
    let is_one = store::find_active_admin(id, now).opt(conn).await?.is_some();
    if is_one && store::find_other_active_admin(id, now).opt(conn).await?.is_none() {
        return Err(AuthError::LastAdministrator);
    }
    Ok::<_, AuthError>(())
}

fn parse_suspension(form: &SuspensionForm, now: Timestamp) -> Result<(String, Option<Timestamp>), AuthError> {
    let mut faults = Faults::new();
    let reason = faults.take("/reason", single_line(&form.reason, MAX_REASON));
    let until = faults.take("/until", form.until.as_deref().map(|until| future(until, now)).transpose());
    let (Some(reason), Some(until)) = (reason, until) else {
        return Err(AuthError::Invalid(faults.into_errors()));
    };
    Ok((reason, until))
}

fn future(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    let time: Timestamp = text
        .trim()
        .parse()
        .map_err(|_| Invalid::new("invalid_format", "A time looks like 2026-12-31T00:00:00Z."))?;
    if time <= now {
        return Err(Invalid::new("in_past", "A suspension ends in the future."));
    }
    Ok(time)
}

fn reason_place(user: &Uuid) -> Place<'_> {
    Place::new("app_user.suspension_reason", user.as_bytes())
}
