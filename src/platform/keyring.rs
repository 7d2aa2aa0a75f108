//! Where data keys live: wrapped in the database, open only in memory, and no longer than they are used.
//!
//! User keys are not cached. A user whose key was destroyed is unreadable from that moment, in every instance.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    clock::SharedClock,
    db::{Conn, Db, Error},
    random::SharedRandom,
    seal::{DataKey, DoesNotOpen, MasterKeys, Sealed, WrappedKey},
};
use crate::{queries, record};

queries! {
    fn add_key(owner: str, id: Uuid, master_key: str, wrapped: Sealed, created_at: jiff::Timestamp) =
        "INSERT INTO data_key (owner, id, master_key, wrapped, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (owner) DO NOTHING";

    fn find_key(owner: str) -> StoredKey =
        "SELECT owner, id, master_key, wrapped FROM data_key WHERE owner = $1";

    /// The next keys in the order of their owners.
    fn keys_after(owner: str, limit: i64) -> StoredKey =
        "SELECT owner, id, master_key, wrapped FROM data_key WHERE owner > $1 ORDER BY owner LIMIT $2";

    scan fn masters() -> String = "SELECT DISTINCT master_key FROM data_key";

    /// No row: it was wrapped anew or destroyed meanwhile.
    fn wrap_anew(owner: str, id: Uuid, old_master: str, master_key: str, wrapped: Sealed) =
        "UPDATE data_key SET master_key = $4, wrapped = $5 WHERE owner = $1 AND id = $2 AND master_key = $3";
}

record! {
    /// A wrapped key's row.
    pub struct StoredKey {
        owner: String,
        id: Uuid,
        master_key: String,
        wrapped: Sealed,
    }
}

/// The services that have a key of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// What jobs have to say.
    Jobs,
    /// Pending sign-ups.
    Signup,
    /// Addresses that are not, or no longer, a user's.
    Addresses,
    /// Private signing keys.
    Signing,
    /// Keyed hashes and cursors.
    Hashes,
    /// What passwords are hashed with beside their salt.
    Passwords,
    /// What companions are told to be.
    Personas,
}

impl Service {
    const ALL: [Service; 7] = [
        Service::Jobs,
        Service::Signup,
        Service::Addresses,
        Service::Signing,
        Service::Hashes,
        Service::Passwords,
        Service::Personas,
    ];

    const fn owner(self) -> &'static str {
        match self {
            Service::Jobs => "service/jobs",
            Service::Signup => "service/signup",
            Service::Addresses => "service/addresses",
            Service::Signing => "service/signing",
            Service::Hashes => "service/hashes",
            Service::Passwords => "service/passwords",
            Service::Personas => "service/personas",
        }
    }
}

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The master keys of the settings do not open it, or it was destroyed.
    #[error(transparent)]
    DoesNotOpen(#[from] DoesNotOpen),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Keys that are wrapped anew in one transaction.
const BATCH: i64 = 200;

/// What became of data keys when the master key changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Keys that were wrapped anew.
    pub changed: u64,
    /// Keys that had been before.
    pub kept: u64,
    /// Keys that no master key of the settings opens.
    pub lost: u64,
}

/// Hands out keys.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    db: Db,
    masters: MasterKeys,
    random: SharedRandom,
    clock: SharedClock,
    services: Vec<(Service, DataKey)>,
}

/// A user's new key, to be stored in the transaction that creates the user.
pub struct NewUserKey {
    /// The open key.
    pub key: DataKey,
    wrapped: WrappedKey,
}

impl NewUserKey {
    /// Stores the key.
    pub async fn store(&self, conn: &Conn, now: jiff::Timestamp) -> Result<(), Error> {
        let WrappedKey { owner, id, master_key, wrapped } = &self.wrapped;
        add_key(owner, *id, master_key, wrapped, now).exec(conn).await?;
        Ok(())
    }
}

