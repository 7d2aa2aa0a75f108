//! A caller that goes away: the transaction happens whole or not at all, and its connection is never reused half-way.

use std::time::Duration;

use digitalmistress::platform::db::Error;

use super::*;

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
