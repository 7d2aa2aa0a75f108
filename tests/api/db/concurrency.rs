//! Many at once: limits are exact, numbers have no gaps, nobody is told "busy".

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use digitalmistress::platform::db::Error;
use futures_util::future::join_all;
use tokio::sync::Barrier;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_share_a_limit_of_five_hundred_exactly() {
    let (_test, db) = database().await;
    let start = Arc::new(Barrier::new(64));
    let tasks = (0..64).map(|_| {
        let (db, start) = (db.clone(), start.clone());
        tokio::spawn(async move {
            start.wait().await;
            let mut passed = 0;
            for _ in 0..16 {
                let stored: Result<bool, Error> = db
                    .write(async |c| {
                        if take(1, 500).opt(&c).await?.is_none() {
                            return Ok(false);
                        }
                        let seq = next_seq(1).one(&c).await?;
                        add_entry(1, seq, "one of five hundred").exec(&c).await?;
                        Ok(true)
                    })
                    .await;
                passed += i64::from(stored.expect("no error may leak"));
            }
            passed
        })
    });
    let passed: i64 = join_all(tasks).await.into_iter().map(|task| task.unwrap()).sum();

    assert_eq!(passed, 500);
    let seqs = db.read_slow(async |c| entry_seqs(1).all(&c).await).await.unwrap();
    assert_eq!(seqs, (1..=500).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_different_rows_do_not_disturb_each_other() {
    let (_test, db) = database().await;
    for id in 2..=17 {
        db.write(async move |c| add_account(id).exec(&c).await).await.unwrap();
    }
    let tasks = (2..=17).map(|id| {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                db.write(async move |c| {
                    let seq = next_seq(id).one(&c).await?;
                    add_entry(id, seq, "mine").exec(&c).await
                })
                .await
                .unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    for id in 2..=17 {
        let seqs = db.read(async |c| entry_seqs(id).all(&c).await).await.unwrap();
        assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    }
}

/// Where two transactions stand side by side: both have looked at the data, neither has changed any. On SQLite, where
/// one ends before the next begins, nobody waits.
struct SideBySide {
    both: Barrier,
    is_sqlite: bool,
    /// Runs of a closure that got here.
    runs: AtomicUsize,
}

impl SideBySide {
    fn on(test: &TestDatabase) -> Arc<SideBySide> {
        Arc::new(SideBySide { both: Barrier::new(2), is_sqlite: test.is_sqlite(), runs: AtomicUsize::new(0) })
    }

    async fn stand(&self) {
        // Who lost and runs again comes third.
        if self.runs.fetch_add(1, Ordering::SeqCst) < 2 && !self.is_sqlite {
            self.both.wait().await;
        }
    }

    /// One of the two was run again; on SQLite none needs to be.
    fn assert_one_ran_again(&self) {
        assert_eq!(self.runs.load(Ordering::SeqCst), if self.is_sqlite { 2 } else { 3 });
    }
}

#[tokio::test]
async fn of_two_that_change_one_guarded_row_only_one_wins() {
    let (test, db) = database().await;
    let meeting = SideBySide::on(&test);
    let winners = join_all([(); 2].map(|()| {
        let meeting = meeting.clone();
        db.write(async move |c| {
            let before = count_entries(1).one(&c).await?;
            meeting.stand().await;
            if take(1, 1).opt(&c).await?.is_none() {
                assert_eq!(before, 1, "who lost sees what the winner wrote");
                return Ok::<_, Error>(0);
            }
            add_entry(1, 1, "the only one").exec(&c).await
        })
    }));
    assert_eq!(winners.await.into_iter().map(Result::unwrap).sum::<u64>(), 1);
    meeting.assert_one_ran_again();
    assert_eq!(entries(&db).await, 1);
}

/// Rule: at most one entry over both accounts. Looks at the other account, then adds to its own; with a common row it
/// changes that one, too.
async fn add_unless_the_other_has_one(
    db: Db,
    meeting: Arc<SideBySide>,
    (mine, other): (i64, i64),
    common: Option<i64>,
) -> u64 {
    let added: Result<u64, Error> = db
        .write(async move |c| {
            let theirs = count_entries(other).one(&c).await?;
            meeting.stand().await;
            if let Some(common) = common {
                next_seq(common).one(&c).await?;
            }
            if theirs > 0 { Ok(0) } else { add_entry(mine, 1, "only one").exec(&c).await }
        })
        .await;
    added.unwrap()
}

async fn added_by_two(common: Option<i64>) -> (bool, Arc<SideBySide>, u64) {
    let (test, db) = database().await;
    for id in [2, 3] {
        db.write(async move |c| add_account(id).exec(&c).await).await.unwrap();
    }
    let meeting = SideBySide::on(&test);
    let both = [(1, 2), (2, 1)]
        .map(|accounts| add_unless_the_other_has_one(db.clone(), meeting.clone(), accounts, common));
    (test.is_sqlite(), meeting, join_all(both).await.into_iter().sum())
}

#[tokio::test]
async fn a_rule_over_several_rows_holds_where_all_change_a_common_row() {
    let (_, meeting, added) = added_by_two(Some(3)).await;
    assert_eq!(added, 1);
    meeting.assert_one_ran_again();
}

/// The limit of REPEATABLE READ, so that nobody believes otherwise: see docs/adr/0014. On SQLite writes happen one after
/// the other, so a test there would not notice a missing common row.
#[tokio::test]
async fn a_rule_over_several_rows_without_a_common_row_is_broken_on_postgres() {
    let (is_sqlite, _, added) = added_by_two(None).await;
    assert_eq!(added, if is_sqlite { 1 } else { 2 });
}