impl Keyring {
    /// Opens the services' keys, making those that are missing.
    pub async fn open(
        db: Db,
        masters: MasterKeys,
        random: SharedRandom,
        clock: SharedClock,
    ) -> Result<Keyring, KeyError> {
        let now = clock.now();
        let fresh: Vec<WrappedKey> = Service::ALL
            .iter()
            .map(|service| {
                let key = DataKey::generate(service.owner().into(), random.uuid(now), &*random);
                masters.wrap(&key, &*random)
            })
            .collect();
        db.write(async move |c| {
            for key in &fresh {
                // An instance that started earlier made them; then its keys stand.
                add_key(&key.owner, key.id, &key.master_key, &key.wrapped, now).exec(&c).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;

        let mut services = Vec::new();
        for service in Service::ALL {
            let stored = db.read(async |c| find_key(service.owner()).one(&c).await).await?;
            services.push((service, masters.unwrap(&stored.into())?));
        }
        Ok(Keyring(Arc::new(Inner { db, masters, random, clock, services })))
    }

    /// A service's key.
    pub fn service(&self, wanted: Service) -> Result<&DataKey, DoesNotOpen> {
        let found = self.0.services.iter().find(|(service, _)| *service == wanted);
        found.map(|(_, key)| key).ok_or(DoesNotOpen("data_key.wrapped"))
    }

    /// A new key for a user who is about to be created.
    pub fn new_user_key(&self, user: Uuid) -> NewUserKey {
        let id = self.0.random.uuid(self.0.clock.now());
        let key = DataKey::generate(user_owner(user), id, &*self.0.random);
        let wrapped = self.0.masters.wrap(&key, &*self.0.random);
        NewUserKey { key, wrapped }
    }

    /// The names of master keys that data keys are wrapped under and the settings do not have.
    pub async fn missing_masters(&self) -> Result<Vec<String>, Error> {
        let used = self.0.db.read_slow(async |c| masters().all(&c).await).await?;
        Ok(used.into_iter().filter(|id| !self.0.masters.has(id)).collect())
    }

    /// Wraps every data key under the first master key, also beside running servers that know both: what the keys open stays as
    /// it is.
    pub async fn rewrap(&self) -> Result<Rewrapped, KeyError> {
        let (mut done, mut after) = (Rewrapped::default(), String::new());
        loop {
            let batch = self.0.db.read(async |c| keys_after(&after, BATCH).all(&c).await).await?;
            let Some(last) = batch.last() else { return Ok(done) };
            after.clone_from(&last.owner);
            let mut anew = Vec::new();
            for stored in batch.into_iter().map(WrappedKey::from) {
                match self.0.masters.unwrap(&stored) {
                    _ if self.0.masters.is_first(&stored.master_key) => {
                        done.kept = done.kept.saturating_add(1);
                    }
                    Ok(key) => anew.push((stored.master_key, self.0.masters.wrap(&key, &*self.0.random))),
                    Err(DoesNotOpen(_)) => done.lost = done.lost.saturating_add(1),
                }
            }
            let changed = self
                .0
                .db
                .write(async move |c| {
                    let mut changed: u64 = 0;
                    for (old, WrappedKey { owner, id, master_key, wrapped }) in &anew {
                        let rows = wrap_anew(owner, *id, old, master_key, wrapped).exec(&c).await?;
                        changed = changed.saturating_add(rows);
                    }
                    Ok::<_, Error>(changed)
                })
                .await?;
            done.changed = done.changed.saturating_add(changed);
        }
    }

    /// A user's key. A user without one has been erased.
    pub async fn user(&self, user: Uuid) -> Result<DataKey, KeyError> {
        let owner = user_owner(user);
        let stored = self.0.db.read(async |c| find_key(&owner).opt(&c).await).await?;
        let stored = stored.ok_or(DoesNotOpen("data_key.wrapped"))?;
        Ok(self.0.masters.unwrap(&stored.into())?)
    }
}

fn user_owner(user: Uuid) -> String {
    format!("user/{user}")
}

impl From<StoredKey> for WrappedKey {
    fn from(row: StoredKey) -> Self {
        WrappedKey { owner: row.owner, id: row.id, master_key: row.master_key, wrapped: row.wrapped }
    }
}
