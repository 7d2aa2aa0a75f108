//! A payment processor that sends signed parameters: what it would send, written without the program's own code.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::{app::TestApp, http::Call};

pub const SECRET: &str = "the secret of a processor";

/// The settings of a processor named `pay`, which sells `plus` for 9.99 and `pro` for 19.99.
pub const SETTINGS: &[(&str, &str)] = &[
    ("DM__BILLING__PROVIDERS__PAY__KIND", "postback"),
    ("DM__BILLING__PROVIDERS__PAY__MODE", "live"),
    ("DM__BILLING__PROVIDERS__PAY__BASE_URL", "https://pay.example.com/join?site=7"),
    ("DM__BILLING__PROVIDERS__PAY__MANAGE_URL", "https://pay.example.com/my"),
    ("DM__BILLING__PROVIDERS__PAY__WEBHOOK_SECRETS", SECRET),
    ("DM__BILLING__PLANS__PLUS__PRICES__PAY", "9.99"),
    ("DM__BILLING__PLANS__PRO__NAME", "Pro"),
    ("DM__BILLING__PLANS__PRO__MESSAGES_PER_DAY", "500"),
    ("DM__BILLING__PLANS__PRO__COMPANIONS", "*"),
    ("DM__BILLING__PLANS__PRO__PRICES__PAY", "19.99"),
    ("DM__BILLING__CHECKOUT", "pay"),
];

pub type Parameters = BTreeMap<String, String>;

pub fn parameters<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Parameters {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Lower-case hexadecimal SHA-256 of the secret and the sorted parameters.
pub fn signature(secret: &str, parameters: &Parameters) -> String {
    let text =
        parameters.iter().fold(secret.to_owned(), |text, (name, value)| format!("{text}:{name}={value}"));
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parameters with their signature, as a query.
pub fn signed(secret: &str, parameters: &Parameters) -> String {
    let signature = signature(secret, parameters);
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .append_pair("signature", &signature)
        .finish()
}

/// What a checkout's address says.
pub fn of_checkout(answer: &Value) -> Parameters {
    let url = url::Url::parse(answer["url"].as_str().unwrap()).unwrap();
    url.query_pairs().into_owned().collect()
}

/// A sale at the processor.
pub struct Sale {
    pub id: String,
    pub reference: Option<String>,
    pub price: String,
}

impl Sale {
    /// The sale that a checkout leads to.
    pub fn of(answer: &Value, id: &str) -> Sale {
        let said = of_checkout(answer);
        Sale { id: id.into(), reference: Some(said["reference"].clone()), price: said["price"].clone() }
    }

    /// What the processor says about it at a second. A payment is for 30 days.
    pub fn says(&self, event: &str, transaction: &str, at: i64) -> Parameters {
        let mut all = parameters([
            ("sale_id", self.id.clone()),
            ("transaction_id", transaction.into()),
            ("event", event.into()),
            ("at", at.to_string()),
        ]);
        if let Some(reference) = &self.reference {
            all.insert("reference".into(), reference.clone());
        }
        if matches!(event, "initial" | "rebill") {
            all.insert("price".into(), self.price.clone());
            all.insert("paid_through".into(), (at + 30 * 86_400).to_string());
        }
        all
    }
}

/// Sends a notice as a query.
pub fn tell(t: &TestApp, parameters: &Parameters) -> Call {
    t.get(&format!("/v1/webhooks/pay?{}", signed(SECRET, parameters)))
}
