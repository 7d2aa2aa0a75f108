//! A PostgreSQL host that vanishes: nothing is closed, and nothing is answered.

use std::time::Duration;

use digitalmistress::platform::db::{Error, Limits};
use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use tokio::{sync::Barrier, time::timeout};

use super::*;
use crate::support::proxy::Proxy;

queries! {
    fn connection() -> i64 = "SELECT CAST(pg_backend_pid() AS BIGINT)";
}

/// Long enough for a busy machine, far less than TCP would take.
const TEST_LIMIT: Duration = Duration::from_secs(30);

const LIMITS: Limits = Limits {
    wait: Duration::from_millis(500),
    connect: Duration::from_millis(500),
    trust: Duration::from_secs(60),
    idle_in_transaction: Duration::from_secs(5),
    lock: Duration::from_secs(8),
    statement: Duration::from_secs(10),
    answer: Duration::from_millis(500),
    retry: Duration::from_secs(5),
};

/// A database behind a network that can be cut, on PostgreSQL only. Its pool is full of open connections.
async fn behind_a_proxy(limits: Limits, pool_size: usize) -> Option<(TestDatabase, Db, Proxy)> {
    let test = TestDatabase::new().await;
    if test.is_sqlite() {
        return None; // There is no network.
    }
    let config: tokio_postgres::Config = test.settings.url.expose_secret().parse().unwrap();
    let port = config.get_ports()[0];
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await;
    let url = test
        .settings
        .url
        .expose_secret()
        .replace(&format!(":{port}/"), &format!(":{}/", proxy.address.port()));
    let settings = DatabaseSettings { url: url.into(), pool_size, limits, ..test.settings.clone() };
    let db = test.with(SCHEMA).await;
    db.write(async |c| add_account(1).exec(&c).await).await.unwrap();

    let db = open(&settings);
    let all_open = Barrier::new(pool_size);
    let opened = join_all((0..pool_size).map(|_| {
        db.read(async |c| {
            let id = connection().one(&c).await?;
            all_open.wait().await;
            Ok::<_, Error>(id)
        })
    }));
    assert!(opened.await.iter().all(Result::is_ok));
    Some((test, db, proxy))
}

/// Now a write, now a read.
async fn call(n: usize, db: Db) -> Result<i64, Error> {
    match n % 2 {
        0 => append(&db, "lost").await,
        _ => db.read(async |c| count_entries(1).one(&c).await).await,
    }
}

#[tokio::test]
async fn a_cut_network_costs_a_bounded_time_and_heals_without_a_restart() {
    let Some((_test, db, proxy)) = behind_a_proxy(LIMITS, 5).await else { return };
    proxy.cut();
    let calls = join_all((0..40).map(|n| call(n, db.clone())));
    for result in timeout(TEST_LIMIT, calls).await.expect("a call hangs") {
        assert!(result.as_ref().is_err_and(Error::is_temporary), "{result:?}");
    }
    let patient = db.clone();
    let patient = tokio::spawn(async move {
        patient
            .write_patiently(async |c| {
                let seq = next_seq(1).one(&c).await?;
                add_entry(1, seq, "patient").exec(&c).await
            })
            .await
    });
    assert!(append(&db, "lost").await.is_err(), "the network is still cut");

    proxy.mend();
    let stored = timeout(TEST_LIMIT, patient).await.expect("a patient write hangs").unwrap();
    assert_eq!(stored.map_err(|error: Error| error.to_string()), Ok(1));
    assert_eq!(entries(&db).await, 1);
    assert_healthy(&db).await;
}

#[tokio::test]
async fn a_connection_that_owes_an_answer_is_closed_at_once() {
    let Some((test, db, proxy)) = behind_a_proxy(LIMITS, 1).await else { return };
    let before = db.read(async |c| connection().one(&c).await).await.unwrap();
    let cut = &proxy;
    let read: Result<i64, Error> = db
        .read(async |c| {
            cut.cut();
            count_entries(1).one(&c).await
        })
        .await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    proxy.mend();
    // Closed without anybody asking for a connection again.
    let client = test.client().await;
    let is_there = "SELECT FROM pg_stat_activity WHERE CAST(pid AS BIGINT) = $1";
    timeout(TEST_LIMIT, async { while !client.query(is_there, &[&before]).await.unwrap().is_empty() {} })
        .await
        .expect("it was kept");
    let after = db.read(async |c| connection().one(&c).await).await.unwrap();
    assert_ne!(before, after, "a connection was used again whose answer was still on its way");

    let proxy = std::sync::Arc::new(proxy);
    let cut = proxy.clone();
    let write: Result<u64, Error> = db
        .write(async move |c| {
            let seq = next_seq(1).one(&c).await?;
            cut.cut();
            add_entry(1, seq, "lost").exec(&c).await
        })
        .await;
    assert!(matches!(write, Err(Error::Unavailable(_))), "{write:?}");
    proxy.mend();
    // The server learns that the connection is gone, and rolls back: the row is free again.
    assert_eq!(append(&db, "after").await.unwrap(), 1);
}

#[tokio::test]
async fn one_silent_connection_is_enough_to_distrust_those_that_were_idle() {
    let Some((_test, db, proxy)) = behind_a_proxy(LIMITS, 5).await else { return };
    proxy.lose_connections();
    let first: Result<i64, Error> = db.read(async |c| count_entries(1).one(&c).await).await;
    assert!(matches!(first, Err(Error::Unavailable(_))), "{first:?}");
    for _ in 0..5 {
        assert_eq!(entries(&db).await, 0);
    }
    assert_healthy(&db).await;
}

#[tokio::test]
async fn a_connection_that_was_unused_for_long_is_tried_before_it_is_trusted() {
    let limits = Limits { trust: Duration::ZERO, ..LIMITS };
    let Some((_test, db, proxy)) = behind_a_proxy(limits, 5).await else { return };
    proxy.lose_connections();
    assert_eq!(entries(&db).await, 0, "the caller need not notice");
    assert_healthy(&db).await;
}
