//! Notices come in any order, twice, late, or not at all, and the provider is down now and then.

use proptest::prelude::*;

use super::{
    Dice, Tables,
    history::{Act, Happening, history, shop_with},
    try_with,
};
use crate::billing::shop::{DAY, Shop};

/// Longer than any pause between two questions that failed.
const AT_LAST: i64 = 2 * 3600;

/// Lives through a history in a disorder, and beside it in order: both end alike.
async fn assert_ends_alike(history: Vec<Happening>, seed: u64) {
    let (shop, customers) = shop_with(2).await;
    let (twin, _) = shop_with(2).await;
    twin.live_through(&customers, &history).await;
    let dice = &mut Dice(seed);
    for happening in history {
        shop.let_happen(&customers, happening);
        shop.deliver_some(dice).await;
        shop.sync_perhaps(dice).await;
    }
    for shop in [&shop, &twin] {
        shop.pass(0, AT_LAST);
    }
    shop.deliver_rest(dice).await;
    twin.deliver().await;
    assert_eq!(shop.outcome().await, twin.outcome().await);

    let before = shop.tables().await;
    assert!(before.inbox.iter().all(|notice| notice.status != "pending"), "{:?}", before.inbox);
    shop.sweep().await;
    let after = shop.tables().await;
    assert_eq!((after.told(), after.audited), (before.told(), before.audited), "a sweep finds nothing");
}

#[test]
fn any_order_repetition_and_delay_of_notices_ends_in_the_same_rows() {
    let cases = (history(2, 70 * 24), any::<u64>());
    try_with(12, &cases, async |(history, seed)| assert_ends_alike(history, seed).await);
}

/// Whoever hears of the failed refund and of the next one together sees a hold all the time.
#[tokio::test]
async fn a_refund_that_fails_and_is_made_anew_ends_in_the_same_rows_whatever_is_heard_of_on_the_way() {
    let acts = [Act::Refund(None), Act::FailRefund, Act::Refund(None)];
    let mut outcomes = Vec::new();
    for heard in 0..8 {
        let (shop, customers) = shop_with(1).await;
        for (place, act) in acts.into_iter().enumerate() {
            shop.let_happen(&customers, Happening::Wait(24));
            shop.let_happen(&customers, Happening::To(0, act));
            if heard >> place & 1 == 1 {
                shop.deliver().await;
            }
        }
        shop.deliver().await;
        outcomes.push(shop.outcome().await);
    }
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
}

#[test]
fn with_every_notice_lost_one_sweep_ends_in_the_same_rows_and_another_changes_nothing() {
    // Providers keep notices for thirty days.
    let cases = (0..20i64, history(2, 25 * 24));
    try_with(8, &cases, async |(days, history)| {
        let (shop, customers) = shop_with(2).await;
        let (twin, _) = shop_with(2).await;
        for shop in [&shop, &twin] {
            shop.pass(days, 180);
        }
        shop.sweep().await;
        twin.live_through(&customers, &[]).await;
        twin.pass(0, 300);
        twin.live_through(&customers, &history).await;
        for happening in history {
            shop.let_happen(&customers, happening);
        }
        shop.sweep().await;
        twin.pass(0, 300);
        twin.deliver().await;
        assert_eq!(shop.outcome().await, twin.outcome().await);

        let before = shop.tables().await;
        shop.sweep().await;
        let after = shop.tables().await;
        assert_eq!((after.told(), after.audited), (before.told(), before.audited));
    });
}

