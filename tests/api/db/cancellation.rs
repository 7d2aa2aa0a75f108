//! A caller that goes away: the transaction happens whole or not at all, and its connection is never reused half-way.

use std::time::Duration;

use digitalmistress::platform::db::Error;

use super::*;

queries! {
    fn connection() -> i64 = "SELECT CAST(pg_backend_pid() AS BIGINT)";

    fn wait_for_ever() -> bool = "SELECT pg_sleep(60) IS NULL";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_staggered_cancellations_leave_nothing_half_done() {
    let (_test, db) = database().await;
    for moment in 0..40u64 {
        let writer = db.clone();
        let call = tokio::spawn(async move {
            writer
                .write(async move |c| {
                    for _ in 0..20 {
                        let seq = next_seq(1).one(&c).await?;
                        add_entry(1, seq, "twenty or none").exec(&c).await?;
                    }
                    Ok::<_, Error>(())
                })
                .await
        });
        tokio::time::sleep(Duration::from_micros(moment * 150)).await;
        call.abort();
        let _ = call.await;
    }
    // Whoever comes next waits for, or finds ended, whatever was under way.
    append(&db, "after").await.unwrap();
    let count = entries(&db).await;
    assert_eq!((count - 1) % 20, 0, "{count} entries: a transaction was torn");
    assert_healthy(&db).await;
}

/// A query that is dropped inside a closure that goes on: its answer may still be on the wire.
#[tokio::test]
async fn an_abandoned_query_fails_the_transaction_on_postgres() {
    let (test, db) = database().await;
    if test.is_sqlite() {
        return; // A local query never waits, so it cannot be dropped half-way.
    }
    let torn: Result<(), Error> = db
        .write(async |c| {
            let query = add_entry(1, 1, "abandoned");
            tokio::select! {
                biased;
                _ = query.exec(&c) => {}
                () = std::future::ready(()) => {}
            }
            Ok(())
        })
        .await;
    assert!(matches!(torn, Err(Error::Misuse(_))), "{torn:?}");
    assert_eq!(entries(&db).await, 0);
    assert_healthy(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_staggered_cancellations_of_reads_mix_nobodys_answers() {
    let (_test, db) = database().await;
    for id in 2..=40 {
        db.write(async move |c| add_account(id).exec(&c).await).await.unwrap();
        db.write(async move |c| add_entry(id, id, "its own").exec(&c).await).await.unwrap();
    }
    for moment in 0..40u64 {
        let reader = db.clone();
        let call = tokio::spawn(async move {
            reader
                .read_slow(async |c| {
                    for id in 2..=40 {
                        assert_eq!(entry_seqs(id).all(&c).await?, [id]);
                    }
                    Ok::<_, Error>(())
                })
                .await
        });
        tokio::time::sleep(Duration::from_micros(moment * 150)).await;
        call.abort();
        let _ = call.await;
        // Whoever gets a connection that owed an answer gets somebody else's.
        for id in 2..=6 {
            let seqs = db.read(async |c| entry_seqs(id).all(&c).await).await.unwrap();
            assert_eq!(seqs, [id], "after {moment} moments");
        }
    }
    assert_healthy(&db).await;
}

/// Staggered moments may miss the one that matters; this one is between a question and its answer.
#[tokio::test]
async fn a_read_that_is_cancelled_between_question_and_answer_closes_its_connection() {
    let mut test = TestDatabase::new().await;
    if test.is_sqlite() {
        return; // There is no such moment.
    }
    test.settings.pool_size = 1;
    let db = test.with(SCHEMA).await;
    let first = db.read(async |c| connection().one(&c).await).await.unwrap();
    assert_eq!(db.read(async |c| connection().one(&c).await).await.unwrap(), first, "it is used again");

    let mut call = Box::pin(db.read(async |c| wait_for_ever().one(&c).await));
    let other = test.client().await;
    while other
        .query(
            "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
            &[],
        )
        .await
        .unwrap()
        .is_empty()
    {
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    drop(call);
    assert_ne!(db.read(async |c| connection().one(&c).await).await.unwrap(), first);
}
