//! What a client gets when it signs in, and the keys that sign it.

mod access_token;
pub(crate) mod http;
mod keys;
mod rotation;
pub(crate) mod store;
mod verified;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use super::{Auth, SessionView, User};

pub use self::{
    access_token::{AccessTokens, Claims},
    keys::{Jwks, KeyState, SigningKeyError},
    rotation::{Rotation, SigningKey},
};

/// What a client gets when it signs in.
#[derive(Clone)]
pub struct Tokens {
    /// The access token.
    pub access_token: SecretString,
    /// How long that is valid.
    pub expires_in: Duration,
    /// The refresh token, to be exchanged for the next.
    pub refresh_token: SecretString,
    /// When the refresh token ends if it is not used: the earlier of the idle and the absolute end.
    pub refresh_expires_at: Timestamp,
    /// The same, from now on.
    pub refresh_expires_in: Duration,
    /// The session.
    pub session: SessionView,
    /// The user.
    pub user: User,
}

impl Auth {
    /// The public keys of access tokens.
    pub fn jwks(&self) -> Jwks {
        self.0.tokens.jwks(self.now())
    }
}
