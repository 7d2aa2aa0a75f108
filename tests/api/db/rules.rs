//! What a closure may and may not do, and that breaking a rule hurts nobody else.

use std::{sync::Arc, time::Duration};

use digitalmistress::platform::db::{Conn, Error, Kind, MAX_ROWS, Record, Row};
use futures_util::future::join_all;
use tokio::sync::{Mutex, Notify};

use super::*;

/// A caller's own error type, as every slice has one.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("a rule of the caller's")]
    Mine,
    #[error(transparent)]
    Storage(#[from] Error),
}

#[tokio::test]
async fn only_an_error_rolls_back() {
    let (_test, db) = database().await;
    let refused: Result<(), Refusal> = db
        .write(async |c| {
            add_entry(1, 1, "gone").exec(&c).await?;
            Err(Refusal::Mine)
        })
        .await;
    assert!(matches!(refused, Err(Refusal::Mine)));
    assert_eq!(entries(&db).await, 0);

    let stored: Result<(), Refusal> = db
        .write(async |c| {
            add_entry(1, 1, "stays").exec(&c).await?;
            Ok(())
        })
        .await;
    stored.unwrap();
    assert_eq!(entries(&db).await, 1);
}

#[tokio::test]
async fn a_caught_error_cannot_become_a_false_acknowledgement() {
    let (_test, db) = database().await;
    append(&db, "first").await.unwrap();
    let claimed: Result<&str, Error> = db
        .write(async |c| {
            add_entry(1, 2, "before the failure").exec(&c).await?;
            let _ignored = add_entry(1, 1, "taken already").exec(&c).await;
            Ok("stored")
        })
        .await;
    assert!(matches!(claimed, Err(Error::Unique(_))), "{claimed:?}");
    assert_eq!(entries(&db).await, 1);
}

#[tokio::test]
async fn nothing_runs_after_a_failed_statement() {
    let (_test, db) = database().await;
    append(&db, "first").await.unwrap();
    let after: Result<(), Error> = db
        .write(async |c| {
            let _ignored = add_entry(1, 1, "taken already").exec(&c).await;
            let next = add_entry(1, 2, "after").exec(&c).await;
            assert!(matches!(next, Err(Error::Unique(_))), "the first failure is repeated: {next:?}");
            let read = count_entries(1).one(&c).await;
            assert!(read.is_err());
            Ok(())
        })
        .await;
    assert!(matches!(after, Err(Error::Unique(_))));
    assert_healthy(&db).await;
}

#[tokio::test]
async fn a_foreign_key_is_named_as_such() {
    let (_test, db) = database().await;
    let orphan: Result<_, Error> = db.write(async |c| add_entry(99, 1, "of nobody").exec(&c).await).await;
    assert!(matches!(orphan, Err(Error::ForeignKey)), "{orphan:?}");
}

