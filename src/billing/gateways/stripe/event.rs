//! What Stripe's events tell: never more than whom or what to ask about.
//!
//! There are two shapes. An `event` carries the object as it was; a `v2.core.event`, called thin, its id alone. Thin events are
//! understood where the id says enough, which for subscriptions, invoices and checkouts it does not: their customer would have
//! to be asked for. An endpoint should be set up for the other shape.

use jiff::Timestamp;
use serde_json::Value;

use super::reading;
use crate::billing::{
    gateway::{Signal, Subject, Touched},
    row::Mode,
};

/// The kinds that concern us. Undelivered ones are asked for by these names, of which Stripe takes twenty.
pub const KINDS: [&str; 18] = [
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.deleted",
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "invoice.paid",
    "invoice.payment_failed",
    "charge.refunded",
    "charge.refund.updated", // A refund that fails gives the money back to us.
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated", // An inquiry becomes a dispute.
    "charge.dispute.closed",
];

/// Reads an event. `None`: it is none.
pub fn read(event: &Value, mode: Mode, now: Timestamp) -> Option<Signal> {
    let is_thin = match reading::text(event, "object") {
        "event" => false,
        "v2.core.event" => true,
        _ => return None,
    };
    let key = reading::id(event)?;
    let kind = event.get("type").and_then(Value::as_str)?;
    let object = event.pointer(if is_thin { "/related_object" } else { "/data/object" });
    // What does not say that money is real is about none.
    let is_ours = reading::mode(event).unwrap_or(Mode::Test) == mode;
    let subject = object.filter(|_| is_ours).and_then(|object| subject(kind, object));
    let touched = Touched {
        key: key.to_owned(),
        kind: reading::word(kind),
        at: created(event).unwrap_or(now),
        subject,
    };
    Some(if touched.subject.is_some() { Signal::Touched(touched) } else { Signal::Ignored(touched) })
}

/// What to ask about.
fn subject(kind: &str, object: &Value) -> Option<Subject> {
    let kind = kind.strip_prefix("v1.").unwrap_or(kind);
    if !KINDS.contains(&kind) {
        return None;
    }
    let id = || reading::id(object).map(str::to_owned);
    let other = |field| reading::refers_to(object, field).map(str::to_owned);
    match kind {
        "customer.deleted" => id().map(Subject::Customer),
        "charge.refunded" => id().map(Subject::Charge),
        "charge.refund.updated" | "refund.failed" => other("charge").map(Subject::Charge),
        _ if kind.starts_with("charge.dispute.") => id().map(Subject::Dispute),
        _ => other("customer").map(Subject::Customer),
    }
}

/// Seconds, or in thin events a text.
fn created(event: &Value) -> Option<Timestamp> {
    reading::time(event, "created").or_else(|| reading::text(event, "created").parse().ok())
}

#[cfg(test)]
mod tests;
