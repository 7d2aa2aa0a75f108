//! Who is old enough, and what an address can come to. Why it is so: docs/adr/0013.

use std::time::Duration;

use jiff::{Timestamp, civil::Date};

use super::store::{self, PendingSignup};
use crate::{
    auth::{ADULT_AGE, Auth, AuthError, Email, users},
    platform::{db, time},
};

/// How long somebody who was too young is remembered.
const REFUSAL_TTL: Duration = Duration::from_hours(30 * 24);

/// What a sign-up for an address can come to. All three answer alike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A user.
    New,
    /// Nothing: there is one already.
    Known,
    /// Nothing: somebody under 18 tried lately, or it is held for a user who may take it back.
    Refused,
}

impl Auth {
    /// What a sign-up for this address can come to.
    pub(super) async fn standing(
        &self,
        email_key: &str,
        email_mac: [u8; 32],
        now: Timestamp,
    ) -> Result<Standing, AuthError> {
        let (known, refused) = self
            .0
            .db
            .read(async |c| {
                let known = users::store::find_owner(email_key).opt(&c).await?;
                let refused = store::find_age_refusal(&email_mac, now).opt(&c).await?;
                let held = users::store::find_hold(&email_mac, now).opt(&c).await?;
                Ok::<_, db::Error>((known.is_some(), refused.is_some() || held.is_some()))
            })
            .await?;
        Ok(match (known, refused) {
            (true, _) => Standing::Known,
            (false, true) => Standing::Refused,
            (false, false) => Standing::New,
        })
    }

    /// What a pending sign-up can come to: what it was begun as, and why.
    pub(super) async fn standing_of(
        &self,
        pending: &PendingSignup,
        email: &Email,
        now: Timestamp,
    ) -> Result<Standing, AuthError> {
        let standing = self.standing(email.key(), self.address_mac(email)?, now).await?;
        // A decoy stays one; who is known or refused since then gets no code that cannot work.
        let forgotten = pending.decoy && standing == Standing::New;
        Ok(if forgotten { Standing::Refused } else { standing })
    }

    pub(super) async fn remember_refusal(
        &self,
        email_mac: [u8; 32],
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let until = time::after(now, REFUSAL_TTL);
        self.0.db.write(async move |c| store::remember_age_refusal(&email_mac, until).exec(&c).await).await?;
        Ok(())
    }
}

/// Whether somebody has not lived 18 years on `today`. Who was born on a 29th of February comes of age on the 1st of March.
pub(super) fn is_minor(birth: Date, today: Date) -> bool {
    let years = today.year().saturating_sub(birth.year());
    let birthday_to_come = (today.month(), today.day()) < (birth.month(), birth.day());
    years.saturating_sub(i16::from(birthday_to_come)) < ADULT_AGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn the_eighteenth_birthday_decides() {
        let born = date(2008, 11, 22);
        for (today, minor) in [
            (date(2026, 11, 21), true),
            (date(2026, 11, 22), false),
            (date(2026, 12, 1), false),
            (date(2027, 1, 1), false),
            (date(2008, 11, 22), true),
        ] {
            assert_eq!(is_minor(born, today), minor, "{today}");
        }
        let leap = date(2008, 2, 29);
        assert!(is_minor(leap, date(2026, 2, 28)));
        assert!(!is_minor(leap, date(2026, 3, 1)));
    }
}
