//! What a processor tells that cannot be asked: any order of it, and any number of times.

use proptest::prelude::*;

use super::{Dice, Hold, Owned, Tables, try_with};
use crate::{
    billing::checkout,
    support::{
        app::TestApp,
        http::all,
        postback::{Parameters, SETTINGS, Sale, tell},
    },
};

const DAY: i64 = 86_400;

/// Something that is told of a sale.
#[derive(Clone, Debug)]
struct Told {
    event: &'static str,
    transaction: usize,
    days_ago: i64,
    names_customer: bool,
    price: &'static str,
}

fn told() -> impl Strategy<Value = Told> {
    let event = prop::sample::select(vec![
        "initial",
        "rebill",
        "rebill",
        "cancel",
        "uncancel",
        "expiry",
        "credit",
        "credit",
        "chargeback",
        "chargeback",
        "something new",
    ]);
    let price = prop::sample::select(vec!["9.99", "19.99", "0.01"]);
    (event, 0..2usize, 0..5i64, prop::bool::weighted(0.3), price).prop_map(
        |(event, transaction, days_ago, names_customer, price)| Told {
            event,
            transaction,
            days_ago,
            names_customer,
            price,
        },
    )
}

/// As it is told of a sale that began with a checkout.
fn notice(told: &Told, sale: &Sale, now: i64) -> Parameters {
    let reference = sale.reference.clone().filter(|_| told.names_customer);
    let sale = Sale { id: sale.id.clone(), reference, price: told.price.into() };
    sale.says(told.event, &format!("{}-{}", sale.id, told.transaction), now - told.days_ago * DAY)
}

/// What is stored of a sale, whatever it is called.
async fn stored(t: &TestApp, sale: &str) -> (Vec<Owned>, Vec<Hold>) {
    let (subscriptions, holds) = Tables::of(t).await.told();
    let subscriptions = subscriptions.into_iter().filter(|row| row.reference == sale);
    let holds = holds.into_iter().filter(|hold| hold.subscription.as_deref() == Some(sale));
    (
        subscriptions.map(|row| Owned { reference: String::new(), customer: None, ..row }).collect(),
        holds
            .map(|hold| Hold { reference: hold.reference.replace(sale, ""), subscription: None, ..hold })
            .collect(),
    )
}

#[test]
fn any_order_and_repetition_of_a_processors_notices_ends_in_the_same_rows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (t, ann, bob) = runtime.block_on(async {
        let t = TestApp::with(SETTINGS).await;
        let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
        (t, ann, bob)
    });
    let (hers, his) = runtime.block_on(async {
        (Sale::of(&checkout(&t, &ann, "plus").await, ""), Sale::of(&checkout(&t, &bob, "plus").await, ""))
    });
    let count = std::sync::atomic::AtomicUsize::new(0);
    let cases = (prop::collection::vec(told(), 1..12), any::<u64>());
    try_with(48, &cases, async |(mut history, seed)| {
        let case = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        history[0].names_customer = true;
        let now = t.now().as_second();
        let hers = Sale { id: format!("hers{case}"), ..sale(&hers) };
        let his = Sale { id: format!("his{case}"), ..sale(&his) };
        for told in &history {
            tell(&t, &notice(told, &hers, now)).await.answers("OK");
        }
        let dice = &mut Dice(seed);
        let mut disorder: Vec<&Told> = history.iter().chain(&history).collect();
        disorder.truncate(history.len() + dice.roll(history.len() + 1));
        dice.shuffle(&mut disorder);
        let mut notices: Vec<Parameters> = disorder.iter().map(|told| notice(told, &his, now)).collect();
        // Some come together.
        while !notices.is_empty() {
            let rest = notices.split_off(notices.len().min(1 + dice.roll(4)));
            for answer in all(notices.iter().map(|notice| tell(&t, notice))).await {
                answer.answers("OK");
            }
            notices = rest;
        }
        assert_eq!(stored(&t, &his.id).await, stored(&t, &hers.id).await);
        let access = async |user: &str| {
            t.background.billing.subscription(user.parse().unwrap()).await.map(|shown| format!("{shown:?}"))
        };
        assert_eq!(access(&ann.id).await.unwrap(), access(&bob.id).await.unwrap());
        // Operators see the same of both, whoever was known when it was told.
        let holds = async |user: &str| {
            let shown = t.background.billing.insight(user.parse().unwrap()).await.unwrap();
            let holds = serde_json::to_value(shown.holds).unwrap();
            let id = |hold: &serde_json::Value| hold["subscription"].as_str().unwrap().to_owned();
            holds.as_array().unwrap().iter().map(id).filter(|id| id.ends_with(&format!("s{case}"))).count()
        };
        assert_eq!(holds(&ann.id).await, holds(&bob.id).await);
    });
}

fn sale(of: &Sale) -> Sale {
    Sale { id: of.id.clone(), reference: of.reference.clone(), price: of.price.clone() }
}
