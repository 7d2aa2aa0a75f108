//! From one provider to another without a gap; and a day's messages, which many requests want at once.

use digitalmistress::billing::SubscriptionState;
use proptest::prelude::*;

use super::{strangers::shop_with_both, try_with};
use crate::{
    billing::{
        checkout,
        shop::{DAY, Shop},
    },
    support::{
        app::{Person, TestApp},
        http::all,
        postback::{SETTINGS, Sale, tell},
    },
};

/// Somebody buys at one of both providers: 30 days from now.
async fn buy(shop: &Shop, ann: &Person, provider: &str) -> String {
    let answer = checkout(&shop.t, ann, "plus").await;
    if provider == "stripe" {
        let subscription = shop.stripe.pay(&shop.session()).unwrap();
        shop.deliver().await;
        return subscription;
    }
    let sale = Sale::of(&answer, "s1");
    tell(&shop.t, &sale.says("initial", "t1", shop.t.now().as_second())).await.answers("OK");
    "s1".into()
}

async fn is_active(shop: &Shop, ann: &Person) -> bool {
    let shown = shop.t.background.billing.subscription(ann.id.parse().unwrap()).await.unwrap();
    shown.state == SubscriptionState::Active
}

/// Sells at another provider from now on.
async fn sell_at(shop: Shop, provider: &str) -> Shop {
    let Shop { t, stripe } = shop;
    Shop { t: t.restart_with(&[("DM__BILLING__CHECKOUT", provider)]).await, stripe }
}

#[test]
fn who_moves_to_another_provider_in_time_has_access_at_every_instant() {
    // How long before the end the new subscription begins, in seconds, and what comes of the old one afterwards.
    let overlap = prop_oneof![Just(2), Just(60), 1..20 * DAY];
    try_with(8, &(any::<bool>(), overlap, any::<bool>()), async |(from_stripe, overlap, tells_end)| {
        let (old, new) = if from_stripe { ("stripe", "pay") } else { ("pay", "stripe") };
        let shop = sell_at(shop_with_both().await, old).await;
        shop.t.clock.stop();
        let ann = shop.person("ann").await;
        let first = buy(&shop, &ann, old).await;
        let end = shop.t.now().as_second() + 30 * DAY;
        let said = Sale { id: first.clone(), reference: None, price: "9.99".into() };
        if from_stripe {
            shop.stripe.cancel_in_portal(&first);
            shop.deliver().await;
        } else {
            tell(&shop.t, &said.says("cancel", "t2", shop.t.now().as_second())).await.answers("OK");
        }
        // The clocks of both sides differ by what the test has taken so far, which is nothing.
        let until = |at: i64| at - shop.t.now().as_second();
        shop.pass(0, until(end - overlap));
        assert!(is_active(&shop, &ann).await);
        let shop = sell_at(shop, new).await;
        let ann = shop.t.log_in("ann@example.com").await;
        buy(&shop, &ann, new).await;
        let began = shop.t.now().as_second();
        let mut instants = vec![end - 1, end, end + 1, end + DAY, began + 29 * DAY, began + 30 * DAY - 1];
        instants.retain(|at| *at >= began && *at < began + 30 * DAY);
        instants.sort_unstable();
        for at in instants {
            shop.pass(0, at - shop.t.now().as_second());
            assert!(is_active(&shop, &ann).await, "{} s after the end", at - end);
            if at > end && tells_end {
                if from_stripe {
                    shop.deliver().await;
                } else {
                    tell(&shop.t, &said.says("expiry", "t3", end)).await.answers("OK");
                }
                shop.sweep_at_once().await;
                assert!(is_active(&shop, &ann).await, "{} s after the end, of which was told", at - end);
            }
        }
    });
}

impl Shop {
    /// A sweep after which no time passes.
    async fn sweep_at_once(&self) {
        self.t.background.billing.sweep_providers().await.unwrap();
        self.sync().await;
    }
}

#[test]
fn of_many_messages_at_once_exactly_as_many_are_admitted_as_are_left_of_the_day() {
    let cases = (any::<bool>(), 0..8usize, 0..3usize, 1..12usize);
    try_with(8, &cases, async |(is_plan, limit, before, at_once)| {
        let limit = limit.max(usize::from(is_plan));
        let number = limit.to_string();
        let plan = [("DM__BILLING__PLANS__PLUS__MESSAGES_PER_DAY", number.as_str())];
        let free = [("DM__CHAT__FREE_MESSAGES_PER_DAY", number.as_str())];
        let common =
            [("DM__CHAT__GENERATIONS_PER_USER", "30"), ("DM__BILLING__PLANS__PLUS__GENERATIONS", "30")];
        let t = TestApp::with(&[SETTINGS, &common, if is_plan { &plan } else { &free }].concat()).await;
        let beside = t.beside().await;
        let ann = t.sign_up("ann@example.com").await;
        if is_plan {
            let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
            tell(&t, &sale.says("initial", "t1", t.now().as_second())).await.answers("OK");
        }
        let before = before.min(limit);
        for n in 0..before {
            ann.say(&t, &format!("before{n}"), "m", "hello").await.ok();
        }
        let calls = (0..at_once).map(|n| {
            let instance = if n % 2 == 0 { &t } else { &beside };
            ann.say(instance, &format!("c{n}"), "m", "hello")
        });
        let answers = all(calls).await;
        let admitted = answers.iter().filter(|answer| answer.code == 200).count();
        assert!(answers.iter().all(|answer| matches!(answer.code, 200 | 402)), "{answers:?}");
        assert_eq!(admitted, at_once.min(limit - before));
        assert_eq!(ann.used(&t).await, i64::try_from(before + admitted).unwrap());
    });
}
