//! What is read from Stripe's objects. Every field may be absent, null or of another kind, whatever else is there passes by, and
//! what an object refers to may stand in it as an id or as a whole.

use jiff::Timestamp;
use serde_json::Value;

use crate::billing::{
    gateway::GatewayError,
    row::{Bill, Mode, State},
};

/// The longest reference that is taken.
const MAX_REFERENCE: usize = 255;
/// The longest word for a state, or kind of notice, in characters.
const MAX_WORD: usize = 64;

/// Whether a text can be one of Stripe's references. It can then stand in a path.
pub fn is_reference(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.len() <= MAX_REFERENCE && text.bytes().all(is_allowed)
}

/// The reference of an object that stands there as a whole.
pub fn id(object: &Value) -> Option<&str> {
    reference(object.get("id")?)
}

/// A reference, or that of the object that stands in its place.
pub fn reference(value: &Value) -> Option<&str> {
    let text = if value.is_object() { value.get("id")?.as_str()? } else { value.as_str()? };
    is_reference(text).then_some(text)
}

/// The reference in a field.
pub fn refers_to<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    reference(object.get(field)?)
}

/// The time in a field.
pub fn time(object: &Value, field: &str) -> Option<Timestamp> {
    Timestamp::from_second(object.get(field)?.as_i64()?).ok()
}

/// Whether a field says yes.
pub fn is_true(object: &Value, field: &str) -> bool {
    object.get(field).and_then(Value::as_bool).unwrap_or_default()
}

/// The text in a field; none is empty.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The mode of an object, if it says so.
pub fn mode(object: &Value) -> Option<Mode> {
    let is_live = object.get("livemode")?.as_bool()?;
    Some(if is_live { Mode::Live } else { Mode::Test })
}

/// A word of theirs, shortened to what we store.
pub fn word(text: &str) -> String {
    text.chars().take(MAX_WORD).collect()
}

/// A subscription as we know them.
pub fn bill(subscription: &Value) -> Result<Bill, GatewayError> {
    let reference =
        id(subscription).ok_or_else(|| GatewayError::Protocol("a subscription without an id".to_owned()))?;
    let items = match subscription.pointer("/items/data") {
        Some(Value::Array(items)) => items.as_slice(),
        _ => &[],
    };
    // Before 2025-03-31.basil all items had one period, and the subscription told it.
    let bound = |field| items.iter().filter_map(|item| time(item, field)).min();
    let period_start = bound("current_period_start").or_else(|| time(subscription, "current_period_start"));
    let period_end = bound("current_period_end").or_else(|| time(subscription, "current_period_end"));
    let raw_state = text(subscription, "status");
    let ends_with_period = is_true(subscription, "cancel_at_period_end").then_some(period_end).flatten();
    Ok(Bill {
        reference: reference.to_owned(),
        state: bounded(state(raw_state), period_start, period_end),
        raw_state: word(raw_state),
        price: price(subscription, items),
        period_start,
        period_end,
        cancel_at: time(subscription, "cancel_at").or(ends_with_period),
        ended_at: time(subscription, "ended_at"),
    })
}

fn state(raw: &str) -> State {
    match raw {
        "incomplete" => State::Pending,
        "trialing" => State::Trialing,
        "active" => State::Active,
        "past_due" => State::PastDue,
        "paused" => State::Paused,
        "unpaid" => State::Unpaid,
        "canceled" | "incomplete_expired" => State::Ended,
        _ => State::Unknown,
    }
}

/// A state that gives access does so within a period. Without one, nobody could say until when.
fn bounded(state: State, period_start: Option<Timestamp>, period_end: Option<Timestamp>) -> State {
    let bound = match state {
        State::Trialing | State::Active => period_end,
        State::PastDue => period_start,
        _ => return state,
    };
    if bound.is_some() { state } else { State::Unknown }
}

/// The price of the first item; in old shapes its plan, or that of the subscription.
fn price(subscription: &Value, items: &[Value]) -> Option<String> {
    let item = items.first().unwrap_or(&Value::Null);
    let price = refers_to(item, "price").or_else(|| refers_to(item, "plan"));
    price.or_else(|| refers_to(subscription, "plan")).map(str::to_owned)
}

#[cfg(test)]
mod tests;