/// What must not go back between two looks.
fn assert_onward(before: &Tables, after: &Tables) {
    for was in &before.wishes {
        let is = after.wishes.iter().find(|is| is.subject == was.subject).expect("a wish stays");
        assert!(is.want_seq >= was.want_seq && is.done_seq >= was.done_seq, "{was:?} {is:?}");
    }
    for row in &before.subscriptions {
        let is = after.subscriptions.iter().find(|is| is.reference == row.reference);
        assert!(is.expect("a subscription stays").version >= row.version, "{row:?}");
    }
    for notice in before.inbox.iter().filter(|notice| notice.status == "done") {
        assert!(after.inbox.contains(notice), "{notice:?} is not done any more");
    }
    assert!(before.customers.iter().all(|customer| after.customers.contains(customer)));
    for wish in &after.wishes {
        assert!(wish.done_seq <= wish.want_seq, "{wish:?}");
        let theirs = after.inbox.iter().filter(|notice| notice.subject.as_ref() == Some(&wish.subject));
        for notice in theirs {
            assert!(notice.seq <= wish.want_seq, "{notice:?}");
            let is_open = matches!(notice.status.as_str(), "pending" | "dead");
            assert_eq!(is_open, notice.seq > wish.done_seq, "{notice:?} {wish:?}");
        }
    }
    for row in &after.subscriptions {
        let subject = format!("customer:{}", row.customer.as_ref().unwrap());
        let wish = after.wishes.iter().find(|wish| wish.subject == subject).unwrap();
        assert!(row.version <= wish.done_seq, "{row:?} {wish:?}");
    }
}

#[test]
fn wishes_and_versions_never_go_back_and_nothing_is_done_that_was_not_wished() {
    let cases = (history(2, 40 * 24), any::<u64>());
    try_with(12, &cases, async |(history, seed)| {
        let (shop, customers) = shop_with(2).await;
        let dice = &mut Dice(seed);
        let mut before = shop.tables().await;
        for happening in history {
            shop.let_happen(&customers, happening);
            for step in 0..3 {
                match step {
                    0 => shop.deliver_some(dice).await,
                    1 => shop.sync_perhaps(dice).await,
                    _ if dice.roll(4) == 0 => shop.sweep().await,
                    _ => {}
                }
                let after = shop.tables().await;
                assert_onward(&before, &after);
                before = after;
            }
        }
    });
}

#[derive(Clone, Copy, Debug)]
enum Nudge {
    Repeat(prop::sample::Index),
    Again(prop::sample::Index),
    Retry,
    Sweep,
    Sync,
    Wait(i64),
}

#[test]
fn no_redelivery_moves_the_end_of_grace() {
    let nudge = prop_oneof![
        3 => any::<prop::sample::Index>().prop_map(Nudge::Repeat),
        3 => any::<prop::sample::Index>().prop_map(Nudge::Again),
        2 => Just(Nudge::Retry),
        1 => Just(Nudge::Sweep),
        1 => Just(Nudge::Sync),
        3 => (1..40i64).prop_map(Nudge::Wait),
    ];
    try_with(10, &prop::collection::vec(nudge, 1..24), async |nudges| {
        let shop = Shop::open().await;
        let (ann, sub) = shop.buyer("ann", "plus").await;
        shop.deliver().await;
        shop.stripe.decline(&shop.customer(&sub), true);
        shop.pass(30, 1);
        shop.deliver().await;
        let item = shop.stripe.object("subscription", &sub)["items"]["data"][0].clone();
        let end = item["current_period_start"].as_i64().unwrap() + 7 * DAY;
        for (n, nudge) in nudges.into_iter().enumerate() {
            let events = shop.stripe.events();
            match nudge {
                Nudge::Repeat(index) => shop.repeat(index.get(&events)).await,
                Nudge::Again(index) => {
                    let mut event = index.get(&events).clone();
                    event["id"] = format!("evt_again_{n}").into();
                    event["created"] = shop.stripe.now().into();
                    shop.repeat(&event).await;
                }
                Nudge::Retry => shop.stripe.retry_payment(&sub),
                Nudge::Sweep => shop.sweep().await,
                Nudge::Sync => shop.sync().await,
                Nudge::Wait(hours) if shop.stripe.now() + (hours + 1) * 3600 < end + 20 * DAY => {
                    shop.pass(0, hours * 3600);
                }
                Nudge::Wait(_) => {}
            }
            shop.sync().await;
            let shown = shop.t.background.billing.subscription(ann.id.parse().unwrap()).await.unwrap();
            let until = shown.access_until.map(|until| until.as_second());
            let expected = (shop.t.now().as_second() < end).then_some(end);
            assert_eq!(until, expected, "{shown:?}");
        }
    });
}
