//! The way back to an address that was given up.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use super::store::{self, OpenUndo};
use crate::{
    auth::{Auth, AuthError, Email, audit::Action, letters, password, session, throttle::Throttle, users},
    platform::{
        client::Client,
        db::{self, Conn},
        job::NewJob,
        mail::MAIL_JOB,
        seal::{Place, Sealed},
        time,
        token::TokenKind,
    },
};

const TOKEN: TokenKind = TokenKind { name: "eu", id_len: 0 };
/// How long a change can be undone.
const TTL: Duration = Duration::from_hours(72);
/// How much longer an address is held than a change can be undone: another instance's clock may be behind.
const SLACK: Duration = Duration::from_hours(1);
/// The column that holds an old address.
const COLUMN: &str = "email_undo.email";

/// A way back that is about to be stored, with the mail that holds its token.
pub(super) struct NewUndo {
    /// Until when the old address is held for its user.
    pub(super) held_until: Timestamp,
    token_hash: [u8; 32],
    email: Sealed,
    expires_at: Timestamp,
    mail: NewJob,
}

impl NewUndo {
    /// Stores it. The transaction holds the user's row.
    pub(super) async fn store(&self, conn: &Conn, user_id: Uuid) -> Result<(), db::Error> {
        store::add_undo(&self.token_hash, user_id, &self.email, self.expires_at).exec(conn).await?;
        self.mail.store(conn).await
    }
}

/// What the address gets that a user leaves.
pub(super) enum Farewell {
    /// Nothing: the new one is another spelling of it.
    Nothing,
    /// A way back.
    WayBack(NewUndo),
    /// The user has gone back to an address that they left lately, as its way back would have them do. So the one that is
    /// left gets none: it may be a thief's, and would outlive the owner's. It is told, and ways back from then on end.
    Returned { number: i64, notice: NewJob },
}

impl Farewell {
    /// Until when the address that is left is held for the user.
    pub(super) fn held_until(&self, now: Timestamp) -> Timestamp {
        match self {
            Farewell::WayBack(undo) => undo.held_until,
            Farewell::Nothing | Farewell::Returned { .. } => now,
        }
    }

    /// Stores it. The transaction holds the user's row.
    pub(super) async fn store(&self, conn: &Conn, user_id: Uuid) -> Result<(), db::Error> {
        match self {
            Farewell::Nothing => Ok(()),
            Farewell::WayBack(undo) => undo.store(conn, user_id).await,
            Farewell::Returned { number, notice } => {
                store::remove_undos_from(user_id, *number).exec(conn).await?;
                notice.store(conn).await
            }
        }
    }
}

impl Auth {
    /// What `old` gets when its user changes to `new`.
    pub(super) async fn farewell(
        &self,
        user_id: Uuid,
        old: &Email,
        new: &Email,
        now: Timestamp,
    ) -> Result<Farewell, AuthError> {
        if old.key() == new.key() {
            return Ok(Farewell::Nothing);
        }
        let undos = self.0.db.read(async |c| store::undos_of(user_id, now).all(&c).await).await?;
        for OpenUndo { token_hash, number, email } in undos {
            if self.open_address(COLUMN, &token_hash, &email)?.key() == new.key() {
                let notice = self.0.jobs.prepare(MAIL_JOB, &letters::email_returned(old.address()))?;
                return Ok(Farewell::Returned { number, notice });
            }
        }
        Ok(Farewell::WayBack(self.new_undo(old, now)?))
    }

    fn new_undo(&self, old: &Email, now: Timestamp) -> Result<NewUndo, AuthError> {
        let (token, token_hash) = TOKEN.issue(&[], &*self.0.random);
        let mail = letters::email_changed(old.address(), &self.link("email-undo", &token));
        let expires_at = time::after(now, TTL);
        Ok(NewUndo {
            held_until: time::after(expires_at, SLACK),
            token_hash,
            email: self.seal_address(Place::new(COLUMN, &token_hash), old)?,
            expires_at,
            mail: self.0.jobs.prepare(MAIL_JOB, &mail)?,
        })
    }

    /// Gives the owner of an old address the account back, by the token from the mail that told of the change.
    ///
    /// Every session ends, ways to a new password and changes of the address that wait are closed, and the password
    /// is taken away: whoever changed the address knew it, or set it before or after. Changes after this one can no longer
    /// be undone; those before it can, so that a thief who changes the address twice does not lock the owner out.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for a token that is unknown, used, overtaken or expired.
    pub async fn undo_email_change(&self, token: &SecretString, client: &Client) -> Result<(), AuthError> {
        let _ = self.admit(Throttle::Code, client).await?;
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let found = self.0.db.read(async |c| store::find_undo(&token_hash, now).opt(&c).await).await?;
        let found = found.ok_or(AuthError::InvalidCode)?;
        let user_id = found.user_id;
        let old = self.open_address(COLUMN, &token_hash, &found.email)?;
        let (current, _) = self.sign_in_of(user_id).await?;
        let mut notices = Vec::new();
        for to in [&old, &current] {
            let mail = letters::email_change_undone(to.address());
            notices.push(self.0.jobs.prepare(MAIL_JOB, &mail)?);
        }
        let event = self.audit(Action::EmailChangeUndone, Some(client)).by(user_id).about(user_id);
        self.0
            .db
            .write(async move |c| {
                let restored = users::store::restore_email(user_id, old.address(), old.key());
                if restored.exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                let number = store::take_undo(&token_hash, user_id, now).opt(&c).await?;
                let number = number.ok_or(AuthError::InvalidCode)?;
                store::remove_undos_from(user_id, number).exec(&c).await?;
                password::close_ways_around(&c, user_id).await?;
                session::store::end_sessions_of(user_id).exec(&c).await?;
                for notice in &notices {
                    notice.store(&c).await?;
                }
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        self.0.jobs.wake();
        Ok(())
    }
}
