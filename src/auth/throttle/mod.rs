//! Throttles: how often somebody may try a password or a code, sign up, or have mail sent.
//!
//! The buckets are in the database, so that neither a restart nor another instance makes them full. They are known by keyed
//! hashes: the table tells nothing about who was where. A throttle runs before anything is looked up or hashed, and alike
//! for accounts that exist and those that do not.

mod known_device;
pub(crate) mod store;

use std::time::Duration;

pub use self::known_device::KnownDevice;
use super::{Auth, AuthError, Email};
use crate::platform::{
    client::{Client, network_key},
    db::{self, Conn},
    keyring::Service,
    rate::Rate,
};

/// How often things may be tried.
#[derive(Clone, Copy, Debug)]
pub struct ThrottleSettings {
    /// Passwords of one account, from wherever they come.
    pub login_account: Rate,
    /// Passwords from one network address, whatever the account.
    pub login_address: Rate,
    /// Passwords of one account from one network address.
    pub login_pair: Rate,
    /// Sign-ups from one network address.
    pub signup_address: Rate,
    /// Mails to one recipient.
    pub mail_recipient: Rate,
    /// Mails that one network address has sent.
    pub mail_address: Rate,
    /// Codes and tokens from mails, from one network address.
    pub code_address: Rate,
}

/// What somebody is about to try.
#[derive(Clone, Copy)]
pub(in crate::auth) enum Throttle<'a> {
    /// A password, or whatever else shows who owns an account.
    Password {
        /// The account, by the key of its address ([`Email::key`]).
        account: &'a str,
        /// A device that has signed in to the account before. It has a bucket of its own in place of the account's, so
        /// that strangers cannot keep it out.
        device: Option<&'a KnownDevice>,
    },
    /// A sign-up. It sends a mail, too.
    SignUp {
        /// Where the mail goes.
        to: &'a Email,
    },
    /// A mail that anybody can have sent.
    Mail {
        /// Where the mail goes.
        to: &'a Email,
    },
    /// A mail with a way back in. It has a bucket of its own, so that strangers who have other mails sent to an address
    /// cannot keep its owner from it.
    Reset {
        /// Where the mail goes.
        to: &'a Email,
    },
    /// A code or token that came by mail.
    Code,
}

/// One bucket.
struct Bucket {
    name: &'static str,
    key: [u8; 32],
    rate: Rate,
    /// Whether success refunds what was taken.
    refunded: bool,
}

/// What was taken, and what success refunds of it.
#[must_use]
#[derive(Clone)]
pub(in crate::auth) struct Admission(Vec<([u8; 32], i64)>);

/// No token is left.
enum Refused {
    Empty,
    Storage(db::Error),
}

impl From<db::Error> for Refused {
    fn from(error: db::Error) -> Self {
        Refused::Storage(error)
    }
}

impl Admission {
    /// Refunds what the try took from the account's and the pair's bucket: only failures are counted there. The
    /// address's token stays taken, because a success costs a hash, too.
    pub(in crate::auth) async fn refund(&self, conn: &Conn) -> Result<(), db::Error> {
        for (key, interval) in &self.0 {
            store::refund(key, *interval).exec(conn).await?;
        }
        Ok(())
    }
}

impl Auth {
    /// Takes a token from every bucket that a try is limited by, or from none of them.
    ///
    /// # Errors
    ///
    /// [`AuthError::Throttled`] with the time after which all of them have one.
    pub(in crate::auth) async fn admit(
        &self,
        throttle: Throttle<'_>,
        client: &Client,
    ) -> Result<Admission, AuthError> {
        let buckets = self.buckets(throttle, client)?;
        // Only reads, so that a flood of tries that are refused writes nothing and waits for nobody.
        self.check(&buckets).await?;
        let now = self.now();
        let wanted: Vec<_> = buckets.iter().map(|bucket| (bucket.key, bucket.rate.take(now))).collect();
        let taken = self
            .0
            .db
            .write(async move |c| {
                for (key, take) in &wanted {
                    let query = store::take(key, take.now, take.interval, take.first, take.latest);
                    if query.opt(&c).await?.is_none() {
                        return Err(Refused::Empty);
                    }
                }
                Ok(())
            })
            .await;
        match taken {
            Ok(()) => Ok(Admission(
                buckets
                    .iter()
                    .filter(|bucket| bucket.refunded)
                    .map(|bucket| (bucket.key, bucket.rate.take(now).interval))
                    .collect(),
            )),
            Err(Refused::Storage(error)) => Err(error.into()),
            Err(Refused::Empty) => {
                // Somebody else was faster. What they left says how long to wait.
                self.check(&buckets).await?;
                Err(AuthError::Throttled { wait: Duration::from_secs(1) })
            }
        }
    }

