//! What the fake knows, and what happens in it: purchases, renewals, refunds. Whatever changes leaves an event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::objects::{self, AMOUNT, Begun, MONTH, Payment, merge};

#[derive(Default)]
pub struct State {
    pub now: i64,
    pub livemode: bool,
    /// By kind, oldest first.
    tables: BTreeMap<&'static str, Vec<Value>>,
    /// How many references of a kind were made.
    serials: HashMap<&'static str, u32>,
    pub events: Vec<Event>,
    /// Customers whose card is declined.
    pub declined: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Event {
    pub value: Value,
    pub is_delivered: bool,
}

impl State {
    /// A new reference. The same history makes the same ones.
    pub fn reference(&mut self, prefix: &'static str) -> String {
        let serial = self.serials.entry(prefix).or_default();
        *serial += 1;
        format!("{prefix}_{serial:06}")
    }

    pub fn insert(&mut self, kind: &'static str, object: Value) {
        self.tables.entry(kind).or_default().push(object);
    }

    /// All of a kind, newest first.
    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.tables.get(kind).into_iter().flatten().rev()
    }

    pub fn get(&self, kind: &str, id: &str) -> Option<&Value> {
        self.all(kind).find(|object| object["id"] == id)
    }

    /// Sets fields of an object and returns what it is then.
    #[track_caller]
    pub fn set(&mut self, kind: &str, id: &str, fields: &Value) -> Value {
        let table = self.tables.get_mut(kind).into_iter().flatten();
        let object = table.into_iter().find(|object| object["id"] == id).expect("there is such an object");
        merge(object, fields);
        object.clone()
    }

    pub fn emit(&mut self, kind: &str, object: &Value) {
        let id = self.reference("evt");
        let value = objects::event(&id, kind, object, self.now, self.livemode);
        self.events.push(Event { value, is_delivered: false });
    }

    pub fn add_customer(&mut self, user: Option<&str>) -> String {
        let id = self.reference("cus");
        let metadata = user.map_or_else(|| json!({}), |user| json!({"user_id": user}));
        let customer = objects::customer(&id, self.now, self.livemode, metadata);
        self.insert("customer", customer.clone());
        self.emit("customer.created", &customer);
        id
    }

    /// A subscription that is paid at once.
    pub fn add_subscription(&mut self, customer: &str, price: &str) -> String {
        let (id, item) = (self.reference("sub"), self.reference("si"));
        let begun = Begun { id: &id, item: &item, customer, price, metadata: json!({}), trial_end: None };
        let subscription = objects::subscription(&begun, self.now, self.livemode);
        self.insert("subscription", subscription.clone());
        self.emit("customer.subscription.created", &subscription);
        self.bill(&id, "subscription_create");
        id
    }

    /// The buyer pays, or begins a trial of some days.
    pub fn complete(&mut self, session: &str, trial_days: Option<i64>) -> Option<String> {
        let checkout = self.get("checkout.session", session).cloned()?;
        if checkout["status"] != "open" || checkout["expires_at"].as_i64()? <= self.now {
            return None;
        }
        let order = self.get("order", session).cloned()?;
        let id = self.reference("sub");
        let item = self.reference("si");
        let begun = Begun {
            id: &id,
            item: &item,
            customer: checkout["customer"].as_str()?,
            price: order["price"].as_str()?,
            metadata: order["metadata"].clone(),
            trial_end: trial_days.map(|days| self.now + days * 86_400),
        };
        let subscription = objects::subscription(&begun, self.now, self.livemode);
        self.insert("subscription", subscription.clone());
        self.emit("customer.subscription.created", &subscription);
        let payment_status = if trial_days.is_some() {
            "no_payment_required"
        } else {
            self.bill(&id, "subscription_create");
            "paid"
        };
        let fields =
            json!({"status": "complete", "payment_status": payment_status, "subscription": id, "url": null});
        let checkout = self.set("checkout.session", session, &fields);
        self.emit("checkout.session.completed", &checkout);
        Some(id)
    }

