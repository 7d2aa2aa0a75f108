//! A private database for each test, on the engine that this run is about.

use std::{path::PathBuf, sync::Arc};

use digitalmistress::platform::{
    db::{DatabaseSettings, Db, Limits, Migration},
    random::{Random, SystemRandom},
};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

/// A database that nobody else uses. SQLite files go with it; PostgreSQL databases go with the throw-away server.
pub struct TestDatabase {
    pub settings: DatabaseSettings,
    pub dir: tempfile::TempDir,
}

/// The administrator's address of the throw-away PostgreSQL server, when this run is about PostgreSQL.
pub fn postgres() -> Option<String> {
    std::env::var("DM_TEST_DATABASE").ok().filter(|url| url.starts_with("postgres:"))
}

impl TestDatabase {
    /// On the engine of this run.
    pub async fn new() -> TestDatabase {
        match postgres() {
            Some(url) => Self::on_postgres(&url).await,
            None => Self::on_sqlite(),
        }
    }

    pub fn on_sqlite() -> TestDatabase {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.sqlite");
        TestDatabase { settings: settings(format!("sqlite:{}", path.display())), dir }
    }

    async fn on_postgres(url: &str) -> TestDatabase {
        let name = format!("test_{}", (&SystemRandom as &dyn Random).uuid(Timestamp::now()).simple());
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
        TestDatabase { settings: settings(url), dir: tempfile::tempdir().unwrap() }
    }

    /// Somebody else's connection to it, on PostgreSQL.
    pub async fn client(&self) -> tokio_postgres::Client {
        let url = self.settings.url.expose_secret();
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub fn is_sqlite(&self) -> bool {
        self.settings.sqlite_path().is_some()
    }

    pub fn path(&self) -> PathBuf {
        self.settings.sqlite_path().unwrap()
    }

    /// Opens it with the given schema.
    pub async fn with(&self, migrations: &[Migration]) -> Db {
        Db::migrate(&self.settings, migrations, Timestamp::now()).await.unwrap();
        open(&self.settings)
    }
}

/// Opens a database that is up to date.
pub fn open(settings: &DatabaseSettings) -> Db {
    Db::open(settings, Arc::new(SystemRandom)).unwrap()
}

pub fn settings(url: String) -> DatabaseSettings {
    DatabaseSettings { url: url.into(), pool_size: 5, ca_file: None, limits: Limits::default() }
}
