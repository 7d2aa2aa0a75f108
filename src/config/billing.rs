//! The settings of plans and payment providers.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Profile, ServerSettings, checks, reader::Reader};
use crate::{
    billing::{
        BillingSettings, Companions, Plan,
        gateways::{postback::PostbackSettings, stripe::StripeSettings},
        row::Mode,
    },
    chat,
};

/// Where Stripe is.
const STRIPE: &str = "https://api.stripe.com";
/// What a postback is answered with where the settings say nothing else.
const REPLY: &str = "OK";

/// A payment provider with its name.
#[derive(Clone, Debug)]
pub struct PaymentProvider {
    /// The name in the settings.
    pub name: String,
    /// What it is.
    pub kind: PaymentKind,
}

/// The kinds of payment provider.
#[derive(Clone, Debug)]
pub enum PaymentKind {
    /// A checkout page of our own.
    Dev,
    /// A processor that sends signed parameters.
    Postback(PostbackSettings),
    /// Stripe.
    Stripe(StripeSettings),
}

impl PaymentKind {
    /// Whether it can be asked what subscriptions there are.
    fn is_asked(&self) -> bool {
        matches!(self, PaymentKind::Stripe(_))
    }

    fn mode(&self) -> Mode {
        match self {
            PaymentKind::Dev => Mode::Test,
            PaymentKind::Postback(postback) => postback.mode,
            PaymentKind::Stripe(stripe) => stripe.mode,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Dev,
    Postback,
    Stripe,
}

/// Reads plans, the free tier and providers.
pub fn read(
    r: &mut Reader,
    profile: Profile,
    server: Option<&ServerSettings>,
    companions: Option<&chat::Companions>,
) -> Option<(BillingSettings, Vec<PaymentProvider>)> {
    let free_messages_per_day = r.number("chat.free_messages_per_day", 0, 1_000_000);
    let free_companions = included(r, "chat.free_companions");
    if let (Some(free), Some(companions)) = (&free_companions, companions) {
        check_free_tier(r, free, companions);
    }
    let providers: Vec<_> =
        r.names_below("billing.providers").iter().map(|name| provider(r, profile, name)).collect();
    let names = r.names_below("billing.providers");
    let plans: Vec<_> = r.names_below("billing.plans").iter().map(|id| plan(r, id, &names)).collect();
    let checkout = r.optional_text("billing.checkout");
    if let Some(Some(name)) = &checkout
        && !names.contains(name)
    {
        r.fault("billing.checkout", format!("names “{name}”, which is not among billing.providers"));
    }
    let grace = r.duration("billing.grace");
    let slack = r.duration("billing.slack");
    let sweep_interval = r.duration("billing.sweep_interval");
    let retry_min = r.duration("billing.retry_min");
    let retry_max = r.duration("billing.retry_max");
    let upgrade_url = r.optional_url("billing.upgrade_url");
    checks::https(r, profile, "billing.upgrade_url", upgrade_url.as_ref().and_then(Option::as_ref));
    if let (Some(first), Some(longest)) = (retry_min, retry_max)
        && longest < first
    {
        r.fault("billing.retry_max", "is less than billing.retry_min");
    }
    let plans = plans.into_iter().collect::<Option<Vec<_>>>()?;
    check_prices(r, &plans);
    let providers = providers.into_iter().collect::<Option<Vec<_>>>()?;
    let frontend = server?.frontend_url.as_str().trim_end_matches('/').to_owned();
    let upgrade_url = upgrade_url?.map_or_else(|| format!("{frontend}/subscribe"), String::from);
    let settings = BillingSettings {
        free_messages_per_day: free_messages_per_day?,
        free_companions: free_companions?,
        upgrade_url,
        plans: in_order(plans),
        modes: providers.iter().map(|provider| (provider.name.clone(), provider.kind.mode())).collect(),
        asked: providers.iter().filter(|one| one.kind.is_asked()).map(|one| one.name.clone()).collect(),
        checkout: checkout?,
        grace: grace?,
        slack: slack?,
        sweep_interval: sweep_interval?,
        retry_min: retry_min?,
        retry_max: retry_max?,
    };
    Some((settings, providers))
}

/// Plans as they are shown: the smallest first.
fn in_order(mut plans: Vec<Plan>) -> Vec<Plan> {
    plans.sort_by_key(|plan| plan.messages_per_day);
    plans
}

/// A list of companions, or all.
fn included(r: &mut Reader, key: &str) -> Option<Companions> {
    let ids = r.list(key)?;
    let known = r.names_below("chat.companions");
    if let Some(id) = ids.iter().find(|id| *id != "*" && !known.contains(id)) {
        r.fault(key, format!("names “{id}”, which is not among chat.companions"));
        return None;
    }
    Some(if ids.iter().any(|id| id == "*") { Companions::All } else { Companions::Only(ids) })
}

/// A companion that is shown as part of a plan cannot be free.
fn check_free_tier(r: &mut Reader, free: &Companions, companions: &chat::Companions) {
    for card in companions.cards() {
        if card.requires_plan.is_some() && free.include(&card.id) {
            let key = format!("chat.companions.{}.requires_plan", card.id);
            r.fault(&key, "is set for a companion that chat.free_companions includes");
        }
    }
}

fn plan(r: &mut Reader, id: &str, providers: &[String]) -> Option<Plan> {
    let key = |field: &str| format!("billing.plans.{id}.{field}");
    let name = r.needed_text(&key("name"));
    let messages_per_day = r.number(&key("messages_per_day"), 1, 1_000_000);
    let companions = included(r, &key("companions"));
    let generations =
        if r.has(&key("generations")) { r.number(&key("generations"), 1, 100).map(Some) } else { Some(None) };
    let mut prices = BTreeMap::new();
    for provider in r.keys_below(&key("prices")) {
        let price_key = format!("{}.{provider}", key("prices"));
        let price = r.needed_text(&price_key);
        if !providers.contains(&provider) {
            r.fault(&price_key, "is for a provider that is not among billing.providers");
        }
        if let Some(price) = price {
            prices.insert(provider, price);
        }
    }
    Some(Plan {
        id: id.to_owned(),
        name: name?,
        messages_per_day: messages_per_day?,
        companions: companions?,
        generations: generations?,
        prices,
    })
}

/// Whoever pays a price has one plan.
fn check_prices(r: &mut Reader, plans: &[Plan]) {
    let mut seen = BTreeMap::new();
    for plan in plans {
        for (provider, price) in &plan.prices {
            if let Some(other) = seen.insert((provider, price), &plan.id) {
                let key = format!("billing.plans.{}.prices.{provider}", plan.id);
                r.fault(&key, format!("is the price of “{other}”, too"));
            }
        }
    }
}

fn provider(r: &mut Reader, profile: Profile, name: &str) -> Option<PaymentProvider> {
    let table = format!("billing.providers.{name}");
    let key = |field: &str| format!("{table}.{field}");
    let kind =
        r.choice(&key("kind"), &[("dev", Kind::Dev), ("postback", Kind::Postback), ("stripe", Kind::Stripe)]);
    let Some(kind) = kind else {
        // Which settings a provider has depends on what it is.
        r.pass_over(&table);
        return None;
    };
    let kind = match kind {
        Kind::Dev => {
            checks::dev_gateway(r, profile, &key("kind"));
            Some(PaymentKind::Dev)
        }
        Kind::Postback => postback(r, profile, key).map(PaymentKind::Postback),
        Kind::Stripe => stripe(r, profile, key).map(PaymentKind::Stripe),
    };
    Some(PaymentProvider { name: name.to_owned(), kind: kind? })
}

fn stripe(r: &mut Reader, profile: Profile, key: impl Fn(&str) -> String) -> Option<StripeSettings> {
    let mode = mode(r, profile, &key("mode"));
    let base_url = if r.has(&key("base_url")) { r.url(&key("base_url")) } else { STRIPE.parse().ok() };
    checks::provider_url(r, profile, &key("base_url"), base_url.as_ref());
    let secret_key = r.secret(&key("secret_key"));
    match &secret_key {
        Some(None) => r.fault(&key("secret_key"), "is missing"),
        Some(Some(secret)) if is_of_other_mode(secret, mode) => {
            r.fault(&key("secret_key"), "is one of the other mode");
        }
        _ => {}
    }
    let webhook_secrets = secrets(r, profile, &key("webhook_secrets"));
    Some(StripeSettings {
        base_url: base_url?,
        secret_key: secret_key??,
        webhook_secrets: webhook_secrets?,
        mode: mode?,
    })
}

/// Whether a key of Stripe's says that it belongs to the other mode.
fn is_of_other_mode(secret: &SecretString, mode: Option<Mode>) -> bool {
    let names = |word: &str| secret.expose_secret().split('_').nth(1) == Some(word);
    match mode {
        Some(Mode::Live) => names("test"),
        Some(Mode::Test) => names("live"),
        None => false,
    }
}

fn postback(r: &mut Reader, profile: Profile, key: impl Fn(&str) -> String) -> Option<PostbackSettings> {
    let mode = mode(r, profile, &key("mode"));
    let base_url = r.page_url(&key("base_url"));
    checks::provider_url(r, profile, &key("base_url"), base_url.as_ref());
    let manage_url = optional_page(r, &key("manage_url"));
    let webhook_secrets = secrets(r, profile, &key("webhook_secrets"));
    let allowed_peers =
        if r.has(&key("allowed_peers")) { r.networks(&key("allowed_peers")) } else { Some(Vec::new()) };
    let path_secret = r.secret(&key("path_secret"));
    if let Some(Some(secret)) = &path_secret {
        let is_segment = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        if !secret.expose_secret().chars().all(is_segment) {
            r.fault(&key("path_secret"), "may have letters, digits, -, _, . and ~ only");
        }
        checks::payment_secret(r, profile, &key("path_secret"), secret.expose_secret());
    }
    let reply = if r.has(&key("reply")) { r.needed_text(&key("reply")) } else { Some(REPLY.to_owned()) };
    Some(PostbackSettings {
        base_url: base_url?,
        manage_url: manage_url?,
        webhook_secrets: webhook_secrets?,
        allowed_peers: allowed_peers?,
        path_secret: path_secret?,
        reply: reply?,
        mode: mode?,
    })
}

fn optional_page(r: &mut Reader, key: &str) -> Option<Option<Url>> {
    if r.has(key) { r.page_url(key).map(Some) } else { Some(None) }
}

/// In development no real money moves where nothing else is said.
fn mode(r: &mut Reader, profile: Profile, key: &str) -> Option<Mode> {
    if profile == Profile::Development && !r.has(key) {
        return Some(Mode::Test);
    }
    r.choice(key, &[("test", Mode::Test), ("live", Mode::Live)])
}

/// Secrets that sign, the newest first: the old one stays while a provider changes over.
fn secrets(r: &mut Reader, profile: Profile, key: &str) -> Option<Vec<SecretString>> {
    let Some(given) = r.secret(key)? else {
        r.fault(key, "is missing");
        return None;
    };
    let parts = given.expose_secret().split([',', '\n']).map(str::trim).filter(|secret| !secret.is_empty());
    let secrets: Vec<&str> = parts.collect();
    if secrets.is_empty() {
        r.fault(key, "is missing");
    }
    for secret in &secrets {
        checks::payment_secret(r, profile, key, secret);
    }
    Some(secrets.into_iter().map(|secret| SecretString::from(secret.to_owned())).collect())
}
