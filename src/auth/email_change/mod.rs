//! A change of the address: the new one is proven before it counts, and the old one can take it back for 72 hours.
//! Why it is so: docs/adr/0017.

pub(crate) mod http;
pub(crate) mod store;
mod undo;

use jiff::Timestamp;
use uuid::Uuid;

use self::store::TriedChange;
use super::{
    Auth, AuthError, Caller, Email, User,
    audit::Action,
    code::{CODE_TRIES, CODE_TTL, CodeFor},
    letters, password,
    service::invalid_field,
    session, signup,
    throttle::Throttle,
    users,
};
use crate::platform::{
    client::Client,
    db,
    keyring::Service,
    mail::MAIL_JOB,
    seal::{Place, Sealed},
    time,
};

/// The column that holds a new address.
const COLUMN: &str = "email_change.email";

/// Whether a user can have an address. All three answer alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Free,
    /// It is somebody else's.
    Taken,
    /// Somebody else may take it back.
    Held,
}

impl Auth {
    /// Sends a code to a new address. Nothing is changed yet.
    ///
    /// An address that belongs to somebody, or may be taken back by somebody, is answered alike; it gets a mail that says so,
    /// and no code.
    ///
    /// # Errors
    ///
    /// [`AuthError::ReauthenticationRequired`] if the sign-in is too long ago.
    pub async fn change_email(&self, caller: Caller, email: &str, client: &Client) -> Result<(), AuthError> {
        self.require_fresh(caller)?;
        let email = Email::parse(email).map_err(|invalid| invalid_field("/email", invalid))?;
        let _ = self.admit(Throttle::Mail { to: &email }, client).await?;
        let now = self.now();
        let standing = self.standing_for(&email, caller.user_id, now).await?;
        let decoy = standing != Standing::Free;
        let id = self.0.random.uuid(now);
        let (code, code_mac) = self.new_code(CodeFor::EmailChange, id)?;
        let mail = match standing {
            Standing::Free => letters::email_code(email.address(), &code),
            Standing::Taken => letters::address_taken(email.address()),
            Standing::Held => letters::address_held(email.address()),
        };
        let mail = self.0.jobs.prepare(MAIL_JOB, &mail)?;
        let sealed = self.seal_address(Place::new(COLUMN, id.as_bytes()), &email)?;
        let event =
            self.audit(Action::EmailChangeRequested, Some(client)).by_caller(caller).about(caller.user_id);
        let Caller { user_id, session_id, .. } = caller;
        let until = time::after(now, CODE_TTL);
        self.0
            .db
            .write(async move |c| {
                session::hold(&c, caller, now).await?;
                store::store_change(session_id, id, user_id, decoy, &sealed, &code_mac, CODE_TRIES, until)
                    .exec(&c)
                    .await?;
                mail.store(&c).await?;
                event.store(&c).await?;
                Ok::<_, AuthError>(())
            })
            .await?;
        self.0.jobs.wake();
        Ok(())
    }

    /// Switches to the new address with the code that was sent there, and tells the old one how to take it back.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for a wrong or spent code, one of another session, a decoy, and an address that was taken
    /// meanwhile. Every call spends a try, whatever comes of it.
    pub async fn confirm_email(
        &self,
        caller: Caller,
        code: &str,
        client: &Client,
    ) -> Result<User, AuthError> {
        let _ = self.admit(Throttle::Code, client).await?;
        let now = self.now();
        let Caller { user_id, session_id, .. } = caller;
        let tried =
            self.0.db.write(async move |c| store::spend_try(session_id, user_id, now).opt(&c).await).await?;
        let tried = tried.ok_or(AuthError::InvalidCode)?;
        let right = self.is_code(CodeFor::EmailChange, tried.id, code, &tried.code_mac)?;
        if tried.decoy || !right {
            return Err(AuthError::InvalidCode);
        }
        self.switch_email(caller, tried, client).await
    }

    async fn switch_email(
        &self,
        caller: Caller,
        tried: TriedChange,
        client: &Client,
    ) -> Result<User, AuthError> {
        let now = self.now();
        let Caller { user_id, session_id, .. } = caller;
        let email = self.open_address(COLUMN, tried.id.as_bytes(), &tried.email)?;
        let email_mac = self.address_mac(&email)?;
        let user = self.user(user_id).await?;
        let old = Email::parse(&user.email).map_err(|_| AuthError::Stored("app_user.email"))?;
        let old_mac = self.address_mac(&old)?;
        let farewell = self.farewell(user_id, &old, &email, now).await?;
        let event = self.audit(Action::EmailChanged, Some(client)).by_caller(caller).about(user_id);
        let user = User { email: email.address().to_owned(), email_verified: true, ..user };
        self.0
            .db
            .write(async move |c| {
                // Addresses first, then the user's row: as a sign-up does. Who goes back to an address holds it already.
                let free = users::store::claim_address(&email_mac, user_id, now, now).exec(&c).await? > 0;
                users::store::claim_address(&old_mac, user_id, now, farewell.held_until(now))
                    .exec(&c)
                    .await?;
                let switched = users::store::change_email(user_id, old.key(), email.address(), email.key());
                if !free || switched.exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                session::hold(&c, caller, now).await?;
                if store::take_change(session_id, user_id, tried.id).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                farewell.store(&c, user_id).await?;
                password::close_ways_around(&c, user_id).await?;
                signup::store::make_decoys(&email_mac).exec(&c).await?;
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        self.0.jobs.wake();
        Ok(user)
    }

    /// Whether a user can have this address.
    async fn standing_for(
        &self,
        email: &Email,
        user_id: Uuid,
        now: Timestamp,
    ) -> Result<Standing, AuthError> {
        let email_mac = self.address_mac(email)?;
        let (owner, holder) = self
            .0
            .db
            .read(async |c| {
                let owner = users::store::find_owner(email.key()).opt(&c).await?;
                let holder = users::store::find_hold(&email_mac, now).opt(&c).await?;
                Ok::<_, db::Error>((owner.map(|owner| owner.id), holder))
            })
            .await?;
        let is_anothers = |id: Option<Uuid>| id.is_some_and(|id| id != user_id);
        Ok(match (is_anothers(owner), is_anothers(holder)) {
            (true, _) => Standing::Taken,
            (false, true) => Standing::Held,
            (false, false) => Standing::Free,
        })
    }

    fn seal_address(&self, place: Place<'_>, email: &Email) -> Result<Sealed, AuthError> {
        let key = self.0.keyring.service(Service::Addresses)?;
        Ok(key.seal(place, email.address().as_bytes(), &*self.0.random))
    }

    fn open_address(&self, column: &'static str, row: &[u8], sealed: &Sealed) -> Result<Email, AuthError> {
        let text = self.0.keyring.service(Service::Addresses)?.open_text(Place::new(column, row), sealed)?;
        Email::parse(&text).map_err(|_| AuthError::Stored(column))
    }
}
