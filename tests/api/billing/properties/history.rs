//! Histories: what people, banks and time do at a provider, in any order that makes sense there.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Dice, Tables};
use crate::{
    billing::shop::Shop,
    support::stripe::{AMOUNT, Delivery, Fault, SECRET, StripeFake},
};

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// So many hours pass.
    Wait(i64),
    /// Something happens to a customer's newest subscription, charge, refund or dispute.
    To(usize, Act),
}

#[derive(Clone, Copy, Debug)]
pub enum Act {
    Decline(bool),
    Retry,
    CancelInPortal,
    Return,
    End,
    BuyAgain,
    Refund(Option<i64>),
    FailRefund,
    Dispute(&'static str),
    Judge(&'static str),
    Become(&'static str),
}

/// What happens to money that was taken.
fn money() -> impl Strategy<Value = Act> {
    let dispute = prop::sample::select(vec!["needs_response", "warning_needs_response"]);
    let verdict = prop::sample::select(vec!["won", "lost", "warning_closed", "under_review"]);
    prop_oneof![
        2 => prop::option::weighted(0.2, Just(100)).prop_map(Act::Refund),
        2 => Just(Act::FailRefund),
        1 => dispute.prop_map(Act::Dispute),
        2 => verdict.prop_map(Act::Judge),
    ]
}

pub fn act() -> impl Strategy<Value = Act> {
    let status =
        prop::sample::select(vec!["active", "trialing", "past_due", "paused", "unpaid", "a_new_word"]);
    prop_oneof![
        2 => any::<bool>().prop_map(Act::Decline),
        2 => Just(Act::Retry),
        2 => Just(Act::CancelInPortal),
        1 => Just(Act::Return),
        1 => Just(Act::End),
        2 => Just(Act::BuyAgain),
        6 => money(),
        1 => status.prop_map(Act::Become),
    ]
}

/// Histories of so many customers in which no more than `hours` pass. Some are about money alone.
pub fn history(customers: usize, hours: i64) -> impl Strategy<Value = Vec<Happening>> {
    prop_oneof![2 => happenings(customers, act()), 1 => happenings(1, money())].prop_map(
        move |mut history| {
            let mut left = hours;
            history.retain(|happening| match happening {
                Happening::Wait(hours) if *hours > left => false,
                Happening::Wait(hours) => {
                    left -= hours;
                    true
                }
                Happening::To(..) => true,
            });
            history
        },
    )
}

fn happenings(customers: usize, act: impl Strategy<Value = Act>) -> impl Strategy<Value = Vec<Happening>> {
    let wait = prop::sample::select(vec![1, 20, 24, 200, 31 * 24]).prop_map(Happening::Wait);
    let to = (0..customers, act).prop_map(|(who, act)| Happening::To(who, act));
    prop::collection::vec(prop_oneof![1 => wait, 3 => to], 1..20)
}

fn newest(stripe: &StripeFake, kind: &str, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
    stripe.objects(kind).into_iter().find(|object| is_it(object))
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

/// Whether Stripe would still change a subscription.
fn lives(subscription: &Value) -> bool {
    matches!(subscription["status"].as_str(), Some("active" | "trialing" | "past_due"))
}

/// Does something to a customer, if it makes sense there.
pub fn happen(stripe: &StripeFake, customer: &str, act: Act) {
    let theirs = |object: &Value| object["customer"] == customer;
    let subscription = newest(stripe, "subscription", theirs);
    let charge = newest(stripe, "charge", theirs);
    let of_charge = |kind: &str, wanted: &dyn Fn(&Value) -> bool| {
        newest(stripe, kind, |object| {
            let charge = stripe.object("charge", object["charge"].as_str().unwrap());
            theirs(&charge) && wanted(object)
        })
    };
    match act {
        Act::Decline(declined) => stripe.decline(customer, declined),
        Act::BuyAgain => {
            stripe.add_subscription(customer, "price_pro");
        }
        Act::Retry | Act::CancelInPortal | Act::Return | Act::End | Act::Become(_) => {
            if let Some(subscription) = subscription.filter(|found| found["status"] != "canceled") {
                happen_to(stripe, &subscription, act);
            }
        }
        Act::Refund(amount) => {
            let Some(charge) = charge else { return };
            if charge["amount_refunded"].as_i64().unwrap() + amount.unwrap_or(1) <= AMOUNT {
                stripe.refund(id(&charge), amount);
            }
        }
        Act::FailRefund => {
            if let Some(refund) = of_charge("refund", &|refund| refund["status"] == "succeeded") {
                stripe.fail_refund(id(&refund));
            }
        }
        Act::Dispute(status) => {
            if let Some(charge) = charge.filter(|charge| charge["disputed"] == false) {
                stripe.dispute(id(&charge), status);
            }
        }
        Act::Judge(status) => {
            if let Some(dispute) = of_charge("dispute", &|_| true) {
                stripe.judge_dispute(id(&dispute), status);
            }
        }
    }
}

fn happen_to(stripe: &StripeFake, subscription: &Value, act: Act) {
    let updated = |fields| stripe.change(id(subscription), "customer.subscription.updated", &fields);
    match act {
        Act::Retry if subscription["status"] == "past_due" => stripe.retry_payment(id(subscription)),
        Act::CancelInPortal if lives(subscription) => stripe.cancel_in_portal(id(subscription)),
        Act::Return if lives(subscription) => updated(json!({"cancel_at": null, "canceled_at": null})),
        Act::End => stripe.end(id(subscription)),
        Act::Become(status) => updated(json!({"status": status})),
        _ => {}
    }
}

/// The customer that an event is about.
pub fn customer_of(stripe: &StripeFake, event: &Value) -> Option<String> {
    let object = &event["data"]["object"];
    let charge = object["charge"].as_str().map(|charge| stripe.object("charge", charge));
    let customer = charge.as_ref().map_or(&object["customer"], |charge| &charge["customer"]);
    customer.as_str().map(str::to_owned)
}

/// The first buyers' names.
pub const NAMES: [&str; 2] = ["ann", "bob"];

/// A shop with buyers; their customers.
pub async fn shop_with(buyers: usize) -> (Shop, Vec<String>) {
    let shop = Shop::open().await;
    let mut customers = Vec::new();
    for name in &NAMES[..buyers] {
        let (_, subscription) = shop.buyer(name, "plus").await;
        customers.push(shop.customer(&subscription));
    }
    (shop, customers)
}

impl Shop {
    /// Lets something happen; nobody is told.
    pub fn let_happen(&self, customers: &[String], happening: Happening) {
        match happening {
            Happening::Wait(hours) => self.pass(0, hours * 3600),
            Happening::To(who, act) => happen(&self.stripe, &customers[who], act),
        }
    }

    /// The whole history with every notice in its order, and everything asked for at once.
    pub async fn live_through(&self, customers: &[String], history: &[Happening]) {
        self.deliver().await;
        for happening in history {
            self.let_happen(customers, *happening);
            self.deliver().await;
        }
    }

    /// Delivers an event once more, or for the first time.
    pub async fn repeat(&self, event: &Value) {
        assert_eq!(self.post(&Delivery::signed(event, SECRET, self.stripe.now())).await, 200);
    }

    /// Delivers some of what waits in any order, some of it twice, and now and then something old.
    pub async fn deliver_some(&self, dice: &mut Dice) {
        let mut waiting = self.stripe.notices();
        dice.shuffle(&mut waiting);
        for notice in waiting {
            for _ in 0..[0, 1, 1, 2][dice.roll(4)] {
                assert_eq!(self.post(&notice).await, 200);
            }
        }
        let events = self.stripe.events();
        if !events.is_empty() && dice.roll(3) == 0 {
            self.repeat(&events[dice.roll(events.len())]).await;
        }
    }

    /// Asks for what is due, or not; and the provider may be down.
    pub async fn sync_perhaps(&self, dice: &mut Dice) {
        match dice.roll(4) {
            0 => return,
            1 => {
                let down = Fault::Answer(503, vec![("stripe-should-retry", "false")], Vec::new());
                self.stripe.fail(std::iter::repeat_n(down, dice.roll(3)));
            }
            _ => {}
        }
        self.sync().await;
        self.stripe.recover();
    }

    /// Delivers everything that still waits, in any order and twice, and asks for it.
    pub async fn deliver_rest(&self, dice: &mut Dice) {
        let mut waiting = [self.stripe.notices(), self.stripe.notices()].concat();
        dice.shuffle(&mut waiting);
        for notice in waiting {
            assert_eq!(self.post(&notice).await, 200);
        }
        self.sync().await;
    }

    pub async fn tables(&self) -> Tables {
        Tables::of(&self.t).await
    }

    /// What is the same in two shops that have had the same history.
    pub async fn outcome(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        self.tables().await.told()
    }
}