#[tokio::test]
async fn a_kept_connection_is_dead() {
    let (_test, db) = database().await;
    let kept: Arc<Mutex<Option<Conn>>> = Arc::default();
    let keep = kept.clone();
    db.write(async move |c| {
        *keep.try_lock().unwrap() = Some(c.clone());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    let keep = kept.clone();
    let conn = kept.lock().await.take().unwrap();
    assert!(matches!(add_entry(1, 1, "late").exec(&conn).await, Err(Error::Misuse(_))));

    db.read(async move |c| {
        *keep.try_lock().unwrap() = Some(c.clone());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    let conn = kept.lock().await.take().unwrap();
    assert!(matches!(count_entries(1).one(&conn).await, Err(Error::Misuse(_))));
    // Not even inside another closure does it come back to life.
    let inside: Result<i64, Error> = db.read(async |_| count_entries(1).one(&conn).await).await;
    assert!(matches!(inside, Err(Error::Misuse(_))));
    assert_eq!(entries(&db).await, 0);
    assert_healthy(&db).await;
}

#[tokio::test]
async fn kept_connections_do_not_use_up_the_pool() {
    let (test, db) = database().await;
    let kept: Arc<Mutex<Vec<Conn>>> = Arc::default();
    for _ in 0..test.settings.pool_size * 2 {
        let keep = kept.clone();
        db.write(async move |c| {
            add_entry(1, 1 + i64::try_from(keep.try_lock().unwrap().len()).unwrap(), "kept").exec(&c).await?;
            keep.try_lock().unwrap().push(c.clone());
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
        let keep = kept.clone();
        let refused: Result<(), Refusal> = db
            .read(async move |c| {
                keep.try_lock().unwrap().push(c.clone());
                Err(Refusal::Mine)
            })
            .await;
        assert!(matches!(refused, Err(Refusal::Mine)), "{refused:?}");
        let keep = kept.clone();
        let panicked: Result<(), Error> = db
            .write(async move |c| {
                keep.try_lock().unwrap().push(c.clone());
                panic!("on purpose")
            })
            .await;
        assert!(matches!(panicked, Err(Error::Panicked)), "{panicked:?}");
    }
    assert_eq!(kept.lock().await.len(), test.settings.pool_size * 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawned_task_cannot_use_the_connection() {
    let (_test, db) = database().await;
    let (send, mut tasks) = tokio::sync::mpsc::unbounded_channel();
    db.write(async move |c| {
        let escaped = c.clone();
        let (ready, wait) = std::sync::mpsc::channel();
        send.send(tokio::spawn(async move {
            let result = add_entry(1, 7, "from elsewhere").exec(&escaped).await;
            let _ = ready.send(());
            result
        }))
        .unwrap();
        // The task runs while this closure still holds its transaction.
        wait.recv_timeout(Duration::from_secs(5)).unwrap();
        add_entry(1, 1, "mine").exec(&c).await
    })
    .await
    .unwrap();
    let from_elsewhere = tasks.recv().await.unwrap().await.unwrap();
    assert!(matches!(from_elsewhere, Err(Error::Misuse(_))), "{from_elsewhere:?}");
    assert_eq!(entries(&db).await, 1);
}

#[tokio::test]
async fn closures_do_not_nest() {
    let (_test, db) = database().await;
    let inner = db.clone();
    let nested: Result<i64, Error> =
        db.write(async move |_| inner.read(async |c| count_entries(1).one(&c).await).await).await;
    assert!(matches!(nested, Err(Error::Misuse(_))), "{nested:?}");
    let inner = db.clone();
    let nested: Result<_, Error> =
        db.read(async |_| inner.write(async |c| add_entry(1, 1, "x").exec(&c).await).await).await;
    assert!(matches!(nested, Err(Error::Misuse(_))), "{nested:?}");
    assert_healthy(&db).await;
}

/// Enforced where it hurts most: on SQLite, and so in every developer's test run.
#[tokio::test]
async fn awaiting_anything_else_is_an_error_on_sqlite() {
    let test = TestDatabase::on_sqlite();
    let db = test.with(SCHEMA).await;
    let slept: Result<(), Error> = db
        .write(async |_| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(())
        })
        .await;
    assert!(matches!(slept, Err(Error::Misuse(_))), "{slept:?}");
}

#[tokio::test]
async fn a_panic_fails_its_call_alone() {
    let (_test, db) = database().await;
    append(&db, "before").await.unwrap();
    for _ in 0..20 {
        let write: Result<(), Error> = db
            .write(async |c| {
                add_entry(1, 99, "rolled back").exec(&c).await?;
                panic!("on purpose")
            })
            .await;
        assert!(matches!(write, Err(Error::Panicked)), "{write:?}");
        let read: Result<(), Error> = db.read(async |_| panic!("on purpose")).await;
        assert!(matches!(read, Err(Error::Panicked)), "{read:?}");
        let slow: Result<(), Error> = db.read_slow(async |_| panic!("on purpose")).await;
        assert!(matches!(slow, Err(Error::Panicked)), "{slow:?}");
    }
    assert_eq!(entries(&db).await, 1);
    assert_healthy(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_job_in_a_group_costs_only_itself() {
    let (_test, db) = database().await;
    let calls = (0..300).map(|n| {
        let db = db.clone();
        tokio::spawn(async move {
            let result: Result<i64, Refusal> = db
                .write(async move |c| {
                    let seq = next_seq(1).one(&c).await?;
                    add_entry(1, seq, "in a group").exec(&c).await?;
                    match n % 3 {
                        0 => Ok(seq),
                        1 => Err(Refusal::Mine),
                        _ => panic!("on purpose"),
                    }
                })
                .await;
            (n, result)
        })
    });
    for call in join_all(calls).await {
        let (n, result) = call.unwrap();
        match n % 3 {
            0 => assert!(result.is_ok(), "{result:?}"),
            1 => assert!(matches!(result, Err(Refusal::Mine)), "{result:?}"),
            _ => assert!(matches!(result, Err(Refusal::Storage(Error::Panicked))), "{result:?}"),
        }
    }
    assert_eq!(entries(&db).await, 100);
    assert_healthy(&db).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_mapped_fails_its_call_alone() {
    let (_test, db) = database().await;
    append(&db, "not a number").await.unwrap();
    let mapped: Result<_, Error> = db.read(async |c| note_as_number(1).all(&c).await).await;
    assert!(matches!(mapped, Err(Error::Refused(_))), "{mapped:?}");
    let swallowed: Result<(), Error> = db
        .write(async |c| {
            let _ignored = note_as_number(1).opt(&c).await;
            add_entry(1, 50, "after").exec(&c).await?;
            Ok(())
        })
        .await;
    assert!(swallowed.is_err());
    assert_healthy(&db).await;
}

/// A record whose mapping has a bug.
struct Faulty;

impl Record for Faulty {
    const COLUMNS: &'static [(&'static str, Kind)] = &[("", Kind::Int)];
    fn from_row(_: &Row<'_>) -> digitalmistress::platform::db::Result<Faulty> {
        panic!("on purpose")
    }
}

mod faulty {
    use digitalmistress::queries;
    queries! {
        fn faulty(account: i64) -> super::Faulty = "SELECT seq FROM entry WHERE account = $1";
        fn add_faulty(account: i64) -> super::Faulty =
            "INSERT INTO entry (account, seq, note) VALUES ($1, 60, 'rolled back') RETURNING seq";
    }
}

#[tokio::test]
async fn a_panic_in_a_row_mapping_fails_its_call_alone() {
    let (_test, db) = database().await;
    append(&db, "before").await.unwrap();
    for _ in 0..20 {
        let read = db.read(async |c| faulty::faulty(1).all(&c).await).await;
        assert!(matches!(read, Err(Error::Panicked)));
        let slow = db.read_slow(async |c| faulty::faulty(1).opt(&c).await).await;
        assert!(matches!(slow, Err(Error::Panicked)));
        let write = db.write(async |c| faulty::add_faulty(1).one(&c).await).await;
        assert!(matches!(write, Err(Error::Panicked)));
    }
    assert_eq!(entries(&db).await, 1);
    assert_healthy(&db).await;
}

#[tokio::test]
async fn more_rows_than_a_closure_may_read_is_an_error_not_a_cut() {
    let (_test, db) = database().await;
    for start in [0, 300] {
        db.write(async move |c| {
            for seq in start..start + 300 {
                add_entry(1, seq, "one of many").exec(&c).await?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    }
    let many: Result<_, Error> = db.read(async |c| entry_seqs(1).all(&c).await).await;
    assert!(matches!(many, Err(Error::Misuse(_))), "{:?}", many.map(|rows| rows.len()));
    let slow = db.read_slow(async |c| entry_seqs(1).all(&c).await).await.unwrap();
    assert!(slow.len() > MAX_ROWS);
}

#[tokio::test]
async fn closing_waits_for_what_is_running() {
    let (_test, db) = database().await;
    let (written, closed) = tokio::join!(biased; append(&db, "begun before"), db.close());
    assert_eq!(written.unwrap(), 1);
    closed.unwrap();
}

#[tokio::test]
async fn closing_waits_for_a_closure_that_is_half_way_on_postgres() {
    let (test, db) = database().await;
    if test.is_sqlite() {
        return; // A closure cannot wait for anything.
    }
    let go_on = Arc::new(Notify::new());
    let gate = go_on.clone();
    let mut write = Box::pin(db.write(async move |c| {
        add_entry(1, 1, "begun before").exec(&c).await?;
        gate.notified().await;
        add_entry(1, 2, "begun before").exec(&c).await
    }));
    let mut close = Box::pin(db.close());
    assert!(futures_util::poll!(write.as_mut()).is_pending());
    assert!(futures_util::poll!(close.as_mut()).is_pending(), "it did not wait");
    assert!(matches!(append(&db, "too late").await, Err(Error::Closed)));
    go_on.notify_one();
    let (written, closed): (Result<u64, Error>, _) = tokio::join!(write, close);
    assert_eq!(written.unwrap(), 1);
    closed.unwrap();
    let client = test.client().await;
    assert_eq!(client.query("SELECT FROM entry", &[]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_closed_database_refuses_and_leaves_one_tidy_file() {
    let (test, db) = database().await;
    append(&db, "last").await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(append(&db, "too late").await, Err(Error::Closed)));
    if test.is_sqlite() {
        let log = test.path().with_extension("sqlite-wal");
        assert_eq!(std::fs::metadata(&log).map(|log| log.len()).unwrap_or(0), 0, "the log was folded in");
    }
}