    /// Takes a month's money, if the card gives it.
    fn bill(&mut self, subscription: &str, reason: &str) -> bool {
        let found = self.get("subscription", subscription).unwrap().clone();
        let is_paid = !self.declined.contains(found["customer"].as_str().unwrap());
        let id = self.reference("in");
        let invoice = objects::invoice(&id, &found, reason, is_paid, self.now);
        self.insert("invoice", invoice.clone());
        self.set("subscription", subscription, &json!({"latest_invoice": id}));
        if is_paid {
            self.pay(&id);
        } else {
            self.emit("invoice.payment_failed", &invoice);
        }
        is_paid
    }

    /// Pays an invoice.
    fn pay(&mut self, invoice: &str) {
        let fields = json!({"status": "paid", "amount_paid": AMOUNT, "amount_remaining": 0, "next_payment_attempt": null});
        let paid = self.set("invoice", invoice, &fields);
        let (charge, intent) = self.charge(paid["customer"].as_str().unwrap());
        let payment = self.reference("inpay");
        let payment = objects::invoice_payment(&payment, invoice, &intent, self.now, self.livemode);
        self.insert("invoice_payment", payment);
        let charge = self.get("charge", &charge).unwrap().clone();
        self.emit("charge.succeeded", &charge);
        self.emit("invoice.paid", &paid);
    }

    /// Takes money for nothing in particular: the charge, and its payment.
    pub fn charge(&mut self, customer: &str) -> (String, String) {
        let (charge, intent) = (self.reference("ch"), self.reference("pi"));
        let payment = Payment { customer, charge: &charge, intent: &intent };
        self.insert("charge", objects::charge(&payment, self.now, self.livemode));
        (charge, intent)
    }

    /// The newest charge of a subscription.
    pub fn charge_of(&self, subscription: &str) -> Option<String> {
        let of = |invoice: &&Value| invoice["parent"]["subscription_details"]["subscription"] == subscription;
        let invoice = self.all("invoice").filter(|invoice| invoice["status"] == "paid").find(of)?;
        let payment = self.all("invoice_payment").find(|payment| payment["invoice"] == invoice["id"])?;
        let intent = &payment["payment"]["payment_intent"];
        let charge = self.all("charge").find(|charge| charge["payment_intent"] == *intent)?;
        Some(charge["id"].as_str()?.to_owned())
    }

