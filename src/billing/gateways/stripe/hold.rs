//! What disputes and refunds mean for access. Neither changes the state of a subscription.

use jiff::Timestamp;
use serde_json::Value;

use super::{GONE, Stripe, customer, form::Form, reading, segment};
use crate::billing::{
    gateway::{GatewayError, HoldState, Snapshot, SnapshotState},
    row::HoldKind,
};

impl Stripe {
    /// A dispute, and whose it is: only its charge knows.
    pub(super) async fn dispute(&self, reference: &str) -> Result<Snapshot, GatewayError> {
        let path = ["disputes", segment(reference)?];
        let Some(dispute) = self.client.find(&path, &Form::default()).await? else { return Ok(GONE) };
        let charge = match reading::refers_to(&dispute, "charge") {
            Some(charge) => self.find_charge(charge, &["customer"]).await?,
            None => None,
        };
        let held_since = match reading::text(&dispute, "status") {
            // An inquiry takes no money; what was won came back.
            "won" | "warning_closed" | "warning_needs_response" | "warning_under_review" => None,
            _ => Some(created(&dispute)?),
        };
        let hold = HoldState { kind: HoldKind::Chargeback, subscription: None, held_since };
        Ok(held(&charge.unwrap_or_default(), hold))
    }

    /// A charge, and what was given back of it. Only all of it counts, and only where it paid for a subscription.
    pub(super) async fn charge(&self, reference: &str) -> Result<Snapshot, GatewayError> {
        let charge = self.find_charge(reference, &["customer", "refunds"]).await?;
        let Some(charge) = charge else { return Ok(GONE) };
        let is_refunded = reading::is_true(&charge, "refunded");
        let paid = if is_refunded { self.paid_with(&charge).await? } else { None };
        let (subscription, held_since) = match paid {
            // The period that was paid for is taken back, and not a later one.
            Some(Paid { subscription, from: Some(from) }) => (Some(subscription), Some(from)),
            Some(Paid { subscription, from: None }) => (Some(subscription), Some(refunded_at(&charge)?)),
            None => (None, None),
        };
        Ok(held(&charge, HoldState { kind: HoldKind::Refund, subscription, held_since }))
    }

    async fn find_charge(&self, reference: &str, expand: &[&str]) -> Result<Option<Value>, GatewayError> {
        let form = Form::default().with_list("expand", expand);
        Ok(self.client.find(&["charges", segment(reference)?], &form).await?)
    }

    /// The subscription that a charge paid for: its payment is an invoice's, and the invoice is the subscription's.
    async fn paid_with(&self, charge: &Value) -> Result<Option<Paid>, GatewayError> {
        for invoice in self.invoices_of(charge).await? {
            let Some(invoice) = self.client.find(&["invoices", &invoice], &Form::default()).await? else {
                continue;
            };
            if let Some(subscription) = subscription(&invoice) {
                return Ok(Some(Paid { subscription: subscription.to_owned(), from: paid_from(&invoice) }));
            }
        }
        Ok(None)
    }

    async fn invoices_of(&self, charge: &Value) -> Result<Vec<String>, GatewayError> {
        // Before 2025-03-31.basil the charge said it by itself.
        if let Some(invoice) = reading::refers_to(charge, "invoice") {
            return Ok(vec![invoice.to_owned()]);
        }
        let Some(payment) = reading::refers_to(charge, "payment_intent") else { return Ok(Vec::new()) };
        let form =
            Form::default().with("payment[type]", "payment_intent").with("payment[payment_intent]", payment);
        let payments = match self.client.list(&["invoice_payments"], form, 1).await {
            Ok(listed) => listed.entries,
            Err(failure) if failure.is_missing() => Vec::new(),
            Err(failure) => return Err(failure.into()),
        };
        let invoices = payments.iter().filter_map(|payment| reading::refers_to(payment, "invoice"));
        Ok(invoices.map(str::to_owned).collect())
    }
}

/// What a charge paid for.
struct Paid {
    subscription: String,
    /// The beginning of the period, where the invoice tells it.
    from: Option<Timestamp>,
}

/// When the newest period begins that an invoice is for. Its own period is that of what was used before.
fn paid_from(invoice: &Value) -> Option<Timestamp> {
    let lines = invoice.pointer("/lines/data").and_then(Value::as_array)?;
    lines.iter().filter_map(|line| reading::time(line.get("period")?, "start")).max()
}

fn held(charge: &Value, hold: HoldState) -> Snapshot {
    Snapshot { customer: charge.get("customer").and_then(customer), state: SnapshotState::Hold(hold) }
}

/// The subscription of an invoice; before 2025-03-31.basil it stood in the invoice itself.
fn subscription(invoice: &Value) -> Option<&str> {
    let of_parent = invoice.pointer("/parent/subscription_details/subscription");
    of_parent.and_then(reading::reference).or_else(|| reading::refers_to(invoice, "subscription"))
}

/// When the newest refund of a charge was made; if that is not told, when the charge was.
fn refunded_at(charge: &Value) -> Result<Timestamp, GatewayError> {
    let refunds = charge.pointer("/refunds/data").and_then(Value::as_array).map(Vec::as_slice);
    let counts = |refund: &&Value| !matches!(reading::text(refund, "status"), "failed" | "canceled");
    let times = refunds
        .unwrap_or_default()
        .iter()
        .filter(counts)
        .filter_map(|refund| reading::time(refund, "created"));
    times.max().map_or_else(|| created(charge), Ok)
}

fn created(object: &Value) -> Result<Timestamp, GatewayError> {
    reading::time(object, "created")
        .ok_or_else(|| GatewayError::Protocol("nothing says when it was".to_owned()))
}
