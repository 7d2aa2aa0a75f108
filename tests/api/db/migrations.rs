//! The schema: applied once, in order, whole, never by an older program, and never without a backup.

use std::os::unix::fs::PermissionsExt as _;

use digitalmistress::platform::db::{KEY_BACKUP_LIFE, MIGRATIONS, MigrateError, remove_old_key_backups};
use jiff::{SignedDuration, Timestamp};

use super::*;

const SECOND: Migration = Migration {
    version: 2,
    name: "0002_more.sql",
    sql: "CREATE TABLE more (\n  id BIGINT NOT NULL PRIMARY KEY\n);\n",
};

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

#[tokio::test]
async fn steps_are_applied_once_and_in_order() {
    let test = TestDatabase::new().await;
    let first = Db::migrate(&test.settings, SCHEMA, now()).await.unwrap();
    assert_eq!(first.applied, ["0001_test.sql"]);
    assert!(first.backup.is_none(), "there was nothing to lose yet");
    let both = [SCHEMA[0], SECOND];
    assert!(matches!(Db::check_schema(&test.settings, &both).await, Err(MigrateError::Pending(1))));
    assert_eq!(Db::migrate(&test.settings, &both, now()).await.unwrap().applied, ["0002_more.sql"]);
    assert!(Db::migrate(&test.settings, &both, now()).await.unwrap().applied.is_empty());
    Db::check_schema(&test.settings, &both).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_and_an_edited_file_are_refused() {
    let test = TestDatabase::new().await;
    Db::migrate(&test.settings, &[SCHEMA[0], SECOND], now()).await.unwrap();
    for refused in [
        Db::check_schema(&test.settings, SCHEMA).await,
        Db::migrate(&test.settings, SCHEMA, now()).await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(MigrateError::Newer { found: 2, known: 1 })), "{refused:?}");
    }
    let edited = Migration { sql: "CREATE TABLE more (id BIGINT);", ..SECOND };
    let refused = Db::check_schema(&test.settings, &[SCHEMA[0], edited]).await;
    assert!(matches!(refused, Err(MigrateError::Changed("0002_more.sql"))), "{refused:?}");
}

#[tokio::test]
async fn a_failing_step_changes_nothing() {
    let test = TestDatabase::new().await;
    Db::migrate(&test.settings, SCHEMA, now()).await.unwrap();
    let broken = Migration {
        sql: "CREATE TABLE half (\n  id BIGINT NOT NULL PRIMARY KEY\n);\nINSERT INTO nowhere VALUES (1);\n",
        ..SECOND
    };
    let failed = Db::migrate(&test.settings, &[SCHEMA[0], broken], now()).await;
    assert!(matches!(failed, Err(MigrateError::Failed { name: "0002_more.sql", .. })), "{failed:?}");
    // The first program still works, and a mended step can be applied.
    Db::check_schema(&test.settings, SCHEMA).await.unwrap();
    let half = Migration { sql: "CREATE TABLE half (\n  id BIGINT NOT NULL PRIMARY KEY\n);\n", ..SECOND };
    Db::migrate(&test.settings, &[SCHEMA[0], half], now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_start_together_apply_each_step_once() {
    let test = TestDatabase::new().await;
    let runs = (0..6).map(|_| {
        let settings = test.settings.clone();
        tokio::spawn(async move { Db::migrate(&settings, MIGRATIONS, now()).await })
    });
    let mut applied = 0;
    for run in futures_util::future::join_all(runs).await {
        applied += run.unwrap().expect("a run failed").applied.len();
    }
    assert_eq!(applied, MIGRATIONS.len());
}

#[tokio::test]
async fn a_sqlite_file_is_backed_up_first_with_its_keys_apart() {
    let test = TestDatabase::on_sqlite();
    Db::migrate(&test.settings, MIGRATIONS, now()).await.unwrap();
    let canary = [0xC4u8; 48];
    let database = rusqlite::Connection::open(test.path()).unwrap();
    database
        .execute(
            "INSERT INTO data_key (owner, id, master_key, wrapped, created_at) VALUES ('user/1', ?1, 'k', ?2, 0)",
            ([7u8; 16], canary),
        )
        .unwrap();
    drop(database);

    let mut next = MIGRATIONS.to_vec();
    next.push(Migration { version: MIGRATIONS.len() as i64 + 1, ..SECOND });
    let backup = Db::migrate(&test.settings, &next, now()).await.unwrap().backup.unwrap();
    let keys = backup.with_extension("keys.sqlite");

    let holds_canary = |path: &std::path::Path| {
        std::fs::read(path).unwrap().windows(canary.len()).any(|window| window == canary)
    };
    assert!(!holds_canary(&backup), "a wrapped key stayed in the data's backup");
    assert!(holds_canary(&keys));
    for path in [&backup, &keys, &test.path()] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    let copy = rusqlite::Connection::open(&backup).unwrap();
    let version: i64 =
        copy.query_row("SELECT MAX(version) FROM schema_migration", [], |row| row.get(0)).unwrap();
    assert_eq!(version, MIGRATIONS.len() as i64, "the copy is from before the step");

    // The keys go after 35 days, the data stays.
    let just_before = now() + KEY_BACKUP_LIFE;
    assert_eq!(remove_old_key_backups(&test.path(), just_before).unwrap(), 0);
    assert_eq!(remove_old_key_backups(&test.path(), just_before + SignedDuration::from_secs(1)).unwrap(), 1);
    assert!(!keys.exists() && backup.exists());
}

#[test]
fn every_file_is_listed_and_numbered_in_order() {
    let mut files: Vec<_> = std::fs::read_dir("migrations")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, MIGRATIONS.iter().map(|migration| migration.name).collect::<Vec<_>>());
    for (migration, number) in MIGRATIONS.iter().zip(1..) {
        assert_eq!(migration.version, number);
        assert!(migration.name.starts_with(&format!("{number:04}_")));
    }
}
