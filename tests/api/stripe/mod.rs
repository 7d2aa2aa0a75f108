//! Our side of Stripe against the fake, which Stripe's own SDKs judge in [`sdk`].

mod fetching;
mod holds;
mod notices;
mod requests;
mod sdk;

use digitalmistress::billing::{
    gateway::{Gateway as _, Order, Snapshot, SnapshotState, Subject},
    gateways::stripe::Stripe,
    row::Bill,
};
use jiff::Timestamp;
use uuid::{Uuid, uuid};

use super::support::stripe::StripeFake;

const NOW: i64 = 1_760_000_000;
const DAY: i64 = 86_400;
const USER: Uuid = uuid!("0199a5b0-0000-7000-8000-000000000001");
const NONCE: Uuid = uuid!("0199a5b0-0000-7000-8000-0000000000aa");

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn order(customer: &str, nonce: Uuid) -> Order {
    Order {
        user: USER,
        customer: customer.into(),
        price: "price_pro".into(),
        success_url: "https://app.example/paid?session={CHECKOUT_SESSION_ID}&a=b c".into(),
        cancel_url: "https://app.example/plans".into(),
        nonce,
    }
}

/// Somebody who bought a subscription: customer and subscription.
async fn buyer(fake: &StripeFake, gateway: &Stripe, number: u128) -> (String, String) {
    let nonce = |of: u128| Uuid::from_u128(of << 64 | number);
    let customer = gateway.create_customer(USER, nonce(1)).await.unwrap();
    let checkout = gateway.start_checkout(&order(&customer, nonce(2))).await.unwrap();
    let subscription = fake.pay(&checkout.reference.unwrap()).expect("the checkout is open");
    (customer, subscription)
}

async fn fetched(gateway: &Stripe, subject: Subject) -> Snapshot {
    gateway.fetch(&subject).await.unwrap()
}

/// A customer's subscriptions, as they come.
async fn bills(gateway: &Stripe, customer: &str) -> Vec<Bill> {
    match fetched(gateway, Subject::Customer(customer.into())).await.state {
        SnapshotState::Subscriptions(bills) => bills,
        other => panic!("{other:?}"),
    }
}

async fn bill(gateway: &Stripe, customer: &str) -> Bill {
    let [bill] = <[Bill; 1]>::try_from(bills(gateway, customer).await).unwrap();
    bill
}
