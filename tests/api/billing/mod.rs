//! Subscriptions, as subscribers, operators and providers see them.

mod access;
mod checkout;
mod grants;
mod postback;
mod properties;
pub mod shop;
mod story;
mod stripe;

use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp},
    requests::PAGE,
};

/// What a user is told about access.
async fn subscription(t: &TestApp, person: &Person) -> Value {
    person.get(t, "/v1/subscription").await.ok()
}

/// State, reason and plan: what most stories are about.
async fn standing(t: &TestApp, person: &Person) -> (String, String, Option<String>) {
    let shown = subscription(t, person).await;
    let text = |name: &str| shown[name].as_str().map(str::to_owned);
    (text("state").unwrap(), text("reason").unwrap(), text("plan"))
}

fn is(state: &str, reason: &str, plan: Option<&str>) -> (String, String, Option<String>) {
    (state.into(), reason.into(), plan.map(str::to_owned))
}

fn order(plan: &str) -> Value {
    json!({"plan": plan, "success_url": PAGE, "cancel_url": "http://localhost:3000/plans"})
}

/// Begins a checkout.
async fn checkout(t: &TestApp, person: &Person, plan: &str) -> Value {
    person.post(t, "/v1/subscription/checkout", order(plan)).await.ok()
}
