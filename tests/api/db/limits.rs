//! What takes too long on PostgreSQL: a row that somebody holds, a holder that has gone silent, a race that is never won.

use std::{sync::Arc, time::Duration};

use digitalmistress::platform::{
    db::{Error, Limits},
    problem::Problem,
};
use tokio::sync::{Notify, Semaphore};

use super::*;

queries! {
    fn lose() -> i64 = "SELECT lose()";
}

/// A database with its own limits, on PostgreSQL only.
async fn with(limits: Limits) -> Option<(TestDatabase, Db)> {
    let mut test = TestDatabase::new().await;
    if test.is_sqlite() {
        return None; // One writer at a time: nobody waits for a row.
    }
    test.settings.limits = limits;
    let db = test.with(SCHEMA).await;
    db.write(async |c| add_account(1).exec(&c).await).await.unwrap();
    Some((test, db))
}

#[tokio::test]
async fn a_row_held_for_too_long_is_busy_and_a_patient_write_outlasts_it() {
    let limits = Limits { lock: Duration::from_millis(30), ..Limits::default() };
    let Some((test, db)) = with(limits).await else { return };
    let other = test.client().await;
    other.batch_execute("BEGIN; UPDATE account SET used = used + 1 WHERE id = 1").await.unwrap();

    let refused = db.write(async |c| take(1, 10).opt(&c).await).await;
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");

    let runs = Arc::new(Semaphore::new(0));
    let counted = runs.clone();
    let patient = tokio::spawn(async move {
        db.write_patiently(async move |c| {
            counted.add_permits(1);
            take(1, 10).opt(&c).await
        })
        .await
    });
    // It has lost patience twice and is at it again.
    runs.acquire_many(3).await.unwrap().forget();
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(patient.await.unwrap().map_err(|error: Error| error.to_string()), Ok(Some(2)));
}

/// As when the machine of another instance is paused or gone in the middle of a transaction.
#[tokio::test]
async fn whoever_goes_silent_in_a_transaction_loses_its_rows_before_the_others_lose_patience() {
    let defaults = Limits::default();
    assert!(defaults.idle_in_transaction < defaults.lock && defaults.lock < defaults.statement);
    assert!(defaults.statement < defaults.answer);

    let limits = Limits { idle_in_transaction: Duration::from_millis(50), ..defaults };
    let Some((_test, db)) = with(limits).await else { return };
    let (holds, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let silent = {
        let (db, holds, go_on) = (db.clone(), holds.clone(), go_on.clone());
        tokio::spawn(async move {
            db.write(async move |c| {
                take(1, 10).opt(&c).await?;
                holds.notify_one();
                go_on.notified().await;
                take(1, 10).opt(&c).await
            })
            .await
        })
    };
    holds.notified().await;
    assert_eq!(
        db.write(async |c| take(1, 10).opt(&c).await).await.map_err(|e: Error| e.to_string()),
        Ok(Some(1))
    );
    go_on.notify_one();
    let ended = silent.await.unwrap();
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
    assert_healthy(&db).await;
}

#[tokio::test]
async fn a_transaction_that_always_loses_is_a_conflict_that_a_caller_may_try_again() {
    let limits = Limits { retry: Duration::from_millis(50), ..Limits::default() };
    let Some((test, db)) = with(limits).await else { return };
    test.client()
        .await
        .batch_execute(
            "CREATE FUNCTION lose() RETURNS BIGINT LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '40001'; END $$",
        )
        .await
        .unwrap();
    let runs = Arc::new(Semaphore::new(0));
    let counted = runs.clone();
    let lost: Result<i64, Error> = db
        .write(async move |c| {
            counted.add_permits(1);
            lose().one(&c).await
        })
        .await;
    let Err(error @ Error::Conflict) = lost else { panic!("{lost:?}") };
    assert!(error.is_temporary());
    assert!(runs.available_permits() > 2, "it was not tried again");
    let answer = Problem::storage(error).render("id");
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_healthy(&db).await;
}
