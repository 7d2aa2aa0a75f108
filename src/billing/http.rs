//! The routes of subscriptions.

mod webhooks;

use axum::{Json, extract::State};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Billing, BillingError, Paywall, PlanCard, Subscription, Wall, checkout::CheckoutForm,
    gateway::GatewayError,
};
use crate::{
    auth::CurrentUser,
    platform::{
        extract::ApiJson,
        keyring::KeyError,
        page::List,
        problem::{Code, Problem},
        time,
    },
};

/// The routes.
pub fn routes() -> OpenApiRouter<Billing> {
    OpenApiRouter::new()
        .routes(routes!(plans))
        .routes(routes!(subscription))
        .routes(routes!(checkout))
        .routes(routes!(portal))
        .routes(routes!(cancel))
        .routes(routes!(sync))
        .merge(webhooks::routes())
}

/// The plans
///
/// What they cost is shown at the checkout.
#[utoipa::path(get, path = "/v1/plans", tag = "subscription", responses(
    (status = 200, description = "The plans, the smallest first.", body = List<PlanCard>),
))]
async fn plans(State(billing): State<Billing>) -> Json<List<PlanCard>> {
    Json(List { data: billing.plans() })
}

/// The subscription
///
/// Why access is as it is, and until when.
#[utoipa::path(get, path = "/v1/subscription", tag = "subscription", responses(
    (status = 200, description = "The caller's access.", body = Subscription),
))]
async fn subscription(
    State(billing): State<Billing>,
    CurrentUser(caller): CurrentUser,
) -> Result<Json<Subscription>, Problem> {
    Ok(Json(billing.subscription(caller.user_id).await.map_err(Problem::storage)?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckoutBody {
    /// The id of a plan of `GET /v1/plans` that is available.
    #[schema(example = "plus")]
    plan: String,
    /// Where to come back to. On one of the allowed origins.
    #[schema(max_length = 2048, example = "https://www.example.com/welcome")]
    success_url: String,
    /// Where to come back to without having bought. On one of the allowed origins.
    #[schema(max_length = 2048, example = "https://www.example.com/plans")]
    cancel_url: String,
}

#[derive(Serialize, ToSchema)]
struct CheckoutAnswer {
    /// The provider's page. Whoever has the address can use it.
    url: String,
    /// When the page ends.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Begin a checkout
///
/// Asked again for the same plan, the answer is the same page until it ends. On return from it, send
/// `POST /v1/subscription/sync`.
#[utoipa::path(post, path = "/v1/subscription/checkout", tag = "subscription", request_body = CheckoutBody, responses(
    (status = 200, description = "Where to send the buyer.", body = CheckoutAnswer),
))]
async fn checkout(
    State(billing): State<Billing>,
    CurrentUser(caller): CurrentUser,
    ApiJson(body): ApiJson<CheckoutBody>,
) -> Result<Json<CheckoutAnswer>, Problem> {
    let CheckoutBody { plan, success_url, cancel_url } = body;
    let form = CheckoutForm { plan, success_url, cancel_url };
    let opened = billing.checkout(caller.user_id, &form).await?;
    Ok(Json(CheckoutAnswer { url: opened.url.expose_secret().to_owned(), expires_at: opened.expires_at }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PortalBody {
    /// Where to come back to. On one of the allowed origins.
    #[schema(max_length = 2048, example = "https://www.example.com/account")]
    return_url: String,
}

#[derive(Serialize, ToSchema)]
struct PortalAnswer {
    /// The provider's page. Whoever has the address can use it.
    url: String,
}

/// Manage the subscription
///
/// A page of the provider's for payment details, invoices and the end.
#[utoipa::path(post, path = "/v1/subscription/portal", tag = "subscription", request_body = PortalBody, responses(
    (status = 200, description = "Where to send the customer.", body = PortalAnswer),
))]
async fn portal(
    State(billing): State<Billing>,
    CurrentUser(caller): CurrentUser,
    ApiJson(body): ApiJson<PortalBody>,
) -> Result<Json<PortalAnswer>, Problem> {
    let url = billing.portal(caller.user_id, &body.return_url).await?;
    Ok(Json(PortalAnswer { url: url.expose_secret().to_owned() }))
}

/// End the subscription
///
/// It does not renew; access lasts to the end of what is paid.
#[utoipa::path(post, path = "/v1/subscription/cancel", tag = "subscription", responses(
    (status = 200, description = "The caller's access.", body = Subscription),
))]
async fn cancel(
    State(billing): State<Billing>,
    CurrentUser(caller): CurrentUser,
) -> Result<Json<Subscription>, Problem> {
    Ok(Json(billing.cancel(caller.user_id).await?))
}

