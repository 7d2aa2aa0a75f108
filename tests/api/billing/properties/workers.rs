//! Several workers, here and in another instance, whose questions take as long as they like.

use digitalmistress::{billing::Billing, platform::tasks::Tasks};
use proptest::prelude::*;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Dice, Tables, history::history, history::shop_with, try_with};
use crate::{
    billing::shop::Shop,
    support::stripe::{Fault, Late},
};

/// A worker's lease.
const LEASE: i64 = 60;

/// A worker that has asked for the subscriptions and is waiting for the answer.
struct Waiting {
    answer: Late,
    work: JoinHandle<()>,
}

/// Has a worker begin. `None`: it found nothing to do.
async fn begin(shop: &Shop, billing: &Billing) -> Option<Waiting> {
    let billing = billing.clone();
    let work = tokio::spawn(async move { billing.sync_due(&Tasks::default()).await.unwrap() });
    asks(shop, work, || {}).await
}

/// Waits until a worker asks, or has nothing more to ask.
async fn asks(shop: &Shop, mut work: JoinHandle<()>, go: impl FnOnce()) -> Option<Waiting> {
    // The customer's own answer comes at once; that about the subscriptions is held back.
    let (first, answer) = (Late::default(), Late::default());
    first.go();
    shop.stripe.fail([Fault::Late(first), Fault::Late(answer.clone())]);
    go();
    tokio::select! {
        () = answer.ready() => Some(Waiting { answer, work }),
        ended = &mut work => {
            ended.unwrap();
            shop.stripe.recover();
            None
        }
    }
}

impl Waiting {
    /// Lets the answer go. The worker stores it, and may ask for more.
    async fn answered(self, shop: &Shop) -> Option<Waiting> {
        let Waiting { answer, work } = self;
        asks(shop, work, || answer.go()).await
    }

    /// Lets this answer and every later one go.
    async fn end(self, shop: &Shop) {
        let mut next = Some(self);
        while let Some(waiting) = next {
            next = waiting.answered(shop).await;
        }
    }
}

/// Something new at the provider, which can be told from what was before and after it.
fn turn(shop: &Shop, sub: &str, number: i64) -> i64 {
    let end = shop.stripe.now() / 1000 * 1000 + 10_000_000 + number;
    shop.stripe.change(sub, "customer.subscription.updated", &json!({"cancel_at": end}));
    end
}

fn stored(tables: &Tables) -> i64 {
    tables.subscriptions[0].cancel_at.unwrap_or(0) / 1_000_000
}

#[tokio::test]
async fn a_slow_answer_does_not_overwrite_a_newer_one() {
    for elsewhere in [false, true] {
        let shop = Shop::open().await;
        let (_, sub) = shop.buyer("ann", "plus").await;
        shop.deliver().await;
        let beside = shop.t.beside().await;
        let one = &shop.t.background.billing;
        let two = if elsewhere { &beside.background.billing } else { one };
        turn(&shop, &sub, 1);
        shop.post(&shop.stripe.notices()[0]).await;
        let slow = begin(&shop, one).await.expect("there is something to do");

        // Within the lease nobody else asks for it.
        let newer = turn(&shop, &sub, 2);
        shop.post(&shop.stripe.notices()[0]).await;
        assert!(begin(&shop, two).await.is_none());
        shop.pass(0, LEASE + 1);
        two.sync_due(&Tasks::default()).await.unwrap();
        assert_eq!(stored(&shop.tables().await), newer);

        assert!(slow.answered(&shop).await.is_none(), "it asks again for what is stored");
        assert_eq!(stored(&shop.tables().await), newer);
        assert_eq!(shop.notices("pending").await, 0);
    }
}