    /// Time passes, and what is due happens in its order.
    pub fn pass(&mut self, until: i64) {
        assert!(until >= self.now, "time does not go back");
        while let Some((at, id)) = self.next_due().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            if self.get("subscription", &id).is_some() { self.renew(&id) } else { self.expire(&id) }
        }
        self.now = until;
    }

    fn next_due(&self) -> Option<(i64, String)> {
        let id = |object: &Value| object["id"].as_str().unwrap().to_owned();
        let live = self.all("subscription").filter(|found| is_live(found));
        let subscriptions = live.map(|found| {
            let period_end = period(found).1;
            (found["cancel_at"].as_i64().map_or(period_end, |end| end.min(period_end)), id(found))
        });
        let open = self.all("checkout.session").filter(|session| session["status"] == "open");
        let sessions = open.map(|session| (session["expires_at"].as_i64().unwrap(), id(session)));
        subscriptions.chain(sessions).min()
    }

    fn renew(&mut self, id: &str) {
        let found = self.get("subscription", id).unwrap().clone();
        let is_over = found["cancel_at"].as_i64().is_some_and(|end| end <= self.now);
        if is_over || found["cancel_at_period_end"] == true {
            return self.end(id, "canceled");
        }
        let start = period(&found).1;
        let mut items = found["items"].clone();
        for item in items["data"].as_array_mut().unwrap() {
            merge(item, &json!({"current_period_start": start, "current_period_end": start + MONTH}));
        }
        // The period begins before anything is paid.
        self.set("subscription", id, &json!({"items": items}));
        let status = if self.bill(id, "subscription_cycle") { "active" } else { "past_due" };
        self.change(id, "customer.subscription.updated", &json!({"status": status}));
    }

    pub fn expire(&mut self, session: &str) {
        let session = self.set("checkout.session", session, &json!({"status": "expired", "url": null}));
        self.emit("checkout.session.expired", &session);
    }

    /// Tries to take the money of the newest invoice again.
    pub fn retry_payment(&mut self, id: &str) {
        let found = self.get("subscription", id).unwrap().clone();
        let invoice = found["latest_invoice"].as_str().unwrap().to_owned();
        if self.declined.contains(found["customer"].as_str().unwrap()) {
            let invoice = self.get("invoice", &invoice).unwrap().clone();
            return self.emit("invoice.payment_failed", &invoice);
        }
        self.pay(&invoice);
        self.change(id, "customer.subscription.updated", &json!({"status": "active"}));
    }

    pub fn end(&mut self, id: &str, status: &str) {
        let fields = json!({"status": status, "ended_at": self.now, "canceled_at": self.now});
        self.change(id, "customer.subscription.deleted", &fields);
    }

    pub fn change(&mut self, id: &str, kind: &str, fields: &Value) {
        let changed = self.set("subscription", id, fields);
        self.emit(kind, &changed);
    }

    pub fn refund(&mut self, charge: &str, amount: Option<i64>) -> String {
        let found = self.get("charge", charge).unwrap().clone();
        let before = found["amount_refunded"].as_i64().unwrap();
        let amount = amount.unwrap_or(AMOUNT - before);
        let id = self.reference("re");
        let refund = objects::refund(&id, &found, amount, self.now);
        self.insert("refund", refund);
        let charge = self.set("charge", charge, &refunded(before + amount));
        self.emit("charge.refunded", &charge);
        id
    }

    /// The bank sends a refund back.
    pub fn fail_refund(&mut self, refund: &str) {
        let refund = self.set("refund", refund, &json!({"status": "failed"}));
        let charge = self.get("charge", refund["charge"].as_str().unwrap()).unwrap().clone();
        let left = charge["amount_refunded"].as_i64().unwrap() - refund["amount"].as_i64().unwrap();
        self.set("charge", charge["id"].as_str().unwrap(), &refunded(left));
        self.emit("refund.failed", &refund);
    }

    pub fn dispute(&mut self, charge: &str, status: &str) -> String {
        let charge = self.set("charge", charge, &json!({"disputed": true}));
        let id = self.reference("dp");
        let dispute = objects::dispute(&id, &charge, status, self.now);
        self.insert("dispute", dispute.clone());
        self.emit("charge.dispute.created", &dispute);
        id
    }

    pub fn judge_dispute(&mut self, dispute: &str, status: &str) {
        let dispute = self.set("dispute", dispute, &json!({"status": status}));
        let is_over = matches!(status, "won" | "lost" | "warning_closed" | "prevented");
        self.emit(if is_over { "charge.dispute.closed" } else { "charge.dispute.updated" }, &dispute);
    }

    pub fn delete_customer(&mut self, id: &str) {
        let live = self.all("subscription").filter(|found| found["customer"] == id && is_live(found));
        let live: Vec<String> = live.map(|found| found["id"].as_str().unwrap().to_owned()).collect();
        for subscription in live {
            self.end(&subscription, "canceled");
        }
        let deleted = self.get("customer", id).unwrap().clone();
        let table = self.tables.get_mut("customer").unwrap();
        let place = table.iter_mut().find(|customer| customer["id"] == id).unwrap();
        *place = json!({"id": id, "object": "customer", "deleted": true});
        self.emit("customer.deleted", &deleted);
    }
}

fn refunded(amount: i64) -> Value {
    json!({"amount_refunded": amount, "refunded": amount == AMOUNT})
}

fn is_live(subscription: &Value) -> bool {
    matches!(subscription["status"].as_str(), Some("active" | "trialing" | "past_due"))
}

/// The period of the first item.
fn period(subscription: &Value) -> (i64, i64) {
    let item = &subscription["items"]["data"][0];
    let bound = |name: &str| item[name].as_i64().unwrap();
    (bound("current_period_start"), bound("current_period_end"))
}
