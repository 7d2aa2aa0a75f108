//! Stripe's objects in the shapes of 2026-10-28.endive: the fields that matter to somebody, and some of the others.

use serde_json::{Value, json};

/// How long a month is here.
pub const MONTH: i64 = 30 * 86_400;
/// How long a checkout can be paid.
pub const CHECKOUT_LIFE: i64 = 86_400;
/// What everything costs.
pub const AMOUNT: i64 = 1_999;

pub fn customer(id: &str, now: i64, livemode: bool, metadata: Value) -> Value {
    json!({
        "id": id, "object": "customer", "address": null, "balance": 0, "created": now, "currency": null,
        "default_source": null, "delinquent": false, "description": null, "email": null, "invoice_prefix": "FAKE",
        "livemode": livemode, "metadata": metadata, "name": null, "phone": null, "preferred_locales": [],
        "shipping": null, "tax_exempt": "none", "test_clock": null,
    })
}

pub fn checkout(id: &str, now: i64, livemode: bool, given: &Value) -> Value {
    let mut session = json!({
        "id": id, "object": "checkout.session", "amount_subtotal": AMOUNT, "amount_total": AMOUNT, "created": now,
        "currency": "usd", "customer_email": null, "expires_at": now + CHECKOUT_LIFE, "invoice": null,
        "livemode": livemode, "locale": null, "payment_intent": null, "payment_status": "unpaid", "status": "open",
        "subscription": null, "ui_mode": "hosted_page",
        "url": format!("https://checkout.stripe.example/c/pay/{id}#fid"),
    });
    merge(&mut session, given);
    session
}

pub fn portal(id: &str, now: i64, livemode: bool, customer: &str, return_url: Option<&str>) -> Value {
    json!({
        "id": id, "object": "billing_portal.session", "configuration": "bpc_000001", "created": now,
        "customer": customer, "flow": null, "livemode": livemode, "locale": null, "on_behalf_of": null,
        "return_url": return_url, "url": format!("https://billing.stripe.example/p/session/{id}"),
    })
}

fn price(id: &str, now: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "price", "active": true, "billing_scheme": "per_unit", "created": now, "currency": "usd",
        "livemode": livemode, "lookup_key": null, "metadata": {}, "nickname": null, "product": "prod_000001",
        "recurring": {"interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null, "usage_type": "licensed"},
        "tax_behavior": "unspecified", "tiers_mode": null, "transform_quantity": null, "type": "recurring",
        "unit_amount": AMOUNT, "unit_amount_decimal": AMOUNT.to_string(),
    })
}

/// A subscription that begins now. Its first period is a month, or the trial.
pub struct Begun<'a> {
    pub id: &'a str,
    pub item: &'a str,
    pub customer: &'a str,
    pub price: &'a str,
    pub metadata: Value,
    pub trial_end: Option<i64>,
}

pub fn subscription(begun: &Begun<'_>, now: i64, livemode: bool) -> Value {
    let item = json!({
        "id": begun.item, "object": "subscription_item", "billing_thresholds": null, "created": now,
        "current_period_end": begun.trial_end.unwrap_or(now + MONTH), "current_period_start": now, "discounts": [],
        "metadata": {}, "price": price(begun.price, now, livemode), "quantity": 1, "subscription": begun.id,
        "tax_rates": [],
    });
    json!({
        "id": begun.id, "object": "subscription", "application": null, "application_fee_percent": null,
        "billing_cycle_anchor": now, "billing_mode": {"type": "flexible"}, "cancel_at": null,
        "cancel_at_period_end": false, "canceled_at": null,
        "cancellation_details": {"comment": null, "feedback": null, "reason": null},
        "collection_method": "charge_automatically", "created": now, "currency": "usd", "customer": begun.customer,
        "default_payment_method": null, "description": null, "discounts": [], "ended_at": null,
        "items": list("/v1/subscription_items", vec![item], false), "latest_invoice": null, "livemode": livemode,
        "metadata": begun.metadata, "pause_collection": null, "schedule": null, "start_date": now,
        "status": if begun.trial_end.is_some() { "trialing" } else { "active" },
        "trial_end": begun.trial_end, "trial_start": begun.trial_end.map(|_| now),
    })
}

/// What a payment consists of.
pub struct Payment<'a> {
    pub customer: &'a str,
    pub charge: &'a str,
    pub intent: &'a str,
}

