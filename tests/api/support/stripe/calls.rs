//! The calls of Stripe's API that are served, with the refusals that matter.

use serde_json::{Value, json};

use super::{
    objects::{self, merge},
    params::Params,
    state::State,
};

/// A refusal, in Stripe's words.
pub struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    pub param: Option<String>,
}

type Answer = Result<Value, Refusal>;

impl Refusal {
    pub fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Refusal {
        Refusal { status, kind: "invalid_request_error", code, message: message.into(), param: None }
    }

    fn about(self, param: &str) -> Refusal {
        Refusal { param: Some(param.to_owned()), ..self }
    }

    pub fn body(&self) -> Value {
        let mut error = json!({"message": self.message, "type": self.kind});
        if let Some(code) = self.code {
            let doc_url = format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"));
            merge(&mut error, &json!({"code": code, "doc_url": doc_url}));
        }
        if let Some(param) = &self.param {
            merge(&mut error, &json!({"param": param}));
        }
        json!({"error": error})
    }
}

/// Answers a call. What stands before `v1` in the path is gone.
pub fn answer(state: &mut State, method: &str, path: &[&str], params: &Params) -> Answer {
    let only = |allowed: &[&str]| known(params, allowed);
    match (method, path) {
        ("POST", ["customers"]) => only(&["metadata"]).and_then(|()| create_customer(state, params)),
        ("GET", ["customers", id]) => only(&[]).and_then(|()| find(state, "customer", id)),
        ("POST", ["checkout", "sessions"]) => create_checkout(state, params),
        ("GET", ["checkout", "sessions", id]) => only(&[]).and_then(|()| find(state, "checkout.session", id)),
        ("POST", ["checkout", "sessions", id, "expire"]) => only(&[]).and_then(|()| expire(state, id)),
        ("POST", ["billing_portal", "sessions"]) => {
            only(&["customer", "return_url"]).and_then(|()| create_portal(state, params))
        }
        ("GET", ["subscriptions"]) => list_subscriptions(state, params),
        ("POST", ["subscriptions", id]) => {
            only(&["cancel_at_period_end"]).and_then(|()| update_subscription(state, id, params))
        }
        ("GET", ["charges", id]) => only(&["expand"]).and_then(|()| charge(state, id, params)),
        ("GET", ["disputes", id]) => only(&[]).and_then(|()| find(state, "dispute", id)),
        ("GET", ["invoices", id]) => only(&[]).and_then(|()| find(state, "invoice", id)),
        ("GET", ["invoice_payments"]) => list_invoice_payments(state, params),
        ("GET", ["events"]) => list_events(state, params),
        _ => {
            let message = format!("Unrecognized request URL ({method}: /v1/{}).", path.join("/"));
            Err(Refusal::new(404, None, message))
        }
    }
}

fn known(params: &Params, allowed: &[&str]) -> Result<(), Refusal> {
    match params.names().into_iter().find(|name| !allowed.contains(name)) {
        Some(name) => {
            let message = format!("Received unknown parameter: {name}");
            Err(Refusal::new(400, Some("parameter_unknown"), message).about(name))
        }
        None => Ok(()),
    }
}

fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, Refusal> {
    params.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        Refusal::new(400, Some("parameter_missing"), format!("Missing required param: {name}.")).about(name)
    })
}

fn missing(status: u16, kind: &str, id: &str, param: &str) -> Refusal {
    Refusal::new(status, Some("resource_missing"), format!("No such {kind}: '{id}'")).about(param)
}

fn find(state: &State, kind: &'static str, id: &str) -> Answer {
    state.get(kind, id).cloned().ok_or_else(|| missing(404, kind, id, "id"))
}

/// A customer that is named in a parameter, and not deleted.
fn customer_of<'a>(state: &State, params: &'a Params) -> Result<&'a str, Refusal> {
    let id = required(params, "customer")?;
    let lives = state.get("customer", id).is_some_and(|customer| customer["deleted"] != true);
    if lives { Ok(id) } else { Err(missing(400, "customer", id, "customer")) }
}

fn create_customer(state: &mut State, params: &Params) -> Answer {
    let id = state.reference("cus");
    let customer = objects::customer(&id, state.now, state.livemode, params.object("metadata"));
    state.insert("customer", customer.clone());
    state.emit("customer.created", &customer);
    Ok(customer)
}

fn create_checkout(state: &mut State, params: &Params) -> Answer {
    known(
        params,
        &[
            "mode",
            "customer",
            "client_reference_id",
            "line_items",
            "success_url",
            "cancel_url",
            "subscription_data",
            "metadata",
        ],
    )?;
    let customer = customer_of(state, params)?;
    let price = required(params, "line_items[0][price]")?;
    required(params, "line_items[0][quantity]")?;
    if !price.starts_with("price_") {
        return Err(missing(400, "price", price, "line_items[0][price]"));
    }
    let given = json!({
        "cancel_url": required(params, "cancel_url")?, "client_reference_id": params.get("client_reference_id"),
        "customer": customer, "metadata": params.object("metadata"), "mode": required(params, "mode")?,
        "success_url": required(params, "success_url")?,
    });
    let prefix = if state.livemode { "cs_live" } else { "cs_test" };
    let id = state.reference(prefix);
    let session = objects::checkout(&id, state.now, state.livemode, &given);
    state.insert("checkout.session", session.clone());
    let metadata = params.object("subscription_data[metadata]");
    state.insert("order", json!({"id": id, "price": price, "metadata": metadata}));
    Ok(session)
}