    /// Refunds a try that came to nothing, but not because of what was tried.
    pub(in crate::auth) async fn refund(&self, admission: Admission) -> Result<(), AuthError> {
        Ok(self.0.db.write(async move |c| admission.refund(&c).await).await?)
    }

    /// Says how long to wait, if a bucket is empty.
    async fn check(&self, buckets: &[Bucket]) -> Result<(), AuthError> {
        let now = self.now();
        let full_at = self
            .0
            .db
            .read(async |c| {
                let mut found = Vec::new();
                for bucket in buckets {
                    found.push(store::find_bucket(&bucket.key).opt(&c).await?);
                }
                Ok::<_, db::Error>(found)
            })
            .await?;
        let waits = buckets.iter().zip(full_at).map(|(bucket, full_at)| {
            let wait = full_at.map_or(Duration::ZERO, |full_at| bucket.rate.take(now).wait(full_at));
            (bucket.name, wait)
        });
        match waits.max_by_key(|(_, wait)| *wait) {
            Some((name, wait)) if !wait.is_zero() => {
                metrics::counter!("throttled_total", "limit" => name).increment(1);
                Err(AuthError::Throttled { wait })
            }
            _ => Ok(()),
        }
    }

    /// The buckets of a try, always in the same order of keys: two that take several cannot wait for each other.
    fn buckets(&self, throttle: Throttle<'_>, client: &Client) -> Result<Vec<Bucket>, AuthError> {
        let rates = &self.0.settings.throttle;
        let address = network_key(client.address);
        let address = address.as_slice();
        let mut buckets = match throttle {
            Throttle::Password { account, device } => {
                let by_account = match device {
                    Some(device) => self.bucket("login_device", rates.login_account, &[device.id()]),
                    None => self.bucket("login_account", rates.login_account, &[account.as_bytes()]),
                };
                let by_pair = self.bucket("login_pair", rates.login_pair, &[address, account.as_bytes()]);
                vec![
                    Bucket { refunded: true, ..by_account? },
                    Bucket { refunded: true, ..by_pair? },
                    self.bucket("login_address", rates.login_address, &[address])?,
                ]
            }
            Throttle::SignUp { to } => vec![
                self.bucket("signup_address", rates.signup_address, &[address])?,
                self.bucket("mail_recipient", rates.mail_recipient, &[to.key().as_bytes()])?,
                self.bucket("mail_address", rates.mail_address, &[address])?,
            ],
            Throttle::Mail { to } => vec![
                self.bucket("mail_recipient", rates.mail_recipient, &[to.key().as_bytes()])?,
                self.bucket("mail_address", rates.mail_address, &[address])?,
            ],
            Throttle::Reset { to } => vec![
                self.bucket("reset_recipient", rates.mail_recipient, &[to.key().as_bytes()])?,
                self.bucket("mail_address", rates.mail_address, &[address])?,
            ],
            Throttle::Code => vec![self.bucket("code_address", rates.code_address, &[address])?],
        };
        buckets.sort_unstable_by_key(|bucket| bucket.key);
        Ok(buckets)
    }

    /// A bucket by its name and what it is about. Nothing that a caller can add to a request is part of it.
    fn bucket(&self, name: &'static str, rate: Rate, about: &[&[u8]]) -> Result<Bucket, AuthError> {
        // The name ends with a byte that is in no name, and a network address has a length of its own.
        let data = [name.as_bytes(), &[0], &about.concat()].concat();
        let key = self.0.keyring.service(Service::Hashes)?.mac("throttle", &data);
        Ok(Bucket { name, key, rate, refunded: false })
    }
}
