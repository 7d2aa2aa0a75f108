//! What a user may use: today the free tier with its daily quota.
//!
//! Whether a message is paid for is decided here, from rows and the clock, once per message. This slice must not know
//! what a message is.

pub(crate) mod access;
mod service;
pub(crate) mod store;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::platform::time;

pub use self::{
    access::{Access, Companions},
    service::{Billing, Charge},
};

/// What the operator decides about access.
#[derive(Clone, Debug)]
pub struct BillingSettings {
    /// Messages that a user without a subscription may send each day (UTC). May be 0.
    pub free_messages_per_day: i64,
    /// The companions that such a user may talk to.
    pub free_companions: Companions,
    /// Where a frontend sells subscriptions.
    pub upgrade_url: String,
}

/// How much of the day's messages is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quota {
    /// The plan that the limit comes from; `null` for the free tier.
    pub plan: Option<String>,
    /// Messages charged today.
    pub used: i64,
    /// Messages that today has.
    pub limit: i64,
    /// When the next day begins.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub resets_at: Timestamp,
}

/// What somebody is shown who has to pay.
#[derive(Clone, Debug)]
pub struct Paywall {
    /// How much of the day is used.
    pub quota: Quota,
    /// Where a frontend sells subscriptions.
    pub upgrade_url: String,
}

/// A user's access, as the user sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Subscription {
    /// `active` only with a subscription or grant.
    pub state: SubscriptionState,
    /// Why access is as it is.
    pub reason: Reason,
    /// The plan; `null` on the free tier.
    pub plan: Option<String>,
    /// Until when access lasts; `null` without a subscription.
    pub access_until: Option<String>,
    /// Whether it will renew by itself.
    pub will_renew: bool,
    /// Where access comes from: `null` on the free tier.
    pub source: Option<String>,
    /// The payment provider, if there is one.
    pub provider: Option<String>,
    /// The day's messages.
    pub quota: Quota,
}

/// Whether somebody pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// No subscription.
    Inactive,
}

/// Why access is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The free tier.
    Free,
    /// There is no free tier.
    None,
}
