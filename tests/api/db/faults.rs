//! The outside fails: a full disk, a transaction that the engine ended, a queue that is full, a lost server.

use std::time::Duration;

use digitalmistress::platform::db::Error;
use futures_util::future::join_all;

use super::*;

queries! {
    // Runs as a statement on both engines, and ends the transaction under the closure's feet.
    fn end_transaction() = "ROLLBACK";
}

mod full {
    use digitalmistress::queries;
    queries! {
        fn raise(code: str) -> i64 = "SELECT raise_code($1)";
    }
}

#[tokio::test]
async fn a_lost_transaction_fails_the_group_and_nothing_else() {
    let (_test, db) = database().await;
    let neighbour = append(&db, "committed before").await;
    assert!(neighbour.is_ok());
    let lost: Result<(), Error> = db
        .write(async |c| {
            add_entry(1, 50, "lost").exec(&c).await?;
            end_transaction().exec(&c).await?;
            add_entry(1, 51, "outside of any transaction").exec(&c).await?;
            Ok(())
        })
        .await;
    assert!(lost.is_err());
    let silent: Result<(), Error> = db
        .write(async |c| {
            add_entry(1, 52, "lost").exec(&c).await?;
            let _ignored = end_transaction().exec(&c).await;
            Ok(())
        })
        .await;
    assert!(silent.is_err(), "a commit of nothing was acknowledged");
    // On PostgreSQL the statement after the end runs alone; what counts is that nothing was acknowledged.
    let seqs = db.read(async |c| entry_seqs(1).all(&c).await).await.unwrap();
    assert!(!seqs.contains(&50) && !seqs.contains(&52), "{seqs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_unavailable_and_heals() {
    let test = TestDatabase::on_sqlite();
    let db = test.with(SCHEMA).await;
    db.write(async |c| add_account(1).exec(&c).await).await.unwrap();
    db.close().await.unwrap();

    // A file system of one megabyte would need root; a page limit makes SQLite take the same path (SQLITE_FULL).
    let pages: i64 = rusqlite::Connection::open(test.path())
        .unwrap()
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    let db = open(&test.settings);
    db.write(async move |c| limits::max_pages(pages + 20).opt(&c).await).await.unwrap();

    let note: &'static str = "x".repeat(3000).leak();
    let calls = join_all((0..200).map(|_| append(&db, note))).await;
    let stored = calls.iter().filter(|call| call.is_ok()).count();
    for call in calls.iter().filter(|call| call.is_err()) {
        assert!(matches!(call, Err(Error::Unavailable(_))), "{call:?}");
    }
    assert!(stored < 200, "the disk never filled");
    assert_eq!(entries(&db).await, i64::try_from(stored).unwrap(), "acknowledged and stored differ");

    db.write(async |c| limits::max_pages(1_000_000).opt(&c).await).await.unwrap();
    assert_healthy(&db).await;
}

/// SQLite's own words, run through the layer like any other statement.
mod limits {
    use digitalmistress::queries;

    pub struct Pragma;
    impl digitalmistress::platform::db::Record for Pragma {
        const COLUMNS: &'static [(&'static str, digitalmistress::platform::db::Kind)] = &[];
        fn from_row(
            _: &digitalmistress::platform::db::Row<'_>,
        ) -> digitalmistress::platform::db::Result<Self> {
            Ok(Pragma)
        }
    }

    pub fn max_pages(pages: i64) -> digitalmistress::platform::db::Query<'static, Pragma, 0> {
        digitalmistress::platform::db::Query::new(format!("PRAGMA max_page_count = {pages}").leak(), [])
    }

    queries! {}
}

/// What PostgreSQL says when its disk is full, it shuts down, or a transaction loses.
#[tokio::test]
async fn postgres_failures_are_sorted_by_what_a_caller_can_do() {
    let (test, db) = database().await;
    if test.is_sqlite() {
        return;
    }
    test.client()
        .await
        .batch_execute(
            "CREATE FUNCTION raise_code(code TEXT) RETURNS BIGINT LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = code; END $$",
        )
        .await
        .unwrap();
    for code in ["53100", "53300", "57P01", "58030", "25006", "25P03", "40003", "08006"] {
        let failed: Result<i64, Error> = db.read(async |c| full::raise(code).one(&c).await).await;
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{code}: {failed:?}");
    }
    for code in ["22012", "42P01", "P0001"] {
        let failed: Result<i64, Error> = db.read(async |c| full::raise(code).one(&c).await).await;
        assert!(matches!(failed, Err(Error::Refused(_))), "{code}: {failed:?}");
    }
    let failed: Result<i64, Error> = db.write(async |c| full::raise("55P03").one(&c).await).await;
    assert!(matches!(failed, Err(Error::Busy(_))), "{failed:?}");
    assert_healthy(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_busy_and_a_patient_write_waits() {
    let test = TestDatabase::on_sqlite();
    let db = test.with(SCHEMA).await;
    db.write(async |c| add_account(1).exec(&c).await).await.unwrap();

    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let blocker = db.clone();
    let (entered, inside) = std::sync::mpsc::channel();
    let blocked = tokio::spawn(async move {
        blocker
            .write(async move |_| {
                entered.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap(); // Holds the writer thread.
                Ok::<_, Error>(())
            })
            .await
    });
    inside.recv_timeout(Duration::from_secs(5)).unwrap();

    let mut waiting: Vec<_> = (0..1024)
        .map(|_| {
            let db = db.clone();
            Box::pin(async move { append(&db, "queued").await })
        })
        .collect();
    for call in &mut waiting {
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    assert!(matches!(append(&db, "one too many").await, Err(Error::Busy(_))));
    let mut patient = Box::pin(db.write_patiently(async |c| {
        let seq = next_seq(1).one(&c).await?;
        add_entry(1, seq, "patient").exec(&c).await
    }));
    assert!(futures_util::poll!(patient.as_mut()).is_pending());

    release.send(()).unwrap();
    blocked.await.unwrap().unwrap();
    assert_eq!(patient.await.map_err(|error: Error| error.to_string()), Ok(1));
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert_eq!(entries(&db).await, 1025);
}

#[tokio::test]
async fn an_unreachable_postgres_is_unavailable() {
    let settings = crate::support::database::settings("postgres://nobody@127.0.0.1:1/none".into());
    let db = open(&settings);
    let failed: Result<i64, Error> = db.read(async |c| count_entries(1).one(&c).await).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
}
