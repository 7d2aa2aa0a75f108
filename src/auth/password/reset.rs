//! A forgotten password: a way to a new one, by mail.

use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::{Password, store};
use crate::{
    auth::{
        Auth, AuthError, Email, audit::Action, email_change, letters, lockout, service::invalid_field,
        session, throttle::Throttle, users,
    },
    platform::{
        client::Client,
        db::{self, Conn},
        mail::{MAIL_JOB, NO_MAIL_JOB},
        time,
        token::TokenKind,
    },
};

const TOKEN: TokenKind = TokenKind { name: "pr", id_len: 0 };
/// How long a way to a new password is open.
const TTL: Duration = Duration::from_mins(30);

impl Auth {
    /// Mails a way to a new password to the owner of an address. An older one is closed.
    ///
    /// For an address that nobody has the same is done, but for the mail: a decoy is stored, and a job that is dropped.
    pub async fn forgot_password(&self, email: &str, client: &Client) -> Result<(), AuthError> {
        let email = Email::parse(email).map_err(|invalid| invalid_field("/email", invalid))?;
        let _ = self.admit(Throttle::Reset { to: &email }, client).await?;
        let email_mac = self.address_mac(&email)?;
        let now = self.now();
        let owner = self.0.db.read(async |c| users::store::find_owner(email.key()).opt(&c).await).await?;
        let to = owner.as_ref().map_or(email.address(), |owner| &owner.email);
        let (token, token_hash) = TOKEN.issue(&[], &*self.0.random);
        let mail = letters::password_reset(to, &self.link("reset", &token));
        let kind = if owner.is_some() { MAIL_JOB } else { NO_MAIL_JOB };
        let mail = self.0.jobs.prepare(kind, &mail)?;
        let user = owner.map(|owner| owner.id);
        let event = self.audit(Action::PasswordResetRequested, Some(client));
        let event = match user {
            Some(user) => event.about(user),
            None => event.failed(),
        };
        let nobody = self.0.random.uuid(now);
        self.0
            .db
            .write(async move |c| {
                // Who gives the address up at this moment gets nothing there any more.
                let held = users::store::hold_owner(user.unwrap_or(nobody), email.key()).exec(&c).await?;
                if held > 0 || user.is_none() {
                    store::store_reset(&email_mac, user, &token_hash, time::after(now, TTL)).exec(&c).await?;
                    mail.store(&c).await?;
                    event.store(&c).await?;
                }
                Ok::<_, db::Error>(())
            })
            .await?;
        self.0.jobs.wake();
        Ok(())
    }

    /// Sets a new password by the token from a mail, once, and ends every session. Nobody is signed in by it.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for a token that is unknown, used, replaced or expired. A password that is not accepted
    /// leaves the token as it was.
    pub async fn reset_password(
        &self,
        token: &SecretString,
        password: &SecretString,
        client: &Client,
    ) -> Result<(), AuthError> {
        let not_accepted = |invalid| invalid_field("/password", invalid);
        let password = Password::parse(password).map_err(not_accepted)?;
        let _ = self.admit(Throttle::Code, client).await?;
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let found = self.0.db.read(async |c| store::find_reset(&token_hash, now).opt(&c).await).await?;
        let user_id = found.ok_or(AuthError::InvalidCode)?;
        let (email, _) = self.sign_in_of(user_id).await?;
        self.check_new_password(&password, Some(&email)).await.map_err(not_accepted)?;
        let hash = self.0.hasher.hash(password).await?;
        let notice = self.0.jobs.prepare(MAIL_JOB, &letters::password_changed(email.address()))?;
        let event = self.audit(Action::PasswordReset, Some(client)).by(user_id).about(user_id);
        self.0
            .db
            .write(async move |c| {
                users::store::set_password(user_id, &hash).exec(&c).await?;
                if store::take_reset(&token_hash, user_id, now).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                session::store::end_sessions_of(user_id).exec(&c).await?;
                // The mailbox was shown to be theirs, as by the link to unlock.
                lockout::unlock_user(&c, user_id, now).await?;
                close_ways_around(&c, user_id).await?;
                notice.store(&c).await?;
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        self.0.jobs.wake();
        Ok(())
    }
}

/// After a new password or address: links to a new password are closed, and changes of the address that wait.
pub(in crate::auth) async fn close_ways_around(conn: &Conn, user_id: Uuid) -> Result<(), db::Error> {
    store::remove_resets_of(user_id).exec(conn).await?;
    email_change::store::remove_changes_of(user_id).exec(conn).await?;
    Ok(())
}