fn expire(state: &mut State, id: &str) -> Answer {
    if find(state, "checkout.session", id)?["status"] != "open" {
        let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
        return Err(Refusal::new(400, None, message));
    }
    state.expire(id);
    find(state, "checkout.session", id)
}

fn create_portal(state: &mut State, params: &Params) -> Answer {
    let customer = customer_of(state, params)?;
    let id = state.reference("bps");
    Ok(objects::portal(&id, state.now, state.livemode, customer, params.get("return_url")))
}

fn list_subscriptions(state: &State, params: &Params) -> Answer {
    known(params, &["customer", "status", "limit", "starting_after"])?;
    let status = params.get("status");
    let is_wanted = |found: &Value| match status {
        None => found["status"] != "canceled",
        Some("all") => true,
        Some("ended") => matches!(found["status"].as_str(), Some("canceled" | "incomplete_expired")),
        Some(status) => found["status"] == status,
    };
    let customer = params.get("customer");
    let is_theirs = |found: &Value| customer.is_none_or(|customer| found["customer"] == customer);
    let found = state.all("subscription").filter(|found| is_wanted(found) && is_theirs(found));
    page("/v1/subscriptions", found.cloned().collect(), params)
}

fn update_subscription(state: &mut State, id: &str, params: &Params) -> Answer {
    let found = find(state, "subscription", id)?;
    if found["status"] == "canceled" {
        let message = "A canceled subscription can only update its cancellation_details and metadata.";
        return Err(Refusal::new(400, None, message));
    }
    let ends = required(params, "cancel_at_period_end")? == "true";
    let end = &found["items"]["data"][0]["current_period_end"];
    let fields = json!({
        "cancel_at_period_end": ends, "cancel_at": if ends { end } else { &Value::Null },
        "canceled_at": ends.then_some(state.now),
    });
    state.change(id, "customer.subscription.updated", &fields);
    find(state, "subscription", id)
}

fn charge(state: &State, id: &str, params: &Params) -> Answer {
    let mut charge = find(state, "charge", id)?;
    for name in params.list("expand") {
        let expanded = match name {
            "customer" => {
                let customer = charge["customer"].as_str().and_then(|id| state.get("customer", id));
                customer.cloned().unwrap_or_default()
            }
            "refunds" => {
                let refunds = state.all("refund").filter(|refund| refund["charge"] == id).cloned();
                objects::list(&format!("/v1/charges/{id}/refunds"), refunds.collect(), false)
            }
            _ => {
                let message = format!("This property cannot be expanded ({name}).");
                return Err(Refusal::new(400, None, message).about("expand"));
            }
        };
        merge(&mut charge, &json!({name: expanded}));
    }
    Ok(charge)
}

fn list_invoice_payments(state: &State, params: &Params) -> Answer {
    known(params, &["payment", "limit", "starting_after"])?;
    assert_eq!(required(params, "payment[type]")?, "payment_intent");
    let intent = required(params, "payment[payment_intent]")?;
    let found = state.all("invoice_payment").filter(|payment| payment["payment"]["payment_intent"] == intent);
    page("/v1/invoice_payments", found.cloned().collect(), params)
}

fn list_events(state: &State, params: &Params) -> Answer {
    known(params, &["delivery_success", "types", "created", "limit", "starting_after"])?;
    let kinds = params.list("types");
    if kinds.len() > 20 {
        return Err(Refusal::new(400, None, "You may only specify up to 20 event types.").about("types"));
    }
    let since = params.number("created[gte]");
    let is_wanted = |event: &&super::state::Event| {
        let kind = event.value["type"].as_str().unwrap();
        (kinds.is_empty() || kinds.contains(&kind))
            && params.get("delivery_success").is_none_or(|wanted| (wanted == "true") == event.is_delivered)
            && since.is_none_or(|since| event.value["created"].as_i64().unwrap() >= since)
    };
    let found = state.events.iter().rev().filter(is_wanted);
    page("/v1/events", found.map(|event| event.value.clone()).collect(), params)
}

/// One page of what was found, newest first.
fn page(url: &str, found: Vec<Value>, params: &Params) -> Answer {
    let limit = params.number("limit").unwrap_or(10);
    if !(1..=100).contains(&limit) {
        let message = "This value must be greater than or equal to 1 and less than or equal to 100.";
        return Err(Refusal::new(400, Some("parameter_invalid_integer"), message).about("limit"));
    }
    let first = match params.get("starting_after") {
        None => 0,
        Some(id) => {
            let place = found.iter().position(|object| object["id"] == id);
            place.ok_or_else(|| missing(400, "object", id, "starting_after"))? + 1
        }
    };
    let rest = &found[first..];
    let length = rest.len().min(usize::try_from(limit).unwrap());
    Ok(objects::list(url, rest[..length].to_vec(), rest.len() > length))
}