/// Ask the provider now
///
/// For the page that a buyer comes back to. Where the provider does not answer within some seconds, or cannot be asked, the
/// answer is what is known.
#[utoipa::path(post, path = "/v1/subscription/sync", tag = "subscription", responses(
    (status = 200, description = "The caller's access.", body = Subscription),
))]
async fn sync(
    State(billing): State<Billing>,
    CurrentUser(caller): CurrentUser,
) -> Result<Json<Subscription>, Problem> {
    Ok(Json(billing.sync_user(caller.user_id).await?))
}

impl From<&Paywall> for Problem {
    /// 402, with what a frontend draws its paywall from.
    fn from(paywall: &Paywall) -> Self {
        let (code, detail) = match paywall.wall {
            Wall::SubscriptionRequired => (Code::SubscriptionRequired, "This is not included."),
            Wall::QuotaExhausted => (Code::QuotaExhausted, "Today's messages are used up."),
            Wall::PaymentPastDue => (Code::PaymentPastDue, "The last payment did not go through."),
            Wall::PaymentOnHold => (Code::PaymentOnHold, "The access is on hold."),
        };
        let quota = &paywall.quota;
        Problem::new(code, detail)
            .with("plan", quota.plan.clone())
            .with("used", quota.used)
            .with("limit", quota.limit)
            .with("resets_at", time::rfc3339(quota.resets_at))
            .with("upgrade_url", paywall.upgrade_url.clone())
    }
}

/// A problem that the caller can mend on the provider's page, where there is one.
fn at_the_provider(code: Code, detail: &'static str, manage_url: Option<String>) -> Problem {
    let problem = Problem::new(code, detail);
    match manage_url {
        Some(url) => problem.with("manage_url", url),
        None => problem,
    }
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::Invalid(errors) => Problem::validation(errors),
            BillingError::Conflict { detail, manage_url } => {
                at_the_provider(Code::Conflict, detail, manage_url)
            }
            BillingError::AlreadySubscribed { manage_url } => {
                let detail = "There is a subscription already. Change or end it at the provider.";
                at_the_provider(Code::AlreadySubscribed, detail, manage_url)
            }
            BillingError::Walled(paywall) => (&*paywall).into(),
            BillingError::AskedTooOften { wait } => {
                Problem::new(Code::RateLimited, "The provider was asked too often.").retry_after(wait)
            }
            BillingError::NotFound => Problem::not_found(),
            BillingError::Gateway(
                error @ (GatewayError::Misconfigured(_)
                | GatewayError::Refused(_)
                | GatewayError::Protocol(_)
                | GatewayError::Unsupported),
            ) => Problem::internal(error),
            BillingError::Gateway(error @ GatewayError::Unavailable(_)) => {
                Problem::new(Code::Unavailable, "The payment provider cannot be used at the moment.")
                    .retry_after(std::time::Duration::from_secs(5))
                    .caused_by(error)
            }
            BillingError::Auth(error) => error.into(),
            BillingError::Storage(error) | BillingError::Key(KeyError::Storage(error)) => {
                Problem::storage(error)
            }
            error @ (BillingError::Key(KeyError::DoesNotOpen(_)) | BillingError::Job(_)) => {
                Problem::internal(error)
            }
        }
    }
}
