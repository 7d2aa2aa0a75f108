//! Devices that have signed in before. A cookie says so; all that it buys is a bucket of its own.
//!
//! The cookie holds one entry for each of the last few accounts that signed in with the browser: a random number and a keyed
//! hash of that number and the account. Only we can make one, it fits one account, and it tells nobody which. Nothing is
//! stored about it but its bucket.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    auth::{Auth, AuthError, Email},
    platform::{keyring::Service, seal::equal},
};

/// Accounts that one browser is remembered for.
const MAX_ACCOUNTS: usize = 4;
const NONCE_LEN: usize = 16;
const ENTRY_LEN: usize = 32;

/// A device that has signed in to an account before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KnownDevice([u8; ENTRY_LEN]);

impl KnownDevice {
    /// What its bucket is known by.
    pub(super) fn id(&self) -> &[u8] {
        &self.0
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(self.0).for_each(|(into, from)| *into = from);
        nonce
    }
}

impl Auth {
    /// Finds out whether a cookie shows that its device has signed in to this account before.
    pub(in crate::auth) fn known_device(
        &self,
        cookie: Option<&str>,
        account: &Email,
    ) -> Result<Option<KnownDevice>, AuthError> {
        for entry in entries(cookie) {
            if equal(&self.device_entry(entry.nonce(), account)?.0, &entry.0) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The cookie of a device that has just signed in to this account. An older entry for it stays: a new one would be a
    /// new bucket.
    pub(in crate::auth) fn remember_device(
        &self,
        cookie: Option<&str>,
        account: &Email,
    ) -> Result<String, AuthError> {
        let entry = match self.known_device(cookie, account)? {
            Some(known) => known,
            None => self.device_entry(self.0.random.bytes(), account)?,
        };
        let others = entries(cookie).into_iter().filter(|other| *other != entry);
        let kept: Vec<u8> =
            std::iter::once(entry).chain(others).take(MAX_ACCOUNTS).flat_map(|e| e.0).collect();
        Ok(BASE64_URL_SAFE_NO_PAD.encode(kept))
    }

    fn device_entry(&self, nonce: [u8; NONCE_LEN], account: &Email) -> Result<KnownDevice, AuthError> {
        let data = [&nonce[..], account.key().as_bytes()].concat();
        let tag = self.0.keyring.service(Service::Hashes)?.mac("known device", &data);
        let mut entry = [0; ENTRY_LEN];
        entry.iter_mut().zip(nonce.into_iter().chain(tag)).for_each(|(into, from)| *into = from);
        Ok(KnownDevice(entry))
    }
}

/// The entries of a cookie; none if it is not one of ours.
fn entries(cookie: Option<&str>) -> Vec<KnownDevice> {
    const LONGEST: usize = (MAX_ACCOUNTS * ENTRY_LEN).div_ceil(3) * 4;
    let bytes = cookie
        .filter(|cookie| cookie.len() <= LONGEST)
        .and_then(|cookie| BASE64_URL_SAFE_NO_PAD.decode(cookie).ok())
        .unwrap_or_default();
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    let whole = rest.is_empty() && entries.len() <= MAX_ACCOUNTS;
    if whole { entries.iter().copied().map(KnownDevice).collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_cookie_of_ours_has_no_entries() {
        let encode = |len: usize| BASE64_URL_SAFE_NO_PAD.encode(vec![7; len]);
        for (cookie, expected) in [
            (None, 0),
            (Some(String::new()), 0),
            (Some("*".into()), 0),
            (Some(encode(31)), 0),
            (Some(encode(32)), 1),
            (Some(encode(33)), 0),
            (Some(encode(128)), 4),
            (Some(encode(160)), 0),
            (Some("A".repeat(100_000)), 0),
        ] {
            assert_eq!(entries(cookie.as_deref()).len(), expected, "{cookie:?}");
        }
    }
}
