//! Checkouts that one person begins at once, whatever the provider does meanwhile: one of them can be paid.

use std::{collections::BTreeSet, pin::pin};

use digitalmistress::platform::db::Error;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{call, intents, poll_times, try_with};
use crate::{
    billing::{checkout, order, shop::Shop},
    support::stripe::{Fault, Late},
};

const PATH: &str = "/v1/subscription/checkout";

impl Shop {
    /// The pages that somebody was given and that can be paid.
    pub fn payable(&self, given: &BTreeSet<String>) -> Vec<String> {
        let sessions = self.stripe.objects("checkout.session");
        let open = sessions.iter().filter(|session| session["status"] == "open");
        let pages = open.map(|session| session["url"].as_str().unwrap().to_owned());
        pages.filter(|page| given.contains(page)).collect()
    }

    /// How many checkouts the program believes to be open.
    pub async fn intents(&self) -> i64 {
        let read = self.t.db().read_slow(async |c| intents().one(&c).await);
        let read: Result<i64, Error> = read.await;
        read.unwrap()
    }
}

/// The page that an answer leads to.
pub fn page(answer: &Value) -> String {
    answer["url"].as_str().unwrap().to_owned()
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Refuse,
    Drop,
    LoseAnswer,
    Hang,
}

#[test]
fn however_many_checkouts_are_begun_at_once_one_is_open_and_each_nonce_made_one() {
    let trouble =
        prop::sample::select(vec![Trouble::Refuse, Trouble::Drop, Trouble::LoseAnswer, Trouble::Hang]);
    let plan = prop_oneof![4 => Just("plus"), 1 => Just("pro")];
    let cases = (prop::collection::vec(plan, 1..7), prop::collection::vec(trouble, 0..3));
    try_with(12, &cases, async |(plans, troubles)| {
        let shop = Shop::open().await;
        let ann = shop.person("ann").await;
        let hang = Late::default();
        shop.stripe.fail(troubles.iter().map(|trouble| match trouble {
            Trouble::Refuse => Fault::Answer(500, vec![("stripe-should-retry", "false")], Vec::new()),
            Trouble::Drop => Fault::Drop,
            Trouble::LoseAnswer => Fault::LoseAnswer,
            // What was asked for is done, and the caller has left before it hears of it.
            Trouble::Hang => Fault::Late(hang.clone()),
        }));
        let hangs = troubles.iter().filter(|trouble| matches!(trouble, Trouble::Hang)).count();
        let mut left = hangs;
        let calls = plans.iter().map(|plan| {
            let (router, token, body) = (&shop.t, ann.access_token.clone(), order(plan));
            async move { call(router, &token, PATH, body).await }
        });
        let mut calls: futures_util::stream::FuturesUnordered<_> = calls.collect();
        let mut given = BTreeSet::new();
        loop {
            tokio::select! {
                next = futures_util::StreamExt::next(&mut calls) => match next {
                    Some((200, answer)) => { given.insert(page(&answer)); }
                    Some((code, answer)) => assert!(matches!(code, 409 | 429 | 503), "{code} {answer}"),
                    None => break,
                },
                // Everybody whose question hangs, and everybody else who is still there, leaves.
                () = hang.ready(), if left > 0 => {
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        drop(calls);
        shop.stripe.recover();
        shop.forget_questions().await;

        let plan = plans[0];
        let opened = checkout(&shop.t, &ann, plan).await;
        given.insert(page(&opened));
        assert_eq!(checkout(&shop.t, &ann, plan).await, opened);
        assert_eq!(shop.payable(&given), [page(&opened)]);
        assert_eq!((shop.intents().await, shop.stripe.objects("customer").len()), (1, 1));
        let requests = shop.stripe.take_requests();
        let begun = requests.iter().filter(|request| request.path == "/v1/checkout/sessions");
        let nonces: BTreeSet<_> = begun.map(|request| request.header("idempotency-key")).collect();
        let sessions = shop.stripe.objects("checkout.session");
        assert!(sessions.len() <= nonces.len(), "{sessions:?} of {nonces:?}");
        if plans.iter().all(|plan| *plan == plans[0]) {
            assert_eq!((sessions.len(), nonces.len()), (1, 1), "the same was asked for every time");
        }
    });
}

/// One checkout has been made at the provider and its page is about to be kept; another one looks at that moment, or between
/// any two of its steps.
#[tokio::test]
async fn of_two_checkouts_at_once_one_can_be_paid_wherever_they_meet() {
    let shop = Shop::open().await;
    let ann = shop.person("ann").await;
    let (mut ann, mut given) = (ann, BTreeSet::new());
    let mut other_page = order("plus");
    other_page["cancel_url"] = json!("http://localhost:3000/other");
    for other in [order("pro"), other_page] {
        for steps in 0.. {
            let answer = Late::default();
            if steps == 0 {
                checkout(&shop.t, &ann, "plus").await; // The customer is made.
            }
            ann = shop.pass_for("ann", 1).await; // The page has ended.
            shop.stripe.fail([Fault::Late(answer.clone())]);
            let mut first = pin!(call(&shop.t, &ann.access_token, PATH, order("plus")));
            tokio::select! {
                () = answer.ready() => {}
                (code, body) = &mut first => panic!("{code} {body}"),
            }
            let mut second = pin!(call(&shop.t, &ann.access_token, PATH, other.clone()));
            let early = poll_times(steps, &mut second).await;
            let is_early = early.is_some();
            answer.go();
            let (first, second) = match early {
                Some(early) => (first.await, early),
                // On PostgreSQL whoever stands still may hold a row that the other one waits for.
                None if !shop.t.database.is_sqlite() => tokio::join!(first, second),
                None => (first.await, second.await),
            };
            let mut pages = Vec::new();
            for (code, body) in [first, second] {
                match code {
                    200 => pages.push(page(&body)),
                    // On PostgreSQL, whoever stands still in the middle of a transaction for long loses it.
                    503 if !shop.t.database.is_sqlite() => {}
                    _ => assert_eq!(code, 409, "{body}"),
                }
            }
            given.extend(pages);
            let payable = shop.payable(&given);
            assert_eq!(payable.len(), 1, "after {steps} steps: {payable:?}");
            assert_eq!(shop.intents().await, 1);
            if is_early {
                break;
            }
        }
    }
}
