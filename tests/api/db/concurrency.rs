//! Many at once: limits are exact, numbers have no gaps, nobody is told "busy".

use digitalmistress::platform::db::Error;
use futures_util::future::join_all;
use tokio::sync::Barrier;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_share_a_limit_of_five_hundred_exactly() {
    let (_test, db) = database().await;
    let start = std::sync::Arc::new(Barrier::new(64));
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

/// Two transactions that each read what the other writes: serializable means that one of them has to run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_is_impossible() {
    let (_test, db) = database().await;
    db.write(async |c| add_account(2).exec(&c).await).await.unwrap();
    for round in 1..=20 {
        // Rule: at most one entry per round over both accounts. Each checks the other, then adds its own.
        let tasks = [(1, 2), (2, 1)].map(|(mine, other)| {
            let db = db.clone();
            tokio::spawn(async move {
                db.write(async move |c| {
                    let theirs = entry_seqs(other).all(&c).await?;
                    if theirs.contains(&round) {
                        return Ok::<_, Error>(0);
                    }
                    add_entry(mine, round, "only one").exec(&c).await
                })
                .await
            })
        });
        let mut added = 0;
        for task in tasks {
            added += task.await.unwrap().unwrap();
        }
        assert_eq!(added, 1, "round {round}");
    }
}
