//! What a user is called and wants: the profile.

use uuid::Uuid;

use super::{
    User,
    store::{self, SignIn, UserRow},
};
use crate::{
    auth::{Auth, AuthError, Email},
    platform::{
        json::Patch,
        problem::{Faults, Invalid},
        seal::{DataKey, Place},
        valid::single_line,
    },
};

/// The longest display name, in characters.
const MAX_DISPLAY_NAME: usize = 64;

/// A change of a profile.
#[derive(Clone, Debug, Default)]
pub struct ProfileChange {
    /// How the user wants to be called.
    pub display_name: Patch<String>,
    /// A BCP 47 tag.
    pub locale: Patch<String>,
    /// An IANA name.
    pub time_zone: Patch<String>,
}

impl Auth {
    /// A user, as the user sees it.
    pub async fn user(&self, id: Uuid) -> Result<User, AuthError> {
        let row = self.0.db.read(async |c| store::find_user(id).opt(&c).await).await?;
        let row = row.ok_or(AuthError::Unauthenticated)?;
        let key = self.0.keyring.user(id).await?;
        open_user(row, &key)
    }

    /// How a user signs in, with the address read.
    pub(in crate::auth) async fn sign_in_of(&self, id: Uuid) -> Result<(Email, SignIn), AuthError> {
        let row = self.0.db.read(async |c| store::find_sign_in(id).opt(&c).await).await?;
        let row = row.ok_or(AuthError::Unauthenticated)?;
        let email = Email::parse(&row.email).map_err(|_| AuthError::Stored("app_user.email"))?;
        Ok((email, row))
    }

    /// Changes what a user may change of themselves.
    pub async fn change_profile(&self, id: Uuid, change: ProfileChange) -> Result<User, AuthError> {
        let mut faults = Faults::new();
        let name = faults.take("/display_name", parse(change.display_name, display_name));
        let locale = faults.take("/locale", parse(change.locale, locale));
        let zone = faults.take("/time_zone", parse(change.time_zone, time_zone));
        let (Some((set_name, name)), Some((set_locale, locale)), Some((set_zone, zone))) =
            (name, locale, zone)
        else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        let key = self.0.keyring.user(id).await?;
        let name = name.map(|name| key.seal(display_name_place(&id), name.as_bytes(), &*self.0.random));
        self.0
            .db
            .write(async move |c| {
                let (name, locale, zone) = (name.as_ref(), locale.as_deref(), zone.as_deref());
                store::update_profile(id, set_name, name, set_locale, locale, set_zone, zone).exec(&c).await
            })
            .await?;
        self.user(id).await
    }
}

pub(in crate::auth) fn open_user(row: UserRow, key: &DataKey) -> Result<User, AuthError> {
    let open = |sealed| key.open_text(display_name_place(&row.id), sealed);
    Ok(User {
        display_name: row.display_name.as_ref().map(open).transpose()?,
        id: row.id,
        email: row.email,
        email_verified: row.email_verified,
        locale: row.locale,
        time_zone: row.time_zone,
        role: row.role,
        created_at: row.created_at,
        mfa_enabled: false,
        age_assurance: row.age_assurance,
    })
}

fn display_name_place(user: &Uuid) -> Place<'_> {
    Place::new("app_user.display_name", user.as_bytes())
}

/// Whether a field is to be set, and to what.
fn parse(
    change: Patch<String>,
    parse: fn(&str) -> Result<String, Invalid>,
) -> Result<(bool, Option<String>), Invalid> {
    match change {
        Patch::Leave => Ok((false, None)),
        Patch::Clear => Ok((true, None)),
        Patch::Set(text) => parse(&text).map(|text| (true, Some(text))),
    }
}

fn display_name(text: &str) -> Result<String, Invalid> {
    single_line(text, MAX_DISPLAY_NAME)
}

/// The shape of a language tag (RFC 5646); whether the language exists is not our business.
pub(in crate::auth) fn locale(text: &str) -> Result<String, Invalid> {
    let mut parts = text.split('-');
    let language = parts.next().unwrap_or_default();
    let sound = (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if sound && text.len() <= 35 {
        Ok(text.to_owned())
    } else {
        Err(Invalid::new("invalid_format", "A language tag looks like `en` or `en-GB`."))
    }
}

fn time_zone(text: &str) -> Result<String, Invalid> {
    match jiff::tz::TimeZone::get(text) {
        Ok(zone) if text.len() <= 64 => Ok(zone.iana_name().unwrap_or(text).to_owned()),
        _ => Err(Invalid::new("unknown_value", "A time zone looks like `Europe/London`.")),
    }
}