#[tokio::test]
async fn what_came_while_a_worker_asked_is_asked_for_again() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    turn(&shop, &sub, 1);
    shop.post(&shop.stripe.notices()[0]).await;
    let slow = begin(&shop, &shop.t.background.billing).await.expect("there is something to do");
    let newer = turn(&shop, &sub, 2);
    shop.post(&shop.stripe.notices()[0]).await;
    let again = slow.answered(&shop).await.expect("it asks again");
    assert!(stored(&shop.tables().await) < newer);
    assert_eq!(shop.notices("pending").await, 1, "what came later is not done");
    again.end(&shop).await;
    assert_eq!((stored(&shop.tables().await), shop.notices("pending").await), (newer, 0));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Something changes at the provider.
    Change,
    /// Its notices come.
    Post,
    /// A worker begins, if it is not at work.
    Begin(usize),
    /// A worker has its answer.
    End(usize),
    /// The leases pass.
    Pass,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Change),
        3 => Just(Step::Post),
        4 => (0..3usize).prop_map(Step::Begin),
        3 => (0..3usize).prop_map(Step::End),
        2 => Just(Step::Pass),
    ];
    prop::collection::vec(step, 4..40)
}

#[test]
fn no_interleaving_of_workers_takes_what_is_stored_back_or_calls_done_what_is_not() {
    try_with(16, &steps(), async |steps| {
        let shop = Shop::open().await;
        let (_, sub) = shop.buyer("ann", "plus").await;
        shop.deliver().await;
        let beside = shop.t.beside().await;
        let (here, there) = (&shop.t.background.billing, &beside.background.billing);
        let workers = [here, there, here];
        let mut waiting: [Option<Waiting>; 3] = [None, None, None];
        let (mut newest, mut seen) = (0, 0);
        // What each notice must have led to, once it is done: all that had happened when it came.
        let mut due: Vec<(String, i64)> = Vec::new();
        for (number, step) in (1i64..).zip(steps) {
            match step {
                Step::Change => newest = turn(&shop, &sub, number),
                Step::Post => {
                    for notice in shop.stripe.notices() {
                        assert_eq!(shop.post(&notice).await, 200);
                        due.push((notice.id, newest));
                    }
                }
                Step::Begin(who) if waiting[who].is_none() => waiting[who] = begin(&shop, workers[who]).await,
                Step::End(who) => {
                    if let Some(worker) = waiting[who].take() {
                        waiting[who] = worker.answered(&shop).await;
                    }
                }
                Step::Pass => shop.pass(0, LEASE + 1),
                Step::Begin(_) => {}
            }
            let tables = shop.tables().await;
            let stored = stored(&tables);
            assert!(stored >= seen, "{seen} was replaced by {stored}, which is older");
            seen = stored;
            for notice in tables.inbox.iter().filter(|notice| notice.status == "done") {
                let due = due.iter().find(|(id, _)| *id == notice.event_key).map_or(0, |(_, due)| *due);
                assert!(stored >= due, "{notice:?} is done, and {stored} is older than {due}");
            }
        }
        for worker in waiting.into_iter().flatten() {
            worker.end(&shop).await;
        }
        shop.pass(0, LEASE + 1);
        shop.deliver().await;
        let tables = shop.tables().await;
        assert_eq!(stored(&tables), newest);
        assert!(tables.inbox.iter().all(|notice| notice.status != "pending"));
    });
}

#[test]
fn many_workers_at_once_do_everything_once() {
    try_with(6, &(history(2, 60 * 24), any::<u64>()), async |(history, seed)| {
        let (shop, customers) = shop_with(2).await;
        let (twin, _) = shop_with(2).await;
        let beside = shop.t.beside().await;
        shop.deliver().await;
        twin.deliver().await;
        let dice = &mut Dice(seed);
        for happening in history {
            for shop in [&shop, &twin] {
                shop.let_happen(&customers, happening);
            }
            if dice.roll(3) > 0 {
                let notices = shop.stripe.notices();
                let posts = notices.iter().chain(&notices).map(|notice| shop.post(notice));
                assert!(futures_util::future::join_all(posts).await.iter().all(|status| *status == 200));
                let tasks = Tasks::default();
                let workers =
                    [&shop.t, &beside, &shop.t, &beside].map(|t| t.background.billing.sync_due(&tasks));
                futures_util::future::try_join_all(workers).await.unwrap();
                twin.deliver().await;
                let (tables, told) = (shop.tables().await, twin.tables().await);
                assert_eq!(tables.told(), told.told());
                // Each change has one entry, whoever stored it.
                assert_eq!(tables.audited, told.audited);
            }
        }
    });
}
