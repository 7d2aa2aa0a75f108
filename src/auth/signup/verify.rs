//! The end of a sign-up: the code came back.

use jiff::Timestamp;
use secrecy::SecretString;

use super::{
    TOKEN,
    store::{self, TriedSignup},
};
use crate::{
    auth::{
        AgeAssurance, Auth, AuthError, Consent, Device, Role, Tokens, User, audit::Action, code::CodeFor,
        consents, throttle::Throttle, users,
    },
    platform::{client::Client, seal::Place},
};

impl Auth {
    /// Ends a sign-up with the code from the mail. Only here does the user come to exist.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for a wrong or spent code, a decoy, and when another sign-up for the same address was
    /// faster. [`AuthError::AgeRestricted`] for the right code when somebody under 18 tried with the address since. Every
    /// call spends a try, whatever comes of it, but for [`AuthError::Throttled`], which comes before all else.
    pub async fn verify_signup(
        &self,
        token: &SecretString,
        code: &str,
        client: &Client,
    ) -> Result<Tokens, AuthError> {
        let _ = self.admit(Throttle::Code, client).await?;
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let tried = self.0.db.write(async move |c| store::spend_try(&token_hash, now).opt(&c).await).await?;
        let tried = tried.ok_or(AuthError::InvalidCode)?;
        let right = self.is_code(CodeFor::SignUp, tried.id, code, &tried.code_mac)?;
        if tried.decoy || !right {
            return Err(AuthError::InvalidCode);
        }
        self.create_signed_up_user(token_hash, tried, client, now).await
    }

    async fn create_signed_up_user(
        &self,
        token_hash: [u8; 32],
        tried: TriedSignup,
        client: &Client,
        now: Timestamp,
    ) -> Result<Tokens, AuthError> {
        let details = self.open_details(tried.id, &tried.details)?;
        let email = details.email()?;
        let user_id = self.0.random.uuid(now);
        let key = self.0.keyring.new_user_key(user_id);
        let place = Place::new("app_user.birth_date", user_id.as_bytes());
        let birth_date = key.key.seal(place, details.birth_date.to_string().as_bytes(), &*self.0.random);
        let user = User::signed_up(user_id, &email, details.locale.clone(), now);
        let (session, tokens) = self.begin_session(user, Device::at(client.address), client)?;
        let event = self.audit(Action::SignedUp, Some(client)).by(user_id).about(user_id);
        let event = event.in_session(tokens.session.id);
        self.0
            .db
            .write(async move |c| {
                // First of all, because the address is what two sign-ups share: whoever has it touches the rows of both. It
                // may also be held for a user who gave it up and can take it back.
                if users::store::claim_address(&tried.email_mac, user_id, now, now).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                let created = users::store::add_user(
                    user_id,
                    email.address(),
                    email.key(),
                    &details.password_hash,
                    Role::User,
                    details.locale.as_deref(),
                    Some(&birth_date),
                    AgeAssurance::Declared,
                    now,
                );
                if created.exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                // The one that deletes the row goes on; a second try with the same right code does not.
                if store::take_pending_signup(&token_hash).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                // Refused since the sign-up began. The code proves the mailbox, so only its owner learns of it.
                if store::find_age_refusal(&tried.email_mac, now).opt(&c).await?.is_some() {
                    return Err(AuthError::AgeRestricted);
                }
                key.store(&c, now).await?;
                for Consent { document, version } in &details.consents {
                    consents::store::add_consent(user_id, document, version, now).exec(&c).await?;
                }
                store::make_decoys(&tried.email_mac).exec(&c).await?;
                session.store(&c).await?;
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        Ok(tokens)
    }
}