pub fn charge(payment: &Payment<'_>, now: i64, livemode: bool) -> Value {
    json!({
        "id": payment.charge, "object": "charge", "amount": AMOUNT, "amount_captured": AMOUNT, "amount_refunded": 0,
        "balance_transaction": null, "captured": true, "created": now, "currency": "usd",
        "customer": payment.customer, "description": "Subscription creation", "disputed": false, "failure_code": null,
        "failure_message": null, "livemode": livemode, "metadata": {}, "paid": true,
        "payment_intent": payment.intent, "payment_method": "pm_000001", "receipt_email": null, "refunded": false,
        "status": "succeeded",
    })
}

pub fn invoice(id: &str, subscription: &Value, reason: &str, is_paid: bool, now: i64) -> Value {
    json!({
        "id": id, "object": "invoice", "amount_due": AMOUNT, "amount_paid": if is_paid { AMOUNT } else { 0 },
        "amount_remaining": if is_paid { 0 } else { AMOUNT }, "attempt_count": 1, "attempted": true,
        "auto_advance": !is_paid, "billing_reason": reason, "collection_method": "charge_automatically",
        "created": now, "currency": "usd", "customer": subscription["customer"],
        "lines": {
            "object": "list", "data": [{
                "id": format!("il_{}", id.trim_start_matches("in_")), "object": "line_item", "amount": AMOUNT, "currency": "usd",
                "livemode": subscription["livemode"], "metadata": {},
                "period": {
                    "start": subscription["items"]["data"][0]["current_period_start"],
                    "end": subscription["items"]["data"][0]["current_period_end"],
                },
                "quantity": 1,
            }],
            "has_more": false, "url": format!("/v1/invoices/{id}/lines"),
        },
        "livemode": subscription["livemode"], "metadata": {},
        "next_payment_attempt": (!is_paid).then_some(now + 3 * 86_400),
        "parent": {
            "quote_details": null, "type": "subscription_details",
            "subscription_details": {"metadata": subscription["metadata"], "subscription": subscription["id"]},
        },
        "period_end": now, "period_start": now, "status": if is_paid { "paid" } else { "open" }, "total": AMOUNT,
    })
}

pub fn invoice_payment(id: &str, invoice: &str, intent: &str, now: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "invoice_payment", "amount_paid": AMOUNT, "amount_requested": AMOUNT, "created": now,
        "currency": "usd", "invoice": invoice, "is_default": true, "livemode": livemode,
        "payment": {"payment_intent": intent, "type": "payment_intent"}, "status": "paid",
        "status_transitions": {"canceled_at": null, "paid_at": now},
    })
}

pub fn refund(id: &str, charge: &Value, amount: i64, now: i64) -> Value {
    json!({
        "id": id, "object": "refund", "amount": amount, "balance_transaction": null, "charge": charge["id"],
        "created": now, "currency": "usd", "metadata": {}, "payment_intent": charge["payment_intent"],
        "reason": "requested_by_customer", "receipt_number": null, "status": "succeeded",
    })
}

pub fn dispute(id: &str, charge: &Value, status: &str, now: i64) -> Value {
    json!({
        "id": id, "object": "dispute", "amount": charge["amount"], "balance_transactions": [], "charge": charge["id"],
        "created": now, "currency": "usd", "enhanced_eligibility_types": [], "is_charge_refundable": false,
        "livemode": charge["livemode"], "metadata": {}, "payment_intent": charge["payment_intent"],
        "reason": "fraudulent", "status": status,
    })
}

pub fn event(id: &str, kind: &str, object: &Value, now: i64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "event", "api_version": "2026-10-28.endive", "created": now, "data": {"object": object},
        "livemode": livemode, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null}, "type": kind,
    })
}

/// The thin form of an event.
pub fn thin(event: &Value) -> Value {
    let object = &event["data"]["object"];
    let (id, kind) = (object["id"].as_str().unwrap(), object["object"].as_str().unwrap());
    let created = jiff::Timestamp::from_second(event["created"].as_i64().unwrap()).unwrap();
    json!({
        "id": event["id"], "object": "v2.core.event", "context": null, "created": format!("{created:.3}"),
        "livemode": event["livemode"], "reason": null, "type": format!("v1.{}", event["type"].as_str().unwrap()),
        "related_object": {"id": id, "type": kind, "url": format!("/v1/{kind}s/{id}")},
    })
}

pub fn list(url: &str, data: Vec<Value>, has_more: bool) -> Value {
    json!({"object": "list", "data": data, "has_more": has_more, "url": url})
}

/// Sets fields of an object.
pub fn merge(object: &mut Value, fields: &Value) {
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
}
