//! The promises of the data layer.

mod cancellation;
mod concurrency;
mod faults;
mod limits;
mod migrations;
mod network;
mod query_check;
mod rules;
mod tls;

use digitalmistress::{
    platform::db::{DatabaseSettings, Db, Migration},
    queries,
};

use crate::support::database::{TestDatabase, open};

/// A schema of its own, so that these tests say what they are about.
const SCHEMA: &[Migration] = &[Migration {
    version: 1,
    name: "0001_test.sql",
    sql: "CREATE TABLE account (\n  id BIGINT NOT NULL PRIMARY KEY,\n  used BIGINT NOT NULL,\n  last_seq BIGINT NOT NULL\n);
CREATE TABLE entry (\n  account BIGINT NOT NULL REFERENCES account (id),\n  seq BIGINT NOT NULL,\n  note TEXT NOT NULL,\n  PRIMARY KEY (account, seq)\n);
",
}];

queries! {
    fn add_account(id: i64) = "INSERT INTO account (id, used, last_seq) VALUES ($1, 0, 0)";

    fn take(id: i64, limit: i64) -> i64 =
        "UPDATE account SET used = used + 1 WHERE id = $1 AND used < $2 RETURNING used";

    fn next_seq(id: i64) -> i64 =
        "UPDATE account SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq";

    fn add_entry(account: i64, seq: i64, note: str) =
        "INSERT INTO entry (account, seq, note) VALUES ($1, $2, $3)";

    fn entry_seqs(account: i64) -> i64 = "SELECT seq FROM entry WHERE account = $1 ORDER BY seq";

    fn count_entries(account: i64) -> i64 = "SELECT COUNT(*) FROM entry WHERE account = $1";

    // Column 0 is text, the record wants a number: the row mapping fails.
    fn note_as_number(account: i64) -> i64 = "SELECT note FROM entry WHERE account = $1";
}

async fn database() -> (TestDatabase, Db) {
    let test = TestDatabase::new().await;
    let db = test.with(SCHEMA).await;
    db.write(async |c| add_account(1).exec(&c).await).await.unwrap();
    (test, db)
}

/// Stores one entry under the next number, as every write here does.
async fn append(db: &Db, note: &'static str) -> digitalmistress::platform::db::Result<i64> {
    db.write(async move |c| {
        let seq = next_seq(1).one(&c).await?;
        add_entry(1, seq, note).exec(&c).await?;
        Ok(seq)
    })
    .await
}

async fn entries(db: &Db) -> i64 {
    db.read(async |c| count_entries(1).one(&c).await).await.unwrap()
}

/// The database works: the next hundred writes succeed and leave no gap.
async fn assert_healthy(db: &Db) {
    let before = entries(db).await;
    for n in 1..=100 {
        let seq = append(db, "healthy").await.unwrap();
        assert_eq!(seq, before + n, "a number was lost or used twice");
    }
    assert_eq!(entries(db).await, before + 100);
}
