//! What a user may use: the free tier, plans that are paid for or granted, and the daily quota.
//!
//! Whether a message is paid for is decided here, from rows and the clock, once per message. Providers of payments are asked
//! in the background; what they answer becomes rows. This slice must not know what a message is.

pub mod access;
mod apply;
mod checkout;
mod effects;
mod facts;
pub mod gateway;
pub mod gateways;
mod grants;
mod holds;
pub(crate) mod http;
mod inbox;
mod letters;
mod manage;
mod plans;
mod quota;
pub mod row;
mod service;
pub(crate) mod store;
mod sweep;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use self::row::Mode;
use crate::platform::time;

pub use self::{
    access::Access,
    grants::{Grant, GrantForm},
    holds::Insight,
    inbox::DeadNotice,
    plans::{Companions, Plan, PlanCard},
    quota::Charge,
    service::{Billing, BillingError, Start},
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
    /// The plans, in the order in which they are shown.
    pub plans: Vec<Plan>,
    /// The mode in which each provider is used. What came in the other mode counts for nothing.
    pub modes: BTreeMap<String, Mode>,
    /// The providers that can be asked what there is. What such a one has not ended is not over.
    pub asked: BTreeSet<String>,
    /// The provider that new checkouts use.
    pub checkout: Option<String>,
    /// How long access outlasts a renewal that failed, from the beginning of the period that is not paid.
    pub grace: Duration,
    /// How long access outlasts a paid period whose renewal has not been heard of.
    pub slack: Duration,
    /// How often providers are asked about what should have changed.
    pub sweep_interval: Duration,
    /// The first pause after a provider failed.
    pub retry_min: Duration,
    /// The longest pause after a provider failed.
    pub retry_max: Duration,
}

impl BillingSettings {
    /// A plan by its id.
    pub fn plan(&self, id: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.id == id)
    }

    /// The plan that a provider sells at a price.
    pub fn plan_of_price(&self, provider: &str, price: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.prices.get(provider).is_some_and(|known| known == price))
    }
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

/// What keeps a message from being answered until somebody pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// Nothing includes it.
    SubscriptionRequired,
    /// The day is used up.
    QuotaExhausted,
    /// A renewal failed, and the time for mending it is over.
    PaymentPastDue,
    /// Money was taken back, or an operator stopped it.
    PaymentOnHold,
}

/// What somebody is shown who has to pay.
#[derive(Clone, Debug)]
pub struct Paywall {
    /// Why.
    pub wall: Wall,
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
    /// Until when access lasts if nothing is heard of a renewal; `null` without a subscription or grant.
    #[serde(serialize_with = "time::serialize_optional")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub access_until: Option<Timestamp>,
    /// Whether money will be taken again if nothing is done, also while `state` is `inactive`.
    pub will_renew: bool,
    /// Where access comes from: `null` on the free tier.
    pub source: Option<Source>,
    /// The payment provider, if there is one.
    pub provider: Option<String>,
    /// The day's messages.
    pub quota: Quota,
}

/// Whether somebody has a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// A subscription or a grant.
    Active,
    /// Neither.
    Inactive,
}

/// Where a plan comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It is paid for.
    Provider,
    /// An operator gave it.
    Grant,
}

/// Why access is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The free tier.
    Free,
    /// There is no free tier.
    None,
    /// A subscription is paid.
    Subscription,
    /// An operator gave it.
    Grant,
    /// A checkout was begun and is not paid.
    Pending,
    /// A renewal failed. While `state` is `active` there is time to mend it.
    PastDue,
    /// The subscription is paused.
    Paused,
    /// A renewal failed for good.
    Unpaid,
    /// Money was taken back, or an operator stopped it: nothing is included.
    OnHold,
    /// The subscription is over.
    Ended,
}
